//! What can be wrong with a store or with what lies in it.

use std::{error::Error as StdError, fmt, io};

use lethe_api::Digest;

use crate::cloud;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Every variant's message is one line that says what was wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{uri:?} is not the URI of a store: {reason}")]
    Uri { uri: String, reason: String },
    #[error("{what} does not exist: check the digest and that it is this store")]
    NotFound { what: String },
    /// Truncated, overwritten, or never what its name says.
    #[error("{what} is corrupt: expected {expected}, found {found}; restore it or write it again")]
    Corrupt { what: String, expected: String, found: String },
    /// Nothing tells whether the file is damaged or whoever asked is mistaken.
    #[error("{what} has digest {found}, you asked for {asked}: correct the digest, or restore the file")]
    Another { what: String, found: Digest, asked: Digest },
    #[error("{what} has {bytes} bytes; at most {max} are read")]
    TooLarge { what: String, bytes: u64, max: u64 },
    /// Intact, but not what may be here: a pickle, a strange file name, another kind of bundle.
    #[error("{what} is refused: {reason}")]
    Refused { what: String, reason: String },
    /// The store's surroundings are wrong. Trying again does not help.
    #[error("cannot {action} {what}: {problem}")]
    Unusable { action: &'static str, what: String, problem: Problem },
    /// The store did not answer. Trying again may help.
    #[error("cannot {action} {what}: {reason}; try again")]
    Unavailable { action: &'static str, what: String, reason: String },
}

/// Why a store cannot be used as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    ReadOnly,
    Full,
    Denied,
    NotAFolder,
    Missing,
    Unauthorized,
    NoBucket,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Problem::ReadOnly => "the store is read-only; mount it writable",
            Problem::Full => "the store is full; free some space or give it more",
            Problem::Denied => "permission denied; check the owner of the store and the user of this process",
            Problem::NotAFolder => "a part of its path is a file where a folder must be",
            Problem::Missing => "the store's folder does not exist; check that the volume is mounted",
            Problem::Unauthorized => "access was refused; check the store's credentials, and what they allow",
            Problem::NoBucket => "there is no such bucket; create it, or correct the store's URI",
        })
    }
}

impl Error {
    /// Sorts a failure of the storage below. Only the causes that a person can act on are told apart.
    pub(crate) fn from_storage(action: &'static str, what: String, error: object_store::Error) -> Self {
        if let Some(problem) = io_kind(&error).and_then(problem) {
            return Error::Unusable { action, what, problem };
        }
        // Whether it is a bucket, and which, is in its name.
        let said = what.contains("://").then(|| cloud::problem(&error.to_string())).flatten();
        if let Some(problem) = said {
            return Error::Unusable { action, what, problem };
        }
        match error {
            object_store::Error::NotFound { .. } => Error::NotFound { what },
            // A local file system says so by itself, above.
            object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
                Error::Unusable { action, what, problem: Problem::Unauthorized }
            }
            other => Error::Unavailable { action, what, reason: one_line(&other) },
        }
    }

    pub(crate) fn corrupt(what: impl Into<String>, expected: impl ToString, found: impl ToString) -> Self {
        Error::Corrupt { what: what.into(), expected: expected.to_string(), found: found.to_string() }
    }

    pub(crate) fn refused(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Error::Refused { what: what.into(), reason: reason.into() }
    }
}

/// The operating system's own word for it, wherever in the chain of causes it stands.
fn io_kind(error: &object_store::Error) -> Option<io::ErrorKind> {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io.kind());
        }
        cause = error.source();
    }
    None
}

fn problem(kind: io::ErrorKind) -> Option<Problem> {
    match kind {
        io::ErrorKind::ReadOnlyFilesystem => Some(Problem::ReadOnly),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            Some(Problem::Full)
        }
        io::ErrorKind::PermissionDenied => Some(Problem::Denied),
        io::ErrorKind::NotADirectory => Some(Problem::NotAFolder),
        _ => None,
    }
}

/// Messages of the storage below may span lines and repeat a path: keep the first line.
fn one_line(error: &object_store::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the local file system reports it: the cause lies two levels down.
    fn storage(os_error: i32) -> object_store::Error {
        #[derive(Debug, thiserror::Error)]
        #[error("Unable to create file")]
        struct Middle(#[source] io::Error);
        let source = Box::new(Middle(io::Error::from_raw_os_error(os_error)));
        object_store::Error::Generic { store: "LocalFileSystem", source }
    }

    #[test]
    fn a_person_is_told_what_is_wrong_with_the_store() {
        const EACCES: i32 = 13;
        const ENOTDIR: i32 = 20;
        const ENOSPC: i32 = 28;
        const EROFS: i32 = 30;
        const EDQUOT: i32 = 122;
        let expected = [
            (EROFS, Problem::ReadOnly),
            (ENOSPC, Problem::Full),
            (EDQUOT, Problem::Full),
            (EACCES, Problem::Denied),
            (ENOTDIR, Problem::NotAFolder),
        ];
        for (os_error, expected) in expected {
            let error = Error::from_storage("write", "x".into(), storage(os_error));
            assert!(
                matches!(error, Error::Unusable { problem, .. } if problem == expected),
                "{os_error}: {error:?}"
            );
        }
    }

    #[test]
    fn an_error_that_may_pass_is_one_to_try_again() {
        const EIO: i32 = 5;
        let error = Error::from_storage("read", "records/x".into(), storage(EIO));
        assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
        assert!(!error.to_string().contains('\n'), "{error}");
    }
}
