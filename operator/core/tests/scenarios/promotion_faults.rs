//! What only Git may promote, taken back, refuted, or edited while Git waits: what is published is what should be served.

use jiff::SignedDuration;
use lethe_api::{
    Digest,
    v1alpha1::{
        ApprovalDecision, ConditionType, InitialServing, Promotion, Reason, RequestPhase, RolloutState,
        RunType, annotations,
    },
};

use crate::{
    audits,
    bases::NEW,
    publishing::{
        begins, git_promotes, is_fulfilled, is_left_alone, is_published, published, ready, state, with_model,
    },
    schedules::{self, DAYS, WEEKLY, pass},
    script::{MODEL, fixed, watchful},
    trainer::shows,
    world::{Patches, World},
};

/// Everything is signed, and something was forgotten before.
fn signs(world: &mut World) {
    world.installation.signs = true;
    ready(world);
    is_fulfilled(world);
    world.prologue = world.calls;
}

fn second_is_published(world: &mut World) -> (Option<Digest>, Option<Digest>) {
    let first = published(world);
    world.ask("second", &["5"], fixed("8"));
    let was = first.clone();
    world.until("the second is published", move |world| published(world) != was);
    (first, published(world))
}

#[test]
fn what_is_taken_back_is_published_no_more_where_everything_is_signed() {
    type Change = fn(&mut World);
    let changes: [(&str, Change); 4] = [
        ("aborted", |world| world.annotate("second", annotations::ABORT, "stop")),
        ("suspended", |world| world.suspend("second", true)),
        ("deleted", |world| world.delete_request("second")),
        ("its run is deleted", |world| {
            let run = world.run_for("second").map(kube::ResourceExt::name_any).expect("it has one");
            world.change(|cluster| cluster.runs.remove(&run));
            world.suspend("second", true);
        }),
    ];
    for (what, change) in changes {
        let mut world = World::new();
        signs(&mut world);
        let (first, _) = second_is_published(&mut world);
        change(&mut world);
        world.settle();
        assert_eq!(published(&world), first, "{what}: {}", world.summary());
        assert!(world.model_is(ConditionType::Ready), "{what}: {}", world.summary());
        is_left_alone(&world);
    }
}

#[test]
fn nothing_is_published_in_place_of_what_leaks_while_it_is_not_known_what_passed() {
    let mut world = World::new();
    signs(&mut world);
    let (first, second) = second_is_published(&mut world);
    world.tampered.extend(first.clone());
    world.comes_up = Box::new(move |named| named != second.as_ref());
    git_promotes(&mut world);
    world.until("it is to go back", |world| state(world) == Some(RolloutState::RollingBack));
    world.settle();
    assert_eq!(published(&world), None, "{}", world.summary());
    world.tampered.clear();
    world.settle();
    assert_eq!(published(&world), first, "{}", world.summary());
}

/// A live server showed what it had to forget while the operator changed the target itself.
#[test]
fn who_begins_to_promote_gets_no_pods_back_for_what_leaks_and_nothing_to_promote() {
    let mut world = World::new();
    schedules::begin(&mut world, watchful(), WEEKLY);
    world.trainer = Box::new(|plan, _| shows(plan, |record| record.targets[0].leak.hits = 300));
    pass(&mut world, 2 * DAYS);
    world.until("it has no pods", |world| audits::pods(world) == 0);
    begins(Promotion::Publish)(&mut world);
    world.settle();
    assert_eq!(audits::pods(&world), 0, "{}", world.summary());
    assert_eq!(published(&world), None);
    assert!(world.model().status.as_ref().unwrap().published.is_some(), "nothing is to be served");
    assert!(!world.model_is(ConditionType::Compliant) && !world.model_is(ConditionType::Serving));
    world.drift(None);
    world.settle();
    let (status, reason, message) = world.model_condition(ConditionType::Serving);
    assert_eq!((status.as_str(), reason.as_str()), ("False", "GateFailed"), "{message}");
    assert_eq!(published(&world), None, "nobody is asked to put it back");
}

