//! Stores that cannot be written, in a mount namespace of the test's own.

use std::{
    fs,
    io::{self, Write},
    process::Command,
};

use lethe_api::contract::{Failure, exit};

use crate::world::{Ended, World, arguments, ended, fixed};

const UNSHARE: [&str; 3] = ["--user", "--map-root-user", "--mount"];

/// Whether this machine lets a test have mounts of its own. If not, says so loudly; in CI that is a failure.
fn can_mount() -> bool {
    let tried = Command::new("unshare").args(UNSHARE).args(["mount", "-t", "tmpfs", "none", "/mnt"]).output();
    let problem = match tried {
        Ok(output) if output.status.success() => return true,
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => format!("unshare (Debian package util-linux): {error}"),
    };
    let is_ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(!is_ci, "a test needs a user and mount namespace of its own: {problem}");
    let skipped = "SKIPPED: a test needs a user and mount namespace of its own, and this machine has none";
    // Not by a macro: of a test that passes, what those print is not shown.
    io::stderr().write_all(format!("{skipped}: {problem}\n").as_bytes()).unwrap();
    false
}

/// Runs a forgetting after `mount`, a line of shell in which `$STORE` is the store, changed what is mounted.
fn forget_after(world: &World, mount: &str) -> Ended {
    let plan = world.forget(&[("three", fixed("one"))], 3);
    fs::write(world.path().join("plan.json"), plan.to_json()).unwrap();
    let script = format!("{mount} && exec \"$@\"");
    let output = Command::new("unshare")
        .args(UNSHARE)
        .args(["sh", "-c", &script, "sh"])
        .arg(env!("CARGO_BIN_EXE_lethe-trainer"))
        .args(arguments(world.path(), plan.task.kind()))
        .arg("--no-port")
        .env("STORE", world.store())
        .output()
        .expect("unshare (Debian package util-linux) runs");
    ended(world.path(), &plan.digest(), output)
}

fn assert_unusable(ended: &Ended, word: &str) {
    assert_eq!(ended.code, Some(exit::BAD_CONFIGURATION), "{:?}\n{}", ended.outcome, ended.stderr);
    assert_eq!(ended.outcome.failure, Some(Failure::BadConfiguration));
    let message = ended.outcome.message.as_deref().unwrap();
    assert!(message.contains(word) && !message.contains('\n'), "{message}");
}

#[test]
fn a_read_only_store_is_a_bad_configuration() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let read_only = "mount --bind \"$STORE\" \"$STORE\" && mount -o remount,bind,ro \"$STORE\"";
    assert_unusable(&forget_after(&world, read_only), "read-only");
}

#[test]
fn a_full_store_is_a_bad_configuration() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let full = "mkdir -p \"$STORE/scratch\" && mount -t tmpfs -o size=4k none \"$STORE/scratch\"";
    assert_unusable(&forget_after(&world, full), "full");
}

#[test]
fn a_store_that_is_not_mounted_is_a_bad_configuration() {
    let world = World::new();
    fs::rename(world.store(), world.path().join("elsewhere")).unwrap();
    let ended = world.run(&world.forget(&[("three", fixed("one"))], 3));
    assert_unusable(&ended, "mounted");
}

#[test]
fn a_file_where_a_folder_must_be_is_a_bad_configuration() {
    let world = World::new();
    fs::remove_dir_all(world.store().join("scratch")).unwrap();
    fs::write(world.store().join("scratch"), "in the way").unwrap();
    let ended = world.run(&world.forget(&[("three", fixed("one"))], 3));
    assert_unusable(&ended, "a file where a folder must be");
}
