//! EDM preconditioning around the raw network (arXiv 2206.00364, table 1).
//!
//! Everything outside this file speaks D(x; sigma, label): a noisy image in, a clean image out, whatever the level.

use crate::config::ModelConfig;
use crate::error::Result;
use crate::network::Network;
use crate::params::{Layout, Params};
use crate::weights::{self, Expected};
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// A model with its weights: a teacher (phi), a fake score (psi) or a generator (theta), which all share one form.
#[derive(Debug)]
pub struct Denoiser {
    config: Arc<ModelConfig>,
    network: Network,
    params: Params,
}

impl Denoiser {
    /// Fresh weights, a function of the seed.
    ///
    /// # Errors
    /// If the configuration is not valid.
    pub fn init(config: &ModelConfig, seed: u64, device: Device) -> Result<Self> {
        let (network, layout) = build(config)?;
        let params = Params::init(Arc::new(layout), seed, device);
        Ok(Self { config: Arc::new(config.clone()), network, params })
    }

    /// Reads `model.safetensors`.
    ///
    /// # Errors
    /// If the configuration is not valid, or the bytes do not hold exactly this model's finite f32 tensors.
    pub fn from_bytes(config: &ModelConfig, bytes: &[u8], device: Device) -> Result<Self> {
        let (network, layout) = build(config)?;
        let tensors = weights::read("model.safetensors", bytes, &expected(&layout), device)?;
        let flat: Vec<Tensor> = tensors.iter().map(|tensor| tensor.flatten(0, -1)).collect();
        let params = Params::from_flat(Arc::new(layout), Tensor::cat(&flat, 0));
        Ok(Self { config: Arc::new(config.clone()), network, params })
    }

    /// The weights as safetensors. Same weights, same bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        weights::write(None, self.params.named().map(|(name, tensor)| (name.to_owned(), tensor)))
    }

    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    pub fn device(&self) -> Device {
        self.params.flat().device()
    }

    /// Number of weights.
    pub fn weights(&self) -> i64 {
        self.params.layout().len()
    }

    /// An independent copy.
    pub fn duplicate(&self) -> Self {
        self.with_params(self.params.duplicate())
    }

    /// D(x; sigma, label). Gradients flow to `x` but not to the weights.
    ///
    /// # Shapes
    /// x: [B, pixels]; sigma: [B, 1]; label: [B] whole numbers -> [B, pixels]
    pub fn denoise(&self, x: &Tensor, sigma: &Tensor, label: &Tensor) -> Tensor {
        self.precondition(self.params.frozen(), x, sigma, label)
    }

    /// D(x; sigma, label) with a graph that leads to the weights too.
    pub(crate) fn denoise_trainable(&self, x: &Tensor, sigma: &Tensor, label: &Tensor) -> Tensor {
        self.precondition(self.params.trainable(), x, sigma, label)
    }

    pub(crate) fn params(&self) -> &Params {
        &self.params
    }

    /// The same model with other weights.
    #[cfg(test)]
    pub(crate) fn with_flat(&self, flat: Tensor) -> Self {
        self.with_params(Params::from_flat(self.params.layout().clone(), flat))
    }

    fn with_params(&self, params: Params) -> Self {
        Self { config: self.config.clone(), network: self.network.clone(), params }
    }

    fn precondition(&self, weights: &[Tensor], x: &Tensor, sigma: &Tensor, label: &Tensor) -> Tensor {
        let data = self.config.noise.sigma_data;
        let variance = sigma.square() + data * data;
        let c_skip = variance.reciprocal() * (data * data);
        let c_in = variance.rsqrt();
        let c_out = sigma * &c_in * data;
        let c_noise = sigma.log() / 4.0;
        c_skip * x + c_out * self.network.forward(weights, &(c_in * x), &c_noise, label)
    }
}

/// The tensors that a file of this layout must hold.
pub(crate) fn expected(layout: &Layout) -> Vec<Expected> {
    layout.entries().iter().map(|entry| Expected::new(&entry.name, &entry.shape, Kind::Float)).collect()
}

