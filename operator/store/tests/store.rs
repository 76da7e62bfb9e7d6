//! The store on a real file system.

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use lethe_api::contract::{BundleKind, Digest, Manifest, Statement};
use lethe_evidence::{SigningKey, TrustedKeys, seal};
use lethe_store::{Bundle, Error, Folder, Kind, Problem, Store, folder_uri, garbage};
use tempfile::TempDir;

/// A safetensors file with one tensor of `values`.
fn weights(values: &[f32]) -> Vec<u8> {
    let end = 4 * values.len();
    let header = format!(r#"{{"w":{{"dtype":"F32","shape":[{}],"data_offsets":[0,{end}]}}}}"#, values.len());
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.bytes());
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    bytes
}

fn bundle() -> Bundle {
    Bundle::new(BundleKind::Generator, weights(&[1.0, 2.0]), b"{\"labels\":[]}".to_vec()).unwrap()
}

fn store() -> (TempDir, Store) {
    let folder = TempDir::new().unwrap();
    let store = Store::open(&folder_uri(folder.path()).unwrap()).unwrap();
    (folder, store)
}

fn path_of(root: &TempDir, bundle: &Bundle, file: &str) -> PathBuf {
    root.path().join("bundles").join(bundle.digest().hex()).join(file)
}

#[tokio::test]
async fn what_was_put_is_what_one_gets() {
    let (root, store) = store();
    let bundle = bundle();
    store.put_bundle(&bundle).await.unwrap();
    store.put_bundle(&bundle).await.unwrap();
    assert_eq!(store.get_bundle(bundle.digest(), BundleKind::Generator).await.unwrap(), bundle);
    assert_eq!(
        store.bundle_folder(bundle.digest()).list().await.unwrap(),
        ["manifest.json", "model.json", "model.safetensors"]
    );
    let manifest = fs::read(path_of(&root, &bundle, Manifest::FILE)).unwrap();
    assert_eq!(*bundle.digest(), Digest::of(&manifest), "the manifest's digest names the bundle");

    let record = store.put_record(b"{}".to_vec()).await.unwrap();
    assert_eq!(store.get_record(&record, 2).await.unwrap(), b"{}");
    let blob = store.put_blob(b"png".to_vec()).await.unwrap();
    assert_eq!(store.get_blob(&blob, 3).await.unwrap(), b"png");
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let (_root, store) = store();
    let nothing = Digest::of(b"nothing");
    assert!(matches!(store.get_record(&nothing, 10).await, Err(Error::NotFound { .. })));
    assert!(matches!(store.get_blob(&nothing, 10).await, Err(Error::NotFound { .. })));
    assert!(matches!(store.get_bundle(&nothing, BundleKind::Judge).await, Err(Error::NotFound { .. })));
}

#[tokio::test]
async fn errors_name_a_file_by_the_path_that_one_would_type() {
    let (root, store) = store();
    let record = store.put_record(vec![b' '; 100]).await.unwrap();
    let file = root.path().join("records").join(format!("{}.json", record.hex()));
    let says = |error: Error| {
        assert!(error.to_string().split(' ').any(|word| *word == *file.to_string_lossy()), "{error}");
    };
    says(store.get_record(&record, 99).await.unwrap_err());
    fs::write(&file, "changed").unwrap();
    says(store.get_record(&record, 100).await.unwrap_err());
    fs::remove_file(&file).unwrap();
    says(store.get_record(&record, 100).await.unwrap_err());
}

#[tokio::test]
async fn a_bundle_of_another_kind_is_refused() {
    let (_root, store) = store();
    store.put_bundle(&bundle()).await.unwrap();
    let error = store.get_bundle(bundle().digest(), BundleKind::Judge).await.unwrap_err();
    assert!(matches!(&error, Error::Refused { reason, .. } if reason.contains("Generator")), "{error}");
}

#[tokio::test]
async fn a_changed_byte_is_found_in_every_file() {
    for file in [Manifest::FILE, Manifest::WEIGHTS, Manifest::MODEL] {
        let (root, store) = store();
        let bundle = bundle();
        store.put_bundle(&bundle).await.unwrap();
        let path = path_of(&root, &bundle, file);
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
        let error = store.get_bundle(bundle.digest(), BundleKind::Generator).await.unwrap_err();
        let (Error::Corrupt { what, .. } | Error::Another { what, .. }) = &error else { panic!("{error}") };
        assert!(what.ends_with(file), "{error}");
    }
}

