//! Bundles: a folder of files in the store, named by the digest of its manifest.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Digest, json};

/// What a bundle is for. A server refuses every kind but `Generator`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BundleKind {
    /// phi: the model that someone already has. Knows everything.
    Teacher,
    /// theta: the one-step model that may be served.
    Generator,
    /// psi of stage 1, the fake score: with the baseline's `Generator`, the cached start of every forgetting run. Knows
    /// everything.
    Distillation,
    /// The classifier trained on teacher samples.
    Judge,
    /// Statistics of teacher samples in the judge's features.
    Reference,
}

/// `manifest.json`: the sha256 of its exact bytes is the bundle's digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    /// Always [`Manifest::SCHEMA`].
    pub schema: String,
    pub kind: BundleKind,
    /// Every other file of the folder, by name: `model.safetensors` and `model.json`.
    #[schemars(length(max = 16))]
    pub files: BTreeMap<String, FileEntry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FileEntry {
    pub digest: Digest,
    pub bytes: u64,
}

impl Manifest {
    pub const SCHEMA: &str = "lethe.dev/manifest/v1";
    pub const FILE: &str = "manifest.json";
    pub const WEIGHTS: &str = "model.safetensors";
    pub const MODEL: &str = "model.json";
    /// A larger manifest is not read.
    pub const MAX_BYTES: usize = 64 * 1024;

    /// Reads and checks a manifest. A bundle is two files with fixed names; anything else, and above all a path, has no
    /// business in it.
    ///
    /// # Errors
    /// One line that says what is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > Self::MAX_BYTES {
            return Err(format!("it has {} bytes; at most {} are read", bytes.len(), Self::MAX_BYTES));
        }
        let manifest: Self =
            json::parse(bytes).map_err(|error| format!("it is not a manifest of this contract: {error}"))?;
        if manifest.schema != Self::SCHEMA {
            let found = json::one_line(&manifest.schema);
            return Err(format!("its schema is {found:?}, not {:?}", Self::SCHEMA));
        }
        let known = [Self::WEIGHTS, Self::MODEL];
        if let Some(other) = manifest.files.keys().find(|file| !known.contains(&file.as_str())) {
            let [weights, model] = known;
            let other = json::one_line(other);
            return Err(format!("it lists {other:?}; only {weights} and {model} may be there"));
        }
        match known.iter().find(|file| !manifest.files.contains_key(**file)) {
            Some(missing) => Err(format!("it does not list {missing}")),
            None => Ok(manifest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let entry = FileEntry { digest: Digest::of(b"file"), bytes: 4 };
        let files = [Manifest::WEIGHTS, Manifest::MODEL].map(|file| (file.to_owned(), entry.clone()));
        Manifest { schema: Manifest::SCHEMA.into(), kind: BundleKind::Judge, files: files.into() }
    }

    fn refusal(change: impl FnOnce(&mut Manifest)) -> String {
        let mut manifest = manifest();
        change(&mut manifest);
        Manifest::parse(&serde_json::to_vec(&manifest).unwrap()).unwrap_err()
    }

    #[test]
    fn a_manifest_lists_both_files_and_no_other() {
        let bytes = serde_json::to_vec(&manifest()).unwrap();
        assert_eq!(Manifest::parse(&bytes).unwrap(), manifest());
        let missing = refusal(|manifest| drop(manifest.files.remove(Manifest::MODEL)));
        assert_eq!(missing, "it does not list model.json");
        for name in ["../../etc/passwd", "model.pt", "a/b", "model.safetensors\0", ""] {
            let entry = FileEntry { digest: Digest::of(b"file"), bytes: 4 };
            let other = refusal(|manifest| drop(manifest.files.insert(name.into(), entry)));
            assert!(other.starts_with("it lists \""), "{other}");
        }
        assert!(refusal(|manifest| manifest.schema = "v9".into()).contains("its schema is \"v9\""));
    }

    #[test]
    fn a_manifest_of_a_screen_is_not_read() {
        let bytes = vec![b' '; Manifest::MAX_BYTES + 1];
        assert!(Manifest::parse(&bytes).unwrap_err().contains("65537 bytes"));
    }
}
