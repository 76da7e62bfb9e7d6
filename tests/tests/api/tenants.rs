//! A tenant: somebody who may create requests, and tries everything else.

use std::{collections::BTreeSet, sync::Arc};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{
    apps::v1::Deployment,
    authentication::v1::TokenRequest,
    core::v1::{ConfigMap, Namespace, Pod, Secret, ServiceAccount},
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
};
use lethe_api::v1alpha1::{
    BUNDLE_ANNOTATION, ClusterUnlearnPolicy, DiffusionModel, Reason, RequestPhase, Stage, UnlearnRequest,
    UnlearnRun,
};
use lethe_tests::{
    Place, Server, Tier, World, examples,
    place::{MODEL, refused, request},
    rights,
    world::policy,
};
use serde_json::{Value, json};

const TENANT: &str = "mallory";

pub async fn whoever_may_only_ask_can_do_nothing_else(_: &World) -> Result<()> {
    // The admission policies are the whole cluster's: they would refuse what other scenarios do.
    let server = Arc::new(tokio::task::block_in_place(Server::start)?);
    let world = World::of_all_namespaces(server).await?;
    rights::admit(&world.server, &world.home).await?;
    let mut careful = policy()?;
    careful["spec"]["approvals"] = json!({"required": 1});
    world.begin_with(careful, world.model()?).await?;
    world.prepare().await?;
    let tenant = tenant_of(&world, &["request"]).await?;

    // What they may. A status that comes with it is not stored.
    let mut asked = asked_by(TENANT);
    asked["status"] = json!({"phase": "Fulfilled", "conditions": []});
    tenant.create(&asked).await.context("the tenant may ask")?;
    world.request_says("theirs", Reason::WaitingForApproval, "").await?;
    tenant.api::<UnlearnRequest>().list(&ListParams::default()).await.context("the tenant may look")?;
    refused(tenant.create(&named("forged", asked_by("alice"))).await, "spec.requestedBy must be mallory")?;

    nothing_else_is_allowed(&tenant, &world).await?;
    another_namespace_is_out_of_reach(&world).await?;
    editors_decide_nothing_and_viewers_write_nothing(&world).await?;

    // Who may approve as well still needs somebody else.
    let uid = world.api::<UnlearnRequest>().get("theirs").await?.uid();
    let approval = |name: &str| {
        json!({
            "apiVersion": "lethe.dev/v1alpha1", "kind": "UnlearnApproval", "metadata": {"name": name},
            "spec": {
                "requestRef": {"name": "theirs", "uid": uid}, "decision": "Approve", "approver": name,
                "reason": "it is lawful",
            },
        })
    };
    refused(tenant.create(&approval(TENANT)).await, "is forbidden")?;
    tenant_of(&world, &["request", "approve"]).await?.create(&approval(TENANT)).await?;
    let bob = rights::person(&world.server, &world.namespace, "bob", &["approve"]).await?;
    Place { client: bob, namespace: world.namespace.clone() }.create(&approval("bob")).await?;
    world.forget(|_| {}).await?;
    let done = world.request_until("theirs", RequestPhase::Fulfilled).await?;
    let by = done.status.unwrap_or_default().approved_by;
    ensure!(by == ["bob"], "{by:?} approved");
    world.take_operator().await?.stop().await.map(|_| ())
}

/// Each of these is refused by the API server, since no role says otherwise.
async fn nothing_else_is_allowed(tenant: &Place, world: &World) -> Result<()> {
    let forbidden = "is forbidden: User \"mallory\" cannot";
    let requests = tenant.api::<UnlearnRequest>();
    let fulfilled = kube::api::Patch::Merge(json!({"status": {"phase": "Fulfilled"}}));
    refused(requests.patch_status("theirs", &Default::default(), &fulfilled).await, forbidden)?;
    let resumed = json!({"spec": {"suspend": true}});
    refused(tenant.patch::<UnlearnRequest>("theirs", resumed).await, forbidden)?;
    refused(tenant.delete::<UnlearnRequest>("theirs").await, forbidden)?;
    let all = requests.delete_collection(&DeleteParams::default(), &ListParams::default()).await;
    refused(all, forbidden)?;
    refused(tenant.delete::<DiffusionModel>(MODEL).await, forbidden)?;
    let unforgotten = kube::api::Patch::Merge(json!({"status": {"ledger": []}}));
    let models = tenant.api::<DiffusionModel>();
    refused(models.patch_status(MODEL, &Default::default(), &unforgotten).await, forbidden)?;
    let other = json!({"spec": {"template": {"metadata": {"annotations": {BUNDLE_ANNOTATION: null}}}}});
    refused(tenant.patch::<Deployment>(MODEL, other).await, forbidden)?;
    let lax = json!({"spec": {"approvals": {"required": 0}}});
    refused(tenant.patch::<lethe_api::v1alpha1::UnlearnPolicy>("standard", lax).await, forbidden)?;

    refused(tenant.api::<Secret>().list(&ListParams::default()).await, forbidden)?;
    refused(tenant.api::<ConfigMap>().list(&ListParams::default()).await, forbidden)?;
    refused(tenant.api::<Pod>().list(&ListParams::default()).await, forbidden)?;
    let token = TokenRequest::default();
    let accounts: Api<ServiceAccount> = Api::namespaced(tenant.client.clone(), &world.home);
    let token = accounts.create_token_request("lethe", &PostParams::default(), &token).await;
    refused(token, forbidden)?;

    let of_lethe = |kind: &str| json!({"apiVersion": "lethe.dev/v1alpha1", "kind": kind});
    let archive = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "digits-lethe-ledger"}, "data": {},
    });
    let mut creations = vec![archive, policy()?, world.model()?, examples::first("teach-job.yaml")?];
    creations.extend(["UnlearnRun", "UnlearnApproval"].map(of_lethe));
    for mut manifest in creations {
        manifest["metadata"]["name"] = json!("theirs");
        refused(tenant.create(&manifest).await, forbidden).with_context(|| manifest["kind"].to_string())?;
    }
    Ok(())
}

