//! The training that both stages share.

use crate::adam::Adam;
use crate::adversary::{Rows, Search};
use crate::concept::Concept;
use crate::denoiser::Denoiser;
use crate::ema;
use crate::error::{Error, Result};
use crate::judge::Judge;
use crate::replicas::{self, Part};
use crate::settings::{Precision, SfdOptimiser};
use crate::sfd::Baseline;
use crate::state::{self, Identity};
use crate::step::{self, Batch, BatchShape, Loss, Matching, Piece};
use crate::training::{Diverged, Means, Meter, NotFinite, Progress, Stage, schedule};
use serde_json::json;
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe, resume_unwind};
use std::thread::{self, JoinHandle};
use tch::{Device, Tensor};

/// Adam's first moment decay for both networks (SiD).
const BETA1: f64 = 0.0;
const LOSSES: [&str; 4] =
    ["fake score (remain)", "fake score (forget)", "generator (remain)", "generator (forget)"];
const NETWORKS: [&str; 2] = ["fake score", "generator"];

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

/// What one network's step was like.
pub(crate) struct Measured {
    /// Mean losses of the remain and of the forget part.
    losses: [Tensor; 2],
    gradient_norm: Tensor,
}

/// The networks of an iteration on one device, and the judge if it chooses overrides.
#[derive(Debug)]
pub(crate) struct Nets {
    /// phi
    pub(crate) teacher: Denoiser,
    /// psi
    pub(crate) fake_score: Denoiser,
    /// theta
    pub(crate) generator: Denoiser,
    pub(crate) judge: Option<Judge>,
    /// An adversary's rows, if there is one.
    pub(crate) rows: Option<Rows>,
}

/// The training that both stages share.
#[derive(Debug)]
pub(crate) struct Iteration {
    pub(crate) plan: Plan,
    identity: Identity,
    pub(crate) concept: Concept,
    pub(crate) adversary: Option<Search>,
    pub(crate) nets: Nets,
    /// The same on every further device; they follow the first.
    replicas: Vec<Nets>,
    /// theta's moving average
    pub(crate) average: Denoiser,
    /// Most samples of a piece of a batch.
    pub(crate) most_at_once: i64,
    /// Whether another thread draws the next batch meanwhile: where the networks are not on the CPU, which has the time.
    pub(crate) draws_ahead: bool,
    /// The batch that is being drawn, and the step that it is for.
    ahead: Option<(u64, JoinHandle<Batch>)>,
    fake_score_adam: Adam,
    generator_adam: Adam,
    pub(crate) step: u64,
    meter: Meter,
}

impl Nets {
    fn on(&self, device: Device) -> Self {
        Self {
            teacher: self.teacher.on(device),
            fake_score: self.fake_score.on(device),
            generator: self.generator.on(device),
            judge: self.judge.as_ref().map(|judge| judge.on(device)),
            rows: self.rows.as_ref().map(|rows| rows.on(device)),
        }
    }

    /// psi and theta with an adversary's rows after those of the labels, if there is one: as batches ask them.
    fn extended(&self) -> Option<[Denoiser; 2]> {
        let networks = [&self.fake_score, &self.generator];
        self.rows.as_ref().map(|rows| networks.map(|network| rows.after_those_of(network)))
    }

    fn fake_score_loss(&self, piece: &Piece) -> Loss {
        match self.extended() {
            Some([psi, theta]) => step::fake_score_loss(&psi, &theta, piece),
            None => step::fake_score_loss(&self.fake_score, &self.generator, piece),
        }
    }

    fn generator_loss(&self, piece: &Piece, matching: Matching<'_>) -> Loss {
        match self.extended() {
            Some([psi, theta]) => step::generator_loss(&self.teacher, &psi, &theta, piece, matching),
            None => step::generator_loss(&self.teacher, &self.fake_score, &self.generator, piece, matching),
        }
    }

    fn device(&self) -> Device {
        self.teacher.device()
    }
}

