//! What nothing refers to any more goes from the store, and nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::{Result, ensure};
use k8s_openapi::api::{
    apps::v1::Deployment,
    rbac::v1::{ClusterRole, Role},
};
use kube::Api;
use lethe_api::{
    Digest,
    contract::BundleKind,
    v1alpha1::{DiffusionModel, RequestPhase, Stage, UnlearnRequest, UnlearnRun},
};
use lethe_store::{Error as StoreError, Kind};
use lethe_tests::{
    World, audit,
    collecting::{ACCOUNT, make_old},
    examples,
    place::MODEL,
    rights::Reach,
    trainer, wait,
};

pub async fn what_nothing_refers_to_is_removed_and_a_ledger_keeps_its_own(world: &World) -> Result<()> {
    world.begin_ready().await?;
    world.apply(&examples::first("forget-three.yaml")?).await?;
    let candidate = world.forget_into_the_store().await?;
    world.request_until("forget-three", RequestPhase::Fulfilled).await?;
    let runs = world.runs().await?;
    let of_runs: Vec<Digest> = runs
        .into_iter()
        .flat_map(|run| run.status.unwrap_or_default().jobs)
        .filter_map(|job| job.record)
        .collect();
    ensure!(!of_runs.is_empty(), "no run names a record");
    let stray = world.store.put_blob(b"stray".to_vec()).await?;
    let young = world.store.put_blob(b"young".to_vec()).await?;
    let young_file = world.store_folder().join("blobs").join(young.hex());
    make_old(&world.store_folder(), &young_file)?;

    let said = world.collect(BTreeMap::new(), &[]).await?;
    ensure!(said.contains(stray.as_str()) && !said.contains(young.as_str()), "{said}");
    world.store.get_blob(&stray, 100).await?;

    let said = world.collect(BTreeMap::new(), &["--delete"]).await?;
    ensure!(world.store.get_blob(&stray, 100).await.is_err(), "it is still there: {said}");
    world.store.get_blob(&young, 100).await?;
    are_there(world, &of_runs, &candidate).await?;

    // Of a model that is gone, and of its runs, the archived ledger still names what it was decided by.
    world.delete::<UnlearnRequest>("forget-three").await?;
    world.delete::<DiffusionModel>(MODEL).await?;
    wait::until_gone(&world.api::<DiffusionModel>(), MODEL, None).await?;
    for run in world.runs().await? {
        wait::until_gone(&world.api::<UnlearnRun>(), run.metadata.name.as_deref().unwrap_or_default(), None)
            .await?;
    }
    world.delete::<Deployment>(MODEL).await?;
    // With no model at all, a mistake is more likely than that everything may go.
    let refused = world.collect(BTreeMap::new(), &["--delete"]).await;
    ensure!(refused.as_ref().is_err_and(|e| e.to_string().contains("no DiffusionModel")), "{refused:?}");
    let mut another = world.model()?;
    another["metadata"]["name"] = "another".into();
    world.apply(&another).await?;
    world.collect(BTreeMap::new(), &["--delete"]).await?;
    are_there(world, &of_runs, &candidate).await?;
    it_took_exactly_the_rights_of_the_chart(world).await
}

/// A trainer leaves its checkpoint where the last of a Job's pods was killed, and its bundle whatever comes of that.
pub async fn bundles_that_nothing_names_and_scratch_of_what_is_over_are_removed_once_they_are_old(
    world: &World,
) -> Result<()> {
    world.begin_ready().await?;
    world.request("over", "3", "8").await?;
    let over = world.task(Stage::Forget).await?.digest;
    world.store.scratch(&over).put("checkpoint", b"of a run that is over").await?;
    let candidate = world.forget_into_the_store().await?;
    world.request_until("over", RequestPhase::Fulfilled).await?;
    world.request("at-work", "7", "1").await?;
    let at_work = world.task(Stage::Forget).await?.digest;
    world.store.scratch(&at_work).put("checkpoint", b"of a run at work").await?;
    let stray = trainer::bundle(BundleKind::Generator, "that nothing names")?;
    world.store.put_bundle(&stray).await?;

    let said = world.collect(BTreeMap::new(), &["--delete"]).await?;
    let young = scratch(world).await? == BTreeSet::from([over.clone(), at_work.clone()]);
    ensure!(young && is_there(world, stray.digest()).await?, "something young is gone: {said}");

    make_old(&world.store_folder(), Path::new(""))?;
    let said = world.collect(BTreeMap::new(), &["--delete"]).await?;
    ensure!(scratch(world).await? == BTreeSet::from([at_work.clone()]), "{said}");
    let kept = world.store.scratch(&at_work).get("checkpoint", 1000).await?;
    ensure!(kept.as_deref() == Some(&b"of a run at work"[..]), "{kept:?}");
    ensure!(!is_there(world, stray.digest()).await?, "{said}");
    ensure!(is_there(world, &candidate).await?, "what the ledger names is gone: {said}");
    Ok(())
}

async fn are_there(world: &World, records: &[Digest], candidate: &Digest) -> Result<()> {
    for record in records {
        world.store.get_record(record, 1 << 20).await?;
    }
    world.store.get_bundle(candidate, BundleKind::Generator).await?;
    Ok(())
}

async fn is_there(world: &World, bundle: &Digest) -> Result<bool> {
    match world.store.get_bundle(bundle, BundleKind::Generator).await {
        Ok(_) => Ok(true),
        Err(StoreError::NotFound { .. }) => Ok(false),
        Err(other) => Err(other.into()),
    }
}

/// The plans of which there is any.
async fn scratch(world: &World) -> Result<BTreeSet<Digest>> {
    let items = world.store.inventory().await?.into_iter().filter(|item| item.kind == Kind::Scratch);
    Ok(items.map(|item| item.digest).collect())
}

/// The collector, in one namespace or in all.
pub async fn it_took_exactly_the_rights_of_the_chart(world: &World) -> Result<()> {
    let entries = audit::of(&world.server.audit_log(), &world.home)?;
    let entries: Vec<_> = entries.into_iter().filter(|entry| entry.is_by(ACCOUNT)).collect();
    let forbidden: Vec<_> = entries.iter().filter(|entry| entry.is_forbidden()).collect();
    ensure!(forbidden.is_empty(), "the chart lacks a right: {forbidden:#?}");
    let used: BTreeSet<_> = entries.iter().filter_map(audit::Entry::used).collect();
    let rules = match world.reach {
        Reach::Namespace => {
            Api::<Role>::namespaced(world.client.clone(), &world.home).get(ACCOUNT).await?.rules
        }
        Reach::Cluster => {
            let name = format!("{ACCOUNT}-{}", world.home);
            Api::<ClusterRole>::all(world.client.clone()).get(&name).await?.rules
        }
    };
    let allowed = audit::allowed(&rules.unwrap_or_default());
    ensure!(used == allowed && !used.is_empty(), "it used {used:?} of {allowed:?}");
    Ok(())
}
