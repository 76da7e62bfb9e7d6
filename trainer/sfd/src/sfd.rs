//! Both stages of SFD as resumable trainings: [`Distillation`] makes the baseline from the teacher alone, [`Forgetting`]
//! makes it forget.
//!
//! A forgetting always starts from the original teacher and the cached baseline with *all* targets ever forgotten.
//! Training on from the last candidate with only the newest target brings the earlier ones back, and chaining fake
//! scores as teachers piles up errors.

use crate::adam::Adam;
use crate::concept::Concept;
use crate::config::config;
use crate::denoiser::Denoiser;
use crate::ema;
use crate::error::{Error, Result};
use crate::params::Params;
use crate::settings::{DistilSettings, ForgetSettings, SfdOptimiser};
use crate::state::{self, Identity};
use crate::step::{self, Batch, BatchShape, Loss};
use crate::training::{Meter, Progress, Stage, Training, schedule};
use serde_json::json;
use tch::{Tensor, no_grad};

#[cfg(test)]
mod tests;

/// Adam's first moment decay for both networks (SiD).
const BETA1: f64 = 0.0;
/// Keeps fresh weights apart from those that a teacher of the same seed started with.
const FRESH: u64 = 0xD1B5_4A32_D192_ED03;
const LOSSES: [&str; 4] =
    ["fake score (remain)", "fake score (forget)", "generator (remain)", "generator (forget)"];

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
pub struct Forgetting(Iteration);

impl Distillation {
    /// # Errors
    /// If a setting is not valid.
    pub fn new(teacher: Denoiser, settings: DistilSettings, seed: u64) -> Result<Self> {
        settings.validate()?;
        let concept = Concept::keep_all(teacher.config().classes());
        let identity = [("settings", json!(settings))];
        let start = Baseline { generator: teacher.duplicate(), fake_score: teacher.duplicate() };
        let shape = BatchShape { remain: settings.batch, forget: 0, forget_weight: 0.0 };
        let plan = Plan {
            stage: Stage::Distil,
            steps: settings.steps,
            shape,
            fake_score_learning_rate: settings.fake_score_learning_rate,
            generator_learning_rate: settings.generator_learning_rate,
            optimiser: settings.optimiser,
            seed,
        };
        Ok(Self(Iteration::new(plan, teacher, start, concept, identity)))
    }

    /// Continues from a checkpoint of a training with the same arguments.
    ///
    /// # Errors
    /// If the state is not one of this training.
    pub fn resume(&mut self, state: &[u8]) -> Result<()> {
        self.0.resume(state)
    }

    /// # Errors
    /// [`Error::Diverged`] if a weight is not finite.
    pub fn finish(self) -> Result<Baseline> {
        self.0.check()?;
        Ok(Baseline { generator: self.0.average, fake_score: self.0.fake_score })
    }
}

impl Forgetting {
    /// `concept` holds the whole ledger plus the new targets.
    ///
    /// # Errors
    /// If a setting is not valid, nothing is to be forgotten, or the three models differ in form.
    pub fn new(
        teacher: Denoiser,
        baseline: Baseline,
        concept: Concept,
        settings: ForgetSettings,
        seed: u64,
    ) -> Result<Self> {
        settings.validate()?;
        if concept.forgotten().is_empty() {
            return Err(config("targets", "empty", "name at least one label to forget"));
        }
        for (field, model) in [("generator", &baseline.generator), ("fake score", &baseline.fake_score)] {
            if model.config() != teacher.config() {
                return Err(config(
                    field,
                    "another form",
                    "the baseline must be distilled from this teacher",
                ));
            }
        }
        let identity =
            [("settings", json!(settings)), ("targets", json!(format!("{:?}", concept.forgotten())))];
        let (remain, forget) = (settings.remain_batch, settings.forget_batch);
        let shape = BatchShape { remain, forget, forget_weight: settings.forget_weight };
        let plan = Plan {
            stage: Stage::Forget,
            steps: settings.steps,
            shape,
            fake_score_learning_rate: settings.fake_score_learning_rate,
            generator_learning_rate: settings.generator_learning_rate,
            optimiser: settings.optimiser,
            seed,
        };
        let start = baseline.freshened(settings.fresh_weights, seed)?;
        Ok(Self(Iteration::new(plan, teacher, start, concept, identity)))
    }

    /// Continues from a checkpoint of a training with the same arguments.
    ///
    /// # Errors
    /// If the state is not one of this training.
    pub fn resume(&mut self, state: &[u8]) -> Result<()> {
        self.0.resume(state)
    }

    /// Everything random about the next step, by name, for a comparison with another implementation: labels shown and
    /// taught [B], and for each network's step latents and noise [B, pixels] and levels [B, 1]. The remain part is first.
    pub fn next_batch(&self) -> Vec<(&'static str, Tensor)> {
        let batch = self.0.batch();
        batch.tensors().into_iter().map(|(name, tensor)| (name, tensor.shallow_clone())).collect()
    }

    /// The candidate: the generator's averaged weights and nothing else. The fake score still knows what was forgotten
    /// and ends here.
    ///
    /// # Errors
    /// [`Error::Diverged`] if a weight is not finite.
    pub fn finish(self) -> Result<Denoiser> {
        self.0.check()?;
        Ok(self.0.average)
    }
}

#[derive(Debug)]
struct Plan {
    stage: Stage,
    steps: u64,
    shape: BatchShape,
    fake_score_learning_rate: f64,
    generator_learning_rate: f64,
    optimiser: SfdOptimiser,
    seed: u64,
}

