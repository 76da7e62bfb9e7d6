//! Anything, at any time, in any order. The invariants hold after every step, and it always comes to rest.

use jiff::SignedDuration;
use lethe_api::v1alpha1::{GateFailureAction, GateFailurePolicy, InitialServing, RequestPhase, annotations};
use lethe_core::asked;
use proptest::{
    prelude::*,
    test_runner::{Config, FileFailurePersistence},
};
use serde_json::json;

use crate::{
    cluster::Waits,
    script::{careful, fixed, model, nearest},
    trainer::{Fate, LABELS, digest, honest, measures},
    world::{Chance, World},
};

/// Seeds of the failures that were found.
const REGRESSIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scenarios/chaos.regressions");

/// Something that people or fate do.
#[derive(Clone, Debug)]
enum Act {
    Work(usize),
    Late(u64, usize),
    Die(usize),
    Ask { targets: Vec<usize>, replacement: Option<usize> },
    Delete(usize),
    Suspend(usize, bool),
    Drift(Option<bool>),
    Trainer(u8),
    PodsComeUp(bool),
    EditPolicy(u32),
    Retries(u32),
    Annotate { which: usize, abort: bool, word: u8 },
    Careful(bool),
    DeleteCanary,
    DeleteModel,
    ApplyModel,
    DeleteRun(usize),
    DeleteJobs,
    Pass(u32),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (1usize..80).prop_map(Act::Work),
        4 => (any::<u64>(), 1usize..200).prop_map(|(seed, steps)| Act::Late(seed, steps)),
        2 => (0usize..20).prop_map(Act::Die),
        4 => (prop::collection::btree_set(0usize..11, 1..4), prop::option::of(0usize..10))
            .prop_map(|(targets, replacement)| Act::Ask { targets: targets.into_iter().collect(), replacement }),
        1 => (0usize..8).prop_map(Act::Delete),
        1 => (0usize..8, any::<bool>()).prop_map(|(which, on)| Act::Suspend(which, on)),
        1 => prop::option::of(any::<bool>()).prop_map(Act::Drift),
        2 => (0u8..10).prop_map(Act::Trainer),
        1 => any::<bool>().prop_map(Act::PodsComeUp),
        1 => (1u32..4).prop_map(Act::EditPolicy),
        1 => (1u32..4).prop_map(Act::Retries),
        1 => (0usize..8, any::<bool>(), 0u8..3)
            .prop_map(|(which, abort, word)| Act::Annotate { which, abort, word }),
        2 => prop::bool::weighted(0.8).prop_map(Act::Careful),
        1 => Just(Act::DeleteCanary),
        1 => Just(Act::DeleteModel),
        2 => Just(Act::ApplyModel),
        1 => (0usize..4).prop_map(Act::DeleteRun),
        1 => Just(Act::DeleteJobs),
        1 => (1u32..600).prop_map(Act::Pass),
    ]
}

