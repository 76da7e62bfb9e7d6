//! `forget`: from the teacher and the baseline, with every target at once, to a candidate.

use lethe_api::contract::{self, BundleKind, ForgetRecord, ForgetTask, Plan, PlannedTarget, one_line};
use lethe_sfd::{
    Baseline, Concept, Confusion, Denoiser, EarlyStop, ForgetSettings, Forgetting, Judge, LabelPrior,
    Measures, ModelConfig, Named, Override, Robustness, Target, Training,
};
use serde_json::Value;

use crate::{
    curves,
    failure::{Failed, Result},
    job::Job,
    model::{self, Form, Model},
    runtime,
    train::{self, Run, Saving},
};

/// Baseline samples per label that decide which label is nearest.
const CONFUSION_SAMPLES: i64 = 400;
/// Samples per target at every look at how much of it is left.
const LOOK_SAMPLES: i64 = 200;

pub(crate) fn run(job: &mut Job<'_>, task: &ForgetTask) -> Result<ForgetRecord> {
    let settings = settings(job.plan, task)?;
    job.watch.begin("load", 0, 1);
    let load = |digest, kind| model::denoiser(&job.artifacts.bundle(digest, kind)?, job.device);
    let (model, teacher) = load(&task.teacher, BundleKind::Teacher)?;
    let (baseline, generator) = load(&task.baseline, BundleKind::Generator)?;
    let (distillation, fake_score) = load(&task.distillation, BundleKind::Distillation)?;
    if !baseline.forgotten.is_empty() {
        // Starting from a model that has forgotten would bring back what the new targets leave out.
        let digest = &task.baseline;
        return Err(Failed::bad_artifact(format!(
            "bundle {digest} is no baseline: it has already forgotten"
        )));
    }
    let config = &model.model;
    let form = Form { config, kind: BundleKind::Teacher, digest: &task.teacher };
    form.check(BundleKind::Generator, &task.baseline, &baseline.model)?;
    form.check(BundleKind::Distillation, &task.distillation, &distillation.model)?;
    let targets = model::targets(config, &task.targets, &task.kept)?;
    let judge = form.judge(job.artifacts, &task.judge, job.device)?;
    let concept = resolve(job, task, &generator, &judge, &targets)?;
    let forgotten = resolved(config, &task.targets, &targets, &concept);

    let baseline = Baseline { generator, fake_score };
    let seed = job.plan.seed;
    let mut forgetting = match measures(job, task, &settings, &form)? {
        Some(measures) => Forgetting::with_measures(teacher, baseline, concept, settings, seed, measures)?,
        None => Forgetting::new(teacher, baseline, concept, settings, seed)?,
    };
    forgetting.share_with(&job.others);
    let curves = train::continue_from(&job.checkpoint, |state| forgetting.resume(state))?;
    let saving = Saving { to: &job.checkpoint, every: job.checkpoint_every };
    let (figures, watch) = (&mut *job.figures, job.watch);
    let run = Run { training: &mut forgetting, curves, watch, saving };
    // A training that may end early looks by itself.
    let judge = task.reference.is_none().then_some(&judge);
    let look = |training: &Forgetting| judge.map_or_else(Vec::new, |judge| leak(training, judge));
    let curves = figures.time("forgetSeconds", || run.finish(look))?;

    let steps = u32::try_from(forgetting.step()).unwrap_or(u32::MAX);
    let candidate = forgetting.finish()?.to_bytes();
    let description = Model::new(config, forgotten.clone()).to_bytes()?;
    let candidate = job.artifacts.put_bundle(BundleKind::Generator, candidate, description)?;
    let curves = Some(job.artifacts.put_blob(curves.reproducible())?);
    Ok(ForgetRecord { candidate, targets: forgotten, steps, curves })
}

/// The course of the leak, for people: at every other record, and in the end.
fn leak(training: &Forgetting, judge: &Judge) -> Vec<Named> {
    let (step, total) = (training.step(), training.total());
    let is_due = (step / curves::interval(total)).is_multiple_of(2) || training.done();
    is_due.then(|| ("leak", training.leak(judge, LOOK_SAMPLES))).into_iter().collect()
}

