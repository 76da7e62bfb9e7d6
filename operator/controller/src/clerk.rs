//! Says to the audit log what a command does that runs once, beside the operator that leads: what it is about to change in the
//! store before it does, and what became of it afterwards.
//!
//! The log has one history, whoever writes it: who is overtaken reads the end anew, and goes on after it. The checkpoint is left
//! to the leader.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use lethe_api::Digest;
use lethe_store::{
    Item,
    log::{LogError, Writer},
};
use lethe_transparency::{Action, Entry, Object, Said, Upshot, Writer as Signature};
use tokio::time::sleep;

use crate::{Args, keeping::Keeping};

/// More at once are not open. A leader that begins meanwhile closes them as it would those of a command that has died.
const AT_ONCE: usize = 256;
/// Between those. The leader, whom each of them overtakes, needs a moment to find the end of the log.
const PAUSE: Duration = Duration::from_secs(1);
/// A leader that is busy may be faster several times.
const TRIES: usize = 20;

/// Why nothing is done.
#[derive(Debug, thiserror::Error)]
#[error("the audit log cannot be written: {0}. Nothing is done that it cannot say")]
pub struct Silent(String);

pub struct Clerk {
    /// None: no log is kept.
    keeping: Option<Keeping>,
    writer: Option<Writer>,
}

impl Clerk {
    pub fn new(args: &Args) -> Self {
        Self { keeping: args.keeping(), writer: None }
    }

    /// Does something to each of these, after it was said. What became of it is said in any case.
    ///
    /// # Errors
    /// If the log cannot be written, or the first that could not be done.
    pub async fn perform<T, E: From<Silent>>(
        &mut self,
        action: Action,
        all: &[T],
        item: impl Fn(&T) -> &Item,
        mut act: impl AsyncFnMut(&T) -> Result<(), E>,
    ) -> Result<(), E> {
        for (index, some) in all.chunks(AT_ONCE).enumerate() {
            if index > 0 && self.keeping.is_some() {
                sleep(PAUSE).await;
            }
            let numbers = self.say(some.iter().map(|it| intent(action, item(it))).collect()).await?;
            let (mut done, mut upshots) = (Ok(()), Vec::new());
            for it in some {
                upshots.push(match &done {
                    Err(_) => Upshot::LeftUndone,
                    Ok(()) => {
                        done = act(it).await;
                        if done.is_ok() { Upshot::Done } else { Upshot::Failed }
                    }
                });
            }
            let said = self.conclude(&numbers, &upshots).await;
            done?;
            said?;
        }
        Ok(())
    }

    async fn conclude(&mut self, numbers: &[u64], upshots: &[Upshot]) -> Result<(), Silent> {
        let outcomes = numbers.iter().zip(upshots);
        let outcomes =
            outcomes.map(|(of, upshot)| Said::Outcome { of: *of, upshot: *upshot, reason: String::new() });
        self.say(outcomes.collect()).await.map(|_| ())
    }

    /// All of it is in the log when this returns, under these numbers. An outcome that a leader has said meanwhile is not said
    /// again.
    async fn say(&mut self, said: Vec<Said>) -> Result<Vec<u64>, Silent> {
        let Some(keeping) = self.keeping.clone() else { return Ok(Vec::new()) };
        let by = Signature { version: env!("CARGO_PKG_VERSION").into(), replica: keeping.replica.clone() };
        let at = Timestamp::now().to_string();
        let entry = |said: &Said| Entry { at: at.clone(), by: by.clone(), late: false, said: said.clone() };
        let (mut rest, mut numbers) = (said, Vec::new());
        for _ in 0..TRIES {
            let mut writer = match self.writer.take() {
                Some(writer) => writer,
                None => open(&keeping).await?,
            };
            let is_open = |of: &u64| writer.book().open().any(|open| open == *of);
            rest.retain(|said| !matches!(said, Said::Outcome { of, .. } if !is_open(of)));
            if rest.is_empty() {
                self.writer = Some(writer);
                return Ok(numbers);
            }
            let entries: Vec<_> = rest.iter().map(entry).collect();
            let first = writer.size();
            let taken = writer.propose(&entries).map_err(silent)?;
            match writer.commit().await {
                Ok(()) => {
                    rest.drain(..taken);
                    numbers.extend(first..first + taken as u64);
                    self.writer = Some(writer);
                }
                Err(LogError::Overtaken) => {}
                Err(error) => return Err(silent(error)),
            }
        }
        Err(silent(LogError::Overtaken))
    }
}

fn silent(error: LogError) -> Silent {
    Silent(error.to_string())
}

async fn open(keeping: &Keeping) -> Result<Writer, Silent> {
    let (log, key, trusted) = keeping.open().map_err(Silent)?;
    Writer::open(log, &keeping.origin, Arc::new(key), trusted).await.map_err(silent)
}

fn intent(action: Action, item: &Item) -> Said {
    let what: Digest = item.digest.clone();
    Said::Intent {
        action,
        object: Object {
            kind: item.kind.to_string(),
            namespace: String::new(),
            name: what.to_string(),
            uid: String::new(),
        },
        before: String::new(),
        after: String::new(),
        digests: [("content".to_owned(), what)].into(),
        reason: String::new(),
    }
}
