//! Samples that re-enter the generator.
//!
//! A one-step generator is trained at one noise level only. Whoever runs it as an ordinary denoiser, in many steps, asks it
//! at levels where it still is what it started from. Here part of a batch is generated in two evaluations: an image as ever,
//! then noise upon it, of a level that a sampler would visit, and one denoising of that. Only the second is trained.

use super::BatchShape;
use crate::denoiser::{Denoiser, Form};
use crate::device::upload;
use crate::generator::{self, denoise_latent};
use crate::loss::perturb;
use crate::noise::Noise;
use std::ops::Range;
use tch::{Device, Tensor, no_grad};

/// Which samples of a batch re-enter, and all that is random about it.
#[derive(Debug)]
pub(super) struct Reentry {
    /// Their places in the batch: [K]
    pub(super) rows: Tensor,
    /// [K, 1]
    pub(super) sigma: Tensor,
    /// [K, pixels]
    pub(super) noise: Tensor,
}

impl Reentry {
    /// For the batch of the samples `first..`, on the CPU: its share of each part, from the part's beginning. `None` if that is no
    /// sample.
    pub(super) fn draw(
        form: &Form,
        shape: BatchShape,
        first: u64,
        sigma: Noise,
        noise: Noise,
    ) -> Option<Self> {
        let count = |part: i64, share: f64| (part as f64 * share).round() as i64;
        let BatchShape { remain, forget, reentry, .. } = shape;
        let parts = [(0, count(remain, reentry.remain)), (remain, count(forget, reentry.forget))];
        if parts.iter().all(|(_, count)| *count == 0) {
            return None;
        }
        let pixels = form.config.image.pixels();
        let rows: Vec<i64> = parts.iter().flat_map(|&(start, count)| start..start + count).collect();
        let uniform = parts.map(|(start, count)| sigma.uniform(first + start as u64, count)).concat();
        let noise =
            parts.map(|(start, count)| noise.normal(first + start as u64, count, pixels, Device::Cpu));
        Some(Self {
            rows: Tensor::from_slice(&rows),
            sigma: form.preconditioning.visited_levels(&uniform),
            noise: Tensor::cat(&noise, 0),
        })
    }

    /// Those of some of the batch's samples, on the CPU. `None` if that is no sample.
    pub(super) fn piece(&self, at: &Range<i64>) -> Option<Self> {
        let Self { rows, sigma, noise } = self;
        let all = Vec::<i64>::try_from(rows).expect("places are whole numbers");
        let [first, end] = [at.start, at.end].map(|place| all.partition_point(|&row| row < place) as i64);
        let own = |tensor: &Tensor| tensor.narrow(0, first, end - first);
        (first < end).then(|| Self { rows: own(rows) - at.start, sigma: own(sigma), noise: own(noise) })
    }

    /// The same on a device.
    pub(super) fn on(&self, device: Device) -> Self {
        let Self { rows, sigma, noise } = self;
        let [rows, sigma, noise] = [rows, sigma, noise].map(|tensor| upload(tensor, device));
        Self { rows, sigma, noise }
    }

    /// Where the generator starts: noisy images [B, pixels] and their levels [B, 1]. Without gradients.
    pub(super) fn start(&self, generator: &Denoiser, latent: &Tensor, label: &Tensor) -> (Tensor, Tensor) {
        let own = |of: &Tensor| of.index_select(0, &self.rows);
        no_grad(|| {
            let (x, sigma) = generator::start(generator, latent);
            let images = denoise_latent(generator, &own(latent), &own(label));
            let again = perturb(&images, &self.noise, &self.sigma);
            let sigma = sigma.repeat([latent.size()[0], 1]);
            (x.index_copy(0, &self.rows, &again), sigma.index_copy(0, &self.rows, &self.sigma))
        })
    }
}
