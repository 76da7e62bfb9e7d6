//! What happens when: chapters and their stages, shown while they happen and kept for the report.

use std::cell::RefCell;
use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::interrupt;
use crate::progress;

/// How often progress is repeated where lines cannot be rewritten.
const REPEAT: Duration = Duration::from_secs(10);

pub struct Timeline {
    start: Instant,
    is_terminal: bool,
    spans: RefCell<Vec<Span>>,
    live: RefCell<Option<Instant>>,
}

/// From when to when, in seconds since the start.
#[derive(Debug, Clone)]
pub struct Span {
    pub name: &'static str,
    pub from: f64,
    pub to: f64,
    /// A part of a chapter.
    pub is_stage: bool,
}

impl Timeline {
    pub fn start() -> Self {
        Self {
            start: Instant::now(),
            is_terminal: stderr().is_terminal(),
            spans: RefCell::default(),
            live: RefCell::default(),
        }
    }

    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Seconds since the start.
    pub fn now(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// Announces a chapter, does its `work`, and notes how long it took.
    ///
    /// # Errors
    /// Those of `work`, unchanged; or if the demo was interrupted.
    pub fn chapter<T>(&self, name: &'static str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        interrupt::check()?;
        let from = self.now();
        eprintln!("\n{}  {}", clock(from), self.bold(name));
        let result = work();
        self.clear();
        if result.is_ok() {
            self.spans.borrow_mut().push(Span { name, from, to: self.now(), is_stage: false });
        }
        result
    }

    /// Notes a part of a chapter.
    pub fn stage(&self, name: &'static str, from: f64, to: f64) {
        self.spans.borrow_mut().push(Span { name, from, to, is_stage: true });
    }

    /// How long a chapter or stage took; zero if it was not there.
    pub fn seconds(&self, name: &str) -> f64 {
        let spans = self.spans.borrow();
        spans.iter().filter(|span| span.name == name).map(|span| span.to - span.from).sum()
    }

    /// Everything so far, in the order of its beginning.
    pub fn spans(&self) -> Vec<Span> {
        let mut spans = self.spans.borrow().clone();
        spans.sort_by(|a, b| a.from.total_cmp(&b.from).then(a.is_stage.cmp(&b.is_stage)));
        spans
    }

    /// A line that stays, with the time.
    pub fn say(&self, text: &str) {
        self.clear();
        eprintln!("{}  {text}", clock(self.now()));
    }

    /// A line that belongs to the one before.
    pub fn more(&self, text: &str) {
        self.clear();
        eprintln!("       {text}");
    }

    /// Where something stands: rewritten at a terminal, repeated now and then elsewhere.
    pub fn live(&self, text: &str) {
        if self.is_terminal {
            eprint!("\r\x1b[K{}  ... {text}", clock(self.now()));
            // A terminal that went away is no reason to stop.
            let _ = stderr().flush();
            *self.live.borrow_mut() = Some(Instant::now());
            return;
        }
        let mut last = self.live.borrow_mut();
        if last.is_none_or(|last| last.elapsed() >= REPEAT) {
            eprintln!("{}  ... {text}", clock(self.now()));
            *last = Some(Instant::now());
        }
    }

    /// `text`, standing out where that is possible.
    pub fn bold(&self, text: &str) -> String {
        if self.is_terminal { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn clear(&self) {
        if self.is_terminal && self.live.borrow_mut().take().is_some() {
            eprint!("\r\x1b[K");
        }
    }
}

/// `kubectl ...` as one would type it, and how long it took.
///
/// # Errors
/// Those of `work`.
pub fn typed<T>(line: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    progress::step(&format!("$ {line}"), work)
}

/// ` 1:05`, five characters wide.
fn clock(seconds: f64) -> String {
    let whole = seconds as u64;
    format!("{:>2}:{:02}", whole / 60, whole % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_follow_the_chapter_that_they_belong_to() {
        let timeline = Timeline::start();
        timeline.stage("second", 2.0, 3.5);
        timeline.stage("first", 1.0, 2.0);
        timeline.spans.borrow_mut().push(Span { name: "chapter", from: 1.0, to: 4.0, is_stage: false });
        let names: Vec<_> = timeline.spans().into_iter().map(|span| span.name).collect();
        assert_eq!(names, ["chapter", "first", "second"]);
        assert_eq!(timeline.seconds("second"), 1.5);
        assert_eq!(timeline.seconds("never"), 0.0);
    }

    #[test]
    fn the_clock_reads_minutes_and_seconds() {
        assert_eq!((clock(5.9), clock(65.0), clock(754.2)), (" 0:05".into(), " 1:05".into(), "12:34".into()));
    }
}
