//! What the pages about evidence and the audit log have people check with programs that are not ours, as it stands there.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use lethe_api::{Digest, v1alpha1::RequestPhase};
use lethe_tests::{World, audit_log::ORIGIN, examples, keys::Key, pages};
use serde_json::Value;
use tempfile::TempDir;

/// Somebody has a copy of the store, and the file of keys that they trust.
struct Auditor {
    store: TempDir,
    bundle: Digest,
}

impl Auditor {
    /// After a request was fulfilled by an operator that signs and keeps a log.
    async fn visits(world: &World) -> Result<(Self, Key)> {
        let key = world.keep_log().await?;
        world.begin_ready().await?;
        world.apply(&examples::first("forget-three.yaml")?).await?;
        let bundle = world.forget_into_the_store().await?;
        world.request_until("forget-three", RequestPhase::Fulfilled).await?;
        world.take_operator().await?.stop().await?;
        let store = tempfile::tempdir()?;
        let everything = world.store_folder().join(".");
        let copied = Command::new("cp").arg("-r").arg(everything).arg(store.path()).status()?;
        ensure!(copied.success(), "the store is not copied: {copied}");
        for place in ["", "log"] {
            fs::copy(&key.public, store.path().join(place).join("trusted-keys.pem"))?;
        }
        Ok((Self { store, bundle }, key))
    }

    /// The file of the evidence about the bundle, as its path in the store.
    fn envelope(&self) -> Result<String> {
        let folder = format!("evidence/{}", self.bundle.hex());
        let mut files = fs::read_dir(self.store.path().join(&folder))?;
        let file = files.next().context("there is no evidence")??.file_name();
        Ok(format!("{folder}/{}", file.to_string_lossy()))
    }

    /// Types the commands in a folder of the store. Returns what they said.
    fn types(&self, folder: &str, script: &str) -> Result<String> {
        let shell = Command::new("bash")
            .args(["-euo", "pipefail", "-c", script])
            .current_dir(self.store.path().join(folder))
            .output()?;
        let said = [shell.stdout, shell.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        ensure!(shell.status.success(), "{}: {said}", shell.status);
        Ok(said)
    }

    /// Does it once more with another byte at the end of the file but for `back`, and has to be told so.
    fn notices_another_byte(&self, file: &Path, back: usize, folder: &str, script: &str) -> Result<()> {
        let good = fs::read(file)?;
        let mut bad = good.clone();
        let at = bad.len().checked_sub(back).context("the file is too short")?;
        bad[at] = if bad[at] == b'A' { b'B' } else { b'A' };
        fs::write(file, &bad)?;
        let found = self.types(folder, script);
        fs::write(file, &good)?;
        ensure!(found.is_err(), "a byte of {} was changed: {found:?}", file.display());
        Ok(())
    }
}

pub async fn openssl_finds_that_evidence_is_signed(world: &World) -> Result<()> {
    let (auditor, _) = Auditor::visits(world).await?;
    let envelope = auditor.envelope()?;
    let script = pages::commands("evidence.md", "openssl pkeyutl -verify")?
        .replace("evidence/<bundle>/<sha256>.json", &envelope);
    ensure!(!script.contains("='<"), "something else is to be put in: {script}");
    let said = auditor.types("", &script)?;
    ensure!(said.contains("Signature Verified Successfully"), "{said}");
    ensure!(
        said.contains(&envelope[envelope.len() - 69..envelope.len() - 5]),
        "it is not its own name: {said}"
    );
    let manifest =
        fs::read(auditor.store.path().join("bundles").join(auditor.bundle.hex()).join("manifest.json"))?;
    ensure!(said.contains(Digest::of(&manifest).hex()), "it is about another bundle: {said}");
    ensure!(said.contains(r#""verdict": "Pass""#), "{said}");
    auditor.notices_another_byte(&auditor.store.path().join(&envelope), 20, "", &script)
}

pub async fn openssl_finds_that_a_checkpoint_is_signed(world: &World) -> Result<()> {
    let (auditor, _) = Auditor::visits(world).await?;
    let script = pages::commands("audit-log.md", "openssl pkeyutl -verify")?;
    let said = auditor.types("log", &script)?;
    ensure!(said.contains("Signature Verified Successfully"), "{said}");
    let checkpoint = auditor.store.path().join("log/checkpoint");
    auditor.notices_another_byte(&checkpoint, 8, "log", &script)?;

    // The name of the key, as other programs that read such notes want it.
    let script = pages::commands("audit-log.md", "-outform DER | tail -c32")?
        .replace("origin=lethe.dev/studio", &format!("origin={ORIGIN}"));
    let said = auditor.types("log", &script)?;
    let [origin, hash, _] = said.trim().split('+').collect::<Vec<_>>()[..] else {
        anyhow::bail!("not three parts: {said}");
    };
    let note = fs::read_to_string(&checkpoint)?;
    let signed = note.lines().last().and_then(|line| line.rsplit(' ').next()).context("no signature")?;
    let decoded = auditor
        .types("log", &format!("printf %s '{signed}' | base64 -d | head -c4 | od -An -tx1 | tr -d ' \\n'"))?;
    ensure!((origin, hash) == (ORIGIN, &*decoded), "the key is {said}, and the note is signed by {decoded}");
    Ok(())
}

/// The keys are changed by the commands of the page, in a place of their own.
pub async fn a_key_is_changed_by_the_commands_of_the_page(world: &World) -> Result<()> {
    let (auditor, old) = Auditor::visits(world).await?;
    let new = world.key("new")?;
    fs::copy(&old.public, auditor.store.path().join("old.pub.pem"))?;
    fs::copy(&new.public, auditor.store.path().join("new.pub.pem"))?;
    auditor.types("", &pages::commands("evidence.md", "cat old.pub.pem new.pub.pem")?)?;
    let place = auditor.store.path().display().to_string();
    let script = pages::commands("evidence.md", "sign-again")?
        .replace(
            "kubectl exec -n studio deploy/lethe -- /usr/bin/lethe-operator",
            &world.server.operator.display().to_string(),
        )
        .replace("file:///artifacts", &format!("file://{place}"))
        .replace("/etc/lethe-signing-key/signing-key.pem", &new.private.display().to_string())
        .replace("/etc/lethe-trusted-keys", &place)
        .replace("lethe.dev/log", ORIGIN);
    let said = auditor.types("", &script)?;
    ensure!(said.contains("to be signed again") && said.contains(auditor.bundle.hex()), "{said}");
    auditor.types("", &script.replace(" --dry-run", ""))?;
    let signers = || -> Result<usize> {
        let envelope = fs::read(auditor.store.path().join(auditor.envelope()?))?;
        let envelope: Value = serde_json::from_slice(&envelope)?;
        Ok(envelope["signatures"].as_array().context("no signatures")?.len())
    };
    ensure!(signers()? == 1, "each has signed a file of its own");
    let folder = auditor.store.path().join("evidence").join(auditor.bundle.hex());
    ensure!(fs::read_dir(folder)?.count() == 2, "the new key has signed nothing");
    Ok(())
}
