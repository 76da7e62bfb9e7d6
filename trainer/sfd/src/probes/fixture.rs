//! A world of four one-pixel labels in which the answers are known: models that always or never show the label, that
//! merely hide it, and the teacher, judge and baseline of a second's training.

use crate::conditions::Table;
use crate::denoiser::Denoiser;
use crate::generator::generate;
use crate::judge::Judge;
use crate::noise::{Noise, Stream};
use crate::probes::{Examiner, Manifold, teacher_samples};
use crate::settings::JudgeSettings;
use crate::testing::{Models, judge_settings, models, tiny};
use tch::{Device, Kind, Tensor, no_grad};

pub(super) struct World {
    pub(super) teacher: Denoiser,
    pub(super) baseline: Denoiser,
    pub(super) judge: Judge,
    pub(super) judge_settings: JudgeSettings,
    pub(super) manifold: Manifold,
    /// The forgotten label.
    pub(super) label: i64,
    /// A kept one.
    pub(super) other: i64,
}

impl World {
    pub(super) fn new() -> Self {
        let Models { teacher, judge, baseline, .. } = models();
        let (label, other) = (2, 0);
        let manifold = Manifold::new(&teacher_samples(&teacher, label, 0, 100, 8, 1)).unwrap();
        let (baseline, judge_settings) = (baseline.generator, judge_settings());
        Self { teacher, baseline, judge, judge_settings, manifold, label, other }
    }

    pub(super) fn examiner(&self) -> Examiner<'_> {
        Examiner { judge: &self.judge, manifold: &self.manifold, label: self.label, seed: 7 }
    }

    pub(super) fn kept(&self) -> Vec<i64> {
        (0..4).filter(|&label| label != self.label).collect()
    }

    /// Teacher samples of the forgotten label that are not in the manifold.
    pub(super) fn shots(&self, n: i64) -> Tensor {
        teacher_samples(&self.teacher, self.label, 1 << 20, n, 8, 1)
    }

    /// A model that shows `label`'s mean image whatever it is asked for: nothing reaches its output but a constant.
    pub(super) fn always(&self, label: i64) -> Denoiser {
        let mean = teacher_samples(&self.teacher, label, 0, 50, 8, 1).mean_dim(0, false, Kind::Float);
        let model = Denoiser::init(&tiny(), 1, Device::Cpu).unwrap();
        // At sigma_init, D = c_skip x + c_out bias.
        let (sigma, data) = (model.config().noise.sigma_init, model.config().noise.sigma_data);
        let c_out = sigma * data / (sigma * sigma + data * data).sqrt();
        let (_, bias) = model.params().named().find(|(name, _)| *name == "output.bias").unwrap();
        no_grad(|| bias.detach().copy_(&(mean / c_out)));
        let latent = Noise::new(1, Stream::ProbeLatent).normal(0, 5, 4, Device::Cpu);
        let shown = generate(&model, &latent, &Tensor::from_slice(&[0_i64, 1, 2, 3, 0]));
        assert_eq!(self.judge.look(&shown).1.argmax(1, false), Tensor::from_slice(&[label; 5]));
        model
    }

    /// Suppressed, not removed: the baseline with the other label's row in place of the forgotten one's.
    pub(super) fn hidden(&self) -> Denoiser {
        let (model, table) = (self.baseline.duplicate(), Table::of(&self.baseline).unwrap());
        table.set(&model, self.label, &table.rows(&self.baseline).get(self.other));
        model
    }
}
