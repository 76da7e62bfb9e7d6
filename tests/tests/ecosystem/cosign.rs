//! Evidence as cosign sees it, by the commands of `docs/evidence.md`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use lethe_api::v1alpha1::RequestPhase;
use lethe_tests::{World, keys::Key, pages};
use tokio::task::spawn_blocking;
use xtask::setup::{cosign, page_packages};

pub async fn what_is_signed_is_verified_by_cosign_and_nothing_else_is(world: &World) -> Result<()> {
    let (key, other) = (world.key("a")?, world.key("b")?);
    world.set_flags(key.flags(&[&key])?).await;
    world.begin_ready().await?;
    world.request("forget-three", "3", "8").await?;
    let candidate = world.forget_into_the_store().await?;
    world.request_until("forget-three", RequestPhase::Fulfilled).await?;
    let found = world.store.evidence(&candidate, &key.trusted()?).await?;
    let (envelope, _) = found.good.first().context("nothing is signed")?;
    spawn_blocking(page_packages).await??;
    let auditor = Auditor {
        cosign: spawn_blocking(cosign::binary).await??,
        store: world.store_folder(),
        envelope: format!("evidence/{}/{}.json", candidate.hex(), envelope.hex()),
        manifest: format!("bundles/{}/manifest.json", candidate.hex()),
    };
    auditor.verifies(&key, "what the operator signed")?;
    ensure!(auditor.verify(&other).is_err(), "another key is said to have signed it");

    // In the payload and in the signature: what lies around them is no part of what is signed.
    let text = fs::read_to_string(auditor.store.join(&auditor.envelope))?;
    for part in ["\"payload\":\"", "\"sig\":\""] {
        let first = text.find(part).context("not in the envelope")? + part.len();
        for at in [first, first + 20, first + 60] {
            auditor.refuses_a_flip(&key, &auditor.envelope, at)?;
        }
    }
    let size = usize::try_from(fs::metadata(auditor.store.join(&auditor.manifest))?.len())?;
    for at in [0, size / 2, size - 1] {
        auditor.refuses_a_flip(&key, &auditor.manifest, at)?;
    }
    auditor.verifies(&key, "what was put right")
}

/// Somebody with a copy of the store.
struct Auditor {
    cosign: PathBuf,
    store: PathBuf,
    envelope: String,
    manifest: String,
}

impl Auditor {
    fn verifies(&self, key: &Key, what: &str) -> Result<()> {
        let said = self.verify(key).with_context(|| what.to_owned())?;
        ensure!(said.contains("Verified OK"), "{what}: {said}");
        Ok(())
    }

    /// The commands as they stand in the documentation, but for the two names that are to be put in.
    fn verify(&self, key: &Key) -> Result<String> {
        let script = pages::commands("evidence.md", "cosign verify-blob-attestation")?
            .replace("evidence/<bundle>/<sha256>.json", &self.envelope)
            .replace("bundles/<bundle>/manifest.json", &self.manifest);
        ensure!(!script.contains('<'), "something else is to be put in: {script}");
        fs::copy(&key.public, self.store.join("trusted-keys.pem"))?;
        let programs = self.cosign.parent().unwrap_or(Path::new("/")).display().to_string();
        let path = std::env::var("PATH").unwrap_or_default();
        let ran = Command::new("sh")
            .args(["-euc", &script])
            .current_dir(&self.store)
            .env("PATH", format!("{programs}:{path}"))
            .output()?;
        let said =
            format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        ensure!(ran.status.success(), "{}: {said}", ran.status);
        Ok(said)
    }

    fn refuses_a_flip(&self, key: &Key, file: &str, at: usize) -> Result<()> {
        let path = self.store.join(file);
        let good = fs::read(&path)?;
        let mut bad = good.clone();
        // Another letter or digit: what is no base64 any more would be refused by whoever reads it.
        bad[at] = if bad[at] == b'A' { b'B' } else { b'A' };
        fs::write(&path, &bad)?;
        let found = self.verify(key);
        fs::write(&path, &good)?;
        ensure!(found.is_err(), "byte {at} of {file} was changed: {found:?}");
        Ok(())
    }
}
