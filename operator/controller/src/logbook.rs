//! What is said to the audit log: an intent before each effect, a decision before the status that says it, and what became of
//! them afterwards.
//!
//! Everybody says it to one task, [`crate::scribe`], which writes at once what came while it was writing: a burst of a
//! thousand decisions is a few writes, not a thousand.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use lethe_transparency::{Said, Upshot};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::Instrument;

use crate::spans;

/// What must be written before it is done is given up after this: it is decided again.
const PATIENCE: Duration = Duration::from_secs(15);
/// What is done in any case waits no longer: a store that hangs must not keep in service what has to go.
const COURTESY: Duration = Duration::from_secs(2);

/// One intent or decision, as long as this process lives.
pub type Ticket = u64;

/// Whom one says it to. Cheap to clone.
#[derive(Clone)]
pub struct Logbook {
    scribe: Option<Arc<Scribe>>,
}

struct Scribe {
    to: mpsc::UnboundedSender<Message>,
    problem: watch::Receiver<Option<String>>,
    tickets: AtomicU64,
}

/// What the scribe is told.
#[derive(Debug)]
pub enum Message {
    /// To be written now, all of it in order. The answer is why it could not be.
    Announce { notes: Vec<Note>, answer: oneshot::Sender<Result<(), String>> },
    /// What became of one. Of what was not written, nothing is said.
    Conclude { ticket: Ticket, at: Timestamp, upshot: Upshot, reason: &'static str },
}

/// An intent or a decision.
#[derive(Clone, Debug)]
pub struct Note {
    pub ticket: Ticket,
    pub at: Timestamp,
    pub said: Said,
    /// It is not done before it is written.
    pub first: bool,
}

/// Something to be said, and whether it is not done before it is written.
#[derive(Clone, Debug)]
pub struct Announcement {
    pub said: Said,
    pub first: bool,
}

impl Logbook {
    /// No log is kept.
    pub fn none() -> Self {
        Self { scribe: None }
    }

    /// The scribe's end of it, and the one through which it says what is wrong.
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Message>, watch::Sender<Option<String>>) {
        let (to, messages) = mpsc::unbounded_channel();
        let (problem, is_wrong) = watch::channel(None);
        let scribe = Scribe { to, problem: is_wrong, tickets: AtomicU64::new(0) };
        (Self { scribe: Some(Arc::new(scribe)) }, messages, problem)
    }

    /// Why nothing can be written, as far as is known.
    pub fn problem(&self) -> Option<String> {
        self.scribe.as_ref()?.problem.borrow().clone()
    }

    /// Says what is about to be done, and waits until it is written. If it cannot be, what may be done without is done all
    /// the same, and written later.
    pub async fn announce(&self, all: Vec<Announcement>) -> Page {
        let Some(scribe) = self.scribe.as_ref().filter(|_| !all.is_empty()) else { return Page::blank() };
        let first_ticket = scribe.tickets.fetch_add(all.len() as u64, Ordering::Relaxed);
        let must = all.iter().any(|it| it.first);
        let at = Timestamp::now();
        let note = |(ticket, it): (u64, Announcement)| Note { ticket, at, said: it.said, first: it.first };
        let notes: Vec<_> = (first_ticket..).zip(all).map(note).collect();
        let open = notes.iter().map(|note| Some(note.ticket)).collect();
        let (answer, answered) = oneshot::channel();
        let sent = scribe.to.send(Message::Announce { notes, answer });
        let patience = if must { PATIENCE } else { COURTESY };
        let waits = spans::step(
            "wait for the audit log",
            if must { "must be said first" } else { "may be said later" },
        );
        let unlogged = match sent {
            Err(_) => Some("nobody writes it any more".to_owned()),
            Ok(()) => match tokio::time::timeout(patience, answered).instrument(waits.clone()).await {
                Ok(Ok(written)) => written.err(),
                Ok(Err(_)) => Some("nobody writes it any more".into()),
                Err(_) => Some(format!("it was not written within {} s", patience.as_secs())),
            },
        };
        if let Some(why) = &unlogged {
            spans::failed(&waits, "unlogged", why);
        }
        Page { scribe: Some(scribe.clone()), open, unlogged }
    }
}

/// What was said about one decision, in order. What has no outcome when this goes is left undone.
pub struct Page {
    scribe: Option<Arc<Scribe>>,
    open: Vec<Option<Ticket>>,
    unlogged: Option<String>,
}

impl Page {
    fn blank() -> Self {
        Self { scribe: None, open: Vec::new(), unlogged: None }
    }

    /// Why it is not written, if it is not.
    pub fn unlogged(&self) -> Option<&str> {
        self.unlogged.as_deref()
    }

    /// What became of number `index`. `reason` is from a closed set.
    pub fn conclude(&mut self, index: usize, upshot: Upshot, reason: &'static str) {
        let ticket = self.open.get_mut(index).and_then(Option::take);
        if let (Some(scribe), Some(ticket)) = (&self.scribe, ticket) {
            // If nobody writes any more, whoever comes next closes it.
            let _ = scribe.to.send(Message::Conclude { ticket, at: Timestamp::now(), upshot, reason });
        }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        for index in 0..self.open.len() {
            self.conclude(index, Upshot::LeftUndone, "");
        }
    }
}
