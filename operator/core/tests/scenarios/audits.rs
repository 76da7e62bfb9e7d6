//! What the live server shows: it is asked after a roll-out, and believed only if it was seen.

use jiff::SignedDuration;
use kube::ResourceExt;
use lethe_api::{
    contract::Count,
    v1alpha1::{
        ConditionType, GateName, InitialServing, NoCompliantDigest, Reason, RequestPhase, RolloutState,
        RunType, UnlearnPolicy, Verdict,
    },
};

use crate::{
    cluster::{Work, deployment, replicas},
    script::{MODEL, crashes, everywhere, fixed, model, watchful},
    trainer::{Fate, honest, shows},
    world::World,
};

pub fn begin(world: &mut World, policy: UnlearnPolicy, initial: InitialServing) {
    world.apply_policy(policy);
    world.change(|cluster| cluster.deployment = Some(deployment(MODEL, "server")));
    world.apply_model(model(initial));
    world.until("it is prepared", |world| world.model_is(ConditionType::Prepared));
    world.prologue = world.calls;
}

/// The live server shows the first target in every tenth sample.
fn leaks(world: &mut World) {
    world.trainer = Box::new(|plan, _| shows(plan, |record| record.targets[0].leak.hits = 300));
}

fn is_auditing(world: &World) -> bool {
    let rollout = world.model().status.as_ref().and_then(|status| status.rollout.as_ref());
    rollout.is_some_and(|rollout| rollout.state == RolloutState::Auditing)
}

pub fn pods(world: &World) -> i32 {
    replicas(world.cluster.deployment.as_ref().unwrap())
}

#[test]
fn a_request_is_fulfilled_once_the_live_server_was_asked_and_shows_nothing() {
    let world = everywhere(|world| {
        begin(world, watchful(), InitialServing::Baseline);
        world.ask("forget-three", &["3"], fixed("8"));
        world.until("the live server is asked", is_auditing);
        assert_eq!(world.phase("forget-three"), Some(RequestPhase::RollingOut));
        assert!(world.ledger().is_empty(), "not before it is known what is shown");
    });
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "served");
    let status = world.model().status.clone().unwrap();
    let audit = status.audit.unwrap();
    assert_eq!((audit.verdict, &audit.digest), (Verdict::Pass, &status.ledger[0].digest));
    let run = &world.cluster.runs[&audit.run];
    assert_eq!(run.spec.type_, RunType::Audit);
    let gates = &run.status.as_ref().unwrap().gates;
    assert_eq!((gates[0].name, gates[0].n), (GateName::ServedLeak, Some(3000)));
    assert!(world.model_is(ConditionType::Ready) && world.model_is(ConditionType::Compliant));
}

#[test]
fn a_candidate_that_leaks_from_the_live_server_goes_back_to_the_last_compliant_digest() {
    let world = everywhere(|world| {
        begin(world, watchful(), InitialServing::Baseline);
        world.ask("first", &["3"], fixed("8"));
        world.until("the first is fulfilled", |w| w.phase("first") == Some(RequestPhase::Fulfilled));
        leaks(world);
        world.ask("second", &["5"], fixed("8"));
    });
    world.ended("second", RequestPhase::Failed, Reason::GateFailed, "300 of 3000 samples of the live server");
    assert_eq!(world.ledger(), ["3->8"]);
    let status = world.model().status.clone().unwrap();
    assert_eq!(world.named_bundle().as_ref(), Some(&status.ledger[0].digest));
    assert_eq!(pods(&world), 2, "what was served before is served again");
    assert!(world.model_is(ConditionType::Ready) && world.model_is(ConditionType::Compliant));
}

#[test]
fn an_audit_that_measures_nothing_is_not_one_that_passed() {
    type Trainer = fn(&lethe_api::contract::Plan) -> Fate;
    let trainers: [(Trainer, Reason); 4] = [
        (
            |plan| shows(plan, |record| record.targets[0].leak = Count { hits: 0, n: 10 }),
            Reason::GateInconclusive,
        ),
        (|plan| shows(plan, |record| record.kept.hits = 60), Reason::GateError),
        (|plan| shows(plan, |record| record.served = crate::trainer::digest("another")), Reason::GateError),
        (
            |plan| match plan.task {
                lethe_api::contract::Task::Audit(_) => Fate::Exits { code: 75, message: String::new() },
                _ => honest(plan),
            },
            Reason::GateError,
        ),
    ];
    for (trainer, reason) in trainers {
        let mut world = World::new();
        begin(&mut world, watchful(), InitialServing::Baseline);
        world.trainer = Box::new(move |plan, _| trainer(plan));
        world.ask("forget-three", &["3"], fixed("8"));
        world.settle();
        world.ended("forget-three", RequestPhase::Failed, reason, "serving went back");
        assert_eq!(world.named_bundle(), Some(world.baseline()));
        assert!(world.ledger().is_empty());
    }
}

