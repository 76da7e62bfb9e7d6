//! Proof that forgetting and evaluating read no training data: every file that they open is accounted for.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use lethe_api::contract::{Digest, Plan};

use crate::world::{World, arguments, fixed};

/// Paths of all files that the command opened, by the kernel's own word.
fn opened(world: &World, plan: &Plan) -> BTreeSet<String> {
    fs::write(world.path().join("plan.json"), plan.to_json()).unwrap();
    let trace = world.path().join("trace");
    let output = Command::new("strace")
        .args(["-f", "-qq", "-s", "4096", "-e", "trace=open,openat,openat2,creat", "-o"])
        .arg(&trace)
        .arg(env!("CARGO_BIN_EXE_lethe-trainer"))
        .args(arguments(world.path(), plan.task.kind()))
        .arg("--no-port")
        .output()
        .expect("strace is missing: apt-get install strace");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    successful(&fs::read_to_string(trace).unwrap())
}

/// Paths of the calls in a trace that did not fail: `123 openat(AT_FDCWD, "/path", O_RDONLY) = 3`, or in two lines, if
/// another thread was traced in between: `123 openat(AT_FDCWD, "/path", O_RDONLY <unfinished ...>` and then
/// `123 <... openat resumed>) = 3`. One whose end is not in the trace counts as successful.
fn successful(trace: &str) -> BTreeSet<String> {
    let (mut opened, mut unfinished) = (BTreeSet::new(), BTreeMap::new());
    for line in trace.lines() {
        let thread = line.split_whitespace().next().unwrap_or_default();
        let path = match line.contains(" resumed>") {
            true => unfinished.remove(thread),
            false => line.split('"').nth(1).map(str::to_owned),
        };
        let Some(path) = path else { continue };
        if line.ends_with("<unfinished ...>") {
            unfinished.insert(thread, path);
        } else if !line.contains(" = -1 ") {
            opened.insert(path);
        }
    }
    opened.extend(unfinished.into_values());
    opened
}

/// The part of the system that any program on libtorch touches.
fn is_of_the_system(path: &str) -> bool {
    let exact = ["/etc/ld.so.cache", "/etc/localtime", "/etc/nsswitch.conf", "/etc/passwd", "/dev/null"];
    is_library(path) || exact.contains(&path) || path.starts_with("/proc/") || path.starts_with("/sys/")
}

/// `libtorch.so`, `libc.so.6` and the like.
fn is_library(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    let is_version = |version: &str| version.chars().all(|c| c.is_ascii_digit() || c == '.');
    name.ends_with(".so") || name.split_once(".so.").is_some_and(|(_, version)| is_version(version))
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
    for data in ["/data.so/digits.csv", "/data/digits.so.csv.gz", "/data/digits.sorted", "/data/x.so.1.csv"] {
        assert!(!is_of_the_system(data), "{data}");
    }
    for library in ["/usr/lib/libc.so.6", "/opt/libtorch/libtorch_cpu.so", "/opt/libgomp-2e.so.1.0.0"] {
        assert!(is_of_the_system(library), "{library}");
    }
}

#[test]
fn a_file_opened_while_another_thread_is_traced_is_seen() {
    let trace = r#"7 openat(AT_FDCWD, "/plain", O_RDONLY) = 3
7 openat(AT_FDCWD, "/missing", O_RDONLY) = -1 ENOENT (No such file or directory)
7 openat(AT_FDCWD, "/slow", O_RDONLY <unfinished ...>
8 openat(AT_FDCWD, "/slow-and-missing", O_RDONLY <unfinished ...>
7 <... openat resumed>) = 4
8 <... openat resumed>) = -1 ENOENT (No such file or directory)
9 openat(AT_FDCWD, "/until-the-end", O_RDONLY <unfinished ...>"#;
    assert_eq!(Vec::from_iter(successful(trace)), ["/plain", "/slow", "/until-the-end"]);
}

/// The source says the same: images are named where a teacher is taught and where membership is measured, and nowhere else.
#[test]
fn only_teach_and_membership_can_reach_the_images() {
    let words = ["images::", "crate::images", "    images,\n", "TrainingImages", "GzDecoder", "Teaching"];
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let may = ["images.rs", "membership.rs", "teach.rs"].map(str::to_owned);
    assert_eq!(files_with(&source, &words), BTreeSet::from(may));
}

/// No trace would show what was compiled in.
#[test]
fn no_data_is_compiled_in() {
    let macros = ["include_bytes!", "include_str!", "include!("];
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    assert_eq!(files_with(&own.join("src"), &macros), BTreeSet::new());
    assert_eq!(files_with(&own.join("../sfd/src"), &macros), BTreeSet::new());
}

/// Source files below `folder` with any of `words` in them.
fn files_with(folder: &Path, words: &[&str]) -> BTreeSet<String> {
    let mut files = vec![folder.to_owned()];
    let mut found = BTreeSet::new();
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let Ok(text) = fs::read_to_string(&path) else { panic!("{} is no text", path.display()) };
        if words.iter().any(|word| text.contains(word)) {
            found.insert(path.strip_prefix(folder).unwrap().display().to_string());
        }
    }
    found
}
