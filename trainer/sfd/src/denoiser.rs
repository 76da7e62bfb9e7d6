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
