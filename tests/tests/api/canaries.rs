//! A candidate beside the serving target: nobody sees it before it was asked, and it leaves nothing behind.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Service};
use kube::ResourceExt;
use lethe_api::{
    Digest,
    contract::Task,
    v1alpha1::{ConditionType, DiffusionModel, Reason, RequestPhase, Stage, UnlearnRequest, labels},
};
use lethe_tests::{
    World,
    place::{HasConditions, MODEL, apply, bundle, refused, request},
    trainer, wait,
};
use serde_json::{Value, json};

use crate::{
    audits::{unserved, watchful},
    crash::every_job_was_made_once,
};

const CANARY: &str = "digits-canary";

/// The policy of `examples/` that asks the live server, but a candidate takes these steps first.
fn careful(steps: Value) -> Result<Value> {
    let mut policy = watchful()?;
    policy["spec"]["rollout"]["strategy"] = json!("Canary");
    policy["spec"]["rollout"]["steps"] = steps;
    Ok(policy)
}

async fn begin(world: &World, steps: Value) -> Result<()> {
    world.begin_with(careful(steps)?, world.model()?).await?;
    world.prepare().await
}

async fn ask(world: &World) -> Result<()> {
    let mut asked = request("forget-three", &["3"], "8");
    asked["spec"]["requestedBy"] = json!("alice");
    world.apply(&asked).await?;
    Ok(())
}

/// A person's word on the candidate of the request at a step.
async fn says(world: &World, who: &str, decision: &str, candidate: &Digest, step: u32) -> Result<()> {
    let asked = world.api::<UnlearnRequest>().get("forget-three").await?;
    let approval = json!({
        "apiVersion": "lethe.dev/v1alpha1", "kind": "UnlearnApproval", "metadata": {"name": format!("{who}-{step}")},
        "spec": {
            "requestRef": {"name": "forget-three", "uid": asked.metadata.uid}, "decision": decision,
            "rollout": {"digest": candidate, "step": step}, "approver": who, "reason": "looked at it",
        },
    });
    world.apply(&approval).await?;
    Ok(())
}

fn pod_labels(deployment: &Deployment) -> Vec<String> {
    let template = deployment.spec.as_ref().and_then(|spec| spec.template.metadata.as_ref());
    template.and_then(|meta| meta.labels.clone()).unwrap_or_default().into_keys().collect()
}

/// Nothing of it is there, and the target names this.
async fn is_gone(world: &World, served: &Digest) -> Result<()> {
    wait::until_gone(&world.api::<Deployment>(), CANARY, None).await?;
    wait::until_gone(&world.api::<Service>(), CANARY, None).await?;
    let named = world.named_bundle().await?;
    ensure!(named.as_deref() == Some(served.as_str()), "the target names {named:?}");
    Ok(())
}

pub async fn a_step_is_one_thing_and_belongs_to_a_canary(world: &World) -> Result<()> {
    let with = |rollout: Value| {
        let mut policy = watchful()?;
        policy["spec"]["rollout"] = rollout;
        Ok::<_, anyhow::Error>(policy)
    };
    let many: Vec<_> = (0..17).map(|_| json!({"weight": 5})).collect();
    let canary = |steps: Value| json!({"strategy": "Canary", "steps": steps});
    for (rollout, words) in [
        (json!({"steps": [{"weight": 5}]}), "steps belong to strategy Canary only"),
        (canary(json!([{}])), "a step is one of weight, pause and approval"),
        (canary(json!([{"weight": 5, "approval": {}}])), "a step is one of weight, pause and approval"),
        (canary(json!([{"weight": 100}])), "should be less than or equal to 99"),
        (canary(json!([{"pause": {"seconds": 0}}])), "should be greater than or equal to 1"),
        (canary(json!([{"approval": {"required": 11}}])), "should be less than or equal to 10"),
        (canary(json!(many)), "must have at most 16 items"),
        (json!({"strategy": "BlueGreen"}), "Unsupported value"),
    ] {
        refused(world.apply(&with(rollout.clone())?).await, words).with_context(|| rollout.to_string())?;
    }
    let all = json!([{"weight": 1}, {"pause": {"seconds": 60}}, {"approval": {}}, {"weight": 99}]);
    world.apply(&with(canary(all))?).await?;
    world.apply(&with(json!({}))?).await?;
    Ok(())
}

