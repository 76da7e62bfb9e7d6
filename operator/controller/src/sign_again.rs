//! `lethe-operator sign-again`: after a change of keys, the new one signs what a trusted one has signed before.
//!
//! The statement stays as it is, byte for byte, and the old envelope stays beside the new one. Nothing is asked of a cluster.

use lethe_evidence::{KeyError, SigningKey, TrustedKeys, seal};
use lethe_store::{Item, Kind, Store};
use lethe_transparency::Action;

use crate::{
    Args,
    clerk::{Clerk, Silent},
};

#[derive(Clone, Debug, clap::Args)]
pub struct SignAgainArgs {
    #[command(flatten)]
    pub operator: Args,

    /// Only say what would be signed
    #[arg(long)]
    pub dry_run: bool,
}

/// Why not all of it was signed.
#[derive(Debug, thiserror::Error)]
pub enum SignAgainError {
    #[error(
        "--signing-key and --trusted-keys are needed: the new key, and a file that has the old one as well"
    )]
    NoKeys,
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Store(#[from] lethe_store::Error),
    #[error(transparent)]
    Silent(#[from] Silent),
}

/// Signs whatever has no signature of the signing key and one of another trusted key.
///
/// # Errors
/// If a key or the store cannot be read, or the store not be written. What was signed until then stays.
pub async fn sign_again(args: SignAgainArgs) -> Result<(), SignAgainError> {
    let (Some(signing), Some(trusted)) = (&args.operator.signing_key, &args.operator.trusted_keys) else {
        return Err(SignAgainError::NoKeys);
    };
    let (key, trusted) = (SigningKey::load(signing)?, TrustedKeys::load(trusted)?);
    let store = Store::open(&args.operator.store)?;
    let (mut missing, mut refused) = (Vec::new(), 0_u64);
    for item in store.inventory().await?.into_iter().filter(|item| item.kind == Kind::Evidence) {
        let found = store.evidence(&item.digest, &trusted).await?;
        let own = key.public().id();
        let has_own =
            |statement: &[u8]| found.good.iter().any(|(_, it)| it.key == own && it.statement == statement);
        for (_, proof) in found.good.iter().filter(|(_, proof)| !has_own(&proof.statement)) {
            tracing::info!(bundle = %item.digest, before = proof.key.short(), signed = !args.dry_run, "to be signed again");
            missing.push((item.clone(), proof.statement.clone()));
        }
        for doubt in &found.bad {
            tracing::warn!(bundle = %item.digest, %doubt, "not signed");
            refused += 1;
        }
    }
    if !args.dry_run {
        let again = async |(item, statement): &(Item, Vec<u8>)| {
            store.put_evidence(&item.digest, seal(statement, &key)).await?;
            Ok::<_, SignAgainError>(())
        };
        Clerk::new(&args.operator).perform(Action::SignAgain, &missing, |(item, _)| item, again).await?;
    }
    let count = missing.len();
    tracing::info!(count, refused, signed = !args.dry_run, key = own_name(&key), "done");
    Ok(())
}

fn own_name(key: &SigningKey) -> String {
    key.public().id().short().to_owned()
}

#[cfg(test)]
mod tests {
    use std::{path::Path, process::Command};

    use clap::Parser;
    use lethe_api::{Digest, contract::Statement};
    use lethe_evidence::PublicKey;

    use super::*;

    fn key(path: &Path) -> PublicKey {
        let done =
            Command::new("openssl").args(["genpkey", "-algorithm", "ed25519", "-out"]).arg(path).status();
        assert!(done.expect("openssl is installed").success());
        SigningKey::load(path).unwrap().public().clone()
    }

    fn statement(bundle: &Digest) -> Vec<u8> {
        let of = |what: &str| Digest::of(what);
        let evidence = serde_json::json!({
            "model": "digits",
            "run": {"name": "digits-1", "plan": of("plan"), "evaluation": of("evaluation"), "seed": 7},
            "materials": {
                "teacher": of("t"), "baseline": of("b"), "distillation": of("d"), "judge": of("j"),
            },
            "requests": [], "forgets": [], "trainers": [],
            "records": {"forget": of("f"), "evaluate": of("e")},
            "policy": {"digest": of("policy")}, "gates": [], "verdict": "Pass",
        });
        Statement::of(bundle, serde_json::from_value(evidence).unwrap()).to_json()
    }

    /// The whole of a change of keys, as docs/evidence.md has it.
    #[tokio::test]
    async fn after_a_change_of_keys_the_new_one_has_signed_everything_that_the_old_one_had() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let (a, b) = (key(&at("a")), key(&at("b")));
        let uri = lethe_store::folder_uri(folder.path()).unwrap();
        let (store, bundle) = (Store::open(&uri).unwrap(), Digest::of("bundle"));
        let by_a = seal(&statement(&bundle), &SigningKey::load(&at("a")).unwrap());
        store.put_evidence(&bundle, by_a).await.unwrap();
        std::fs::write(at("both"), format!("{}{}", a.to_pem(), b.to_pem())).unwrap();
        std::fs::write(at("only-b"), b.to_pem()).unwrap();
        let good = async |trusted: &PublicKey| {
            let found = store.evidence(&bundle, &TrustedKeys::only(trusted)).await.unwrap();
            (found.good.len(), found.bad.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let (none, why) = good(&b).await;
        assert!(none == 0 && why[0].contains("sign-again"), "{why:?}");
        let again = async |trusted: &str, more: &[&str]| {
            let flags = ["sign-again", "--store", &uri].map(String::from).into_iter();
            let keys = ["--signing-key".into(), at("b").display().to_string(), "--trusted-keys".into()];
            let flags = flags.chain(keys).chain([at(trusted).display().to_string()]);
            let flags: Vec<_> = flags.chain(more.iter().map(ToString::to_string)).collect();
            #[derive(Parser)]
            struct Cli {
                #[command(flatten)]
                args: SignAgainArgs,
            }
            sign_again(Cli::try_parse_from(flags).unwrap().args).await
        };
        again("both", &["--dry-run"]).await.unwrap();
        assert_eq!(good(&b).await.0, 0, "it only said so");
        again("only-b", &[]).await.unwrap();
        assert_eq!(good(&b).await.0, 0, "what nobody trusts is not signed");
        again("both", &[]).await.unwrap();
        again("both", &[]).await.unwrap();
        assert_eq!(good(&b).await.0, 1, "once");
        assert_eq!(good(&a).await.0, 1, "the old one stays");
    }
}
