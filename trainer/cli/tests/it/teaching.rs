//! Teachers: of images that are none there is none (65 and one line), and an interrupted one is gone on with.

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use flate2::{Compression, write::GzEncoder};
use lethe_api::contract::exit;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::world::{Running, trainer, until};

fn packed(text: impl AsRef<[u8]>) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(text.as_ref()).unwrap();
    gzip.finish().unwrap()
}

/// Two images of as many pixels, with these last columns.
fn images(pixels: usize, labels: [&str; 2]) -> Vec<u8> {
    packed(labels.map(|label| format!("{}{label}\n", "7,".repeat(pixels))).concat())
}

#[test]
fn images_that_are_none_are_refused_in_one_line() {
    let whole = images(64, ["1", "2"]);
    let cases: [(&str, Option<Vec<u8>>, &str); 15] = [
        ("missing", None, "No such file"),
        ("empty", Some(Vec::new()), ""),
        ("not packed", Some(b"7,".repeat(64)), "gzip"),
        ("cut", Some(whole[..whole.len() / 2].to_vec()), ""),
        ("no images", Some(packed("")), "labels"),
        ("of one label", Some(images(64, ["1", "1"])), "number of labels is 1"),
        ("a pixel too few", Some(images(63, ["1", "2"])), "line 1: 63 pixels, expected 64"),
        ("a pixel too many", Some(images(65, ["1", "2"])), "line 1: 65 pixels, expected 64"),
        ("28 by 28", Some(images(784, ["1", "2"])), "line 1: 784 pixels, expected 64"),
        ("too dark", Some(packed("17,".repeat(64) + "1\n")), "line 1"),
        ("an unknown digit", Some(images(64, ["1", "10"])), "line 2"),
        ("half a pixel", Some(packed("0.5,".repeat(64) + "1\n")), "whole numbers"),
        ("no number", Some(images(64, ["1", "NaN"])), "line 2"),
        ("no text", Some(packed([0xff; 200])), "UTF-8"),
        ("larger than memory", Some(packed(vec![b'7'; 65 << 20])), "larger than"),
    ];
    for (what, bytes, word) in cases {
        let root = TempDir::new().unwrap();
        let (file, out, log) = (root.path().join("images"), root.path().join("out"), root.path().join("log"));
        if let Some(bytes) = bytes {
            fs::write(&file, bytes).unwrap();
        }
        let mut command = trainer();
        command.args(["teach", "--steps", "1", "--images"]).arg(&file).arg("--out").arg(&out);
        let output = command.arg("--termination-log").arg(&log).output().unwrap();
        let message = fs::read_to_string(log).unwrap();
        assert_eq!(output.status.code(), Some(exit::BAD_ARTIFACT), "{what}: {message}");
        assert!(message.contains(&*file.to_string_lossy()) && message.contains(word), "{what}: {message}");
        assert!(!message.contains(char::is_control), "{what}: {message:?}");
        assert!(!out.exists(), "{what}");
    }
}

/// The command that teaches from `images` beside it, for so many steps.
fn teach(root: &Path, steps: &str) -> Command {
    let mut command = trainer();
    command.args(["teach", "--threads", "1", "--checkpoint-seconds", "0", "--steps", steps, "--images"]);
    command.arg(root.join("images")).arg("--out").arg(root.join("out"));
    command.arg("--termination-log").arg(root.join("log")).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn some_digits() -> TempDir {
    let root = TempDir::new().unwrap();
    let line = |digit: usize| format!("{}{digit}\n", format!("{digit},").repeat(64));
    fs::write(root.path().join("images"), packed((0..10).map(line).collect::<String>())).unwrap();
    root
}

#[test]
fn a_base_that_is_there_is_not_replaced_by_another() {
    let root = some_digits();
    let out = root.path().join("out");
    let taught = || fs::read(out.join("model.safetensors")).unwrap();
    assert!(teach(root.path(), "3").status().unwrap().success());
    let first = taught();
    assert!(teach(root.path(), "3").status().unwrap().success(), "the same again is no other base");
    assert_eq!(teach(root.path(), "4").status().unwrap().code(), Some(exit::BAD_CONFIGURATION));
    let message = fs::read_to_string(root.path().join("log")).unwrap();
    let said = format!("{} exists already and is another base; name a folder that does not", out.display());
    assert_eq!(message, said);
    assert!(taught() == first && !root.path().join("out.scratch").exists());
    // Without its manifest it is the rest of a teacher that was never finished.
    fs::remove_file(out.join("manifest.json")).unwrap();
    assert!(teach(root.path(), "4").status().unwrap().success());
    assert!(taught() != first);
}

#[test]
fn an_interrupted_teacher_is_gone_on_with_and_nothing_is_left_beside_it() {
    const STEPS: &str = "60";
    let (root, undisturbed) = (some_digits(), some_digits());
    let scratch = root.path().join("out.scratch");
    let mut process = Running(teach(root.path(), STEPS).spawn().unwrap());
    let _ = until("a checkpoint", || fs::read_dir(scratch.join("scratch")).ok()?.next());
    kill_process(Pid::from_child(&process.0), Signal::TERM).unwrap();
    assert_eq!(process.wait().code(), Some(exit::INTERRUPTED));
    let message = fs::read_to_string(root.path().join("log")).unwrap();
    assert!(message.contains("interrupted by SIGTERM at teach step "), "{message}");
    assert!(!root.path().join("out").exists() && scratch.exists());

    assert!(teach(root.path(), STEPS).status().unwrap().success());
    assert!(teach(undisturbed.path(), STEPS).status().unwrap().success());
    let taught = |root: &TempDir| fs::read(root.path().join("out/model.safetensors")).unwrap();
    assert!(taught(&root) == taught(&undisturbed), "an interruption changes nothing");
    assert!(!scratch.exists());
}
