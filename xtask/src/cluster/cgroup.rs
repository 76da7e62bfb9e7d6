//! The cluster's cgroup: one directory of the same name in every hierarchy (version 1) or in the one (version 2).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

const MOUNT: &str = "/sys/fs/cgroup";
/// Without these the kubelet does not start.
const NEEDED: [&str; 3] = ["cpu", "memory", "pids"];
/// The kernel empties a cgroup a moment after its last process is gone.
const EMPTYING: Duration = Duration::from_secs(10);

/// Where cgroups can be made on this machine.
pub struct Hierarchies {
    roots: Vec<PathBuf>,
    unified: bool,
}

impl Hierarchies {
    /// # Errors
    /// If no cgroup file system with the controllers that a node needs is mounted.
    pub fn find() -> Result<Self> {
        let mount = Path::new(MOUNT);
        if let Ok(controllers) = fs::read_to_string(mount.join("cgroup.controllers")) {
            has_needed(controllers.split_whitespace())?;
            return Ok(Self { roots: vec![mount.to_owned()], unified: true });
        }
        let mut roots = Vec::new();
        for entry in fs::read_dir(mount).with_context(|| format!("no cgroups at {MOUNT}"))? {
            let entry = entry?;
            // A link such as cpu -> cpu,cpuacct names a hierarchy a second time.
            if entry.file_type()?.is_dir() && entry.path().join("cgroup.procs").exists() {
                roots.push(entry.path());
            }
        }
        let names =
            roots.iter().filter_map(|root| root.file_name()?.to_str()).flat_map(|name| name.split(','));
        has_needed(names)?;
        Ok(Self { roots, unified: false })
    }

    /// Makes the cgroup `name` everywhere.
    ///
    /// # Errors
    /// If the kernel refuses; the message names the directory.
    pub fn create(&self, name: &str) -> Result<()> {
        for root in &self.roots {
            if self.unified {
                enable_controllers(root)?;
            }
            let dir = root.join(name);
            fs::create_dir_all(&dir)
                .with_context(|| format!("cannot create the cgroup {}", dir.display()))?;
            // Version 1 starts a cpuset empty, and an empty cpuset holds no process.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if !self.unified && root.join(file).exists() {
                    let value = fs::read_to_string(root.join(file))?;
                    fs::write(dir.join(file), value.trim())
                        .with_context(|| format!("cannot set {}", dir.join(file).display()))?;
                }
            }
        }
        Ok(())
    }

    /// Removes the cgroup `name` and everything below it; its processes must be gone or going.
    ///
    /// # Errors
    /// If a cgroup is still in use after a while.
    pub fn remove(&self, name: &str) -> Result<()> {
        let deadline = Instant::now() + EMPTYING;
        for root in &self.roots {
            let dir = root.join(name);
            while let Err(error) = remove_tree(&dir) {
                if Instant::now() > deadline {
                    return Err(error)
                        .with_context(|| format!("the cgroup {} is still in use", dir.display()));
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        Ok(())
    }
}

/// Depth first: a cgroup with children cannot be removed, and its files cannot be removed at all.
fn remove_tree(dir: &Path) -> std::io::Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(dir)
}

fn enable_controllers(root: &Path) -> Result<()> {
    let control = root.join("cgroup.subtree_control");
    for controller in fs::read_to_string(root.join("cgroup.controllers"))?.split_whitespace() {
        // One at a time: a controller that cannot be delegated must not hinder the others.
        let _ = fs::write(&control, format!("+{controller}"));
    }
    let enabled = fs::read_to_string(&control)?;
    let missing: Vec<_> =
        NEEDED.iter().filter(|name| !enabled.split_whitespace().any(|one| one == **name)).collect();
    ensure!(
        missing.is_empty(),
        "cannot enable the cgroup controllers {missing:?} in {}: inside a container, run it with \
         --privileged --cgroupns=host",
        control.display()
    );
    Ok(())
}

fn has_needed<'a>(names: impl Iterator<Item = &'a str>) -> Result<()> {
    let names: Vec<&str> = names.collect();
    if let Some(missing) = NEEDED.iter().find(|name| !names.contains(name)) {
        bail!(
            "this machine has no {missing} cgroup controller under {MOUNT} (there are: {})",
            names.join(", ")
        );
    }
    Ok(())
}
