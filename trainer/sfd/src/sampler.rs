//! The teacher's sampler: Heun's second-order method on the probability flow (EDM, algorithm 1 without churn).

use crate::denoiser::Denoiser;
use crate::generator::to_image;
use crate::sigma;
use tch::{Kind, Tensor, no_grad};

/// Most samples that pass through a network at once, to bound memory.
const CHUNK: i64 = 1024;

/// Images under `label`, with pixels in [-1, 1]: `2 * steps - 1` evaluations of the network.
///
/// # Shapes
/// latent: [B, pixels] standard normal; label: [B] whole numbers -> [B, pixels]
pub fn heun(model: &Denoiser, latent: &Tensor, label: &Tensor, steps: i64) -> Tensor {
    let levels = sigma::sampler_levels(&model.config().noise, steps);
    let sample = |latent: &Tensor, label: &Tensor| {
        let denoise = |x: &Tensor, sigma: f64| {
            let sigma = Tensor::full([x.size()[0], 1], sigma, (Kind::Float, x.device()));
            model.denoise(x, &sigma, label)
        };
        integrate(denoise, latent, &levels)
    };
    no_grad(|| {
        let chunks = latent.split(CHUNK, 0).into_iter().zip(label.split(CHUNK, 0));
        to_image(&Tensor::cat(&chunks.map(|(latent, label)| sample(&latent, &label)).collect::<Vec<_>>(), 0))
    })
}

/// Follows dx/dsigma = (x - D(x; sigma)) / sigma through `levels`, from noise at the first to an image at the last.
fn integrate(denoise: impl Fn(&Tensor, f64) -> Tensor, latent: &Tensor, levels: &[f64]) -> Tensor {
    let slope = |x: &Tensor, sigma: f64| (x - denoise(x, sigma)) / sigma;
    let mut x = latent * levels[0];
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
    use tch::Device;

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
        let error = integrate(oracle, &latent, &levels) - (&latent * deviation + mean);
        assert!(error.abs().max().double_value(&[]) < 0.01);
    }
}
