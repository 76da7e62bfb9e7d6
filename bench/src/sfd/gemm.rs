//! The arithmetic floor: how fast this machine multiplies matrices of the shapes in question, with libtorch's own
//! library, and how long a step would take if it did nothing else.

use std::time::Instant;

use lethe_sfd::{ModelConfig, NetworkConfig};
use tch::{Device, Kind, Tensor};

use super::start::settings;

/// Passes through a network in one step, in units of the arithmetic of one forward pass: 4 for the fake score's step
/// (generator forward, fake score forward and backward) and 7 for the generator's (its own forward and backward, and
/// through teacher and fake score to their inputs), for each of the two parts.
const FORWARDS_PER_STEP: f64 = 11.0;
/// Seconds that the rate is measured over.
const SECONDS: f64 = 1.5;

/// Layers of the perceptron as (inputs, outputs).
fn layers(config: &ModelConfig) -> Vec<(i64, i64)> {
    let NetworkConfig::Mlp(net) = &config.network else { unreachable!("only perceptrons are timed") };
    let pixels = config.image.pixels();
    let mut layers = vec![(pixels, net.width), (2 * net.frequencies, net.embedding)];
    layers.push((net.embedding, 2 * net.width * (net.blocks + 1)));
    layers.extend((0..2 * net.blocks).map(|_| (net.width, net.width)));
    layers.push((net.width, pixels));
    layers
}

/// Seconds of one step at `rate` floating-point operations per second.
pub fn floor(config: &ModelConfig, rate: f64) -> f64 {
    let samples = (settings().remain_batch + settings().forget_batch) as f64;
    let weights: i64 = layers(config).iter().map(|(inputs, outputs)| inputs * outputs).sum();
    FORWARDS_PER_STEP * samples * 2.0 * weights as f64 / rate
}

/// Floating-point operations per second over all layers of the network, at the batch of one part.
pub fn rate(config: &ModelConfig) -> f64 {
    let rows = settings().remain_batch;
    let random = |shape: [i64; 2]| Tensor::rand(shape, (Kind::Float, Device::Cpu));
    let pairs: Vec<(Tensor, Tensor)> = layers(config)
        .into_iter()
        .map(|(inputs, outputs)| (random([rows, inputs]), random([inputs, outputs])))
        .collect();
    let once = || pairs.iter().for_each(|(a, b)| drop(a.matmul(b)));
    let flop: i64 = layers(config).iter().map(|(inputs, outputs)| 2 * rows * inputs * outputs).sum();
    let (mut best, began) = (f64::INFINITY, Instant::now());
    while began.elapsed().as_secs_f64() < SECONDS {
        let round = Instant::now();
        (0..10).for_each(|_| once());
        best = best.min(round.elapsed().as_secs_f64() / 10.0);
    }
    flop as f64 / best
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sfd::start::Net;

    #[test]
    fn the_layers_are_those_of_the_network() {
        let config = Net::LargeMlp.config();
        let model = lethe_sfd::Denoiser::init(&config, 1, Device::Cpu).unwrap();
        let layers = layers(&config);
        let biases: i64 = layers.iter().map(|(_, outputs)| outputs).sum();
        let products: i64 = layers.iter().map(|(inputs, outputs)| inputs * outputs).sum();
        let labels = config.classes() * 128;
        assert_eq!(products + biases + labels, model.weights());
    }
}
