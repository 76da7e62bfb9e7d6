//! What Argo CD's Lua and Flux's kstatus make of objects of Lethe.

use std::{fs, path::Path, process};

use anyhow::{Context, Result, ensure};
use kube::{Resource, core::NamespaceResourceScope};
use lethe_api::v1alpha1::{DiffusionModel, UnlearnRequest, UnlearnRun};
use lethe_tests::{
    World,
    examples::documents,
    place::{MODEL, request},
    server::repository,
    wait::Kind,
    world::run,
};
use serde_json::Value;
use xtask::setup::argocd;

use super::of_gitops;

/// As upstream tests its own: `health_test.yaml` beside each `health.lua`.
pub async fn the_health_scripts_say_what_their_tests_say(_: &World) -> Result<()> {
    let program = tokio::task::spawn_blocking(argocd::binary).await??;
    let settings = &of_gitops("argocd-cm.yaml")?[0]["data"];
    let mut tests = 0;
    for (group, kind) in customized()? {
        let folder = repository("docs/gitops/resource_customizations").join(&group).join(&kind);
        let script = folder.join("health.lua");
        let key = format!("resource.customizations.health.{group}_{kind}");
        let text = fs::read_to_string(&script)?;
        ensure!(settings[&key].as_str() == Some(&text), "argocd-cm.yaml has another script for {key}");
        let file = documents(&fs::read_to_string(folder.join("health_test.yaml"))?)?;
        for test in file[0]["tests"].as_array().context("no tests")? {
            let input = test["inputPath"].as_str().context("no inputPath")?;
            let said = ask(&program, &["health", &script.to_string_lossy()], &folder.join(input))?;
            ensure!(said == test["healthStatus"], "{key}, {input}: {said}, not {}", test["healthStatus"]);
            tests += 1;
            if group == "lethe.dev" {
                flux_agrees(&program, &folder.join(input), said["status"].as_str().unwrap_or_default())?;
            }
        }
    }
    println!("{tests} tests of health scripts");
    ensure!(tests >= 40, "only {tests} tests");
    Ok(())
}

/// For Flux, nobody waits for people, and a run that was measured and judged is done, whatever the verdict. The API server gives a
/// status to what has none here.
fn flux_agrees(program: &Path, object: &Path, health: &str) -> Result<()> {
    let name = object.file_stem().unwrap_or_default().to_string_lossy();
    let expected = match (&*name, health) {
        ("progressing_new", _) => return Ok(()),
        ("degraded_gate", _) | (_, "Healthy") => "Current",
        ("degraded_requester_unknown", _) | (_, "Progressing" | "Suspended") => "InProgress",
        _ => "Failed",
    };
    let said = ask(program, &["kstatus"], object)?;
    ensure!(said["status"] == expected, "{}: {said}, not {expected}", object.display());
    Ok(())
}

/// Group and kind of everything that has scripts.
fn customized() -> Result<Vec<(String, String)>> {
    let root = repository("docs/gitops/resource_customizations");
    let names = |folder: &Path| -> Result<Vec<String>> {
        fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    };
    let mut found = Vec::new();
    for group in names(&root)? {
        found.extend(names(&root.join(&group))?.into_iter().map(|kind| (group.clone(), kind)));
    }
    Ok(found)
}

/// There is no operator here.
pub async fn what_nobody_has_looked_at_is_in_progress(world: &World) -> Result<()> {
    for manifest in [&request("new", &["3"], "8"), &world.model()?, &run()?] {
        world.apply(manifest).await?;
    }
    flux_sees::<UnlearnRequest>(world, "new", "InProgress", "generation").await?;
    flux_sees::<DiffusionModel>(world, MODEL, "InProgress", "generation").await?;
    flux_sees::<UnlearnRun>(world, "digits-00000000", "InProgress", "generation").await
}

/// What Flux makes of an object.
pub async fn flux_sees<K>(world: &World, name: &str, status: &str, words: &str) -> Result<()>
where
    K: Kind + Resource<Scope = NamespaceResourceScope>,
{
    let program = tokio::task::spawn_blocking(argocd::binary).await??;
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), serde_json::to_vec(&world.api::<K>().get(name).await?)?)?;
    let said = ask(&program, &["kstatus"], file.path())?;
    let message = said["message"].as_str().unwrap_or_default();
    ensure!(said["status"] == status && message.contains(words), "{name}: expected {status}, got {said}");
    Ok(())
}

/// What the program says of the object in the file.
fn ask(program: &Path, args: &[&str], object: &Path) -> Result<Value> {
    let said = xtask::cmd::output(process::Command::new(program).args(args).arg(object))?;
    Ok(serde_json::from_str(&said)?)
}
