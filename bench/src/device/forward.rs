//! Forward passes beside the CPU's.

use anyhow::Result;
use lethe_sfd::noise::{Noise, Stream};
use lethe_sfd::{Denoiser, Device, ModelConfig, Precision};
use tch::Tensor;

use super::models::{self, difference};
use super::row::Row;

const SAMPLES: i64 = 4;
/// Rounding of f32 through dozens of layers.
const MOST_F32: f64 = 1e-4;
/// A bf16 has eight bits: half a per cent, and again in every layer.
const MOST_BF16: f64 = 0.1;

/// A network's images on the device, in both precisions, beside those of the CPU in f32.
///
/// # Errors
/// If the configuration is not valid.
pub fn beside_the_cpu(name: &str, config: &ModelConfig, device: Device) -> Result<Vec<Row>> {
    let bytes = models::random(config, 1)?;
    let clean = Noise::new(1, Stream::ProbeLatent).normal(0, SAMPLES, config.image.pixels(), Device::Cpu);
    let sigma = Tensor::from_slice(&[0.05_f32, 0.5, 2.5, 20.0]).view([SAMPLES, 1]);
    let x = &clean + &sigma * clean.flip([0]);
    let label = Tensor::from_slice(&[0_i64, 3, 7, 9]);
    // What the network adds to the image: the image itself would hide it.
    let added = |on: Device, precision| -> Result<Tensor> {
        let model = Denoiser::from_bytes(config, &bytes, on)?.in_precision(precision);
        let inputs = [&x, &sigma, &label].map(|tensor| tensor.to_device(on));
        let images = tch::no_grad(|| model.denoise(&inputs[0], &inputs[1], &inputs[2]));
        Ok((images.to_device(Device::Cpu) - &x) / &sigma)
    };
    let expected = added(Device::Cpu, Precision::F32)?;
    let row = |(precision, most)| {
        let found = difference(&added(device, precision)?, &expected);
        Ok(Row::limited(format!("forward {name} {precision:?}"), found, most, "beside the CPU in f32"))
    };
    [(Precision::F32, MOST_F32), (Precision::Bf16, MOST_BF16)].into_iter().map(row).collect()
}
