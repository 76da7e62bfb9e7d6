//! One plan carried out: the contract around `prepare`, `forget` and `evaluate`.

use std::{
    collections::BTreeMap,
    env,
    fs::File,
    io::Read,
    path::Path,
    time::{Duration, Instant},
};

use lethe_api::contract::{
    self, BundleKind, Digest, Failure, Outcome, Plan, Progress, Record, RecordBody, Status, Task, TaskKind,
    exit,
};
use lethe_sfd::Device;

use crate::{
    artifacts::{Artifacts, Checkpoint, if_usable},
    audit,
    cli::JobArgs,
    evaluate,
    failure::{Failed, Result, caught},
    forget, prepare, report, runtime, sidecar,
    watch::Watch,
};

/// How it calls itself in records.
const TRAINER: &str = concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION"));

/// What the work of one plan has at hand.
pub(crate) struct Job<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) artifacts: &'a Artifacts,
    pub(crate) watch: &'a Watch,
    pub(crate) device: Device,
    /// Devices that share a training's steps with it.
    pub(crate) others: Vec<Device>,
    /// Where the state of a training goes, and how often.
    pub(crate) checkpoint: Checkpoint<'a>,
    pub(crate) checkpoint_every: Duration,
    pub(crate) figures: &'a mut Figures,
}

/// Seconds and speeds for people, by name.
#[derive(Debug, Default)]
pub(crate) struct Figures(BTreeMap<String, f64>);

impl Figures {
    /// Runs `work` and notes how many seconds it took.
    pub(crate) fn time<T>(&mut self, name: &str, work: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let result = work();
        self.note(name, began.elapsed().as_secs_f64());
        result
    }

    pub(crate) fn note(&mut self, name: &str, value: f64) {
        self.0.insert(name.to_owned(), (value * 1000.0).round() / 1000.0);
    }
}

/// Carries out the plan, as `amend` leaves it, and says how it went, in the termination message and in the exit code.
pub(crate) fn main(kind: TaskKind, args: &JobArgs, amend: impl FnOnce(Vec<u8>) -> Result<Vec<u8>>) -> i32 {
    let bytes = read_plan(&args.plan);
    let mut outcome = blank(kind, bytes.as_deref().unwrap_or_default());
    let bytes = bytes.and_then(amend);
    if let Ok(amended) = &bytes {
        outcome = blank(kind, amended);
    }
    let (mut figures, mut opened) = (Figures::default(), Opened::default());
    let result = caught(|| carry_out(&bytes?, args, &mut outcome, &mut figures, &mut opened));
    let result = result.map_err(|failed| opened.located(failed));
    outcome.figures = figures.0;
    let code = conclude(&mut outcome, result.as_ref());
    args.termination.write(&outcome.to_message());
    if let Some(artifacts) = opened.artifacts
        && is_final(code)
    {
        // Not before the outcome is written: a pod that dies here finds the work done when it comes back.
        artifacts.checkpoint(&outcome.plan).clear();
    }
    code
}

/// Whether no other pod will go on with this plan: it is done, or the Job fails at once.
fn is_final(code: i32) -> bool {
    code == exit::DONE || exit::FATAL.contains(&code)
}

/// What is there to look at after the work, however it ended.
#[derive(Default)]
struct Opened {
    watch: Option<Watch>,
    artifacts: Option<Artifacts>,
}

impl Opened {
    /// Says where the work stood when it ended in a panic, which does not know.
    fn located(&self, failed: Failed) -> Failed {
        match (&self.watch, failed.failure) {
            (Some(watch), Failure::OutOfMemory | Failure::Internal) => {
                let Progress { stage, step, total, .. } = watch.progress();
                failed.of(format!("{stage} step {step} of {total}"))
            }
            _ => failed,
        }
    }
}

/// Leaves what it opened in `opened`, whatever happens afterwards. Returns the record.
fn carry_out(
    bytes: &[u8],
    args: &JobArgs,
    outcome: &mut Outcome,
    figures: &mut Figures,
    opened: &mut Opened,
) -> Result<Digest> {
    let plan = Plan::parse(bytes)?;
    if plan.task.kind() != outcome.task {
        let (wanted, found) = (outcome.task, plan.task.kind());
        return Err(Failed::bad_plan(format!("the command is {wanted:?}, but the plan's task is {found:?}")));
    }
    let watch = opened.watch.insert(Watch::new(&plan.run)).clone();
    sidecar::start(watch.clone(), (!args.no_port).then_some(args.port))?;
    let device = runtime::init(plan.threads, plan.device)?;
    outcome.device = Some(runtime::name(device));
    tracing::info!(run = plan.run, plan = %outcome.plan, device = ?outcome.device, "start");

    let artifacts = &*opened.artifacts.insert(Artifacts::open(&plan.store)?);
    let checkpoint = artifacts.checkpoint(&outcome.plan);
    // Before anything is worked for that could not be kept.
    checkpoint.try_out()?;
    if let Some(record) = done_before(&plan, outcome, artifacts, &checkpoint)? {
        tracing::info!(%record, "an earlier pod did this work, and nobody has heard of it: there is nothing to do");
        return Ok(record);
    }
    let checkpoint_every = Duration::from_secs(args.checkpoint_seconds);
    let others = runtime::others(device, args.devices);
    let mut job =
        Job { plan: &plan, artifacts, watch: &watch, device, others, checkpoint, checkpoint_every, figures };
    let began = Instant::now();
    let body = match &plan.task {
        Task::Prepare(task) => RecordBody::Prepare(prepare::run(&mut job, task)?),
        Task::Forget(task) => RecordBody::Forget(forget::run(&mut job, task)?),
        Task::Evaluate(task) => RecordBody::Evaluate(evaluate::run(&mut job, task)?),
        Task::Audit(task) => RecordBody::Audit(audit::run(&mut job, task)?),
    };
    let record = artifacts.put_record(record(&plan, &outcome.plan, body)?)?;
    if plan.task.kind() == TaskKind::Forget {
        job.checkpoint.say_done(&record);
    }
    figures.note("totalSeconds", began.elapsed().as_secs_f64());
    if plan.task.kind() == TaskKind::Evaluate {
        report::leave(artifacts, &record);
    }
    Ok(record)
}

