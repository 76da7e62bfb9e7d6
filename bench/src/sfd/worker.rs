//! Programs that are made ready once and then do steps when they are asked to, so that two of them can take turns often:
//! what else a machine does then meets both alike.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// A program that reads numbers of steps, one a line, and answers each with a line of JSON.
#[derive(Debug)]
pub struct Worker {
    program: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Worker {
    /// # Errors
    /// If the program cannot be started.
    pub fn start(command: &mut Command) -> Result<Self> {
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut program = spawned.with_context(|| format!("cannot start {command:?}"))?;
        let questions = program.stdin.take().context("a worker has no input")?;
        let answers = BufReader::new(program.stdout.take().context("a worker has no output")?);
        Ok(Self { program, questions, answers })
    }

    /// Has `steps` steps done; returns what they cost.
    ///
    /// # Errors
    /// If the program ends, or says something that is not JSON.
    pub fn work(&mut self, steps: u64) -> Result<Value> {
        // An end shows in the answer.
        let _ = writeln!(self.questions, "{steps}");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).context("cannot read a worker's answer")?;
        ensure!(!answer.is_empty(), "a worker ended: {}", self.program.wait()?);
        serde_json::from_str(&answer).with_context(|| format!("{answer:?} is not JSON"))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(script: &str) -> Worker {
        Worker::start(Command::new("sh").args(["-c", script])).unwrap()
    }

    #[test]
    fn every_question_has_its_answer() {
        let mut doubles = worker("while read n; do echo $((2 * n)); done");
        assert_eq!([3, 5].map(|steps| doubles.work(steps).unwrap()), [6, 10]);
    }

    #[test]
    fn a_worker_that_ends_is_an_error() {
        let error = worker("read n; exit 7").work(1).unwrap_err().to_string();
        assert!(error.contains("exit status: 7"), "{error}");
    }
}
