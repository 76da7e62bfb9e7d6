//! The arithmetic floor: how long a step of the plain recipe would take if it did nothing but the products of its layers,
//! at the rate at which the quicker of libtorch's two libraries multiplies matrices of such shapes here. It is what the
//! recipe cannot do without, and no bound for ours, which leaves out some of the products: the generator's modulations are
//! computed once per label. Every product counts as one forward, whose shapes are not those of a gradient, and as one that
//! is repeated, with its matrices in the caches.

use std::time::Instant;

use lethe_sfd::{ModelConfig, NetworkConfig, SongUnetConfig};
use tch::{Device, Kind, Tensor};

use super::start::settings;

/// Passes through a network in one step, in units of the arithmetic of one forward pass: 4 for the fake score's step
/// (generator forward, fake score forward and backward) and 7 for the generator's (its own forward and backward, and
/// through teacher and fake score to their inputs), for each of the two parts.
const FORWARDS_PER_STEP: f64 = 11.0;
/// Seconds that the rate is measured over.
const SECONDS: f64 = 1.5;

/// One layer as a product of matrices: rows per sample, inputs, outputs.
type Product = (i64, i64, i64);

/// Seconds of one step.
pub fn floor(config: &ModelConfig) -> f64 {
    // Both parts are of one size.
    2.0 * FORWARDS_PER_STEP * forward(&products(config), settings().remain_batch)
}

/// The least seconds that the products of one forward pass of `batch` samples took.
fn forward(products: &[Product], batch: i64) -> f64 {
    let random = |shape: [i64; 2]| Tensor::rand(shape, (Kind::Float, Device::Cpu));
    let mut seconds = 0.0;
    for &(rows, inputs, outputs) in products {
        let (a, b) = (random([batch * rows, inputs]), random([inputs, outputs]));
        let (mut best, began) = (f64::INFINITY, Instant::now());
        while began.elapsed().as_secs_f64() < SECONDS / products.len() as f64 {
            for multiply in [by_matmul, by_convolution] {
                let once = Instant::now();
                drop(multiply(&a, &b));
                best = best.min(once.elapsed().as_secs_f64());
            }
        }
        seconds += best;
    }
    seconds
}

/// By MKL.
fn by_matmul(a: &Tensor, b: &Tensor) -> Tensor {
    a.matmul(b)
}

/// The same as a convolution of single pixels, which oneDNN does: the quicker one on AMD's processors.
///
/// # Shapes
/// a: [rows, inputs], rows a multiple of 8; b: [inputs, outputs] -> [rows, outputs]
fn by_convolution(a: &Tensor, b: &Tensor) -> Tensor {
    let (inputs, outputs) = (b.size()[0], b.size()[1]);
    let images = a.view([-1, 8, 1, inputs]).permute([0, 3, 1, 2]);
    let kernel = b.tr().reshape([outputs, inputs, 1, 1]);
    let product = images.conv2d(&kernel, None::<&Tensor>, [1, 1], [0, 0], [1, 1], 1);
    product.permute([0, 2, 3, 1]).reshape([-1, outputs])
}

fn products(config: &ModelConfig) -> Vec<Product> {
    let pixels = config.image.pixels();
    match &config.network {
        NetworkConfig::Mlp(net) => {
            let mut layers = vec![(1, pixels, net.width), (1, 2 * net.frequencies, net.embedding)];
            layers.push((1, net.embedding, 2 * net.width * (net.blocks + 1)));
            layers.extend((0..2 * net.blocks).map(|_| (1, net.width, net.width)));
            layers.push((1, net.width, pixels));
            layers
        }
        NetworkConfig::SongUnet(net) => unet(net, config.image.height, config.image.channels),
        other => unreachable!("{other:?} is not timed"),
    }
}

/// The convolutions of the U-Net; what it does once per image is left out.
fn unet(net: &SongUnetConfig, side: i64, colours: i64) -> Vec<Product> {
    let block = |products: &mut Vec<Product>, side: i64, inputs: i64, outputs: i64, projects: bool| {
        let pixels = side * side;
        products.push((pixels, 9 * inputs, outputs));
        products.push((pixels, 9 * outputs, outputs));
        if projects || inputs != outputs {
            products.push((pixels, inputs, outputs));
        }
    };
    let mut products = vec![(side * side, 9 * colours, net.channels)];
    let (mut width, mut skips) = (net.channels, vec![net.channels]);
    let widths: Vec<i64> = net.multipliers.iter().map(|multiplier| multiplier * net.channels).collect();
    for (level, &outputs) in widths.iter().enumerate() {
        if level > 0 {
            block(&mut products, side >> level, width, width, true);
            skips.push(width);
        }
        for _ in 0..net.blocks {
            block(&mut products, side >> level, width, outputs, false);
            width = outputs;
            skips.push(width);
        }
    }
    for (level, &outputs) in widths.iter().enumerate().rev() {
        let here = side >> level;
        if level + 1 == widths.len() {
            block(&mut products, here, width, width, false);
            products.extend([(here * here, width, 3 * width), (here * here, width, width)]);
            block(&mut products, here, width, width, false);
        } else {
            block(&mut products, here, width, width, true);
        }
        while skips.len() as i64 > level as i64 * (net.blocks + 1) {
            let skip = skips.pop().unwrap_or_default();
            block(&mut products, here, width + skip, outputs, false);
            width = outputs;
        }
    }
    products.push((side * side, 9 * width, colours));
    products
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sfd::start::Net;

    fn multiplied(net: Net) -> i64 {
        products(&net.config()).iter().map(|(_, inputs, outputs)| inputs * outputs).sum()
    }

    fn weights(net: Net) -> i64 {
        lethe_sfd::Denoiser::init(&net.config(), 1, Device::Cpu).unwrap().weights()
    }

    #[test]
    fn both_libraries_multiply_the_same_matrices() {
        let random = |shape: [i64; 2]| Tensor::rand(shape, (Kind::Float, Device::Cpu));
        let (a, b) = (random([128, 65]), random([65, 96]));
        let (one, other) = (by_matmul(&a, &b), by_convolution(&a, &b));
        assert_eq!(one.size(), other.size());
        assert!((one - other).abs().max().double_value(&[]) < 1e-4);
    }

    #[test]
    fn the_perceptrons_products_use_every_weight_but_biases_and_labels() {
        let config = Net::LargeMlp.config();
        let biases: i64 = products(&config).iter().map(|(_, _, outputs)| outputs).sum();
        assert_eq!(multiplied(Net::LargeMlp) + biases + 10 * 128, weights(Net::LargeMlp));
    }

    #[test]
    fn the_unets_products_use_nearly_every_weight() {
        // Norms, biases and the layers that are told level and label are the rest.
        let share = multiplied(Net::Unet) as f64 / weights(Net::Unet) as f64;
        assert!((0.85..1.0).contains(&share), "{share}");
    }
}