/// Goes as far as the audit of the candidate that nobody else sees, and looks at it there.
async fn in_the_dark(world: &World) -> Result<(Digest, trainer::Task)> {
    let candidate = world.forget(|_| {}).await?;
    let task = world.task(Stage::Audit).await?;
    let Task::Audit(audit) = &task.plan.task else { anyhow::bail!("no audit: {:?}", task.plan) };
    ensure!(audit.endpoint == format!("http://{CANARY}:{}", world.kubelet.port()), "{}", audit.endpoint);
    let canary = world.api::<Deployment>().get(CANARY).await?;
    ensure!(bundle(&canary).as_deref() == Some(candidate.as_str()), "it serves something else");
    ensure!(pod_labels(&canary) == [labels::CANARY], "users may see it: {:?}", pod_labels(&canary));
    let service = world.api::<Service>().get(CANARY).await?;
    let selector = service.spec.and_then(|spec| spec.selector).unwrap_or_default();
    ensure!(selector.into_keys().eq([labels::CANARY.to_owned()]), "the audit asks others as well");
    Ok((candidate, task))
}

pub async fn a_candidate_is_asked_unseen_gets_a_share_waits_for_a_person_and_is_served(
    world: &World,
) -> Result<()> {
    begin(world, json!([{"weight": 50}, {"pause": {"seconds": 1}}, {"approval": {}}])).await?;
    ask(world).await?;
    let (candidate, task) = in_the_dark(world).await?;
    world.succeed(&task).await?;
    let waits = |model: &DiffusionModel| {
        let serving = ConditionType::Serving.find(model.conditions());
        serving.is_some_and(|c| c.reason == "WaitingForApproval" && c.message.contains("3/3: approval"))
    };
    let model = world.model_until("it waits for a person", waits).await?;
    let status = model.status.context("no status")?;
    ensure!(status.served.is_some_and(|served| served.digest == trainer::baseline()), "it says too much");
    let canary = world.api::<Deployment>().get(CANARY).await?;
    let target = world.api::<Deployment>().get(MODEL).await?;
    ensure!(pod_labels(&target).iter().all(|label| pod_labels(&canary).contains(label)), "nobody sees it");
    ensure!(bundle(&target).as_deref() == Some(trainer::baseline().as_str()), "the target was changed");
    // Whoever asked may not, nor may anybody approve of another step. An operator that comes anew asks again.
    says(world, "alice", "Approve", &candidate, 3).await?;
    says(world, "bob", "Approve", &candidate, 2).await?;
    world.crash_operator().await?;
    // It puts right what somebody does to it: another copy, which is asked before users get it.
    world.delete::<Deployment>(CANARY).await?;
    let task = world.task(Stage::Audit).await?;
    let Task::Audit(audit) = &task.plan.task else { anyhow::bail!("no audit: {:?}", task.plan) };
    ensure!(audit.endpoint.contains(CANARY), "it asks others: {}", audit.endpoint);
    world.succeed(&task).await?;
    let is_anew = |found: &Deployment| {
        let ready = found.status.as_ref().and_then(|status| status.available_replicas);
        found.uid() != canary.uid() && ready == Some(1) && pod_labels(found).len() > 1
    };
    wait::until(&world.api::<Deployment>(), CANARY, "it is there again", is_anew).await?;
    world.model_until("it waits for a person again", waits).await?;
    says(world, "carol", "Approve", &candidate, 3).await?;
    let task = world.task(Stage::Audit).await?;
    let Task::Audit(audit) = &task.plan.task else { anyhow::bail!("no audit: {:?}", task.plan) };
    ensure!(!audit.endpoint.contains("canary"), "it asks the canary again: {}", audit.endpoint);
    world.succeed(&task).await?;
    world.request_until("forget-three", RequestPhase::Fulfilled).await?;
    world.assert_serves(&candidate).await?;
    is_gone(world, &candidate).await
}

pub async fn a_candidate_that_leaks_unseen_is_taken_away_unseen(world: &World) -> Result<()> {
    world.begin_with(careful(json!([{"weight": 50}]))?, unserved(world)?).await?;
    crate::audits::prepare(world).await?;
    ask(world).await?;
    let (_, task) = in_the_dark(world).await?;
    let mut shown = trainer::honest(&task.plan, &task.digest);
    if let lethe_api::contract::RecordBody::Audit(shown) = &mut shown {
        shown.targets[0].leak.hits = 300;
    }
    world.succeed_with(&task, shown).await?;
    world.request_says("forget-three", Reason::GateFailed, "300 of 3000 samples of the live server").await?;
    world.request_until("forget-three", RequestPhase::Failed).await?;
    wait::until_gone(&world.api::<Deployment>(), CANARY, None).await?;
    wait::until_gone(&world.api::<Service>(), CANARY, None).await?;
    ensure!(world.named_bundle().await?.is_none(), "the target was changed");
    let target = world.api::<Deployment>().get(MODEL).await?;
    ensure!(target.spec.and_then(|spec| spec.replicas) == Some(1), "the target was scaled");
    let compliant = |m: &DiffusionModel| ConditionType::Compliant.is_true(m.conditions());
    world.model_until("it is compliant", compliant).await?;
    Ok(())
}

