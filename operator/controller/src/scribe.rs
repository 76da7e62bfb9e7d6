//! The one task that writes the audit log. It writes at once all that was said while it was writing, and only for as long as
//! this replica holds the lease.
//!
//! **What it cannot write it does not forget**: what was done meanwhile is written as soon as it can be, and marked late. What
//! may not be done before it is written is told so, and is not done.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures::FutureExt;
use jiff::Timestamp;
use kube::Client;
use lethe_store::log::{Known, LogError, Writer};
use lethe_transparency::{Entry, Said, Upshot};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};

use crate::{
    keeping::{Keeping, Keys},
    leader::Leadership,
    logbook::{Message, Note, Ticket},
    metrics::LogMetrics,
    repair,
};

/// A store that does not answer is waited for so long. What hangs in it goes on hanging: nothing else is begun meanwhile.
const PATIENCE: Duration = Duration::from_secs(8);
/// How soon to try again what could not be written, and how late at most.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));
/// More entries are not kept while nothing can be written. What is lost is counted, and said.
const MOST_KEPT: usize = 4096;
/// More than one tile is never written at once.
const AT_ONCE: usize = 256;
/// How often the checkpoint is written while there is always more to write.
const PUBLISH_EVERY: Duration = Duration::from_secs(1);
/// How often to see whether a key was replaced.
const READ_KEYS_EVERY: Duration = Duration::from_secs(60);

/// Something to be written.
struct Line {
    at: Timestamp,
    what: What,
    late: bool,
}

enum What {
    Note(Note),
    Outcome(Ticket, Upshot, &'static str),
    /// Of an entry that is in the log already, by its number.
    Closing(u64, Upshot),
    Plain(Said),
}

/// Somebody who waits until all of what they said is written.
struct Waiting {
    last: Ticket,
    answer: oneshot::Sender<Result<(), String>>,
}

/// What is done with the store.
type Work = Result<(), LogError>;

pub struct Scribe {
    keeping: Keeping,
    client: Client,
    leadership: Leadership,
    metrics: LogMetrics,
    problem: watch::Sender<Option<String>>,
    /// What this process knows of the log, for whoever goes through it.
    known: watch::Sender<Known>,
    /// The end of the log, if it was found.
    writer: Option<Writer>,
    /// The end of the log is being found. It may take longer than anybody waits.
    opening: Option<JoinHandle<Result<(Writer, Keys), String>>>,
    /// The keys that it was opened with, and when they were looked at last.
    keys: Keys,
    keys_read: Instant,
    /// Something that the store does not answer to.
    hung: Option<JoinHandle<(Writer, Work)>>,
    /// What the writer is about to append, in order.
    proposed: Vec<Line>,
    queue: VecDeque<Line>,
    /// Entries of this process without an outcome, by their tickets.
    numbers: HashMap<Ticket, u64>,
    waiting: Vec<Waiting>,
    lost: u64,
    retry: Duration,
    published: Instant,
}

impl Scribe {
    pub fn new(
        keeping: Keeping,
        client: Client,
        leadership: Leadership,
        metrics: LogMetrics,
        problem: watch::Sender<Option<String>>,
    ) -> Self {
        Self {
            keeping,
            client,
            leadership,
            metrics,
            problem,
            known: watch::Sender::default(),
            writer: None,
            opening: None,
            keys: Keys::default(),
            keys_read: Instant::now(),
            hung: None,
            proposed: Vec::new(),
            queue: VecDeque::new(),
            numbers: HashMap::new(),
            waiting: Vec::new(),
            lost: 0,
            retry: RETRY.0,
            published: Instant::now(),
        }
    }

    /// What this process knows of the log; nothing before it was opened. Whoever has gone through it says what was found.
    pub fn known(&self) -> watch::Sender<Known> {
        self.known.clone()
    }

