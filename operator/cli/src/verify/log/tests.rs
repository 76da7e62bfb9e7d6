use std::sync::Arc;

use lethe_evidence::SigningKey;
use lethe_store::{folder_uri, log::Writer};
use lethe_transparency::{Entry, Object, Writer as Signature};
use serde_json::json;
use tempfile::TempDir;

use super::*;

const ORIGIN: &str = "lethe.dev/studio";
/// RFC 8032, section 7.1, test 1.
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";

struct Desk {
    folder: TempDir,
    key: Arc<SigningKey>,
    trusted: TrustedKeys,
}

impl Desk {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        fs::create_dir(folder.path().join("log")).unwrap();
        fs::write(folder.path().join("key.pem"), KEY).unwrap();
        let key = Arc::new(SigningKey::load(&folder.path().join("key.pem")).unwrap());
        let trusted = TrustedKeys::only(key.public());
        Self { folder, key, trusted }
    }

    fn uri(&self) -> String {
        folder_uri(&self.folder.path().join("log")).unwrap()
    }

    /// Appends what was decided, and that it was done.
    async fn say(&self, all: &[(Action, &str, &str, &str)]) {
        let log = Log::open(&self.uri()).unwrap();
        let mut writer = Writer::open(log, ORIGIN, self.key.clone(), self.trusted.clone()).await.unwrap();
        for (action, kind, uid, after) in all {
            let object = Object {
                kind: (*kind).into(),
                namespace: "studio".into(),
                name: "digits".into(),
                uid: (*uid).into(),
            };
            let (before, digests, reason) = Default::default();
            let (action, after) = (*action, (*after).to_owned());
            let of = writer.size();
            let decision = Said::Decision { action, object, before, after, digests, reason };
            let outcome = Said::Outcome { of, upshot: Upshot::Done, reason: String::new() };
            let entries = [decision, outcome].map(|said| {
                let by = Signature { version: "0.1.0".into(), replica: "lethe-0".into() };
                Entry { at: "2026-11-24T21:00:00Z".into(), by, late: false, said }
            });
            writer.propose(&entries).unwrap();
            writer.commit().await.unwrap();
        }
        writer.show().await.unwrap();
    }

    async fn check(&self, exported: &Exported) -> Vec<Check> {
        let uri = self.uri();
        let since = self.folder.path().join("seen");
        let kept = Kept { uri: &uri, origin: ORIGIN, trusted: &self.trusted, since: Some(&since) };
        let mut checks = Vec::new();
        super::check(&kept, exported, &mut checks).await.unwrap();
        checks
    }
}

fn broken(checks: &[Check]) -> Vec<String> {
    let broken = checks.iter().filter(|check| check.outcome == Outcome::Broken);
    broken.map(|check| format!("{}: {}: {}", check.subject, check.what, check.detail)).collect()
}

fn served(at: &str) -> Exported {
    let digest = Digest::of("candidate");
    let model = json!({
        "apiVersion": "lethe.dev/v1alpha1", "kind": "DiffusionModel",
        "metadata": {"name": "digits", "namespace": "studio", "uid": "m"},
        "spec": {
            "base": {"uri": "file:///base", "digest": digest}, "policyRef": {"kind": "UnlearnPolicy", "name": "x"},
            "serving": {"target": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "digits"}, "container": "server"},
        },
        "status": {
            "served": {"digest": digest, "short": digest.short(), "since": at},
            "ledger": [{
                "targets": ["3"], "override": {"strategy": "Fixed", "label": "8"}, "request": {"name": "r", "uid": "u"},
                "run": "digits-1", "digest": digest, "at": at,
            }],
        },
    });
    let run = json!({
        "apiVersion": "lethe.dev/v1alpha1", "kind": "UnlearnRun",
        "metadata": {"name": "digits-1", "namespace": "studio", "uid": "r", "creationTimestamp": at},
        "spec": {
            "model": "digits", "type": "Forget", "plan": "{}", "planDigest": Digest::of(b""),
            "policy": {"trainer": {"image": "x"}, "gates": []},
        },
        "status": {"verdict": "Pass"},
    });
    Exported {
        models: vec![serde_json::from_value(model).unwrap()],
        runs: vec![serde_json::from_value(run).unwrap()],
        requests: Vec::new(),
    }
}

#[tokio::test]
async fn what_is_claimed_has_to_be_in_the_log_if_the_log_was_there() {
    let (desk, digest) = (Desk::new(), Digest::of("candidate"));
    desk.say(&[(Action::Accept, "UnlearnRequest", "u", "")]).await;
    let (later, before) = (served("2026-11-25T00:00:00Z"), served("2026-11-23T00:00:00Z"));
    assert_eq!(broken(&desk.check(&before).await), Vec::<String>::new());
    let missing = broken(&desk.check(&later).await);
    assert_eq!(missing.len(), 3, "{missing:#?}");
    desk.say(&[
        (Action::Judge, "UnlearnRun", "r", "Pass"),
        (Action::Serve, "Deployment", "", digest.as_str()),
        (Action::Promote, "DiffusionModel", "m", digest.as_str()),
    ])
    .await;
    let checks = desk.check(&later).await;
    assert_eq!(broken(&checks), Vec::<String>::new());
    assert!(checks.iter().any(|check| check.what.contains("entry 6 is in the log")), "{checks:#?}");
    // Another verdict than the one that was given.
    let mut other = later.clone();
    other.runs[0].status.as_mut().unwrap().verdict = Some(lethe_api::v1alpha1::Verdict::Fail);
    assert_eq!(broken(&desk.check(&other).await).len(), 1);
}

#[tokio::test]
async fn a_log_has_to_continue_the_one_that_was_seen() {
    let (desk, none) = (Desk::new(), Exported::default());
    let seen = desk.folder.path().join("seen");
    desk.say(&[(Action::Accept, "UnlearnRequest", "u", "")]).await;
    desk.check(&none).await;
    let first = fs::read(&seen).unwrap();
    desk.say(&[(Action::Fulfil, "UnlearnRequest", "u", "")]).await;
    let checks = desk.check(&none).await;
    assert!(
        checks.iter().any(|check| check.what == "it continues the 2 entries that were seen before"),
        "{checks:#?}"
    );
    let second = fs::read(&seen).unwrap();
    assert_ne!(first, second, "what is seen now is kept");
    // It was written anew, with the right key, and says something else.
    fs::remove_dir_all(desk.folder.path().join("log")).unwrap();
    fs::create_dir(desk.folder.path().join("log")).unwrap();
    desk.say(&[(Action::Refuse, "UnlearnRequest", "u", ""), (Action::Close, "UnlearnRequest", "u", "")])
        .await;
    let found = broken(&desk.check(&none).await);
    assert!(
        found.len() == 1 && found[0].contains("was seen, and this one does not begin with them"),
        "{found:#?}"
    );
    assert_eq!(fs::read(&seen).unwrap(), second, "what was seen is kept as long as something is wrong");
    fs::write(&seen, &second[1..]).unwrap();
    assert_eq!(broken(&desk.check(&none).await).len(), 1, "what was seen was changed");
}

#[tokio::test]
async fn a_flipped_byte_is_named_by_where_it_is() {
    let (desk, none) = (Desk::new(), Exported::default());
    desk.say(&[(Action::Accept, "UnlearnRequest", "u", "")]).await;
    let file = desk.folder.path().join("log/commits/000/000");
    let good = fs::read(&file).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&file, bad).unwrap();
        let found = broken(&desk.check(&none).await);
        assert!(found.iter().any(|it| it.contains("commits/000/000")), "byte {at}: {found:#?}");
    }
}
