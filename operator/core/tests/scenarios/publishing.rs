//! The operator says what is to be served, and whoever owns the Deployment writes it there.

use jiff::SignedDuration;
use lethe_api::{
    Digest,
    v1alpha1::{
        ApprovalDecision, BUNDLE_ANNOTATION, ConditionType, InitialServing, NoCompliantDigest, Promotion,
        Reason, RequestPhase, RolloutState, RolloutStep, RolloutStrategy, Stage, annotations,
    },
};
use lethe_core::evidence;

use crate::{
    bases::{NEW, base_is},
    cluster::{annotate, deployment, replicas},
    invariants,
    script::{MODEL, crashes, everywhere, fixed, model, policy, watchful},
    trainer::{digest, honest, shows},
    world::World,
};

/// Policy, Deployment and a model that only publishes.
pub fn with_model(world: &mut World, initial: InitialServing) {
    world.apply_policy(policy());
    world.change(|cluster| cluster.deployment = Some(deployment(MODEL, "server")));
    let mut model = model(initial);
    model.spec.serving.promotion = Promotion::Publish;
    world.apply_model(model);
}

pub fn published(world: &World) -> Option<Digest> {
    world.model().status.as_ref()?.published.as_ref()?.bundle.clone()
}

/// A repository has the Deployment name what is published.
pub fn git_promotes(world: &mut World) {
    let bundle = published(world);
    invariants::may_serve(world, bundle.as_ref());
    world.change(|cluster| {
        let target = cluster.deployment.as_mut().expect("it is there");
        annotate(target, bundle.as_ref().map(Digest::as_str));
    });
}

pub fn ready(world: &mut World) {
    with_model(world, InitialServing::Baseline);
    world.until("the baseline is published", |world| published(world).is_some());
    git_promotes(world);
    world.until("the baseline is served", |world| world.model_is(ConditionType::Serving));
    world.prologue = world.calls;
}

pub fn state(world: &World) -> Option<RolloutState> {
    world.model().status.as_ref()?.rollout.as_ref().map(|rollout| rollout.state)
}

pub fn has_phase(phase: RequestPhase) -> impl Fn(&World) -> bool {
    move |world| world.phase("forget-three") == Some(phase)
}

/// Its candidate passed, and is published.
pub fn is_published(world: &mut World) -> Digest {
    world.ask("forget-three", &["3"], fixed("8"));
    world.until("it is published", |world| {
        state(world) == Some(RolloutState::Published) && published(world) != Some(world.baseline())
    });
    published(world).expect("it is published")
}

pub fn is_fulfilled(world: &mut World) {
    is_published(world);
    git_promotes(world);
    world.until("it is fulfilled", has_phase(RequestPhase::Fulfilled));
}

/// Nobody but Git has changed the serving target.
#[track_caller]
pub fn is_left_alone(world: &World) {
    assert!(world.audit.served.is_empty(), "{:?}", world.audit.served);
    assert_eq!(world.cluster.deployment.as_ref().map(replicas), Some(2));
}

#[test]
fn what_passed_is_published_and_counts_as_forgotten_once_git_has_promoted_it() {
    let world = everywhere(|world| {
        ready(world);
        let candidate = is_published(world);
        assert!(world.ledger().is_empty() && world.named_bundle() == Some(world.baseline()));
        let (status, reason, message) = world.condition("forget-three", ConditionType::Ready);
        assert_eq!(status, "Unknown", "{reason}: {message}");
        git_promotes(world);
        world.until("it is fulfilled", has_phase(RequestPhase::Fulfilled));
        assert_eq!(world.named_bundle(), Some(candidate));
    });
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    assert_eq!(world.ledger(), ["3->8"]);
    assert!(world.model_is(ConditionType::Ready) && world.model_is(ConditionType::Compliant));
    is_left_alone(&world);
}

