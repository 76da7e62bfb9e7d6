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
    node::{BASE, add_volume, copy},
    place::HasConditions,
    studio::Studio,
    wait,
    world::policy,
};
use serde_json::{Value, json};
use xtask::{cluster::layout, cmd};

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
    let weights = fs::read(real.join(Manifest::WEIGHTS))?;
    let nan = seal(&folder("nan")?, &with_a_nan(weights.clone()))?;
    let shapes = seal(&folder("shapes")?, &with_other_shapes(&weights)?)?;
    folder("other")?;

    let cases = [
        ("wrong-digest", "other", Digest::of("another base"), "sha256"),
        ("truncated", "truncated", studio.node.base.clone(), "model.safetensors"),
        ("pickle", "pickle", pickle, "pickle"),
        ("nan", "nan", nan, "not finite"),
        ("shapes", "shapes", shapes, "shape"),
        ("missing", "nowhere", studio.node.base.clone(), "nowhere"),
    ];
    for (name, base, digest, _) in &cases {
        apply_model(&place, name, base, digest).await?;
    }
    for (name, _, _, words) in &cases {
        let model = not_prepared(&place, name, Reason::BadArtifact).await?;
        let message = prepared_message(&model)?;
        ensure!(message.contains(words), "{name}: the message does not say {words:?}: {message}");
        let served = model.status.and_then(|status| status.served);
        ensure!(served.is_none(), "{name}: it is said to serve {served:?}");
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

pub async fn a_store_that_is_full_is_named(studio: &Studio) -> Result<()> {
    let folder = studio.node.store("full");
    fs::create_dir_all(&folder)?;
    // Room for the base, and not for a copy of it.
    let inside = Path::new(layout::STORE).join("full").display().to_string();
    let base = Path::new(layout::STORE).join(BASE).display().to_string();
    let script = format!(
        "mount -t tmpfs -o size=$(($(du -sk {base} | cut -f1) + 64))k,mode=0777 none {inside} && \
         mkdir -p {inside}/base && cp -r {base} {inside}/base/"
    );
    cmd::output(&mut studio.node.cluster.exec_command(&["sh", "-c", &script]))?;
    let place = namespace(studio, "full", "full").await?;
    apply_model(&place, "crowded", "digits", &studio.node.base).await?;
    let model = not_prepared(&place, "crowded", Reason::BadConfiguration).await?;
    let message = prepared_message(&model)?;
    ensure!(message.contains("full"), "the message does not say that the store is full: {message}");
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

/// safetensors: the length of a JSON header as eight bytes, the header, the numbers.
fn with_a_nan(mut weights: Vec<u8>) -> Vec<u8> {
    let last = weights.len() - size_of::<f32>();
    weights[last..].copy_from_slice(&f32::NAN.to_le_bytes());
    weights
}

/// The same numbers, with every matrix turned.
fn with_other_shapes(weights: &[u8]) -> Result<Vec<u8>> {
    let (length, rest) = weights.split_first_chunk::<8>().context("the weights have no header")?;
    let (header, numbers) = rest.split_at(usize::try_from(u64::from_le_bytes(*length))?);
    let mut header: serde_json::Map<String, Value> = serde_json::from_slice(header)?;
    for tensor in header.values_mut() {
        if let Some(Value::Array(shape)) = tensor.get_mut("shape") {
            shape.reverse();
        }
    }
    let mut header = serde_json::to_vec(&header)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    Ok([&(header.len() as u64).to_le_bytes()[..], &header, numbers].concat())
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
