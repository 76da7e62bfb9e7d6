//! A real Argo CD syncs the charts, a model and its requests from Git, by the manifests of `examples/gitops`.

mod judges;
mod waves;

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use k8s_openapi::{
    api::{apps::v1::Deployment, core::v1::ConfigMap},
    apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry,
};
use kube::ResourceExt;
use lethe_api::{
    Digest,
    v1alpha1::{BUNDLE_ANNOTATION, DiffusionModel, RequestPhase, Stage, UnlearnRequest, UnlearnRun},
};
use lethe_tests::{
    Server, Tier, World,
    examples::{self, documents},
    gitops::{self, ArgoCd, Repository, Seen, health},
    keys::Key,
    place::{MODEL, Place, apply, request},
    rights::{self, Reach},
    server::repository,
    wait,
    world::policy,
};
use serde_json::{Value, json};
use tokio::time::sleep;

use judges::flux_sees;
pub use judges::{the_health_scripts_say_what_their_tests_say, what_nobody_has_looked_at_is_in_progress};

/// The namespace that `examples/gitops` names.
const STUDIO: &str = "studio";
/// The Applications there.
const ALL: &str = "lethe-all";
const CRDS: &str = "lethe-crds";
const OPERATOR: &str = "lethe";
const MODELS: &str = "digits";
const REQUESTS: &str = "digits-requests";
/// For how long nothing may be out of sync, at least, and how often that is asked for besides.
const WATCHED: Duration = Duration::from_secs(600);
const COMPARE_EVERY: Duration = Duration::from_secs(15);

/// On an API server that knows nothing of Lethe, and whose admission policies are this test's alone.
pub async fn what_is_in_git_is_synced_and_its_health_is_that_of_the_request(_: &World) -> Result<()> {
    let server = tokio::task::block_in_place(|| Server::without_definitions(Vec::new(), Vec::new()))?;
    let world = World::of_nothing(Arc::new(server), Reach::Namespace, STUDIO.into(), STUDIO.into())?;
    match synced(&world).await {
        Ok(()) => Ok(()),
        Err(error) => Err(anyhow!("{error:#}\n\n{}", Server::diagnose(&world).await)),
    }
}

async fn synced(world: &World) -> Result<()> {
    let server = &world.server;
    apply(
        &server.client,
        None,
        &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": STUDIO}}),
    )
    .await?;
    world.await_service_account().await?;
    let key = world.key("a")?;
    world.set_flags(key.flags(&[&key])?).await;
    let git = repository_of(world)?;
    let argo = ArgoCd::start(server).await?;
    apply(&server.client, gitops::NAMESPACE, &of_gitops("argocd-cm.yaml")?[0]).await?;
    waves::each_wave_waits_for_the_one_before(world, &git, &argo).await?;
    let since = Instant::now();

    fulfilled_after_an_approval(world, &argo).await?;
    waves::the_operators_chart_is_synced_once(world, &argo).await?;
    a_second_sync_changes_nothing(world, &git, &argo).await?;
    a_bundle_that_is_in_git_is_not_served(world, &git, &argo).await?;
    degraded_with_the_message(world, &git, &argo).await?;
    pruned_and_still_forgotten(world, &key, &git, &argo).await?;
    // Argo CD compares anew, again and again, and the operator looks at everything as it does all the time.
    let watched = [CRDS, OPERATOR, MODELS];
    while since.elapsed() < WATCHED {
        for application in watched.into_iter().chain([REQUESTS]) {
            argo.refresh(application).await?;
        }
        sleep(COMPARE_EVERY).await;
    }
    // Whatever the operator wrote in all that time: from when each was first in sync, it always was.
    for application in watched {
        never_out_of_sync_again(&argo.seen(application))?;
    }
    // A commit that adds or takes out a request is to be synced first.
    let seen = argo.seen(REQUESTS);
    seen.chunk_by(|one, next| one.revision == next.revision).try_for_each(never_out_of_sync_again)?;
    git_promotes(world, &git, &argo).await
}

