//! Proof that forgetting and evaluating read no training data: every file that they open is accounted for.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use lethe_api::contract::{Digest, Plan};

use crate::world::{World, arguments, fixed};

/// Paths of all files that the command opened, by the kernel's own word.
fn opened(world: &World, plan: &Plan) -> BTreeSet<String> {
    fs::write(world.path().join("plan.json"), plan.to_json()).unwrap();
    let trace = world.path().join("trace");
    let output = Command::new("strace")
        .args(["-f", "-qq", "-s", "4096", "-e", "trace=open,openat,openat2,creat,execve", "-o"])
        .arg(&trace)
        .arg(env!("CARGO_BIN_EXE_lethe-trainer"))
        .args(arguments(world.path(), plan.task.kind(), 0))
        .output()
        .expect("strace is missing: apt-get install strace");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let trace = fs::read_to_string(trace).unwrap();
    // `123 openat(AT_FDCWD, "/path", O_RDONLY) = 3`; one that failed read nothing.
    let successful = trace.lines().filter(|line| !line.contains(" = -1 ") && !line.contains("execve("));
    successful.filter_map(|line| Some(line.split('"').nth(1)?.to_owned())).collect()
}

/// The part of the system that any program on libtorch touches.
fn is_of_the_system(path: &str) -> bool {
    let is_library = path.contains(".so") && !path.ends_with(".csv.gz");
    let exact = ["/etc/ld.so.cache", "/etc/localtime", "/etc/nsswitch.conf", "/etc/passwd", "/dev/null"];
    is_library || exact.contains(&path) || path.starts_with("/proc/") || path.starts_with("/sys/")
}

/// Of what was opened, what is neither the system's, nor the plan, nor one of `artifacts`.
fn unaccounted(world: &World, plan: &Plan, artifacts: &[&Digest]) -> Vec<String> {
    let is_allowed = |path: &str| {
        let Ok(inside) = Path::new(path).strip_prefix(world.path()) else { return is_of_the_system(path) };
        let inside = inside.display().to_string();
        let of = |folder: &str, name: &str| inside.starts_with(&format!("{folder}/{name}"));
        let is_artifact = artifacts.iter().any(|digest| of("store/bundles", digest.hex()));
        let is_scratch = of("store/scratch", plan.digest().hex());
        is_artifact || is_scratch || is_output(&inside)
    };
    let opened = opened(world, plan);
    assert!(opened.iter().any(|path| path.ends_with("plan.json")), "the trace is empty: {opened:?}");
    opened.into_iter().filter(|path| !is_allowed(path)).collect()
}

/// The plan, the termination message, and folders and files that the run itself makes.
fn is_output(inside: &str) -> bool {
    let own = ["plan.json", "termination-log", "store", "store/bundles", "store/records", "store/blobs"];
    let made = inside.starts_with("store/records/") || inside.starts_with("store/blobs/");
    own.contains(&inside) || inside == "store/scratch" || made
}

#[test]
fn forgetting_and_evaluating_open_nothing_but_the_artifacts_of_the_plan() {
    let world = World::new();
    let targets = [("three", fixed("one"))];
    let prepared = &world.prepared;
    // Before the trace, so that the candidate's digest is known to it.
    let candidate = world.candidate(&targets);

    let forget = world.forget(&targets, 3);
    let artifacts =
        [&prepared.teacher, &prepared.baseline, &prepared.distillation, &prepared.judge, &candidate];
    assert_eq!(unaccounted(&world, &forget, &artifacts), [""; 0], "forget");

    let evaluate = world.evaluate(&candidate, &targets);
    let artifacts = [&candidate, &prepared.baseline, &prepared.judge, &prepared.reference];
    assert_eq!(unaccounted(&world, &evaluate, &artifacts), [""; 0], "evaluate");
}

#[test]
fn the_trace_would_show_a_data_set() {
    assert!(!is_of_the_system("/data/optical-digits.csv.gz"));
    assert!(!is_output("base/model.safetensors"));
    assert!(!is_of_the_system("/home/user/images.npz"));
}

/// The source says the same: images are named where a teacher is taught, and nowhere else.
#[test]
fn only_teach_can_reach_the_images() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = vec![source.clone()];
    let mut reaching = BTreeSet::new();
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let words =
            ["images::read", "crate::images", "    images,\n", "TrainingImages", "GzDecoder", "Teaching"];
        if words.iter().any(|word| text.contains(word)) {
            reaching.insert(path.strip_prefix(&source).unwrap().display().to_string());
        }
    }
    assert_eq!(reaching, BTreeSet::from(["images.rs".to_owned(), "teach.rs".to_owned()]));
}
