//! `forget`: from the teacher and the baseline, with every target at once, to a candidate.

use lethe_api::contract::{BundleKind, ForgetRecord, ForgetTask, PlannedTarget};
use lethe_sfd::{
    Baseline, Concept, Confusion, Denoiser, ForgetSettings, Forgetting, ModelConfig, Override, Target,
};

use crate::{
    failure::{Failed, Result},
    job::Job,
    model::{self, Model},
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

    let mut settings = ForgetSettings::default();
    settings.steps = task.steps.map_or(settings.steps, u64::from);
    let steps = u32::try_from(settings.steps).unwrap_or(u32::MAX);
    let baseline = Baseline { generator, fake_score };
    let mut forgetting = Forgetting::new(teacher, baseline, concept, settings, job.plan.seed)?;
    train::continue_from(&job.checkpoint, |state| forgetting.resume(state))?;
    let saving = Saving { to: &job.checkpoint, every: job.checkpoint_every };
    let (figures, watch) = (&mut *job.figures, job.watch);
    figures.time("forgetSeconds", || train::run("forget", &mut forgetting, watch, Some(&saving)))?;

    let candidate = forgetting.finish()?.to_bytes();
    let description = Model::new(config, forgotten.clone()).to_bytes()?;
    let candidate = job.artifacts.put_bundle(BundleKind::Generator, candidate, description)?;
    Ok(ForgetRecord { candidate, targets: forgotten, steps })
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
