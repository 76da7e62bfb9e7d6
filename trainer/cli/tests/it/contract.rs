//! Plan in, outcome, record and exit code out.

use std::collections::BTreeSet;

use lethe_api::contract::{
    Device, Digest, Failure, ForgetTask, Override, Plan, PlannedTarget, RecordBody, Robustness, Status, Task,
    TaskKind, exit,
};

use crate::world::{World, fixed, run};

#[test]
fn preparing_makes_every_bundle_that_the_record_names() {
    let world = World::new();
    let prepared = &world.prepared;
    for bundle in
        [&prepared.teacher, &prepared.baseline, &prepared.distillation, &prepared.judge, &prepared.reference]
    {
        assert!(world.file(bundle, "manifest.json").exists(), "{bundle}");
    }
    assert_eq!(prepared.labels, ["zero", "one", "two", "three"]);
    assert_eq!((prepared.confusion.len(), prepared.baseline_accuracy.len()), (4, 4));
    for row in &prepared.confusion {
        let sum: f64 = row.iter().sum();
        assert!(row.len() == 4 && (sum - 1.0).abs() < 1e-3, "a row of probabilities: {row:?}");
    }
    assert!(prepared.judge_accuracy.n > 0 && prepared.quality.floor > 0.0);
    assert_eq!(
        world.scratch_files(&world.preparation),
        [""; 0],
        "what the preparation kept for itself is removed"
    );
}

#[test]
fn preparing_the_same_base_again_gives_the_same_bytes() {
    assert_eq!(World::prepared_anew().prepared, World::new().prepared);
}

#[test]
fn a_run_that_succeeded_says_so_and_leaves_in_its_scratch_only_that_it_is_done() {
    let world = World::new();
    let plan = world.forget(&[("three", fixed("one"))], 3);
    let ended = world.run(&plan);
    assert_eq!((ended.code, ended.outcome.status), (Some(exit::DONE), Status::Succeeded));
    assert_eq!(
        ended.outcome.device,
        Some(Device::Cpu),
        "auto without a GPU is the CPU, and the outcome says so"
    );
    assert!(ended.stderr.contains("no CUDA device"), "{}", ended.stderr);
    assert_eq!(ended.outcome.run, plan.run);
    assert!(ended.outcome.figures["forgetSeconds"] >= 0.0);
    assert_eq!(world.scratch_files(&plan.digest()), ["done"], "what a run kept for itself is removed");
}

#[test]
fn a_run_that_failed_for_good_leaves_no_scratch() {
    let world = World::new();
    let plan = world.forget(&[("three", fixed("one"))], 3);
    let scratch = world.store().join("scratch").join(plan.digest().hex());
    std::fs::create_dir_all(&scratch).unwrap();
    std::fs::write(scratch.join("checkpoint"), "of a pod before").unwrap();
    let weights = world.file(&world.prepared.teacher, "model.safetensors");
    std::fs::write(weights, "not the teacher").unwrap();
    assert_eq!(world.run(&plan).code, Some(exit::BAD_ARTIFACT));
    assert_eq!(world.scratch_files(&plan.digest()), [""; 0], "no pod will go on with it");
}

#[test]
fn the_same_plan_gives_the_same_bytes() {
    let (one, other) = (World::new(), World::new());
    // Another store path is another plan; the artifacts must not depend on it.
    let targets = [("three", Override::Random), ("zero", fixed("one"))];
    let (a, b) = (one.candidate(&targets), other.candidate(&targets));
    assert_eq!(a, b);
    let record = |world: &World| match world.record(&world.evaluate(&a, &targets)) {
        RecordBody::Evaluate(record) => record,
        other => panic!("{other:?}"),
    };
    assert_eq!(record(&one), record(&other));
    let again = one.run(&one.evaluate(&a, &targets)).outcome.record;
    assert_eq!(again, one.run(&one.evaluate(&a, &targets)).outcome.record);
}

