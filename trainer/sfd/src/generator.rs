//! The one-step generator: one denoising of pure noise, G(z, label) = D(sigma_init z; sigma_init, label) (SiD, arXiv
//! 2404.04057).

use crate::denoiser::Denoiser;
use crate::error::{Error, Result};
use crate::loss::perturb;
use crate::noise::{Noise, Stream};
use tch::{Kind, Tensor, no_grad};

/// Images under `label`, with pixels in [-1, 1]. What is measured, shown and served all comes from here: measuring
/// anything else than what is served would prove nothing.
///
/// # Shapes
/// latent: `[B, pixels]` standard normal; label: `[B]` whole numbers -> `[B, pixels]`
pub fn generate(model: &Denoiser, latent: &Tensor, label: &Tensor) -> Tensor {
    to_image(&denoise_latent(model, latent, label))
}

/// What a model emits, as the image that it stands for: pixels in [-1, 1].
pub(crate) fn to_image(samples: &Tensor) -> Tensor {
    samples.clamp(-1.0, 1.0)
}

/// Samples as the networks see them in training, without gradients; see [`generate`].
pub(crate) fn denoise_latent(model: &Denoiser, latent: &Tensor, label: &Tensor) -> Tensor {
    no_grad(|| {
        let chunk = model.chunk();
        let chunks = latent.split(chunk, 0).into_iter().zip(label.split(chunk, 0));
        let images: Vec<Tensor> = chunks
            .map(|(latent, label)| {
                let (x, sigma) = start(model, &latent);
                model.denoise(&x, &sigma, &label)
            })
            .collect();
        Tensor::cat(&images, 0)
    })
}

/// Most images that are served from one batch: larger ones may be multiplied by another library, whose rounding differs.
const MOST_SERVED: usize = 64;

/// One image per (label, seed) pair, the same whatever else is in the batch; pixel values, row by row, channel by
/// channel.
///
/// # Errors
/// [`Error::Label`] if a label is not one of the model's.
pub fn serve(model: &Denoiser, requests: &[(i64, u64)]) -> Result<Vec<Vec<f32>>> {
    let labels = 0..model.config().classes();
    match requests.iter().find(|(label, _)| !labels.contains(label)) {
        Some(&(label, _)) => Err(Error::Label { label, last: labels.end - 1 }),
        None => Ok(requests.chunks(MOST_SERVED).flat_map(|requests| serve_batch(model, requests)).collect()),
    }
}

fn serve_batch(model: &Denoiser, requests: &[(i64, u64)]) -> Vec<Vec<f32>> {
    let (pixels, device) = (model.config().image.pixels(), model.device());
    let latent = |seed| Noise::new(seed, Stream::ServeLatent).normal(0, 1, pixels, device);
    let latents: Vec<Tensor> = requests.iter().map(|&(_, seed)| latent(seed)).collect();
    let labels: Vec<i64> = requests.iter().map(|&(label, _)| label).collect();
    let labels = Tensor::from_slice(&labels).to_device(device);
    rows(&generate(model, &Tensor::cat(&latents, 0), &labels))
}

/// Pixel values of each row of a [B, pixels] tensor.
fn rows(images: &Tensor) -> Vec<Vec<f32>> {
    let [rows, pixels] = images.size2().expect("images are [B, pixels]").into();
    let flat = images.to_kind(Kind::Float).to_device(tch::Device::Cpu).contiguous();
    let mut values = vec![0.0_f32; (rows * pixels) as usize];
    flat.copy_data(&mut values, (rows * pixels) as usize);
    values.chunks(pixels as usize).map(<[f32]>::to_vec).collect()
}

/// As [`generate`], in as many steps as there are tensors of `noise`, and one: each image is made noisy again, at lower
/// and lower levels, and denoised.
///
/// # Shapes
/// latent: `[B, pixels]` standard normal; noise: each `[B, pixels]`, the same; label: `[B]` whole numbers -> `[B, pixels]`
pub fn refine(model: &Denoiser, latent: &Tensor, noise: &[Tensor], label: &Tensor) -> Tensor {
    let levels = model.preconditioning().few_step_levels(noise.len() as i64 + 1);
    let again = |image: Tensor, (noise, &level): (&Tensor, &f64)| {
        let sigma = Tensor::full([1, 1], level, (image.kind(), image.device()));
        model.denoise(&perturb(&image, noise, &sigma), &sigma, label)
    };
    no_grad(|| {
        let first = denoise_latent(model, latent, label);
        to_image(&noise.iter().zip(&levels[1..]).fold(first, again))
    })
}

/// Samples with a graph that leads to the weights.
pub(crate) fn generate_trainable(model: &Denoiser, latent: &Tensor, label: &Tensor) -> Tensor {
    let (x, sigma) = start(model, latent);
    model.denoise_trainable(&x, &sigma, label)
}