#[test]
fn whoever_promotes_is_not_hurried_and_the_request_says_what_it_waits_for() {
    let mut world = World::new();
    ready(&mut world);
    is_published(&mut world);
    let began = world.now;
    while world.now.duration_since(began) < SignedDuration::from_hours(72) {
        world.now += SignedDuration::from_hours(1);
        world.step();
    }
    world.settle();
    assert_eq!(world.phase("forget-three"), Some(RequestPhase::RollingOut), "{}", world.summary());
    let (_, _, message) = world.condition("forget-three", ConditionType::Ready);
    assert!(message.contains(BUNDLE_ANNOTATION) && message.contains("status.published"), "{message}");
    let (_, reason, _) = world.model_condition(ConditionType::Serving);
    assert_eq!(reason, Reason::WaitingForPromotion.to_string());
    git_promotes(&mut world);
    world.settle();
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    is_left_alone(&world);
}

#[test]
fn an_abort_before_it_is_promoted_publishes_what_was_served_before() {
    let world = everywhere(|world| {
        ready(world);
        is_published(world);
        world.annotate("forget-three", annotations::ABORT, "stop");
    });
    world.ended("forget-three", RequestPhase::Aborted, Reason::Aborted, "Nothing was rolled out");
    assert_eq!(published(&world), Some(world.baseline()));
    assert!(world.model_is(ConditionType::Ready), "{}", world.summary());
    is_left_alone(&world);
}

#[test]
fn an_abort_after_it_was_promoted_is_too_late() {
    let mut world = World::new();
    ready(&mut world);
    is_published(&mut world);
    git_promotes(&mut world);
    world.until("its pods are waited for", |world| state(world) == Some(RolloutState::Progressing));
    world.annotate("forget-three", annotations::ABORT, "stop");
    world.settle();
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "");
}

#[test]
fn what_is_suspended_is_not_published_and_comes_back_without_another_training() {
    let mut world = World::new();
    ready(&mut world);
    let candidate = is_published(&mut world);
    world.suspend("forget-three", true);
    world.settle();
    assert_eq!(published(&world), Some(world.baseline()), "{}", world.summary());
    world.suspend("forget-three", false);
    world.until("it is published again", |world| published(world) != Some(world.baseline()));
    assert_eq!(published(&world), Some(candidate));
    git_promotes(&mut world);
    world.settle();
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    is_left_alone(&world);
}

#[test]
fn an_older_bundle_that_git_names_is_said_and_not_touched() {
    for older in [Some(digest("baseline").to_string()), Some("main".to_owned()), None] {
        let world = everywhere(|world| {
            ready(world);
            is_fulfilled(world);
            world.drift(older.as_deref());
            world.until("it is said", |world| !world.model_is(ConditionType::Serving));
        });
        let (status, reason, message) = world.model_condition(ConditionType::Serving);
        assert_eq!((status.as_str(), reason.as_str()), ("False", "Drifted"), "{message}");
        assert!(message.contains("is published"), "{message}");
        if older.is_some() {
            assert!(!world.model_is(ConditionType::Compliant));
            assert_eq!(world.phase("forget-three"), Some(RequestPhase::Reexposed));
        }
        is_left_alone(&world);
        let mut world = world;
        git_promotes(&mut world);
        world.settle();
        world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "");
        assert!(world.model_is(ConditionType::Compliant));
    }
}

#[test]
fn what_does_not_come_up_is_published_no_more_and_git_is_waited_for_on_the_way_back() {
    let mut world = World::new();
    ready(&mut world);
    world.comes_up = Box::new(|named| named.is_none_or(|named| *named == digest("baseline")));
    is_published(&mut world);
    git_promotes(&mut world);
    world.until("it is to go back", |world| state(world) == Some(RolloutState::RollingBack));
    assert_eq!(published(&world), Some(world.baseline()));
    world.settle();
    assert_eq!(state(&world), Some(RolloutState::RollingBack), "{}", world.summary());
    let (_, reason, message) = world.model_condition(ConditionType::Serving);
    assert!(reason == "RolloutTimedOut" && message.contains("is published"), "{reason}: {message}");
    git_promotes(&mut world);
    world.settle();
    world.ended("forget-three", RequestPhase::Failed, Reason::RolloutTimedOut, "serving went back");
    assert!(world.model_is(ConditionType::Ready));
    is_left_alone(&world);
}

