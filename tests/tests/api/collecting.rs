//! What nothing refers to any more goes from the store, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use k8s_openapi::api::{apps::v1::Deployment, rbac::v1::Role};
use kube::Api;
use lethe_api::{
    Digest,
    v1alpha1::{DiffusionModel, RequestPhase, UnlearnRequest, UnlearnRun},
};
use lethe_tests::{
    World, audit,
    collecting::{ACCOUNT, make_old},
    examples,
    place::MODEL,
    wait,
};

pub async fn what_nothing_refers_to_is_removed_and_a_ledger_keeps_its_own(world: &World) -> Result<()> {
    world.begin_ready().await?;
    world.apply(&examples::first("forget-three.yaml")?).await?;
    world.forget(|_| {}).await?;
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
    for record in &of_runs {
        world.store.get_record(record, 1 << 20).await?;
    }

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
    for record in &of_runs {
        world.store.get_record(record, 1 << 20).await?;
    }
    it_took_exactly_the_rights_of_the_chart(world).await
}

async fn it_took_exactly_the_rights_of_the_chart(world: &World) -> Result<()> {
    let entries = audit::of(&world.server.audit_log(), &world.home)?;
    let entries: Vec<_> = entries.into_iter().filter(|entry| entry.is_by(ACCOUNT)).collect();
    let forbidden: Vec<_> = entries.iter().filter(|entry| entry.is_forbidden()).collect();
    ensure!(forbidden.is_empty(), "the chart lacks a right: {forbidden:#?}");
    let used: BTreeSet<_> = entries.iter().filter_map(audit::Entry::used).collect();
    let role = Api::<Role>::namespaced(world.client.clone(), &world.home).get(ACCOUNT).await?;
    let allowed = audit::allowed(&role.rules.unwrap_or_default());
    ensure!(used == allowed && !used.is_empty(), "it used {used:?} of {allowed:?}");
    Ok(())
}
