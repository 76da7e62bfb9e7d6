//! Stopped and killed pods: the next one comes to the same result.

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    process::{Command, Stdio},
};

use lethe_api::contract::{Digest, Failure, Plan, Progress, RecordBody, Status, exit};
use lethe_store::Store;
use rustix::process::{Pid, Signal, kill_process};

use crate::world::{
    self, Ended, Running, World, arguments, assert_whole, ended, fixed, get, preparation, run, trainer,
    unprepared, until,
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
    assert_eq!(ended.code, Some(exit::INTERRUPTED), "{:?}", ended.outcome);
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

/// The candidate, and how the training went: neither depends on what happened on the way.
fn forgotten(world: &World, plan: &Plan) -> (Digest, Option<Digest>) {
    match world.record(plan) {
        RecordBody::Forget(record) => (record.candidate, record.curves),
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
    assert_eq!(world.scratch_files(&plan.digest()), ["checkpoint", "metrics.jsonl"]);
    let seen = seen.metrics.expect("a record every twenty steps");
    let lines = fs::read_to_string(world.scratch(&plan.digest()).join("metrics.jsonl")).unwrap();
    assert!(lines.lines().any(|line| line == seen.to_line()), "{seen:?} is not in {lines}");

    let resumed = world.run(&plan);
    assert!(resumed.stderr.contains("continuing from the checkpoint"), "{}", resumed.stderr);
    // Another store's path is another plan, so it starts from nothing.
    let other = undisturbed.forget(&targets, 600);
    assert_eq!(forgotten(&world, &plan), forgotten(&undisturbed, &other));
}

/// Whether the pod has trained.
fn has_trained(ended: &Ended) -> bool {
    ended.outcome.figures.contains_key("forgetSeconds")
}

#[test]
fn a_forgetting_that_was_done_and_not_heard_of_is_not_done_again() {
    let world = World::new();
    let plan = world.forget(&[("three", fixed("one"))], 3);
    let first = world.run(&plan);
    assert!(has_trained(&first));
    let heard_again = world.run_again(&plan);
    assert!(heard_again.stderr.contains("an earlier pod did this work"), "{}", heard_again.stderr);
    assert!(!has_trained(&heard_again));
    assert_eq!((heard_again.code, &heard_again.outcome.record), (Some(exit::DONE), &first.outcome.record));
    // Whoever asks for it by hand wants it done: to compare.
    assert!(has_trained(&world.run(&plan)));
}

#[test]
fn what_was_done_and_is_damaged_or_anothers_is_done_again() {
    let world = World::new();
    let plan = world.forget(&[("three", fixed("one"))], 3);
    let first = world.run(&plan).outcome.record;
    let is_done_anew = |what: &str| {
        let again = world.run_again(&plan);
        assert!(has_trained(&again) && again.outcome.record == first, "{what}: {}", again.stderr);
    };
    let (candidate, _) = forgotten(&world, &plan);
    fs::remove_dir_all(world.file(&candidate, "model.safetensors").parent().unwrap()).unwrap();
    is_done_anew("its candidate is gone");
    fs::write(world.scratch(&plan.digest()).join("done"), "damaged").unwrap();
    is_done_anew("what says so is damaged");
    world.say_done(&plan, |record| record.trainer = "another 0.1.0".into());
    is_done_anew("another trainer did it");
    world.say_done(&plan, |record| record.plan = Digest::of("another"));
    is_done_anew("it is another plan's");
}

/// Whoever can write into the store could leave a word there: even a record that would do for a forgetting.
#[test]
fn what_measures_does_not_believe_that_it_is_done() {
    let world = World::new();
    let targets = [("three", fixed("one"))];
    let forget = world.forget(&targets, 3);
    let plan = world.evaluate(&world.candidate(&targets), &targets);
    world.run(&forget);
    world.say_done_of(&forget, &plan);
    let measured = world.run_again(&plan);
    assert_eq!(measured.code, Some(exit::DONE));
    assert!(matches!(world.record(&plan), RecordBody::Evaluate(_)));
    let said = measured.outcome.record.expect("it measured");
    assert_eq!(Some(&said), world.run(&plan).outcome.record.as_ref(), "it says what it measured itself");
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
    assert_eq!(forgotten(&world, &plan), forgotten(&undisturbed, &other));
}

#[test]
fn the_state_of_a_killed_run_with_other_settings_is_not_gone_on_from() {
    let world = World::new();
    let usual = world.forget(&[("three", fixed("one"))], 200);
    let mut other = usual.clone();
    let lethe_api::contract::Task::Forget(task) = &mut other.task else { unreachable!("made above") };
    let alpha = serde_json::json!({"optimiser": {"alpha": 1.0}});
    task.settings = alpha.as_object().cloned();
    let expected = forgotten(&world, &other);
    let (mut pod, port) = start(world.path(), &usual, &["--checkpoint-seconds", "0"]);
    reach(port, "forget", 10);
    pod.0.kill().unwrap();
    pod.wait();
    // Another plan has a scratch space of its own: nothing but a mistake brings its state here.
    let state = |plan: &Plan| world.scratch(&plan.digest()).join("checkpoint");
    fs::copy(state(&usual), state(&other)).unwrap();
    let ended = world.run(&other);
    assert!(
        ended.stderr.contains("is not used") && ended.stderr.contains("settings was"),
        "{}",
        ended.stderr
    );
    assert_eq!(forgotten(&world, &other), expected);
    let resumed = world.run(&usual);
    assert!(resumed.stderr.contains("continuing from the checkpoint"), "{}", resumed.stderr);
}

/// The kernel kills it as it is about to make a call of this kind for the `nth` time. Whether it lived to do so.
fn killed_at(world: &World, plan: &Plan, call: &str, nth: u32) -> bool {
    fs::write(world.path().join("plan.json"), plan.to_json()).unwrap();
    let status = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")])
        .args(["-e", &format!("inject={call}:signal=KILL:when={nth}")])
        .arg(env!("CARGO_BIN_EXE_lethe-trainer"))
        .args(arguments(world.path(), plan.task.kind()))
        .args(["--no-port", "--checkpoint-seconds", "0"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("strace is missing: apt-get install strace");
    assert!(status.success() || status.signal() == Some(9), "{status}");
    !status.success()
}

/// Before a file is safe on the disk, and before it gets its name: there is nothing in between that a reader could see.
#[test]
fn a_run_killed_at_every_point_of_every_write_leaves_what_was_there_before() {
    let undisturbed = World::new();
    let other = undisturbed.forget(&[("three", fixed("one"))], 3);
    let expected = forgotten(&undisturbed, &other);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for call in ["fsync", "rename"] {
        // What is in the store already is not written again: each kind of call needs one of its own.
        let world = World::new();
        let plan = world.forget(&[("three", fixed("one"))], 3);
        let store = Store::open(&world.store_uri()).unwrap();
        let mut deaths = 0;
        while killed_at(&world, &plan, call, deaths + 1) {
            deaths += 1;
            let scratch = store.scratch(&plan.digest());
            runtime.block_on(scratch.get("checkpoint", 1 << 30)).expect("a state that is there loads");
            assert_whole(&world.store());
            assert!(deaths < 100, "it never comes to an end");
        }
        assert!(deaths >= 3, "{call}: a checkpoint, a bundle and a record at least: {deaths}");
        assert_eq!(forgotten(&world, &plan), expected);
    }
}

#[test]
fn a_damaged_state_is_not_used_and_changes_nothing() {
    let world = World::new();
    let plan = world.forget(&[("three", fixed("one"))], 20);
    let expected = forgotten(&world, &plan);
    let sealed = |content: &[u8]| [Digest::of(content).as_str().as_bytes(), b"\n", content].concat();
    let long = [&u64::MAX.to_le_bytes()[..], b"lines"].concat();
    // The second to last is whole, and of a version that kept no lines; the last is neither.
    for state in [b"not a state".to_vec(), sealed(b"short"), sealed(&long), sealed(&[0; 64])] {
        fs::write(world.scratch(&plan.digest()).join("checkpoint"), state).unwrap();
        let ended = world.run(&plan);
        assert_eq!(ended.code, Some(exit::DONE));
        assert!(ended.stderr.contains("is not used"), "{}", ended.stderr);
        assert_eq!(forgotten(&world, &plan), expected);
    }
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
