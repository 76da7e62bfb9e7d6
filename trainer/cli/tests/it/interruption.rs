//! Stopped and killed pods: the next one comes to the same result.

use std::{fs, process::Stdio};

use lethe_api::contract::{Failure, Plan, Progress, RecordBody, Status, exit};
use lethe_store::Store;
use rustix::process::{Pid, Signal, kill_process};

use crate::world::{PATIENCE, Running, World, command, ended, fixed, free_port, get, until};

fn start(world: &World, plan: &Plan, port: u16, more: &[&str]) -> Running {
    let mut command = command(world.path(), plan.task.kind(), plan.to_json().as_bytes(), port);
    Running(command.args(more).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap())
}

/// Waits until the pod says that it has done more than `step` steps of `stage`.
fn reach(port: u16, stage: &str, step: u64) -> Progress {
    until("progress", || {
        let (_, body) = get(port, "/progress")?;
        let progress: Progress = serde_json::from_str(&body).unwrap();
        (progress.stage == stage && progress.step > step).then_some(progress)
    })
}

fn candidate(world: &World, plan: &Plan) -> lethe_api::Digest {
    match world.record(plan) {
        RecordBody::Forget(record) => record.candidate,
        other => panic!("not the record of a forgetting: {other:?}"),
    }
}

#[test]
fn an_interrupted_run_goes_on_and_ends_as_if_nothing_had_happened() {
    let (world, undisturbed) = (World::new(), World::new());
    let targets = [("three", fixed("one"))];
    let plan = world.forget(&targets, 600);
    let port = free_port();
    let mut pod = start(&world, &plan, port, &[]);
    let seen = reach(port, "forget", 30);
    assert_eq!((seen.run.as_str(), seen.total), ("small-7f3a", 600));
    let (_, metrics) = get(port, "/metrics").unwrap();
    assert!(metrics.contains("lethe_trainer_steps{stage=\"forget\"} 600"), "{metrics}");
    kill_process(Pid::from_child(&pod.0), Signal::TERM).unwrap();
    let status = pod.0.wait().unwrap();
    assert_eq!(status.code(), Some(exit::TRY_AGAIN));
    let output = std::process::Output { status, stdout: vec![], stderr: vec![] };
    let outcome = ended(world.path(), &plan.digest(), output).outcome;
    assert_eq!((outcome.status, outcome.failure), (Status::Interrupted, Some(Failure::Interrupted)));
    assert!(outcome.message.unwrap().contains("forget step"));

    let resumed = world.run(&plan);
    assert!(resumed.stderr.contains("continuing from the checkpoint"), "{}", resumed.stderr);
    // Another store's path is another plan, so it starts from nothing.
    let other = undisturbed.forget(&targets, 600);
    assert_eq!(candidate(&world, &plan), candidate(&undisturbed, &other));
}

#[test]
fn a_run_killed_while_it_saves_leaves_a_state_that_loads() {
    let world = World::new();
    let plan = world.forget(&[("three", fixed("one"))], 200);
    let store = Store::open(&world.store_uri()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for round in 1..=4 {
        let port = free_port();
        // Saving after every step: whenever it is killed, it was probably saving.
        let mut pod = start(&world, &plan, port, &["--checkpoint-seconds", "0"]);
        reach(port, "forget", round * 10);
        pod.0.kill().unwrap();
        pod.0.wait().unwrap();
        let state = runtime.block_on(store.scratch(&plan.digest()).get("checkpoint", 1 << 30)).unwrap();
        assert!(state.is_some(), "after more than a step there is a state");
    }
    let undisturbed = World::new();
    let other = undisturbed.forget(&[("three", fixed("one"))], 200);
    assert_eq!(candidate(&world, &plan), candidate(&undisturbed, &other));
}

#[test]
fn a_damaged_state_is_not_used_and_changes_nothing() {
    let world = World::new();
    let plan = world.forget(&[("three", fixed("one"))], 20);
    let expected = candidate(&world, &plan);
    let scratch = world.store().join("scratch").join(plan.digest().hex());
    fs::create_dir_all(&scratch).unwrap();
    fs::write(scratch.join("checkpoint"), "not a state").unwrap();
    let ended = world.run(&plan);
    assert_eq!(ended.code, Some(exit::DONE));
    assert!(ended.stderr.contains("is not used"), "{}", ended.stderr);
    assert_eq!(candidate(&world, &plan), expected);
}

#[test]
fn a_pod_told_to_stop_while_it_measures_does_it_again_later() {
    let world = World::new();
    let targets = [("three", fixed("one"))];
    let mut plan = world.evaluate(&world.candidate(&targets), &targets);
    let lethe_api::contract::Task::Evaluate(task) = &mut plan.task else { unreachable!("made above") };
    task.samples.leak = 200_000;
    let port = free_port();
    let mut pod = start(&world, &plan, port, &[]);
    until("the measurement", || get(port, "/progress").filter(|(_, body)| body.contains("\"measure\"")));
    kill_process(Pid::from_child(&pod.0), Signal::TERM).unwrap();
    let began = std::time::Instant::now();
    assert_eq!(pod.0.wait().unwrap().code(), Some(exit::TRY_AGAIN));
    assert!(began.elapsed() < PATIENCE);
}
