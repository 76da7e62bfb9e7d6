//! Where the policy is that a model names.

use lethe_api::v1alpha1::{
    ClusterUnlearnPolicy, ClusterUnlearnPolicySpec, ConditionType, InitialServing, PolicyKind, PolicySource,
    Reason, RequestPhase,
};

use crate::{
    script::{crashes, fixed, model, policy},
    world::World,
};

/// A policy of the cluster that is called like the one of the namespace, and asks for other steps.
fn of_the_cluster(world: &mut World, steps: u32) {
    let mut spec = policy().spec;
    spec.training.forget_steps = Some(steps);
    let mut shared = ClusterUnlearnPolicy::new("standard", ClusterUnlearnPolicySpec(spec));
    world.admit(&mut shared);
    world.change(|cluster| cluster.cluster_policies.insert("standard".into(), shared));
}

/// A model that names the policy of the cluster.
fn names_it(world: &mut World) {
    world.apply_policy(policy());
    world.change(|cluster| cluster.deployment = Some(crate::cluster::deployment("digits", "server")));
    let mut model = model(InitialServing::Baseline);
    model.spec.policy_ref.kind = PolicyKind::ClusterUnlearnPolicy;
    world.apply_model(model);
}

#[test]
fn a_model_is_made_to_forget_under_the_policy_of_the_cluster_that_it_names() {
    let world = crashes(&|world: &mut World| {
        of_the_cluster(world, 77);
        names_it(world);
        world.ask("first", &["3"], fixed("8"));
        world.until("it trains", |world| world.run_for("first").is_some());
        // A run keeps the policy that it began under.
        of_the_cluster(world, 88);
    });
    world.ended("first", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    let run = world.run_for("first").unwrap();
    assert_eq!(run.spec.policy.training.forget_steps, Some(77), "not that of the namespace");
    let kind = PolicyKind::ClusterUnlearnPolicy;
    let source = PolicySource { kind, name: "standard".into(), generation: Some(1) };
    assert_eq!(run.spec.policy_source.as_ref(), Some(&source));
    assert_eq!(world.model().status.as_ref().unwrap().policy.as_ref(), Some(&source));
}

#[test]
fn a_policy_of_the_cluster_that_is_gone_holds_up_what_comes_next_and_says_so() {
    let mut world = World::new();
    names_it(&mut world);
    world.settle();
    let (status, reason, message) = world.model_condition(ConditionType::Ready);
    assert_eq!((status.as_str(), reason.as_str()), ("Unknown", "PolicyNotFound"));
    assert!(message.contains("ClusterUnlearnPolicy \"standard\""), "{message}");
    of_the_cluster(&mut world, 77);
    world.until("it is served", |world| world.model_is(ConditionType::Serving));
    world.change(|cluster| cluster.cluster_policies.clear());
    world.ask("first", &["3"], fixed("8"));
    world.settle();
    let (_, reason, message) = world.condition("first", ConditionType::Accepted);
    assert_eq!(reason, "PolicyNotFound");
    assert!(message.contains("ClusterUnlearnPolicy \"standard\" of model \"digits\""), "{message}");
    assert_eq!(world.model().status.as_ref().unwrap().policy, None);
    of_the_cluster(&mut world, 77);
    world.settle();
    world.ended("first", RequestPhase::Fulfilled, Reason::Fulfilled, "");
}

#[test]
fn a_prepared_model_whose_policy_is_gone_is_served_and_not_ready() {
    let world = crashes(&|world: &mut World| {
        world.ready();
        world.ask("first", &["3"], fixed("8"));
        world.until("it is fulfilled", |world| world.phase("first") == Some(RequestPhase::Fulfilled));
        world.change(|cluster| cluster.policies.clear());
        world.until("the model says so", |world| !world.model_is(ConditionType::Ready));
        assert!(world.model_is(ConditionType::Serving) && world.model_is(ConditionType::Compliant));
    });
    let (status, reason, message) = world.model_condition(ConditionType::Ready);
    assert_eq!((status.as_str(), reason.as_str()), ("Unknown", "PolicyNotFound"), "{message}");
    assert!(
        message.contains("UnlearnPolicy \"standard\"") && message.contains("no run can begin"),
        "{message}"
    );
    let world = crashes(&|world: &mut World| {
        world.ready();
        world.change(|cluster| cluster.policies.clear());
        world.until("the model says so", |world| !world.model_is(ConditionType::Ready));
        world.apply_policy(policy());
    });
    assert!(world.model_is(ConditionType::Ready));
}

#[test]
fn an_operator_of_some_namespaces_says_what_to_do_about_a_policy_of_the_cluster() {
    let mut world = World::new();
    world.watches_all = false;
    of_the_cluster(&mut world, 77);
    names_it(&mut world);
    world.ask("first", &["3"], fixed("8"));
    world.settle();
    let (status, reason, message) = world.model_condition(ConditionType::Ready);
    assert_eq!((status.as_str(), reason.as_str()), ("Unknown", "PolicyNotWatched"));
    assert!(message.contains("name an UnlearnPolicy of this namespace"), "{message}");
    world.change(|cluster| {
        let model = cluster.models.get_mut("digits").unwrap();
        model.spec.policy_ref.kind = PolicyKind::UnlearnPolicy;
    });
    world.settle();
    world.ended("first", RequestPhase::Fulfilled, Reason::Fulfilled, "");
}
