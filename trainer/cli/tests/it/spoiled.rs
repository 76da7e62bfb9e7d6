//! Every artifact that a plan names, spoiled in every way: refused with 65, in one line that names it, and nothing is made.

use std::{collections::BTreeSet, fs, path::Path};

use lethe_api::contract::{
    Digest, EvaluateTask, Failure, ForgetTask, Override, Plan, ProbeLevel, ProbeTask, Task, exit,
};

use crate::{
    files::{DAMAGES, Files, impostors},
    world::{World, fixed},
};

/// A place in a plan for a bundle's digest.
struct Place {
    name: &'static str,
    plan: Plan,
    /// What is there.
    digest: Digest,
    /// Puts another there.
    put: fn(&mut Plan, Digest),
}

fn targets() -> [(&'static str, Override); 1] {
    [("three", fixed("one"))]
}

fn forget(plan: &mut Plan) -> &mut ForgetTask {
    let Task::Forget(task) = &mut plan.task else { unreachable!("a forgetting") };
    task
}

fn evaluate(plan: &mut Plan) -> &mut EvaluateTask {
    let Task::Evaluate(task) = &mut plan.task else { unreachable!("an evaluation") };
    task
}

fn probes(plan: &mut Plan) -> &mut ProbeTask {
    evaluate(plan).probes.as_mut().expect("asked for")
}

fn forgetting(world: &World, digest: &Digest, put: fn(&mut Plan, Digest)) -> Place {
    let mut plan = world.forget(&targets(), 3);
    forget(&mut plan).reference = Some(world.prepared.reference.clone());
    Place { name: "forget", plan, digest: digest.clone(), put }
}

fn evaluation(world: &World, digest: &Digest, put: fn(&mut Plan, Digest)) -> Place {
    let mut plan = world.evaluate(&world.candidate(&targets()), &targets());
    let (teacher, never_saw) = (world.prepared.teacher.clone(), Some(another(world)));
    evaluate(&mut plan).probes = Some(ProbeTask { level: ProbeLevel::Fast, teacher, never_saw });
    Place { name: "evaluate", plan, digest: digest.clone(), put }
}

/// A one-step model that is neither the baseline nor the candidate.
fn another(world: &World) -> Digest {
    world.candidate(&[("two", fixed("one"))])
}

/// Names of all bundles, records and blobs that can be found.
fn things(store: &Path) -> BTreeSet<String> {
    let names = |folder: &str| {
        let entries = fs::read_dir(store.join(folder)).into_iter().flatten();
        entries.map(|entry| entry.unwrap().path().display().to_string()).collect::<Vec<_>>()
    };
    ["bundles", "records", "blobs"].into_iter().flat_map(names).collect()
}

/// Runs the plan, which has to be refused because of the bundle with this digest. What is wrong if it is not.
fn fault(world: &World, place: &Place, digest: &Digest, what: &str) -> Option<String> {
    let mut plan = place.plan.clone();
    (place.put)(&mut plan, digest.clone());
    let before = things(&world.store());
    let ended = world.run(&plan);
    let message = ended.outcome.message.clone().unwrap_or_default();
    let is_refused = ended.code == Some(exit::BAD_ARTIFACT)
        && ended.outcome.failure == Some(Failure::BadArtifact)
        && !message.contains(char::is_control)
        && message.contains(digest.hex());
    let is_clean = things(&world.store()) == before && world.scratch_files(&plan.digest()).is_empty();
    (!is_refused || !is_clean).then(|| {
        let (name, code) = (place.name, ended.code);
        format!("{name}, {what}: exit code {code:?}, the store is as before: {is_clean}: {message}")
    })
}

/// Spoils the bundle of a place in every way.
fn assert_refused(world: &World, place: &Place) {
    let bundles = world.store().join("bundles");
    let folder = bundles.join(place.digest.hex());
    let good = Files::read(&folder);
    let mut faults = Vec::new();
    for (what, damage) in DAMAGES {
        damage(&folder);
        faults.extend(fault(world, place, &place.digest, what));
        assert_eq!(good.put(&bundles), place.digest);
    }
    for (what, impostor) in impostors(&good) {
        let digest = impostor.put(&bundles);
        faults.extend(fault(world, place, &digest, what));
        fs::remove_dir_all(bundles.join(digest.hex())).unwrap();
    }
    assert!(faults.is_empty(), "{} are taken, or badly refused:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn a_spoiled_teacher_is_refused() {
    let world = World::new();
    assert_refused(
        &world,
        &forgetting(&world, &world.prepared.teacher, |plan, digest| forget(plan).teacher = digest),
    );
}

#[test]
fn a_spoiled_baseline_is_refused() {
    let world = World::new();
    assert_refused(
        &world,
        &forgetting(&world, &world.prepared.baseline, |plan, digest| forget(plan).baseline = digest),
    );
}

#[test]
fn a_spoiled_distillation_is_refused() {
    let world = World::new();
    let put = |plan: &mut Plan, digest| forget(plan).distillation = digest;
    assert_refused(&world, &forgetting(&world, &world.prepared.distillation, put));
}

#[test]
fn a_spoiled_judge_is_refused() {
    let world = World::new();
    assert_refused(
        &world,
        &forgetting(&world, &world.prepared.judge, |plan, digest| forget(plan).judge = digest),
    );
    assert_refused(
        &world,
        &evaluation(&world, &world.prepared.judge, |plan, digest| evaluate(plan).judge = digest),
    );
}

#[test]
fn a_spoiled_reference_is_refused() {
    let world = World::new();
    let reference = &world.prepared.reference;
    assert_refused(
        &world,
        &forgetting(&world, reference, |plan, digest| forget(plan).reference = Some(digest)),
    );
    assert_refused(&world, &evaluation(&world, reference, |plan, digest| evaluate(plan).reference = digest));
}

#[test]
fn a_spoiled_candidate_or_control_is_refused() {
    let world = World::new();
    let candidate = world.candidate(&targets());
    assert_refused(&world, &evaluation(&world, &candidate, |plan, digest| evaluate(plan).candidate = digest));
    let put = |plan: &mut Plan, digest| evaluate(plan).baseline = digest;
    assert_refused(&world, &evaluation(&world, &world.prepared.baseline, put));
}

#[test]
fn a_spoiled_bundle_of_the_probes_is_refused() {
    let world = World::new();
    let put = |plan: &mut Plan, digest| probes(plan).teacher = digest;
    assert_refused(&world, &evaluation(&world, &world.prepared.teacher, put));
    let put = |plan: &mut Plan, digest| probes(plan).never_saw = Some(digest);
    assert_refused(&world, &evaluation(&world, &another(&world), put));
}
