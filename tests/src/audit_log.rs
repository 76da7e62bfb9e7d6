//! The operator's audit log, as an auditor reads it.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use lethe_store::{
    folder_uri,
    log::{Log, Reading},
};
use lethe_transparency::{Action, Entry, Said, Upshot};

use crate::{keys::Key, world::World};

/// The log's name, and its key's.
pub const ORIGIN: &str = "lethe.dev/tests";

impl World {
    /// Operators that are started from now on keep an audit log, which they sign with this key.
    ///
    /// # Errors
    /// If there can be none.
    pub async fn keep_log(&self) -> Result<Key> {
        let key = self.key("log")?;
        fs::create_dir(self.log_folder())?;
        self.set_flags(self.log_flags(&key)?).await;
        Ok(key)
    }

    /// Flags of a program that writes to the log with this key.
    ///
    /// # Errors
    /// If there is no place for it.
    pub fn log_flags(&self, key: &Key) -> Result<Vec<String>> {
        let log = format!("--audit-log={}", folder_uri(&self.log_folder())?);
        Ok([key.flags(&[key])?, vec![log, format!("--audit-log-origin={ORIGIN}")]].concat())
    }

    pub fn log_folder(&self) -> PathBuf {
        self.store_folder().join("log")
    }

    /// All of the log.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn read_log(&self, key: &Key) -> Result<Reading> {
        let log = Log::open(&folder_uri(&self.log_folder())?)?;
        Ok(log.read(ORIGIN, &key.trusted()?).await?)
    }

    /// The volume of the log goes, and comes back with [`Self::mend_log`].
    ///
    /// # Errors
    /// If it is not there.
    pub fn break_log(&self) -> Result<()> {
        fs::rename(self.log_folder(), self.log_folder().with_extension("away"))?;
        fs::write(self.log_folder(), "").context("nothing can be in its place")
    }

    /// # Errors
    /// If it was not broken.
    pub fn mend_log(&self) -> Result<()> {
        fs::remove_file(self.log_folder())?;
        fs::rename(self.log_folder().with_extension("away"), self.log_folder()).context("it is gone")
    }
}

/// An intent or a decision, with what became of it.
#[derive(Clone, Debug)]
pub struct Told {
    pub number: u64,
    pub action: Action,
    /// Kind and name of the object.
    pub object: (String, String),
    pub after: String,
    pub late: bool,
    /// The number of the outcome, and what it is.
    pub outcome: Option<(u64, Upshot)>,
}

/// All of them, in order.
pub fn told(entries: &[Entry]) -> Vec<Told> {
    let mut told: Vec<Told> = Vec::new();
    for (number, entry) in (0..).zip(entries) {
        match &entry.said {
            Said::Intent { action, object, after, .. } | Said::Decision { action, object, after, .. } => {
                let object = (object.kind.clone(), object.name.clone());
                let (action, after, late) = (*action, after.clone(), entry.late);
                told.push(Told { number, action, object, after, late, outcome: None });
            }
            Said::Outcome { of, upshot, .. } => {
                if let Some(it) = told.iter_mut().find(|it| it.number == *of) {
                    it.outcome = Some((number, *upshot));
                }
            }
            Said::Began | Said::Gap { .. } => {}
        }
    }
    told
}