fn never_out_of_sync_again(seen: &[Seen]) -> Result<()> {
    let flaps = seen.iter().skip_while(|seen| seen.sync != "Synced").filter(|seen| seen.sync != "Synced");
    let flaps: Vec<_> = flaps.collect();
    ensure!(flaps.is_empty(), "it was {flaps:?}, of {seen:?}");
    Ok(())
}

/// The model only publishes from now on, and a job of somebody's CI commits what it says.
async fn git_promotes(world: &World, git: &Repository, argo: &ArgoCd) -> Result<()> {
    waves::write(git, of_gitops("published.yaml")?.remove(0))?;
    let mut model = world.model()?;
    model["spec"]["serving"]["promotion"] = json!("Publish");
    git.write("models/digits/model.yaml", &model)?;
    let mut serving = examples::first("serving.yaml")?;
    let before = world.named_bundle().await?.context("something is served")?;
    serving["spec"]["template"]["metadata"]["annotations"] = json!({BUNDLE_ANNOTATION: before});
    git.write("models/digits/serving-0.yaml", &serving)?;
    git.write("requests/digits/forget-five.yaml", &asked("forget-five", "5"))?;
    git.commit("Git promotes what is published")?;
    argo.refresh(ALL).await?;
    argo.until(MODELS, "it ignores nothing", |data| data["spec"]["ignoreDifferences"] == json!([])).await?;
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
    // What holds other things as well would not be what it was.
    let refused = git.run_in_a_clone(&script, &[MODEL, STUDIO, "applications/digits.yaml"], &world.server);
    ensure!(
        refused.as_ref().is_err_and(|why| format!("{why:#}").contains("a file of its own")),
        "{refused:?}"
    );
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
    flux_sees::<UnlearnRequest>(world, "forget-three", "InProgress", "0 of 1 approvals").await?;
    approve(world, "forget-three").await?;
    let task = world.task(Stage::Forget).await?;
    argo.is(REQUESTS, "Progressing").await?;
    world.succeed(&task).await?;
    world.evaluate(|_| {}).await?;
    world.request_until("forget-three", RequestPhase::Fulfilled).await?;
    argo.is(REQUESTS, "Healthy").await?;
    flux_sees::<UnlearnRequest>(world, "forget-three", "Current", "").await?;
    argo.is(MODELS, "Healthy").await.map(|_| ())
}

/// With server-side apply and without, and back.
async fn a_second_sync_changes_nothing(world: &World, git: &Repository, argo: &ArgoCd) -> Result<()> {
    let before = Stand::of(world).await?;
    for _ in 0..2 {
        argo.sync(MODELS).await?;
        argo.sync(REQUESTS).await?;
    }
    let after = Stand::of(world).await?;
    ensure!(before == after, "{before:?} became {after:?}");
    for mut application in of_gitops("applications.yaml")? {
        application["spec"]["syncPolicy"]["syncOptions"] = match application["metadata"]["name"].as_str() {
            Some(MODELS) => json!([]),
            Some(REQUESTS) => json!(["ServerSideApply=true"]),
            _ => continue,
        };
        waves::write(git, application)?;
    }
    git.commit("apply each the other way")?;
    argo.refresh(ALL).await?;
    for (application, options) in [(MODELS, json!([])), (REQUESTS, json!(["ServerSideApply=true"]))] {
        let is_so = move |data: &Value| data["spec"]["syncPolicy"]["syncOptions"] == options;
        argo.until(application, "it is applied the other way", is_so).await?;
    }
    synced_as_git_says(argo).await?;
    waves::lay_out(git)?;
    git.commit("apply each as before")?;
    synced_as_git_says(argo).await?;
    // It is noted in the objects who has applied them how, and nothing else.
    let other = Stand::of(world).await?;
    ensure!(before.specs == other.specs, "{before:?} became {other:?}");
    Ok(())
}

