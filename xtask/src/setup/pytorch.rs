//! PyTorch for Python, on the CPU: only what benches compare the trainer with.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::{apt, pip};
use crate::cache::{self, Key};
use crate::{cmd, progress};

/// The same release as [`super::libtorch`], and what `import torch` loads: the wheel is a CUDA build, whose libraries
/// are linked with all of these, also where there is no GPU.
const WHEELS: [&str; 21] = [
    "torch==2.11.0",
    "nvidia-cublas==13.1.0.3",
    "nvidia-cuda-cupti==13.0.85",
    "nvidia-cuda-runtime==13.0.96",
    "nvidia-cudnn-cu13==9.19.0.56",
    "nvidia-cufft==12.0.0.61",
    "nvidia-cufile==1.15.1.6",
    "nvidia-curand==10.4.0.35",
    "nvidia-cusparse==12.6.3.3",
    "nvidia-cusparselt-cu13==0.8.0",
    "nvidia-nccl-cu13==2.28.9",
    "nvidia-nvjitlink==13.0.88",
    "nvidia-nvshmem-cu13==3.4.5",
    "filelock==3.20.0",
    "fsspec==2025.10.0",
    "jinja2==3.1.6",
    "markupsafe==3.0.3",
    "mpmath==1.3.0",
    "networkx==3.4.2",
    "sympy==1.14.0",
    "typing-extensions==4.15.0",
];

/// The directory to put into `PYTHONPATH`; fetched when it is not there.
///
/// # Errors
/// If Python or pip is missing and cannot be installed, or the wheels cannot be had or do not load.
pub fn directory() -> Result<PathBuf> {
    apt::ensure(apt::PYTHON)?;
    let python = cmd::output(Command::new("python3").arg("--version"))?;
    let key = WHEELS
        .iter()
        .fold(Key::new("pytorch 1").text("python", &python), |key, wheel| key.text("wheel", wheel));
    let entry = cache::root()?.join("pytorch").join(key.finish());
    if !entry.exists() {
        progress::step("fetch PyTorch for the comparison (2 GB)", || {
            cache::publish(&entry, |into| {
                pip::unpack(&WHEELS, &[], into, "pip-pytorch")?;
                let mut import = Command::new("python3");
                import.env("PYTHONPATH", into).env_remove("LD_LIBRARY_PATH").args(["-c", "import torch"]);
                cmd::output(&mut import).map(drop)
            })
        })?;
    }
    fs::canonicalize(&entry).with_context(|| format!("cannot resolve {}", entry.display()))
}
