//! What is asked of the store, and measurement records.

use std::{future::Future, time::Duration};

use lethe_api::{Digest, contract::Record};
use lethe_core::run::RecordProblem;
use lethe_store::{Error, Store};
use tokio::sync::Semaphore;
use tracing::Instrument;

use crate::spans;

const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// So many read at once. A file system that hangs keeps each of them, and its thread, until it comes back: without a limit
/// those who ask again would take all threads there are, and names of hosts could not be looked up any more.
static READERS: Semaphore = Semaphore::const_new(16);

/// The verified bytes of a record.
pub async fn read(uri: &str, digest: &Digest) -> Result<Vec<u8>, RecordProblem> {
    let digest = digest.clone();
    ask(READ_TIMEOUT, &READERS, uri, move |store| async move {
        store.get_record(&digest, Record::MAX_BYTES).await.map_err(problem)
    })
    .await
}

/// Asks the store for something, with patience. It is opened anew each time, so that a volume that was mounted late, or
/// replaced, is seen.
pub async fn with_store<T: Send + 'static, F>(
    uri: &str,
    asked: impl FnOnce(Store) -> F + Send + 'static,
) -> Result<T, RecordProblem>
where
    F: Future<Output = Result<T, RecordProblem>> + Send,
{
    ask(READ_TIMEOUT, &READERS, uri, asked).await
}

async fn ask<T: Send + 'static, F>(
    patience: Duration,
    readers: &'static Semaphore,
    uri: &str,
    asked: impl FnOnce(Store) -> F + Send + 'static,
) -> Result<T, RecordProblem>
where
    F: Future<Output = Result<T, RecordProblem>> + Send,
{
    let owned = uri.to_owned();
    let read = async {
        let reader = readers.acquire().await.map_err(|error| transient(error.to_string()))?;
        // A task of its own: whoever does not wait any longer leaves the file system as busy as it is.
        let read = tokio::spawn(async move {
            let _reader = reader;
            // Opening looks at the file system: one that hangs must not take the lease's renewal with it.
            let open = tokio::task::spawn_blocking(move || Store::open(&owned));
            asked(open.await.map_err(|error| transient(error.to_string()))?.map_err(problem)?).await
        });
        read.await.map_err(|error| transient(error.to_string()))?
    };
    let span = spans::step("ask the store", uri);
    let answer = match tokio::time::timeout(patience, read).instrument(span.clone()).await {
        Ok(answer) => answer,
        Err(_) => {
            let seconds = patience.as_secs();
            Err(transient(format!("the store {uri} did not answer within {seconds} s")))
        }
    };
    answer.inspect_err(|problem| spans::failed(&span, "store", &problem.message))
}

fn transient(message: String) -> RecordProblem {
    RecordProblem { transient: true, message }
}

pub fn problem(error: Error) -> RecordProblem {
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

    /// A pipe that nobody writes to answers as a network file system does whose server is gone: not at all.
    #[tokio::test]
    async fn a_store_that_hangs_is_not_waited_for_and_keeps_few_readers_until_it_is_back() {
        static FEW: Semaphore = Semaphore::const_new(2);
        let folder = tempfile::tempdir().unwrap();
        let uri = lethe_store::folder_uri(folder.path()).unwrap();
        let digest = Digest::of(b"{}");
        let file = folder.path().join("records").join(format!("{}.json", digest.hex()));
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        let pipe = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &file, pipe, rustix::fs::Mode::RWXU, 0).unwrap();
        for _ in 0..4 {
            let asked = digest.clone();
            let problem = ask(Duration::from_millis(200), &FEW, &uri, move |store| async move {
                store.get_record(&asked, Record::MAX_BYTES).await.map_err(problem)
            });
            let problem = problem.await.unwrap_err();
            assert!(problem.transient && problem.message.contains("did not answer within"), "{problem:?}");
        }
        assert_eq!(FEW.available_permits(), 0, "those that nobody waits for any more are still reading");
        // It is back. Whoever hung in it gets an answer, and so does the next one.
        let hung = std::fs::OpenOptions::new().write(true).open(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        std::fs::write(&file, "{}").unwrap();
        drop(hung);
        let record = ask(Duration::from_secs(60), &FEW, &uri, move |store| async move {
            store.get_record(&digest, Record::MAX_BYTES).await.map_err(problem)
        });
        let record = record.await.unwrap();
        assert_eq!(record, b"{}");
    }
}
