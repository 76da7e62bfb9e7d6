//! Bundles: a folder of files in the store, named by the digest of its manifest.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Digest;

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
}
