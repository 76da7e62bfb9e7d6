//! What a trainer pod found: raw counts and values, kept in the store by digest.
//!
//! A record holds no wall-clock time: the same plan gives the same record, byte for byte.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{AuditRecord, Digest, PlannedTarget, ProbeRecord, TaskKind, json, labels::check_label};

/// The measurement record of one pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Record {
    /// Always [`Record::SCHEMA`].
    pub schema: String,
    pub run: String,
    /// Digest of the plan that was carried out.
    pub plan: Digest,
    pub seed: u64,
    /// Name and version of the trainer, for example `lethe-trainer 0.1.0`.
    pub trainer: String,
    pub body: RecordBody,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type")]
pub enum RecordBody {
    Prepare(PrepareRecord),
    Forget(ForgetRecord),
    Evaluate(EvaluateRecord),
    Audit(AuditRecord),
}

/// Successes among trials. What is decided from them is the operator's business.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Count {
    pub hits: u64,
    pub n: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PrepareRecord {
    pub teacher: Digest,
    /// Names of the labels that the teacher knows, in the order of its condition table.
    pub labels: Vec<String>,
    pub baseline: Digest,
    pub distillation: Digest,
    pub judge: Digest,
    pub reference: Digest,
    /// The judge on teacher samples it was not trained on: judged as the label they were drawn for. Low if the judge
    /// is poor, and also if the teacher does not draw what it is asked for.
    pub judge_accuracy: Count,
    /// The baseline's samples, per label, judged as the label they were drawn for.
    pub baseline_accuracy: Vec<Count>,
    /// `confusion[i][j]`: mean probability that the judge gives to label j for baseline samples of label i, to six decimals.
    pub confusion: Vec<Vec<f64>>,
    pub quality: Quality,
    /// A blob in the store: how the distillation went, as lines of [`super::Metrics`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub curves: Option<Digest>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ForgetRecord {
    pub candidate: Digest,
    /// The plan's targets with the overrides that were used.
    pub targets: Vec<PlannedTarget>,
    pub steps: u32,
    /// A blob in the store: how the training went, as lines of [`super::Metrics`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub curves: Option<Digest>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EvaluateRecord {
    pub candidate: Digest,
    pub baseline: Digest,
    pub judge: Digest,
    pub reference: Digest,
    pub targets: Vec<TargetMeasurement>,
    /// Every kept label.
    pub retain: Vec<LabelMeasurement>,
    pub quality: Quality,
    pub hygiene: Vec<HygieneCheck>,
    /// Present if and only if the plan asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probes: Option<ProbeRecord>,
    /// PNG blobs in the store: rows of samples of equal height, of the baseline and of the candidate.
    pub before: Digest,
    pub after: Digest,
    /// Which label each row of these pictures is of, from above; empty if that is not said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pictured: Vec<String>,
}

/// What was drawn at one forgotten label.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TargetMeasurement {
    pub label: String,
    /// Candidate samples judged as the forgotten label.
    pub leak: Count,
    /// Candidate samples judged as the override label (`Random`: as any kept label).
    pub override_hits: Count,
    /// Candidate samples judged as one kept label: the one that they are judged as most often. A `Random` override
    /// that shows the same label all the time is none.
    pub most_common: Count,
    /// The positive control: baseline samples at this label judged as this label.
    pub control: Count,
    /// Baseline samples of the override label (`Random`: of all kept labels) judged as the forgotten
    /// label: how often the judge sees a leak where there is none.
    pub base_rate: Count,
}

/// What was drawn at one kept label: samples judged as that label.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LabelMeasurement {
    pub label: String,
    pub candidate: Count,
    pub baseline: Count,
}

