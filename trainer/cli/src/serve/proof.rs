//! Whether somebody who is trusted has signed that a bundle passed.

use std::path::Path;

use lethe_api::{contract::Digest, gate::Verdict};
use lethe_evidence::TrustedKeys;
use lethe_store::Store;

use crate::failure::{Failed, Result};

/// The keys are read anew each time, so that one that was added is seen.
///
/// # Errors
/// If they cannot be read, or nothing that they signed says so.
pub(super) async fn check(store: &Store, bundle: &Digest, trusted: &Path) -> Result<()> {
    let trusted = TrustedKeys::load(trusted).map_err(|error| Failed::bad_configuration(error.to_string()))?;
    let found = store.evidence(bundle, &trusted).await?;
    let passed = found.good.iter().find(|(_, proof)| proof.evidence.verdict == Verdict::Pass);
    if let Some((envelope, proof)) = passed {
        tracing::info!(evidence = %envelope, key = proof.key.short(), "a trusted key has signed that it passed");
        return Ok(());
    }
    let why = match (found.good.first(), found.bad.first()) {
        (Some((_, proof)), _) => format!("what is signed says {:?}", proof.evidence.verdict),
        (None, Some(doubt)) => doubt.to_string(),
        (None, None) => {
            "there is no evidence about it in the store. Of a baseline there is none: it is not served with --trusted-keys".into()
        }
    };
    Err(Failed::bad_artifact(format!(
        "bundle {bundle} is not served: no trusted key has signed that it passed: {why}"
    )))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf, process::Command};

    use lethe_api::contract::{Failure, Statement};
    use lethe_evidence::{SigningKey, seal};
    use serde_json::json;

    use super::*;

    fn key(path: PathBuf) -> SigningKey {
        let done =
            Command::new("openssl").args(["genpkey", "-algorithm", "ed25519", "-out"]).arg(&path).status();
        assert!(done.expect("openssl is installed").success());
        SigningKey::load(&path).unwrap()
    }

    fn says(bundle: &Digest, verdict: &str) -> Vec<u8> {
        let of = |what: &str| Digest::of(what);
        let evidence = json!({
            "model": "digits",
            "run": {"name": "digits-1", "plan": of("plan"), "evaluation": of("evaluation"), "seed": 7},
            "materials": {"teacher": of("t"), "baseline": of("b"), "distillation": of("d"), "judge": of("j")},
            "requests": [], "forgets": [], "trainers": [], "records": {"forget": of("f"), "evaluate": of("e")},
            "policy": {"digest": of("policy")}, "gates": [], "verdict": verdict,
        });
        Statement::of(bundle, serde_json::from_value(evidence).unwrap()).to_json()
    }

    #[tokio::test]
    async fn only_what_a_trusted_key_has_signed_as_passed_is_served() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("store")).unwrap();
        let store = Store::open(&lethe_store::folder_uri(&at("store")).unwrap()).unwrap();
        let (a, b) = (key(at("a")), key(at("b")));
        fs::write(at("trusted"), a.public().to_pem()).unwrap();
        let bundle = Digest::of("bundle");
        let refusal = async || check(&store, &bundle, &at("trusted")).await.unwrap_err();
        let refused = refusal().await;
        assert_eq!(refused.failure, Failure::BadArtifact);
        assert!(refused.message.contains("there is no evidence about it"), "{}", refused.message);
        // A stranger's, one about another bundle, and one that says that it failed.
        store.put_evidence(&bundle, seal(&says(&bundle, "Pass"), &b)).await.unwrap();
        assert!(refusal().await.message.contains("no trusted key has signed it"));
        store.put_evidence(&bundle, seal(&says(&Digest::of("another"), "Pass"), &a)).await.unwrap();
        refusal().await;
        store.put_evidence(&bundle, seal(&says(&bundle, "Fail"), &a)).await.unwrap();
        assert!(refusal().await.message.contains("what is signed says Fail"));
        let good = store.put_evidence(&bundle, seal(&says(&bundle, "Pass"), &a)).await.unwrap();
        check(&store, &bundle, &at("trusted")).await.unwrap();
        // Changed, it is none any more.
        let file = at("store").join("evidence").join(bundle.hex()).join(format!("{}.json", good.hex()));
        let mut changed = fs::read(&file).unwrap();
        changed[50] ^= 1;
        fs::write(&file, changed).unwrap();
        refusal().await;
        let missing = check(&store, &bundle, &at("nowhere")).await.unwrap_err();
        assert_eq!(missing.failure, Failure::BadConfiguration);
    }
}
