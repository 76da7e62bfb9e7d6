//! Says to the audit log what a command does that runs once, beside the operator that leads: what it is about to change in the
//! store before it does, and what became of it afterwards.
//!
//! The log has one history, whoever writes it: who is overtaken reads the end anew, and goes on after it. The checkpoint is left
//! to the leader.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use lethe_store::{
    Item,
    log::{LogError, Writer},
};
use lethe_transparency::{Action, Entry, Object, Said, Upshot};
use tokio::time::sleep;

use crate::{Args, keeping::Keeping};

/// More at once are not open: as many as a command that dies leaves behind.
const AT_ONCE: usize = 256;
/// Between those. The leader, whom each of them overtakes, needs a moment to find the end of the log.
const PAUSE: Duration = Duration::from_secs(1);
/// How often it is tried to say something: half a minute, and for what was done already, minutes. A leader that is busy may be faster
/// several times, and a store may be away.
const SOON: u32 = 10;
const PATIENT: u32 = 60;
/// Between two tries, at first and at most.
const WAIT: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

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
            let (numbers, said) =
                self.say(some.iter().map(|it| intent(action, item(it))).collect(), SOON).await;
            if let Err(silent) = said {
                // A part of them may be in the log.
                let undone = vec![Upshot::LeftUndone; numbers.len()];
                let _ = self.conclude(&numbers, &undone).await;
                return Err(silent.into());
            }
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
        self.say(outcomes.collect(), PATIENT).await.1
    }

    /// Says all of it. Returns the numbers of what is in the log, and why not all of it is. An outcome that a leader has said
    /// meanwhile is not said again.
    async fn say(&mut self, said: Vec<Said>, tries: u32) -> (Vec<u64>, Result<(), Silent>) {
        let (mut numbers, mut rest) = (Vec::new(), said);
        let Some(keeping) = self.keeping.clone().filter(|_| !rest.is_empty()) else {
            return (numbers, Ok(()));
        };
        let (mut wait, mut last) = (WAIT.0, Ok(()));
        for _ in 0..tries {
            match self.say_some(&keeping, &mut rest, &mut numbers).await {
                Ok(()) if rest.is_empty() => return (numbers, Ok(())),
                Ok(()) => {
                    wait = WAIT.0;
                    continue;
                }
                Err(silent) => last = Err(silent),
            }
            sleep(wait).await;
            wait = (wait * 2).min(WAIT.1);
        }
        (numbers, last)
    }

    /// As much as is written at once. What may be in the log or not is asked for again with the next try.
    async fn say_some(
        &mut self,
        keeping: &Keeping,
        rest: &mut Vec<Said>,
        numbers: &mut Vec<u64>,
    ) -> Result<(), Silent> {
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => open(keeping).await?,
        };
        let first = writer.size();
        if !writer.is_pending() {
            let is_open = |of: &u64| writer.book().open().any(|open| open == *of);
            rest.retain(|said| !matches!(said, Said::Outcome { of, .. } if !is_open(of)));
            let by = keeping.signature();
            let at = Timestamp::now().to_string();
            let entry =
                |said: &Said| Entry { at: at.clone(), by: by.clone(), late: false, said: said.clone() };
            writer.propose(&rest.iter().map(entry).collect::<Vec<_>>()).map_err(silent)?;
        }
        match writer.commit().await {
            Ok(()) => {
                rest.drain(..(writer.size() - first) as usize);
                numbers.extend(first..writer.size());
                self.writer = Some(writer);
                Ok(())
            }
            // The end of the log is found anew.
            Err(error @ LogError::Overtaken) => Err(silent(error)),
            Err(error) => {
                self.writer = Some(writer);
                Err(silent(error))
            }
        }
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
    let what = item.digest.clone();
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
