//! Stopped and killed pods: the next one comes to the same result.

use std::fs;

use lethe_api::contract::{Failure, Plan, Progress, RecordBody, Status, exit};
use lethe_store::Store;
use rustix::process::{Pid, Signal, kill_process};

use crate::world::{
    self, Ended, Running, World, arguments, ended, fixed, get, preparation, run, trainer, unprepared, until,
};

/// Starts a pod for the plan and returns it with the port of its progress.
fn start(root: &std::path::Path, plan: &Plan, more: &[&str]) -> (Running, u16) {
    fs::write(root.join("plan.json"), plan.to_json()).unwrap();
    world::start(trainer().args(arguments(root, plan.task.kind())).args(more))
}

/// Tells the pod to stop and reads what it said at the end.
fn terminate(root: &std::path::Path, plan: &Plan, mut pod: Running) -> Ended {
    kill_process(Pid::from_child(&pod.0), Signal::TERM).unwrap();
    let status = pod.wait();
    let output = std::process::Output { status, stdout: vec![], stderr: vec![] };
    let ended = ended(root, &plan.digest(), output);
    assert_eq!(ended.code, Some(exit::TRY_AGAIN), "{:?}", ended.outcome);
    assert_eq!(
        (ended.outcome.status, ended.outcome.failure),
        (Status::Interrupted, Some(Failure::Interrupted))
    );
    ended
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
    let (pod, port) = start(world.path(), &plan, &[]);
    let seen = reach(port, "forget", 30);
    assert_eq!((seen.run.as_str(), seen.total), ("small-7f3a", 600));
    let (_, metrics) = get(port, "/metrics").unwrap();
    assert!(metrics.contains("lethe_trainer_steps{stage=\"forget\"} 600"), "{metrics}");
    let outcome = terminate(world.path(), &plan, pod).outcome;
    assert!(outcome.message.unwrap().contains("forget step"));
    assert_eq!(world.scratch_files(&plan.digest()), ["checkpoint"]);

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
        // Saving after every step: whenever it is killed, it was probably saving.
        let (mut pod, port) = start(world.path(), &plan, &["--checkpoint-seconds", "0"]);
        reach(port, "forget", round * 10);
        pod.0.kill().unwrap();
        pod.wait();
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
    let (pod, port) = start(world.path(), &plan, &[]);
    until("the measurement", || get(port, "/progress").filter(|(_, body)| body.contains("\"measure\"")));
    terminate(world.path(), &plan, pod);
}

/// Neither the judge's training nor the teacher's statistics can be continued; they are heard out of, and done again.
#[test]
fn a_preparation_told_to_stop_in_its_later_stages_comes_to_the_same_result() {
    let (root, plan) = unprepared();
    for (stage, word) in [("judge", "training the judge"), ("reference", "measuring the teacher")] {
        let (pod, port) = start(root.path(), &plan, &[]);
        until(stage, || get(port, "/progress").filter(|(_, body)| body.contains(&format!("\"{stage}\""))));
        let message = terminate(root.path(), &plan, pod).outcome.message.unwrap();
        assert!(message.contains(word), "{message}");
    }
    let ended = run(root.path(), plan.task.kind(), plan.to_json().as_bytes());
    assert!(ended.stderr.contains("continuing from the checkpoint"), "{}", ended.stderr);
    assert_eq!(preparation(root.path(), &plan, &ended), World::new().prepared);
}
