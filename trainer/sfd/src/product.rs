//! An affine layer's product of matrices, by the quicker of two libraries.
//!
//! libtorch multiplies f32 matrices on a CPU with MKL, and convolves with oneDNN. On AMD's processors MKL does without
//! AVX-512 while oneDNN uses it, and is up to twice as fast; on Intel's MKL is the quicker one by half. A convolution of
//! single pixels is the same product.

use std::sync::LazyLock;
use tch::{Device, Kind, Tensor};

/// Whether this is a processor on which MKL is at its best. The same machine always gets the same answer, and so the same
/// rounding.
static IS_INTEL: LazyLock<bool> = LazyLock::new(|| vendor() == *b"GenuineIntel");

/// Fewest rows that are worth it.
const LEAST_ROWS: i64 = 128;
/// Pixels that an image of the convolution has. Below [`LEAST_ROWS`] / 16 of them, so that there are at least the 16
/// images from which on libtorch convolves single pixels with oneDNN, whatever the number of threads.
const PIXELS: i64 = 8;

/// x weight^T + bias.
///
/// # Shapes
/// x: [B, inputs]; weight: [outputs, inputs]; bias: [outputs] -> [B, outputs]
pub(crate) fn affine(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
    let rows = x.size()[0];
    let is_quicker = x.device() == Device::Cpu
        && x.kind() == Kind::Float
        && rows >= LEAST_ROWS
        && rows % PIXELS == 0
        && !*IS_INTEL
        && tch::utils::has_mkldnn();
    if is_quicker { by_convolution(x, weight, bias) } else { x.linear(weight, bias) }
}

/// What the processor calls its maker.
#[cfg(target_arch = "x86_64")]
fn vendor() -> [u8; 12] {
    let leaf = std::arch::x86_64::__cpuid(0);
    let words = [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes);
    words.concat().try_into().expect("three words of four bytes")
}

#[cfg(not(target_arch = "x86_64"))]
fn vendor() -> [u8; 12] {
    [0; 12]
}

/// `rows` / PIXELS images of PIXELS x 1 pixels, whose channels lie side by side in memory as the rows' values do.
fn by_convolution(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
    let [outputs, inputs] = weight.size2().expect("a weight is a matrix").into();
    let images = x.view([-1, PIXELS, 1, inputs]).permute([0, 3, 1, 2]);
    let kernel = weight.view([outputs, inputs, 1, 1]);
    let product = images.conv2d(&kernel, bias, [1, 1], [0, 0], [1, 1], 1);
    product.permute([0, 2, 3, 1]).reshape([-1, outputs])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::{Noise, Stream};
    use crate::testing::largest;

    fn random(seed: u64, rows: i64, columns: i64) -> Tensor {
        Noise::new(seed, Stream::FakeNoise).normal(0, rows, columns, Device::Cpu)
    }

    /// Value and gradients, with the value weighted by `by`.
    fn all(affine: impl Fn(&Tensor, &Tensor, Option<&Tensor>) -> Tensor, by: &Tensor) -> [Tensor; 4] {
        let leaf = |tensor: Tensor| tensor.set_requires_grad(true);
        let (x, weight) = (leaf(random(1, 128, 10)), leaf(random(2, 20, 10)));
        let bias = leaf(random(3, 1, 20).view([20]));
        let value = affine(&x, &weight, Some(&bias));
        let loss = (&value * by).sum(None::<Kind>);
        let gradients = Tensor::run_backward(&[loss], &[x, weight, bias], false, false);
        let [x, weight, bias] = gradients.try_into().expect("three gradients");
        [value.detach(), x, weight, bias]
    }

    #[test]
    fn a_convolution_of_single_pixels_is_the_product() {
        let by = random(4, 128, 20);
        let ours = all(by_convolution, &by);
        let libtorchs = all(|x, weight, bias| x.linear(weight, bias), &by);
        for (ours, expected) in ours.iter().zip(&libtorchs) {
            assert_eq!(ours.size(), expected.size());
            assert!(largest(&(ours - expected)) <= 1e-5 * largest(expected));
        }
    }
}
