//! How a command ends: what scripts read.

use std::{io, process::ExitCode};

/// The exit codes. They are documented in `docs/kubectl-lethe.md` and in `--help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It was done, or what was asked about is fine.
    Fine = 0,
    /// Something is not right with what was asked about: a manifest, a piece of evidence, a request's answer.
    NotRight = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// It could not be found out: no cluster, no such object, no such file, no answer in time.
    Unreachable = 3,
    /// The API server refused it: a right is missing, or admission said no.
    Refused = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// Why a command could not do what it was asked for.
#[derive(Debug)]
pub struct Trouble {
    pub exit: Exit,
    /// For people; empty if there is nobody left to read it.
    pub message: String,
}

pub type Result<T> = std::result::Result<T, Trouble>;

impl Trouble {
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }

    pub fn not_right(message: impl Into<String>) -> Self {
        Self::new(Exit::NotRight, message)
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    pub fn unreachable(message: impl Into<String>) -> Self {
        Self::new(Exit::Unreachable, message)
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // Whoever read what was written has seen enough.
            io::ErrorKind::BrokenPipe => Self::new(Exit::Fine, ""),
            _ => Self::unreachable(error.to_string()),
        }
    }
}