    /// Writes until nobody has anything to say any more, and then what is left.
    pub async fn run(mut self, mut messages: mpsc::UnboundedReceiver<Message>) {
        let mut acquired = Box::pin(self.leadership.acquisitions());
        let mut again = None;
        loop {
            let retry = async {
                match again {
                    Some(then) => sleep_until(then).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                message = messages.recv() => match message {
                    Some(message) => self.hear(message),
                    None => break,
                },
                Some(()) = futures::StreamExt::next(&mut acquired) => {}
                () = retry => {}
            }
            while let Some(Some(message)) = messages.recv().now_or_never() {
                self.hear(message);
            }
            again = self.write().await;
        }
        self.write().await;
    }

    fn hear(&mut self, message: Message) {
        match message {
            Message::Announce { notes, answer } => {
                let is_broken = self.problem.borrow().is_some();
                let last = notes.last().map_or(0, |note| note.ticket);
                for note in notes {
                    // Nobody does it now, and it is decided again.
                    if !(is_broken && note.first) {
                        self.keep(Line { at: note.at, what: What::Note(note), late: is_broken });
                    }
                }
                match self.problem.borrow().clone() {
                    Some(problem) => _ = answer.send(Err(problem)),
                    None => self.waiting.push(Waiting { last, answer }),
                }
            }
            // What was dropped, or never kept, has no outcome: they would pile up as long as nothing can be written.
            Message::Conclude { ticket, .. } if !self.is_kept(ticket) => {}
            Message::Conclude { ticket, at, upshot, reason } => {
                let is_late = self.problem.borrow().is_some();
                self.keep(Line { at, what: What::Outcome(ticket, upshot, reason), late: is_late });
            }
        }
    }

    fn is_kept(&self, ticket: Ticket) -> bool {
        let is_it = |line: &Line| matches!(&line.what, What::Note(note) if note.ticket == ticket);
        self.numbers.contains_key(&ticket) || self.proposed.iter().chain(&self.queue).any(is_it)
    }

    fn keep(&mut self, line: Line) {
        if self.queue.len() < MOST_KEPT || matches!(line.what, What::Outcome(..)) {
            self.queue.push_back(line);
        } else {
            self.lost += 1;
        }
        self.metrics.waiting.set(self.queue.len() as i64);
    }

    /// Writes all that there is to write, and says when to try again if that does not succeed.
    async fn write(&mut self) -> Option<Instant> {
        if !self.leadership.holds() {
            // Another one writes, or nobody: what it finds open it closes.
            self.fail("this replica does not hold the lease");
            self.give_up();
            return None;
        }
        match self.write_all().await {
            Ok(()) => {
                self.retry = RETRY.0;
                self.metrics.writable.set(1);
                if self.problem.send_replace(None).is_some() {
                    tracing::info!(log = self.keeping.uri, "the audit log can be written again");
                }
                None
            }
            Err(problem) => {
                tracing::warn!(log = self.keeping.uri, problem, "the audit log cannot be written");
                self.metrics.writable.set(0);
                self.metrics.append_errors.inc();
                self.fail(&problem);
                self.problem.send_replace(Some(problem));
                let then = Instant::now() + self.retry;
                self.retry = (self.retry * 2).min(RETRY.1);
                Some(then)
            }
        }
    }

    /// The lease is lost. If it comes back, the log is read anew, as after another process; what was not said is missed.
    fn give_up(&mut self) {
        let notes = self.queue.drain(..).chain(self.proposed.drain(..));
        self.lost += notes.filter(|line| matches!(line.what, What::Note(_))).count() as u64;
        self.numbers.clear();
        self.writer = None;
    }

    /// Tells whoever waits that it is not written. What may not be done without is taken back, if it is not on its way.
    fn fail(&mut self, problem: &str) {
        for waiting in self.waiting.drain(..) {
            let _ = waiting.answer.send(Err(problem.to_owned()));
        }
        self.queue.retain(|line| !matches!(&line.what, What::Note(note) if note.first));
        self.queue.iter_mut().for_each(|line| line.late = true);
    }

    async fn write_all(&mut self) -> Result<(), String> {
        self.wait_for_what_hangs().await?;
        // Once for each that overtakes: there is one more writer at most, and it stops soon.
        for _ in 0..3 {
            self.heed_new_keys().await;
            if self.writer.is_none() {
                self.open().await?;
            }
            match self.drain().await {
                Err(LogError::Overtaken) => self.start_anew(),
                other => return other.map_err(|error| error.to_string()),
            }
        }
        Err(LogError::Overtaken.to_string())
    }

    /// A key that was replaced is used soon, and not only by the next process.
    async fn heed_new_keys(&mut self) {
        let is_idle = self.writer.as_ref().is_some_and(|writer| !writer.is_pending());
        if !is_idle || self.keys_read.elapsed() < READ_KEYS_EVERY {
            return;
        }
        self.keys_read = Instant::now();
        let keeping = self.keeping.clone();
        let looked = tokio::task::spawn_blocking(move || keeping.keys());
        if let Ok(Ok(found)) = timeout(PATIENCE, looked).await
            && found != self.keys
        {
            tracing::info!(log = self.keeping.uri, "the keys of the audit log have changed");
            self.writer = None;
        }
    }

    async fn wait_for_what_hangs(&mut self) -> Result<(), String> {
        let Some(hung) = self.hung.as_mut() else { return Ok(()) };
        if !hung.is_finished() {
            return Err(unanswered());
        }
        match self.hung.take() {
            None => {}
            Some(hung) => match hung.await {
                Ok((_, Err(LogError::Overtaken))) | Err(_) => self.start_anew(),
                Ok((writer, _)) => {
                    let is_written = !writer.is_pending();
                    self.writer = Some(writer);
                    // What is still pending is asked for again.
                    if is_written {
                        self.written();
                    }
                }
            },
        }
        Ok(())
    }

    /// Finds the end of the log, and closes what a predecessor left open.
    async fn open(&mut self) -> Result<(), String> {
        let keeping = self.keeping.clone();
        // Opening looks at the file system: one that hangs must not take the lease's renewal with it.
        let mut opening = self.opening.take().unwrap_or_else(|| tokio::spawn(open(keeping)));
        let Ok(opened) = timeout(PATIENCE, &mut opening).await else {
            self.opening = Some(opening);
            return Err(unanswered());
        };
        let (writer, keys) = opened.map_err(|error| error.to_string())??;
        (self.keys, self.keys_read) = (keys, Instant::now());
        // Of a log that was opened before, and overtaken.
        self.queue.retain(|line| !matches!(line.what, What::Closing(..) | What::Plain(Said::Began)));
        let own: Vec<u64> = self.numbers.values().copied().collect();
        let closings = repair::close(&self.client, &writer, &own).await?;
        let at = Timestamp::now();
        let closing = |(number, upshot)| Line { at, what: What::Closing(number, upshot), late: false };
        let began = Line { at, what: What::Plain(Said::Began), late: false };
        let lost = std::mem::take(&mut self.lost);
        let gap = (lost > 0).then_some(What::Plain(Said::Gap { entries: lost }));
        let gap = gap.map(|what| Line { at, what, late: false });
        let first: Vec<_> = closings.into_iter().map(closing).chain([began]).chain(gap).collect();
        first.into_iter().rev().for_each(|line| self.queue.push_front(line));
        tracing::info!(log = self.keeping.uri, entries = writer.size(), "the audit log is open");
        self.metrics.size.set(writer.size() as i64);
        let mut known = self.known.borrow().clone();
        known.opened(writer.head()).map_err(|error| error.to_string())?;
        self.known.send_replace(known);
        self.writer = Some(writer);
        Ok(())
    }

    /// The log has got longer, or more of it is shown.
    fn know_more(&self) {
        if let Some(writer) = &self.writer {
            self.known.send_modify(|known| known.continued(writer.head(), writer.shown()));
        }
    }

    /// Another writer has written what this one was about to: it is read anew, and said after it.
    fn start_anew(&mut self) {
        self.writer = None;
        let again: Vec<_> = self.proposed.drain(..).collect();
        again.into_iter().rev().for_each(|line| self.queue.push_front(line));
    }

    /// Appends what is proposed and what waits, in as few writes as it takes.
    async fn drain(&mut self) -> Result<(), LogError> {
        loop {
            if self.writer.as_ref().is_some_and(|writer| !writer.is_pending())
                && let Err(error) = self.propose()
            {
                // What it knows of the log does not fit: it is read anew.
                self.writer = None;
                return Err(error);
            }
            if self.writer.as_ref().is_some_and(Writer::is_pending) {
                let start = Instant::now();
                self.with_writer(|mut writer| async move {
                    let work = writer.commit().await;
                    (writer, work)
                })
                .await?;
                let size = self.writer.as_ref().map_or(0, Writer::size);
                self.metrics.appended(self.proposed.len(), size, start.elapsed());
                self.written();
            }
            if self.queue.is_empty() || self.published.elapsed() > PUBLISH_EVERY {
                // It is known to be written only if that can be: what is published is only the head.
                self.with_writer(|mut writer| async move {
                    let work = writer.show().await;
                    (writer, work)
                })
                .await?;
                self.published = Instant::now();
                self.know_more();
            }
            if self.queue.is_empty() {
                return Ok(());
            }
        }
    }

    /// Takes from the queue what can be written at once.
    fn propose(&mut self) -> Result<(), LogError> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        let by = self.keeping.signature();
        let mut numbers = self.numbers.clone();
        let (mut lines, mut entries) = (Vec::new(), Vec::new());
        while entries.len() < AT_ONCE
            && let Some(line) = self.queue.pop_front()
        {
            let number = writer.size() + entries.len() as u64;
            let said = match &line.what {
                What::Note(note) => {
                    numbers.insert(note.ticket, number);
                    note.said.clone()
                }
                // What was not written has no outcome.
                What::Outcome(ticket, upshot, reason) => match numbers.remove(ticket) {
                    Some(of) => Said::Outcome { of, upshot: *upshot, reason: (*reason).into() },
                    None => continue,
                },
                What::Closing(of, upshot) => {
                    Said::Outcome { of: *of, upshot: *upshot, reason: String::new() }
                }
                What::Plain(said) => said.clone(),
            };
            entries.push(Entry { at: line.at.to_string(), by: by.clone(), late: line.late, said });
            lines.push(line);
        }
        let proposed = writer.propose(&entries);
        let taken = *proposed.as_ref().unwrap_or(&0);
        // The tile is full: the rest is next.
        for line in lines.drain(taken..).rev() {
            self.queue.push_front(line);
        }
        self.proposed = lines;
        proposed.map(|_| ())
    }

