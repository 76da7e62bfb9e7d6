//! `report`: a page for people about a measurement. What it needs and does not find is missing on the page, not an error;
//! what is there and does not belong together is an error.

use std::{fs, io::Write, path::Path};

use lethe_api::{
    contract::{
        Digest, EvaluateRecord, EvaluateTask, Metrics, Plan, PrepareRecord, Record, RecordBody, Task, exit,
    },
    gate::{BaselineQuality, Gate},
};
use lethe_report::evaluation::{self, Evaluation, Ruling};
use serde::Deserialize;

use crate::{
    artifacts::Artifacts,
    cli::{MoreProbes, ReportArgs},
    failure::{Failed, Result, caught},
};

/// A larger manifest is not read.
const MAX_POLICY: u64 = 1 << 20;

/// What of a manifest of kind `UnlearnPolicy` a verdict depends on.
#[derive(Deserialize)]
struct Policy {
    metadata: Metadata,
    spec: Spec,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
}

#[derive(Deserialize)]
struct Spec {
    gates: Vec<Gate>,
}

/// What a record does not say by itself.
#[derive(Default)]
struct Further<'a> {
    policy: Option<&'a Path>,
    plan: Option<&'a Path>,
    /// What the evaluation was asked for beside its plan.
    more: Option<&'a MoreProbes>,
    prepare: Option<&'a Digest>,
    forget: Option<&'a Digest>,
}

/// A measurement, and where what it names lies.
struct Measurement<'a> {
    record: Record,
    digest: Digest,
    /// The store, or why there is none.
    artifacts: std::result::Result<&'a Artifacts, String>,
}

pub(crate) fn main(args: &ReportArgs) -> i32 {
    match caught(|| page(args)).and_then(|page| deliver(&page, args.out.as_deref())) {
        Ok(()) => exit::DONE,
        Err(failed) => failed.tell(),
    }
}

/// Leaves the page beside the record that an evaluation has just written. It holds nothing that is not in the store
/// already, so that a failure costs nobody anything.
pub(crate) fn leave(artifacts: &Artifacts, digest: &Digest) {
    let left = find(artifacts, digest).and_then(|record| {
        let measurement = Measurement { record, digest: digest.clone(), artifacts: Ok(artifacts) };
        artifacts.put_report(digest, draw(&measurement, &Further::default())?)
    });
    match left {
        Ok(place) => tracing::info!(place, "report"),
        Err(error) => tracing::warn!(%error, "the report could not be written"),
    }
}

fn page(args: &ReportArgs) -> Result<String> {
    let artifacts = Artifacts::open(&args.store);
    let (record, digest) = match args.record.parse::<Digest>() {
        Ok(digest) => (find(artifacts.as_ref().map_err(Failed::clone)?, &digest)?, digest),
        Err(_) => read(Path::new(&args.record))?,
    };
    let artifacts = artifacts.as_ref().map_err(|error| format!("there is no store to take it from: {error}"));
    let further = Further {
        policy: args.policy.as_deref(),
        plan: args.plan.as_deref(),
        more: Some(&args.more),
        prepare: args.prepare.as_ref(),
        forget: args.forget.as_ref(),
    };
    draw(&Measurement { record, digest, artifacts }, &further)
}

fn draw(measurement: &Measurement<'_>, further: &Further<'_>) -> Result<String> {
    let Measurement { record, digest, .. } = measurement;
    let RecordBody::Evaluate(measured) = &record.body else {
        let kind = record.body.kind();
        return Err(Failed::bad_artifact(format!(
            "record {digest} is of a {kind:?}, and a report is of an Evaluate"
        )));
    };
    Ok(evaluation::html(&Evaluation {
        record,
        measured,
        digest,
        ruling: measurement.ruling(measured, further)?,
        before: measurement.blob(&measured.before),
        after: measurement.blob(&measured.after),
        training: measurement.training(measured, further.forget)?,
    }))
}