#[test]
fn git_may_take_a_candidate_back_while_its_pods_come_up_and_promote_it_again() {
    let mut world = World::new();
    ready(&mut world);
    is_published(&mut world);
    git_promotes(&mut world);
    world.until("its pods are waited for", |world| state(world) == Some(RolloutState::Progressing));
    let baseline = world.baseline().to_string();
    world.drift(Some(&baseline));
    world.until("it is waited for again", |world| state(world) == Some(RolloutState::Published));
    world.now += SignedDuration::from_hours(48);
    world.settle();
    assert_eq!(world.phase("forget-three"), Some(RequestPhase::RollingOut));
    git_promotes(&mut world);
    world.settle();
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "");
}

#[test]
fn what_the_live_server_shows_is_published_no_more_and_keeps_its_pods() {
    let mut world = World::new();
    ready(&mut world);
    world.apply_policy(watchful());
    assert_eq!(watchful().spec.rollout.no_compliant_digest, NoCompliantDigest::ScaleToZero);
    world.trainer = Box::new(|plan, _| shows(plan, |record| record.targets[0].leak.hits = 300));
    is_published(&mut world);
    git_promotes(&mut world);
    world.until("it is to go back", |world| state(world) == Some(RolloutState::RollingBack));
    world.settle();
    assert_eq!(published(&world), Some(world.baseline()));
    is_left_alone(&world);
    git_promotes(&mut world);
    world.settle();
    world.ended("forget-three", RequestPhase::Failed, Reason::GateFailed, "");
    world.trainer = Box::new(|plan, _| honest(plan));
    is_left_alone(&world);
}

#[test]
fn a_candidate_that_passed_its_canary_is_published() {
    let mut world = World::new();
    ready(&mut world);
    world.edit_policy(|policy| {
        policy.rollout.strategy = RolloutStrategy::Canary;
        policy.rollout.steps = vec![RolloutStep { weight: Some(50), ..RolloutStep::default() }];
    });
    is_published(&mut world);
    assert!(world.cluster.canary.is_some(), "it keeps its share of the users until the target serves it");
    git_promotes(&mut world);
    world.settle();
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    assert!(world.cluster.canary.is_none());
    is_left_alone(&world);
}

#[test]
fn nothing_is_published_before_something_signed_says_that_it_passed() {
    let mut world = World::new();
    world.installation.signs = true;
    ready(&mut world);
    let (reason, message) = (Reason::EvidenceUnavailable, "the store does not answer".into());
    world.evidence_problem = Some(evidence::Problem { reason, message });
    world.ask("forget-three", &["3"], fixed("8"));
    world.until("it passed", has_phase(RequestPhase::RollingOut));
    world.settle();
    assert_eq!(published(&world), Some(world.baseline()));
    world.evidence_problem = None;
    world.until("it is published", |world| published(world) != Some(world.baseline()));
    git_promotes(&mut world);
    world.settle();
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "");
}

#[test]
fn nothing_is_published_that_the_audit_log_cannot_say() {
    let mut world = World::new();
    ready(&mut world);
    world.unlogged = Some("the store does not answer".into());
    world.ask("forget-three", &["3"], fixed("8"));
    world.until("it passed", has_phase(RequestPhase::RollingOut));
    world.settle();
    assert_eq!(published(&world), Some(world.baseline()), "{}", world.summary());
    world.unlogged = None;
    world.until("it is published", |world| published(world) != Some(world.baseline()));
    world.unlogged = Some("the store does not answer".into());
    world.settle();
    assert_ne!(published(&world), Some(world.baseline()), "what was published stays");
    world.unlogged = None;
    git_promotes(&mut world);
    world.settle();
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "");
}

