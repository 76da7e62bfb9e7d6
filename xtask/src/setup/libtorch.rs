//! libtorch for the CPU, taken from the official wheel.
//!
//! The wheel is a CUDA build. The few libraries kept here run without the rest of CUDA; `libtorch_cuda.so`
//! must not be among them, because whoever finds it links all of CUDA.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::pip;
use crate::cache::{self, Key};
use crate::progress;

/// The release that the `tch` of this workspace pairs with.
pub const VERSION: &str = "2.11.0";

const WHEELS: [&str; 3] = ["torch==2.11.0", "nvidia-cuda-runtime==13.0.96", "nvidia-cuda-cupti==13.0.85"];

/// Libraries of the torch wheel, under `torch/lib`.
const TORCH: [&str; 6] =
    ["libtorch_cpu.so", "libc10.so", "libtorch.so", "libgomp.so.1", "libshm.so", "libtorch_global_deps.so"];
/// What `libtorch_cpu.so` of a CUDA build is linked with, under `nvidia/cu13/lib`.
const CUDA: [&str; 2] = ["libcupti.so.13", "libcudart.so.13"];

/// The directory with `include` and `lib`; fetched when it is not complete.
///
/// # Errors
/// If pip is missing and cannot be installed, or the wheels cannot be had.
pub fn directory() -> Result<PathBuf> {
    let entry = cache::root()?.join("libtorch").join(name());
    if entry.exists() && verify(&entry).is_err() {
        // Made by hand or by something that died: not an entry.
        cache::remove(&entry)?;
    }
    if !entry.exists() {
        let label = format!("fetch libtorch {VERSION} (530 MB)");
        progress::step(&label, || cache::publish(&entry, fetch))?;
    }
    // The loader resolves libtorch's own search path from the real name.
    fs::canonicalize(&entry).with_context(|| format!("cannot resolve {}", entry.display()))
}

/// The release for people, and what it is made of: another pin or another list of libraries is another entry.
fn name() -> String {
    let inputs = [("wheels", &WHEELS[..]), ("torch", &TORCH), ("cuda", &CUDA)];
    let key = inputs.iter().fold(Key::new("libtorch 1"), |key, (name, list)| key.text(name, &list.join(" ")));
    format!("{VERSION}-cpu-{}", key.finish())
}

fn fetch(into: &Path) -> Result<()> {
    let wheels = into.join("wheels");
    // The wheels for different Pythons hold the same machine code: take the one for a Python that they all
    // exist for, whatever this machine has.
    let python = ["--python-version=3.12", "--implementation=cp", "--abi=cp312"];
    pip::unpack(&WHEELS, &python, &wheels, "pip-libtorch")?;
    keep(&wheels, into)?;
    cache::remove(&wheels)?;
    verify(into)
}

/// Moves what is needed out of the unpacked wheels.
fn keep(wheels: &Path, into: &Path) -> Result<()> {
    let lib = into.join("lib");
    fs::create_dir_all(&lib)?;
    let rename = |from: PathBuf, to: PathBuf| {
        fs::rename(&from, &to).with_context(|| format!("the wheel lacks {}", from.display()))
    };
    rename(wheels.join("torch/include"), into.join("include"))?;
    for name in TORCH {
        rename(wheels.join("torch/lib").join(name), lib.join(name))?;
    }
    for name in CUDA {
        rename(wheels.join("nvidia/cu13/lib").join(name), lib.join(name))?;
    }
    Ok(())
}

fn verify(dir: &Path) -> Result<()> {
    let header = dir.join("include/torch/csrc/api/include/torch/torch.h");
    ensure!(header.is_file(), "{} is missing", header.display());
    for name in TORCH.iter().chain(&CUDA) {
        let library = dir.join("lib").join(name);
        ensure!(fs::metadata(&library).is_ok_and(|data| data.len() > 0), "{} is missing", library.display());
    }
    let cuda = dir.join("lib/libtorch_cuda.so");
    ensure!(!cuda.exists(), "{} would make every build need all of CUDA", cuda.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Wheels as they look unpacked, each file a byte long.
    fn wheels(dir: &Path) -> PathBuf {
        let wheels = dir.join("wheels");
        let files = TORCH.map(|name| format!("torch/lib/{name}"));
        let cuda = CUDA.map(|name| format!("nvidia/cu13/lib/{name}"));
        let rest = ["torch/include/torch/csrc/api/include/torch/torch.h", "torch/lib/libtorch_cuda.so"];
        for file in files.iter().chain(&cuda).map(String::as_str).chain(rest) {
            let file = wheels.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "x").unwrap();
        }
        wheels
    }

    #[test]
    fn the_cpu_part_is_kept_and_the_cuda_part_is_not() {
        let dir = tempfile::tempdir().unwrap();
        keep(&wheels(dir.path()), dir.path()).unwrap();
        verify(dir.path()).unwrap();
        fs::write(dir.path().join("lib/libtorch_cuda.so"), "x").unwrap();
        assert!(verify(dir.path()).unwrap_err().to_string().contains("libtorch_cuda.so"));
    }

    #[test]
    fn the_version_that_is_shown_is_the_one_that_is_fetched() {
        assert!(WHEELS.contains(&&*format!("torch=={VERSION}")), "the wheels are of another version");
    }

    #[test]
    fn half_a_directory_is_not_accepted() {
        let dir = tempfile::tempdir().unwrap();
        keep(&wheels(dir.path()), dir.path()).unwrap();
        fs::write(dir.path().join("lib/libc10.so"), "").unwrap();
        assert!(verify(dir.path()).unwrap_err().to_string().contains("libc10.so is missing"));
    }
}
