//! Samplers of many steps, along the probability flow: the teacher's Heun method (EDM, arXiv 2206.00364, algorithm 1
//! without churn), and DDIM (arXiv 2010.02502), by which people sample discrete-time models.

use crate::denoiser::Denoiser;
use crate::generator::to_image;
use crate::sigma;
use tch::{Tensor, no_grad};

/// Images under `label`, with pixels in [-1, 1]: `2 * steps - 1` evaluations of the network.
///
/// # Shapes
/// latent: `[B, pixels]` standard normal; label: `[B]` whole numbers -> `[B, pixels]`
pub fn heun(model: &Denoiser, latent: &Tensor, label: &Tensor, steps: i64) -> Tensor {
    to_image(&heun_samples(model, latent, label, steps))
}

/// As [`heun`], with pixels as the network sees them.
pub(crate) fn heun_samples(model: &Denoiser, latent: &Tensor, label: &Tensor, steps: i64) -> Tensor {
    let levels = sigma::sampler_levels(&model.config().noise, steps);
    in_chunks(model, latent, label, |denoise, latent| integrate(denoise, &(latent * levels[0]), &levels))
}

/// Images under `label`, with pixels in [-1, 1], without noise on the way: `steps` evaluations of the network, at evenly
/// spaced timesteps if the model's time is discrete.
///
/// # Shapes
/// latent: `[B, pixels]` standard normal; label: `[B]` whole numbers -> `[B, pixels]`
pub fn ddim(model: &Denoiser, latent: &Tensor, label: &Tensor, steps: i64) -> Tensor {
    to_image(&ddim_samples(model, latent, label, steps))
}

/// As [`ddim`], with pixels as the network sees them.
pub(crate) fn ddim_samples(model: &Denoiser, latent: &Tensor, label: &Tensor, steps: i64) -> Tensor {
    let levels = model.preconditioning().ddim_levels(steps);
    let scale = model.preconditioning().noise_scale(levels[0]);
    in_chunks(model, latent, label, |denoise, latent| {
        levels.windows(2).fold(latent * scale, |x, pair| {
            let denoised = denoise(&x, pair[0]);
            &denoised + (x - &denoised) * (pair[1] / pair[0])
        })
    })
}

/// Samples a part of the batch at a time, without gradients. `sample` is given the denoiser, which takes an image and its level.
fn in_chunks(
    model: &Denoiser,
    latent: &Tensor,
    label: &Tensor,
    sample: impl Fn(&dyn Fn(&Tensor, f64) -> Tensor, &Tensor) -> Tensor,
) -> Tensor {
    no_grad(|| {
        let chunk = model.chunk();
        let chunks = latent.split(chunk, 0).into_iter().zip(label.split(chunk, 0));
        let samples = chunks.map(|(latent, label)| {
            let denoise = |x: &Tensor, sigma: f64| {
                model.denoise(x, &Tensor::full([x.size()[0], 1], sigma, (x.kind(), x.device())), &label)
            };
            sample(&denoise, &latent)
        });
        Tensor::cat(&samples.collect::<Vec<_>>(), 0)
    })
}

/// Follows dx/dsigma = (x - D(x; sigma)) / sigma through `levels`, from noise at the first to an image at the last.
fn integrate(denoise: impl Fn(&Tensor, f64) -> Tensor, noise: &Tensor, levels: &[f64]) -> Tensor {
    let slope = |x: &Tensor, sigma: f64| (x - denoise(x, sigma)) / sigma;
    let mut x = noise.shallow_clone();
    for pair in levels.windows(2) {
        let (now, next) = (pair[0], pair[1]);
        let first = slope(&x, now);
        let euler = &x + &first * (next - now);
        x = if next > 0.0 { &x + (first + slope(&euler, next)) * (0.5 * (next - now)) } else { euler };
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::NoiseConfig;
    use crate::noise::{Noise, Stream};
    use tch::{Device, Kind};

    /// For normal data with mean m and deviation s the best denoiser is known, and the flow from the highest level ends
    /// at m + s * latent, up to the discretisation and the finite highest level.
    #[test]
    fn the_flow_of_normal_data_ends_at_normal_data() {
        let (mean, deviation) = (0.3, 0.5);
        let oracle = |x: &Tensor, sigma: f64| {
            let (data, noise) = (deviation * deviation, sigma * sigma);
            (x * data + mean * noise) / (data + noise)
        };
        let latent = Noise::new(1, Stream::MeasureLatent).normal(0, 50, 4, Device::Cpu).to_kind(Kind::Double);
        let levels = sigma::sampler_levels(&NoiseConfig::default(), 64);
        let error = integrate(oracle, &(&latent * levels[0]), &levels) - (&latent * deviation + mean);
        assert!(error.abs().max().double_value(&[]) < 0.01);
    }
}
