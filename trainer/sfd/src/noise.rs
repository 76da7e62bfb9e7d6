//! The only place where randomness is made.
//!
//! A random number is a function of (seed, stream, index), never of what was drawn before: a resumed run, another batch
//! size or another order draws the same numbers for the same sample. The bits are Philox4x32-10 (Salmon et al.,
//! "Parallel random numbers: as easy as 1, 2, 3", 2011), so they do not depend on libtorch's generator either.

use crate::device::upload;
use tch::{Device, Kind, Tensor};

/// One use of randomness. Two streams of one seed are independent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Stream {
    /// Initial weights; the index is the parameter's position.
    Weights = 1,
    TeachImage = 2,
    TeachSigma = 3,
    TeachNoise = 4,
    FakeLatent = 5,
    FakeSigma = 6,
    FakeNoise = 7,
    GeneratorLatent = 8,
    GeneratorSigma = 9,
    GeneratorNoise = 10,
    /// Which label a training sample shows.
    Label = 11,
    /// Which kept label a randomly overridden sample is taught.
    Replacement = 12,
    JudgeLatent = 13,
    JudgeImage = 14,
    JudgeNoise = 15,
    /// Teacher samples behind the reference statistics.
    ReferenceLatent = 16,
    /// Samples that are measured.
    MeasureLatent = 17,
    /// Samples that are served or shown.
    ServeLatent = 18,
    /// Teacher samples that are compared with those behind the reference statistics.
    FloorLatent = 19,
    /// Which samples hide their label.
    NullLabel = 20,
    /// What the judge chooses where it is asked to draw.
    JudgedLabel = 21,
    /// Samples that a training looks at to see how far it is.
    CheckLatent = 22,
    /// Where samples re-enter, for each of the two networks' steps.
    FakeReentrySigma = 23,
    FakeReentryNoise = 24,
    GeneratorReentrySigma = 25,
    GeneratorReentryNoise = 26,
    /// Where an adversary's condition rows start, and what it tries them with.
    AdversaryStart = 27,
    AdversaryLatent = 28,
    AdversaryNoise = 29,
    AdversaryReplacement = 30,
    /// Under which of an adversary's rows a training sample is shown.
    AdversaryRow = 31,
    /// Samples that a probe looks at.
    ProbeLatent = 32,
    /// Teacher samples that a probe compares with, or attacks with.
    ProbeReference = 33,
    /// Weights of mixed conditions.
    ProbeMixture = 34,
    /// Where an attack's condition row starts.
    ProbeRow = 35,
    /// Which image a fine-tuning step learns from.
    ProbeLesson = 36,
    ProbeSigma = 37,
    ProbeNoise = 38,
    /// Noise between the steps of samples that are measured.
    MeasureNoise = 39,
}

/// A source of random numbers that is addressed, not consumed.
#[derive(Debug, Clone, Copy)]
pub struct Noise {
    key: [u32; 2],
}

impl Noise {
    pub fn new(seed: u64, stream: Stream) -> Self {
        // One Philox block with the stream as the counter gives each (seed, stream) a key of its own.
        let [low, high, ..] = philox([stream as u32, 0, 0, 0], halves(seed));
        Self { key: [low, high] }
    }

    /// Standard normal rows for the samples `first..first + rows`: [rows, columns], f32.
    pub fn normal(&self, first: u64, rows: i64, columns: i64, device: Device) -> Tensor {
        let mut values = Vec::with_capacity((rows * columns) as usize);
        for row in 0..rows as u64 {
            self.push_normals(&mut values, first + row, columns as usize);
        }
        upload(&Tensor::from_slice(&values).view([rows, columns]), device)
    }

    /// Uniform numbers in (0, 1), one for each of the samples `first..first + rows`.
    pub fn uniform(&self, first: u64, rows: i64) -> Vec<f64> {
        (0..rows as u64).map(|row| unit(self.block(first + row, 0)[0])).collect()
    }

    /// Whole numbers in 0..below, one for each of the samples `first..first + rows`.
    pub fn below(&self, first: u64, rows: i64, below: usize) -> Vec<usize> {
        self.uniform(first, rows).into_iter().map(|u| ((u * below as f64) as usize).min(below - 1)).collect()
    }

