//! The losses, as pure functions of tensors: [B, pixels] in, one value per sample out. They draw nothing, weight no batch
//! and know no parameters.

use tch::{Kind, Tensor};

/// Floor of the generator loss's normaliser.
const LEAST_DISTANCE: f64 = 1e-5;

/// A clean image plus noise: x = clean + sigma * noise.
///
/// # Shapes
/// clean, noise: [B, pixels]; sigma: [B, 1] -> [B, pixels]
pub fn perturb(clean: &Tensor, noise: &Tensor, sigma: &Tensor) -> Tensor {
    clean + sigma * noise
}

/// How far a denoised image is from the clean one: weight * |D(x; sigma) - clean|^2. A model's own weight makes every
/// noise level count alike (EDM, equation 2; `Denoiser::loss_weight`).
///
/// # Shapes
/// denoised, clean: `[B, pixels]`; weight: `[B, 1]` -> `[B]`
pub fn denoising(denoised: &Tensor, clean: &Tensor, weight: &Tensor) -> Tensor {
    (weight * (denoised - clean).square()).sum_dim_intlist(1, false, None::<Kind>)
}

/// The generator's loss (SiD, equation 23; SFD, arXiv 2409.11219): with d = real - fake,
/// sum over pixels of d * ((real - clean) - alpha * d), divided by mean |real - clean|.
///
/// `real` is the teacher's image of the perturbed sample, `fake` the fake score's, `clean` the sample. The divisor has no
/// gradient. The value may be negative and is no measure of progress.
///
/// # Shapes
/// real, fake, clean: `[B, pixels]` -> `[B]`
pub fn score_difference(real: &Tensor, fake: &Tensor, clean: &Tensor, alpha: f64) -> Tensor {
    let difference = real - fake;
    let towards_real = real - clean;
    let distance = towards_real.detach().abs().mean_dim(1, true, None::<Kind>).clamp_min(LEAST_DISTANCE);
    (&difference * (towards_real - &difference * alpha) / distance).sum_dim_intlist(1, false, None::<Kind>)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    fn random(seed: u64, shape: [i64; 2]) -> Tensor {
        use crate::noise::{Noise, Stream};
        Noise::new(seed, Stream::FakeNoise).normal(0, shape[0], shape[1], Device::Cpu).to_kind(Kind::Double)
    }

    fn largest(tensor: &Tensor) -> f64 {
        tensor.abs().max().double_value(&[])
    }

    #[test]
    fn with_alpha_one_the_loss_is_the_score_difference_times_the_fake_residual() {
        let [real, fake, clean] = [1, 2, 3].map(|seed| random(seed, [5, 7]));
        let distance = (&real - &clean).abs().mean_dim(1, true, None::<Kind>);
        let expected =
            ((&real - &fake) * (&fake - &clean) / distance).sum_dim_intlist(1, false, None::<Kind>);
        assert!(largest(&(score_difference(&real, &fake, &clean, 1.0) - expected)) < 1e-12);
    }

    #[test]
    fn agreeing_scores_cost_nothing() {
        let [real, clean] = [1, 2].map(|seed| random(seed, [5, 7]));
        assert_eq!(largest(&score_difference(&real, &real, &clean, 1.2)), 0.0);
    }

    #[test]
    fn the_normaliser_carries_no_gradient() {
        let [real, fake, clean] = [1, 2, 3].map(|seed| random(seed, [1, 7]));
        let clean = clean.set_requires_grad(true);
        let loss = score_difference(&real, &fake, &clean, 1.2).sum(None::<Kind>);
        let gradient = Tensor::run_backward(&[loss], &[&clean], false, false).remove(0);
        // With the divisor held constant, d loss / d clean = -(real - fake) / distance.
        let distance = (&real - &clean).abs().mean(None::<Kind>);
        assert!(largest(&(gradient + (&real - &fake) / distance)) < 1e-12);
    }

    #[test]
    fn the_normaliser_has_a_floor() {
        let clean = random(1, [1, 7]);
        let fake = &clean + 1e-3;
        let loss = score_difference(&clean, &fake, &clean, 1.0).double_value(&[0]);
        let expected = -7.0 * 1e-6 / LEAST_DISTANCE;
        assert!((loss - expected).abs() < 1e-9, "{loss} is not {expected}");
    }

    /// For normal data with mean m and deviation s the best denoiser is (s^2 x + sigma^2 m) / (s^2 + sigma^2). If the
    /// generator's images lie off the data's mean, and the fake score knows them, descending the loss moves them back.
    #[test]
    fn the_generator_is_pulled_towards_the_data() {
        let (data_mean, generated_mean, deviation) = (0.2, -0.6, 0.3);
        let clean = (random(1, [200, 3]) * deviation + generated_mean).set_requires_grad(true);
        let sigma = Tensor::full([200, 1], 1.5, (Kind::Double, Device::Cpu));
        let noisy = perturb(&clean, &random(2, [200, 3]), &sigma);
        let oracle = |mean: f64| {
            let (data, noise) = (deviation * deviation, sigma.square());
            (&noisy * data + &noise * mean) / (noise + data)
        };
        let loss = score_difference(&oracle(data_mean), &oracle(generated_mean), &clean, 1.2);
        let gradient = Tensor::run_backward(&[loss.sum(None::<Kind>)], &[&clean], false, false).remove(0);
        let step = -gradient.mean(None::<Kind>).double_value(&[]);
        assert!(step * (data_mean - generated_mean) > 0.0, "a step of {step} leads away from the data");
    }
}
