//! Image layers: tar files that depend on the content of their entries and on nothing else.
//!
//! Layers are not compressed: images go from disk to a node on the same machine, where compressing half a
//! gigabyte would take longer than everything else and save nothing.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header, HeaderMode};

use crate::cache::Key;

/// What a layer holds, by absolute path. Sorted, so that the order of adding does not show.
#[derive(Debug, Default)]
pub struct Contents(BTreeMap<PathBuf, Entry>);

#[derive(Debug)]
enum Entry {
    Directory { mode: u32 },
    File { from: PathBuf, mode: u32 },
    Text { text: String },
    Link { to: String },
}

impl Contents {
    /// A copy of the file `from`, following links, with mode 0755 if it is a program or library, else 0644.
    pub fn file(
        &mut self,
        path: impl Into<PathBuf>,
        from: impl Into<PathBuf>,
        executable: bool,
    ) -> &mut Self {
        let mode = if executable { 0o755 } else { 0o644 };
        self.add(path.into(), Entry::File { from: from.into(), mode })
    }

    /// A small text file.
    pub fn text(&mut self, path: impl Into<PathBuf>, text: impl Into<String>) -> &mut Self {
        self.add(path.into(), Entry::Text { text: text.into() })
    }

    /// A symbolic link.
    pub fn link(&mut self, path: impl Into<PathBuf>, to: impl Into<String>) -> &mut Self {
        self.add(path.into(), Entry::Link { to: to.into() })
    }

    /// An empty directory; parents of other entries need not be named.
    pub fn directory(&mut self, path: impl Into<PathBuf>, mode: u32) -> &mut Self {
        self.add(path.into(), Entry::Directory { mode })
    }

    /// Whether there is an entry at `path`.
    pub fn contains(&self, path: &Path) -> bool {
        self.0.contains_key(path)
    }

    /// Adds to `key` what tells these contents from others without reading them: paths, and sizes and times of
    /// the files they come from.
    ///
    /// # Errors
    /// If a file is not there.
    pub fn fingerprint(&self, mut key: Key) -> Result<Key> {
        for (path, entry) in &self.0 {
            let mut facts = format!("{entry:?}");
            if let Entry::File { from, .. } = entry {
                let data = fs::metadata(from).with_context(|| format!("cannot read {}", from.display()))?;
                facts = format!("{facts} {} {:?}", data.len(), data.modified()?);
            }
            key = key.text(&path.to_string_lossy(), &facts);
        }
        Ok(key)
    }

    fn add(&mut self, path: PathBuf, entry: Entry) -> &mut Self {
        for parent in path.ancestors().skip(1).filter(|parent| parent.parent().is_some()) {
            self.0.entry(parent.to_owned()).or_insert(Entry::Directory { mode: 0o755 });
        }
        self.0.insert(path, entry);
        self
    }

    /// Writes the layer to `file`.
    ///
    /// # Errors
    /// If an entry cannot be read or the file cannot be written.
    pub fn write(&self, file: &Path) -> Result<Layer> {
        let output = File::create(file).with_context(|| format!("cannot create {}", file.display()))?;
        let mut tar = Builder::new(Hashing::new(BufWriter::with_capacity(1 << 20, output)));
        tar.mode(HeaderMode::Deterministic);
        for (path, entry) in &self.0 {
            append(&mut tar, path, entry)
                .with_context(|| format!("cannot add {} to the image", path.display()))?;
        }
        let (digest, size) = tar.into_inner().and_then(Hashing::finish)?;
        Ok(Layer { file: file.to_owned(), digest, size })
    }
}

/// A finished layer on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    pub file: PathBuf,
    /// `sha256:` and 64 hexadecimal digits; also the layer's diff id, because it is not compressed.
    pub digest: String,
    /// In bytes.
    pub size: u64,
}

fn append<W: Write>(tar: &mut Builder<W>, path: &Path, entry: &Entry) -> Result<()> {
    let name = path.strip_prefix("/").context("not an absolute path")?;
    let mut header = Header::new_gnu();
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    match entry {
        Entry::Directory { mode } => {
            header.set_mode(*mode);
            header.set_entry_type(EntryType::Directory);
            tar.append_data(&mut header, format!("{}/", name.display()), io::empty())?;
        }
        Entry::Link { to } => {
            header.set_mode(0o777);
            header.set_entry_type(EntryType::Symlink);
            tar.append_link(&mut header, name, to)?;
        }
        Entry::Text { text } => {
            header.set_mode(0o644);
            header.set_size(text.len() as u64);
            tar.append_data(&mut header, name, text.as_bytes())?;
        }
        Entry::File { from, mode } => {
            let data = fs::metadata(from).with_context(|| format!("cannot read {}", from.display()))?;
            ensure!(data.is_file(), "{} is not a file", from.display());
            header.set_mode(*mode);
            header.set_size(data.len());
            tar.append_data(&mut header, name, File::open(from)?)?;
        }
    }
    Ok(())
}

/// Passes bytes on and computes their SHA-256 on the way.
pub(super) struct Hashing<W> {
    inner: W,
    hash: Sha256,
    size: u64,
}

impl<W: Write> Hashing<W> {
    pub(super) fn new(inner: W) -> Self {
        Self { inner, hash: Sha256::new(), size: 0 }
    }

    /// The digest with its `sha256:` prefix, and the number of bytes.
    pub(super) fn finish(mut self) -> io::Result<(String, u64)> {
        self.inner.flush()?;
        Ok((format!("sha256:{}", hex::encode(self.hash.finalize())), self.size))
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// The SHA-256 of some bytes with its `sha256:` prefix.
pub(super) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_depends_on_content_only() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str| {
            let file = dir.path().join(name);
            fs::write(&file, "program").unwrap();
            file
        };
        let (one, other) = (write("one"), write("other"));
        fs::File::options().write(true).open(&other).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();

        let mut first = Contents::default();
        first.file("/usr/bin/program", one, true).text("/etc/passwd", "nobody");
        let mut second = Contents::default();
        second.text("/etc/passwd", "nobody").file("/usr/bin/program", other, true);
        let first = first.write(&dir.path().join("1.tar")).unwrap();
        let second = second.write(&dir.path().join("2.tar")).unwrap();
        assert_eq!((&first.digest, first.size), (&second.digest, second.size));
        let written = fs::read(&first.file).unwrap();
        assert_eq!((digest(&written), written.len() as u64), (first.digest.clone(), first.size));

        let mut changed = Contents::default();
        changed.text("/etc/passwd", "somebody");
        assert_ne!(changed.write(&dir.path().join("3.tar")).unwrap().digest, first.digest);
    }

    #[test]
    fn parents_come_before_their_children_and_belong_to_root() {
        let dir = tempfile::tempdir().unwrap();
        let mut contents = Contents::default();
        contents.text("/a/b/c", "").link("/a/link", "b/c").directory("/tmp", 0o1777);
        let layer = contents.write(&dir.path().join("layer.tar")).unwrap();
        let mut archive = tar::Archive::new(File::open(layer.file).unwrap());
        let mut names = Vec::new();
        for entry in archive.entries().unwrap() {
            let entry = entry.unwrap();
            assert_eq!((entry.header().uid().unwrap(), entry.header().mtime().unwrap()), (0, 0));
            names.push(entry.path().unwrap().to_string_lossy().into_owned());
        }
        assert_eq!(names, ["a/", "a/b/", "a/b/c", "a/link", "tmp/"]);
    }
}
