//! What the operator does to the API server: nothing when nothing happens, and nothing that it has no right to,
//! nor a right to anything that it does not do.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use lethe_api::v1alpha1::{
    ConditionType, DiffusionModel, Reason, RequestPhase, Stage, UnlearnApproval, UnlearnRequest, UnlearnRun,
};
use lethe_tests::{
    Server, Tier, World,
    audit::{self, Use},
    examples, kueue,
    operator::{Launch, Operator},
    place::{self, HasConditions, MODEL, bundle, refused, request},
    rights::{self, Reach},
    wait,
    world::policy,
};
use serde_json::json;

use crate::{collecting, policies::of_the_cluster};

/// Renewals of the lease: several polls, and whatever else would show itself.
const LONG_ENOUGH: usize = 8;

pub async fn an_idle_operator_writes_nothing(world: &World) -> Result<()> {
    world.begin_ready().await?;
    world.request("fulfilled", "3", "8").await?;
    world.forget(|_| {}).await?;
    world.request_until("fulfilled", RequestPhase::Fulfilled).await?;
    world.request("held", "7", "1").await?;
    world.forget(|measured| measured.targets[0].leak.hits = 500).await?;
    world.request_until("held", RequestPhase::Held).await?;
    world
        .model_until("its run is over", |m| m.status.as_ref().is_some_and(|s| s.active_run.is_none()))
        .await?;

    // The lease is renewed every two seconds: that is the clock. What was begun ends first.
    let at_rest = wait::until_answer(
        "the operator has come to rest",
        async || {
            let before = other_requests(world)?;
            renewals(world, 2).await?;
            Ok((before.len(), other_requests(world)?.len()))
        },
        |(before, after)| before == after,
    )
    .await?;
    renewals(world, LONG_ENOUGH).await?;
    let new = other_requests(world)?.split_off(at_rest.1);
    ensure!(new.is_empty(), "an idle operator asked for {new:#?}");
    Ok(())
}

/// Everything that the operator asked for, but for its lease and for watches that are opened again.
fn other_requests(world: &World) -> Result<Vec<audit::Entry>> {
    let entries = audit::of(&world.server.audit_log(), &world.home)?;
    Ok(entries.into_iter().filter(|entry| !entry.is_of_a_lease() && entry.verb != "watch").collect())
}

/// Waits until the lease was renewed this many times.
async fn renewals(world: &World, times: usize) -> Result<()> {
    let count = async || {
        let entries = audit::of(&world.server.audit_log(), &world.home)?;
        Ok(entries.iter().filter(|entry| entry.is_of_a_lease() && entry.verb == "patch").count())
    };
    let enough = count().await? + times;
    wait::until_answer("the lease was renewed", count, |renewed| *renewed >= enough).await?;
    Ok(())
}

