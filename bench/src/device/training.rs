//! Trainings on the device: beside the CPU, beside f32, resumed, shared, and without waiting.

use std::time::Instant;

use anyhow::{Result, ensure};
use lethe_sfd::{Device, MlpConfig, ModelConfig, Precision, Training};
use tch::{Kind, Tensor};

use super::models::{self, Size};
use super::row::Row;

const STEPS: u64 = 20;
const BATCH: i64 = 16;
/// Largest difference of a loss, relative to the largest size that it has over the steps.
const MOST_F32: f64 = 1e-3;
/// Rounding grows from step to step; 0.15 after 20 steps was seen with the small ADM U-Net, 0.01 with the others.
const MOST_BF16: f64 = 0.3;
/// CPUs add up the same pieces in the same order; a device may not even agree with itself.
const MOST_SHARED_CPU: f64 = 0.0;
/// Part of a wait that a step may take to be put into the queue.
const MOST_WAITED: f64 = 0.5;

/// The losses of each step.
fn losses(training: &mut dyn Training, steps: u64) -> Result<Vec<Vec<f64>>> {
    let one = |_| -> Result<Vec<f64>> {
        training.advance();
        Ok(training.report()?.losses.into_iter().map(|(_, loss)| loss).collect())
    };
    (0..steps).map(one).collect()
}

/// The larger of two numbers, or the one that is none: `f64::max` would leave it out.
fn larger(a: f64, b: f64) -> f64 {
    if b > a || b.is_nan() { b } else { a }
}

fn largest_difference(found: &[Vec<f64>], expected: &[Vec<f64>]) -> f64 {
    let size = |loss: usize| expected.iter().map(|step| step[loss].abs()).fold(0.0, f64::max);
    let sizes: Vec<f64> = (0..expected[0].len()).map(size).collect();
    let of = |(found, expected): (&Vec<f64>, &Vec<f64>)| {
        let each = found.iter().zip(expected).zip(&sizes);
        each.map(|((a, b), size)| (a - b).abs() / size).fold(0.0, larger)
    };
    found.iter().zip(expected).map(of).fold(0.0, larger)
}

/// Losses of the first steps beside the CPU's, and in bf16 beside those in f32.
///
/// # Errors
/// If a training diverges.
pub fn beside_the_cpu(name: &str, config: &ModelConfig, device: Device) -> Result<Vec<Row>> {
    let run = |precision, on| losses(&mut models::forgetting(config, BATCH, precision, on)?, STEPS);
    let exact = run(Precision::F32, device)?;
    let found = largest_difference(&exact, &run(Precision::F32, Device::Cpu)?);
    let rounded = largest_difference(&run(Precision::Bf16, device)?, &exact);
    Ok(vec![
        Row::limited(format!("{STEPS} steps {name}"), found, MOST_F32, "losses beside the CPU's"),
        Row::limited(format!("{STEPS} steps {name} Bf16"), rounded, MOST_BF16, "losses beside f32's"),
    ])
}

/// Some steps, a checkpoint and the rest, beside all steps at once.
pub fn resumed_beside_whole(device: Device) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for precision in [Precision::F32, Precision::Bf16] {
        let fresh = || models::forgetting(&models::ddpm(Size::Reduced), BATCH, precision, device);
        let mut whole = fresh()?;
        let before = losses(&mut whole, 3)?;
        let state = whole.checkpoint()?;
        let expected = losses(&mut whole, 3)?;
        let mut resumed = fresh()?;
        resumed.resume(&state)?;
        ensure!(resumed.step() == 3, "resumed at step {}", resumed.step());
        let found = losses(&mut resumed, 3)?;
        let what = match resumed.checkpoint()? == whole.checkpoint()? {
            true => "losses after a resume; equal to the bit",
            false => "losses after a resume; not equal to the bit",
        };
        ensure!(found != before, "the steps after the checkpoint are those before it");
        let difference = largest_difference(&found, &expected);
        rows.push(Row::limited(format!("resume {precision:?}"), difference, MOST_F32, what));
    }
    Ok(rows)
}

/// Two replicas, on two devices if there are, beside one. The batch makes several pieces.
pub fn two_replicas_beside_one(device: Device) -> Result<Vec<Row>> {
    let other = match device {
        Device::Cuda(_) if tch::Cuda::device_count() > 1 => Device::Cuda(1),
        same => same,
    };
    // Two pieces or more.
    let batch = if device.is_cuda() { 8192 } else { 520 };
    let run = |others: &[Device]| {
        let config = models::song(Size::Reduced);
        let mut training = models::forgetting(&config, batch, Precision::F32, device)?;
        training.share_with(others);
        losses(&mut training, 2)
    };
    let found = largest_difference(&run(&[other])?, &run(&[])?);
    let most = if device.is_cuda() { MOST_F32 } else { MOST_SHARED_CPU };
    Ok(vec![Row::limited("two replicas", found, most, format!("{device:?} and {other:?}"))])
}

/// The device is given a second of other work, and then a step: the host must be back long before the device is done.
pub fn without_waiting(device: Device) -> Result<Vec<Row>> {
    let Device::Cuda(index) = device else { return Ok(Vec::new()) };
    let wait = || tch::Cuda::synchronize(index as i64);
    let [(name, config), ..] = models::kinds(Size::Reduced);
    // Few operations: a device takes about a thousand into its queue.
    let network = MlpConfig { blocks: 1, ..MlpConfig::default() }.into();
    let config = ModelConfig { network, ..config };
    let mut training = models::forgetting(&config, BATCH, Precision::F32, device)?;
    (0..5).for_each(|_| training.advance());
    let matrix = Tensor::randn([8192, 8192], (Kind::Float, device));
    drop(matrix.matmul(&matrix));
    wait();
    let began = Instant::now();
    let products: Vec<Tensor> = (0..40).map(|_| matrix.matmul(&matrix)).collect();
    let busy = began.elapsed().as_secs_f64();
    training.advance();
    let queued = began.elapsed().as_secs_f64() - busy;
    wait();
    let done = began.elapsed().as_secs_f64();
    drop(products);
    let what = format!("a step took the host {queued:.3} s, the device was busy for {done:.3} s");
    Ok(vec![Row::limited(format!("no wait {name}"), queued / done, MOST_WAITED, what)])
}
