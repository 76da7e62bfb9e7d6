//! Against PyTorch: the files in `tests/golden` were written by `generate.py` there. Their networks have weights that are
//! a function of their names, so that both sides make them and no file has to hold them.

use crate::adam::Adam;
use crate::config::ModelConfig;
use crate::denoiser::Denoiser;
use crate::params::{Init, Layout, Params};
use crate::settings::Averaging;
use crate::testing::largest;
use crate::{ema, loss, sampler};
use safetensors::{Dtype, SafeTensors};
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// Largest difference allowed, relative to the largest value of the tensor.
const TOLERANCE: f64 = 1e-5;
const ALPHA: f64 = 1.2;

struct Golden {
    name: &'static str,
    bytes: Vec<u8>,
}

impl Golden {
    fn read(name: &'static str) -> Self {
        let path = format!("{}/tests/golden/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
        Self { name, bytes: std::fs::read(path).unwrap() }
    }

    fn config(&self) -> ModelConfig {
        let (_, metadata) = SafeTensors::read_metadata(&self.bytes).unwrap();
        serde_json::from_str(&metadata.metadata().as_ref().unwrap()["lethe"]).unwrap()
    }

    fn tensor(&self, name: &str) -> Option<Tensor> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let view = file.tensor(name).ok()?;
        let shape: Vec<i64> = view.shape().iter().map(|&size| size as i64).collect();
        let kind = match view.dtype() {
            Dtype::F32 => Kind::Float,
            Dtype::F64 => Kind::Double,
            Dtype::I64 => Kind::Int64,
            other => panic!("{name} is {other:?}"),
        };
        Some(Tensor::from_data_size(view.data(), &shape, kind))
    }

    /// In double precision.
    fn numbers(&self, name: &str) -> Tensor {
        self.tensor(name).unwrap_or_else(|| panic!("{} has no {name}", self.name)).to_kind(Kind::Double)
    }

    fn assert_equal(&self, what: &str, found: &Tensor) {
        let expected = self.numbers(what);
        assert_eq!(found.size(), expected.size());
        let difference = largest(&(found.to_kind(Kind::Double) - &expected)) / largest(&expected);
        assert!(difference < TOLERANCE, "{}: {what} is off by {difference:e}", self.name);
    }
}

/// The model with the weights of `networks.py`.
fn model(config: &ModelConfig, salt: u64, kind: Kind) -> Denoiser {
    config.validate().unwrap();
    let fresh = Denoiser::init(config, 0, Device::Cpu).unwrap();
    let weights =
        fresh.params().layout().entries().iter().map(|entry| weight(&entry.name, &entry.shape, salt));
    fresh.with_flat(Tensor::cat(&weights.collect::<Vec<_>>(), 0).to_kind(kind))
}

/// Uniform numbers from SplitMix64, seeded by the name (FNV-1a); scaled so that layers keep the size of their input.
fn weight(name: &str, shape: &[i64], salt: u64) -> Tensor {
    let key = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |key, byte| {
        (key ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let unit = |index: u64| {
        let z = key.wrapping_add(salt).wrapping_add((index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f64 / f64::from(1 << 23) - 1.0
    };
    let fan_in: i64 = shape[1..].iter().product();
    let scaled = |unit: f64| match shape.len() {
        1 if name.ends_with("weight") => 1.0 + 0.2 * unit,
        1 if name.ends_with("bias") => 0.1 * unit,
        1 => unit,
        _ => unit * (3.0 / fan_in as f64).sqrt(),
    };
    let count = shape.iter().product::<i64>() as u64;
    Tensor::from_slice(&(0..count).map(|index| scaled(unit(index)) as f32).collect::<Vec<_>>())
}

fn assert_denoises(name: &'static str) {
    let golden = Golden::read(name);
    let label = golden.tensor("label").unwrap();
    let (x, sigma, latent) = (golden.numbers("x"), golden.numbers("sigma"), golden.numbers("latent"));
    for kind in [Kind::Float, Kind::Double] {
        let model = model(&golden.config(), 0, kind);
        golden.assert_equal("denoised", &model.denoise(&x.to_kind(kind), &sigma.to_kind(kind), &label));
    }
    let model = model(&golden.config(), 0, Kind::Double);
    if golden.tensor("heun").is_some() {
        golden.assert_equal("heun", &sampler::heun_samples(&model, &latent, &label, 4));
        golden.assert_equal("ddim", &sampler::ddim_samples(&model, &latent, &label, 4));
    } else {
        golden.assert_equal("ddim", &sampler::ddim_samples(&model, &latent, &label, 5));
    }
}

#[test]
fn the_multi_layer_perceptron_is_pytorchs() {
    assert_denoises("mlp-edm");
    assert_denoises("mlp-epsilon");
}

#[test]
fn the_ddpm_u_net_is_pytorchs() {
    assert_denoises("ddpm-epsilon");
}

#[test]
fn the_song_u_net_is_pytorchs() {
    assert_denoises("song-edm");
    assert_denoises("song-v");
}

#[test]
fn the_adm_u_net_is_pytorchs() {
    assert_denoises("adm-edm");
}

#[test]
fn both_losses_are_pytorchs() {
    for name in ["losses-edm", "losses-epsilon"] {
        let golden = Golden::read(name);
        let [phi, psi] = [1, 2].map(|salt| model(&golden.config(), salt, Kind::Double));
        let clean = golden.numbers("clean").set_requires_grad(true);
        let (noise, sigma) = (golden.numbers("noise"), golden.numbers("sigma"));
        let noisy = loss::perturb(&clean, &noise, &sigma);
        let real = phi.denoise(&noisy, &sigma, &golden.tensor("taught").unwrap());
        let fake = psi.denoise(&noisy, &sigma, &golden.tensor("shown").unwrap());
        golden.assert_equal("score", &loss::denoising(&fake, &clean, &psi.loss_weight(&sigma)));
        let generator = loss::score_difference(&real, &fake, &clean, ALPHA);
        golden.assert_equal("generator", &generator);
        let total = generator.sum(None::<Kind>);
        golden.assert_equal("gradient", &Tensor::run_backward(&[total], &[&clean], false, false)[0]);
    }
}

#[test]
fn ten_steps_of_adam_and_of_the_moving_average_are_pytorchs() {
    let golden = Golden::read("optimiser");
    let gradients = golden.tensor("gradients").unwrap();
    for (name, beta1) in [("beta0", 0.0), ("beta9", 0.9)] {
        let mut layout = Layout::default();
        layout.add("weight".into(), &[16], Init::Zeros);
        let params = Params::from_flat(Arc::new(layout), golden.tensor("start").unwrap());
        let average = params.flat().copy();
        let mut adam = Adam::new(&params, beta1);
        let (mut weights, mut averages) = (Vec::new(), Vec::new());
        for step in 0..10 {
            adam.step(&params, &gradients.get(step), 0.01, step as u64);
            ema::update(&average, params.flat(), ema::decay(Averaging::Ramped, step as u64, 0.5));
            weights.push(params.flat().copy());
            averages.push(average.copy());
        }
        golden.assert_equal(&format!("{name}.weights"), &Tensor::stack(&weights, 0));
        golden.assert_equal(&format!("{name}.averages"), &Tensor::stack(&averages, 0));
    }
}