impl Measurement<'_> {
    fn blob(&self, digest: &Digest) -> std::result::Result<Vec<u8>, String> {
        match self.artifacts.clone()?.blob(digest) {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => Err("the store does not have it".into()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// How the candidate was trained, or why that is not known.
    fn training(
        &self,
        measured: &EvaluateRecord,
        forget: Option<&Digest>,
    ) -> Result<std::result::Result<Vec<Metrics>, String>> {
        let Some(digest) = forget else {
            return Ok(Err("no record of the training was named (lethe-trainer report --forget)".into()));
        };
        let artifacts = self.artifacts.clone().map_err(Failed::bad_configuration)?;
        let RecordBody::Forget(forgotten) = find(artifacts, digest)?.body else {
            return Err(Failed::bad_artifact(format!("record {digest} is not of a Forget")));
        };
        if forgotten.candidate != measured.candidate {
            let (other, own) = (&forgotten.candidate, &measured.candidate);
            return Err(Failed::bad_artifact(format!(
                "record {digest} is of the training of {other}, not {own}"
            )));
        }
        Ok(forgotten.curves.ok_or_else(|| "the trainer kept none".into()).and_then(|curves| {
            let lines = self.blob(&curves)?;
            Metrics::parse_lines(&String::from_utf8_lossy(&lines))
        }))
    }

    /// The verdicts that the operator would come to, if there is a policy to come to them by.
    fn ruling(&self, measured: &EvaluateRecord, further: &Further<'_>) -> Result<Option<Ruling>> {
        let (Some(policy), Some(plan), Some(prepare)) = (further.policy, further.plan, further.prepare)
        else {
            return Ok(None);
        };
        let (policy, written) = read_policy(policy)?;
        let task = self.task(plan, further.more)?;
        let prepared = self.prepared(prepare, measured)?;
        let quality =
            BaselineQuality { distance: prepared.quality.baseline.to_string(), samples: prepared.quality.n };
        let results = lethe_gates::judge(&policy.spec.gates, &task, &quality, measured);
        let policy = Some((policy.metadata.name, written));
        Ok(Some(Ruling { by: "lethe-trainer".into(), policy, results }))
    }

    /// What the evaluation was asked to measure.
    fn task(&self, path: &Path, more: Option<&MoreProbes>) -> Result<EvaluateTask> {
        let bytes = read_bytes(path, Plan::MAX_BYTES as u64, "plan").map_err(Failed::bad_plan)?;
        let bytes = match more {
            Some(more) => more.ask(bytes)?,
            None => bytes,
        };
        let (found, plan) = (Digest::of(&bytes), Plan::parse(&bytes)?);
        if found != self.record.plan {
            let asked = &self.record.plan;
            return Err(Failed::bad_plan(format!(
                "plan {} is {found}, and the record is of plan {asked}; if evaluate was given --probes, --teacher or \
                 --never-saw, give report the same",
                path.display()
            )));
        }
        match plan.task {
            Task::Evaluate(task) => Ok(task),
            other => Err(Failed::bad_plan(format!("the plan's task is {:?}, not Evaluate", other.kind()))),
        }
    }

    /// What was found when the baseline was made.
    fn prepared(&self, digest: &Digest, measured: &EvaluateRecord) -> Result<PrepareRecord> {
        let artifacts = self.artifacts.clone().map_err(Failed::bad_configuration)?;
        let RecordBody::Prepare(prepared) = find(artifacts, digest)?.body else {
            return Err(Failed::bad_artifact(format!("record {digest} is not of a Prepare")));
        };
        let made = [&prepared.baseline, &prepared.judge, &prepared.reference];
        if made != [&measured.baseline, &measured.judge, &measured.reference] {
            let message =
                format!("record {digest} is of another baseline, judge or reference than what was measured");
            return Err(Failed::bad_artifact(message));
        }
        Ok(prepared)
    }
}

/// A record of the store.
fn find(artifacts: &Artifacts, digest: &Digest) -> Result<Record> {
    let bytes = artifacts.record(digest)?;
    let bytes = bytes.ok_or_else(|| Failed::bad_artifact(format!("the store has no record {digest}")))?;
    Record::read(&bytes).map_err(|error| Failed::bad_artifact(format!("record {digest}: {error}")))
}

/// A record in a file, and its digest.
fn read(path: &Path) -> Result<(Record, Digest)> {
    let bytes = read_bytes(path, Record::MAX_BYTES as u64, "record").map_err(Failed::bad_artifact)?;
    let record =
        Record::read(&bytes).map_err(|error| Failed::bad_artifact(format!("{}: {error}", path.display())))?;
    Ok((record, Digest::of(&bytes)))
}

fn read_policy(path: &Path) -> Result<(Policy, Digest)> {
    let bytes = read_bytes(path, MAX_POLICY, "policy").map_err(Failed::bad_configuration)?;
    let wrong = |error: String| {
        let path = path.display();
        Failed::bad_configuration(format!("{path} is not one UnlearnPolicy in YAML or JSON: {error}"))
    };
    let text = std::str::from_utf8(&bytes).map_err(|error| wrong(error.to_string()))?;
    let policy = serde_saphyr::from_str(text).map_err(|error| wrong(error.to_string().replace('\n', " ")))?;
    Ok((policy, Digest::of(&bytes)))
}

fn read_bytes(path: &Path, max: u64, what: &str) -> std::result::Result<Vec<u8>, String> {
    use std::io::Read;
    let failed = |error: std::io::Error| format!("cannot read the {what} {}: {error}", path.display());
    let mut bytes = Vec::new();
    fs::File::open(path).map_err(failed)?.take(max + 1).read_to_end(&mut bytes).map_err(failed)?;
    match bytes.len() as u64 > max {
        true => Err(format!("the {what} {} is larger than {max} bytes", path.display())),
        false => Ok(bytes),
    }
}

fn deliver(page: &str, out: Option<&Path>) -> Result<()> {
    let written = match out {
        Some(path) => {
            fs::write(path, page).map_err(|error| format!("cannot write {}: {error}", path.display()))
        }
        None => {
            let mut stdout = std::io::stdout().lock();
            let written = stdout.write_all(page.as_bytes()).and_then(|()| stdout.flush());
            written.map_err(|error| format!("cannot write to stdout: {error}"))
        }
    };
    written.map_err(Failed::bad_configuration)
}