#[tokio::test]
async fn truncated_and_padded_weights_are_corrupt() {
    for change in [-1_i64, 1] {
        let (root, store) = store();
        let bundle = bundle();
        store.put_bundle(&bundle).await.unwrap();
        let path = path_of(&root, &bundle, Manifest::WEIGHTS);
        let mut bytes = fs::read(&path).unwrap();
        bytes.resize((bytes.len() as i64 + change) as usize, 0);
        fs::write(&path, bytes).unwrap();
        let error = store.get_bundle(bundle.digest(), BundleKind::Generator).await.unwrap_err();
        assert!(matches!(&error, Error::Corrupt { expected, .. } if expected.contains("bytes")), "{error}");
    }
}

#[tokio::test]
async fn a_bundle_whose_manifest_was_not_written_does_not_exist() {
    let (root, store) = store();
    let bundle = bundle();
    store.put_bundle(&bundle).await.unwrap();
    fs::remove_file(path_of(&root, &bundle, Manifest::FILE)).unwrap();
    let read = store.get_bundle(bundle.digest(), BundleKind::Generator).await;
    assert!(matches!(read, Err(Error::NotFound { .. })));
    // Writing it again completes it.
    store.put_bundle(&bundle).await.unwrap();
    assert!(store.get_bundle(bundle.digest(), BundleKind::Generator).await.is_ok());
}

#[tokio::test]
async fn a_record_larger_than_the_limit_is_not_read() {
    let (_root, store) = store();
    let record = store.put_record(vec![b' '; 100]).await.unwrap();
    let read = store.get_record(&record, 99).await;
    assert!(matches!(read, Err(Error::TooLarge { bytes: 100, max: 99, .. })), "{read:?}");
}

#[tokio::test]
async fn a_file_where_a_folder_must_be_is_said_to_be_one() {
    let (root, store) = store();
    fs::write(root.path().join("bundles"), "in the way").unwrap();
    let error = store.put_bundle(&bundle()).await.unwrap_err();
    let not_a_folder = Problem::NotAFolder;
    assert!(matches!(&error, Error::Unusable { problem, .. } if *problem == not_a_folder), "{error}");
    let file = folder_uri(&root.path().join("bundles")).unwrap();
    assert!(matches!(Store::open(&file), Err(Error::Unusable { problem, .. }) if problem == not_a_folder));
}

#[tokio::test]
async fn a_base_from_elsewhere_is_copied_once_it_was_verified() {
    let (elsewhere, here) = (TempDir::new().unwrap(), store());
    let uri = folder_uri(&elsewhere.path().join("base")).unwrap();
    let bundle = bundle();
    Folder::open(&uri).unwrap().write(&bundle).await.unwrap();

    let wrong = Digest::of(b"another");
    let error = here.1.import(&uri, &wrong, BundleKind::Generator).await.unwrap_err();
    assert!(matches!(error, Error::Another { .. }), "{error}");

    here.1.import(&uri, bundle.digest(), BundleKind::Generator).await.unwrap();
    fs::remove_dir_all(elsewhere.path()).unwrap();
    let again = here.1.import(&uri, bundle.digest(), BundleKind::Generator).await.unwrap();
    assert_eq!(again, bundle, "once imported, the original is not needed");
}

#[tokio::test]
async fn a_manifest_that_names_another_file_is_refused() {
    for name in ["../../etc/passwd", "model.pt", "a/b", "model.safetensors\u{0}"] {
        let (elsewhere, here) = (TempDir::new().unwrap(), store());
        let good = String::from_utf8(bundle().manifest().to_vec()).unwrap();
        let bad = good.replace("\"model.json\"", &serde_json::to_string(name).unwrap());
        assert_ne!(good, bad);
        fs::write(elsewhere.path().join(Manifest::FILE), &bad).unwrap();
        let uri = folder_uri(elsewhere.path()).unwrap();
        let error = here.1.import(&uri, &Digest::of(&bad), BundleKind::Generator).await.unwrap_err();
        assert!(matches!(error, Error::Refused { .. }), "{name}: {error}");
    }
}

