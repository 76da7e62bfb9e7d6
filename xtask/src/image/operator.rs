//! The operator's image: one statically linked program on nothing.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use super::layer::Contents;
use super::oci::Image;
use super::{Built, OPERATOR, OPERATOR_ENV, add_certificates, add_user, executable, revision, write};
use crate::{cargo, progress, setup};

/// A promise to whoever pulls it.
const LIMIT: u64 = 40 << 20;
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The statically linked program.
pub(super) fn program() -> Result<PathBuf> {
    setup::build_packages()?;
    let built = progress::step("build lethe-operator", || {
        cargo::build(&cargo::Build {
            args: &[
                "--release",
                "--locked",
                "--target",
                TARGET,
                "--package",
                "lethe-operator",
                "--bin",
                "lethe-operator",
            ],
            // glibc linked in: needs no musl toolchain, and the operator uses neither locales nor name services
            // beyond DNS.
            rustflags: Some("-C target-feature=+crt-static"),
            libtorch: None,
        })
    })?;
    executable(built, "lethe-operator")
}

pub(super) fn build(dir: &Path) -> Result<Built> {
    let program = program()?;
    let mut contents = Contents::default();
    add_user(&mut contents);
    add_certificates(&mut contents);
    contents.file("/usr/bin/lethe-operator", program, true);
    let file = dir.join("operator.layer");
    let layer = contents.write(&file)?;
    ensure!(layer.size < LIMIT, "the operator image has {} bytes; the limit is {LIMIT}", layer.size);
    let image = Image {
        name: OPERATOR,
        title: "lethe-operator",
        description: "Keeps diffusion models compliant with erasure requests, on Kubernetes",
        layers: vec![layer],
        entrypoint: &["/usr/bin/lethe-operator"],
        env: OPERATOR_ENV,
        revision: revision(),
    };
    let built = write(&image, dir.join("operator.tar"));
    fs::remove_file(file)?;
    built
}
