//! A real Argo CD syncs a model and its requests from Git, by the manifests of `examples/gitops`.

use std::{
    fs,
    path::Path,
    process,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use k8s_openapi::{
    api::{apps::v1::Deployment, core::v1::ConfigMap},
    apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry,
};
use kube::ResourceExt;
use lethe_api::v1alpha1::{BUNDLE_ANNOTATION, DiffusionModel, RequestPhase, Stage, UnlearnRequest};
use lethe_tests::{
    World,
    examples::{self, documents},
    gitops::{ArgoCd, Repository, health},
    place::{MODEL, apply, request},
    server::repository,
    wait,
    world::policy,
};
use serde_json::{Value, json};
use tokio::time::sleep;
use xtask::setup::argocd;

/// The namespace that `examples/gitops` names.
const STUDIO: &str = "studio";
const MODELS: &str = "digits";
const REQUESTS: &str = "digits-requests";
/// For how long nothing may be out of sync, at least, and how often that is asked for besides.
const WATCHED: Duration = Duration::from_secs(600);
const COMPARE_EVERY: Duration = Duration::from_secs(15);

pub async fn what_is_in_git_is_synced_and_its_health_is_that_of_the_request(world: &World) -> Result<()> {
    let world = &World::new(world.server.clone(), STUDIO).await?;
    world.start_operator().await?;
    world.await_service_account().await?;
    let git = repository_of(world)?;
    let argo = ArgoCd::start(&world.server).await?;
    let server = &world.server;
    apply(&server.client, "argocd", &of_gitops("argocd-cm.yaml")?[0]).await?;
    for application in applications(&git)? {
        apply(&server.client, "argocd", &application).await?;
    }
    argo.until("lethe-crds", "it is Synced", |data| data["status"]["sync"]["status"] == "Synced").await?;

    argo.is(MODELS, "Progressing").await?;
    world.prepare().await?;
    argo.is(MODELS, "Healthy").await?;
    let since = Instant::now();

    fulfilled_after_an_approval(world, &argo).await?;
    a_second_sync_changes_nothing(world, &argo).await?;
    a_bundle_that_is_in_git_is_not_served(world, &git, &argo).await?;
    degraded_with_the_message(world, &git, &argo).await?;
    pruned_and_still_forgotten(world, &git, &argo).await?;
    // Argo CD compares anew, again and again, and the operator looks at everything as it does all the time.
    while since.elapsed() < WATCHED {
        argo.refresh(MODELS).await?;
        argo.refresh("lethe-crds").await?;
        sleep(COMPARE_EVERY).await;
    }
    // Whatever the operator wrote in all that time: from when the model was first in sync, it always was.
    for application in [MODELS, "lethe-crds"] {
        let seen = argo.seen(application);
        let flaps = seen.iter().skip_while(|seen| seen.sync != "Synced").filter(|seen| seen.sync != "Synced");
        let flaps: Vec<_> = flaps.collect();
        ensure!(flaps.is_empty(), "{application} was {flaps:?}, of {seen:?}");
    }
    git_promotes(world, &git, &argo).await
}

/// The model only publishes from now on, and a job of somebody's CI commits what it says.
async fn git_promotes(world: &World, git: &Repository, argo: &ArgoCd) -> Result<()> {
    let mut application = of_gitops("published.yaml")?.remove(0);
    application["spec"]["source"]["repoURL"] = json!(git.url());
    argo.change(MODELS, json!({"spec": application["spec"]})).await?;
    let mut model = world.model()?;
    model["spec"]["serving"]["promotion"] = json!("Publish");
    git.write("models/digits/model.yaml", &model)?;
    let mut serving = examples::first("serving.yaml")?;
    let before = world.named_bundle().await?.context("something is served")?;
    serving["spec"]["template"]["metadata"]["annotations"] = json!({BUNDLE_ANNOTATION: before});
    git.write("models/digits/serving-0.yaml", &serving)?;
    git.write("requests/digits/forget-five.yaml", &asked("forget-five", "5"))?;
    git.commit("Git promotes what is published")?;
    for application in [MODELS, REQUESTS] {
        argo.refresh(application).await?;
        argo.sync(application).await?;
    }
    approve(world, "forget-five").await?;
    let candidate = world.forget(|_| {}).await?;
    let waits = argo.is(MODELS, "Suspended").await?;
    let message = health(&waits, "DiffusionModel", MODEL)["message"].as_str().unwrap_or_default();
    ensure!(message.contains("is published"), "{message}");
    ensure!(world.named_bundle().await?.as_ref() == Some(&before), "somebody was quicker than Git");

    let script = repository("examples/gitops/promote.sh");
    let args = [MODEL, STUDIO, "models/digits/serving-0.yaml"];
    let said = git.run_in_a_clone(&script, &args, &world.server)?;
    ensure!(said.contains("names sha256:") && said.contains(" now"), "{said}");
    argo.refresh(MODELS).await?;
    world.request_until("forget-five", RequestPhase::Fulfilled).await?;
    world.assert_serves(&candidate).await?;
    argo.is(MODELS, "Healthy").await?;
    let owners = world.api::<Deployment>().get(MODEL).await?.managed_fields().to_vec();
    let named = |owner: &&ManagedFieldsEntry| json!(owner.fields_v1).to_string().contains(BUNDLE_ANNOTATION);
    let said = git.run_in_a_clone(&script, &args, &world.server)?;
    ensure!(said.contains("already"), "it is promoted once: {said}");
    let by: Vec<_> = owners.iter().filter(named).filter_map(|owner| owner.manager.clone()).collect();
    ensure!(by == ["argocd-controller"], "what is served was changed by {by:?}");
    Ok(())
}

async fn fulfilled_after_an_approval(world: &World, argo: &ArgoCd) -> Result<()> {
    let waits = argo.is(REQUESTS, "Suspended").await?;
    let message = health(&waits, "UnlearnRequest", "forget-three")["message"].as_str().unwrap_or_default();
    ensure!(message.contains("0 of 1 approvals"), "{message}");
    flux_sees(world, "forget-three", "InProgress", "0 of 1 approvals").await?;
    approve(world, "forget-three").await?;
    let task = world.task(Stage::Forget).await?;
    argo.is(REQUESTS, "Progressing").await?;
    world.succeed(&task).await?;
    world.evaluate(|_| {}).await?;
    world.request_until("forget-three", RequestPhase::Fulfilled).await?;
    argo.is(REQUESTS, "Healthy").await?;
    flux_sees(world, "forget-three", "Current", "").await?;
    argo.is(MODELS, "Healthy").await.map(|_| ())
}

/// What Flux makes of a request.
async fn flux_sees(world: &World, name: &str, status: &str, words: &str) -> Result<()> {
    let program = tokio::task::spawn_blocking(argocd::binary).await??;
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), serde_json::to_vec(&world.api::<UnlearnRequest>().get(name).await?)?)?;
    let said = ask(&program, &["kstatus"], file.path())?;
    let message = said["message"].as_str().unwrap_or_default();
    ensure!(said["status"] == status && message.contains(words), "{name}: expected {status}, got {said}");
    Ok(())
}