/// Who has the chart's roles that aggregate to `edit` and `view`.
async fn editors_decide_nothing_and_viewers_write_nothing(world: &World) -> Result<()> {
    let somebody = async |name: &str, roles: &[&str]| -> Result<Place> {
        let client = rights::person(&world.server, &world.namespace, name, roles).await?;
        Ok(Place { client, namespace: world.namespace.clone() })
    };
    let (editor, viewer) = (somebody("edwin", &["edit", "view"]).await?, somebody("vera", &["view"]).await?);
    let note = json!({"metadata": {"annotations": {"note": "looked at"}}});
    editor.patch::<DiffusionModel>(MODEL, note.clone()).await.context("an editor may edit a model")?;
    for (place, name) in [(&editor, "edwin"), (&viewer, "vera")] {
        let forbidden = format!("is forbidden: User \"{name}\" cannot");
        place.api::<DiffusionModel>().get(MODEL).await.with_context(|| format!("{name} may look"))?;
        let run = world.runs().await?.first().context("there is no run")?.name_any();
        let status = kube::api::Patch::Merge(json!({"status": {"phase": "Failed"}}));
        let none = Default::default();
        refused(place.api::<UnlearnRequest>().patch_status("theirs", &none, &status).await, &forbidden)?;
        refused(place.api::<DiffusionModel>().patch_status(MODEL, &none, &status).await, &forbidden)?;
        refused(place.api::<UnlearnRun>().patch_status(&run, &none, &status).await, &forbidden)?;
        refused(place.patch::<UnlearnRun>(&run, note.clone()).await, &forbidden)?;
        for kind in ["UnlearnRun", "UnlearnApproval"] {
            let manifest =
                json!({"apiVersion": "lethe.dev/v1alpha1", "kind": kind, "metadata": {"name": name}});
            refused(place.create(&manifest).await, &forbidden).context(kind)?;
        }
        let policies: Api<ClusterUnlearnPolicy> = Api::all(place.client.clone());
        refused(policies.list(&ListParams::default()).await, &forbidden)?;
    }
    let forbidden = "is forbidden: User \"vera\" cannot";
    refused(viewer.create(&named("hers", asked_by("vera"))).await, forbidden)?;
    refused(viewer.patch::<DiffusionModel>(MODEL, note).await, forbidden)?;
    refused(viewer.delete::<UnlearnRequest>("theirs").await, forbidden)
}

/// A model of another namespace is neither asked about nor named by a request in one's own.
async fn another_namespace_is_out_of_reach(world: &World) -> Result<()> {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "theirs"}});
    let namespaces: Api<Namespace> = Api::all(world.client.clone());
    namespaces.create(&PostParams::default(), &serde_json::from_value(namespace)?).await?;
    let home = rights::person(&world.server, "theirs", "eve", &["request"]).await?;
    let at_home = Place { client: home.clone(), namespace: "theirs".into() };
    let abroad = Place { client: home, namespace: world.namespace.clone() };
    refused(abroad.create(&asked_by("eve")).await, "is forbidden: User \"eve\" cannot create")?;
    refused(abroad.api::<DiffusionModel>().get(MODEL).await, "is forbidden: User \"eve\" cannot get")?;
    // Unless one asks for strictness, as kubectl does, the API server drops what it does not know.
    let mut crossing = asked_by("eve");
    crossing["spec"]["modelRef"]["namespace"] = json!(world.namespace);
    let stored = at_home.create(&crossing).await?;
    ensure!(stored.data["spec"]["modelRef"] == json!({"name": MODEL}), "{:?}", stored.data);
    let theirs = Place { client: world.client.clone(), namespace: "theirs".into() };
    theirs.request_says("theirs", Reason::ModelNotFound, "does not exist in this namespace").await?;
    ensure!(theirs.runs().await?.is_empty() && theirs.jobs().await?.is_empty(), "something was begun");
    Ok(())
}

