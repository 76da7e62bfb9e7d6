//! Stores that cannot be written, in a mount namespace of the test's own.

use std::{
    fs,
    io::{self, Write},
    path::Path,
    process::Command,
};

use lethe_api::contract::{Failure, Plan, Task, exit};

use crate::world::{Ended, World, arguments, assert_whole, copy, ended, fixed, read_record, unprepared};

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

/// Runs a plan in a mount namespace of its own, by a script of shell in which `$STORE` is the store and `"$@"` the trainer.
fn run_in(root: &Path, plan: &Plan, script: &str) -> Ended {
    fs::write(root.join("plan.json"), plan.to_json()).unwrap();
    let output = Command::new("unshare")
        .args(UNSHARE)
        .args(["sh", "-c", script, "sh"])
        .arg(env!("CARGO_BIN_EXE_lethe-trainer"))
        .args(arguments(root, plan.task.kind()))
        .arg("--no-port")
        .env("STORE", root.join("store"))
        .output()
        .expect("unshare (Debian package util-linux) runs");
    ended(root, &plan.digest(), output)
}

fn assert_unusable(ended: &Ended, word: &str) {
    assert_eq!(ended.code, Some(exit::BAD_CONFIGURATION), "{:?}\n{}", ended.outcome, ended.stderr);
    assert_eq!(ended.outcome.failure, Some(Failure::BadConfiguration));
    let message = ended.outcome.message.as_deref().unwrap();
    assert!(message.contains(word) && !message.contains('\n'), "{message}");
}

#[test]
fn a_read_only_store_is_a_bad_configuration_for_every_task() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let targets = [("three", fixed("one"))];
    let evaluation = world.evaluate(&world.candidate(&targets), &targets);
    let (empty, preparation) = unprepared();
    let read_only =
        "mount --bind \"$STORE\" \"$STORE\" && mount -o remount,bind,ro \"$STORE\" && exec \"$@\"";
    for plan in [world.forget(&targets, 3), evaluation] {
        assert_unusable(&run_in(world.path(), &plan, read_only), "read-only");
    }
    assert_unusable(&run_in(empty.path(), &preparation, read_only), "read-only");
}

/// Reading needs no room, so that nothing but the trial says it before something was trained.
#[test]
fn a_store_that_cannot_be_written_is_said_so_before_anything_is_trained() {
    if !can_mount() {
        return;
    }
    let (root, mut preparation) = unprepared();
    let Task::Prepare(task) = &mut preparation.task else { panic!("not a preparation") };
    task.steps = Some(1_000_000);
    let bundle = root.path().join("store/bundles").join(task.base.digest.hex());
    fs::create_dir_all(bundle.parent().unwrap()).unwrap();
    copy(&root.path().join("base"), &bundle);
    let read_only =
        "mount --bind \"$STORE\" \"$STORE\" && mount -o remount,bind,ro \"$STORE\" && exec \"$@\"";
    let ended = run_in(root.path(), &preparation, read_only);
    assert_unusable(&ended, "read-only");
    assert!(!ended.stderr.contains("\"stage\""), "{}", ended.stderr);
}

/// However little room there is: the trainer says so, what is in the store is whole, and with more room the same comes out.
#[test]
fn wherever_the_store_gets_full_what_is_in_it_is_whole() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let plan = world.forget(&[("three", fixed("one"))], 3);
    let kept = world.path().join("kept");
    copy(&world.store(), &kept);
    let mut failures = 0;
    for kib in (least_kib(&kept)..).step_by(16) {
        let after = world.path().join(format!("after-{kib}"));
        fs::create_dir(&after).unwrap();
        let script = format!(
            "mount -t tmpfs -o size={kib}k none \"$STORE\" && cp -a '{kept}/.' \"$STORE\" && {{ \"$@\"; code=$?; \
             cp -a \"$STORE/.\" '{after}'; exit $code; }}",
            kept = kept.display(),
            after = after.display()
        );
        let ended = run_in(world.path(), &plan, &script);
        assert_whole(&after);
        if ended.code == Some(exit::DONE) {
            break;
        }
        assert_unusable(&ended, "full");
        failures += 1;
        assert!(failures < 100, "it never had enough");
        fs::remove_dir_all(world.store()).unwrap();
        copy(&after, &world.store());
    }
    assert!(failures > 2, "it had enough from the start: {failures}");
    // On top of what the last failure has left.
    let ended = world.run(&plan);
    let undisturbed = World::new();
    let other = undisturbed.forget(&[("three", fixed("one"))], 3);
    assert_eq!(read_record(world.path(), &plan, &ended), undisturbed.record(&other));
}

/// What a copy of this folder takes in memory, where files come in pages.
fn least_kib(folder: &Path) -> u64 {
    let size = |entry: fs::DirEntry| match entry.metadata().unwrap().is_dir() {
        true => least_kib(&entry.path()),
        false => entry.metadata().unwrap().len().div_ceil(4096) * 4,
    };
    fs::read_dir(folder).unwrap().map(|entry| size(entry.unwrap())).sum()
}

#[test]
fn a_file_that_may_not_be_so_large_is_a_full_store() {
    let world = World::new();
    let plan = world.forget(&[("three", fixed("one"))], 3);
    fs::write(world.path().join("plan.json"), plan.to_json()).unwrap();
    // Eight blocks of 512 bytes: enough for a termination message. A signal that is ignored becomes an error.
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 8; exec \"$@\"", "sh"])
        .arg(env!("CARGO_BIN_EXE_lethe-trainer"))
        .args(arguments(world.path(), plan.task.kind()))
        .arg("--no-port")
        .output()
        .unwrap();
    assert_unusable(&ended(world.path(), &plan.digest(), output), "full");
    assert_whole(&world.store());
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
