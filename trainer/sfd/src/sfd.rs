//! Both stages of SFD as resumable trainings: [`Distillation`] makes the baseline from the teacher alone, [`Forgetting`]
//! makes it forget.
//!
//! A forgetting always starts from the original teacher and the cached baseline with *all* targets ever forgotten.
//! Training on from the last candidate with only the newest target brings the earlier ones back, and chaining fake
//! scores as teachers piles up errors.

use crate::adversary::Search;
use crate::concept::Concept;
use crate::config::{Parametrisation, config};
use crate::denoiser::Denoiser;
use crate::early_stop::{Measures, Watch};
use crate::error::Result;
use crate::iteration::{Iteration, Plan};
use crate::judge::Judge;
use crate::measure::{self, Confusion};
use crate::settings::{
    DistilSettings, ForgetSettings, LabelPrior, PartShares, PartWeights, SfdOptimiser, Stages,
};
use crate::step::BatchShape;
use crate::training::{Progress, Stage, Training};
use serde_json::json;
use tch::{Device, Tensor, no_grad};

#[cfg(test)]
mod tests;

/// Keeps fresh weights apart from those that a teacher of the same seed started with.
const FRESH: u64 = 0xD1B5_4A32_D192_ED03;
/// Baseline samples per label that decide which labels are neighbours.
const CONFUSION_SAMPLES: i64 = 400;

/// What stage 1 leaves behind. Neither network has forgotten anything: the generator may be served as "before", the fake
/// score is training state.
#[derive(Debug)]
pub struct Baseline {
    pub generator: Denoiser,
    pub fake_score: Denoiser,
}

impl Baseline {
    /// An independent copy.
    pub fn duplicate(&self) -> Self {
        Self { generator: self.generator.duplicate(), fake_score: self.fake_score.duplicate() }
    }

    /// Both networks as the teacher: what one-stage forgetting starts from.
    fn of(teacher: &Denoiser) -> Self {
        Self { generator: teacher.duplicate(), fake_score: teacher.duplicate() }
    }

    /// The generator's weights `part` of the way to fresh ones. The fake score stays: it only has to follow.
    fn freshened(self, part: f64, seed: u64) -> Result<Self> {
        if part == 0.0 {
            return Ok(self);
        }
        let fresh = Denoiser::init(self.generator.config(), seed ^ FRESH, self.generator.device())?;
        let (own, fresh) = (self.generator.params().flat(), fresh.params().flat());
        let _ = no_grad(|| own.shallow_clone().lerp_(fresh, part));
        Ok(self)
    }
}

/// Stage 1: the teacher becomes a one-step generator.
#[derive(Debug)]
pub struct Distillation(Iteration);

/// Stage 2: the baseline forgets.
#[derive(Debug)]
pub struct Forgetting {
    iteration: Iteration,
    watch: Option<Watch>,
}

impl Distillation {
    /// # Errors
    /// If a setting is not valid.
    pub fn new(teacher: Denoiser, settings: DistilSettings, seed: u64) -> Result<Self> {
        settings.validate()?;
        check_range(&teacher, &settings.optimiser)?;
        let concept = Concept::keep_all(teacher.config().classes());
        let identity = [("settings", json!(settings))];
        let start = Baseline::of(&teacher);
        let weights = PartWeights { remain: 1.0, forget: 0.0 };
        let shape = BatchShape {
            remain: settings.batch,
            forget: 0,
            fake_score: weights,
            generator: weights,
            reentry: PartShares::default(),
            generator_range: settings.optimiser.generator_range,
            forget_warmup: 0,
        };
        let plan = Plan {
            stage: Stage::Distil,
            steps: settings.steps,
            shape,
            fake_score_learning_rate: settings.fake_score_learning_rate,
            generator_learning_rate: settings.generator_learning_rate,
            optimiser: settings.optimiser,
            seed,
        };
        Ok(Self(Iteration::new(plan, teacher, start, None, concept, identity)))
    }

    /// Shares every step with further devices. The result is that of one device but for the rounding of the devices, and
    /// on CPUs to the bit.
    pub fn share_with(&mut self, devices: &[Device]) {
        self.0.share_with(devices);
    }

    /// Continues from a checkpoint of a training with the same arguments.
    ///
    /// # Errors
    /// If the state is not one of this training.
    pub fn resume(&mut self, state: &[u8]) -> Result<()> {
        self.0.resume(state, &[])
    }

    /// # Errors
    /// [`crate::Error::Diverged`] if a weight is not finite.
    pub fn finish(self) -> Result<Baseline> {
        self.0.check()?;
        Ok(self.0.finish())
    }
}

impl Forgetting {
    /// `concept` holds the whole ledger plus the new targets.
    ///
    /// To go on from an earlier candidate instead of the baseline, give its [`Forgetting::finish_with_fake_score`]:
    /// quicker, as long as `concept` still holds everything that the candidate has forgotten.
    ///
    /// # Errors
    /// If a setting is not valid or needs the judge, nothing is to be forgotten, or the three models differ in form.
    pub fn new(
        teacher: Denoiser,
        baseline: Baseline,
        concept: Concept,
        settings: ForgetSettings,
        seed: u64,
    ) -> Result<Self> {
        Self::start(teacher, baseline, concept, settings, seed, None)
    }