fn build(config: &ModelConfig) -> Result<(Network, Layout)> {
    config.validate()?;
    let mut layout = Layout::default();
    let network = Network::new(config, &mut layout);
    Ok((network, layout))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, WeightsError};
    use crate::testing::{largest, tiny};

    fn refusal(bytes: &[u8]) -> WeightsError {
        match Denoiser::from_bytes(&tiny(), bytes, Device::Cpu) {
            Err(Error::Weights { source, .. }) => source,
            other => panic!("not refused: {other:?}"),
        }
    }

    /// The bytes of a fresh model with one tensor replaced (or removed).
    fn with(name: &str, replace: impl Fn(&Tensor) -> Option<Tensor>) -> Vec<u8> {
        let model = Denoiser::init(&tiny(), 1, Device::Cpu).unwrap();
        let tensors = model.params.named().filter_map(|(at, tensor)| {
            let tensor = if at == name { replace(tensor)? } else { tensor.shallow_clone() };
            Some((at.to_owned(), tensor))
        });
        let tensors: Vec<(String, Tensor)> = tensors.collect();
        weights::write(None, tensors.iter().map(|(name, tensor)| (name.clone(), tensor)))
    }

    #[test]
    fn weights_survive_a_round_trip() {
        let model = Denoiser::init(&tiny(), 1, Device::Cpu).unwrap();
        let again = Denoiser::from_bytes(&tiny(), &model.to_bytes(), Device::Cpu).unwrap();
        assert!(model.params.flat().equal(again.params.flat()));
        assert!(model.to_bytes() == again.to_bytes());
    }

    #[test]
    fn a_wrong_file_is_refused_by_the_name_of_what_is_wrong() {
        let name = "blocks.1.inner.bias";
        assert_eq!(refusal(&with(name, |_| None)), WeightsError::Missing(name.into()));
        let reshaped = refusal(&with(name, |bias| Some(bias.view([2, 3]))));
        assert_eq!(reshaped, WeightsError::Shape { name: name.into(), found: vec![2, 3], expected: vec![6] });
        let retyped = refusal(&with(name, |bias| Some(bias.to_kind(Kind::Double))));
        assert_eq!(retyped, WeightsError::Type { name: name.into(), found: "F64".into(), expected: "F32" });
        for value in [f64::NAN, f64::INFINITY] {
            let poisoned = refusal(&with(name, |bias| Some(bias.copy().fill_(value))));
            assert_eq!(poisoned, WeightsError::NotFinite(name.into()));
        }
    }

    #[test]
    fn a_file_with_more_than_the_model_is_refused() {
        let model = Denoiser::init(&tiny(), 1, Device::Cpu).unwrap();
        let extra = Tensor::zeros([2], (Kind::Float, Device::Cpu));
        let own = model.params.named().map(|(name, tensor)| (name.to_owned(), tensor));
        let bytes = weights::write(None, own.chain([("fake_score.output.bias".to_owned(), &extra)]));
        assert_eq!(refusal(&bytes), WeightsError::Unknown("fake_score.output.bias".into()));
    }

    #[test]
    fn what_is_no_safetensors_file_is_refused() {
        let good = with("", |_| None);
        let pickle = b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x05torch\x94.";
        for bytes in [&good[..good.len() - 1], &good[..9], &[], pickle] {
            assert!(matches!(refusal(bytes), WeightsError::Malformed(_)));
        }
    }

    #[test]
    fn an_untrained_denoiser_only_shrinks_towards_the_mean() {
        // The output layer starts at zero, so D = c_skip x: the best guess for centred data that it knows nothing about.
        let model = Denoiser::init(&tiny(), 1, Device::Cpu).unwrap();
        let x = Tensor::from_slice(&[1.0_f32, -2.0, 0.5, 3.0]).view([1, 4]).repeat([3, 1]);
        let sigma = Tensor::from_slice(&[1e-4_f32, 0.5, 1e4]).view([3, 1]);
        let denoised = model.denoise(&x, &sigma, &Tensor::from_slice(&[0_i64, 1, 2]));
        let expected = &x * Tensor::from_slice(&[1.0_f32, 0.5, 0.0]).view([3, 1]);
        assert!(largest(&(denoised - expected)) < 1e-6);
    }
}
