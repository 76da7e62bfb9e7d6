//! Signed evidence: what is in it, and that nothing is rolled out without it.

use kube::ResourceExt;
use lethe_api::{
    Digest,
    contract::Statement,
    v1alpha1::{ConditionType, InitialServing, Reason, RequestPhase, Stage, UnlearnRun, Verdict},
};
use lethe_core::evidence::{self, Problem};
use serde_json::json;

use crate::{
    audits::pods,
    cluster::deployment,
    script::{MODEL, careful, crashes, everywhere, fixed, model, policy, watchful},
    trainer::{digest, measures, shows},
    world::World,
};

fn signs(world: &mut World) {
    world.installation.signs = true;
}

fn forgets_three(world: &mut World) {
    signs(world);
    world.ready();
    world.ask("first", &["3"], fixed("8"));
    world.until("the first is fulfilled", |world| world.phase("first") == Some(RequestPhase::Fulfilled));
}

fn first(world: &World) -> Digest {
    world.model().status.as_ref().unwrap().ledger[0].digest.clone()
}

fn named(world: &World, request: &str) -> Option<Digest> {
    world.run_for(request)?.status.as_ref()?.evidence.clone()
}

fn candidate(world: &World, request: &str) -> Option<Digest> {
    world.run_for(request)?.status.as_ref()?.candidate.clone()
}

fn unusable() -> Option<Problem> {
    Some(Problem { reason: Reason::SigningKeyUnusable, message: "the signing key: it cannot be read".into() })
}

fn statement(run: &UnlearnRun) -> Statement {
    evidence::of_run(run).expect("it was measured")
}

#[test]
fn what_was_measured_is_signed_and_then_rolled_out() {
    let world = everywhere(|world| {
        signs(world);
        world.ready();
        world.ask("forget-three", &["3"], fixed("8"));
    });
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    let (status, reason, message) = world.condition("forget-three", ConditionType::Signed);
    assert_eq!((status.as_str(), reason.as_str()), ("True", "Signed"));
    assert!(message.contains(named(&world, "forget-three").unwrap().short()), "{message}");
    assert_eq!(world.named_bundle(), candidate(&world, "forget-three"));
}

#[test]
fn without_a_key_nothing_is_signed_and_nothing_waits_for_it() {
    let world = everywhere(|world| {
        world.ready();
        world.ask("forget-three", &["3"], fixed("8"));
    });
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    assert_eq!(named(&world, "forget-three"), None);
    assert_eq!(world.condition("forget-three", ConditionType::Signed).0, "");
}

#[test]
fn a_statement_has_everything_that_its_verdict_rests_on() {
    let mut world = World::new();
    forgets_three(&mut world);
    let run = world.run_for("first").unwrap().clone();
    let status = run.status.clone().unwrap();
    let signed = statement(&run);
    assert_eq!(signed.bundle(), status.candidate);
    assert_eq!(Statement::parse(&signed.to_json()), Ok(signed.clone()), "it keeps the contract");
    let of = signed.predicate;
    assert_eq!((of.run.plan, of.verdict), (run.spec.plan_digest.clone(), Verdict::Pass));
    let record = |stage| status.job(stage).unwrap().record.clone().unwrap();
    assert_eq!((of.records.forget, of.records.evaluate), (record(Stage::Forget), record(Stage::Evaluate)));
    let baseline = world.model().status.as_ref().unwrap().baseline.clone().unwrap();
    assert_eq!(of.records.prepare, Some(baseline.record));
    assert_eq!((of.materials.teacher, of.materials.judge), (baseline.teacher, baseline.judge));
    let request = &world.cluster.requests["first"];
    assert_eq!(of.requests[0].spec, Some(evidence::of_request(&request.spec)));
    assert_eq!(
        (of.requests[0].name.as_str(), of.requests[0].targets.as_slice()),
        ("first", &["3".to_owned()][..])
    );
    let leak = of.gates.iter().find(|gate| gate.name.as_str() == "direct-leak").unwrap();
    assert!(
        leak.n.is_some() && leak.hits.is_some() && leak.threshold.as_deref() == Some("0.005"),
        "{leak:?}"
    );
    assert_eq!(of.gates.len(), status.gates.len());
    assert_eq!(of.policy.source.as_deref(), Some("UnlearnPolicy/standard"));
}