/// With server-side apply and without, and back.
async fn a_second_sync_changes_nothing(world: &World, argo: &ArgoCd) -> Result<()> {
    let of_model = argo.is(MODELS, "Healthy").await?["spec"]["syncPolicy"]["syncOptions"].take();
    let before = Stand::of(world).await?;
    for _ in 0..2 {
        argo.sync(MODELS).await?;
        argo.sync(REQUESTS).await?;
    }
    let after = Stand::of(world).await?;
    ensure!(before == after, "{before:?} became {after:?}");
    for (application, other) in [(MODELS, json!([])), (REQUESTS, json!(["ServerSideApply=true"]))] {
        argo.change(application, json!({"spec": {"syncPolicy": {"syncOptions": other}}})).await?;
        argo.sync(application).await?;
        argo.is(application, "Healthy").await?;
    }
    for (application, as_before) in [(MODELS, of_model), (REQUESTS, Value::Null)] {
        argo.change(application, json!({"spec": {"syncPolicy": {"syncOptions": as_before}}})).await?;
        argo.sync(application).await?;
        argo.is(application, "Healthy").await?;
    }
    // It is noted in the objects who has applied them how, and nothing else.
    let other = Stand::of(world).await?;
    ensure!(before.specs == other.specs, "{before:?} became {other:?}");
    Ok(())
}