pub async fn what_somebody_else_has_where_the_canary_should_be_stays(world: &World) -> Result<()> {
    let mut policy = careful(json!([]))?;
    policy["spec"]["rollout"]["progressDeadlineSeconds"] = json!(5);
    world.begin_with(policy, world.model()?).await?;
    world.prepare().await?;
    let theirs = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": CANARY},
        "spec": {"ports": [{"port": 80}], "selector": {"app": "theirs"}},
    });
    world.apply(&theirs).await?;
    ask(world).await?;
    world.forget(|_| {}).await?;
    let says = format!("a Service {CANARY:?} that is not this model's");
    world.request_says("forget-three", Reason::RolloutTimedOut, &says).await?;
    world.request_until("forget-three", RequestPhase::Failed).await?;
    let found = world.api::<Service>().get(CANARY).await?;
    let selector = found.spec.and_then(|spec| spec.selector).unwrap_or_default();
    ensure!(selector.get("app").is_some_and(|app| app == "theirs"), "it was changed");
    ensure!(world.api::<Deployment>().get_opt(CANARY).await?.is_none(), "a Deployment was made beside it");
    Ok(())
}

pub async fn a_canary_that_may_not_be_deleted_does_not_keep_a_target_that_leaks_from_going_back(
    world: &World,
) -> Result<()> {
    keep_the_canary(world).await?;
    begin(world, json!([{"weight": 50}])).await?;
    ask(world).await?;
    let (candidate, task) = in_the_dark(world).await?;
    world.succeed(&task).await?;
    // Asked once more with traffic, it shows what it should have forgotten.
    world.audit(|shown| shown.targets[0].leak.hits = 300).await?;
    let waits = |deployment: &Deployment| bundle(deployment).as_deref() != Some(candidate.as_str());
    wait::until(&world.api::<Deployment>(), MODEL, "the target names the candidate no more", waits).await?;
    ensure!(world.api::<Deployment>().get_opt(CANARY).await?.is_some(), "the rule kept nothing");
    Ok(())
}

/// A rule of the cluster's: nobody deletes what is beside this model's target.
async fn keep_the_canary(world: &World) -> Result<()> {
    let name = format!("keep-{}", world.namespace);
    let api = "admissionregistration.k8s.io/v1";
    let rule = json!({
        "apiVersion": api, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name},
        "spec": {
            "matchConstraints": {"resourceRules": [{
                "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"], "operations": ["DELETE"],
            }]},
            "validations": [{
                "expression": format!("request.namespace != '{}' || request.name != '{CANARY}'", world.namespace),
                "message": "this one stays",
            }],
        },
    });
    let binding = json!({
        "apiVersion": api, "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"]},
    });
    apply(&world.client, None, &rule).await?;
    apply(&world.client, None, &binding).await?;
    Ok(())
}

pub async fn a_model_that_is_deleted_takes_its_canary_with_it(world: &World) -> Result<()> {
    begin(world, json!([{"weight": 50}, {"pause": {"seconds": 3600}}])).await?;
    ask(world).await?;
    let (_, task) = in_the_dark(world).await?;
    world.succeed(&task).await?;
    let pauses = |m: &DiffusionModel| {
        let rollout = m.status.as_ref().and_then(|status| status.rollout.as_ref());
        rollout.and_then(|rollout| rollout.canary.as_ref()).is_some_and(|canary| canary.step == 2)
    };
    world.model_until("it pauses", pauses).await?;
    world.delete::<DiffusionModel>(MODEL).await?;
    wait::until_gone(&world.api::<DiffusionModel>(), MODEL, None).await?;
    is_gone(world, &trainer::baseline()).await
}

pub async fn dying_all_the_time_it_tries_a_candidate_beside_the_target(world: &World) -> Result<()> {
    world.lay_out(careful(json!([{"weight": 50}, {"approval": {}}]))?, world.model()?).await?;
    let life = async {
        world.prepare().await?;
        ask(world).await?;
        let (candidate, task) = in_the_dark(world).await?;
        world.succeed(&task).await?;
        says(world, "carol", "Approve", &candidate, 2).await?;
        world.audit(|_| {}).await?;
        world.request_until("forget-three", RequestPhase::Fulfilled).await?;
        is_gone(world, &candidate).await?;
        world
            .model_until("its run is over", |m| m.status.as_ref().is_some_and(|s| s.active_run.is_none()))
            .await?;
        Ok(candidate)
    };
    let candidate = world.dying(life).await?;
    world.died_more_than(25)?;
    world.assert_serves(&candidate).await?;
    let ledger = world.ledger().await?;
    ensure!(ledger.len() == 1 && ledger[0].digest == candidate, "{ledger:?}");
    every_job_was_made_once(world, &["prepare", "forget", "evaluate", "audit", "audit"]).await
}
