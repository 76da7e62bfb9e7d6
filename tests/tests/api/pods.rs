//! The pods that Lethe makes, and those of its chart and examples: what a real API server lets into a namespace, and
//! whom the chart's NetworkPolicies are about.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use lethe_api::{
    contract::Progress,
    v1alpha1::{RequestPhase, Stage, labels},
};
use lethe_tests::{World, examples, place::refused, rights, wait};
use serde_json::{Value, json};

use crate::audits::watchful;

/// The operator's own pods, as the chart labels them.
const OPERATOR: &str = "app.kubernetes.io/name=lethe";
/// Those that collect garbage.
const COLLECTOR: &str = "lethe-collect";

pub async fn a_namespace_that_enforces_restricted_takes_every_pod(world: &World) -> Result<()> {
    let enforce = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    let namespaces: Api<Namespace> = Api::all(world.client.clone());
    namespaces.patch(&world.namespace, &PatchParams::default(), &Patch::Merge(enforce)).await?;
    // That it is enforced, and what that looks like.
    let lax = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "lax"},
        "spec": {"containers": [{"name": "lax", "image": "lax"}]},
    });
    world.await_service_account().await?;
    refused(world.create(&lax).await, "violates PodSecurity \"restricted:latest\"")?;
    let all = live_with_every_pod(world).await?;
    let stages: BTreeSet<_> = all.iter().filter_map(|pod| pod.labels().get(labels::STAGE)).collect();
    ensure!(stages.len() == 4, "pods of stages {stages:?}");
    Ok(())
}

pub async fn nothing_that_trains_measures_or_serves_has_a_token(world: &World) -> Result<()> {
    let all = live_with_every_pod(world).await?;
    let mut have = BTreeSet::new();
    for pod in &all {
        let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        let sources = volumes.filter_map(|volume| volume.projected.as_ref()?.sources.as_ref()).flatten();
        if sources.into_iter().any(|source| source.service_account_token.is_some()) {
            have.insert(
                pod.labels().get("app.kubernetes.io/name").cloned().unwrap_or_else(|| pod.name_any()),
            );
        }
    }
    // The API server mounts one into every pod that does not say otherwise; these two ask it for objects.
    ensure!(
        have == BTreeSet::from(["lethe", COLLECTOR].map(str::to_owned)),
        "a token is in the pods of {have:?}"
    );
    Ok(())
}

pub async fn network_policies_choose_the_pods_that_they_are_for_and_no_others(world: &World) -> Result<()> {
    let all = live_with_every_pod(world).await?;
    let values = ["store.collect.schedule=@weekly"];
    let rendered = rights::render_with(&world.server, &world.home, world.reach, &values)?;
    let policy = |name: &str| {
        let named = |object: &&Value| object["kind"] == "NetworkPolicy" && object["metadata"]["name"] == name;
        rendered.iter().find(named).with_context(|| format!("the chart renders no NetworkPolicy {name}"))
    };
    let both = json!(["Ingress", "Egress"]);
    for (name, types, is_meant) in [
        ("lethe", &both, is_operator as fn(&Pod) -> bool),
        ("lethe-collect", &both, |pod| {
            pod.labels().get("app.kubernetes.io/name").is_some_and(|name| name == "lethe-collect")
        }),
        ("lethe-trainers", &both, |pod| pod.labels().contains_key(labels::STAGE)),
        ("lethe-audits", &json!(["Egress"]), |pod| {
            pod.labels().get(labels::STAGE).is_some_and(|stage| stage == Stage::Audit.as_str())
        }),
    ] {
        let policy = policy(name)?;
        ensure!(policy["metadata"]["namespace"] == world.namespace, "{policy}");
        ensure!(policy["spec"]["policyTypes"] == *types, "{policy}");
        let chosen = chosen(world, &policy["spec"]["podSelector"]).await?;
        let meant: BTreeSet<_> = all.iter().filter(|pod| is_meant(pod)).map(ResourceExt::name_any).collect();
        ensure!(!meant.is_empty() && chosen == meant, "{name} is for {meant:?} and chooses {chosen:?}");
    }

    // To trainers comes the operator, for their progress. From them comes nothing.
    let trainers = &policy("lethe-trainers")?["spec"];
    // Egress is restricted, and to nothing at all.
    ensure!(
        trainers["policyTypes"] == json!(["Ingress", "Egress"]) && trainers.get("egress").is_none(),
        "{trainers}"
    );
    let ingress = trainers["ingress"].as_array().context("no ingress")?;
    ensure!(ingress.len() == 1 && ingress[0]["from"].as_array().is_some_and(|from| from.len() == 1));
    let from = &ingress[0]["from"][0];
    ensure!(
        from["namespaceSelector"] == json!({"matchLabels": {"kubernetes.io/metadata.name": world.home}}),
        "{from}"
    );
    let operators: BTreeSet<_> =
        all.iter().filter(|pod| is_operator(pod)).map(ResourceExt::name_any).collect();
    ensure!(chosen(world, &from["podSelector"]).await? == operators, "{from}");
    let port = json!([{"port": Progress::PORT, "protocol": "TCP"}]);
    ensure!(ingress[0]["ports"] == port, "{ingress:?}");

    // Audits reach the servers of their namespace, and names; no other trainer reaches anything.
    let audits = &policy("lethe-audits")?["spec"];
    let egress = audits["egress"].as_array().context("audits reach nothing")?;
    ensure!(
        egress.len() == 2 && egress[0] == json!({"to": [{"podSelector": {}}], "ports": port}),
        "{audits}"
    );
    let is_names = |asked: &Value| asked["port"] == 53;
    ensure!(egress[1]["ports"].as_array().is_some_and(|ports| ports.iter().all(is_names)), "{audits}");

    // The operator asks the pods of watched namespaces.
    let operator = &policy("lethe")?["spec"];
    let to_pods = operator["egress"].as_array().into_iter().flatten().find(|rule| rule["ports"] == port);
    let to = &to_pods.context("the operator reaches no pods")?["to"][0]["namespaceSelector"];
    ensure!(to["matchExpressions"][0]["values"] == json!([world.namespace]), "{to}");
    let off = rights::render_with(&world.server, &world.home, world.reach, &["networkPolicy.enabled=false"])?;
    ensure!(off.iter().all(|object| object["kind"] != "NetworkPolicy"), "they are not switched off");
    Ok(())
}