/// What a sync could change.
#[derive(Debug, PartialEq)]
struct Stand {
    /// Of the Deployment, the model and the request.
    specs: [Value; 3],
    /// Of the model and the request. Server-side apply notes in a Deployment each time that it was there.
    versions: [Option<String>; 2],
}

impl Stand {
    async fn of(world: &World) -> Result<Self> {
        let deployment = world.api::<Deployment>().get(MODEL).await?;
        let model = world.api::<DiffusionModel>().get(MODEL).await?;
        let asked = world.api::<UnlearnRequest>().get("forget-three").await?;
        Ok(Self {
            specs: [json!(deployment.spec), json!(model.spec), json!(asked.spec)],
            versions: [model.resource_version(), asked.resource_version()],
        })
    }
}

/// The Application ignores what the operator's field manager owns.
async fn a_bundle_that_is_in_git_is_not_served(world: &World, git: &Repository, argo: &ArgoCd) -> Result<()> {
    let before = Stand::of(world).await?;
    let mut serving = examples::first("serving.yaml")?;
    let other = lethe_api::Digest::of("an older bundle");
    serving["spec"]["template"]["metadata"]["annotations"] = json!({BUNDLE_ANNOTATION: other});
    git.write("models/digits/serving-0.yaml", &serving)?;
    git.commit("serve an older bundle")?;
    argo.refresh(MODELS).await?;
    argo.sync(MODELS).await?;
    argo.is(MODELS, "Healthy").await?;
    let after = Stand::of(world).await?;
    ensure!(before.specs == after.specs, "{before:?} became {after:?}");
    Ok(())
}

async fn degraded_with_the_message(world: &World, git: &Repository, argo: &ArgoCd) -> Result<()> {
    git.write("requests/digits/forget-four.yaml", &asked("forget-four", "4"))?;
    git.commit("forget the four")?;
    argo.refresh(REQUESTS).await?;
    approve(world, "forget-four").await?;
    world.forget(|measured| measured.targets.iter_mut().for_each(|target| target.leak.hits = 30)).await?;
    world.request_until("forget-four", RequestPhase::Held).await?;
    let held = argo.is(REQUESTS, "Degraded").await?;
    let said = health(&held, "UnlearnRequest", "forget-four");
    let message = said["message"].as_str().unwrap_or_default();
    ensure!(said["status"] == "Degraded" && message.contains("direct-leak"), "{said}");
    flux_sees(world, "forget-four", "Failed", "direct-leak").await?;
    // What is served passed its gates.
    argo.is(MODELS, "Healthy").await.map(|_| ())
}

async fn pruned_and_still_forgotten(world: &World, git: &Repository, argo: &ArgoCd) -> Result<()> {
    let (served, runs) = (world.named_bundle().await?, world.runs().await?.len());
    let ledger = world.ledger().await?;
    ensure!(ledger.len() == 1, "{ledger:?}");
    git.remove("requests/digits/forget-three.yaml")?;
    git.remove("requests/digits/forget-four.yaml")?;
    git.write("requests/digits/note.yaml", &json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "note"}, "data": {"note": "nothing is asked for"},
    }))?;
    git.commit("both requests are answered")?;
    argo.refresh(REQUESTS).await?;
    for name in ["forget-three", "forget-four"] {
        wait::until_gone(&world.api::<UnlearnRequest>(), name, None).await?;
    }
    argo.is(REQUESTS, "Healthy").await?;
    let archive = world.api::<ConfigMap>().get("digits-lethe-ledger").await?;
    ensure!(archive.data.is_some_and(|data| data.values().any(|text| text.contains("\"3\""))), "no archive");
    ensure!(world.ledger().await? == ledger, "the ledger changed");
    ensure!(world.named_bundle().await? == served, "something else is served");
    ensure!(world.runs().await?.len() == runs, "another run was made");
    Ok(())
}