fn do_it(world: &mut World, act: Act, asked: &mut usize) {
    let names: Vec<_> = world.cluster.requests.keys().cloned().collect();
    match act {
        Act::Work(steps) => {
            for _ in 0..steps {
                world.step();
            }
        }
        Act::Late(seed, steps) => {
            world.chance = Some(Chance::new(seed, steps));
            world.changed();
            world.catch_up();
            for _ in 0..steps {
                world.step();
            }
            world.chance = None;
        }
        Act::Die(after) => world.dies_before = Some(world.calls + after),
        Act::Ask { targets, replacement } => {
            *asked += 1;
            // The eleventh label is one that the model does not know.
            let known = LABELS.iter().copied().chain(["unknown"]).collect::<Vec<_>>();
            let targets: Vec<_> = targets.into_iter().map(|target| known[target]).collect();
            let replacement = replacement.map_or_else(nearest, |label| fixed(LABELS[label]));
            world.ask(&format!("request-{asked}"), &targets, replacement);
        }
        Act::Delete(which) => drop(names.get(which).map(|name| world.delete_request(name))),
        Act::Suspend(which, on) => drop(names.get(which).map(|name| world.suspend(name, on))),
        Act::Drift(None) => world.drift(None),
        Act::Drift(Some(true)) => world.drift(Some(digest("baseline").as_str())),
        Act::Drift(Some(false)) => world.drift(Some("garbage")),
        Act::Trainer(kind) => {
            world.trainer = Box::new(move |plan, failures| match kind {
                0 => Fate::Hangs,
                1 => Fate::Waits(Waits::Unschedulable),
                2 => Fate::Exits { code: 64, message: String::new() },
                3 if failures == 0 => Fate::Exits { code: 75, message: String::new() },
                4 => measures(plan, |record| record.targets[0].leak.hits = 100),
                8 => Fate::Waits(Waits::Quota),
                9 => Fate::Waits(Waits::Mount),
                5 => Fate::Succeeds { message: "{}".into(), record: vec![] },
                _ => honest(plan),
            });
        }
        Act::PodsComeUp(yes) => world.comes_up = Box::new(move |_| yes),
        Act::EditPolicy(steps) => world.edit_policy(|policy| policy.training.forget_steps = Some(steps)),
        Act::Retries(attempts) => world.edit_policy(|policy| {
            let is_on = attempts > 1;
            policy.on_gate_failure = GateFailurePolicy {
                action: if is_on { GateFailureAction::Retry } else { GateFailureAction::Hold },
                attempts: is_on.then_some(attempts),
                wait_seconds: None,
            };
            policy.coalesce.window_seconds = attempts * 20;
        }),
        Act::Annotate { which, abort, word } => {
            let annotation = if abort { annotations::ABORT } else { annotations::RETRY };
            if let Some(name) = names.get(which) {
                world.annotate(name, annotation, &word.to_string());
            }
        }
        Act::Careful(yes) => world.edit_policy(|policy| {
            let steps = json!([{"weight": 50}, {"pause": {"seconds": 30}}]);
            policy.rollout = if yes { careful(steps).spec.rollout } else { Default::default() };
        }),
        Act::DeleteCanary => world.change(|cluster| cluster.canary = None),
        Act::DeleteModel => world.delete_model(),
        Act::ApplyModel if world.cluster.models.is_empty() => {
            world.apply_model(model(InitialServing::Baseline));
        }
        Act::ApplyModel => {}
        Act::DeleteRun(which) => world.change(|cluster| {
            if let Some(name) = cluster.runs.keys().nth(which).cloned() {
                cluster.runs.remove(&name);
            }
        }),
        Act::DeleteJobs => world.change(|cluster| cluster.jobs.clear()),
        Act::Pass(seconds) => world.now += SignedDuration::from_secs(seconds.into()),
    }
}

proptest! {
    #![proptest_config(Config {
        cases: 60,
        // Other acts in every run. Those of a failure are kept, to be committed, and played first from then on.
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(REGRESSIONS))),
        max_shrink_iters: 400,
        ..Config::default()
    })]

    #[test]
    fn whatever_happens_nothing_bad_is_served_and_every_request_is_answered(acts in prop::collection::vec(act(), 1..40)) {
        let mut world = World::new();
        world.with_model();
        let mut asked = 0;
        for act in acts {
            do_it(&mut world, act, &mut asked);
        }
        // From here on everybody does what they should.
        world.dies_before = None;
        world.trainer = Box::new(|plan, _| honest(plan));
        world.comes_up = Box::new(|_| true);
        for name in world.cluster.requests.keys().cloned().collect::<Vec<_>>() {
            world.suspend(&name, false);
        }
        world.settle();
        if world.cluster.models.is_empty() {
            world.apply_model(model(InitialServing::Baseline));
        }
        // A failed preparation waits for another policy.
        world.edit_policy(|policy| policy.training.prepare_steps = Some(77));
        world.settle();
        for name in world.cluster.requests.keys() {
            use RequestPhase::{Aborted, Denied, Failed, Fulfilled, Held};
            let phase = world.phase(name);
            prop_assert!(
                [Fulfilled, Denied, Held, Failed, Aborted].map(Some).contains(&phase),
                "{name} is never answered\n{}", world.summary()
            );
        }
        for request in world.cluster.requests.values().filter(|request| asked::is_aborted(request)) {
            let uid = request.metadata.uid.as_deref().unwrap_or_default();
            let recorded = world.audit.ledgers.values().flatten().any(|entry| entry.request.uid == uid);
            prop_assert!(!recorded, "an aborted request was rolled out\n{}", world.summary());
        }
        let ledger = &world.model().status.as_ref().unwrap().ledger;
        let wanted = ledger.last().map_or(world.baseline(), |last| last.digest.clone());
        prop_assert_eq!(world.named_bundle(), Some(wanted));
    }
}
