//! From the raw network F to the denoiser D: D(x; sigma) = c_skip x + c_out F(c_in x, told) (EDM, arXiv 2206.00364,
//! table 1).
//!
//! Discrete-time models fit the same form. With x = clean + sigma noise and abar = 1 / (1 + sigma^2), the network's own
//! input is sqrt(abar) x, and its prediction of the noise or of the velocity gives the clean image by the coefficients
//! below.

use crate::config::{ModelConfig, NoiseConfig, Parametrisation};
use crate::sigma;
use crate::timesteps::Timesteps;
use tch::{Kind, Tensor};

/// A model's noise levels and what they mean to its network.
#[derive(Debug, Clone)]
pub(crate) struct Preconditioning {
    noise: NoiseConfig,
    form: Form,
}

#[derive(Debug, Clone)]
enum Form {
    Edm,
    Epsilon(Discrete),
    V(Discrete),
}

#[derive(Debug, Clone)]
struct Discrete {
    timesteps: Timesteps,
    /// Timesteps at which scores and generators are trained: first, and one past the last.
    training: (usize, usize),
}

/// Each as wide as sigma: [B, 1].
pub(crate) struct Coefficients {
    /// `None` is one.
    skip: Option<Tensor>,
    out: Tensor,
    input: Tensor,
}

impl Coefficients {
    /// The network's input.
    pub(crate) fn scale(&self, x: &Tensor) -> Tensor {
        &self.input * x
    }

    /// The denoised image, from the network's output.
    pub(crate) fn combine(&self, x: &Tensor, output: Tensor) -> Tensor {
        match &self.skip {
            Some(skip) => skip * x + &self.out * output,
            None => x + &self.out * output,
        }
    }
}

impl Preconditioning {
    /// `config` must be valid.
    pub(crate) fn new(config: &ModelConfig) -> Self {
        let discrete = |discrete| {
            let timesteps = Timesteps::new(discrete);
            let first = timesteps.nearest(discrete.training_min);
            let end = timesteps.nearest(discrete.training_max).max(first + 1);
            Discrete { timesteps, training: (first, end) }
        };
        let form = match &config.parametrisation {
            Parametrisation::Edm => Form::Edm,
            Parametrisation::Epsilon(config) => Form::Epsilon(discrete(config)),
            Parametrisation::V(config) => Form::V(discrete(config)),
        };
        Self { noise: config.noise, form }
    }

    pub(crate) fn coefficients(&self, sigma: &Tensor) -> Coefficients {
        // A velocity is EDM's target for data of deviation one, with the other sign.
        let data = if let Form::Edm = self.form { self.noise.sigma_data } else { 1.0 };
        let variance = sigma.square() + data * data;
        let input = variance.rsqrt();
        match self.form {
            Form::Edm => {
                let skip = Some(variance.reciprocal() * (data * data));
                Coefficients { skip, out: sigma * &input * data, input }
            }
            Form::Epsilon(_) => Coefficients { skip: None, out: -sigma, input },
            Form::V(_) => Coefficients { skip: Some(variance.reciprocal()), out: -(sigma * &input), input },
        }
    }

    /// The timesteps of levels [B, 1], if time is discrete.
    pub(crate) fn timesteps(&self, sigma: &Tensor) -> Option<Tensor> {
        self.discrete().map(|discrete| discrete.timesteps.of(sigma))
    }

    /// Weight of a squared error of the denoised image that makes it the squared error of the network, at every level:
    /// 1 / c_out^2.
    pub(crate) fn loss_weight(&self, sigma: &Tensor) -> Tensor {
        match self.form {
            Form::Edm => {
                let data = self.noise.sigma_data;
                (sigma.square() + data * data) / (sigma * data).square()
            }
            Form::Epsilon(_) => sigma.square().reciprocal(),
            Form::V(_) => (sigma.square() + 1.0) / sigma.square(),
        }
    }

    /// Levels at which a teacher is trained, from standard normal draws of any shape: log-normal in EDM, evenly over
    /// all timesteps else. A sampler passes through all of them.
    pub(crate) fn teacher_levels(&self, normal: &Tensor) -> Tensor {
        match self.discrete() {
            None => sigma::score_levels(normal),
            Some(Discrete { timesteps, .. }) => timesteps.draw(&normal.special_ndtr(), 0, timesteps.len()),
        }
    }

    /// Levels at which a fake score is trained, from standard normal draws of any shape: log-normal in EDM, evenly over
    /// the training timesteps else.
    pub(crate) fn score_levels(&self, normal: &Tensor) -> Tensor {
        match self.discrete() {
            None => sigma::score_levels(normal),
            Some(discrete) => discrete.draw(&normal.special_ndtr()),
        }
    }

