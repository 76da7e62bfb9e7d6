//! What is expensive to make is made once per machine and found again by what it was made from.
//!
//! Everything lies under one root outside the clone, so that a second clone is warm. An entry is a directory
//! (or file) named by the hash of its inputs; it appears by one rename and is never changed afterwards, so
//! whoever sees it may use it without a lock.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use sha2::{Digest, Sha256};

/// The cache of this user: `$LETHE_CACHE`, `$XDG_CACHE_HOME/lethe` or `~/.cache/lethe`.
///
/// # Errors
/// If none of the variables is set.
pub fn root() -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("LETHE_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("lethe")))
        .or_else(|| set("HOME").map(|dir| dir.join(".cache/lethe")))
        .ok_or_else(|| anyhow!("no place for the cache: set LETHE_CACHE to a directory, or HOME"))
}

/// Where the output of long steps is kept: the last run of each.
///
/// # Errors
/// As [`root`].
pub fn log(step: &str) -> Result<PathBuf> {
    Ok(root()?.join("logs").join(format!("{step}.log")))
}

/// The root of the clone this binary was built from.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Collects the inputs of a cache entry. Each input is hashed with its name and length, so that two different
/// lists of inputs never give the same key.
pub struct Key(Sha256);

impl Key {
    /// `recipe` names what is made and the version of how; change it when the making changes.
    pub fn new(recipe: &str) -> Self {
        Self(Sha256::new()).text("recipe", recipe)
    }

    /// Adds a value.
    #[must_use]
    pub fn text(self, name: &str, value: &str) -> Self {
        self.bytes(name, value.as_bytes())
    }

    /// Adds a file's content; where it lies does not matter.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn file(self, name: &str, path: &Path) -> Result<Self> {
        let content = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(self.bytes(name, &content))
    }

    /// The key as 16 hexadecimal digits.
    pub fn finish(self) -> String {
        hex::encode(&self.0.finalize()[..8])
    }

    fn bytes(mut self, name: &str, value: &[u8]) -> Self {
        for part in [name.as_bytes(), value] {
            self.0.update((part.len() as u64).to_le_bytes());
            self.0.update(part);
        }
        self
    }
}

/// Makes `entry` by `build` unless it is already there. `build` gets an empty directory beside it, which
/// becomes the entry by a rename; two processes that want the same entry build it once.
///
/// # Errors
/// Those of `build` and of the file system. A failed build leaves no entry.
pub fn publish(entry: &Path, build: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if entry.exists() {
        return Ok(());
    }
    let _lock = Lock::acquire(entry)?;
    if entry.exists() {
        return Ok(());
    }
    // Whoever built here before us held the lock and died: its remains are nobody's.
    let temporary = beside(entry, "tmp")?;
    remove(&temporary)?;
    fs::create_dir_all(&temporary).with_context(|| format!("cannot create {}", temporary.display()))?;
    let built = build(&temporary).and_then(|()| {
        fs::rename(&temporary, entry)
            .with_context(|| format!("cannot move a finished build to {}", entry.display()))
    });
    if built.is_err() {
        remove(&temporary)?;
    }
    built
}

/// Copies a file, into a folder that is made if it is not there.
///
/// # Errors
/// Of the file system, with both paths.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

/// Removes a file or a whole directory; nothing there is fine.
///
/// # Errors
/// Of the file system, with the path.
pub fn remove(path: &Path) -> Result<()> {
    let removed =
        if path.is_dir() && !path.is_symlink() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// An exclusive lock between processes. The kernel gives it back when the holder ends, however it ends.
pub struct Lock {
    path: PathBuf,
    file: File,
}

impl Lock {
    /// Takes the lock that belongs to `path`; waits, and says so, while another process has it.
    ///
    /// # Errors
    /// If the lock file beside `path` cannot be made or locked.
    pub fn acquire(path: &Path) -> Result<Self> {
        let lock = beside(path, "lock")?;
        if let Some(dir) = lock.parent() {
            fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        }
        loop {
            let file = File::create(&lock).with_context(|| format!("cannot create {}", lock.display()))?;
            wait_for(&file, path).with_context(|| format!("cannot lock {}", lock.display()))?;
            let held = Self { path: lock.clone(), file };
            if held.is_current() {
                return Ok(held);
            }
        }
    }

    /// Whether the locked file is still the one that others will find: the holder before us may have removed it.
    fn is_current(&self) -> bool {
        let identity = |data: fs::Metadata| (data.dev(), data.ino());
        match (self.file.metadata(), fs::metadata(&self.path)) {
            (Ok(held), Ok(found)) => identity(held) == identity(found),
            _ => false,
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Still locked: whoever waits for this file notices that it is gone and takes a new one.
        let _ = fs::remove_file(&self.path);
    }
}

fn wait_for(file: &File, path: &Path) -> std::io::Result<()> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            eprintln!("...    waiting for another process that works on {}", path.display());
            file.lock()
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// `dir/.name.suffix` for `dir/name`.
fn beside(path: &Path, suffix: &str) -> Result<PathBuf> {
    let name = path.file_name().with_context(|| format!("{} has no file name", path.display()))?;
    Ok(path.with_file_name(format!(".{}.{suffix}", name.to_string_lossy())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_depend_on_every_input_and_on_nothing_else() {
        let key = |a: &str, b: &str| Key::new("recipe 1").text("a", a).text("b", b).finish();
        assert_eq!(key("1", "2"), key("1", "2"));
        assert_ne!(key("1", "2"), key("2", "1"));
        assert_ne!(key("12", ""), key("1", "2"), "moving a byte from one input to the next is a change");
        assert_eq!(key("1", "2").len(), 16);
    }

    #[test]
    fn a_failed_build_leaves_nothing_and_the_next_one_starts_from_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let entry = dir.path().join("entry");
        let failed = publish(&entry, |dir| {
            fs::write(dir.join("half"), "")?;
            anyhow::bail!("out of space")
        });
        assert_eq!(failed.unwrap_err().to_string(), "out of space");
        assert!(!entry.exists());
        publish(&entry, |dir| Ok(fs::write(dir.join("whole"), "")?)).unwrap();
        assert!(entry.join("whole").exists() && !entry.join("half").exists());
    }

    #[test]
    fn an_entry_is_built_once_however_many_want_it() {
        let dir = tempfile::tempdir().unwrap();
        let entry = dir.path().join("entry");
        let builds = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    publish(&entry, |_| {
                        builds.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        Ok(())
                    })
                    .unwrap();
                });
            }
        });
        assert_eq!(builds.into_inner(), 1);
    }
}
