//! Measurement records, from the store.

use std::time::Duration;

use lethe_api::{Digest, contract::Record};
use lethe_core::run::RecordProblem;
use lethe_store::{Error, Store};

const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// The verified bytes of a record. The store is opened anew each time, so that a volume that was mounted
/// late, or replaced, is seen.
pub async fn read(uri: &str, digest: &Digest) -> Result<Vec<u8>, RecordProblem> {
    let owned = uri.to_owned();
    // Opening looks at the file system: one that hangs must not take the lease's renewal with it.
    let open = tokio::task::spawn_blocking(move || Store::open(&owned));
    let read = async {
        let store = open.await.map_err(|error| transient(error.to_string()))?.map_err(problem)?;
        store.get_record(digest, Record::MAX_BYTES).await.map_err(problem)
    };
    match tokio::time::timeout(READ_TIMEOUT, read).await {
        Ok(record) => record,
        Err(_) => {
            Err(transient(format!("the store {uri} did not answer within {} s", READ_TIMEOUT.as_secs())))
        }
    }
}

fn transient(message: String) -> RecordProblem {
    RecordProblem { transient: true, message }
}

fn problem(error: Error) -> RecordProblem {
    let transient = match error {
        // The store's surroundings: they may be put right, and the record may be there.
        Error::Uri { .. } | Error::Unusable { .. } | Error::Unavailable { .. } => true,
        Error::NotFound { .. }
        | Error::Corrupt { .. }
        | Error::Another { .. }
        | Error::TooLarge { .. }
        | Error::Refused { .. } => false,
    };
    RecordProblem { transient, message: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_store_that_is_not_there_may_still_come() {
        let problem = read("file:///no/such/store", &Digest::of(b"x")).await.unwrap_err();
        assert!(problem.transient, "{}", problem.message);
    }

    #[tokio::test]
    async fn a_record_that_is_not_in_the_store_will_not_come() {
        let folder = std::env::temp_dir();
        let uri = lethe_store::folder_uri(&folder).unwrap();
        let problem = read(&uri, &Digest::of(b"never written")).await.unwrap_err();
        assert!(!problem.transient, "{}", problem.message);
    }
}