    /// Uniform numbers in (-1, 1) for one parameter tensor of `len` values.
    pub(crate) fn signed(&self, index: u64, len: i64, kind: Kind) -> Tensor {
        let blocks = (len as u64).div_ceil(4);
        let mut values = Vec::with_capacity(4 * blocks as usize);
        for block in 0..blocks {
            values.extend(self.block(index, block).map(|word| 2.0 * unit(word) - 1.0));
        }
        values.truncate(len as usize);
        Tensor::from_slice(&values).to_kind(kind)
    }

    fn push_normals(&self, values: &mut Vec<f32>, index: u64, count: usize) {
        let end = values.len() + count;
        for block in 0..(count as u64).div_ceil(4) {
            let [a, b, c, d] = self.block(index, block);
            values.extend(box_muller(a, b));
            values.extend(box_muller(c, d));
        }
        values.truncate(end);
    }

    fn block(&self, index: u64, block: u64) -> [u32; 4] {
        let ([a, b], [c, d]) = (halves(block), halves(index));
        philox([a, b, c, d], self.key)
    }
}

fn halves(value: u64) -> [u32; 2] {
    [value as u32, (value >> 32) as u32]
}

/// A number strictly between 0 and 1.
fn unit(word: u32) -> f64 {
    (f64::from(word) + 0.5) / 4_294_967_296.0
}

fn box_muller(first: u32, second: u32) -> [f32; 2] {
    let radius = (-2.0 * (unit(first) as f32).ln()).sqrt();
    let (sine, cosine) = (std::f32::consts::TAU * (second as f32 / 4_294_967_296.0)).sin_cos();
    [radius * cosine, radius * sine]
}

fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    const ROUNDS: usize = 10;
    const MULTIPLIER: [u64; 2] = [0xD251_1F53, 0xCD9E_8D57];
    const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
    for _ in 0..ROUNDS {
        let [low0, high0] = halves(MULTIPLIER[0] * u64::from(counter[0]));
        let [low1, high1] = halves(MULTIPLIER[1] * u64::from(counter[2]));
        counter = [high1 ^ counter[1] ^ key[0], low1, high0 ^ counter[3] ^ key[1], low0];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_published_vectors() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([!0; 4], [!0; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let counter = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        let expected = [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1];
        assert_eq!(philox(counter, [0xa409_3822, 0x299f_31d0]), expected);
    }

    #[test]
    fn a_sample_does_not_depend_on_the_batch_it_was_drawn_in() {
        let noise = Noise::new(7, Stream::MeasureLatent);
        let together = noise.normal(10, 6, 5, Device::Cpu);
        let apart =
            Tensor::cat(&[noise.normal(10, 2, 5, Device::Cpu), noise.normal(12, 4, 5, Device::Cpu)], 0);
        assert!(together.equal(&apart));
    }

    #[test]
    fn seeds_and_streams_differ() {
        let draw = |seed, stream| Noise::new(seed, stream).normal(0, 2, 8, Device::Cpu);
        let one = draw(1, Stream::FakeNoise);
        assert!(one.equal(&draw(1, Stream::FakeNoise)));
        assert!(!one.equal(&draw(2, Stream::FakeNoise)));
        assert!(!one.equal(&draw(1, Stream::FakeLatent)));
    }

    #[test]
    fn normals_are_normal() {
        let draw = Noise::new(3, Stream::FakeNoise).normal(0, 4000, 50, Device::Cpu).flatten(0, 1);
        let n = draw.size()[0] as f64;
        let moment = |power: f64| f64::try_from(draw.pow_tensor_scalar(power).mean(Kind::Double)).unwrap();
        // Standard errors of the first, second and fourth moments of n normals are sqrt(1, 2, 96) / sqrt(n).
        for (power, expected, variance) in [(1.0, 0.0, 1.0), (2.0, 1.0, 2.0), (4.0, 3.0, 96.0_f64)] {
            let error = (moment(power) - expected).abs();
            assert!(error < 5.0 * (variance / n).sqrt(), "moment {power} is off by {error}");
        }
    }

    #[test]
    fn whole_numbers_cover_their_range_evenly() {
        let mut counts = [0_u32; 3];
        Noise::new(5, Stream::Label).below(0, 9000, 3).into_iter().for_each(|i| counts[i] += 1);
        assert!(counts.iter().all(|&count| (2850..3150).contains(&count)), "{counts:?}");
    }
}
