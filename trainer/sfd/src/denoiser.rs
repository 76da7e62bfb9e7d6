//! The denoiser: a raw network, its weights and its preconditioning.
//!
//! Everything outside speaks D(x; sigma, label): a noisy image in, a clean image out, whatever the level, the network and
//! what the network predicts.

use crate::config::ModelConfig;
use crate::error::{Error, Result, WeightsError};
use crate::network::Network;
use crate::params::{Layout, Params};
use crate::preconditioning::Preconditioning;
use crate::replicas;
use crate::settings::Precision;
use crate::weights::{self, Expected};
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// A model with its weights: a teacher (phi), a fake score (psi) or a generator (theta), which all share one form.
#[derive(Debug)]
pub struct Denoiser {
    config: Arc<ModelConfig>,
    preconditioning: Arc<Preconditioning>,
    network: Network,
    params: Params,
}

/// A model without its network: what is known of its images and levels, for any thread.
#[derive(Debug, Clone)]
pub(crate) struct Form {
    pub(crate) config: Arc<ModelConfig>,
    pub(crate) preconditioning: Arc<Preconditioning>,
}

const FILE: &str = "model.safetensors";
/// Most pixels, all channels together being one, that pass through a network at once, to bound memory.
const CHUNK_PIXELS: i64 = 1 << 16;
const CHUNK: i64 = 1 << 10;

impl Denoiser {
    /// Fresh weights, a function of the seed.
    ///
    /// # Errors
    /// If the configuration is not valid.
    pub fn init(config: &ModelConfig, seed: u64, device: Device) -> Result<Self> {
        let (network, layout) = build(config)?;
        Ok(Self::new(config, network, Params::init(Arc::new(layout), seed, device)))
    }

    /// Reads `model.safetensors`.
    ///
    /// # Errors
    /// If the configuration is not valid, or the bytes do not hold exactly this model's finite f32 tensors.
    pub fn from_bytes(config: &ModelConfig, bytes: &[u8], device: Device) -> Result<Self> {
        let (network, layout) = build(config)?;
        let tensors = weights::read(FILE, bytes, &expected(&layout), device)?;
        let (tensors, constants) = tensors.split_at(layout.entries().len());
        for (tensor, constant) in constants.iter().zip(layout.constants()) {
            if tensor.eq(f64::from(constant.value)).all().int64_value(&[]) == 0 {
                let (name, expected) = (constant.name.clone(), constant.value.to_string());
                return Err(Error::Weights { file: FILE, source: WeightsError::Constant { name, expected } });
            }
        }
        let flat: Vec<Tensor> = tensors.iter().map(|tensor| tensor.flatten(0, -1)).collect();
        Ok(Self::new(config, network, Params::from_flat(Arc::new(layout), Tensor::cat(&flat, 0))))
    }

    fn new(config: &ModelConfig, network: Network, params: Params) -> Self {
        let preconditioning = Arc::new(Preconditioning::new(config));
        Self { config: Arc::new(config.clone()), preconditioning, network, params }
    }

