//! Runs that are over are kept by count.

use lethe_api::v1alpha1::{RequestPhase, annotations};

use crate::{
    schedules::{DAYS, WEEKLY, audits, begin, pass},
    script::{crashes, fixed, watchful},
    trainer::{honest, measures},
    world::World,
};

fn keeps_one(world: &mut World) {
    world.ready();
    world.edit_policy(|policy| policy.retention.runs = 1);
}

#[test]
fn the_last_runs_are_kept_and_older_ones_go_with_their_jobs() {
    let world = crashes(&|world: &mut World| {
        world.trainer = Box::new(|plan, _| measures(plan, |record| record.targets[0].leak.hits = 40));
        keeps_one(world);
        for name in ["a", "b", "c"] {
            world.ask(name, &["3"], fixed("8"));
            world.until("it is held", |world| world.phase(name) == Some(RequestPhase::Held));
        }
    });
    assert_eq!(world.cluster.runs.len(), 2, "that of the baseline, and one: {}", world.summary());
    assert!(world.run_for("a").is_none() && world.run_for("c").is_some());
    assert_eq!(world.phase("a"), Some(RequestPhase::Held), "its answer stands");
    let mut world = world;
    world.trainer = Box::new(|plan, _| honest(plan));
    world.annotate("a", annotations::RETRY, "1");
    world.settle();
    assert_eq!(world.phase("a"), Some(RequestPhase::Fulfilled));
    assert_eq!(world.attempts("a"), Some((2, 2)), "the attempt that nobody has any more counts");
}

#[test]
fn what_the_ledger_names_is_kept_however_old_it_is() {
    let mut world = World::new();
    keeps_one(&mut world);
    for name in ["1", "2", "3"] {
        world.ask(name, &[name], fixed("8"));
        world.until("it is done", |world| world.phase(name) == Some(RequestPhase::Fulfilled));
    }
    world.settle();
    assert_eq!(world.cluster.runs.len(), 4, "{}", world.summary());
}

#[test]
fn audits_are_counted_for_themselves_and_the_last_ones_are_kept() {
    let mut policy = watchful();
    policy.spec.retention.runs = 1;
    let mut world = World::new();
    begin(&mut world, policy, WEEKLY);
    for _ in 0..4 {
        pass(&mut world, 7 * DAYS);
    }
    world.settle();
    assert_eq!(world.audit.runs_created.len(), 7, "prepare, forget, after its roll-out, and four weeks");
    assert_eq!(audits(&world), 3, "that of the roll-out, the last one, and one");
    assert!(world.run_for("first").is_some());
    let last = world.model().status.clone().unwrap().audit.unwrap();
    assert!(world.cluster.runs.contains_key(&last.run));
}