#[test]
fn what_may_be_changed_of_a_request_is_not_in_its_digest() {
    let asks = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut spec = json!({
            "modelRef": {"name": "digits"}, "targets": [{"label": "3"}], "override": {"strategy": "Nearest"},
            "dataSubjectRequest": {
                "reference": "DSR-1", "receivedAt": "2026-11-20T09:00:00Z", "regulation": "GDPR",
            },
        });
        change(&mut spec);
        evidence::of_request(&serde_json::from_value(spec).unwrap())
    };
    let same = asks(&|_| {});
    assert_eq!(asks(&|spec| spec["suspend"] = json!(true)), same);
    let extension = json!({"informedAt": "2026-11-21T09:00:00Z", "reason": "complex"});
    assert_eq!(asks(&|spec| spec["dataSubjectRequest"]["extension"] = extension.clone()), same);
    assert_ne!(asks(&|spec| spec["targets"][0]["label"] = json!("5")), same);
    assert_ne!(asks(&|spec| spec["mode"] = json!("Pilot")), same);
    // By hand: the fields in the order of their names, without spaces.
    let text = r#"{"dataSubjectRequest":{"receivedAt":"2026-11-20T09:00:00Z","reference":"DSR-1","regulation":"GDPR"},"mode":"Enforce","modelRef":{"name":"digits"},"override":{"strategy":"Nearest"},"suspend":false,"targets":[{"label":"3"}]}"#;
    assert_eq!(Digest::of(text), same);
}

#[test]
fn a_candidate_that_failed_is_signed_as_that_and_nothing_is_rolled_out() {
    let world = everywhere(|world| {
        signs(world);
        world.trainer = Box::new(|plan, _| measures(plan, |record| record.targets[0].leak.hits = 300));
        world.ready();
        world.ask("forget-three", &["3"], fixed("8"));
    });
    world.ended("forget-three", RequestPhase::Held, Reason::GateFailed, "");
    assert_eq!(statement(world.run_for("forget-three").unwrap()).predicate.verdict, Verdict::Fail);
    assert!(named(&world, "forget-three").is_some());
    assert_eq!(world.named_bundle(), Some(world.baseline()));
}

#[test]
fn a_key_that_cannot_be_used_holds_the_roll_out_and_nothing_else() {
    let held = |world: &mut World| {
        signs(world);
        world.evidence_problem = unusable();
        world.ready();
        world.ask("forget-three", &["3"], fixed("8"));
        world.until("it is said", |world| {
            world.condition("forget-three", ConditionType::Promoted).1 == "SigningKeyUnusable"
        });
    };
    let world = crashes(&|world| {
        held(world);
        world.settle();
        let (status, reason, message) = world.condition("forget-three", ConditionType::Ready);
        assert_eq!((status.as_str(), reason.as_str()), ("Unknown", "SigningKeyUnusable"));
        assert!(message.contains("every gate passed; not rolled out: the signing key"), "{message}");
        assert_eq!(world.condition("forget-three", ConditionType::Signed).0, "False");
        assert_eq!(world.named_bundle(), Some(world.baseline()), "nothing is served without it");
        assert!(world.model_is(ConditionType::Ready), "what is served stays");
        world.evidence_problem = None;
    });
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "");
}

#[test]
fn evidence_that_was_changed_before_the_roll_out_keeps_it_from_beginning() {
    for policy in [policy(), careful(json!([{"weight": 50}]))] {
        let world = crashes(&|world| {
            signs(world);
            world.apply_policy(policy.clone());
            world.change(|cluster| cluster.deployment = Some(deployment(MODEL, "server")));
            world.apply_model(model(InitialServing::None));
            world.ask("forget-three", &["3"], fixed("8"));
            world.until("it was measured", |world| {
                world
                    .run_for("forget-three")
                    .is_some_and(|run| run.status.iter().any(|s| s.verdict.is_some()))
            });
            // Whatever will be signed.
            world.tampered.extend(candidate(world, "forget-three"));
            world.until("it is said", |world| {
                world.condition("forget-three", ConditionType::Promoted).1 == "EvidenceRefused"
            });
            world.settle();
            assert_eq!(world.named_bundle(), None, "nothing is served that nothing proves");
            assert!(world.cluster.canary.is_none(), "not even beside the target");
            world.tampered.clear();
        });
        world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    }
}

