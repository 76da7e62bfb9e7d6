//! `import`: the tool in Python that reads checkpoints (`tools/import`), by another name.

use std::{
    io::ErrorKind,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

use crate::{
    cli::ImportArgs,
    failure::{Failed, Result},
};

const PYTHON: &str = "python3";
const MODULE: &str = "lethe_import";
/// Ends well if Python would find the module.
const FIND: &str = "import importlib.util, sys; sys.exit(importlib.util.find_spec('lethe_import') is None)";

/// Returns only if the tool cannot be started: else this process becomes the tool, and has its exit code.
pub(crate) fn main(args: &ImportArgs) -> i32 {
    let failed = match find() {
        Ok(()) => unstartable(python().args(["-m", MODULE]).args(&args.arguments).exec()),
        Err(failed) => failed,
    };
    failed.tell()
}

fn find() -> Result<()> {
    let silent = || Stdio::null();
    let found = python().args(["-c", FIND]).stdin(silent()).stdout(silent()).stderr(silent()).status();
    if found.map_err(unstartable)?.success() {
        return Ok(());
    }
    Err(Failed::bad_configuration(format!(
        "{PYTHON} does not find the module {MODULE}: set PYTHONPATH to tools/import of Lethe's sources"
    )))
}

/// Python as whoever started this program would have started it.
fn python() -> Command {
    let mut python = Command::new(PYTHON);
    for name in lethe_sfd::process::VARIABLES {
        python.env_remove(name);
    }
    python
}

fn unstartable(error: std::io::Error) -> Failed {
    Failed::bad_configuration(match error.kind() {
        ErrorKind::NotFound => format!(
            "import needs {PYTHON}, 3.9 or later, and there is none in PATH: install it, and import where the checkpoint is; \
             the trainer's image has no Python"
        ),
        _ => format!("cannot start {PYTHON}: {error}"),
    })
}
