//! The training that both stages share.

use crate::adam::Adam;
use crate::concept::Concept;
use crate::denoiser::Denoiser;
use crate::ema;
use crate::error::{Error, Result};
use crate::judge::Judge;
use crate::params::Params;
use crate::settings::SfdOptimiser;
use crate::sfd::Baseline;
use crate::state::{self, Identity};
use crate::step::{self, Batch, BatchShape, Loss, Matching};
use crate::training::{Meter, Progress, Stage, schedule};
use serde_json::json;
use tch::Tensor;

/// Adam's first moment decay for both networks (SiD).
const BETA1: f64 = 0.0;
const LOSSES: [&str; 4] =
    ["fake score (remain)", "fake score (forget)", "generator (remain)", "generator (forget)"];

#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) stage: Stage,
    pub(crate) steps: u64,
    pub(crate) shape: BatchShape,
    pub(crate) fake_score_learning_rate: f64,
    pub(crate) generator_learning_rate: f64,
    pub(crate) optimiser: SfdOptimiser,
    pub(crate) seed: u64,
}

/// The training that both stages share.
#[derive(Debug)]
pub(crate) struct Iteration {
    pub(crate) plan: Plan,
    identity: Identity,
    pub(crate) concept: Concept,
    /// phi
    pub(crate) teacher: Denoiser,
    /// psi
    pub(crate) fake_score: Denoiser,
    /// theta
    pub(crate) generator: Denoiser,
    /// theta's moving average
    pub(crate) average: Denoiser,
    fake_score_adam: Adam,
    generator_adam: Adam,
    pub(crate) step: u64,
    meter: Meter,
}

impl Iteration {
    pub(crate) fn new<const N: usize>(
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

    /// `more` are tensors of the stage's own that change, by name.
    pub(crate) fn resume(&mut self, state: &[u8], more: &[(&str, &Tensor)]) -> Result<()> {
        self.step = state::load(state, &self.identity, self.state(more))?;
        Ok(())
    }

    /// Every tensor that changes.
    fn state<'a>(&'a self, more: &[(&str, &'a Tensor)]) -> Vec<(String, &'a Tensor)> {
        let networks =
            [("fake_score", &self.fake_score), ("generator", &self.generator), ("average", &self.average)];
        let adams = [("fake_score_adam", &self.fake_score_adam), ("generator_adam", &self.generator_adam)];
        let weights = networks.map(|(name, network)| (name.to_owned(), network.params().flat()));
        let moments = adams
            .into_iter()
            .flat_map(|(of, adam)| adam.state().map(move |(name, tensor)| (format!("{of}.{name}"), tensor)));
        let more = more.iter().map(|&(name, tensor)| (name.to_owned(), tensor));
        weights.into_iter().chain(moments).chain(more).collect()
    }

    /// First the fake score follows the generator, then the generator follows the teacher.
    pub(crate) fn advance(&mut self, judge: Option<&Judge>) {
        let batch = self.batch();
        let [fake_remain, fake_forget] = self.follow_generator(&batch);
        let [remain, forget] = self.follow_teacher(&batch, judge);
        self.meter.add(&[fake_remain, fake_forget, remain, forget]);
        self.step += 1;
    }

    pub(crate) fn batch(&self) -> Batch {
        Batch::draw(&self.teacher, &self.concept, self.plan.shape, self.plan.seed, self.step)
    }

    /// One step of psi, and of nothing else.
    pub(crate) fn follow_generator(&mut self, batch: &Batch) -> [Tensor; 2] {
        let rate = self.rate() * self.plan.fake_score_learning_rate;
        let loss = step::fake_score_loss(&self.fake_score, &self.generator, batch);
        let gradient = clipped_gradient(self.fake_score.params(), &loss, self.plan.optimiser.clip);
        self.fake_score_adam.step(self.fake_score.params(), &gradient, rate, self.step);
        loss.parts
    }

    /// One step of theta and its average, and of nothing else.
    pub(crate) fn follow_teacher(&mut self, batch: &Batch, judge: Option<&Judge>) -> [Tensor; 2] {
        let SfdOptimiser { alpha, gradient, clip, ema_decay, averaging, .. } = self.plan.optimiser;
        let rate = self.rate() * self.plan.generator_learning_rate;
        let matching = Matching { alpha, gradient, judge };
        let loss = step::generator_loss(&self.teacher, &self.fake_score, &self.generator, batch, matching);
        let gradient = clipped_gradient(self.generator.params(), &loss, clip);
        self.generator_adam.step(self.generator.params(), &gradient, rate, self.step);
        let decay = ema::decay(averaging, self.step, ema_decay);
        ema::update(self.average.params().flat(), self.generator.params().flat(), decay);
        loss.parts
    }

    /// Factor of both learning rates.
    fn rate(&self) -> f64 {
        schedule(self.step, self.plan.steps, self.plan.optimiser.warmup_steps, self.plan.optimiser.decay)
    }

    pub(crate) fn report(&mut self) -> Result<Progress> {
        let losses = self.meter.read(self.step)?;
        self.check()?;
        Ok(Progress { stage: self.plan.stage, step: self.step, total: self.plan.steps, losses })
    }

    pub(crate) fn checkpoint(&self, more: &[(&str, &Tensor)]) -> Result<Vec<u8>> {
        self.check()?;
        Ok(state::save(&self.identity, self.step, self.state(more)))
    }

    pub(crate) fn check(&self) -> Result<()> {
        for (of, network) in [("fake score", &self.fake_score), ("generator", &self.generator)] {
            if let Some(name) = network.params().first_not_finite() {
                let tensor = format!("weight {name} of the {of}");
                return Err(Error::Diverged { step: self.step, tensor });
            }
        }
        Ok(())
    }
}

fn clipped_gradient(params: &Params, loss: &Loss, clip: f64) -> Tensor {
    params.gradient(&loss.total).clamp_(-clip, clip)
}
