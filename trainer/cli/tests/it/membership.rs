//! `membership`: forgotten images beside others, as two models see them.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Output,
};

use flate2::{Compression, write::GzEncoder};
use lethe_api::contract::{Digest, ForgetRecord, RecordBody, Task, exit};
use lethe_sfd::ModelConfig;

use crate::world::{World, fixed, taught, tiny, trainer};

/// A file of digits: so many lines, each of one label and with pixels of its own.
fn digits(folder: &Path, name: &str, labels: &[&str], lines: usize) -> PathBuf {
    let pixel = |line: usize, at: usize| (line * 7 + at * 5 + name.len()) % 17;
    let line = |line: usize| {
        let pixels: String = (0..64).map(|at| format!("{},", pixel(line, at))).collect();
        format!("{pixels}{}\n", labels[line % labels.len()])
    };
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all((0..lines).map(line).collect::<String>().as_bytes()).unwrap();
    let file = folder.join(name);
    fs::write(&file, gzip.finish().unwrap()).unwrap();
    file
}

fn ask(world: &World, candidate: &Digest, [members, others]: [&Path; 2], more: &[&str]) -> Output {
    let mut command = trainer();
    command.args(["membership", "--store", &world.store_uri(), "--threads", "1"]);
    command.args(["--candidate", candidate.as_str(), "--baseline", world.prepared.baseline.as_str()]);
    command.arg("--members").arg(members).arg("--others").arg(others).args(more).output().unwrap()
}

#[test]
fn two_models_are_asked_to_tell_forgotten_images_from_others() {
    let labels = ["0", "1", "2", "3"].map(str::to_owned).to_vec();
    let world = World::prepared_from(&taught(&ModelConfig { labels, ..tiny() }));
    let mut plan = world.forget(&[("3", fixed("1"))], 3);
    let Task::Forget(task) = &mut plan.task else { unreachable!("a forgetting") };
    task.kept = ["0", "1", "2"].map(str::to_owned).to_vec();
    let RecordBody::Forget(ForgetRecord { candidate, .. }) = world.record(&plan) else {
        panic!("not the record of a forgetting")
    };
    let members = digits(world.path(), "members", &["3"], 40);
    let others = digits(world.path(), "others", &["3", "1"], 120);
    let output = ask(&world, &candidate, [&members, &others], &[]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said} {}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(report["sigma"], 0.5);
    for (which, file) in [("members", &members), ("others", &others)] {
        assert_eq!(report[which], Digest::of(fs::read(file).unwrap()).as_str());
    }
    for (which, digest) in [("candidate", &candidate), ("baseline", &world.prepared.baseline)] {
        let told = &report[which];
        assert_eq!((told["members"].as_u64(), told["others"].as_u64()), (Some(40), Some(120)), "{told}");
        assert_eq!(told["digest"], digest.as_str());
        assert!((0.0..=1.0).contains(&told["auc"].as_f64().unwrap()), "{told}");
    }
    // The same images on both sides cannot be told apart by any model.
    let same = ask(&world, &candidate, [&others, &others], &["--sigma", "1"]);
    let same: serde_json::Value = serde_json::from_slice(&same.stdout).unwrap();
    assert_eq!((same["candidate"]["auc"].as_f64(), same["sigma"].as_f64()), (Some(0.5), Some(1.0)));

    let refused = |files: [&Path; 2], more: &[&str], word: &str| {
        let output = ask(&world, &candidate, files, more);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && output.stdout.is_empty() && said.contains(word), "{said}");
        output.status.code().unwrap()
    };
    let unknown = digits(world.path(), "unknown", &["7"], 5);
    assert_eq!(refused([&unknown, &others], &[], "the model has no label 7"), exit::BAD_ARTIFACT);
    assert_eq!(refused([&world.path().join("none"), &others], &[], "No such file"), exit::BAD_ARTIFACT);
    refused([&members, &members], &[], "at least 100");
    assert_eq!(refused([&members, &others], &["--sigma", "0"], "--sigma is 0"), exit::BAD_CONFIGURATION);
}
