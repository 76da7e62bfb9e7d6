//! What is signed of a candidate: an in-toto Statement whose subject is the bundle, and whose predicate says what the bundle is
//! made of, what was measured of it and what came of that. Signed it lies in the store, in a DSSE envelope.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Digest, Override, json};
use crate::gate::{GateName, Verdict};

/// A Statement of in-toto, version 1, about one bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Statement {
    /// Always [`Statement::TYPE`].
    #[serde(rename = "_type")]
    pub type_: String,
    /// The bundle, alone.
    pub subject: Vec<Subject>,
    /// Always [`Statement::PREDICATE_TYPE`].
    pub predicate_type: String,
    pub predicate: Evidence,
}

/// A bundle's `manifest.json`, which has the digest of every other file of the bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Subject {
    /// Always [`super::Manifest::FILE`].
    pub name: String,
    /// By algorithm: `sha256` alone, 64 hexadecimal digits.
    pub digest: BTreeMap<String, String>,
}

/// What is claimed of a candidate. Numbers that decide are decimal strings, and nothing in it is a time or tells of a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Evidence {
    /// Name of the `DiffusionModel`.
    pub model: String,
    pub run: EvidenceRun,
    /// What the candidate is made of.
    pub materials: Materials,
    /// The requests that the run worked for; none where the whole ledger is forgotten for another base.
    pub requests: Vec<EvidenceRequest>,
    /// Everything that the candidate was made to forget: the whole ledger, and what is new.
    pub forgets: Vec<Forgotten>,
    /// The pods that made and measured it.
    pub trainers: Vec<EvidenceTrainer>,
    pub records: EvidenceRecords,
    pub policy: EvidencePolicy,
    pub gates: Vec<EvidenceGate>,
    pub verdict: Verdict,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EvidenceRun {
    pub name: String,
    /// Of the plan that was carried out, which the object holds and the pods were given.
    pub plan: Digest,
    /// Of the plan of the measurement, which follows from it.
    pub evaluation: Digest,
    pub seed: u64,
}

/// Bundles, by the digest of their `manifest.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Materials {
    /// The base artifact.
    pub teacher: Digest,
    pub baseline: Digest,
    pub distillation: Digest,
    pub judge: Digest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<Digest>,
    /// A model that never saw what was forgotten, if it was compared with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub never_saw: Option<Digest>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EvidenceRequest {
    pub name: String,
    pub uid: String,
    /// Of what of its spec cannot be changed, when the run was planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<Digest>,
    pub targets: Vec<String>,
    pub attempt: u32,
    /// How many people agreed to it. Who they are is not told.
    pub approvals: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Forgotten {
    pub label: String,
    #[serde(rename = "override")]
    pub replacement: Override,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EvidenceTrainer {
    /// `forget` or `evaluate`.
    pub stage: String,
    /// What ran, as the container runtime names it; absent if nobody saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

/// Records in the store, by their digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EvidenceRecords {
    /// Of the preparation of the base.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prepare: Option<Digest>,
    pub forget: Digest,
    /// The raw counts.
    pub evaluate: Digest,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EvidencePolicy {
    /// The object it was copied from, as `Kind/name`; absent if that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Which edit of that: it counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// Of the copy in the run's spec, as canonical JSON.
    pub digest: Digest,
}

/// One line of the gate table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EvidenceGate {
    pub name: GateName,
    /// The forgotten label; absent for gates on the whole candidate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hits: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<String>,
    pub verdict: Verdict,
}

impl Statement {
    pub const TYPE: &str = "https://in-toto.io/Statement/v1";
    pub const PREDICATE_TYPE: &str = "https://lethe.dev/unlearning/v1";
    /// A larger statement is not read.
    pub const MAX_BYTES: usize = 2 << 20;

    /// Of this bundle.
    pub fn of(bundle: &Digest, evidence: Evidence) -> Self {
        let digest = [("sha256".to_owned(), bundle.hex().to_owned())].into();
        Self {
            type_: Self::TYPE.into(),
            subject: vec![Subject { name: super::Manifest::FILE.into(), digest }],
            predicate_type: Self::PREDICATE_TYPE.into(),
            predicate: evidence,
        }
    }

    /// The exact bytes that are signed: the same statement always gives the same.
    pub fn to_json(&self) -> Vec<u8> {
        // Strings, integers and lists: there is nothing in it that JSON cannot say.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The bundle that it is about.
    pub fn bundle(&self) -> Option<Digest> {
        Digest::from_hex(self.subject.first()?.digest.get("sha256")?)
    }

    /// Reads and checks a statement.
    ///
    /// # Errors
    /// One line that says what is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > Self::MAX_BYTES {
            return Err(format!("it has {} bytes; at most {} are read", bytes.len(), Self::MAX_BYTES));
        }
        let statement: Self =
            json::parse(bytes).map_err(|error| format!("it is not a statement of this contract: {error}"))?;
        let expect = |field: &str, found: &str, expected: &str| match found == expected {
            true => Ok(()),
            false => Err(format!("its {field} is {:?}, not {expected:?}", json::one_line(&found))),
        };
        expect("_type", &statement.type_, Self::TYPE)?;
        expect("predicateType", &statement.predicate_type, Self::PREDICATE_TYPE)?;
        let [subject] = &statement.subject[..] else {
            return Err(format!("its subject has {} entries, not one", statement.subject.len()));
        };
        expect("subject.name", &subject.name, super::Manifest::FILE)?;
        if subject.digest.len() != 1 || statement.bundle().is_none() {
            return Err("its subject.digest is not one sha256 of 64 lower-case hexadecimal digits".into());
        }
        Ok(statement)
    }
}
