//! Running tests and counting them.

use std::io::{BufRead, BufReader};
use std::ops::Add;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result};

use crate::cmd;

/// How many tests passed and failed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) passed: usize,
    pub(super) failed: usize,
}

impl Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Counts { passed: self.passed + other.passed, failed: self.failed + other.failed }
    }
}

/// Runs `cargo test`, showing its output as it comes, and adds up its result lines.
pub(super) fn run(command: &mut Command) -> Result<(Counts, ExitStatus)> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{}`", cmd::line(command)))?;
    let mut counts = Counts::default();
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).split(b'\n') {
            let line = String::from_utf8_lossy(&line?).into_owned();
            println!("{line}");
            counts = counts + result_line(&line).unwrap_or_default();
        }
    }
    Ok((counts, child.wait()?))
}

/// `test result: ok. 12 passed; 0 failed; 0 ignored; ...`
fn result_line(line: &str) -> Option<Counts> {
    let (_, rest) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let number = |word: &str| {
        let part = rest.split("; ").find(|part| part.ends_with(word))?;
        part.split(' ').next()?.parse().ok()
    };
    Some(Counts { passed: number(" passed")?, failed: number(" failed")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_counted_and_others_are_not() {
        let ok =
            "test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out; finished in 0.00s";
        assert_eq!(result_line(ok), Some(Counts { passed: 12, failed: 0 }));
        let failed = "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(result_line(failed), Some(Counts { passed: 2, failed: 1 }));
        assert_eq!(result_line("test gates::a_good_record ... ok"), None);
    }

    #[test]
    fn the_output_of_a_failing_run_is_still_counted() {
        let script = "echo 'test result: FAILED. 2 passed; 1 failed; 0 ignored'; exit 101";
        let (counts, status) = run(Command::new("sh").args(["-c", script])).unwrap();
        assert_eq!(counts, Counts { passed: 2, failed: 1 });
        assert!(!status.success());
    }
}