/// The training that both stages share.
#[derive(Debug)]
struct Iteration {
    plan: Plan,
    identity: Identity,
    concept: Concept,
    /// phi
    teacher: Denoiser,
    /// psi
    fake_score: Denoiser,
    /// theta
    generator: Denoiser,
    /// theta's moving average
    average: Denoiser,
    fake_score_adam: Adam,
    generator_adam: Adam,
    step: u64,
    meter: Meter,
}

impl Iteration {
    fn new<const N: usize>(
        plan: Plan,
        teacher: Denoiser,
        start: Baseline,
        concept: Concept,
        identity: [(&'static str, serde_json::Value); N],
    ) -> Self {
        let common =
            [("stage", json!(plan.stage)), ("seed", json!(plan.seed)), ("model", json!(teacher.config()))];
        Self {
            identity: Identity::new(common.into_iter().chain(identity)),
            concept,
            average: start.generator.duplicate(),
            fake_score_adam: Adam::new(start.fake_score.params(), BETA1),
            generator_adam: Adam::new(start.generator.params(), BETA1),
            fake_score: start.fake_score,
            generator: start.generator,
            step: 0,
            meter: Meter::new(&LOSSES, teacher.device()),
            teacher,
            plan,
        }
    }

    fn resume(&mut self, state: &[u8]) -> Result<()> {
        self.step = state::load(state, &self.identity, self.state())?;
        Ok(())
    }

    /// Every tensor that changes.
    fn state(&self) -> Vec<(String, &Tensor)> {
        let networks =
            [("fake_score", &self.fake_score), ("generator", &self.generator), ("average", &self.average)];
        let adams = [("fake_score_adam", &self.fake_score_adam), ("generator_adam", &self.generator_adam)];
        let weights = networks.map(|(name, network)| (name.to_owned(), network.params().flat()));
        let moments = adams
            .into_iter()
            .flat_map(|(of, adam)| adam.state().map(move |(name, tensor)| (format!("{of}.{name}"), tensor)));
        weights.into_iter().chain(moments).collect()
    }

    /// First the fake score follows the generator, then the generator follows the teacher.
    fn advance(&mut self) {
        if self.done() {
            return;
        }
        let batch = self.batch();
        let [fake_remain, fake_forget] = self.follow_generator(&batch);
        let [remain, forget] = self.follow_teacher(&batch);
        self.meter.add(&[fake_remain, fake_forget, remain, forget]);
        self.step += 1;
    }

    fn batch(&self) -> Batch {
        Batch::draw(&self.teacher, &self.concept, self.plan.shape, self.plan.seed, self.step)
    }

    /// One step of psi, and of nothing else.
    fn follow_generator(&mut self, batch: &Batch) -> [Tensor; 2] {
        let rate = self.rate() * self.plan.fake_score_learning_rate;
        let loss = step::fake_score_loss(&self.fake_score, &self.generator, batch);
        let gradient = clipped_gradient(self.fake_score.params(), &loss, self.plan.optimiser.clip);
        self.fake_score_adam.step(self.fake_score.params(), &gradient, rate, self.step);
        loss.parts
    }

    /// One step of theta and its average, and of nothing else.
    fn follow_teacher(&mut self, batch: &Batch) -> [Tensor; 2] {
        let SfdOptimiser { alpha, clip, ema_decay, .. } = self.plan.optimiser;
        let rate = self.rate() * self.plan.generator_learning_rate;
        let loss = step::generator_loss(&self.teacher, &self.fake_score, &self.generator, batch, alpha);
        let gradient = clipped_gradient(self.generator.params(), &loss, clip);
        self.generator_adam.step(self.generator.params(), &gradient, rate, self.step);
        let decay = ema::decay(self.step, ema_decay);
        ema::update(self.average.params().flat(), self.generator.params().flat(), decay);
        loss.parts
    }

    /// Factor of both learning rates.
    fn rate(&self) -> f64 {
        schedule(self.step, self.plan.steps, self.plan.optimiser.warmup_steps, self.plan.optimiser.decay)
    }

    fn report(&mut self) -> Result<Progress> {
        let losses = self.meter.read(self.step)?;
        self.check()?;
        Ok(Progress { stage: self.plan.stage, step: self.step, total: self.plan.steps, losses })
    }

    fn checkpoint(&self) -> Result<Vec<u8>> {
        self.check()?;
        Ok(state::save(&self.identity, self.step, self.state()))
    }

    fn check(&self) -> Result<()> {
        for (of, network) in [("fake score", &self.fake_score), ("generator", &self.generator)] {
            if let Some(name) = network.params().first_not_finite() {
                let tensor = format!("weight {name} of the {of}");
                return Err(Error::Diverged { step: self.step, tensor });
            }
        }
        Ok(())
    }

    fn done(&self) -> bool {
        self.step >= self.plan.steps
    }
}

fn clipped_gradient(params: &Params, loss: &Loss, clip: f64) -> Tensor {
    params.gradient(&loss.total).clamp_(-clip, clip)
}

macro_rules! training {
    ($($stage:ty),*) => {$(
        impl Training for $stage {
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
                self.0.advance();
            }

            fn report(&mut self) -> Result<Progress> {
                self.0.report()
            }

            fn checkpoint(&self) -> Result<Vec<u8>> {
                self.0.checkpoint()
            }
        }
    )*};
}

training!(Distillation, Forgetting);