impl Iteration {
    /// `judge` chooses overrides where the concept says so.
    pub(crate) fn new<const N: usize>(
        plan: Plan,
        teacher: Denoiser,
        start: Baseline,
        judge: Option<Judge>,
        concept: Concept,
        identity: [(&'static str, serde_json::Value); N],
    ) -> Self {
        let judging = judge.as_ref().map(Judge::weights);
        let given = [&teacher, &start.fake_score, &start.generator].map(|network| network.params().flat());
        let common = [
            ("stage", json!(plan.stage)),
            ("seed", json!(plan.seed)),
            ("model", json!(teacher.config())),
            ("input", state::fingerprint(given.into_iter().chain(judging))),
        ];
        let average = start.generator.duplicate();
        let precision = plan.optimiser.precision;
        let [teacher, fake_score, generator] =
            [teacher, start.fake_score, start.generator].map(|network| network.in_precision(precision));
        Self {
            identity: Identity::new(common.into_iter().chain(identity)),
            concept,
            adversary: None,
            average,
            most_at_once: teacher.most_at_once(),
            draws_ahead: teacher.device() != Device::Cpu,
            ahead: None,
            fake_score_adam: Adam::new(fake_score.params(), BETA1),
            generator_adam: Adam::new(generator.params(), BETA1),
            step: 0,
            meter: Meter::new(&LOSSES, &NETWORKS, teacher.device()),
            nets: Nets { teacher, fake_score, generator, judge, rows: None },
            replicas: Vec::new(),
            plan,
        }
    }

    /// Shares every step with further devices, as far as a batch has pieces for them.
    pub(crate) fn share_with(&mut self, devices: &[Device]) {
        let BatchShape { remain, forget, .. } = self.plan.shape;
        let others = replicas::useful(devices, remain + forget, self.most_at_once);
        self.replicas.extend(others.iter().map(|&device| self.nets.on(device)));
    }

    /// `more` are tensors of the stage's own that change, by name.
    pub(crate) fn resume(&mut self, state: &[u8], more: &[(&str, &Tensor)]) -> Result<()> {
        self.step = state::load(state, &self.identity, self.state(more))?;
        self.follow(|nets| &nets.fake_score);
        self.follow(|nets| &nets.generator);
        self.follow_adversary();
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn replicas(&self) -> &[Nets] {
        &self.replicas
    }

    /// Every tensor that changes.
    fn state<'a>(&'a self, more: &[(&str, &'a Tensor)]) -> Vec<(String, &'a Tensor)> {
        let networks = [
            ("fake_score", &self.nets.fake_score),
            ("generator", &self.nets.generator),
            ("average", &self.average),
        ];
        let adams = [("fake_score_adam", &self.fake_score_adam), ("generator_adam", &self.generator_adam)];
        let weights = networks.map(|(name, network)| (name.to_owned(), network.params().flat()));
        let moments = adams
            .into_iter()
            .flat_map(|(of, adam)| adam.state().map(move |(name, tensor)| (format!("{of}.{name}"), tensor)));
        let sought = self.adversary.iter().map(Search::state);
        let sought = sought.map(|(name, tensor)| (name.to_owned(), tensor));
        let more = more.iter().map(|&(name, tensor)| (name.to_owned(), tensor));
        let moving = weights.into_iter().chain(moments).chain(sought);
        moving.chain([self.meter.state()]).chain(more).collect()
    }

    /// First the fake score follows the generator, then the generator follows the teacher.
    pub(crate) fn advance(&mut self) {
        if let Some(adversary) = &mut self.adversary {
            let Nets { teacher, generator, .. } = &self.nets;
            adversary.look(teacher, generator, &self.concept, self.step);
            self.follow_adversary();
        }
        let batch = self.next_batch();
        let [fake, moved] = NETWORKS;
        let fake_score = training(fake, || self.follow_generator(&batch));
        let generator = training(moved, || self.follow_teacher(&batch));
        let ([fake_remain, fake_forget], [remain, forget]) = (fake_score.losses, generator.losses);
        let norms = [fake_score.gradient_norm, generator.gradient_norm];
        self.meter.add(&[fake_remain, fake_forget, remain, forget], &norms);
        self.step += 1;
    }

    /// The batch of the step that comes next.
    pub(crate) fn batch(&self) -> Batch {
        let Plan { shape, seed, .. } = self.plan;
        let adversary = self.adversary.as_ref();
        Batch::draw(&self.nets.teacher.form(), &self.concept, shape, seed, self.step, adversary)
    }

    /// The same, from the thread that has drawn it; and the one after it is begun.
    fn next_batch(&mut self) -> Batch {
        let ahead = self.ahead.take().filter(|(step, _)| *step == self.step);
        let batch = match ahead.map(|(_, thread)| thread.join()) {
            Some(Ok(batch)) => batch,
            Some(Err(panic)) => resume_unwind(panic),
            None => self.batch(),
        };
        let next = self.step + 1;
        if self.draws_ahead && self.adversary.is_none() && next < self.plan.steps {
            let (form, concept) = (self.nets.teacher.form(), self.concept.clone());
            let Plan { shape, seed, .. } = self.plan;
            let draw = move || Batch::draw(&form, &concept, shape, seed, next, None);
            self.ahead = Some((next, thread::spawn(draw)));
        }
        batch
    }

    /// One step of psi, and of nothing else.
    pub(crate) fn follow_generator(&mut self, batch: &Batch) -> Measured {
        let rate = self.rate() * self.plan.fake_score_learning_rate;
        let Part { mut gradient, each } = self.fake_score_gradient(batch);
        let gradient_norm = clip(&mut gradient, self.plan.optimiser.clip);
        self.fake_score_adam.step(self.nets.fake_score.params(), &gradient, rate, self.step);
        self.follow(|nets| &nets.fake_score);
        Measured { losses: batch.means(&each), gradient_norm }
    }

    /// One step of theta and its average, and of nothing else.
    pub(crate) fn follow_teacher(&mut self, batch: &Batch) -> Measured {
        let SfdOptimiser { ema_decay, averaging, .. } = self.plan.optimiser;
        let rate = self.rate() * self.plan.generator_learning_rate;
        let Part { mut gradient, each } = self.generator_gradient(batch);
        let gradient_norm = clip(&mut gradient, self.plan.optimiser.clip);
        self.generator_adam.step(self.nets.generator.params(), &gradient, rate, self.step);
        self.follow(|nets| &nets.generator);
        let decay = ema::decay(averaging, self.step, ema_decay);
        ema::update(self.average.params().flat(), self.nets.generator.params().flat(), decay);
        Measured { losses: batch.means(&each), gradient_norm }
    }

    fn fake_score_gradient(&mut self, batch: &Batch) -> Part {
        self.gradient(batch, Batch::fake_score_piece, |nets| &nets.fake_score, Nets::fake_score_loss)
    }

    fn generator_gradient(&mut self, batch: &Batch) -> Part {
        let SfdOptimiser { alpha, gradient, .. } = self.plan.optimiser;
        self.gradient(
            batch,
            Batch::generator_piece,
            |nets| &nets.generator,
            move |nets, piece| {
                let matching = Matching { alpha, gradient, judge: nets.judge.as_ref() };
                nets.generator_loss(piece, matching)
            },
        )
    }

    /// The gradient of a loss with respect to one of the networks, piece by piece on all devices, and the loss of each
    /// sample.
    fn gradient(
        &mut self,
        batch: &Batch,
        piece: impl Fn(&Batch, &Range<i64>) -> Piece,
        of: fn(&Nets) -> &Denoiser,
        loss: impl Fn(&Nets, &Piece) -> Loss + Copy + Send,
    ) -> Part {
        let pieces = batch.pieces(self.most_at_once);
        let pieces = pieces.iter().map(|at| piece(batch, at)).collect();
        let work = move |nets: &Nets, piece: Piece| {
            let Loss { total, each } = loss(nets, &piece.on(nets.device()));
            Part { gradient: of(nets).params().gradient(&total), each }
        };
        replicas::sum(&self.nets, &mut self.replicas, self.nets.device(), pieces, work)
    }

    /// The rows that were found, everywhere.
    fn follow_adversary(&mut self) {
        let rows = self.adversary.as_ref().map(Search::rows);
        let everywhere = [&mut self.nets].into_iter().chain(&mut self.replicas);
        everywhere.for_each(|nets| nets.rows = rows.as_ref().map(|rows| rows.on(nets.device())));
    }

    /// What a network became on the first device, everywhere.
    fn follow(&self, of: fn(&Nets) -> &Denoiser) {
        let params = of(&self.nets).params();
        params.settle();
        self.replicas.iter().for_each(|nets| of(nets).params().set(params.flat()));
    }

    /// Factor of both learning rates.
    fn rate(&self) -> f64 {
        schedule(self.step, self.plan.steps, self.plan.optimiser.warmup_steps, self.plan.optimiser.decay)
    }

    pub(crate) fn report(&mut self) -> Result<Progress> {
        let means = self.meter.read().map_err(|found| self.diverged(found))?;
        self.check()?;
        let Means { losses, gradient_norms } = means;
        Ok(Progress {
            stage: self.plan.stage,
            step: self.step,
            total: self.plan.steps,
            images: self.step * (self.plan.shape.remain + self.plan.shape.forget) as u64,
            losses,
            gradient_norms,
            looks: Vec::new(),
        })
    }

    /// A gradient is gone when somebody asks. The next one is mostly no better, and tells where.
    fn diverged(&mut self, found: Diverged) -> Error {
        let NotFinite::Gradient(network) = found.what else { return found.at(self.step, None) };
        let batch = self.batch();
        let (gradient, network) = match network {
            "generator" => (self.generator_gradient(&batch).gradient, &self.nets.generator),
            _ => (self.fake_score_gradient(&batch).gradient, &self.nets.fake_score),
        };
        found.at(self.step, network.params().first_not_finite_in(&gradient))
    }

    pub(crate) fn checkpoint(&self, more: &[(&str, &Tensor)]) -> Result<Vec<u8>> {
        self.check()?;
        Ok(state::save(&self.identity, self.step, self.state(more)))
    }

    /// The average, and psi as it is.
    pub(crate) fn finish(self) -> Baseline {
        let fake_score = self.nets.fake_score.in_precision(Precision::F32);
        Baseline { generator: self.average, fake_score }
    }

    pub(crate) fn check(&self) -> Result<()> {
        for (of, network) in [("fake score", &self.nets.fake_score), ("generator", &self.nets.generator)] {
            if let Some(name) = network.params().first_not_finite() {
                let tensor = format!("weight {name} of the {of}");
                return Err(Error::Diverged { step: self.step, tensor });
            }
        }
        Ok(())
    }
}

/// Does something to a network. A panic in it, which is how libtorch says that there is no memory, says which network it was.
fn training<T>(network: &str, work: impl FnOnce() -> T) -> T {
    panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let Some(said) = said.or_else(|| panic.downcast_ref::<&str>().copied()) else { resume_unwind(panic) };
        resume_unwind(Box::new(format!("training the {network}: {said}")))
    })
}

/// Clips every value of a gradient, and returns the norm that it had. An infinite value is not there any more afterwards:
/// the norm is what tells of it.
fn clip(gradient: &mut Tensor, most: f64) -> Tensor {
    let norm = gradient.norm();
    let _ = gradient.clamp_(-most, most);
    norm
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_in_a_step_says_whose_step_it_was() {
        let said = |work: fn()| {
            let panic = panic::catch_unwind(|| training("generator", work)).unwrap_err();
            panic.downcast_ref::<String>().cloned()
        };
        let no_memory = Some("training the generator: no memory".to_owned());
        assert_eq!(said(|| panic!("no memory")), no_memory);
        assert_eq!(said(|| panic!("no {}", "memory")), no_memory);
        assert_eq!(said(|| panic::panic_any(7)), None);
    }
}