    /// Levels at which a generator is trained, from uniform draws in (0, 1): [B, 1] in f32. In EDM the lowest `range` of
    /// all, else those of the training timesteps.
    pub(crate) fn generator_levels(&self, range: f64, uniform: &[f64]) -> Tensor {
        let levels = match self.discrete() {
            None => {
                let levels: Vec<f64> =
                    uniform.iter().map(|&u| sigma::generator_level(&self.noise, range, u)).collect();
                Tensor::from_slice(&levels)
            }
            Some(discrete) => discrete.draw(&Tensor::from_slice(uniform)),
        };
        levels.to_kind(Kind::Float).view([-1, 1])
    }

    /// Levels from nearly all that there are, evenly spread as a sampler's, from uniform draws in (0, 1): [B, 1] in f32.
    pub(crate) fn widest_levels(&self, uniform: &[f64]) -> Tensor {
        let levels = match self.discrete() {
            None => {
                let levels: Vec<f64> = uniform.iter().map(|&u| sigma::widest_level(&self.noise, u)).collect();
                Tensor::from_slice(&levels)
            }
            Some(Discrete { timesteps, .. }) => {
                let edge = (sigma::EDGE * timesteps.len() as f64).round() as usize;
                timesteps.draw(&Tensor::from_slice(uniform), edge, timesteps.len() - edge)
            }
        };
        levels.to_kind(Kind::Float).view([-1, 1])
    }

    /// The level at which the one-step generator denoises: in discrete time that of a timestep.
    pub(crate) fn initial_level(&self) -> f64 {
        match self.discrete() {
            None => self.noise.sigma_init,
            Some(Discrete { timesteps, .. }) => timesteps.sigma(timesteps.nearest(self.noise.sigma_init)),
        }
    }

    /// Levels that a sampler of many steps passes through, from the lowest at which generators are trained to its first,
    /// from uniform draws in (0, 1): [B, 1] in f32. Spaced as a sampler's are.
    pub(crate) fn visited_levels(&self, uniform: &[f64]) -> Tensor {
        let levels = match self.discrete() {
            None => {
                let levels: Vec<f64> = uniform.iter().map(|&u| sigma::at(&self.noise, u)).collect();
                Tensor::from_slice(&levels)
            }
            Some(Discrete { timesteps, training }) => {
                timesteps.draw(&Tensor::from_slice(uniform), training.0, timesteps.len())
            }
        };
        levels.to_kind(Kind::Float).view([-1, 1])
    }

    /// The levels of a generator of a few steps, from the one-step generator's down, as evenly as a sampler's: `steps`
    /// values.
    pub(crate) fn few_step_levels(&self, steps: i64) -> Vec<f64> {
        let share = |step: i64| 1.0 - step as f64 / steps as f64;
        (0..steps)
            .map(|step| match self.discrete() {
                None => {
                    sigma::at(&self.noise, share(step) * sigma::position(&self.noise, self.initial_level()))
                }
                Some(Discrete { timesteps, .. }) => {
                    let first = timesteps.nearest(self.noise.sigma_init) as f64;
                    timesteps.sigma((share(step) * first) as usize)
                }
            })
            .collect()
    }

    /// The scale of pure noise at a level. In discrete time a sampler starts from noise of deviation one, at a level
    /// where a little of the image would be left.
    pub(crate) fn noise_scale(&self, sigma: f64) -> f64 {
        match self.form {
            Form::Edm => sigma,
            Form::Epsilon(_) | Form::V(_) => (1.0 + sigma * sigma).sqrt(),
        }
    }

    /// The levels of a DDIM sampler, down to 0: evenly spaced timesteps, or EDM's levels. `steps` + 1 values.
    pub(crate) fn ddim_levels(&self, steps: i64) -> Vec<f64> {
        match self.discrete() {
            None => sigma::sampler_levels(&self.noise, steps),
            Some(Discrete { timesteps, .. }) => {
                let steps = usize::try_from(steps).unwrap_or(1).clamp(1, timesteps.len());
                let stride = timesteps.len() / steps;
                (0..steps).rev().map(|step| timesteps.sigma(step * stride)).chain([0.0]).collect()
            }
        }
    }

    fn discrete(&self) -> Option<&Discrete> {
        match &self.form {
            Form::Edm => None,
            Form::Epsilon(discrete) | Form::V(discrete) => Some(discrete),
        }
    }
}