/// The record that an earlier pod of the same plan left, with its candidate, where the operator says that its last words were
/// lost. Both are kept anew: a collector takes what is old and nobody names yet. **Of `Forget` alone**: whoever can write
/// into the store could leave such a word, and a candidate is measured whoever made it. What measures, and what makes the judge,
/// believes nobody.
fn done_before(
    plan: &Plan,
    outcome: &Outcome,
    artifacts: &Artifacts,
    checkpoint: &Checkpoint<'_>,
) -> Result<Option<Digest>> {
    if plan.task.kind() != TaskKind::Forget || env::var_os(contract::MADE_AGAIN).is_none() {
        return Ok(None);
    }
    let Some(digest) = checkpoint.done()? else { return Ok(None) };
    let Some(bytes) = if_usable(artifacts.record(&digest))?.flatten() else { return Ok(None) };
    let Ok(Record { body: RecordBody::Forget(record), trainer, .. }) = Record::parse(&bytes, &outcome.plan)
    else {
        return Ok(None);
    };
    if trainer != TRAINER {
        tracing::warn!(trainer, "an earlier pod was another trainer: the work is done again");
        return Ok(None);
    }
    let Some(candidate) = if_usable(artifacts.bundle(&record.candidate, BundleKind::Generator))? else {
        return Ok(None);
    };
    artifacts.keep(&candidate)?;
    Ok(Some(artifacts.put_record(bytes)?))
}

/// The record's exact bytes. It holds no time, so the same plan gives the same ones.
fn record(plan: &Plan, digest: &Digest, body: RecordBody) -> Result<Vec<u8>> {
    let record = Record {
        schema: Record::SCHEMA.into(),
        run: plan.run.clone(),
        plan: digest.clone(),
        seed: plan.seed,
        trainer: TRAINER.into(),
        body,
    };
    let bytes = serde_json::to_vec(&record).map_err(|e| Failed::internal(format!("the record: {e}")))?;
    // Reading it back finds what JSON cannot hold (a distance that is not a number), and what is too large.
    match Record::parse(&bytes, digest) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(Failed::new(Failure::Diverged, format!("what was measured is no record: {error}"))),
    }
}

/// An outcome that knows no more than what it is about.
fn blank(kind: TaskKind, plan: &[u8]) -> Outcome {
    let run = serde_json::from_slice::<serde_json::Value>(plan).ok();
    let run = run.as_ref().and_then(|plan| plan.get("run")?.as_str()).unwrap_or("unknown");
    Outcome {
        schema: Outcome::SCHEMA.into(),
        run: run.chars().take(63).collect(),
        plan: Digest::of(plan),
        task: kind,
        status: Status::Failed,
        record: None,
        device: None,
        failure: None,
        message: None,
        figures: BTreeMap::new(),
    }
}

/// Completes the outcome and gives the exit code that goes with it.
fn conclude(outcome: &mut Outcome, result: Result<&Digest, &Failed>) -> i32 {
    match result {
        Ok(record) => {
            tracing::info!(%record, figures = ?outcome.figures, "done");
            outcome.status = Status::Succeeded;
            outcome.record = Some(record.clone());
            exit::DONE
        }
        Err(failed) => {
            let Failed { failure, message } = failed;
            let is_interrupted = *failure == Failure::Interrupted;
            outcome.status = if is_interrupted { Status::Interrupted } else { Status::Failed };
            outcome.failure = Some(*failure);
            outcome.message = Some(message.clone());
            failed.tell()
        }
    }
}

fn read_plan(path: &Path) -> Result<Vec<u8>> {
    let failed = |error| Failed::bad_plan(format!("cannot read the plan {}: {error}", path.display()));
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(Plan::MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > Plan::MAX_BYTES {
        let (path, max) = (path.display(), Plan::MAX_BYTES);
        return Err(Failed::bad_plan(format!("the plan {path} is larger than {max} bytes")));
    }
    Ok(bytes)
}