    /// With the judge, which early stopping, overrides by classifier and the protection of neighbours need.
    ///
    /// # Errors
    /// As [`Forgetting::new`], and if the measures are of another model.
    pub fn with_measures(
        teacher: Denoiser,
        baseline: Baseline,
        concept: Concept,
        settings: ForgetSettings,
        seed: u64,
        measures: Measures,
    ) -> Result<Self> {
        Self::start(teacher, baseline, concept, settings, seed, Some(measures))
    }

    fn start(
        teacher: Denoiser,
        baseline: Baseline,
        concept: Concept,
        settings: ForgetSettings,
        seed: u64,
        measures: Option<Measures>,
    ) -> Result<Self> {
        settings.validate()?;
        check_range(&teacher, &settings.optimiser)?;
        check(&teacher, &baseline, &concept, measures.as_ref())?;
        let (judge, reference) = match measures {
            Some(Measures { judge, reference }) => (Some(judge), reference),
            None => (None, None),
        };
        if concept.is_judged() && judge.is_none() {
            return Err(config("override", "by classifier", "give the judge that chooses"));
        }
        let concept = concept.with_null(teacher.null_label(), settings.null_share).with_prior(
            &settings.label_prior,
            neighbours(&settings, &baseline, judge.as_ref(), seed).as_ref(),
        )?;
        let watch = match (settings.early_stop.clone(), judge.as_ref(), reference) {
            (None, ..) => None,
            (Some(stop), Some(judge), Some(reference)) => {
                Some(Watch::new(stop, &concept, &baseline.generator, judge, reference, seed))
            }
            _ => return Err(config("forget.earlyStop", "given", "give the judge and the reference too")),
        };
        let iteration = iteration(teacher, baseline, judge, concept, settings, seed)?;
        Ok(Self { iteration, watch })
    }

    /// Shares every step with further devices. The result is that of one device but for the rounding of the devices, and
    /// on CPUs to the bit.
    pub fn share_with(&mut self, devices: &[Device]) {
        self.iteration.share_with(devices);
    }

    /// Continues from a checkpoint of a training with the same arguments.
    ///
    /// # Errors
    /// If the state is not one of this training.
    pub fn resume(&mut self, state: &[u8]) -> Result<()> {
        let more = self.watch.as_ref().map(Watch::state);
        self.iteration.resume(state, more.as_ref().map_or(&[], |more| more))
    }

    /// Everything random about the next step, by name, for a comparison with another implementation: labels shown and
    /// taught `[B]`, and for each network's step latents and noise `[B, pixels]` and levels `[B, 1]`. The remain part is first.
    pub fn next_batch(&self) -> Vec<(&'static str, Tensor)> {
        let batch = self.iteration.batch();
        batch.tensors().into_iter().map(|(name, tensor)| (name, tensor.shallow_clone())).collect()
    }

    /// What a look at the present state of the candidate finds: the largest share of `samples` images under a forgotten label
    /// that the judge takes for that label.
    pub fn leak(&self, judge: &Judge, samples: i64) -> f64 {
        let Iteration { average, concept, plan, .. } = &self.iteration;
        let leak = |&(label, _): &(i64, _)| {
            measure::check(average, judge, label, samples, plan.seed).0.count(label).share()
        };
        concept.forgotten().iter().map(leak).fold(0.0, f64::max)
    }

    /// The candidate: the generator's averaged weights and nothing else; the best of them if there is early stopping.
    /// The fake score still knows what was forgotten and ends here.
    ///
    /// # Errors
    /// [`crate::Error::Diverged`] if a weight is not finite.
    pub fn finish(self) -> Result<Denoiser> {
        self.iteration.check()?;
        let generator = self.iteration.finish().generator;
        if let Some(best) = self.watch.as_ref().and_then(Watch::best) {
            generator.params().set(best);
        }
        Ok(generator)
    }

    /// The candidate with the fake score that has followed it: what a later forgetting may go on from. Training state,
    /// to be kept where it cannot be served.
    ///
    /// # Errors
    /// [`crate::Error::Diverged`] if a weight is not finite; [`crate::Error::Config`] with early stopping, whose candidate is
    /// an earlier one than the fake score has followed.
    pub fn finish_with_fake_score(self) -> Result<Baseline> {
        if self.watch.is_some() {
            return Err(config(
                "forget.earlyStop",
                "set",
                "the best candidate has no fake score to go on with: train without early stopping",
            ));
        }
        self.iteration.check()?;
        Ok(self.iteration.finish())
    }
}

