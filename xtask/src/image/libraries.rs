//! Which shared libraries a program needs, as the loader of this machine finds them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::cmd;

/// Name (or, for the loader itself, path) and file of every library that `program` needs, directly or not.
/// `search` is looked at first.
///
/// # Errors
/// If a library is not found; the message names it.
pub fn needed_by(program: &Path, search: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let said = cmd::output(Command::new("ldd").arg(program).env("LD_LIBRARY_PATH", search))?;
    parse(&said, program)
}

fn parse(said: &str, program: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    for line in said.lines().map(str::trim) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [name, "=>", "not", "found"] => {
                bail!("{} needs {name}, which is not on this machine", program.display())
            }
            [name, "=>", path, ..] => found.insert(name.to_owned(), path.into()),
            [path, _] if path.starts_with('/') => found.insert(path.to_owned(), path.into()),
            // The kernel's own, or a static program.
            _ => None,
        };
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_the_loader_are_found_and_the_kernels_own_is_left_out() {
        let said = "\tlinux-vdso.so.1 (0x0007f)\n\tlibm.so.6 => /lib/libm.so.6 (0x0007f)\n\t/lib64/ld-linux-x86-64.so.2 (0x0007f)\n";
        let found = parse(said, Path::new("program")).unwrap();
        let names: Vec<_> = found.keys().map(String::as_str).collect();
        assert_eq!(names, ["/lib64/ld-linux-x86-64.so.2", "libm.so.6"]);
    }

    #[test]
    fn a_missing_library_is_an_error_that_names_it() {
        let error = parse("\tlibgomp.so.1 => not found\n", Path::new("/t/program")).unwrap_err().to_string();
        assert!(error.contains("libgomp.so.1") && error.contains("/t/program"), "{error}");
    }
}
