//! One line per step, with its time, so that nobody waits without knowing for what.
//!
//! On a terminal a step that takes longer than [`QUIET`] shows its running time; elsewhere (CI logs) it is
//! announced once and reported when it ends. Steps are not nested: a step is the smallest thing worth a line.

use std::io::{IsTerminal, Write, stderr};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::Result;

/// Below this a step is reported only when it is over.
const QUIET: Duration = Duration::from_secs(2);
const REFRESH: Duration = Duration::from_millis(200);

/// Runs `work` and reports it on standard error under `label`.
///
/// # Errors
/// Those of `work`, unchanged; the line then says `FAILED`.
pub fn step<T>(label: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    let live = stderr().is_terminal();
    let result = std::thread::scope(|scope| {
        let (done, over) = channel::<()>();
        scope.spawn(move || show_while_running(label, start, live, &over));
        let result = work();
        drop(done);
        result
    });
    let mark = if result.is_ok() { "ok    " } else { "FAILED" };
    let clear = if live { "\r\x1b[K" } else { "" };
    eprintln!("{clear}{mark} {label} ({})", seconds(start.elapsed()));
    result
}

/// Reports something that needed no work, in the same column as the steps.
pub fn note(text: &str) {
    eprintln!("ok     {text}");
}

/// Reports something that was left out, and why. Loud, because a skipped check must never look like a pass.
pub fn skip(what: &str, why: &str) {
    eprintln!("SKIP   {what}: {why}");
}

/// Writes a result to standard output.
///
/// # Errors
/// If nobody reads it any more, or it cannot be written.
pub fn say(text: impl std::fmt::Display) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

/// `3.2 s` or `4 min 05 s`.
pub fn seconds(time: Duration) -> String {
    let whole = time.as_secs();
    if whole < 60 {
        format!("{:.1} s", time.as_secs_f64())
    } else {
        format!("{} min {:02} s", whole / 60, whole % 60)
    }
}

fn show_while_running(label: &str, start: Instant, live: bool, over: &Receiver<()>) {
    let mut wait = QUIET;
    while over.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
        if !live {
            eprintln!("...    {label}");
            // Nothing more to say until the step is over.
            let _ = over.recv();
            return;
        }
        eprint!("\r\x1b[K...    {label} ({})", seconds(start.elapsed()));
        let _ = stderr().flush();
        wait = REFRESH;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short_to_read() {
        assert_eq!(seconds(Duration::from_millis(3240)), "3.2 s");
        assert_eq!(seconds(Duration::from_secs(245)), "4 min 05 s");
    }

    #[test]
    fn a_step_hands_its_error_on() {
        let result: Result<()> = step("fails", || anyhow::bail!("the reason"));
        assert_eq!(result.unwrap_err().to_string(), "the reason");
    }
}