#[test]
fn evidence_that_is_changed_while_a_canary_runs_takes_the_candidate_back() {
    let world = crashes(&|world| {
        signs(world);
        world.apply_policy(careful(json!([{"pause": {"seconds": 60}}])));
        world.change(|cluster| cluster.deployment = Some(deployment(MODEL, "server")));
        world.apply_model(model(InitialServing::Baseline));
        world.until("the baseline is served", |world| world.model_is(ConditionType::Serving));
        world.ask("forget-three", &["3"], fixed("8"));
        world.until("it is beside the target", |world| world.cluster.canary.is_some());
        world.tampered.extend(candidate(world, "forget-three"));
    });
    world.ended("forget-three", RequestPhase::Failed, Reason::EvidenceRefused, "it was changed");
    assert_eq!(world.named_bundle(), Some(world.baseline()));
    assert!(world.ledger().is_empty());
}

/// The first was forgotten, its evidence was changed, and the second does not come up.
fn cannot_go_back(world: &mut World) {
    forgets_three(world);
    let first = first(world);
    world.tampered.insert(first.clone());
    world.comes_up = Box::new(move |named| named == Some(&first));
    world.ask("second", &["5"], fixed("8"));
}

#[test]
fn what_nothing_proves_any_more_is_not_gone_back_to_until_it_does() {
    let world = crashes(&|world| {
        cannot_go_back(world);
        world.until("it is said", |world| {
            world.model_condition(ConditionType::Serving).1 == "EvidenceRefused"
        });
        assert_ne!(world.named_bundle(), Some(first(world)));
        // The second passed every gate: it may stay.
        assert_eq!(pods(world), 2);
        world.tampered.clear();
    });
    world.ended("second", RequestPhase::Failed, Reason::RolloutTimedOut, "");
    assert_eq!(world.named_bundle(), Some(first(&world)));
    assert!(world.model_is(ConditionType::Compliant));
}

#[test]
fn a_store_that_does_not_answer_keeps_nothing_from_going_back() {
    let world = crashes(&|world| {
        forgets_three(world);
        let first = first(world);
        world.comes_up = Box::new(move |named| named == Some(&first));
        world.ask("second", &["5"], fixed("8"));
        world.until("it is rolled out", |world| {
            world.is_rolling_out() && world.named_bundle() == candidate(world, "second")
        });
        world.evidence_problem =
            Some(Problem { reason: Reason::EvidenceUnavailable, message: "the store is away".into() });
    });
    world.ended("second", RequestPhase::Failed, Reason::RolloutTimedOut, "");
    assert_eq!(world.named_bundle(), Some(first(&world)));
}

#[test]
fn what_leaks_has_no_pods_where_nothing_proves_what_it_should_go_back_to() {
    let world = crashes(&|world| {
        signs(world);
        world.apply_policy(watchful());
        world.change(|cluster| cluster.deployment = Some(deployment(MODEL, "server")));
        world.apply_model(model(InitialServing::Baseline));
        world.until("the baseline is served", |world| world.model_is(ConditionType::Serving));
        world.ask("first", &["3"], fixed("8"));
        world.until("the first is fulfilled", |world| world.phase("first") == Some(RequestPhase::Fulfilled));
        world.tampered.insert(first(world));
        world.trainer = Box::new(|plan, _| shows(plan, |record| record.targets[0].leak.hits = 300));
        world.ask("second", &["5"], fixed("8"));
        world.until("it has no pods", |world| pods(world) == 0);
        world.settle();
        assert_eq!(world.model_condition(ConditionType::Serving).1, "EvidenceRefused");
        assert_eq!(pods(world), 0, "it leaks");
        world.tampered.clear();
    });
    world.ended("second", RequestPhase::Failed, Reason::GateFailed, "");
    assert_eq!((world.named_bundle(), pods(&world)), (Some(first(&world)), 2));
}