/// Frechet distances to the reference in the judge's features. A distance falls with the number of samples, so only
/// `candidate` and `baseline`, both over `n`, compare with each other.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Quality {
    pub candidate: f64,
    pub baseline: f64,
    /// Teacher against teacher, over as many samples as the reference has of each label, whatever `n` is.
    pub floor: f64,
    /// Samples of the candidate, and of the baseline, over all kept labels (`Prepare`: over all labels).
    pub n: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HygieneCheck {
    #[schemars(length(max = 128))]
    pub name: String,
    pub passed: bool,
    #[schemars(length(max = 512))]
    pub detail: String,
}

impl HygieneCheck {
    pub const ONLY_KNOWN_FILES: &str = "only-known-files";
    pub const NOTHING_BUT_THE_ARCHITECTURE: &str = "nothing-but-the-architecture";
    pub const NOT_THE_BASELINE: &str = "not-the-baseline";
    pub const FORGETS_THE_PLAN: &str = "forgets-the-plan";
    /// Each of these must be in a record, once.
    pub const REQUIRED: [&str; 4] = [
        Self::ONLY_KNOWN_FILES,
        Self::NOTHING_BUT_THE_ARCHITECTURE,
        Self::NOT_THE_BASELINE,
        Self::FORGETS_THE_PLAN,
    ];
}

/// Why some bytes are not the record of the plan at hand.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("the record has {0} bytes; at most {max} are allowed", max = Record::MAX_BYTES)]
    TooLarge(usize),
    #[error("the record is not a record of this contract: {0}")]
    Malformed(String),
    #[error("the record is for plan {found}, not for {expected}: it is stale or someone else's")]
    ForeignPlan { expected: Digest, found: Digest },
}

impl Record {
    pub const SCHEMA: &str = "lethe.dev/record/v1";
    /// A larger record is not read. The confusion of a thousand labels fits, to six decimals.
    pub const MAX_BYTES: usize = 16 * 1024 * 1024;

    /// Reads the record of the plan with digest `plan`.
    pub fn parse(bytes: &[u8], plan: &Digest) -> Result<Self, RecordError> {
        let record = Self::read(bytes)?;
        if record.plan != *plan {
            return Err(RecordError::ForeignPlan { expected: plan.clone(), found: record.plan });
        }
        Ok(record)
    }

    /// Reads a record of any plan.
    pub fn read(bytes: &[u8]) -> Result<Self, RecordError> {
        if bytes.len() > Self::MAX_BYTES {
            return Err(RecordError::TooLarge(bytes.len()));
        }
        let record: Self = json::parse(bytes).map_err(|error| {
            let closer = serde_json::from_slice(bytes).ok().and_then(|record| RecordBody::problem(&record));
            RecordError::Malformed(closer.unwrap_or(error))
        })?;
        if record.schema != Self::SCHEMA {
            return Err(RecordError::Malformed(format!("its schema is not {}", Self::SCHEMA)));
        }
        record.body.check().map_err(RecordError::Malformed)?;
        Ok(record)
    }
}

impl RecordBody {
    pub fn kind(&self) -> TaskKind {
        match self {
            RecordBody::Prepare(_) => TaskKind::Prepare,
            RecordBody::Forget(_) => TaskKind::Forget,
            RecordBody::Evaluate(_) => TaskKind::Evaluate,
            RecordBody::Audit(_) => TaskKind::Audit,
        }
    }

    /// Texts are no longer than the schema says.
    fn check(&self) -> Result<(), String> {
        let length = |field: String, text: &str, most: usize| match text.chars().nth(most) {
            Some(_) => Err(format!("{field} has more than {most} characters")),
            None => Ok(()),
        };
        match self {
            RecordBody::Prepare(_) => Ok(()),
            RecordBody::Forget(record) => {
                record.targets.iter().enumerate().try_for_each(|(index, target)| {
                    check_label(&target.label).map_err(|why| format!("body.targets[{index}].label {why}"))
                })
            }
            RecordBody::Audit(record) => record.targets.iter().enumerate().try_for_each(|(index, target)| {
                check_label(&target.label).map_err(|why| format!("body.targets[{index}].label {why}"))
            }),
            RecordBody::Evaluate(record) => {
                for (index, check) in record.hygiene.iter().enumerate() {
                    length(format!("body.hygiene[{index}].name"), &check.name, 128)?;
                    length(format!("body.hygiene[{index}].detail"), &check.detail, 512)?;
                }
                let attempts = record.probes.iter().flat_map(|probes| &probes.attempts).enumerate();
                for (index, attempt) in attempts {
                    length(format!("body.probes.attempts[{index}].attempt"), &attempt.attempt, 64)?;
                }
                Ok(())
            }
        }
    }