/// By a commit: the Application above them sets back what somebody changes beside Git.
async fn synced_as_git_says(argo: &ArgoCd) -> Result<()> {
    argo.refresh(ALL).await?;
    argo.until(ALL, "the Applications are as Git says", |data| {
        data["status"]["sync"]["status"] == "Synced"
            && data["status"]["operationState"]["phase"] == "Succeeded"
    })
    .await?;
    for application in [MODELS, REQUESTS] {
        argo.sync(application).await?;
        argo.is(application, "Healthy").await?;
    }
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
    flux_sees::<UnlearnRequest>(world, "forget-four", "Failed", "direct-leak").await?;
    // What is served passed its gates.
    argo.is(MODELS, "Healthy").await.map(|_| ())
}

async fn pruned_and_still_forgotten(world: &World, key: &Key, git: &Repository, argo: &ArgoCd) -> Result<()> {
    let mut proofs = Vec::new();
    for name in ["forget-three", "forget-four"] {
        proofs.push(proof_of(world, name).await?);
    }
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
    let entry = ["\"3\"", ledger[0].digest.as_str(), "forget-three"];
    let is_whole = |text: &String| entry.iter().all(|words| text.contains(words));
    ensure!(archive.data.iter().flat_map(|data| data.values()).any(is_whole), "{:?}", archive.data);
    ensure!(world.ledger().await? == ledger, "the ledger changed");
    for (run, record) in proofs {
        let kept = world.api::<UnlearnRun>().get(&run.name_any()).await?;
        ensure!(kept.uid() == run.uid() && kept.spec == run.spec, "{kept:?} was {run:?}");
        ensure!(kept.status == run.status, "{:?} was {:?}", kept.status, run.status);
        world.store.get_record(&record, 1 << 20).await?;
        let status = run.status.context("it had a status")?;
        let signed =
            world.store.evidence(&status.candidate.context("no candidate")?, &key.trusted()?).await?;
        let named = |(envelope, _): &(Digest, _)| Some(envelope) == status.evidence.as_ref();
        ensure!(signed.bad.is_empty() && signed.good.iter().any(named), "{signed:?}");
    }
    ensure!(world.named_bundle().await? == served, "something else is served");
    ensure!(world.runs().await?.len() == runs, "another run was made");
    Ok(())
}

/// The run that worked for a request, once what came of it is signed, and the record of what was measured.
async fn proof_of(world: &World, name: &str) -> Result<(UnlearnRun, Digest)> {
    let status = world.api::<UnlearnRequest>().get(name).await?.status.context("it has a status")?;
    let (run, record) = (status.run.context("it names no run")?.name, status.record.context("no record")?);
    let is_signed = |run: &UnlearnRun| run.status.as_ref().is_some_and(|status| status.evidence.is_some());
    Ok((wait::until(&world.api(), &run, "it is signed", is_signed).await?, record))
}

/// Who approves is checked: nobody can do it for Bob, whatever rights they have.
async fn approve(world: &World, name: &str) -> Result<()> {
    let client = rights::person(&world.server, STUDIO, "bob", &["approve"]).await?;
    let bob = Place { client, namespace: STUDIO.into() };
    world.request_until(name, RequestPhase::AwaitingApproval).await?;
    let uid = world.api::<UnlearnRequest>().get(name).await?.uid();
    let approval = json!({
        "apiVersion": "lethe.dev/v1alpha1", "kind": "UnlearnApproval", "metadata": {"name": format!("{name}-bob")},
        "spec": {
            "requestRef": {"name": name, "uid": uid},
            "decision": "Approve", "approver": "bob", "reason": "it is lawful",
        },
    });
    bob.create(&approval).await?;
    Ok(())
}

/// As whoever Argo CD is to the API server.
fn asked(name: &str, label: &str) -> Value {
    let mut asked = request(name, &[label], "8");
    asked["spec"]["requestedBy"] = json!(gitops::USER);
    asked
}

/// The charts, and the examples as a team would lay them out: a policy that asks for an approval, the Deployment, the model and
/// a request.
fn repository_of(world: &World) -> Result<Repository> {
    let git = Repository::new()?;
    git.copy("charts/lethe-crds")?;
    git.copy("charts/lethe")?;
    waves::lay_out(&git)?;
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