#[test]
fn an_evaluation_measures_every_target_and_every_kept_label() {
    let world = World::new();
    let targets = [("three", Override::Random), ("zero", fixed("one"))];
    // Enough steps for the targets to show something else now and then.
    let RecordBody::Forget(forgotten) = world.record(&world.forget(&targets, 1000)) else {
        panic!("not the record of a forgetting")
    };
    let candidate = forgotten.candidate;
    let RecordBody::Evaluate(record) = world.record(&world.evaluate(&candidate, &targets)) else {
        panic!("not the record of an evaluation")
    };
    let measured: Vec<&str> = record.targets.iter().map(|target| target.label.as_str()).collect();
    assert_eq!(measured, ["three", "zero"]);
    for target in &record.targets {
        assert_eq!((target.leak.n, target.override_hits.n, target.control.n), (60, 60, 60));
        assert_eq!(target.base_rate.n, 60);
        let (common, any) = (&target.most_common, &target.override_hits);
        assert_eq!(common.n, 60, "{target:?}");
        // A Random override may show either kept label: the more common one is between half of them and all.
        let is_random = target.label == "three";
        let least = if is_random { any.hits.div_ceil(2) } else { any.hits };
        assert!(common.hits >= least, "{target:?}");
        assert!(!is_random || common.hits <= any.hits, "{target:?}");
        assert!(common.hits + target.leak.hits <= 60 && common.hits > 0, "{target:?}");
    }
    let kept: Vec<&str> = record.retain.iter().map(|label| label.label.as_str()).collect();
    assert_eq!(kept, ["one", "two"]);
    assert!(record.retain.iter().all(|label| (label.candidate.n, label.baseline.n) == (20, 20)));
    assert_eq!(record.quality.n, 90);
    assert_eq!(record.candidate, candidate);
    for check in &record.hygiene {
        assert!(check.passed, "{check:?}");
    }
    for picture in [&record.before, &record.after] {
        let png = std::fs::read(world.store().join("blobs").join(picture.hex())).unwrap();
        assert_eq!(Digest::of(&png), *picture);
        let info = png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
        assert_eq!((info.info().width, info.info().height), (12 * (8 * 6 + 4) + 4, 4 * (8 * 6 + 4) + 4));
    }
}

#[test]
fn the_nearest_label_is_a_kept_one_and_is_named() {
    let world = World::new();
    let targets = [("three", Override::Nearest), ("zero", Override::Nearest)];
    let RecordBody::Forget(record) = world.record(&world.forget(&targets, 2)) else {
        panic!("not the record of a forgetting")
    };
    for PlannedTarget { replacement, .. } in &record.targets {
        assert!(
            matches!(replacement, Override::Fixed { label } if label == "one" || label == "two"),
            "{replacement:?}"
        );
    }
    // What was chosen is what an evaluation is asked about, and what the bundle itself says.
    let chosen: Vec<_> =
        record.targets.iter().map(|target| (target.label.as_str(), target.replacement.clone())).collect();
    let RecordBody::Evaluate(evaluated) = world.record(&world.evaluate(&record.candidate, &chosen)) else {
        panic!("not the record of an evaluation")
    };
    assert!(evaluated.hygiene.iter().all(|check| check.passed), "{:?}", evaluated.hygiene);
}

#[test]
fn a_plan_that_cannot_be_carried_out_is_refused_with_64() {
    let world = World::new();
    let good = world.forget(&[("three", fixed("one"))], 3);
    let json = good.to_json();
    let reads = |found: &str, replaced: &str| {
        assert!(json.contains(found), "{found} is not in {json}");
        json.replace(found, replaced)
    };
    let cases = [
        ("{".to_owned(), "EOF"),
        (reads("\"seed\":7", "\"seed\":7,\"sed\":7"), "sed"),
        (reads("lethe.dev/plan/v1", "lethe.dev/plan/v9"), "v9"),
        (reads("\"two\"", "\"nine\""), "zero, one, two, three"),
        (reads("\"label\":\"one\"", "\"label\":\"three\""), "itself to be forgotten"),
        (reads("\"threads\":1", "\"threads\":0"), "threads"),
    ];
    for (plan, word) in cases {
        let ended = run(world.path(), TaskKind::Forget, plan.as_bytes());
        assert_eq!(ended.code, Some(exit::BAD_PLAN), "{plan}: {}", ended.stderr);
        assert_eq!(ended.outcome.failure, Some(Failure::BadPlan));
        let message = ended.outcome.message.unwrap();
        assert!(message.contains(word) && !message.contains('\n'), "{message}");
    }
    let ended = run(world.path(), TaskKind::Evaluate, json.as_bytes());
    assert_eq!(ended.code, Some(exit::BAD_PLAN), "a plan for another command");
}

#[test]
fn forgetting_every_label_is_refused() {
    let world = World::new();
    let all = ["zero", "one", "two", "three"].map(|label| (label, Override::Random));
    let ended = world.run(&world.forget(&all, 3));
    assert_eq!(ended.code, Some(exit::BAD_PLAN));
    assert!(ended.outcome.message.unwrap().contains("task.kept"));
}

