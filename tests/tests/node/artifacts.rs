//! A base or a store that is not what it should be: the real trainer finds out, and the model says what it is.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use anyhow::{Context, Result, ensure};
use lethe_api::{
    Digest,
    contract::{BundleKind, FileEntry, Manifest},
    v1alpha1::{ConditionType, DiffusionModel, Reason},
};
use lethe_tests::{
    Place, examples,
    node::{add_volume, copy},
    place::HasConditions,
    studio::Studio,
    wait,
    world::policy,
};
use serde_json::json;

pub async fn a_base_that_is_not_what_it_should_be_is_named(studio: &Studio) -> Result<()> {
    let place = namespace(studio, "bad-bases", "").await?;
    let real = studio.node.base_folder();
    let folder = |name: &str| {
        let folder = studio.node.store("base").join(name);
        fs::create_dir_all(&folder)?;
        copy(&real, &folder)?;
        Ok::<_, anyhow::Error>(folder)
    };
    let truncated = folder("truncated")?.join(Manifest::WEIGHTS);
    let length = fs::metadata(&truncated)?.len();
    fs::File::options().write(true).open(&truncated)?.set_len(length / 2)?;
    let pickle = seal(&folder("pickle")?, b"\x80\x02}q\x00(X\x05\x00\x00\x00stepsq\x01K\x01u.")?;
    folder("other")?;

    let cases = [
        ("wrong-digest", "other", Digest::of("another base"), "sha256"),
        ("truncated", "truncated", studio.node.base.clone(), "model.safetensors"),
        ("pickle", "pickle", pickle, "pickle"),
        ("missing", "nowhere", studio.node.base.clone(), "nowhere"),
    ];
    for (name, base, digest, _) in &cases {
        apply_model(&place, name, base, digest).await?;
    }
    for (name, _, _, words) in &cases {
        let model = not_prepared(&place, name, Reason::BadArtifact).await?;
        let message = prepared_message(&model)?;
        ensure!(message.contains(words), "{name}: the message does not say {words:?}: {message}");
    }
    Ok(())
}

pub async fn a_store_that_cannot_be_written_is_named(studio: &Studio) -> Result<()> {
    let folder = studio.node.store("read-only");
    let base = folder.join("base/digits");
    fs::create_dir_all(&base)?;
    copy(&studio.node.base_folder(), &base)?;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o555))?;
    let place = namespace(studio, "read-only", "read-only").await?;
    apply_model(&place, "unwritable", "digits", &studio.node.base).await?;
    let model = not_prepared(&place, "unwritable", Reason::BadConfiguration).await?;
    let message = prepared_message(&model)?;
    let says_so = ["denied", "read-only", "cannot write"].iter().any(|words| message.contains(words));
    ensure!(says_so, "the message does not say that the store cannot be written: {message}");
    Ok(())
}

/// A namespace with the policy, and with the claim on a folder of the node's store.
async fn namespace(studio: &Studio, name: &str, folder: &str) -> Result<Place> {
    studio.node.kubectl(&["create", "namespace", name])?;
    add_volume(&studio.node.cluster, name, folder)?;
    let place = studio.elsewhere(name);
    place.await_service_account().await?;
    place.apply(&policy()?).await?;
    Ok(place)
}

/// A model whose base lies in `base/FOLDER` of the store.
async fn apply_model(place: &Place, name: &str, folder: &str, digest: &Digest) -> Result<()> {
    let mut model = examples::first("model.yaml")?;
    model["metadata"]["name"] = json!(name);
    model["spec"]["base"] = json!({"uri": format!("file:///artifacts/base/{folder}"), "digest": digest});
    place.apply(&model).await?;
    Ok(())
}

async fn not_prepared(place: &Place, name: &str, reason: Reason) -> Result<DiffusionModel> {
    let is = |model: &DiffusionModel| {
        ConditionType::Prepared.find(model.conditions()).is_some_and(|c| c.status == "False")
    };
    let model = wait::until(&place.api::<DiffusionModel>(), name, "it is not Prepared", is).await?;
    let runs = place.runs().await?;
    let run = runs.iter().find(|run| run.spec.model == name).context("it has no run")?;
    let ready = ConditionType::Ready.find(run.conditions()).context("the run has no Ready")?;
    ensure!(ready.reason == reason.to_string(), "{name}: {ready:?}");
    Ok(model)
}

fn prepared_message(model: &DiffusionModel) -> Result<String> {
    let prepared = ConditionType::Prepared.find(model.conditions()).context("no condition Prepared")?;
    Ok(prepared.message.clone())
}

/// Puts other weights into a bundle, with a manifest that is true of them. Returns its digest.
fn seal(folder: &Path, weights: &[u8]) -> Result<Digest> {
    fs::write(folder.join(Manifest::WEIGHTS), weights)?;
    let entry = |file: &str| -> Result<(String, FileEntry)> {
        let bytes = fs::read(folder.join(file))?;
        Ok((file.to_owned(), FileEntry { digest: Digest::of(&bytes), bytes: bytes.len() as u64 }))
    };
    let files = [entry(Manifest::WEIGHTS)?, entry(Manifest::MODEL)?].into();
    let manifest = Manifest { schema: Manifest::SCHEMA.into(), kind: BundleKind::Teacher, files };
    let manifest = serde_json::to_vec(&manifest)?;
    fs::write(folder.join(Manifest::FILE), &manifest)?;
    Ok(Digest::of(manifest))
}
