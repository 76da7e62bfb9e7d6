//! The trainer's image: libtorch and the C library in a layer that changes with them only, the program in a
//! small one on top.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::layer::{Contents, Layer};
use super::libraries::needed_by;
use super::oci::Image;
use super::{Built, TRAINER, add_certificates, add_user, executable, revision, write};
use crate::cache::{self, Key};
use crate::{cargo, progress, setup};

const LIBTORCH: &str = "/opt/libtorch/lib";
const SYSTEM: &str = "/usr/lib/x86_64-linux-gnu";

/// The program, which has the place of this libtorch in it.
pub(super) fn program(libtorch: &Path) -> Result<PathBuf> {
    let built = progress::step("build lethe-trainer", || {
        cargo::build(&cargo::Build {
            args: &["--release", "--locked", "--package", "lethe-trainer", "--bin", "lethe-trainer"],
            rustflags: None,
            libtorch: Some(libtorch),
        })
    })?;
    executable(built, "lethe-trainer")
}

pub(super) fn build(dir: &Path) -> Result<Built> {
    setup::build_packages()?;
    let libtorch = setup::libtorch::directory()?;
    let program = program(&libtorch)?;
    let base = base_contents(&libtorch)?;
    check_libraries(&program, &libtorch, &base)?;
    let base = base_layer(&libtorch, &base)?;

    let mut contents = Contents::default();
    add_certificates(&mut contents);
    contents.file("/usr/bin/lethe-trainer", program, true);
    let file = dir.join("trainer.layer");
    let layer = contents.write(&file)?;
    let search = format!("LD_LIBRARY_PATH={LIBTORCH}:{SYSTEM}");
    let image = Image {
        name: TRAINER,
        title: "lethe-trainer",
        description: "Trains, unlearns, measures and serves one-step diffusion models",
        layers: vec![base, layer],
        entrypoint: &["/usr/bin/lethe-trainer"],
        env: &[&search, "HOME=/tmp"],
        revision: revision(),
    };
    let built = write(&image, dir.join("trainer.tar"));
    fs::remove_file(file)?;
    built
}

/// libtorch, and of this machine what it needs: the C and C++ libraries and the loader.
fn base_contents(libtorch: &Path) -> Result<Contents> {
    let lib = libtorch.join("lib");
    let mut contents = Contents::default();
    add_user(&mut contents);
    for entry in fs::read_dir(&lib).with_context(|| format!("cannot read {}", lib.display()))? {
        let entry = entry?;
        contents.file(Path::new(LIBTORCH).join(entry.file_name()), entry.path(), true);
    }
    for (name, file) in needed_by(&lib.join("libtorch_cpu.so"), &lib)? {
        if !file.starts_with(&lib) {
            contents.file(in_image(&name), file, true);
        }
    }
    Ok(contents)
}

/// The loader keeps its path, which every program has compiled in.
fn in_image(name: &str) -> PathBuf {
    // Joining an absolute path replaces the first.
    Path::new(SYSTEM).join(name)
}

/// A program that links something new would start here and fail in a pod.
fn check_libraries(program: &Path, libtorch: &Path, base: &Contents) -> Result<()> {
    for (name, file) in needed_by(program, &libtorch.join("lib"))? {
        let there = base.contains(&in_image(&name)) || base.contains(&Path::new(LIBTORCH).join(&name));
        ensure!(there, "{} needs {}, which is not in the base layer", program.display(), file.display());
    }
    Ok(())
}

/// Half a gigabyte: written once per content and kept in the cache.
fn base_layer(libtorch: &Path, contents: &Contents) -> Result<Layer> {
    let key =
        contents.fingerprint(Key::new("trainer base 1").text("libtorch", &libtorch.to_string_lossy()))?;
    let entry = cache::root()?.join("layers").join(key.finish());
    progress::step("libtorch layer", || {
        cache::publish(&entry, |dir| {
            let layer = contents.write(&dir.join("layer.tar"))?;
            Ok(fs::write(dir.join("digest"), layer.digest)?)
        })?;
        let file = entry.join("layer.tar");
        let digest = fs::read_to_string(entry.join("digest")).context("a cached layer has no digest")?;
        let size = fs::metadata(&file).context("a cached layer has no content")?.len();
        Ok(Layer { file, digest, size })
    })
}