#[test]
fn a_base_that_is_changed_and_changed_back_leaves_the_model_free() {
    let mut world = World::new();
    ready(&mut world);
    let old = published(&world);
    world.edit_base(NEW);
    world.until("the new one is published", |world| published(world) != old);
    world.edit_base("teacher");
    world.settle();
    assert_eq!(published(&world), old, "{}", world.summary());
    is_fulfilled(&mut world);
}

#[test]
fn what_an_audit_found_counts_although_git_took_the_candidate_back() {
    let mut world = World::new();
    ready(&mut world);
    world.apply_policy(watchful());
    world.trainer = Box::new(|plan, _| shows(plan, |record| record.targets[0].leak.hits = 300));
    is_published(&mut world);
    git_promotes(&mut world);
    let is_measured = |world: &World| {
        let audits = world.cluster.runs.values().filter(|run| run.spec.type_ == RunType::Audit);
        audits.filter_map(|run| run.status.as_ref()).any(|status| status.verdict.is_some())
    };
    world.until("it is measured", is_measured);
    let baseline = world.baseline().to_string();
    world.drift(Some(&baseline));
    world.settle();
    world.ended("forget-three", RequestPhase::Failed, Reason::GateFailed, "");
    assert_eq!(published(&world), Some(world.baseline()));
}

#[test]
fn an_abort_that_comes_after_git_promoted_while_nobody_looked_is_too_late() {
    let mut world = World::new();
    ready(&mut world);
    is_published(&mut world);
    git_promotes(&mut world);
    world.annotate("forget-three", annotations::ABORT, "stop");
    world.settle();
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    let (_, message) = world.acknowledged("forget-three", annotations::ABORT).unwrap();
    assert!(message.contains("too late") || message.contains("had its answer"), "{message}");
}

#[test]
fn what_git_promotes_after_it_was_taken_back_is_said_until_it_is_put_right() {
    let mut world = World::new();
    world.protects_approvals = true;
    ready(&mut world);
    let candidate = is_published(&mut world);
    world.says_of_step("carol", ApprovalDecision::Deny, "forget-three", 1);
    world.until("it is taken back", |world| published(world) == Some(world.baseline()));
    world.drift(Some(candidate.as_str()));
    world.settle();
    let (status, _, message) = world.model_condition(ConditionType::Serving);
    assert!(status == "False" && message.contains("is published"), "{message}\n{}", world.summary());
    git_promotes(&mut world);
    world.settle();
    assert!(world.model_is(ConditionType::Ready), "{}", world.summary());
    assert_eq!(world.phase("forget-three"), Some(RequestPhase::Failed));
}

#[test]
fn a_roll_out_that_was_always_set_back_has_all_its_time_once_git_promotes() {
    let mut world = World::new();
    world.ready();
    world.patches = Patches::SetBack;
    world.ask("forget-three", &["3"], fixed("8"));
    let is_written_again = |world: &World| {
        let rollout = world.model().status.as_ref().and_then(|status| status.rollout.as_ref());
        rollout.is_some_and(|rollout| rollout.written_again_at.is_some())
    };
    world.until("it is set back", is_written_again);
    begins(Promotion::Publish)(&mut world);
    world.until("it is published", |world| state(world) == Some(RolloutState::Published));
    world.patches = Patches::Kept;
    world.now += SignedDuration::from_hours(48);
    git_promotes(&mut world);
    world.settle();
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "");
}

#[test]
fn a_baseline_that_is_not_wanted_any_more_is_published_no_more() {
    let mut world = World::new();
    with_model(&mut world, InitialServing::Baseline);
    world.until("the baseline is published", |world| published(world).is_some());
    world.change(|cluster| {
        let model = cluster.models.get_mut(MODEL).expect("it is there");
        model.spec.serving.initial = InitialServing::None;
        *model.metadata.generation.get_or_insert(1) += 1;
    });
    world.settle();
    assert_eq!(published(&world), None, "{}", world.summary());
    is_left_alone(&world);
}