async fn approve(world: &World, name: &str) -> Result<()> {
    world.request_until(name, RequestPhase::AwaitingApproval).await?;
    let uid = world.api::<UnlearnRequest>().get(name).await?.uid();
    let approval = json!({
        "apiVersion": "lethe.dev/v1alpha1", "kind": "UnlearnApproval", "metadata": {"name": format!("{name}-bob")},
        "spec": {
            "requestRef": {"name": name, "uid": uid},
            "decision": "Approve", "approver": "bob", "reason": "it is lawful",
        },
    });
    world.apply(&approval).await?;
    Ok(())
}

/// As whoever Argo CD is to the API server.
fn asked(name: &str, label: &str) -> Value {
    let mut asked = request(name, &[label], "8");
    asked["spec"]["requestedBy"] = json!("system:serviceaccount:argocd:argocd-application-controller");
    asked
}

/// The charts, and the examples as a team would lay them out: a policy that asks for an approval, the Deployment, the model and
/// a request.
fn repository_of(world: &World) -> Result<Repository> {
    let git = Repository::new()?;
    git.copy("charts/lethe-crds")?;
    let mut policy = policy()?;
    policy["spec"]["approvals"] = json!({"required": 1});
    git.write("models/digits/policy.yaml", &policy)?;
    for (number, part) in examples::read("serving.yaml")?.iter().enumerate() {
        git.write(&format!("models/digits/serving-{number}.yaml"), part)?;
    }
    git.write("models/digits/model.yaml", &world.model()?)?;
    git.write("requests/digits/forget-three.yaml", &asked("forget-three", "3"))?;
    git.commit("the model, and that it forgets the three")?;
    Ok(git)
}

fn of_gitops(file: &str) -> Result<Vec<Value>> {
    documents(&fs::read_to_string(repository("examples/gitops").join(file))?)
}

/// The Applications as they stand, but for the address of the repository; and without the operator's, which has no node here
/// and runs beside it.
fn applications(git: &Repository) -> Result<Vec<Value>> {
    let mut all = of_gitops("applications.yaml")?;
    all.retain(|application| application["metadata"]["name"] != "lethe");
    ensure!(all.len() == 3, "{} Applications", all.len());
    for application in &mut all {
        application["spec"]["source"]["repoURL"] = json!(git.url());
    }
    Ok(all)
}

/// As upstream tests its own: `health_test.yaml` beside each `health.lua`.
pub async fn the_health_scripts_say_what_their_tests_say(_: &World) -> Result<()> {
    let program = tokio::task::spawn_blocking(argocd::binary).await??;
    let settings = &of_gitops("argocd-cm.yaml")?[0]["data"];
    let mut tests = 0;
    for kind in fs::read_dir(repository("docs/gitops/resource_customizations/lethe.dev"))? {
        let kind = kind?;
        let folder = kind.path();
        let script = folder.join("health.lua");
        let key = format!("resource.customizations.health.lethe.dev_{}", kind.file_name().to_string_lossy());
        let text = fs::read_to_string(&script)?;
        ensure!(settings[&key].as_str() == Some(&text), "argocd-cm.yaml has another script for {key}");
        let file = documents(&fs::read_to_string(folder.join("health_test.yaml"))?)?;
        for test in file[0]["tests"].as_array().context("no tests")? {
            let input = test["inputPath"].as_str().context("no inputPath")?;
            let said = ask(&program, &["health", &script.to_string_lossy()], &folder.join(input))?;
            ensure!(said == test["healthStatus"], "{key}, {input}: {said}, not {}", test["healthStatus"]);
            tests += 1;
        }
    }
    println!("{tests} tests of health scripts");
    ensure!(tests >= 15, "only {tests} tests");
    Ok(())
}

/// What the program says of the object in the file.
fn ask(program: &Path, args: &[&str], object: &Path) -> Result<Value> {
    let said = xtask::cmd::output(process::Command::new(program).args(args).arg(object))?;
    Ok(serde_json::from_str(&said)?)
}
