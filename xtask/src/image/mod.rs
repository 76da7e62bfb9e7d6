//! `cargo xtask image`: the images, built here and without Docker.

pub mod layer;
mod libraries;
pub mod oci;
mod operator;
mod pause;
mod trainer;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use self::oci::Identity;
use crate::cache::{self, Lock};
use crate::{cmd, progress};

pub use self::pause::build as pause;

/// What the operator's image sets. By default glibc keeps what each thread has freed for that thread: with thousands of
/// requests a fifth of the memory.
pub const OPERATOR_ENV: &[&str] = &["MALLOC_ARENA_MAX=1"];
/// What manifests call the images.
pub const OPERATOR: &str = "lethe/operator:dev";
pub const TRAINER: &str = "lethe/trainer:dev";

/// Build OCI images as tars under target/images, without Docker
///
/// The same sources give the same digest, at every commit that has them, on a machine with the same toolchain,
/// C library and paths (a compiler writes the paths of sources into programs). The tars are OCI image layouts:
/// `cargo xtask cluster load`, `ctr image import`, `docker load`, `kind load image-archive` and `skopeo copy
/// oci-archive:` take them.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(value_enum, default_value = "all")]
    which: Which,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Which {
    /// The operator, statically linked
    Operator,
    /// The trainer, with libtorch in a layer of its own
    Trainer,
    /// The sandbox of every pod
    Pause,
    /// All of them
    All,
}

/// A finished image.
#[derive(Debug)]
pub struct Built {
    pub file: PathBuf,
    pub identity: Identity,
}

/// # Errors
/// Of the first image that cannot be built.
pub fn run(args: &Args) -> Result<()> {
    let wanted = |which| args.which == which || args.which == Which::All;
    if wanted(Which::Operator) {
        report(&operator()?)?;
    }
    if wanted(Which::Trainer) {
        report(&trainer()?)?;
    }
    if wanted(Which::Pause) {
        let file = directory()?.join("pause.tar");
        fs::copy(pause()?, &file).with_context(|| format!("cannot write {}", file.display()))?;
        let identity = oci::identify(&file)?.context("the sandbox image has no index")?;
        report(&Built { file, identity })?;
    }
    Ok(())
}

/// Builds the operator and its image.
///
/// # Errors
/// If it does not build.
pub fn operator() -> Result<Built> {
    let dir = directory()?;
    // Two that write the same file at once would write a broken one.
    let _lock = Lock::acquire(&dir.join("operator"))?;
    operator::build(&dir)
}

/// Builds the operator's program, the one that its image holds.
///
/// # Errors
/// If it does not build.
pub fn operator_program() -> Result<PathBuf> {
    operator::program()
}

/// Builds the trainer's program alone, which finds its libtorch.
///
/// # Errors
/// If it does not build.
pub fn trainer_program() -> Result<PathBuf> {
    trainer::program(&crate::setup::libtorch::directory()?)
}

/// Builds the trainer and its image.
///
/// # Errors
/// If it does not build.
pub fn trainer() -> Result<Built> {
    let dir = directory()?;
    let _lock = Lock::acquire(&dir.join("trainer"))?;
    trainer::build(&dir)
}

fn report(image: &Built) -> Result<()> {
    let Identity { name, digest } = &image.identity;
    progress::say(format_args!("{name} {digest} {}", image.file.display()))
}

/// Where image tars go: in the clone.
fn directory() -> Result<PathBuf> {
    let dir = cache::workspace().join("target/images");
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(dir)
}

/// Writes `image` beside `file` first, so that nobody loads half of it.
fn write(image: &oci::Image<'_>, file: PathBuf) -> Result<Built> {
    let identity = progress::step(&format!("write {}", image.name), || {
        let partial = file.with_extension("tar.partial");
        let identity = image.write(&partial)?;
        fs::rename(&partial, &file).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(identity)
    })?;
    Ok(Built { file, identity })
}

/// The commit of the clone, if it is one.
fn revision() -> Option<String> {
    cmd::output(Command::new("git").args(["rev-parse", "HEAD"]).current_dir(cache::workspace())).ok()
}

/// The executable `name` among cargo's.
fn executable(built: Vec<(String, PathBuf)>, name: &str) -> Result<PathBuf> {
    let found = built.into_iter().find(|(one, _)| one == name);
    Ok(found.with_context(|| format!("cargo built no executable {name}"))?.1)
}

/// The certificates that this machine trusts: without any, no store that speaks TLS could be reached.
fn add_certificates(contents: &mut layer::Contents) {
    const OF_LINUX: [&str; 2] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];
    for file in OF_LINUX.iter().map(Path::new).filter(|file| file.is_file()).take(1) {
        contents.file(OF_LINUX[0], file.to_owned(), false);
    }
}

/// The files that give the user of every image a name and a home.
fn add_user(contents: &mut layer::Contents) {
    contents
        .text(
            "/etc/passwd",
            "root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/tmp:/sbin/nologin\n",
        )
        .text("/etc/group", "root:x:0:\nnonroot:x:65532:\n")
        .directory(Path::new("/tmp"), 0o1777);
}
