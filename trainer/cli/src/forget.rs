//! `forget`: from the teacher and the baseline, with every target at once, to a candidate.

use lethe_api::contract::{self, BundleKind, ForgetRecord, ForgetTask, PlannedTarget};
use lethe_sfd::{
    Baseline, Concept, Confusion, Denoiser, EarlyStop, ForgetSettings, Forgetting, Measures, ModelConfig,
    Override, Reference, Robustness, Target, Training,
};

use crate::{
    failure::{Failed, Result},
    job::Job,
    model::{self, Model},
    runtime,
    train::{self, Saving},
};

/// Baseline samples per label that decide which label is nearest.
const CONFUSION_SAMPLES: i64 = 400;

pub(crate) fn run(job: &mut Job<'_>, task: &ForgetTask) -> Result<ForgetRecord> {
    job.watch.begin("load", 0, 1);
    let load = |digest, kind| model::denoiser(&job.artifacts.bundle(digest, kind)?, job.device);
    let (model, teacher) = load(&task.teacher, BundleKind::Teacher)?;
    let (baseline, generator) = load(&task.baseline, BundleKind::Generator)?;
    let (_, fake_score) = load(&task.distillation, BundleKind::Distillation)?;
    if !baseline.forgotten.is_empty() {
        // Starting from a model that has forgotten would bring back what the new targets leave out.
        let digest = &task.baseline;
        return Err(Failed::bad_artifact(format!(
            "bundle {digest} is no baseline: it has already forgotten"
        )));
    }
    let config = &model.model;
    let targets = model::targets(config, &task.targets, &task.kept)?;
    let concept = resolve(job, task, &generator, config, &targets)?;
    let forgotten = resolved(config, &task.targets, &targets, &concept);

    let mut settings = settings(task);
    settings.optimiser.precision = runtime::precision(job.plan.precision);
    let baseline = Baseline { generator, fake_score };
    let seed = job.plan.seed;
    let mut forgetting = match measures(job, task, config)? {
        Some(measures) => Forgetting::with_measures(teacher, baseline, concept, settings, seed, measures)?,
        None => Forgetting::new(teacher, baseline, concept, settings, seed)?,
    };
    forgetting.share_with(&job.others);
    train::continue_from(&job.checkpoint, |state| forgetting.resume(state))?;
    let saving = Saving { to: &job.checkpoint, every: job.checkpoint_every };
    let (figures, watch) = (&mut *job.figures, job.watch);
    figures.time("forgetSeconds", || train::run("forget", &mut forgetting, watch, Some(&saving)))?;

    let steps = u32::try_from(forgetting.step()).unwrap_or(u32::MAX);
    let candidate = forgetting.finish()?.to_bytes();
    let description = Model::new(config, forgotten.clone()).to_bytes()?;
    let candidate = job.artifacts.put_bundle(BundleKind::Generator, candidate, description)?;
    Ok(ForgetRecord { candidate, targets: forgotten, steps, curves: None })
}

/// The level's settings, with what the plan says otherwise.
fn settings(task: &ForgetTask) -> ForgetSettings {
    let level = match task.robustness {
        None | Some(contract::Robustness::Suppress) => Robustness::Suppress,
        Some(contract::Robustness::Harden) => Robustness::Harden,
        Some(contract::Robustness::Scrub) => Robustness::Scrub,
    };
    let settings = ForgetSettings::of(level);
    let steps = task.steps.map_or(settings.steps, u64::from);
    let early_stop = task.reference.as_ref().map(|_| EarlyStop::default());
    ForgetSettings { steps, early_stop, ..settings }
}

/// What the training is looked at with, if the plan lets it end early.
fn measures(job: &Job<'_>, task: &ForgetTask, config: &ModelConfig) -> Result<Option<Measures>> {
    let Some(digest) = &task.reference else { return Ok(None) };
    let (judged, judge) = model::judge(job.artifacts, &task.judge, job.device)?;
    if judged != *config {
        return Err(Failed::bad_artifact(format!("Judge bundle {} judges another model", task.judge)));
    }
    let bundle = job.artifacts.bundle(digest, BundleKind::Reference)?;
    let reference = Reference::from_bytes(config, &judge, bundle.weights())
        .map_err(|error| model::as_artifact(error).of(format!("Reference bundle {digest}")))?;
    Ok(Some(Measures { judge, reference: Some(reference) }))
}

/// Checks the targets against the model, and asks the judge where the plan says `Nearest`.
fn resolve(
    job: &Job<'_>,
    task: &ForgetTask,
    baseline: &Denoiser,
    config: &ModelConfig,
    targets: &[Target],
) -> Result<Concept> {
    let mut confusion = None;
    if targets.iter().any(|target| target.replacement == Override::Nearest) {
        let (judged, judge) = model::judge(job.artifacts, &task.judge, job.device)?;
        if judged.labels != config.labels {
            return Err(Failed::bad_artifact(format!("Judge bundle {} judges other labels", task.judge)));
        }
        confusion = Some(Confusion::measure(baseline, &judge, CONFUSION_SAMPLES, job.plan.seed));
    }
    Concept::new(config.classes(), targets, confusion.as_ref()).map_err(|error| {
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