    /// The weights as safetensors. Same weights, same bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let fixed = |shape: &[i64], value| Tensor::full(shape, f64::from(value), (Kind::Float, Device::Cpu));
        let constants = self.params.layout().constants().iter();
        let constants: Vec<_> =
            constants.map(|own| (own.name.clone(), fixed(&own.shape, own.value))).collect();
        let constants = constants.iter().map(|(name, tensor)| (name.clone(), tensor));
        weights::write(
            None,
            self.params.named().map(|(name, tensor)| (name.to_owned(), tensor)).chain(constants),
        )
    }

    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    pub(crate) fn form(&self) -> Form {
        Form { config: self.config.clone(), preconditioning: self.preconditioning.clone() }
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

    /// A copy on another device, that computes in the same precision.
    pub(crate) fn on(&self, device: Device) -> Self {
        self.with_params(self.params.on(device))
    }

    /// The same model, computing in another precision. Weights, images and levels stay in f32.
    pub fn in_precision(self, precision: Precision) -> Self {
        Self { params: self.params.in_precision(precision), ..self }
    }

    /// The label that asks for an image without a condition, in networks that can be asked so. It is not one of the
    /// model's labels.
    pub fn null_label(&self) -> Option<i64> {
        self.network.null_label()
    }

    /// Weight of a squared error of D at each level that makes every level count alike.
    ///
    /// # Shapes
    /// sigma: [B, 1] -> [B, 1]
    pub fn loss_weight(&self, sigma: &Tensor) -> Tensor {
        self.preconditioning.loss_weight(sigma)
    }

    /// Most samples that pass through the network at once, to bound memory.
    pub(crate) fn chunk(&self) -> i64 {
        let image = self.config.image;
        (CHUNK_PIXELS / (image.height * image.width)).clamp(1, CHUNK)
    }

    /// Most samples whose gradient is taken at once.
    pub(crate) fn most_at_once(&self) -> i64 {
        replicas::most_at_once(self.config.network.widest(self.config.image), self.device())
    }

    /// Noise levels, and what an error at a level counts.
    pub(crate) fn preconditioning(&self) -> &Preconditioning {
        &self.preconditioning
    }

    /// D(x; sigma, label). Gradients flow to `x` but not to the weights.
    ///
    /// # Shapes
    /// x: `[B, pixels]`; sigma: `[B, 1]`, or `[1, 1]` for all; label: `[B]` whole numbers -> `[B, pixels]`
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

    /// The same model, not a copy, with something else in the place of one parameter.
    pub(crate) fn with_parameter(&self, index: usize, change: impl Fn(&Tensor) -> Tensor) -> Self {
        self.with_params(self.params.with(index, change))
    }

    /// The same model with other weights.
    #[cfg(test)]
    pub(crate) fn with_flat(&self, flat: Tensor) -> Self {
        self.with_params(Params::from_flat(self.params.layout().clone(), flat))
    }

    fn with_params(&self, params: Params) -> Self {
        Self {
            config: self.config.clone(),
            preconditioning: self.preconditioning.clone(),
            network: self.network.clone(),
            params,
        }
    }

    fn precondition(&self, weights: &[Tensor], x: &Tensor, sigma: &Tensor, label: &Tensor) -> Tensor {
        let coefficients = self.preconditioning.coefficients(sigma);
        let told = if self.network.counts_timesteps() { self.preconditioning.timesteps(sigma) } else { None };
        let told = told.unwrap_or_else(|| sigma.log() / 4.0);
        let output = self.network.forward(weights, &coefficients.scale(x), &told, label);
        coefficients.combine(x, output.to_kind(x.kind()))
    }
}

/// The tensors that a file of this layout must hold: first the weights, then the constants.
pub(crate) fn expected(layout: &Layout) -> Vec<Expected> {
    let weights = layout.entries().iter().map(|entry| (&entry.name, &entry.shape));
    let constants = layout.constants().iter().map(|constant| (&constant.name, &constant.shape));
    weights.chain(constants).map(|(name, shape)| Expected::new(name, shape, Kind::Float)).collect()
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
    use crate::config::{NetworkConfig, SongUnetConfig};
    use crate::testing::{largest, tiny};
    use safetensors::SafeTensors;

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
    fn the_constants_of_an_architecture_are_written_and_checked() {
        let network = NetworkConfig::SongUnet(SongUnetConfig::small(4, &[1, 1], &[]));
        let config = ModelConfig { network, ..tiny() };
        let mut bytes = Denoiser::init(&config, 1, Device::Cpu).unwrap().to_bytes();
        let again = Denoiser::from_bytes(&config, &bytes, Device::Cpu).unwrap();
        assert!(again.to_bytes() == bytes);
        let name = "model.dec.2x2_up.skip.resample_filter";
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let at = file.tensor(name).unwrap().data().as_ptr() as usize - bytes.as_ptr() as usize;
        bytes[at..at + 4].copy_from_slice(&0.125_f32.to_le_bytes());
        let refusal = Denoiser::from_bytes(&config, &bytes, Device::Cpu).unwrap_err().to_string();
        assert!(refusal.contains(name) && refusal.contains("0.25"), "{refusal}");
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