impl Discrete {
    fn draw(&self, uniform: &Tensor) -> Tensor {
        self.timesteps.draw(uniform, self.training.0, self.training.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DiscreteConfig;
    use crate::testing::{largest, tiny};
    use tch::Device;

    fn forms() -> [Preconditioning; 3] {
        let discrete = DiscreteConfig::default();
        [Parametrisation::Edm, Parametrisation::Epsilon(discrete.clone()), Parametrisation::V(discrete)]
            .map(|parametrisation| Preconditioning::new(&ModelConfig { parametrisation, ..tiny() }))
    }

    /// A clean image, noise, levels and the noisy images.
    fn images() -> [Tensor; 4] {
        let double = (Kind::Double, Device::Cpu);
        let sigma = Tensor::from_slice(&[0.02, 0.5, 2.5, 40.0]).view([4, 1]);
        let clean = Tensor::linspace(-1.0, 1.0, 8, double).view([4, 2]);
        let noise = Tensor::linspace(2.0, -1.5, 8, double).view([4, 2]);
        let x = &clean + &sigma * &noise;
        [clean, noise, sigma, x]
    }

    #[test]
    fn the_right_prediction_gives_the_clean_image() {
        let [clean, noise, sigma, x] = images();
        let abar = (sigma.square() + 1.0).reciprocal();
        let velocity = abar.sqrt() * &noise - (sigma.square() * &abar).sqrt() * &clean;
        let [_, epsilon, v] = forms();
        for (form, prediction) in [(epsilon, noise), (v, velocity)] {
            let denoised = form.coefficients(&sigma).combine(&x, prediction);
            assert!(largest(&(denoised - &clean)) < 1e-12);
        }
    }

    #[test]
    fn a_discrete_network_sees_the_noisy_image_of_discrete_time() {
        let [clean, noise, sigma, x] = images();
        let abar = (sigma.square() + 1.0).reciprocal();
        let expected = abar.sqrt() * clean + (sigma.square() * &abar).sqrt() * noise;
        for form in &forms()[1..] {
            assert!(largest(&(form.coefficients(&sigma).scale(&x) - &expected)) < 1e-12);
        }
    }

    #[test]
    fn every_level_weighs_a_unit_of_network_error_alike() {
        let [_, _, sigma, x] = images();
        for form in forms() {
            let coefficients = form.coefficients(&sigma);
            let [right, wrong] = [0.0, 1.0].map(|error| coefficients.combine(&x, x.zeros_like() + error));
            let weighted = form.loss_weight(&sigma) * (wrong - right).square();
            assert!(largest(&(weighted - 1.0)) < 1e-9);
        }
    }

    #[test]
    fn discrete_time_trains_at_the_published_timesteps() {
        for form in &forms()[1..] {
            let uniform: Vec<f64> = (0..1000).map(|i| (i as f64 + 0.5) / 1000.0).collect();
            let generator = form.generator_levels(0.8, &uniform);
            let score = form.score_levels(&Tensor::linspace(-6.0, 6.0, 1000, (Kind::Double, Device::Cpu)));
            for levels in [generator.to_kind(Kind::Double).view([-1]), score] {
                let steps = form.timesteps(&levels).unwrap().round();
                let ends = (steps.min().double_value(&[]), steps.max().double_value(&[]));
                assert_eq!(ends, (38.0, 711.0));
            }
            let widest = form.widest_levels(&uniform).to_kind(Kind::Double).view([-1]);
            let widest = form.timesteps(&widest).unwrap().round();
            assert_eq!((widest.min().double_value(&[]), widest.max().double_value(&[])), (20.0, 979.0));
            let ends = form.teacher_levels(&Tensor::from_slice(&[-6.0, 6.0]));
            let ends = Vec::<f64>::try_from(form.timesteps(&ends).unwrap()).unwrap();
            assert_eq!(ends, [0.0, 999.0]);
            assert!((form.initial_level() - 2.502_33).abs() < 5e-6);
        }
    }

    #[test]
    fn a_ddim_sampler_goes_down_evenly_spaced_timesteps() {
        let [edm, epsilon, _] = forms();
        let levels = epsilon.ddim_levels(10);
        let steps = epsilon.timesteps(&Tensor::from_slice(&levels[..10])).unwrap();
        let expected: Vec<f64> = (0..10).rev().map(|step| 100.0 * f64::from(step)).collect();
        assert_eq!(Vec::<f64>::try_from(&steps).unwrap(), expected);
        assert_eq!((levels.len(), levels[10]), (11, 0.0));
        assert_eq!(edm.ddim_levels(18), sigma::sampler_levels(&edm.noise, 18));
    }
}