    /// What was proposed is in the log.
    fn written(&mut self) {
        self.know_more();
        let size = self.writer.as_ref().map_or(0, Writer::size);
        let first = size - self.proposed.len() as u64;
        for (number, line) in (first..).zip(self.proposed.drain(..)) {
            match line.what {
                What::Note(note) => {
                    self.numbers.insert(note.ticket, number);
                    let (done, waiting) =
                        std::mem::take(&mut self.waiting).into_iter().partition(|it| it.last == note.ticket);
                    self.waiting = waiting;
                    let done: Vec<Waiting> = done;
                    done.into_iter().for_each(|it| _ = it.answer.send(Ok(())));
                }
                What::Outcome(ticket, ..) => _ = self.numbers.remove(&ticket),
                What::Closing(..) | What::Plain(_) => {}
            }
        }
        self.metrics.waiting.set(self.queue.len() as i64);
    }

    /// Lets the writer do something, and does not wait for ever.
    async fn with_writer<F>(&mut self, work: impl FnOnce(Writer) -> F) -> Result<(), LogError>
    where
        F: Future<Output = (Writer, Work)> + Send + 'static,
    {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        let mut task = tokio::spawn(work(writer));
        match timeout(PATIENCE, &mut task).await {
            Ok(Ok((writer, work))) => {
                self.writer = Some(writer);
                work
            }
            // It panicked: the log is opened anew.
            Ok(Err(_)) => Err(LogError::Overtaken),
            Err(_) => {
                self.hung = Some(task);
                let (action, what) = ("write", self.keeping.uri.clone());
                Err(lethe_store::Error::Unavailable { action, what, reason: unanswered() }.into())
            }
        }
    }
}

fn unanswered() -> String {
    format!("the store did not answer within {} s", PATIENCE.as_secs())
}

async fn open(keeping: Keeping) -> Result<(Writer, Keys), String> {
    let looked = tokio::task::spawn_blocking(move || {
        let keys = keeping.keys();
        let (log, key, trusted) = keeping.open()?;
        Ok::<_, String>((log, keeping.origin, key, trusted, keys))
    });
    let (log, origin, key, trusted, keys) = looked.await.map_err(|error| error.to_string())??;
    let writer =
        Writer::open(log, &origin, Arc::new(key), trusted).await.map_err(|error| error.to_string())?;
    Ok((writer, keys))
}
