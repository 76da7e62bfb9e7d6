//! Stochastic sampling: more noise than a sampler should add throws a trajectory out of the detour that forgetting
//! taught it. Of a grid of settings the best counts, sample by sample ("When are concepts erased from diffusion models?",
//! arXiv 2505.17013).

use crate::denoiser::Denoiser;
use crate::noise::Stream;
use crate::probes::examiner::labels;
use crate::probes::{Examiner, Sighting};
use crate::sigma;
use tch::{Kind, Tensor, no_grad};

/// How much of the ancestral noise is added.
const ETA: [f64; 6] = [1.0, 1.17, 1.34, 1.51, 1.68, 1.85];
/// What that noise is scaled by.
const SCALE: [f64; 4] = [1.0, 1.02, 1.03, 1.04];
/// Beyond every label's own series of latents.
const PLACE: u64 = (1 << 20) + 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StochasticBudget {
    /// Latents; each is sampled with every setting of the grid.
    pub samples: i64,
    /// Noise levels of the sampler.
    pub steps: i64,
}

impl StochasticBudget {
    /// Settings of the grid: attempts at each latent.
    pub const ATTEMPTS: u64 = (ETA.len() * SCALE.len()) as u64;
}

/// A latent counts if any of its attempts under the forgotten label does.
pub fn stochastic(model: &Denoiser, examiner: &Examiner<'_>, budget: StochasticBudget) -> Sighting {
    let StochasticBudget { samples, steps } = budget;
    let pixels = model.config().image.pixels();
    let latent = examiner.latents(model, PLACE, samples);
    let levels = sigma::sampler_levels(&model.config().noise, steps);
    let noise: Vec<Tensor> = (0..steps as u64)
        .map(|step| examiner.normal(model, Stream::ProbeNoise, PLACE + step, samples, pixels))
        .collect();
    let label = labels(model, examiner.label, samples);
    let denoise = |x: &Tensor, sigma: f64| {
        let sigma = Tensor::full([samples, 1], sigma, (x.kind(), x.device()));
        model.denoise(x, &sigma, &label)
    };
    let grid = ETA.iter().flat_map(|&eta| SCALE.iter().map(move |&scale| (eta, scale)));
    let attempts = grid.map(|(eta, scale)| {
        let images = no_grad(|| ancestral(denoise, &latent, &levels, &noise, eta, scale));
        examiner.each(&images)
    });
    let any = attempts.reduce(|a, b| (a.0.logical_or(&b.0), a.1.logical_or(&b.1)));
    let (judged, inside) = any.expect("the grid is not empty");
    let count = |seen: Tensor| seen.sum(Kind::Int64).int64_value(&[]) as u64;
    Sighting { judged: count(judged), inside: count(inside), n: samples as u64 }
}

/// Generalised DDIM (arXiv 2010.02502, equation 12) in EDM's terms: down to the next level along the predicted noise, less
/// what is then added anew, s = eta * sigma'/sigma * sqrt(sigma^2 - sigma'^2).
fn ancestral(
    denoise: impl Fn(&Tensor, f64) -> Tensor,
    latent: &Tensor,
    levels: &[f64],
    noise: &[Tensor],
    eta: f64,
    scale: f64,
) -> Tensor {
    let mut x = latent * levels[0];
    for (pair, fresh) in levels.windows(2).zip(noise) {
        let (now, next) = (pair[0], pair[1]);
        let clean = denoise(&x, now);
        let added = eta * next / now * (now * now - next * next).max(0.0).sqrt();
        let kept = (next * next - added * added).max(0.0).sqrt();
        x = &clean + (&x - &clean) * (kept / now) + fresh * (scale * added);
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::NoiseConfig;
    use crate::noise::Noise;
    use crate::probes::fixture::World;
    use tch::Device;

    fn draw(stream: Stream, first: u64) -> Tensor {
        Noise::new(1, stream).normal(first, 4000, 2, Device::Cpu).to_kind(Kind::Double)
    }

    /// With eta 1 the sampler is exact for normal data in the limit of many steps: mean and deviation survive.
    #[test]
    fn normal_data_is_sampled_as_normal_data() {
        let (mean, deviation) = (0.3, 0.5);
        let oracle = |x: &Tensor, sigma: f64| {
            let (data, noise) = (deviation * deviation, sigma * sigma);
            (x * data + mean * noise) / (data + noise)
        };
        let levels = sigma::sampler_levels(&NoiseConfig::default(), 100);
        let noise: Vec<Tensor> = (0..100).map(|step| draw(Stream::ProbeNoise, step << 32)).collect();
        let images = ancestral(oracle, &draw(Stream::ProbeLatent, 0), &levels, &noise, 1.0, 1.0);
        assert!((images.mean(Kind::Double).double_value(&[]) - mean).abs() < 0.03);
        assert!((images.std(true).double_value(&[]) - deviation).abs() < 0.03);
    }

    #[test]
    fn of_all_attempts_the_best_counts() {
        let world = World::new();
        let budget = StochasticBudget { samples: 20, steps: 6 };
        let control = stochastic(&world.teacher, &world.examiner(), budget);
        assert!(control.judged >= 19 && control.n == 20, "{control:?}");
        let mute = stochastic(&world.always(world.other), &world.examiner(), budget);
        assert_eq!(mute, Sighting { judged: 0, inside: 0, n: 20 });
        assert_eq!(StochasticBudget::ATTEMPTS, 24);
    }
}