/// In discrete time the levels are those of the model's own window of timesteps.
fn check_range(teacher: &Denoiser, optimiser: &SfdOptimiser) -> Result<()> {
    let range = optimiser.generator_range;
    match teacher.config().parametrisation {
        Parametrisation::Edm => Ok(()),
        _ if range == SfdOptimiser::default().generator_range => Ok(()),
        _ => Err(config(
            "optimiser.generatorRange",
            range,
            "a model in discrete time has trainingMax in model.json",
        )),
    }
}

fn check(
    teacher: &Denoiser,
    baseline: &Baseline,
    concept: &Concept,
    measures: Option<&Measures>,
) -> Result<()> {
    if concept.forgotten().is_empty() {
        return Err(config("targets", "empty", "name at least one label to forget"));
    }
    for (field, model) in [("generator", &baseline.generator), ("fake score", &baseline.fake_score)] {
        if model.config() != teacher.config() {
            return Err(config(field, "another form", "the baseline must be distilled from this teacher"));
        }
    }
    let Some(Measures { judge, reference }) = measures else { return Ok(()) };
    if !judge.suits(teacher.config()) {
        return Err(config(
            "judge",
            "of another model",
            "the judge must be trained on this teacher's samples",
        ));
    }
    if reference.as_ref().is_some_and(|reference| !reference.suits(teacher.config(), judge)) {
        return Err(config("reference", "of another model", "it must be measured by this judge"));
    }
    Ok(())
}

/// What the judge mistakes for what, if the settings ask for it.
fn neighbours(
    settings: &ForgetSettings,
    baseline: &Baseline,
    judge: Option<&Judge>,
    seed: u64,
) -> Option<Confusion> {
    match settings.label_prior {
        LabelPrior::Neighbours(_) => {
            judge.map(|judge| Confusion::measure(&baseline.generator, judge, CONFUSION_SAMPLES, seed))
        }
        LabelPrior::Uniform | LabelPrior::Weights(_) => None,
    }
}

fn iteration(
    teacher: Denoiser,
    baseline: Baseline,
    judge: Option<Judge>,
    concept: Concept,
    settings: ForgetSettings,
    seed: u64,
) -> Result<Iteration> {
    let identity = [("settings", json!(settings)), ("targets", json!(format!("{:?}", concept.forgotten())))];
    let start = match settings.stages {
        Stages::One => Baseline::of(&teacher),
        Stages::Two => baseline,
    };
    let start = start.freshened(settings.fresh_weights, seed)?;
    let shape = BatchShape {
        remain: settings.remain_batch,
        forget: settings.forget_batch,
        fake_score: settings.fake_score_weights,
        generator: settings.generator_weights,
        reentry: settings.reentry,
        generator_range: settings.optimiser.generator_range,
        forget_warmup: (settings.forget_warmup * settings.steps as f64).round() as u64,
    };
    let plan = Plan {
        stage: Stage::Forget,
        steps: settings.steps,
        shape,
        fake_score_learning_rate: settings.fake_score_learning_rate,
        generator_learning_rate: settings.generator_learning_rate,
        optimiser: settings.optimiser,
        seed,
    };
    let adversary = settings
        .adversary
        .map(|adversary| Search::new(adversary, &concept, &start.generator, seed))
        .transpose()?;
    let mut iteration = Iteration::new(plan, teacher, start, judge, concept, identity);
    iteration.adversary = adversary;
    Ok(iteration)
}

impl Training for Distillation {
    fn stage(&self) -> Stage {
        self.0.plan.stage
    }

    fn step(&self) -> u64 {
        self.0.step
    }

    fn total(&self) -> u64 {
        self.0.plan.steps
    }

    fn advance(&mut self) {
        if !self.done() {
            self.0.advance();
        }
    }

    fn report(&mut self) -> Result<Progress> {
        self.0.report()
    }

    fn checkpoint(&self) -> Result<Vec<u8>> {
        self.0.checkpoint(&[])
    }
}

impl Training for Forgetting {
    fn stage(&self) -> Stage {
        self.iteration.plan.stage
    }

    fn step(&self) -> u64 {
        self.iteration.step
    }

    fn total(&self) -> u64 {
        self.iteration.plan.steps
    }

    /// With early stopping, every so many steps also looks at the result.
    fn advance(&mut self) {
        if self.done() {
            return;
        }
        self.iteration.advance();
        let Iteration { step, plan, average, nets, .. } = &self.iteration;
        if let (Some(watch), Some(judge)) = (&mut self.watch, &nets.judge) {
            watch.look(*step, plan.steps, average, judge);
        }
    }

    fn report(&mut self) -> Result<Progress> {
        let mut progress = self.iteration.report()?;
        progress.looks.extend(self.watch.iter_mut().flat_map(Watch::figures));
        Ok(progress)
    }

    fn checkpoint(&self) -> Result<Vec<u8>> {
        let more = self.watch.as_ref().map(Watch::state);
        self.iteration.checkpoint(more.as_ref().map_or(&[], |more| more))
    }

    fn done(&self) -> bool {
        let step = self.iteration.step;
        step >= self.total() || self.watch.as_ref().is_some_and(|watch| watch.is_satisfied(step))
    }
}
