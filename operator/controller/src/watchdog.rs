//! When each watch last showed a sign of life.

use std::{
    collections::BTreeMap,
    sync::Mutex,
    time::{Duration, SystemTime},
};

/// The API server ends every watch after this many seconds. Shorter than the 240 s after which some load
/// balancers drop an idle connection without a word.
pub const WATCH_SECONDS: u32 = 200;

/// After this long without a sign of life a watch is dead: three that were due did not come.
const STALE: Duration = Duration::from_secs(3 * WATCH_SECONDS as u64);

/// Signs of life by the path that is watched.
#[derive(Debug, Default)]
pub struct Watchdog {
    last: Mutex<BTreeMap<String, SystemTime>>,
}

impl Watchdog {
    /// Something was heard from the watch at `path`.
    pub fn beat(&self, path: &str) {
        self.beat_at(path, SystemTime::now());
    }

    fn beat_at(&self, path: &str, now: SystemTime) {
        if let Ok(mut last) = self.last.lock() {
            match last.get_mut(path) {
                Some(time) => *time = now,
                None => {
                    last.insert(path.to_owned(), now);
                }
            }
        }
    }

    /// The last sign of life of the quietest watch of each resource (the last segment of its path).
    pub fn by_resource(&self) -> BTreeMap<String, SystemTime> {
        let mut oldest = BTreeMap::new();
        if let Ok(last) = self.last.lock() {
            for (path, &time) in last.iter() {
                let resource = path.rsplit('/').next().unwrap_or(path);
                let entry = oldest.entry(resource.to_owned()).or_insert(time);
                *entry = time.min(*entry);
            }
        }
        oldest
    }

    /// Watches that were alive once and are not any more.
    pub fn stale(&self) -> Vec<String> {
        self.stale_at(SystemTime::now())
    }

    fn stale_at(&self, now: SystemTime) -> Vec<String> {
        let Ok(last) = self.last.lock() else { return Vec::new() };
        let silent = |time: SystemTime| now.duration_since(time).is_ok_and(|silence| silence > STALE);
        last.iter().filter(|&(_, &time)| silent(time)).map(|(path, _)| path.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_that_was_not_reopened_is_stale_and_named() {
        let dog = Watchdog::default();
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        dog.beat_at("/apis/batch/v1/jobs", start);
        dog.beat_at("/api/v1/pods", start);
        dog.beat_at("/api/v1/pods", start + STALE);
        assert!(dog.stale_at(start + STALE).is_empty());
        let later = start + STALE + Duration::from_secs(1);
        assert_eq!(dog.stale_at(later), ["/apis/batch/v1/jobs"]);
    }

    #[test]
    fn of_several_namespaces_the_quietest_counts() {
        let dog = Watchdog::default();
        let start = SystemTime::UNIX_EPOCH;
        dog.beat_at("/api/v1/namespaces/a/pods", start + STALE);
        dog.beat_at("/api/v1/namespaces/b/pods", start);
        assert_eq!(dog.by_resource(), BTreeMap::from([("pods".to_owned(), start)]));
    }
}