pub async fn where_the_store_is_a_bucket_it_and_names_are_what_pods_reach_besides(
    world: &World,
) -> Result<()> {
    let values =
        ["store.collect.schedule=@weekly", "store.uri=s3://lethe/store", "networkPolicy.storePorts={9443}"];
    let bucket = json!({"ports": [{"port": 9443, "protocol": "TCP"}]});
    let egress = |values: &[&str], name: &str| -> Result<Vec<Value>> {
        let rendered = rights::render_with(&world.server, &world.home, world.reach, values)?;
        let policy =
            rendered.into_iter().find(|it| it["kind"] == "NetworkPolicy" && it["metadata"]["name"] == name);
        let rules = policy.with_context(|| format!("no NetworkPolicy {name}"))?["spec"]["egress"].take();
        Ok(rules.as_array().cloned().unwrap_or_default())
    };
    for name in ["lethe", "lethe-collect", "lethe-trainers"] {
        let (on_a_volume, in_a_bucket) = (egress(&values[..1], name)?, egress(&values, name)?);
        ensure!(!on_a_volume.contains(&bucket) && in_a_bucket.contains(&bucket), "{name}: {in_a_bucket:?}");
    }
    let trainers = egress(&values, "lethe-trainers")?;
    let names = json!([{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]);
    ensure!(trainers.len() == 2 && trainers.iter().any(|rule| rule["ports"] == names), "{trainers:?}");
    Ok(())
}

fn is_operator(pod: &Pod) -> bool {
    pod.labels().get("app.kubernetes.io/name").is_some_and(|name| name == "lethe")
}

/// Names of the pods that a selector of a NetworkPolicy chooses, by the API server's own reading of it.
async fn chosen(world: &World, selector: &Value) -> Result<BTreeSet<String>> {
    let labels =
        selector["matchLabels"].as_object().context("a selector without labels chooses every pod")?;
    ensure!(selector.as_object().is_some_and(|all| all.len() == 1), "{selector}");
    let terms: Vec<_> =
        labels.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    let pods = world.api::<Pod>().list(&ListParams::default().labels(&terms.join(","))).await?;
    Ok(pods.iter().map(ResourceExt::name_any).collect())
}

/// Everything of which a pod is made: the chart's Deployment and what its CronJob makes, a server, a preparation, a forgetting,
/// an evaluation, an audit, and the Jobs of `examples/`. Returns the pods that there are then.
async fn live_with_every_pod(world: &World) -> Result<Vec<Pod>> {
    world.begin_with(watchful()?, world.model()?).await?;
    world.prepare().await?;
    let values = ["store.collect.schedule=0 3 * * *"];
    let rendered = rights::render_with(&world.server, &world.home, world.reach, &values)?;
    let of_kind = |kind: &str, name: &str| {
        let is_it = |object: &&Value| object["kind"] == kind && object["metadata"]["name"] == name;
        rendered.iter().find(is_it).with_context(|| format!("the chart renders no {kind} {name}"))
    };
    world.apply(of_kind("Deployment", "lethe")?).await?;
    world.apply(of_kind("ServiceAccount", COLLECTOR)?).await?;
    let collect = &of_kind("CronJob", COLLECTOR)?["spec"]["jobTemplate"]["spec"];
    let collect = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": COLLECTOR}, "spec": collect,
    });
    let jobs = [examples::first("teach-job.yaml")?, examples::first("probe-job.yaml")?, collect];
    for job in &jobs {
        world.create(job).await?;
    }
    world.request("forget-three", "3", "8").await?;
    world.task(Stage::Forget).await?;
    world.forget(|_| {}).await?;
    world.audit(|_| {}).await?;
    world.request_until("forget-three", RequestPhase::Fulfilled).await?;
    let pods = world.api::<Pod>();
    wait::until_any(&pods, OPERATOR, "is the operator's", |_| true).await?;
    let all = wait::until_answer(
        "the Jobs of people have pods",
        async || Ok(pods.list(&ListParams::default()).await?.items),
        |all: &Vec<Pod>| {
            let of_people = |pod: &&Pod| {
                let job = pod.labels().get("job-name").map(String::as_str).unwrap_or_default();
                job == "teach-digits" || job.starts_with("probe-digits-") || job == COLLECTOR
            };
            all.iter().filter(of_people).count() == jobs.len()
        },
    )
    .await?;
    Ok(all)
}