/// The pure noise [B, pixels] and its level [1, 1].
pub(crate) fn start(model: &Denoiser, latent: &Tensor) -> (Tensor, Tensor) {
    let sigma_init = model.preconditioning().initial_level();
    (latent * sigma_init, Tensor::full([1, 1], sigma_init, (latent.kind(), latent.device())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{largest, random_model};
    use tch::Device;

    #[test]
    fn a_sample_is_one_denoising_of_pure_noise() {
        let model = random_model(4);
        let latent = Noise::new(1, Stream::MeasureLatent).normal(0, 3, 4, Device::Cpu).to_kind(Kind::Double);
        let label = Tensor::from_slice(&[0_i64, 1, 3]);
        let sigma = Tensor::full([3, 1], 2.5, (Kind::Double, Device::Cpu));
        let expected = model.denoise(&(&latent * 2.5), &sigma, &label);
        assert!(largest(&(denoise_latent(&model, &latent, &label) - &expected)) < 1e-12);
        assert!(largest(&(generate(&model, &latent, &label) - expected.clamp(-1.0, 1.0))) < 1e-12);
    }

    /// Nothing in a network depends on whether it is trained: the fake score learns the very images that the generator's
    /// step is about.
    #[test]
    fn the_generator_emits_the_same_with_gradients_and_without() {
        let model = random_model(4);
        let latent = Noise::new(1, Stream::FakeLatent).normal(0, 3, 4, Device::Cpu).to_kind(Kind::Double);
        let label = Tensor::from_slice(&[0_i64, 1, 3]);
        assert!(generate_trainable(&model, &latent, &label).equal(&denoise_latent(&model, &latent, &label)));
    }

    /// This model emits values beyond what a pixel can be.
    #[test]
    fn an_image_is_the_same_whether_it_is_measured_or_served() {
        let model = random_model(4);
        let model = model.with_flat(model.params().flat().to_kind(Kind::Float) * 3.0);
        let latent = Noise::new(7, Stream::ServeLatent).normal(0, 1, 4, Device::Cpu);
        let label = Tensor::from_slice(&[2_i64]);
        assert!(largest(&denoise_latent(&model, &latent, &label)) > 1.0);
        let image = generate(&model, &latent, &label);
        assert!(largest(&image) <= 1.0);
        let served: Vec<f32> = serve(&model, &[(2, 7)]).unwrap().concat();
        assert!(Tensor::from_slice(&served).view([1, 4]).equal(&image.to_kind(Kind::Float)));
    }

    #[test]
    fn in_a_few_steps_an_image_is_made_noisy_again_and_denoised() {
        let model = random_model(4);
        let draw = |stream| Noise::new(1, stream).normal(0, 3, 4, Device::Cpu).to_kind(Kind::Double);
        let (latent, noise) = (draw(Stream::MeasureLatent), draw(Stream::MeasureNoise));
        let label = Tensor::from_slice(&[0_i64, 1, 3]);
        assert!(refine(&model, &latent, &[], &label).equal(&generate(&model, &latent, &label)));
        // Half of the way down from 2.5 on the scale of a sampler's levels.
        let sigma =
            Tensor::full([3, 1], model.preconditioning().few_step_levels(2)[1], (Kind::Double, Device::Cpu));
        assert!((sigma.double_value(&[0, 0]) - 0.1698).abs() < 1e-3);
        let again = denoise_latent(&model, &latent, &label) + &sigma * &noise;
        let expected = model.denoise(&again, &sigma, &label).clamp(-1.0, 1.0);
        assert!(largest(&(refine(&model, &latent, &[noise], &label) - expected)) < 1e-12);
    }

    #[test]
    fn a_served_image_depends_on_its_label_and_seed_only() {
        let model = Denoiser::init(&crate::testing::tiny(), 2, Device::Cpu).unwrap();
        let together = serve(&model, &[(0, 7), (1, 8), (0, 7)]).unwrap();
        assert_eq!(together[0], together[2]);
        assert_ne!(together[0], together[1]);
        assert_eq!(serve(&model, &[(1, 8)]).unwrap(), together[1..2]);
        assert!(together.iter().flatten().all(|pixel| (-1.0..=1.0).contains(pixel)));
        let many: Vec<(i64, u64)> = (0..256).map(|seed| (1, seed)).collect();
        assert_eq!(serve(&model, &many).unwrap()[8..9], serve(&model, &[(1, 8)]).unwrap()[..]);
        assert!(serve(&model, &[]).unwrap().is_empty());
    }

    #[test]
    fn a_label_that_the_model_does_not_have_is_an_error() {
        let model = random_model(4);
        for (label, last) in [(-1, 3), (4, 3)] {
            let message = serve(&model, &[(0, 1), (label, 2)]).unwrap_err().to_string();
            assert_eq!(message, format!("label {label} does not exist: the model has labels 0 to {last}"));
        }
    }
}