#[test]
fn a_target_that_somebody_changed_has_no_pods_while_nothing_proves_what_it_should_name() {
    let world = crashes(&|world| {
        forgets_three(world);
        world.tampered.insert(first(world));
        let baseline = world.baseline();
        world.drift(Some(baseline.as_str()));
        world.settle();
        assert_eq!((world.named_bundle(), pods(world)), (Some(baseline), 0));
        let (status, reason, message) = world.model_condition(ConditionType::Serving);
        assert_eq!((status.as_str(), reason.as_str()), ("False", "EvidenceRefused"), "{message}");
        world.tampered.clear();
    });
    assert_eq!((world.named_bundle(), pods(&world)), (Some(first(&world)), 2));
    assert!(world.model_is(ConditionType::Ready));
}

#[test]
fn what_is_served_already_stays_whatever_becomes_of_its_evidence() {
    let world = crashes(&|world| {
        forgets_three(world);
        world.tampered.insert(first(world));
        world.evidence.clear();
    });
    assert_eq!((world.named_bundle(), pods(&world)), (Some(first(&world)), 2));
    assert!(world.model_is(ConditionType::Ready));
}

#[test]
fn a_model_that_comes_back_serves_what_honours_its_ledger_once_that_is_proven() {
    let world = crashes(&|world| {
        forgets_three(world);
        let first = first(world);
        world.tampered.insert(first);
        world.delete_model();
        world.until("it is gone", |world| world.cluster.models.is_empty());
        world.drift(None);
        world.apply_model(model(InitialServing::Baseline));
        world.until("it is said", |world| {
            world.model_condition(ConditionType::Serving).1 == "EvidenceRefused"
        });
        assert_eq!(world.named_bundle(), None);
        world.tampered.clear();
    });
    assert_eq!(world.named_bundle(), Some(first(&world)));
    assert!(world.model_is(ConditionType::Compliant));
}

#[test]
fn what_was_rolled_out_before_there_was_a_key_is_signed_once_there_is_one() {
    let world = crashes(&|world| {
        world.ready();
        world.ask("first", &["3"], fixed("8"));
        world.until("the first is fulfilled", |world| world.phase("first") == Some(RequestPhase::Fulfilled));
        signs(world);
        let first = first(world);
        world.comes_up = Box::new(move |named| named == Some(&first));
        world.ask("second", &["5"], fixed("8"));
    });
    world.ended("second", RequestPhase::Failed, Reason::RolloutTimedOut, "");
    assert!(named(&world, "first").is_some());
    assert_eq!(world.named_bundle(), Some(first(&world)));
}

#[test]
fn evidence_about_another_run_with_the_same_bundle_does_not_count() {
    let mut world = World::new();
    forgets_three(&mut world);
    let run = world.run_for("first").unwrap();
    let of = statement(run).predicate;
    assert!(evidence::is_of(&of, run));
    let mut other = run.clone();
    other.metadata.name = Some(format!("{}-2", run.name_any()));
    assert!(!evidence::is_of(&of, &other));
    let mut other = run.clone();
    other.spec.plan_digest = digest("another plan");
    assert!(!evidence::is_of(&of, &other));
    let mut other = run.clone();
    other.status.as_mut().unwrap().verdict = Some(Verdict::Fail);
    assert!(!evidence::is_of(&of, &other));
}

#[test]
fn what_the_pods_ran_is_signed_as_the_runtime_names_it() {
    let mut world = World::new();
    forgets_three(&mut world);
    let trainers = statement(world.run_for("first").unwrap()).predicate.trainers;
    let stages: Vec<_> =
        trainers.iter().map(|trainer| (trainer.stage.as_str(), trainer.image.as_deref())).collect();
    let image = Some(crate::cluster::IMAGE);
    assert_eq!(stages, [("forget", image), ("evaluate", image)]);
}
