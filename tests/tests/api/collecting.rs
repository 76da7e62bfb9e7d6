//! What nothing refers to any more goes from the store, and nothing else.

use std::{
    fs::{self, File},
    path::Path,
    time::{Duration, SystemTime},
};

use anyhow::{Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use lethe_api::{
    Digest,
    v1alpha1::{DiffusionModel, RequestPhase, UnlearnRequest, UnlearnRun},
};
use lethe_tests::{
    World, examples,
    operator::said_by,
    place::MODEL,
    rights::{self, Reach},
    wait,
};
use tokio::process::Command;

/// The account of the chart's CronJob.
const ACCOUNT: &str = "lethe-collect";

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

    let said = collect(world, &[]).await?;
    ensure!(said.contains(stray.as_str()) && !said.contains(young.as_str()), "{said}");
    world.store.get_blob(&stray, 100).await?;

    let said = collect(world, &["--delete"]).await?;
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
    let refused = collect(world, &["--delete"]).await;
    ensure!(refused.as_ref().is_err_and(|e| e.to_string().contains("no DiffusionModel")), "{refused:?}");
    let mut another = world.model()?;
    another["metadata"]["name"] = "another".into();
    world.apply(&another).await?;
    collect(world, &["--delete"]).await?;
    for record in &of_runs {
        world.store.get_record(record, 1 << 20).await?;
    }
    Ok(())
}

/// Runs the collector with the rights that the chart gives it, and returns what it says.
async fn collect(world: &World, flags: &[&str]) -> Result<String> {
    let values = ["store.collect.schedule=@weekly"];
    rights::grant_with(&world.server, &world.home, Reach::Namespace, &values).await?;
    let kubeconfig = rights::kubeconfig_of(&world.server, &world.home, ACCOUNT).await?;
    let folder = tempfile::tempdir()?;
    let mut command = Command::new(&world.server.operator);
    command
        .env_clear()
        .env("KUBECONFIG", rights::write(&kubeconfig, folder.path(), "kubeconfig")?)
        .args(["collect", "--log-format=text", "--older-than-hours=1"])
        .arg(format!("--store={}", world.store.uri()))
        .arg(format!("--watch-namespaces={}", world.namespace))
        .args(flags);
    said_by(&mut command).await
}

/// Everything in a folder but one file was written two hours ago.
fn make_old(folder: &Path, but: &Path) -> Result<()> {
    let then = SystemTime::now() - Duration::from_secs(7200);
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            make_old(&path, but)?;
        } else if path != but {
            File::options().write(true).open(&path)?.set_modified(then)?;
        }
    }
    Ok(())
}
