//! `device`: whether a CUDA device computes what the CPU does, and how fast. Without one it runs in a reduced form on the
//! CPU, beside itself.
//!
//! Every check is made even if another has failed, and each says what it found beside its limit.

mod forward;
mod models;
mod row;
mod speed;
mod training;

use std::env;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::thread::available_parallelism;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use lethe_sfd::Device;

use self::models::Size;

pub use self::speed::{WorkArgs, work};

/// Makes NVIDIA's libraries compute f32 as f32. Read once, when they are loaded.
pub const TF32: &str = "NVIDIA_TF32_OVERRIDE";

/// A CUDA device beside the CPU: the same forward passes, losses and checkpoints; speed and memory
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Fail if there is no CUDA device, instead of running on the CPU in a reduced form
    #[arg(long)]
    cuda: bool,
    /// Leave out speed and memory
    #[arg(long)]
    no_speed: bool,
}

/// # Errors
/// If a check fails, or there is no CUDA device where one is demanded.
pub fn run(args: &Args, out: &Path) -> Result<()> {
    without_tf32()?;
    tch::set_num_interop_threads(1);
    if env::var_os("OMP_NUM_THREADS").is_none() {
        tch::set_num_threads(available_parallelism().map_or(1, |threads| threads.get() as i32));
    }
    let began = Instant::now();
    let device = Device::cuda_if_available();
    if args.cuda && !device.is_cuda() {
        bail!("no CUDA device is visible: either there is none, or libtorch_cuda.so was not loaded");
    }
    let size = if device.is_cuda() { Size::Full } else { Size::Reduced };
    println!("{}", describe(device));
    let mut rows = Vec::new();
    for (name, config) in models::kinds(size) {
        rows.extend(row::attempt("forward", || forward::beside_the_cpu(name, &config, device)));
    }
    for (name, config) in models::kinds(Size::Reduced) {
        rows.extend(row::attempt("steps", || training::beside_the_cpu(name, &config, device)));
    }
    rows.extend(row::attempt("resume", || training::resumed_beside_whole(device)));
    rows.extend(row::attempt("replicas", || training::two_replicas_beside_one(device)));
    rows.extend(row::attempt("no wait", || training::without_waiting(device)));
    if !args.no_speed {
        for (net, computing) in speed::CASES {
            rows.extend(row::attempt("speed", || speed::measure(out, net, computing, size)));
        }
    }
    println!("{:.0} s in all", began.elapsed().as_secs_f64());
    row::publish(out, &describe(device), &rows)?;
    let failed: Vec<&str> = rows.iter().filter(|row| !row.ok).map(|row| row.name.as_str()).collect();
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

/// Starts this program again, in the same process, with the environment that NVIDIA's libraries read, unless it already
/// says something.
fn without_tf32() -> Result<()> {
    if env::var_os(TF32).is_some() {
        return Ok(());
    }
    let program = env::current_exe().context("cannot find this program")?;
    let error = Command::new(program).args(env::args_os().skip(1)).env(TF32, "0").exec();
    Err(error).context("cannot start this program again")
}

fn describe(device: Device) -> String {
    match device {
        Device::Cuda(_) => format!(
            "CUDA devices: {}; the first: {}; cuDNN: {}; {TF32}={}",
            tch::Cuda::device_count(),
            speed::nvidia_smi("name,driver_version,memory.total").unwrap_or("no nvidia-smi".to_owned()),
            tch::Cuda::cudnn_is_available(),
            env::var(TF32).unwrap_or_default(),
        ),
        _ => "no CUDA device: the reduced form, on the CPU beside itself".to_owned(),
    }
}
