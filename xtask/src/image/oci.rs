//! OCI image layouts as one tar each: what `ctr image import`, `docker load`, `kind load image-archive` and
//! `skopeo copy oci-archive:` take.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tar::{Archive, Builder, Header};

use super::layer::{Layer, digest};

/// Every image runs as this user and group unless the pod says otherwise.
pub const USER: &str = "65532:65532";
const NAME: &str = "io.containerd.image.name";
/// More than any index that we write or are given.
const INDEX_LIMIT: u64 = 1 << 20;

/// What an image is made of.
#[derive(Debug)]
pub struct Image<'a> {
    /// Repository and tag, without registry: `lethe/operator:dev`.
    pub name: &'a str,
    pub title: &'a str,
    pub description: &'a str,
    pub layers: Vec<Layer>,
    pub entrypoint: &'a [&'a str],
    pub env: &'a [&'a str],
    /// The commit it was built from, if known. Kept outside what the digest covers: same content, same digest,
    /// whatever the commit.
    pub revision: Option<String>,
}

/// What a node calls an image.
#[derive(Debug, PartialEq, Eq)]
pub struct Identity {
    /// With registry: `docker.io/lethe/operator:dev`.
    pub name: String,
    /// Of the manifest: `sha256:...`.
    pub digest: String,
}

impl Image<'_> {
    /// Writes the image to `file` and returns its identity.
    ///
    /// # Errors
    /// If a layer cannot be read or the file cannot be written.
    pub fn write(&self, file: &Path) -> Result<Identity> {
        let config = self.config().to_string();
        let manifest = self.manifest(&config).to_string();
        let identity =
            Identity { name: format!("docker.io/{}", self.name), digest: digest(manifest.as_bytes()) };
        let index = self.index(&manifest, &identity).to_string();
        let docker = self.docker_manifest(&config).to_string();

        let output = File::create(file).with_context(|| format!("cannot create {}", file.display()))?;
        let mut tar = Builder::new(BufWriter::with_capacity(1 << 20, output));
        add(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        add(&mut tar, "index.json", index.as_bytes())?;
        add(&mut tar, "manifest.json", docker.as_bytes())?;
        for text in [&config, &manifest] {
            add(&mut tar, &blob(&digest(text.as_bytes())), text.as_bytes())?;
        }
        for layer in &self.layers {
            let input =
                File::open(&layer.file).with_context(|| format!("cannot open {}", layer.file.display()))?;
            tar.append_data(&mut header(layer.size), blob(&layer.digest), input)?;
        }
        tar.into_inner()?.into_inner().context("cannot finish the image")?;
        Ok(identity)
    }

    fn config(&self) -> Value {
        json!({
            "created": "1970-01-01T00:00:00Z",
            "architecture": "amd64",
            "os": "linux",
            "config": {
                "User": USER,
                "Env": self.env,
                "Entrypoint": self.entrypoint,
                "WorkingDir": "/",
                "Labels": self.labels(),
            },
            "rootfs": {
                "type": "layers",
                "diff_ids": self.layers.iter().map(|layer| &layer.digest).collect::<Vec<_>>(),
            },
        })
    }

    fn labels(&self) -> Value {
        let mut labels = json!({
            "org.opencontainers.image.title": self.title,
            "org.opencontainers.image.description": self.description,
            "org.opencontainers.image.version": env!("CARGO_PKG_VERSION"),
            "org.opencontainers.image.licenses": env!("CARGO_PKG_LICENSE"),
            "org.opencontainers.image.vendor": "Lethe",
        });
        let source = env!("CARGO_PKG_REPOSITORY");
        if !source.is_empty() {
            labels["org.opencontainers.image.source"] = source.into();
        }
        labels
    }

    fn manifest(&self, config: &str) -> Value {
        let layers = self
            .layers
            .iter()
            .map(|layer| descriptor("application/vnd.oci.image.layer.v1.tar", &layer.digest, layer.size));
        json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor(
                "application/vnd.oci.image.config.v1+json", &digest(config.as_bytes()), config.len() as u64,
            ),
            "layers": layers.collect::<Vec<_>>(),
        })
    }

    fn index(&self, manifest: &str, identity: &Identity) -> Value {
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let mut entry = descriptor(media_type, &identity.digest, manifest.len() as u64);
        let tag = self.name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        entry["platform"] = json!({"architecture": "amd64", "os": "linux"});
        entry["annotations"] = json!({NAME: identity.name, "org.opencontainers.image.ref.name": tag});
        if let Some(revision) = &self.revision {
            entry["annotations"]["org.opencontainers.image.revision"] = revision.as_str().into();
        }
        json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [entry],
        })
    }

    /// What `docker load` reads.
    fn docker_manifest(&self, config: &str) -> Value {
        json!([{
            "Config": blob(&digest(config.as_bytes())),
            "RepoTags": [self.name],
            "Layers": self.layers.iter().map(|layer| blob(&layer.digest)).collect::<Vec<_>>(),
        }])
    }
}

