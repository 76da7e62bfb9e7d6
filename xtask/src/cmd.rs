//! Running other programs so that a failure shows what the program itself said.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// How many of a failed program's last lines an error shows.
const TAIL_LINES: usize = 30;

/// Runs `command` to its end with both output streams in `log`.
///
/// # Errors
/// If the program cannot be started or fails; the error holds its last lines and the path of the rest.
pub fn run_logged(command: &mut Command, log: &Path) -> Result<()> {
    if let Some(dir) = log.parent() {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    let file = File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
    let errors = file.try_clone()?;
    let status = command
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(errors)
        .status()
        .with_context(|| format!("cannot start `{}`", program(command)))?;
    if !status.success() {
        bail!(
            "`{}` failed ({status}); its last lines:\n{}\nall of it: {}",
            line(command),
            tail(log),
            log.display()
        );
    }
    Ok(())
}

/// Runs `command` to its end and returns what it wrote to standard output, trimmed.
///
/// # Errors
/// If the program cannot be started or fails; the error holds what it wrote to standard error.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{}`", program(command)))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed ({}): {}", line(command), output.status, errors.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The last lines of a log, indented; says so when there is no log or nothing in it.
pub fn tail(log: &Path) -> String {
    match read_end(log, 16 * 1024) {
        Ok(text) if text.trim().is_empty() => format!("  | (nothing in {})", log.display()),
        Ok(text) => {
            let lines: Vec<&str> = text.lines().collect();
            let first = lines.len().saturating_sub(TAIL_LINES);
            lines[first..].iter().map(|line| format!("  | {line}")).collect::<Vec<_>>().join("\n")
        }
        Err(error) => format!("  | (cannot read {}: {error})", log.display()),
    }
}

/// The path of `name` in `PATH`, if it is there. Also looks where administrators' tools live, which is not
/// in every user's `PATH`.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// Program and arguments as one line for messages.
pub fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn program(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

fn read_end(file: &Path, limit: u64) -> std::io::Result<String> {
    let mut file = File::open(file)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(limit)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_the_last_lines_and_where_the_rest_is() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("logs/step.log");
        let script = "for i in $(seq 100); do echo line $i; done; echo the reason >&2; exit 3";
        let error = run_logged(Command::new("sh").args(["-c", script]), &log).unwrap_err().to_string();
        assert!(error.contains("exit status: 3"), "{error}");
        assert!(error.contains("  | the reason"), "{error}");
        assert!(error.contains("  | line 100") && !error.contains("  | line 7\n"), "{error}");
        assert!(error.contains(&log.display().to_string()), "{error}");
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = output(&mut Command::new("no-such-program-here")).unwrap_err();
        assert!(error.to_string().contains("no-such-program-here"), "{error}");
    }
}