pub async fn what_is_asked_for_is_no_path_and_steers_no_terminal(world: &World) -> Result<()> {
    world.begin_ready().await?;
    let tenant = tenant_of(world, &["request"]).await?;
    // A reference becomes part of the path of the operator's own requests.
    for (index, reference) in [
        "../unlearnpolicies/standard",
        "../../../../../../api/v1/secrets",
        "digits/status",
        "digits?watch=true",
        "digits%2Fstatus",
        "digits\n",
        "other/digits",
        ".",
        "Digits",
    ]
    .into_iter()
    .enumerate()
    {
        let mut path = request(&format!("path-{index}"), &["3"], "8");
        path["spec"]["modelRef"]["name"] = json!(reference);
        refused(tenant.create(&path).await, "spec.modelRef.name in body should match")
            .with_context(|| reference.to_owned())?;
    }
    for label in ["3\u{1b}[2J", "3\nReady: True", "\u{9b}31m", "\u{0}"] {
        let steering = request("steering", &[label], "8");
        refused(tenant.create(&steering).await, "label in body should match").context("a target")?;
        let steering = request("steering", &["3"], label);
        refused(tenant.create(&steering).await, "label in body should match").context("an override")?;
    }

    // What is only odd is a label that no model knows.
    let before = names_of_everything(world).await?;
    let odd =
        ["../../etc/passwd", "$(reboot)", "{{ .Values }}", "<b>3</b>", "'; --", "\u{65e5}\u{672c}", "%s%n"];
    for (index, label) in odd.into_iter().enumerate() {
        let name = format!("odd-{index}");
        tenant.create(&request(&name, &[label], "8")).await.with_context(|| label.to_owned())?;
        world.request_says(&name, Reason::UnknownLabel, &format!("{label:?}")).await?;
        world.request_until(&name, RequestPhase::Denied).await?;
    }
    ensure!(names_of_everything(world).await? == before, "an odd label became a name");
    it_goes_on(world, &tenant).await
}

pub async fn what_is_asked_for_is_not_too_large(world: &World) -> Result<()> {
    world.begin_ready().await?;
    let tenant = tenant_of(world, &["request"]).await?;
    let mebibyte = "x".repeat(1 << 20);
    let large = |change: fn(&mut Value, Value), value: Value| {
        let mut manifest = request("large", &["3"], "8");
        change(&mut manifest, value);
        manifest
    };
    let targets: Value = (0..10_000).map(|label| json!({"label": format!("label-{label}")})).collect();
    let cases = [
        (large(|m, v| m["spec"]["targets"] = v, targets), "must have at most 64 items"),
        (large(|m, v| m["spec"]["targets"][0]["label"] = v, json!(mebibyte)), "may not be more than 128"),
        (large(|m, v| m["spec"]["requestedBy"] = v, json!(mebibyte)), "may not be more than 253"),
        (large(|m, v| m["metadata"]["annotations"]["note"] = v, json!(mebibyte)), "262144 bytes"),
        (large(|m, v| m["spec"]["more"] = v, json!(mebibyte.repeat(4))), "limit is 3145728"),
    ];
    for (manifest, words) in cases {
        refused(tenant.create(&manifest).await, words)?;
    }
    // A field that nobody knows is dropped with whatever is in it.
    let stored = tenant.create(&large(|m, v| m["spec"]["more"] = v, json!(mebibyte))).await?;
    ensure!(serde_json::to_string(&stored)?.len() < 10_000, "a mebibyte was stored");
    world.forget(|_| {}).await?;
    world.request_until("large", RequestPhase::Fulfilled).await?;
    it_goes_on(world, &tenant).await
}

/// The operator is the process that was started, it is well, and does what is asked for.
async fn it_goes_on(world: &World, tenant: &Place) -> Result<()> {
    tenant.create(&request("in-earnest", &["7"], "8")).await?;
    let task = world.task(Stage::Forget).await?;
    world.succeed(&task).await?;
    world.evaluate(|_| {}).await?;
    world.request_until("in-earnest", RequestPhase::Fulfilled).await?;
    let operator = world.take_operator().await?;
    let health = operator.get("/healthz").await?;
    ensure!(health.0 == 200, "{health:?}");
    world.keep_operator(operator).await;
    Ok(())
}

/// Names of whatever the operator may have created for a request.
async fn names_of_everything(world: &World) -> Result<BTreeSet<String>> {
    let all = ListParams::default();
    let mut names = BTreeSet::from_iter(world.jobs().await?);
    names.extend(world.api::<UnlearnRun>().list(&all).await?.iter().map(ResourceExt::name_any));
    names.extend(world.api::<ConfigMap>().list(&all).await?.iter().map(ResourceExt::name_any));
    Ok(names)
}

async fn tenant_of(world: &World, roles: &[&str]) -> Result<Place> {
    let client = rights::person(&world.server, &world.namespace, TENANT, roles).await?;
    Ok(Place { client, namespace: world.namespace.clone() })
}

/// A request called `theirs` that says who asks.
fn asked_by(name: &str) -> Value {
    let mut asked = request("theirs", &["3"], "8");
    asked["spec"]["requestedBy"] = json!(name);
    asked
}

fn named(name: &str, mut manifest: Value) -> Value {
    manifest["metadata"]["name"] = json!(name);
    manifest
}