#[tokio::test]
async fn a_pickle_with_a_correct_digest_is_refused() {
    let (elsewhere, here) = (TempDir::new().unwrap(), store());
    let pickle = b"PK\x03\x04archive/data.pkl".to_vec();
    let good: Manifest = serde_json::from_slice(bundle().manifest()).unwrap();
    let mut bad = good.clone();
    let entry = bad.files.get_mut(Manifest::WEIGHTS).unwrap();
    (entry.digest, entry.bytes) = (Digest::of(&pickle), pickle.len() as u64);
    let manifest = serde_json::to_vec(&bad).unwrap();
    for (file, bytes) in [
        (Manifest::FILE, &manifest),
        (Manifest::WEIGHTS, &pickle),
        (Manifest::MODEL, &bundle().model().to_vec()),
    ] {
        fs::write(elsewhere.path().join(file), bytes).unwrap();
    }
    let uri = folder_uri(elsewhere.path()).unwrap();
    let error = here.1.import(&uri, &Digest::of(&manifest), BundleKind::Generator).await.unwrap_err();
    assert!(error.to_string().contains("pickle") && error.to_string().contains("PK"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_of_the_same_content_do_not_disturb_each_other() {
    let (_root, store) = store();
    let large = Bundle::new(BundleKind::Generator, weights(&vec![0.5; 1 << 18]), b"{}".to_vec()).unwrap();
    let write = |_| {
        let (store, bundle) = (store.clone(), large.clone());
        tokio::spawn(async move {
            store.put_bundle(&bundle).await.unwrap();
            store.get_bundle(bundle.digest(), BundleKind::Generator).await.unwrap()
        })
    };
    for writer in (0..8).map(write).collect::<Vec<_>>() {
        assert_eq!(writer.await.unwrap(), large);
    }
    assert_eq!(store.bundle_folder(large.digest()).list().await.unwrap().len(), 3);
}

#[tokio::test]
async fn scratch_is_replaced_verified_and_cleared() {
    let (root, store) = store();
    let plan = Digest::of(b"plan");
    let scratch = store.scratch(&plan);
    assert_eq!(scratch.get("checkpoint", 1000).await.unwrap(), None);
    scratch.put("checkpoint", b"one").await.unwrap();
    scratch.put("checkpoint", b"two\nlines").await.unwrap();
    assert_eq!(scratch.get("checkpoint", 1000).await.unwrap().unwrap(), b"two\nlines");

    let path = root.path().join("scratch").join(plan.hex()).join("checkpoint");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    assert!(matches!(scratch.get("checkpoint", 1000).await, Err(Error::Corrupt { .. })));

    // For people, and so without a digest; gone with the rest.
    scratch.show("metrics.jsonl", b"{}\n".to_vec()).await.unwrap();
    assert_eq!(fs::read(path.with_file_name("metrics.jsonl")).unwrap(), b"{}\n");

    scratch.clear(&[]).await.unwrap();
    scratch.clear(&[]).await.unwrap();
    assert!(!path.with_file_name("metrics.jsonl").exists());
    assert_eq!(scratch.get("checkpoint", 1000).await.unwrap(), None);
}

#[tokio::test]
async fn what_nobody_needs_is_removed_once_it_is_old() {
    let (root, store) = store();
    let kept = bundle();
    let gone = Bundle::new(BundleKind::Generator, weights(&[3.0]), b"{}".to_vec()).unwrap();
    let blob = store.put_blob(b"statistics".to_vec()).await.unwrap();
    let page = store.put_record(format!(r#"{{"statistics": "{blob}"}}"#).into_bytes()).await.unwrap();
    let record = store.put_record(format!(r#"{{"earlier": "{page}"}}"#).into_bytes()).await.unwrap();
    store.put_report(&record, b"<p>".to_vec()).await.unwrap();
    let (plan, stray) = (Digest::of(b"a plan"), store.put_record(b"{}".to_vec()).await.unwrap());
    store.scratch(&plan).put("checkpoint", b"state").await.unwrap();
    for bundle in [&kept, &gone] {
        store.put_bundle(bundle).await.unwrap();
    }
    fs::write(root.path().join("bundles/a note"), "somebody's").unwrap();

    let items = store.inventory().await.unwrap();
    let mut needed = BTreeSet::from([kept.digest().clone()]);
    // Of the last record, somebody's ledger says no more than what it names.
    store.add_records(&items, &BTreeSet::from([page]), &mut needed).await.unwrap();
    let now = SystemTime::now();
    assert!(garbage(&items, &needed, now - Duration::from_secs(3600)).is_empty(), "all of it is new");
    let old = garbage(&items, &needed, now + Duration::from_secs(3600));
    let expected = [(Kind::Bundle, gone.digest()), (Kind::Record, &stray), (Kind::Scratch, &plan)];
    assert_eq!(old.iter().map(|item| (item.kind, &item.digest)).collect::<Vec<_>>(), expected);

    for item in old {
        store.remove(item).await.unwrap();
    }
    assert_eq!(store.get_bundle(kept.digest(), BundleKind::Generator).await.unwrap(), kept);
    assert_eq!(store.get_blob(&blob, 100).await.unwrap(), b"statistics");
    let left: Vec<_> = store.inventory().await.unwrap().into_iter().map(|item| item.digest).collect();
    assert_eq!(left.len(), 4, "{left:?}");
    assert!(root.path().join("bundles/a note").exists(), "what is not named by a digest is not ours");
    assert!(
        root.path().join(format!("records/{}.html", record.hex())).exists(),
        "a page stays with its record"
    );
}

#[tokio::test]
async fn a_damaged_record_that_is_needed_stops_the_removal_and_any_other_goes() {
    let (root, store) = store();
    let record = store.put_record(b"{}".to_vec()).await.unwrap();
    fs::write(root.path().join(format!("records/{}.json", record.hex())), "damaged").unwrap();
    let items = store.inventory().await.unwrap();
    let ledger = BTreeSet::new();
    let result = store.add_records(&items, &ledger, &mut BTreeSet::from([record])).await;
    assert!(matches!(result, Err(Error::Corrupt { .. })), "{result:?}");
    store.add_records(&items, &ledger, &mut BTreeSet::new()).await.unwrap();
}

/// `openssl genpkey -algorithm ed25519`, and with `openssl pkey -pubout` its public half.
fn key(folder: &TempDir, name: &str) -> SigningKey {
    let path = folder.path().join(name);
    let done = std::process::Command::new("openssl")
        .args(["genpkey", "-algorithm", "ed25519", "-out"])
        .arg(&path)
        .status();
    assert!(done.expect("openssl is installed").success());
    SigningKey::load(&path).unwrap()
}

fn statement(about: &Digest, names: &Digest) -> Vec<u8> {
    let digest = |of: &str| Digest::of(of);
    let evidence = serde_json::json!({
        "model": "digits",
        "run": {"name": "digits-1", "plan": digest("plan"), "evaluation": digest("evaluation"), "seed": 7},
        "materials": {
            "teacher": digest("teacher"), "baseline": digest("baseline"), "distillation": digest("distillation"),
            "judge": digest("judge"),
        },
        "requests": [], "forgets": [], "trainers": [],
        "records": {"forget": digest("forgot"), "evaluate": names},
        "policy": {"digest": digest("policy")}, "gates": [], "verdict": "Pass",
    });
    Statement::of(about, serde_json::from_value(evidence).unwrap()).to_json()
}

#[tokio::test]
async fn evidence_is_found_by_the_bundle_that_it_is_about() {
    let (root, store) = store();
    let keys = TempDir::new().unwrap();
    let (a, b) = (key(&keys, "a"), key(&keys, "b"));
    let (bundle, record) = (Digest::of("bundle"), Digest::of("record"));
    let nothing = store.evidence(&bundle, &TrustedKeys::only(a.public())).await.unwrap();
    assert!(nothing.good.is_empty() && nothing.bad.is_empty());
    let sealed = seal(&statement(&bundle, &record), &a);
    let name = store.put_evidence(&bundle, sealed.clone()).await.unwrap();
    assert_eq!(store.put_evidence(&bundle, sealed.clone()).await.unwrap(), name, "twice is once");
    let found = store.evidence(&bundle, &TrustedKeys::only(a.public())).await.unwrap();
    assert_eq!(found.good.iter().map(|(envelope, _)| envelope).collect::<Vec<_>>(), [&name]);
    assert_eq!(found.good[0].1.evidence.records.evaluate, record);
    // Another key, and a bundle that nothing is said of.
    let found = store.evidence(&bundle, &TrustedKeys::only(b.public())).await.unwrap();
    assert!(found.good.is_empty() && found.bad[0].to_string().contains("no trusted key"), "{:?}", found.bad);
    let other = store.evidence(&Digest::of("other"), &TrustedKeys::only(a.public())).await.unwrap();
    assert!(other.good.is_empty() && other.bad.is_empty());

    let file = root.path().join("evidence").join(bundle.hex()).join(format!("{}.json", name.hex()));
    let mut damaged = sealed.clone();
    damaged[10] ^= 1;
    fs::write(&file, damaged).unwrap();
    // Another key's beside it counts, and so does the same written once more.
    let by_b = store.put_evidence(&bundle, seal(&statement(&bundle, &record), &b)).await.unwrap();
    let both = format!("{}{}", a.public().to_pem(), b.public().to_pem());
    let both = TrustedKeys::from_pem(both.as_bytes()).unwrap();
    let found = store.evidence(&bundle, &both).await.unwrap();
    assert_eq!(found.good.iter().map(|(envelope, _)| envelope).collect::<Vec<_>>(), [&by_b]);
    assert_eq!(found.bad[0].envelope.as_ref(), Some(&name));
    assert!(found.bad[0].why.contains("is corrupt"), "{:?}", found.bad);
    store.put_evidence(&bundle, sealed).await.unwrap();
    assert_eq!(store.evidence(&bundle, &both).await.unwrap().good.len(), 2);
    fs::write(file.with_file_name("readme.txt"), "of somebody").unwrap();
    assert!(store.evidence(&bundle, &both).await.unwrap().bad[0].why.contains("no digest"));
    for index in 0..70 {
        fs::write(file.with_file_name(format!("{index}.json")), "{}").unwrap();
    }
    let error = store.evidence(&bundle, &both).await.unwrap_err();
    assert!(error.to_string().contains("at most 64"), "{error}");
}

#[tokio::test]
async fn evidence_stays_with_its_bundle_and_what_it_names_with_it() {
    let (_root, store) = store();
    let keys = TempDir::new().unwrap();
    let a = key(&keys, "a");
    let record = store.put_record(br#"{"counts": [1, 2]}"#.to_vec()).await.unwrap();
    let blob = store.put_blob(b"of nobody".to_vec()).await.unwrap();
    let (served, dropped) = (Digest::of("served"), Digest::of("dropped"));
    store.put_evidence(&served, seal(&statement(&served, &record), &a)).await.unwrap();
    store.put_evidence(&dropped, seal(&statement(&dropped, &blob), &a)).await.unwrap();
    let items = store.inventory().await.unwrap();
    let mut needed = BTreeSet::from([served.clone()]);
    store.add_records(&items, &BTreeSet::new(), &mut needed).await.unwrap();
    assert!(needed.contains(&record), "the record that the evidence names");
    let later = SystemTime::now() + Duration::from_secs(60);
    let garbage: Vec<_> = garbage(&items, &needed, later).into_iter().cloned().collect();
    let named: BTreeSet<_> = garbage.iter().map(|item| (item.kind, item.digest.clone())).collect();
    assert_eq!(named, BTreeSet::from([(Kind::Evidence, dropped.clone()), (Kind::Blob, blob)]));
    for item in &garbage {
        store.remove(item).await.unwrap();
    }
    let trusted = TrustedKeys::only(a.public());
    assert_eq!(store.evidence(&served, &trusted).await.unwrap().good.len(), 1);
    assert!(store.evidence(&dropped, &trusted).await.unwrap().good.is_empty());
}
