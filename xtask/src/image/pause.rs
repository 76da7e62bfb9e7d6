//! The sandbox image: one static program that holds a pod's namespaces and does nothing.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::layer::Contents;
use super::oci::Image;
use crate::cache::{self, Key};
use crate::cluster::config::PAUSE_IMAGE;
use crate::cmd;

/// Ended by SIGKILL, as every sandbox is; process 1 ignores everything else.
const SOURCE: &str = "fn main() { loop { std::thread::park() } }";

/// The image tar; built when it is not cached.
///
/// # Errors
/// If the compiler fails.
pub fn build() -> Result<PathBuf> {
    let version = cmd::output(Command::new("rustc").arg("-vV").current_dir(cache::workspace()))?;
    let key = Key::new("pause 1").text("source", SOURCE).text("rustc", &version).finish();
    let entry = cache::root()?.join("images").join(format!("pause-{key}"));
    cache::publish(&entry, write)?;
    Ok(entry.join("pause.tar"))
}

fn write(dir: &Path) -> Result<()> {
    let (source, program) = (dir.join("pause.rs"), dir.join("pause"));
    std::fs::write(&source, SOURCE)?;
    let mut rustc = Command::new("rustc");
    rustc
        .current_dir(cache::workspace())
        .args([
            "--edition=2024",
            "-Copt-level=s",
            "-Cpanic=abort",
            "-Cstrip=symbols",
            "-Ctarget-feature=+crt-static",
        ])
        .arg("-o")
        .args([&program, &source]);
    cmd::run_logged(&mut rustc, &cache::log("build-pause")?)?;
    let mut contents = Contents::default();
    contents.file("/pause", program, true);
    let layer = contents.write(&dir.join("layer.tar"))?;
    let image = Image {
        name: PAUSE_IMAGE,
        title: "pause",
        description: "Holds the namespaces of a pod",
        layers: vec![layer],
        entrypoint: &["/pause"],
        env: &[],
        revision: None,
    };
    image.write(&dir.join("pause.tar")).map(|_| ())
}
