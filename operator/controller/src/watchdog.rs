//! When each watch last showed a sign of life.

use std::{
    collections::BTreeMap,
    sync::Mutex,
    time::{Duration, SystemTime},
};

/// A watch is dead when so many signs of life that were due did not come.
const MISSED: u32 = 3;

/// Signs of life by the path that is watched.
#[derive(Debug)]
pub struct Watchdog {
    watch_seconds: u32,
    last: Mutex<BTreeMap<String, SystemTime>>,
}

impl Watchdog {
    /// For watches that the API server ends after `watch_seconds`.
    pub fn new(watch_seconds: u32) -> Self {
        Self { watch_seconds, last: Mutex::default() }
    }

    /// The API server is asked to end every watch after this many seconds.
    pub fn watch_seconds(&self) -> u32 {
        self.watch_seconds
    }

    /// The watch at `path` was opened: it is silent from now on, unless it was so before.
    pub fn expect(&self, path: &str) {
        if let Ok(mut last) = self.last.lock() {
            last.entry(path.to_owned()).or_insert_with(SystemTime::now);
        }
    }

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
        let most = Duration::from_secs(self.watch_seconds.into()) * MISSED;
        let silent = |time: SystemTime| now.duration_since(time).is_ok_and(|silence| silence > most);
        last.iter().filter(|&(_, &time)| silent(time)).map(|(path, _)| path.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALE: Duration = Duration::from_secs(600);

    #[test]
    fn a_watch_that_was_not_reopened_is_stale_and_named() {
        let dog = Watchdog::new(200);
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
        let dog = Watchdog::new(200);
        let start = SystemTime::UNIX_EPOCH;
        dog.beat_at("/api/v1/namespaces/a/pods", start + STALE);
        dog.beat_at("/api/v1/namespaces/b/pods", start);
        assert_eq!(dog.by_resource(), BTreeMap::from([("pods".to_owned(), start)]));
    }
}
