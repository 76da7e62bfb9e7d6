//! `show`: bytes of the store to stdout, verified.

use std::io::Write;

use lethe_api::contract::{Manifest, exit};

use crate::{
    artifacts::Artifacts,
    cli::ShowArgs,
    failure::{Failed, Result},
};

pub(crate) fn main(args: &ShowArgs) -> i32 {
    match find(args).and_then(|bytes| write(&bytes)) {
        Ok(()) => exit::DONE,
        Err(failed) => failed.tell(),
    }
}

/// A record, a blob or a file of a bundle: a digest is one of them.
fn find(args: &ShowArgs) -> Result<Vec<u8>> {
    let artifacts = Artifacts::open(&args.store)?;
    if args.file.is_none() {
        let found = artifacts.record(&args.digest)?;
        let found = found.map_or_else(|| artifacts.blob(&args.digest), |record| Ok(Some(record)))?;
        if let Some(bytes) = found {
            return Ok(bytes);
        }
    }
    let bundle = artifacts.any_bundle(&args.digest)?;
    match args.file.as_deref().unwrap_or(Manifest::FILE) {
        Manifest::FILE => Ok(bundle.manifest().to_vec()),
        Manifest::WEIGHTS => Ok(bundle.weights().to_vec()),
        Manifest::MODEL => Ok(bundle.model().to_vec()),
        other => Err(Failed::bad_plan(format!(
            "a bundle has no file {other:?}: say {}, {} or {}",
            Manifest::FILE,
            Manifest::WEIGHTS,
            Manifest::MODEL
        ))),
    }
}

fn write(bytes: &[u8]) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
    written.map_err(|error| Failed::internal(format!("cannot write to stdout: {error}")))
}