/// What was not heard did not pass: no second Job asks until it does.
#[test]
fn an_audit_of_a_roll_out_whose_pod_is_gone_with_its_message_turns_it_back() {
    let world = everywhere(|world| {
        begin(world, watchful(), InitialServing::Baseline);
        world.ask("forget-three", &["3"], fixed("8"));
        world.until("the live server is asked", |world| world.cluster.jobs.values().any(is_asking));
        crate::trainers::lose_what_it_found(world);
    });
    world.ended("forget-three", RequestPhase::Failed, Reason::GateError, "serving went back");
    assert_eq!(world.named_bundle(), Some(world.baseline()));
    assert!(world.ledger().is_empty());
}

fn is_asking(work: &Work) -> bool {
    work.is_running() && work.job.name_any().ends_with("-audit")
}

#[test]
fn without_a_compliant_digest_nothing_is_served_until_there_is_one() {
    let refused = |world: &mut World| {
        begin(world, watchful(), InitialServing::None);
        leaks(world);
        world.ask("first", &["3"], fixed("8"));
        world.until("nothing is served", |world| pods(world) == 0);
        world.until("it has failed", |world| world.phase("first") == Some(RequestPhase::Failed));
    };
    let world = crashes(&refused);
    assert_eq!((pods(&world), world.named_bundle(), world.cluster.serving.as_ref()), (0, None, None));
    let (status, reason, message) = world.model_condition(ConditionType::Compliant);
    assert_eq!((status.as_str(), reason.as_str()), ("False", "GateFailed"), "{message}");
    let world = crashes(&|world: &mut World| {
        refused(world);
        world.trainer = Box::new(|plan, _| honest(plan));
        world.ask("second", &["3"], fixed("8"));
    });
    world.ended("second", RequestPhase::Fulfilled, Reason::Fulfilled, "served");
    assert_eq!(pods(&world), 2, "as many as there were");
    assert!(world.model_is(ConditionType::Ready) && world.model_is(ConditionType::Compliant));
}

#[test]
fn a_policy_that_leaves_it_scales_nothing_and_the_model_is_not_compliant() {
    let world = crashes(&|world: &mut World| {
        let mut policy = watchful();
        policy.spec.rollout.no_compliant_digest = NoCompliantDigest::Leave;
        begin(world, policy, InitialServing::None);
        leaks(world);
        world.ask("first", &["3"], fixed("8"));
    });
    world.ended("first", RequestPhase::Failed, Reason::GateFailed, "");
    assert_eq!(pods(&world), 2);
    assert_eq!(world.model_condition(ConditionType::Compliant).0, "False");
    assert_eq!(world.model_condition(ConditionType::Ready).0, "False");
}

#[test]
fn an_audit_that_is_deleted_is_made_again_and_a_run_that_is_deleted_ends_the_roll_out() {
    let audit = |world: &World| {
        let rollout = world.model().status.as_ref().and_then(|status| status.rollout.clone());
        rollout.and_then(|rollout| rollout.audit).unwrap_or_default()
    };
    let mut world = World::new();
    begin(&mut world, watchful(), InitialServing::Baseline);
    world.ask("forget-three", &["3"], fixed("8"));
    world.until("an audit is there", |w| w.cluster.runs.contains_key(&audit(w)));
    let name = audit(&world);
    world.change(|cluster| cluster.runs.remove(&name));
    world.settle();
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    world.ask("forget-five", &["5"], fixed("8"));
    world.until("the live server is asked", is_auditing);
    let run = run_name(&world, "forget-five");
    world.change(|cluster| cluster.runs.remove(&run));
    world.until("serving goes back", |world| !is_auditing(world));
    world.now += SignedDuration::from_secs(1);
    world.settle();
    world.ended("forget-five", RequestPhase::Fulfilled, Reason::Fulfilled, "");
}

fn run_name(world: &World, request: &str) -> String {
    world.run_for(request).and_then(|run| run.metadata.name.clone()).unwrap()
}

#[test]
fn an_audit_asks_for_everything_and_holds_no_gpu() {
    let world = everywhere(|world| {
        let mut policy = watchful();
        let gpu = serde_json::json!({"limits": {"nvidia.com/gpu": "1", "memory": "1Gi"}});
        policy.spec.trainer.resources = serde_json::from_value(gpu).unwrap();
        begin(world, policy, InitialServing::Baseline);
        world.ask("first", &["3"], fixed("8"));
        world.until("the first is fulfilled", |w| w.phase("first") == Some(RequestPhase::Fulfilled));
        world.ask("second", &["5"], fixed("8"));
    });
    let audit = world.model().status.clone().unwrap().audit.unwrap();
    let job = format!("{}-audit", audit.run);
    let lethe_api::contract::Task::Audit(task) = world.cluster.plan_of(&job).task else { panic!("an audit") };
    let labels: Vec<_> = task.targets.iter().map(|target| target.label.as_str()).collect();
    assert_eq!((labels, task.kept.len()), (vec!["3", "5"], 8));
    assert_eq!((task.endpoint.as_str(), task.model.as_str()), ("http://digits:8080", "digits"));
    let template = world.cluster.jobs[&job].job.spec.as_ref().unwrap().template.spec.clone().unwrap();
    let limits = template.containers[0].resources.clone().unwrap().limits.unwrap();
    assert_eq!(limits.keys().collect::<Vec<_>>(), ["memory"]);
    assert_eq!(template.automount_service_account_token, Some(false));
}