/// Name and digest of the image in a tar, read from its index; nothing for a tar without one, or with several
/// images.
///
/// # Errors
/// If the file is not a tar or its index is not an index.
pub fn identify(file: &Path) -> Result<Option<Identity>> {
    let input = File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
    let mut archive = Archive::new(BufReader::new(input));
    let entries = archive.entries_with_seek().with_context(|| format!("cannot read {}", file.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("{} is not a tar file", file.display()))?;
        if entry.path()?.as_os_str() == "index.json" {
            let index: Value = serde_json::from_reader(entry.take(INDEX_LIMIT))
                .with_context(|| format!("index.json in {} is not valid", file.display()))?;
            return Ok(only_image(&index));
        }
    }
    Ok(None)
}

fn only_image(index: &Value) -> Option<Identity> {
    let [image] = index["manifests"].as_array()?.as_slice() else { return None };
    Some(Identity {
        name: image["annotations"][NAME].as_str()?.to_owned(),
        digest: image["digest"].as_str()?.to_owned(),
    })
}

fn descriptor(media_type: &str, digest: &str, size: u64) -> Value {
    json!({"mediaType": media_type, "digest": digest, "size": size})
}

/// `sha256:abc` to `blobs/sha256/abc`.
fn blob(digest: &str) -> String {
    format!("blobs/{}", digest.replacen(':', "/", 1))
}

fn header(size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_size(size);
    header
}

fn add<W: std::io::Write>(tar: &mut Builder<W>, name: &str, bytes: &[u8]) -> Result<()> {
    Ok(tar.append_data(&mut header(bytes.len() as u64), name, bytes)?)
}

#[cfg(test)]
mod tests {
    use super::super::layer::Contents;
    use super::*;

    fn image(dir: &Path, text: &str, revision: Option<&str>) -> Identity {
        let mut contents = Contents::default();
        contents.text("/etc/motd", text);
        let layer = contents.write(&dir.join("layer.tar")).unwrap();
        let image = Image {
            name: "lethe/test:dev",
            title: "test",
            description: "A test",
            layers: vec![layer],
            entrypoint: &["/bin/test"],
            env: &[],
            revision: revision.map(str::to_owned),
        };
        image.write(&dir.join("image.tar")).unwrap()
    }

    #[test]
    fn the_same_content_has_the_same_digest_at_every_commit() {
        let dir = tempfile::tempdir().unwrap();
        let first = image(dir.path(), "hello", Some("abc"));
        assert_eq!(first, image(dir.path(), "hello", Some("def")));
        assert_ne!(first.digest, image(dir.path(), "bye", Some("abc")).digest);
    }

    #[test]
    fn an_image_is_identified_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let written = image(dir.path(), "hello", None);
        assert_eq!(written.name, "docker.io/lethe/test:dev");
        assert_eq!(identify(&dir.path().join("image.tar")).unwrap(), Some(written));
    }

    #[test]
    fn what_is_no_tar_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("image.tar");
        std::fs::write(&file, vec![b'x'; 4096]).unwrap();
        assert!(identify(&file).unwrap_err().to_string().contains("is not a tar file"));
    }

    #[test]
    fn every_blob_lies_under_its_digest() {
        let dir = tempfile::tempdir().unwrap();
        image(dir.path(), "hello", None);
        let mut archive = Archive::new(File::open(dir.path().join("image.tar")).unwrap());
        let mut blobs = 0;
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().to_string_lossy().into_owned();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            if name.starts_with("blobs/") {
                assert_eq!(name, blob(&digest(&bytes)));
                blobs += 1;
            }
        }
        assert_eq!(blobs, 3, "config, manifest and one layer");
    }
}
