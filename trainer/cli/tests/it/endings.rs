//! Ends that a training may come to: each with its own exit code, and a message that says where it was.

use std::{fs, os::unix::process::ExitStatusExt, process::Output};

use lethe_api::contract::{BundleKind, Failure, Plan, Progress, Task, exit};
use lethe_store::Bundle;
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use safetensors::{SafeTensors, tensor::TensorView};
use tempfile::TempDir;

use crate::world::{
    Ended, Running, World, arguments, ended, export, fixed, get, plan, prepare_task, run, start, teacher,
    trainer, until,
};

/// A teacher whose weights are finite, and so large that nothing else is.
fn overflowing() -> Bundle {
    let teacher = teacher();
    let file = SafeTensors::deserialize(teacher.weights()).unwrap();
    let large = f32::MAX
        .to_le_bytes()
        .repeat(file.tensors().iter().map(|(_, view)| view.data().len()).max().unwrap() / 4);
    let tensor = |(name, view): (String, TensorView<'_>)| {
        let data = &large[..view.data().len()];
        (name, TensorView::new(view.dtype(), view.shape().to_vec(), data).unwrap())
    };
    let weights = safetensors::serialize(file.tensors().into_iter().map(tensor), None).unwrap();
    Bundle::new(BundleKind::Teacher, weights, teacher.model().to_vec()).unwrap()
}

#[test]
fn a_training_that_diverges_says_at_which_step_and_what() {
    let root = TempDir::new().unwrap();
    fs::create_dir(root.path().join("store")).unwrap();
    let base = overflowing();
    export(&base, &root.path().join("base"));
    let plan = plan(root.path(), prepare_task(&root.path().join("base"), base.digest()));
    let ended = run(root.path(), plan.task.kind(), plan.to_json().as_bytes());
    assert_eq!(ended.code, Some(exit::DIVERGED), "{:?}", ended.outcome);
    assert_eq!(ended.outcome.failure, Some(Failure::Diverged));
    let message = ended.outcome.message.unwrap();
    assert!(message.contains("diverged at step 1: ") && message.contains("is not finite"), "{message}");
    assert!(!message.contains('\n') && exit::FATAL.contains(&exit::DIVERGED), "{message}");
    let left = fs::read_dir(root.path().join("store/bundles")).unwrap().count();
    assert_eq!(left, 1, "the teacher was imported, and nothing came of it");
}

/// How much address space a process has, in bytes, by the kernel's word.
fn address_space(pod: &Running) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", pod.0.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024
}

/// Starts the pod, and once it has done so many steps of `stage` it gets no more memory than it has.
/// What it asks for next may be a few bytes for itself: then it aborts at once and without a word. Which of both it is is chance, so
/// that it may be that twice.
fn starve(world: &World, plan: &Plan, stage: &str, steps: u64) -> Ended {
    fs::write(world.path().join("plan.json"), plan.to_json()).unwrap();
    for _ in 0..3 {
        let _ = fs::remove_file(world.path().join("termination-log"));
        let (mut pod, port) = start(trainer().args(arguments(world.path(), plan.task.kind())));
        until(stage, || {
            let progress: Progress = serde_json::from_str(&get(port, "/progress")?.1).unwrap();
            (progress.stage == stage && progress.step >= steps).then_some(())
        });
        // A training may hold its most just now, and would never ask for more.
        let most = Some(address_space(&pod) / if steps > 0 { 2 } else { 1 });
        let _ = prlimit(Some(Pid::from_child(&pod.0)), Resource::As, Rlimit { current: most, maximum: most });
        let status = pod.wait();
        if status.signal() != Some(Signal::ABORT.as_raw()) {
            let output = Output { status, stdout: vec![], stderr: vec![] };
            return ended(world.path(), &plan.digest(), output);
        }
    }
    panic!("each of three starved pods aborted");
}

#[test]
fn a_pod_that_gets_no_more_memory_says_where_it_was_and_what_to_do() {
    let world = World::new();
    let targets = [("three", fixed("one"))];
    let mut plan = world.evaluate(&world.candidate(&targets), &targets);
    let Task::Evaluate(task) = &mut plan.task else { unreachable!("made above") };
    // Every batch of images takes more than what a process keeps at hand.
    (task.samples.leak, task.samples.quality) = (1_000_000, 1_000_000);
    let ended = starve(&world, &plan, "measure", 0);
    assert_eq!(ended.code, Some(exit::OUT_OF_MEMORY), "{:?}", ended.outcome);
    assert_eq!(ended.outcome.failure, Some(Failure::OutOfMemory));
    let message = ended.outcome.message.unwrap();
    assert!(message.starts_with("measure step ") && message.contains(": out of memory: "), "{message}");
    assert!(message.contains("resources.limits") && !message.contains('\n'), "{message}");
    assert!(!exit::FATAL.contains(&exit::OUT_OF_MEMORY), "somebody else may have used it");
}

#[test]
fn a_training_that_gets_no_more_memory_says_which_network_was_trained() {
    let world = World::new();
    let mut plan = world.forget(&[("three", fixed("one"))], 1_000);
    let Task::Forget(task) = &mut plan.task else { unreachable!("made above") };
    // A step takes more than what a process keeps at hand.
    let large = serde_json::json!({"remainBatch": 1 << 16, "forgetBatch": 1 << 16});
    task.settings = large.as_object().cloned();
    let ended = starve(&world, &plan, "forget", 1);
    assert_eq!(ended.code, Some(exit::OUT_OF_MEMORY), "{:?}", ended.outcome);
    let message = ended.outcome.message.unwrap();
    assert!(
        message.starts_with("forget step ") && message.contains(" of 1000: out of memory: "),
        "{message}"
    );
    let networks = ["training the fake score: ", "training the generator: "];
    assert!(networks.iter().any(|network| message.contains(network)), "{message}");
    assert!(message.contains("resources.limits") && !message.contains('\n'), "{message}");
}