/// The level's settings, with what the plan says otherwise.
fn settings(plan: &Plan, task: &ForgetTask) -> Result<ForgetSettings> {
    let level = match task.robustness {
        None | Some(contract::Robustness::Suppress) => Robustness::Suppress,
        Some(contract::Robustness::Harden) => Robustness::Harden,
        Some(contract::Robustness::Scrub) => Robustness::Scrub,
    };
    let settings = ForgetSettings::of(level);
    let steps = task.steps.map_or(settings.steps, u64::from);
    let usual = EarlyStop::default();
    // A plan may have fewer steps than would be wanted in any case.
    let early_stop =
        task.reference.as_ref().map(|_| EarlyStop { least_steps: usual.least_steps.min(steps), ..usual });
    let mut settings = ForgetSettings { steps, early_stop, ..settings };
    settings.optimiser.precision = runtime::precision(plan.precision);
    let Some(own) = &task.settings else { return Ok(settings) };
    let own = Value::Object(own.clone());
    check_said_once(task, &own)?;
    let bad = |error: lethe_sfd::Error| Failed::bad_plan(format!("task.settings: {}", one_line(&error)));
    let settings = settings.with(&own).map_err(bad)?;
    settings.validate().map_err(bad)?;
    Ok(settings)
}

/// What the plan has a field of its own for is said there and nowhere else.
fn check_said_once(task: &ForgetTask, settings: &Value) -> Result<()> {
    let stop = settings.get("earlyStop");
    let problem = if settings.get("steps").is_some() {
        "steps: say it in task.steps"
    } else if settings.pointer("/optimiser/precision").is_some() {
        "optimiser.precision: say it in precision of the plan"
    } else if stop.is_some() && task.reference.is_none() {
        "earlyStop: what to compare with has to be in task.reference"
    } else if stop.is_some_and(Value::is_null) {
        "earlyStop: leave task.reference out to take all steps"
    } else {
        return Ok(());
    };
    Err(Failed::bad_plan(format!("task.settings.{problem}")))
}

/// What the training is looked at with, if the plan lets it end early, or it has to know which labels are neighbours.
fn measures(
    job: &Job<'_>,
    task: &ForgetTask,
    settings: &ForgetSettings,
    form: &Form<'_>,
) -> Result<Option<Measures>> {
    if task.reference.is_none() && !matches!(settings.label_prior, LabelPrior::Neighbours(_)) {
        return Ok(None);
    }
    let judge = form.judge(job.artifacts, &task.judge, job.device)?;
    let reference = task.reference.as_ref().map(|digest| form.reference(job.artifacts, digest, &judge));
    Ok(Some(Measures { reference: reference.transpose()?, judge }))
}

/// Checks the targets against the model, and asks the judge where the plan says `Nearest`.
fn resolve(
    job: &Job<'_>,
    task: &ForgetTask,
    baseline: &Denoiser,
    judge: &Judge,
    targets: &[Target],
) -> Result<Concept> {
    let is_asked = targets.iter().any(|target| target.replacement == Override::Nearest);
    let confusion = is_asked.then(|| Confusion::measure(baseline, judge, CONFUSION_SAMPLES, job.plan.seed));
    Concept::new(baseline.config().classes(), targets, confusion.as_ref()).map_err(|error| {
        // The library counts labels; the plan names them.
        let names = targets
            .iter()
            .zip(&task.targets)
            .map(|(target, planned)| format!("{} is {:?}", target.label, planned.label));
        Failed::bad_plan(format!("{error} (label {})", names.collect::<Vec<_>>().join(", ")))
    })
}

/// The plan's targets, in its order, with the overrides that are used.
fn resolved(
    config: &ModelConfig,
    planned: &[PlannedTarget],
    targets: &[Target],
    concept: &Concept,
) -> Vec<PlannedTarget> {
    let used = |target: &Target| {
        let found = concept.forgotten().iter().find(|(label, _)| *label == target.label);
        found.map(|(_, replacement)| model::planned(config, *replacement))
    };
    let resolved = |(planned, target): (&PlannedTarget, &Target)| PlannedTarget {
        label: planned.label.clone(),
        replacement: used(target).unwrap_or_else(|| planned.replacement.clone()),
    };
    planned.iter().zip(targets).map(resolved).collect()
}
