//! Who tells people what happened, in events.

use std::sync::{Mutex, PoisonError};

use kube::Client;
use kube_runtime::events::{Recorder, Reporter};

/// Events that one recorder publishes. It keeps each for six minutes, to fold what is repeated into a series, and looks at all
/// that it keeps whenever it publishes: a burst of thousands would be most of the operator's memory.
const MOST_KEPT: u32 = 256;

/// Publishes in the operator's name.
pub struct Herald {
    client: Client,
    reporter: Reporter,
    /// The one at work, and how many events it was lent for.
    current: Mutex<(Recorder, u32)>,
}

impl Herald {
    pub fn new(client: Client, reporter: Reporter) -> Self {
        let first = Recorder::new(client.clone(), reporter.clone());
        Self { client, reporter, current: Mutex::new((first, 0)) }
    }

    /// For one event. What is repeated under the next recorder is an event of its own.
    pub fn recorder(&self) -> Recorder {
        // Nothing in here panics half-way.
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let (recorder, lent) = &mut *current;
        if *lent == MOST_KEPT {
            *lent = 0;
            *recorder = Recorder::new(self.client.clone(), self.reporter.clone());
        }
        *lent += 1;
        recorder.clone()
    }
}
