//! Anything, at any time, in any order. The invariants hold after every step, and it always comes to rest.

use jiff::SignedDuration;
use lethe_api::{
    contract::Count,
    v1alpha1::{
        ApprovalDecision, DiffusionModel, GateFailureAction, GateFailurePolicy, InitialServing, Mode,
        RequestPhase, UnlearnRequest, annotations,
    },
};
use lethe_core::{asked, names};
use proptest::{
    prelude::*,
    test_runner::{Config, FileFailurePersistence},
};
use serde_json::json;

use crate::{
    bases::NEW,
    cluster::{Waits, replicas},
    script::{MODEL, careful, fixed, model, nearest, policy, request, watchful},
    trainer::{Fate, LABELS, digest, honest, measures, shows},
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
    Ask {
        targets: Vec<usize>,
        replacement: Option<usize>,
        by_alice: bool,
        pilot: bool,
    },
    Delete(usize),
    Suspend(usize, bool),
    Drift(Option<bool>),
    Trainer(u8),
    PodsComeUp(bool),
    EditPolicy(u32),
    Retries(u32),
    Annotate {
        which: usize,
        abort: bool,
        word: u8,
    },
    Careful(bool),
    DeleteCanary,
    DeleteModel,
    ApplyModel,
    DeleteRun(usize),
    DeleteJobs,
    Pass(u32),
    /// Another base artifact, or the first one again.
    Base(bool),
    /// So many people have to agree from now on.
    Approvals(u8),
    Say {
        who: usize,
        which: usize,
        yes: bool,
    },
    /// The live server is asked as well, before a request is fulfilled and by the clock.
    Watchful(bool),
    /// The archive of the ledger goes, while the model knows what was in it.
    LoseArchive,
    /// The audit log can be written, or not.
    Logs(bool),
}

const PEOPLE: [&str; 3] = ["alice", "bob", "carol"];

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (1usize..80).prop_map(Act::Work),
        4 => (any::<u64>(), 1usize..200).prop_map(|(seed, steps)| Act::Late(seed, steps)),
        2 => (0usize..20).prop_map(Act::Die),
        4 => ask(),
        1 => (0usize..8).prop_map(Act::Delete),
        1 => (0usize..8, any::<bool>()).prop_map(|(which, on)| Act::Suspend(which, on)),
        1 => prop::option::of(any::<bool>()).prop_map(Act::Drift),
        2 => (0u8..14).prop_map(Act::Trainer),
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
        1 => any::<bool>().prop_map(Act::Base),
        1 => (0u8..3).prop_map(Act::Approvals),
        3 => (0..PEOPLE.len(), 0usize..8, prop::bool::weighted(0.8))
            .prop_map(|(who, which, yes)| Act::Say { who, which, yes }),
        1 => any::<bool>().prop_map(Act::Watchful),
        1 => Just(Act::LoseArchive),
        2 => any::<bool>().prop_map(Act::Logs),
    ]
}

fn ask() -> impl Strategy<Value = Act> {
    let targets = prop::collection::btree_set(0usize..11, 1..4);
    let asks = (targets, prop::option::of(0usize..10), any::<bool>(), prop::bool::weighted(0.2));
    asks.prop_map(|(targets, replacement, by_alice, pilot)| Act::Ask {
        targets: targets.into_iter().collect(),
        replacement,
        by_alice,
        pilot,
    })
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
        Act::Ask { targets, replacement, by_alice, pilot } => {
            *asked += 1;
            // The eleventh label is one that the model does not know.
            let known = LABELS.iter().copied().chain(["unknown"]).collect::<Vec<_>>();
            let targets: Vec<_> = targets.into_iter().map(|target| known[target]).collect();
            let replacement = replacement.map_or_else(nearest, |label| fixed(LABELS[label]));
            let mut asked = request(&format!("request-{asked}"), &targets, replacement);
            asked.spec.requested_by = by_alice.then(|| PEOPLE[0].to_owned());
            asked.spec.mode = if pilot { Mode::Pilot } else { Mode::Enforce };
            world.apply_request(asked);
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
                6 => measures(plan, |record| record.candidate = digest("another")),
                7 => measures(plan, |record| record.targets[0].leak = Count { hits: 0, n: 100 }),
                10 => shows(plan, |record| record.targets[0].leak.hits = 300),
                11 => measures(plan, |record| drop(record.targets.pop())),
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
        Act::Base(other) if !world.cluster.models.is_empty() => {
            world.edit_base(if other { NEW } else { "teacher" });
        }
        Act::Base(_) => {}
        Act::Approvals(required) => world.edit_policy(|policy| policy.approvals.required = required),
        Act::Say { who, which, yes } => {
            let decision = if yes { ApprovalDecision::Approve } else { ApprovalDecision::Deny };
            if let Some(name) = names.get(which) {
                world.says(PEOPLE[who], decision, name);
            }
        }
        Act::Watchful(yes) => {
            let like = if yes { watchful() } else { policy() };
            world.edit_policy(|policy| policy.gates = like.spec.gates);
        }
        Act::LoseArchive => world.change(|cluster| {
            let knows = |model: &DiffusionModel| {
                let status = model.status.as_ref();
                model.metadata.deletion_timestamp.is_none() && status.is_some_and(|it| !it.ledger.is_empty())
            };
            if cluster.models.values().any(knows) {
                cluster.config_maps.remove(&names::ledger_archive(MODEL));
            }
        }),
        Act::Logs(yes) => world.unlogged = (!yes).then(|| "the store is full".into()),
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
        (world.dies_before, world.unlogged) = (None, None);
        world.trainer = Box::new(|plan, _| honest(plan));
        world.comes_up = Box::new(|_| true);
        for name in world.cluster.requests.keys().cloned().collect::<Vec<_>>() {
            world.suspend(&name, false);
        }
        world.settle();
        if world.cluster.models.is_empty() {
            world.apply_model(model(InitialServing::Baseline));
        }
        // A failed preparation waits for another policy, and what nobody agreed to for people.
        world.edit_policy(|policy| {
            policy.training.prepare_steps = Some(77);
            policy.approvals.required = 0;
        });
        world.settle();
        for name in world.cluster.requests.keys() {
            use RequestPhase::{Aborted, Denied, Failed, Fulfilled, Held, Tried};
            let phase = world.phase(name);
            prop_assert!(
                [Fulfilled, Denied, Held, Failed, Aborted, Tried].map(Some).contains(&phase),
                "{name} is never answered\n{}", world.summary()
            );
        }
        let must_not_be_rolled_out = |request: &UnlearnRequest| request.spec.mode == Mode::Pilot || asked::is_aborted(request);
        for request in world.cluster.requests.values().filter(|request| must_not_be_rolled_out(request)) {
            let uid = request.metadata.uid.as_deref().unwrap_or_default();
            let recorded = world.audit.ledgers.values().flatten().any(|entry| entry.request.uid == uid);
            prop_assert!(!recorded, "an aborted request, or a pilot, was rolled out\n{}", world.summary());
        }
        // What is compliant is served, and what is not has no pods.
        let status = world.model().status.as_ref().unwrap();
        let has_pods = world.cluster.deployment.as_ref().is_some_and(|target| replicas(target) > 0);
        match &status.compliant {
            Some(compliant) => prop_assert_eq!(world.named_bundle(), Some(compliant.digest.clone())),
            None if status.ledger.is_empty() => {
                prop_assert_eq!(world.named_bundle(), status.baseline.as_ref().map(|it| it.bundle.clone()));
            }
            None => prop_assert!(!has_pods, "what is not compliant is served\n{}", world.summary()),
        }
    }
}