    /// Where exactly a record's body is wrong; see `Task::problem`.
    fn problem(record: &serde_json::Value) -> Option<String> {
        let mut body = record.get("body")?.as_object()?.clone();
        let kind = body.remove("type")?;
        match kind.as_str()? {
            "Prepare" => json::problem::<PrepareRecord>("body", body.into()),
            "Forget" => json::problem::<ForgetRecord>("body", body.into()),
            "Evaluate" => json::problem::<EvaluateRecord>("body", body.into()),
            "Audit" => json::problem::<AuditRecord>("body", body.into()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            schema: Record::SCHEMA.into(),
            run: "digits-7f3a".into(),
            plan: Digest::of(b"plan"),
            seed: 7,
            trainer: "lethe-trainer 0.1.0".into(),
            body: RecordBody::Evaluate(EvaluateRecord {
                candidate: Digest::of(b"candidate"),
                baseline: Digest::of(b"baseline"),
                judge: Digest::of(b"judge"),
                reference: Digest::of(b"reference"),
                targets: vec![],
                retain: vec![],
                quality: Quality { candidate: 1.0, baseline: 0.9, floor: 0.25, n: 3600 },
                hygiene: vec![],
                probes: None,
                before: Digest::of(b"before"),
                after: Digest::of(b"after"),
                pictured: vec![],
            }),
        }
    }

    #[test]
    fn a_distance_that_is_not_a_number_makes_the_record_unreadable() {
        let mut nan = record();
        let RecordBody::Evaluate(body) = &mut nan.body else { unreachable!("built above") };
        body.quality.candidate = f64::NAN;
        let bytes = serde_json::to_vec(&nan).unwrap();
        assert!(matches!(Record::parse(&bytes, &nan.plan), Err(RecordError::Malformed(_))));
    }

    #[test]
    fn a_record_without_probes_is_what_it_was_before_there_were_any() {
        let bytes = serde_json::to_string(&record()).unwrap();
        assert!(!bytes.contains("probes"), "{bytes}");
        let asked =
            r#"{"level":"full","teacher":"TEACHER"}"#.replace("TEACHER", Digest::of(b"teacher").as_str());
        let probes =
            format!(r#","probes":{{"asked":{asked},"attempts":[],"neighbours":[],"fidelity":[]}},"before""#);
        let with = Record::parse(bytes.replace(r#","before""#, &probes).as_bytes(), &record().plan).unwrap();
        let RecordBody::Evaluate(body) = with.body else { unreachable!("built above") };
        assert_eq!(body.probes.unwrap().asked.level, crate::contract::ProbeLevel::Full);
        let typo = probes.replace("attempts", "attemps");
        let refused = Record::parse(bytes.replace(r#","before""#, &typo).as_bytes(), &record().plan);
        assert!(matches!(refused, Err(RecordError::Malformed(_))));
    }

    #[test]
    fn a_record_of_another_plan_is_foreign() {
        let bytes = serde_json::to_vec(&record()).unwrap();
        assert_eq!(Record::parse(&bytes, &record().plan).unwrap(), record());
        let other = Record::parse(&bytes, &Digest::of(b"another"));
        assert!(matches!(other, Err(RecordError::ForeignPlan { .. })));
    }
}