#[test]
fn a_label_that_nobody_would_measure_is_noticed() {
    let world = World::new();
    let mut plan = world.forget(&[("three", fixed("one"))], 3);
    let Task::Forget(task) = &mut plan.task else { unreachable!("made above") };
    task.kept.retain(|label| label != "two");
    let ended = world.run(&plan);
    assert_eq!(ended.code, Some(exit::BAD_PLAN));
    assert!(ended.outcome.message.unwrap().contains("\"two\" of the model is neither"));
}

#[test]
fn a_missing_plan_is_a_bad_plan() {
    let world = World::new();
    let output = crate::world::trainer()
        .args(["forget", "--no-port", "--plan", "/no/such/plan.json", "--termination-log"])
        .arg(world.path().join("log"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(exit::BAD_PLAN));
    assert!(std::fs::read_to_string(world.path().join("log")).unwrap().contains("/no/such/plan.json"));
}

#[test]
fn a_command_line_that_cannot_be_read_is_refused_with_64_in_one_line() {
    for (arguments, words) in [
        (&["forget", "--plam", "plan.json"][..], "--plam"),
        (&["forgt"], "forgt"),
        (&["forget", "--port", "many"], "many"),
        (&["forget", "--port", "1", "--no-port"], "--no-port"),
        (&["teach"], "--images"),
        (&[], "a command is missing"),
    ] {
        let output = crate::world::trainer().args(arguments).output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(exit::BAD_PLAN), "{arguments:?}: {message}");
        assert!(
            message.contains(words) && message.trim_end().lines().count() == 1,
            "{arguments:?}: {message}"
        );
        assert!(output.stdout.is_empty());
    }
    for asked in ["--help", "--version"] {
        let output = crate::world::trainer()
            .args(["forget", asked][usize::from(asked == "--version")..].iter())
            .output();
        assert_eq!(output.unwrap().status.code(), Some(exit::DONE), "{asked}");
    }
}

#[test]
fn a_gpu_that_is_not_there_is_a_bad_configuration() {
    let world = World::new();
    let mut plan = world.forget(&[("three", fixed("one"))], 3);
    plan.device = Device::Cuda;
    let ended = world.run(&plan);
    assert_eq!(ended.code, Some(exit::BAD_CONFIGURATION));
    assert!(ended.outcome.message.unwrap().contains("nvidia.com/gpu"));
}

#[test]
fn one_seed_is_not_another() {
    let world = World::new();
    let plan = world.forget(&[("three", fixed("one"))], 3);
    let mut other = plan.clone();
    other.seed += 1;
    assert!(matches!(&other.task, Task::Forget(_)));
    let candidate = |plan| match world.record(plan) {
        RecordBody::Forget(record) => record.candidate,
        other => panic!("{other:?}"),
    };
    let candidates = BTreeSet::from([candidate(&plan), candidate(&other)]);
    assert_eq!(candidates.len(), 2);
}

fn changed(plan: &Plan, change: impl FnOnce(&mut ForgetTask)) -> Plan {
    let mut plan = plan.clone();
    match &mut plan.task {
        Task::Forget(task) => change(task),
        other => panic!("not a forgetting: {other:?}"),
    }
    plan
}

#[test]
fn a_training_that_is_looked_at_and_not_ended_comes_to_the_same() {
    let world = World::new();
    let plan = world.forget(&[("two", fixed("zero"))], 3);
    let reference = world.prepared.reference.clone();
    let looked_at = changed(&plan, |task| task.reference = Some(reference));
    let candidate = |plan| match world.record(plan) {
        RecordBody::Forget(record) => record.candidate,
        other => panic!("{other:?}"),
    };
    assert_eq!(candidate(&looked_at), candidate(&plan));
    let foreign = changed(&plan, |task| task.reference = Some(task.judge.clone()));
    assert_eq!(world.run(&foreign).code, Some(exit::BAD_ARTIFACT));
}

#[test]
fn a_plan_says_how_robust_the_candidate_is_to_be() {
    let world = World::new();
    let candidate = |robustness| {
        let plan = world.forget(&[("two", fixed("zero"))], 3);
        match world.record(&changed(&plan, |task| task.robustness = robustness)) {
            RecordBody::Forget(record) => record.candidate,
            other => panic!("not the record of a forgetting: {other:?}"),
        }
    };
    let suppressed = candidate(Some(Robustness::Suppress));
    assert_eq!(candidate(None), suppressed);
    let [hardened, scrubbed] = [Robustness::Harden, Robustness::Scrub].map(|level| candidate(Some(level)));
    assert!(suppressed != hardened && hardened != scrubbed && suppressed != scrubbed);
}