#[test]
fn a_no_to_what_is_published_takes_it_back() {
    let mut world = World::new();
    world.protects_approvals = true;
    ready(&mut world);
    is_published(&mut world);
    world.says_of_step("carol", ApprovalDecision::Deny, "forget-three", 1);
    world.until("it is taken back", |world| published(world) == Some(world.baseline()));
    world.settle();
    assert_eq!(world.phase("forget-three"), Some(RequestPhase::Failed), "{}", world.summary());
    is_left_alone(&world);
}

#[test]
fn before_the_first_request_nothing_is_published_where_nothing_is_to_be_served() {
    let world = everywhere(|world| {
        with_model(world, InitialServing::None);
        world.until("it is prepared", |world| world.model_is(ConditionType::Prepared));
        world.drift(Some(digest("baseline").as_str()));
        world.until("it is said", |world| {
            world.model_condition(ConditionType::Serving).1 == Reason::Drifted.to_string()
        });
    });
    assert_eq!(published(&world), None);
    is_left_alone(&world);
    let mut world = world;
    git_promotes(&mut world);
    world.settle();
    assert!(world.model_is(ConditionType::Ready), "{}", world.summary());
}

#[test]
fn a_new_base_is_published_when_it_has_forgotten_everything() {
    let mut world = World::new();
    ready(&mut world);
    is_fulfilled(&mut world);
    let old = published(&world);
    world.edit_base(NEW);
    world.until("the new one is published", |world| published(world) != old);
    assert!(!base_is(&world, NEW));
    git_promotes(&mut world);
    world.settle();
    assert!(base_is(&world, NEW) && world.model_is(ConditionType::Ready), "{}", world.summary());
    is_left_alone(&world);
}

#[test]
fn a_new_baseline_is_published_while_nothing_is_forgotten() {
    let world = everywhere(|world| {
        ready(world);
        let old = world.baseline();
        world.edit_base(NEW);
        world.until("the new one is published", move |world| published(world) != Some(old.clone()));
        git_promotes(world);
    });
    assert!(base_is(&world, NEW) && world.model_is(ConditionType::Ready), "{}", world.summary());
    is_left_alone(&world);
}

/// Somebody edits who promotes.
pub fn begins(promotion: Promotion) -> impl Fn(&mut World) {
    move |world: &mut World| {
        world.change(|cluster| {
            let model = cluster.models.get_mut(MODEL).expect("it is there");
            model.spec.serving.promotion = promotion;
            *model.metadata.generation.get_or_insert(1) += 1;
        });
    }
}

#[test]
fn who_promotes_may_change_at_any_time() {
    let mut world = World::new();
    ready(&mut world);
    is_published(&mut world);
    begins(Promotion::Apply)(&mut world);
    world.settle();
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    assert_eq!(published(&world), None, "what nobody has to promote is not published");
    world.ask("forget-five", &["5"], fixed("8"));
    world.until("it trains", |world| world.is_running("forget-five", Stage::Forget));
    let served = world.named_bundle();
    begins(Promotion::Publish)(&mut world);
    world.until("what is served is published", |world| published(world).is_some());
    assert_eq!(published(&world), served, "Git knows what to begin with");
    world.until("the next is published", |world| state(world) == Some(RolloutState::Published));
    git_promotes(&mut world);
    world.settle();
    world.ended("forget-five", RequestPhase::Fulfilled, Reason::Fulfilled, "");
}

#[test]
fn an_operator_that_dies_at_any_call_publishes_nothing_else() {
    let world = crashes(&|world| {
        ready(world);
        is_fulfilled(world);
        world.ask("second", &["5"], fixed("8"));
        let first = published(world);
        world.until("the second is published", move |world| published(world) != first);
        git_promotes(world);
    });
    world.ended("second", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    assert_eq!(world.ledger(), ["3->8", "5->8"]);
    is_left_alone(&world);
}