pub async fn every_right_is_used_and_none_is_missing(world: &World) -> Result<()> {
    // What is watched begins with what there is: it is listed only where the API server does not do that.
    a_life_takes_exactly_the_rights_of_the_chart(world, Lists::Streamed).await
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Lists {
    Streamed,
    PageByPage,
}

pub async fn an_operator_of_all_namespaces_has_exactly_the_same_rights(_: &World) -> Result<()> {
    // It would meddle with the other scenarios: it has a server of its own, which the thread that started it keeps
    // alive.
    let server = Arc::new(tokio::task::block_in_place(Server::that_streams_no_lists)?);
    let world = World::of_all_namespaces(server).await?;
    let life = async {
        a_life_takes_exactly_the_rights_of_the_chart(&world, Lists::PageByPage).await?;
        what_kueue_writes_is_read_with_the_rights_of_the_chart(&world).await?;
        world.apply(&world.model()?).await?;
        world.collect(BTreeMap::new(), &[]).await?;
        collecting::it_took_exactly_the_rights_of_the_chart(&world).await
    };
    life.await.with_context(|| xtask::cmd::tail(&world.operator_log()))
}

/// Kueue's words are a kind of its own, which the operator lists and watches only where it is told to.
async fn what_kueue_writes_is_read_with_the_rights_of_the_chart(world: &World) -> Result<()> {
    kueue::define_workloads(world).await?;
    kueue::start_operator(world).await?;
    let wanted = ["list", "watch"].map(|verb| (verb.to_owned(), "kueue.x-k8s.io/workloads".to_owned()));
    let used = async || {
        let entries = audit::of(&world.server.audit_log(), &world.home)?;
        Ok(entries.iter().filter_map(audit::Entry::used).collect::<BTreeSet<Use>>())
    };
    let is_read = |used: &BTreeSet<Use>| wanted.iter().all(|right| used.contains(right));
    wait::until_answer("Workloads are listed and watched", used, is_read).await?;
    let granted = granted(world).await?;
    let of_kueue = granted.iter().filter(|(_, resource)| resource.starts_with("kueue"));
    ensure!(of_kueue.eq(&wanted), "{granted:?}");
    let entries = audit::of(&world.server.audit_log(), &world.home)?;
    let forbidden: Vec<_> = entries.iter().filter(|entry| entry.is_forbidden()).collect();
    ensure!(forbidden.is_empty(), "the chart lacks a right: {forbidden:#?}");
    world.take_operator().await?.stop().await.map(|_| ())
}

async fn a_life_takes_exactly_the_rights_of_the_chart(world: &World, lists: Lists) -> Result<()> {
    live_a_full_life(world).await?;
    let entries = audit::of(&world.server.audit_log(), &world.home)?;
    let forbidden: Vec<_> = entries.iter().filter(|entry| entry.is_forbidden()).collect();
    ensure!(forbidden.is_empty(), "the chart lacks a right: {forbidden:#?}");
    let used: BTreeSet<Use> = entries.iter().filter_map(audit::Entry::used).collect();
    let granted = granted(world).await?;
    let is_streamed = |(verb, resource): &Use| {
        let is_kept = resource.starts_with("lethe.dev/") || resource == "batch/jobs";
        lists == Lists::Streamed
            && verb == "list"
            && is_kept
            && used.contains(&("watch".into(), resource.clone()))
    };
    let unused: Vec<_> = granted.difference(&used).filter(|right| !is_streamed(right)).collect();
    ensure!(unused.is_empty(), "the chart gives rights that nobody uses: {unused:?}");
    Ok(())
}

pub async fn the_chart_reads_no_secrets_and_has_no_wildcards(world: &World) -> Result<()> {
    rights::grant(&world.server, &world.home, world.reach).await?;
    for (verb, resource) in granted(world).await? {
        ensure!(!verb.contains('*') && !resource.contains('*'), "{verb} on {resource}");
        ensure!(!resource.contains("secrets"), "{verb} on {resource}");
    }
    Ok(())
}

/// Everything that an operator does in its life: all of the chart's rights are for something in here.
async fn live_a_full_life(world: &World) -> Result<()> {
    world.await_service_account().await?;
    world.start_operator().await?;
    world.apply(&world.model()?).await?;
    world.model_until("it lacks its policy", |m| m.seen().is_some()).await?;
    world.apply(&examples::first("serving.yaml")?).await?;
    let mut forgetful = policy()?;
    forgetful["spec"]["retention"] = json!({"runs": 0});
    forgetful["spec"]["rollout"]["strategy"] = json!("Canary");
    world.apply(&forgetful).await?;
    world.prepare().await?;
    world.request("withdrawn", "5", "6").await?;
    let task = world.task(Stage::Forget).await?;
    world.hold_up_silently(&task, "FailedMount", "no such volume").await?;
    world.request_waits("withdrawn", Reason::PodNotStarted, "FailedMount: no such volume").await?;
    world.delete::<UnlearnRequest>("withdrawn").await?;
    wait::until_gone(&world.api::<Pod>(), &task.pod.name_any(), None).await?;
    wait::until_gone(&world.api::<UnlearnRun>(), &task.plan.run, None).await?;
    // Between a status and what follows from it, an operator that starts anew asks whether the status still holds.
    world.take_operator().await?.kill().await?;
    let life = async {
        world.request("first", "3", "8").await?;
        let candidate = world.forget(|_| {}).await?;
        world.request_until("first", RequestPhase::Fulfilled).await?;
        Ok(candidate)
    };
    let candidate = world.dying(life).await?;
    world.start_operator().await?;
    // Twice the same drift: the second time its event is counted, not published anew.
    for _ in 0..2 {
        world.drift(None).await?;
        wait::until(&world.api::<Deployment>(), MODEL, "it was healed", |d| {
            bundle(d).as_deref() == Some(candidate.as_str())
        })
        .await?;
        world.model_until("it is Ready again", is_serving).await?;
    }
    world.delete::<DiffusionModel>(MODEL).await?;
    wait::until_gone(&world.api::<DiffusionModel>(), MODEL, None).await?;
    let mut model = world.model()?;
    if world.reach == Reach::Cluster {
        model["spec"]["policyRef"]["kind"] = json!("ClusterUnlearnPolicy");
    }
    world.apply(&model).await?;
    if world.reach == Reach::Cluster {
        world.model_until("it lacks the cluster's policy", |m| m.seen().is_some()).await?;
        place::apply(&world.client, None, &of_the_cluster()?).await?;
    }
    world.prepare().await?;
    world.take_operator().await?.stop().await.map(|_| ())
}

/// By a Role in each, and nothing that is the cluster's.
pub async fn an_operator_of_two_namespaces_works_in_both_and_in_no_other(world: &World) -> Result<()> {
    let second = World::new(world.server.clone(), "second-of-two").await?;
    let other = World::new(world.server.clone(), "none-of-two").await?;
    let both = format!("{},{}", world.namespace, second.namespace);
    let values = format!("watchNamespaces={{{both}}}");
    // These alone say where it works.
    rights::grant_with(&world.server, &world.home, Reach::Cluster, &[&values]).await?;
    let launch = Launch { watch: Some(both), ..world.launch().await? };
    world.keep_operator(Operator::start(&launch)?).await;
    for place in [&other, world, &second] {
        place.lay_out(policy()?, place.model()?).await?;
    }
    world.task(Stage::Prepare).await?;
    second.task(Stage::Prepare).await?;
    let unseen = other.api::<DiffusionModel>().get(MODEL).await?;
    ensure!(unseen.seen().is_none(), "it was looked at: {:?}", unseen.status);
    let asked = audit::of(&world.server.audit_log(), &world.home)?;
    let forbidden: Vec<_> = asked.iter().filter(|entry| entry.is_forbidden()).collect();
    ensure!(forbidden.is_empty(), "it has no right to {forbidden:#?}");
    Ok(())
}

fn is_serving(model: &DiffusionModel) -> bool {
    let conditions = model.conditions();
    ConditionType::Ready.is_true(conditions)
}

/// Every verb on every resource that the chart's Roles give.
async fn granted(world: &World) -> Result<BTreeSet<Use>> {
    Ok(audit::allowed(&rights::rules(&world.server, &world.home, world.reach).await?))
}

pub async fn nobody_asks_approves_or_decides_in_anothers_name(_: &World) -> Result<()> {
    // The policies are the whole cluster's: they would refuse what other scenarios do.
    let server = Arc::new(tokio::task::block_in_place(Server::start)?);
    let world = World::of_all_namespaces(server).await?;
    rights::admit(&world.server, &world.home).await?;
    let namespace = &world.namespace;
    let (alice, bob) =
        (rights::speak_as(&world.server, "alice").await?, rights::speak_as(&world.server, "bob").await?);
    let asked_by = |name: &str| {
        let mut asked = request("forget-three", &["3"], "8");
        asked["spec"]["requestedBy"] = json!(name);
        asked
    };
    // A policy takes a moment to come into force.
    let requests: Api<UnlearnRequest> = Api::namespaced(alice.clone(), namespace);
    let forged = serde_json::from_value(asked_by("bob"))?;
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    wait::until_answer(
        "alice cannot ask as bob",
        async || Ok(requests.create(&dry_run, &forged).await.err().map(|error| error.to_string())),
        |refused| refused.as_ref().is_some_and(|words| words.contains("spec.requestedBy must be alice")),
    )
    .await?;
    place::apply(&alice, &**namespace, &asked_by("alice")).await?;
    let asked = requests.get("forget-three").await?;

    let approval = |name: &str, approver: &str| {
        json!({
            "apiVersion": "lethe.dev/v1alpha1", "kind": "UnlearnApproval", "metadata": {"name": name},
            "spec": {
                "requestRef": {"name": "forget-three", "uid": asked.metadata.uid}, "decision": "Approve",
                "approver": approver, "reason": "it is lawful",
            },
        })
    };
    refused(
        place::apply(&alice, &**namespace, &approval("forged", "bob")).await,
        "spec.approver must be alice",
    )?;
    place::apply(&bob, &**namespace, &approval("good", "bob")).await?;
    let edit = Patch::Merge(json!({"spec": {"decision": "Deny"}}));
    let approvals: Api<UnlearnApproval> = Api::namespaced(bob.clone(), namespace);
    let edited = approvals.patch("good", &PatchParams::default(), &edit).await;
    refused(edited, "an approval is immutable")?;

    let forged = Patch::Merge(json!({"status": {"phase": "Fulfilled"}}));
    wait::until_answer(
        "alice cannot write a status",
        async || {
            let written = requests.patch_status("forget-three", &PatchParams::default(), &forged).await;
            Ok(written.err().map(|error| error.to_string()).unwrap_or_default())
        },
        |error: &String| error.contains("only the operator writes what it decided"),
    )
    .await?;

    place::apply(&bob, &**namespace, &world.model()?).await?;
    let models: Api<DiffusionModel> = Api::namespaced(bob.clone(), namespace);
    let forged = Patch::Merge(json!({"status": {"ledger": []}}));
    let written = models.patch_status(MODEL, &PatchParams::default(), &forged).await;
    refused(written, "only the operator writes what it decided")?;

    let run = json!({
        "apiVersion": "lethe.dev/v1alpha1", "kind": "UnlearnRun", "metadata": {"name": "digits-1"},
        "spec": {
            "model": MODEL, "type": "Prepare", "policy": policy()?["spec"], "plan": "{}",
            "planDigest": format!("sha256:{}", "0".repeat(64)),
        },
    });
    refused(place::apply(&bob, &**namespace, &run).await, "only the operator writes what it decided")?;

    // The operator itself may, and what bob said counts.
    world.await_service_account().await?;
    rights::grant(&world.server, &world.home, world.reach).await?;
    world.start_operator().await?;
    let mut policy = policy()?;
    policy["spec"]["approvals"] = json!({"required": 1});
    for manifest in [policy, examples::first("serving.yaml")?, world.model()?] {
        world.apply(&manifest).await?;
    }
    world.prepare().await?;
    world.forget(|_| {}).await?;
    let fulfilled = world.request_until("forget-three", RequestPhase::Fulfilled).await?;
    let by = fulfilled.status.unwrap_or_default().approved_by;
    ensure!(by == ["bob"], "{by:?}");
    world.take_operator().await?.stop().await.map(|_| ())
}
