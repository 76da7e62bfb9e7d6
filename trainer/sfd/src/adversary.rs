//! An adversary within forgetting: every so many steps it looks for condition rows under which the generator still shows
//! what is to be forgotten, and some of the samples are then shown under these (compare AdvUnlearn, arXiv 2405.15234).
//!
//! It needs no images. The teacher is its judge: an image shows the label if the teacher, asked for the label, denoises it
//! better than asked for what replaces it (compare diffusion classifiers, arXiv 2303.16203).
//!
//! The rows are constants to the training. They stand after the rows of the labels in what psi and theta see as their
//! condition table, so theta's weights have to move, and nothing of them is left in the candidate.

use crate::concept::{Concept, Replacement};
use crate::conditions::Table;
use crate::config::config;
use crate::denoiser::Denoiser;
use crate::error::Result;
use crate::generator;
use crate::loss::perturb;
use crate::noise::{Noise, Stream};
use crate::settings::Adversary;
use crate::variable::Variable;
use tch::{Device, Kind, Tensor};

#[cfg(test)]
mod tests;

#[derive(Debug)]
pub(crate) struct Search {
    settings: Adversary,
    seed: u64,
    table: Table,
    /// Labels of the model, after which the rows are counted.
    classes: i64,
    targets: Vec<(i64, Replacement)>,
    /// `settings.rows` for each target, one target after the other: [N, row]
    rows: Tensor,
}

/// Condition rows beyond those of the labels, on some device.
#[derive(Debug)]
pub(crate) struct Rows {
    table: Table,
    /// [N, row]
    rows: Tensor,
}

impl Rows {
    pub(crate) fn on(&self, device: Device) -> Self {
        Self { table: self.table, rows: self.rows.to_device(device) }
    }

    /// A network, not a copy, that may also be asked by labels beyond its own.
    pub(crate) fn after_those_of(&self, model: &Denoiser) -> Denoiser {
        self.table.extended(model, &self.rows)
    }
}

impl Search {
    /// # Errors
    /// If the model has no condition table, or no room after it.
    pub(crate) fn new(settings: Adversary, concept: &Concept, theta: &Denoiser, seed: u64) -> Result<Self> {
        if theta.null_label().is_some() {
            return Err(config("forget.adversary", "given", "this network has no room for more conditions"));
        }
        let table = Table::of(theta)?;
        let targets = concept.forgotten().to_vec();
        let count = settings.rows * targets.len() as i64;
        let rows = table.rows(theta).get(0).repeat([count, 1]);
        Ok(Self { settings, seed, table, classes: theta.config().classes(), targets, rows })
    }

    /// All that it remembers from one step to the next.
    pub(crate) fn state(&self) -> (&'static str, &Tensor) {
        ("adversary.rows", &self.rows)
    }

    /// A copy of what was found last.
    pub(crate) fn rows(&self) -> Rows {
        Rows { table: self.table, rows: self.rows.copy() }
    }

    /// Searches anew if it is time.
    pub(crate) fn look(&mut self, teacher: &Denoiser, theta: &Denoiser, concept: &Concept, step: u64) {
        if step.is_multiple_of(self.settings.every) {
            let found = self.search(teacher, theta, concept, step);
            self.rows.copy_(&found);
        }
    }

    /// [N, row]
    fn search(&self, teacher: &Denoiser, theta: &Denoiser, concept: &Concept, step: u64) -> Tensor {
        let mut rows = Variable::new(&self.start(theta, step));
        for inner in 0..self.settings.steps {
            let loss =
                self.unlikeness(teacher, theta, concept, rows.leaf(), step * self.settings.steps + inner);
            let gradient = rows.gradient(&loss.sum(None::<Kind>));
            rows.descend(&gradient, self.settings.learning_rate);
        }
        rows.value().copy()
    }

    /// Each target's own row, and others as large as the model's own in any direction.
    fn start(&self, theta: &Denoiser, step: u64) -> Tensor {
        let rows = self.table.rows(theta);
        let (mean, spread) = (rows.mean_dim(0, true, None::<Kind>), rows.std(true));
        let [count, columns] = self.rows.size2().expect("rows are a matrix").into();
        let directions = Noise::new(self.seed, Stream::AdversaryStart);
        let start = mean + directions.normal(step * count as u64, count, columns, theta.device()) * spread;
        for (index, (label, _)) in (0_i64..).zip(&self.targets) {
            start.get(index * self.settings.rows).copy_(&rows.get(*label));
        }
        start
    }

    /// How much less the images under each row look like what is to be forgotten than like what is to be shown instead:
    /// one value per image. `round` numbers the draws.
    fn unlikeness(
        &self,
        teacher: &Denoiser,
        theta: &Denoiser,
        concept: &Concept,
        rows: &Tensor,
        round: u64,
    ) -> Tensor {
        let (n, each, device) = (self.rows.size()[0], self.settings.batch, theta.device());
        let (count, pixels) = (n * each, theta.config().image.pixels());
        let first = round * count as u64;
        let normal = |stream| Noise::new(self.seed, stream).normal(first, count, pixels, device);
        let any = Noise::new(self.seed, Stream::AdversaryReplacement);
        let any = any.below(first, count, concept.kept().len());
        let targets = |index: usize| self.targets[index / (self.settings.rows * each) as usize];
        let sought: Vec<i64> = (0..count as usize).map(|index| targets(index).0).collect();
        let instead: Vec<i64> =
            any.into_iter().enumerate().map(|(index, any)| concept.instead(targets(index).1, any)).collect();
        let [sought, instead] = [sought, instead].map(|labels| Tensor::from_slice(&labels).to_device(device));
        let asked = Tensor::arange_start(self.classes, self.classes + n, (Kind::Int64, device));

        let asked = asked.view([-1, 1]).repeat([1, each]).view([-1]);
        let (x, sigma) = generator::start(theta, &normal(Stream::AdversaryLatent));
        let images = self.table.extended(theta, rows).denoise(&x, &sigma, &asked);
        let level = Tensor::full([1, 1], self.settings.level, (images.kind(), device));
        let noisy = perturb(&images, &normal(Stream::AdversaryNoise), &level);
        let error = |label: &Tensor| {
            let denoised = teacher.denoise(&noisy, &level, label);
            (denoised - &images).square().sum_dim_intlist(1, false, None::<Kind>)
        };
        error(&sought) - error(&instead)
    }

    /// Puts rows in the place of some of the labels `shown` to the samples `first..`, of which those after `remain` are
    /// under forgotten labels.
    pub(crate) fn disguise(&self, shown: &mut [i64], remain: usize, first: u64) {
        let Adversary { rows, share, .. } = self.settings;
        let which = Noise::new(self.seed, Stream::AdversaryRow);
        let which = which.below(first + remain as u64, (shown.len() - remain) as i64, rows as usize);
        // Evenly among them, so that no other choice of a part of the batch meets only these or none.
        let is_chosen = |index: usize| ((index + 1) as f64 * share).floor() > (index as f64 * share).floor();
        for (index, (label, row)) in shown[remain..].iter_mut().zip(which).enumerate() {
            if is_chosen(index) {
                let target = self.targets.iter().position(|(target, _)| target == label);
                let target = target.expect("the samples are under forgotten labels");
                *label = self.classes + target as i64 * rows + row as i64;
            }
        }
    }
}
