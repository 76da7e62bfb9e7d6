use std::{
    fs,
    hash::{BuildHasher, Hasher, RandomState},
    path::Path,
};

use kube::ResourceExt;
use lethe_api::{
    Digest,
    contract::{
        BundleKind, Count, Device, EvaluateRecord, ForgetRecord, ForgetTask, HygieneCheck, LabelMeasurement,
        Override, Plan, PlannedTarget, Quality, Record, RecordBody, TargetMeasurement, Task,
    },
    v1alpha1::{GateResult, UnlearnRun},
};
use lethe_core::{evidence, findings, names, plans};
use lethe_evidence::{SigningKey, TrustedKeys, seal};
use lethe_store::{Bundle, Store};
use serde_json::{Value, json};

use super::{Check, Exported, Outcome, check};

mod bytes;

/// A run that is over, with everything that it left in a store.
struct Done {
    folder: tempfile::TempDir,
    store: Store,
    exported: Exported,
    trusted: TrustedKeys,
}

fn key(folder: &Path, name: &str) -> SigningKey {
    let path = folder.join(name);
    let args = ["genpkey", "-algorithm", "ed25519", "-out"];
    let done = std::process::Command::new("openssl").args(args).arg(&path).status();
    assert!(done.expect("openssl is installed").success());
    SigningKey::load(&path).unwrap()
}

/// Signs what follows from a run, and names it in the run's status.
async fn sign(run: &mut UnlearnRun, store: &Store, key: &SigningKey) {
    let statement = evidence::of_run(run).expect("it was measured");
    let bundle = statement.bundle().unwrap();
    let envelope = store.put_evidence(&bundle, seal(&statement.to_json(), key)).await.unwrap();
    run.status.as_mut().unwrap().evidence = Some(envelope);
}

fn record(plan: &Plan, digest: &Digest, body: RecordBody) -> Vec<u8> {
    let record = Record {
        schema: Record::SCHEMA.into(),
        run: plan.run.clone(),
        plan: digest.clone(),
        seed: plan.seed,
        trainer: "stand-in 1".into(),
        body,
    };
    serde_json::to_vec(&record).unwrap()
}

async fn bundle(store: &Store, kind: BundleKind, what: &str) -> Digest {
    let header = format!("{{\"__metadata__\":{{\"what\":\"{what}\"}}}}");
    let mut weights = (header.len() as u64).to_le_bytes().to_vec();
    weights.extend(header.as_bytes());
    let bundle = Bundle::new(kind, weights, format!("{{\"what\":\"{what}\"}}").into_bytes()).unwrap();
    store.put_bundle(&bundle).await.unwrap();
    bundle.digest().clone()
}

fn policy() -> Value {
    json!({"trainer": {"image": "trainer"}, "gates": [
        {"name": "direct-leak", "maxBound": "0.005", "minSamples": 3000},
        {"name": "override-conformity", "min": "0.95", "minSamples": 3000},
        {"name": "retain-accuracy", "maxDrop": "0.015", "minSamples": 200},
        {"name": "retain-quality", "maxRatio": "1.5", "minSamples": 1000},
        {"name": "hygiene"},
    ]})
}

fn measured(plan: &Plan, pictures: [Digest; 2]) -> EvaluateRecord {
    let Task::Evaluate(task) = &plan.task else { panic!("an evaluation") };
    let of = |hits, n| Count { hits, n };
    let [before, after] = pictures;
    EvaluateRecord {
        candidate: task.candidate.clone(),
        baseline: task.baseline.clone(),
        judge: task.judge.clone(),
        reference: task.reference.clone(),
        targets: vec![TargetMeasurement {
            label: "3".into(),
            leak: of(2, 3000),
            override_hits: of(2950, 3000),
            most_common: of(2950, 3000),
            control: of(2970, 3000),
            base_rate: of(1, 3000),
        }],
        retain: task
            .kept
            .iter()
            .map(|label| LabelMeasurement {
                label: label.clone(),
                candidate: of(199, 200),
                baseline: of(200, 200),
            })
            .collect(),
        quality: Quality { candidate: 0.7, baseline: 0.6, floor: 0.25, n: 1000 },
        hygiene: HygieneCheck::REQUIRED
            .map(|name| HygieneCheck { name: name.into(), passed: true, detail: String::new() })
            .into(),
        probes: None,
        before,
        after,
        pictured: vec![],
    }
}

fn forget(task: ForgetTask) -> Plan {
    let nameless = Plan {
        schema: Plan::SCHEMA.into(),
        run: String::new(),
        seed: 7,
        device: Device::Cpu,
        threads: 2,
        precision: lethe_api::contract::Precision::F32,
        store: "file:///artifacts".into(),
        task: Task::Forget(task),
    };
    Plan { run: names::run("digits", &nameless), ..nameless }
}

async fn done() -> Done {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&lethe_store::folder_uri(folder.path()).unwrap()).unwrap();
    let targets =
        vec![PlannedTarget { label: "3".into(), replacement: Override::Fixed { label: "8".into() } }];
    let plan = forget(ForgetTask {
        teacher: bundle(&store, BundleKind::Teacher, "teacher").await,
        baseline: bundle(&store, BundleKind::Generator, "baseline").await,
        distillation: bundle(&store, BundleKind::Distillation, "distillation").await,
        judge: bundle(&store, BundleKind::Judge, "judge").await,
        targets: targets.clone(),
        kept: ["0", "8"].map(String::from).into(),
        steps: None,
        robustness: None,
        reference: None,
        settings: None,
    });
    let candidate = bundle(&store, BundleKind::Generator, "candidate").await;
    let reference = bundle(&store, BundleKind::Reference, "reference").await;
    let curves = Some(store.put_blob(b"curves".to_vec()).await.unwrap());
    let forgot = ForgetRecord { candidate: candidate.clone(), targets, steps: 500, curves };
    let forgot = store.put_record(record(&plan, &plan.digest(), RecordBody::Forget(forgot))).await.unwrap();
    let mut run: UnlearnRun = serde_json::from_value(json!({
        "apiVersion": "lethe.dev/v1alpha1", "kind": "UnlearnRun",
        "metadata": {"name": plan.run, "namespace": "studio"},
        "spec": {
            "model": "digits", "type": "Forget", "policy": policy(), "plan": plan.to_json(),
            "planDigest": plan.digest(), "reference": reference,
            "requests": [{"name": "forget-three", "uid": "u", "targets": ["3"]}],
            "baselineQuality": {"distance": "0.6", "samples": 1000},
        },
        "status": {"candidate": candidate, "jobs": []},
    }))
    .unwrap();
    let evaluate = plans::evaluate(&run.name_any(), &run.spec, &candidate).unwrap();
    let pictures =
        [store.put_blob(b"before".to_vec()).await.unwrap(), store.put_blob(b"after".to_vec()).await.unwrap()];
    let body = measured(&evaluate, pictures);
    let status = run.status.as_mut().unwrap();
    status.gates = findings::gate_results(&plan.run, &run.spec, status, &body).unwrap();
    status.verdict = Some(lethe_gates::overall(&status.gates));
    let body = record(&evaluate, &evaluate.digest(), RecordBody::Evaluate(body));
    let evaluated = store.put_record(body).await.unwrap();
    status.jobs = serde_json::from_value(json!([
        {"stage": "Forget", "name": "f", "planDigest": plan.digest(), "record": forgot},
        {"stage": "Evaluate", "name": "e", "planDigest": evaluate.digest(), "record": evaluated},
    ]))
    .unwrap();
    status.conditions = serde_json::from_value(json!([{
        "type": "Promoted", "status": "True", "reason": "Promoted", "message": "",
        "lastTransitionTime": "2026-11-27T08:00:00Z",
    }]))
    .unwrap();
    let request = serde_json::from_value(json!({
        "apiVersion": "lethe.dev/v1alpha1", "kind": "UnlearnRequest",
        "metadata": {"name": "forget-three", "namespace": "studio", "uid": "u"},
        "spec": {
            "modelRef": {"name": "digits"}, "targets": [{"label": "3"}],
            "override": {"strategy": "Fixed", "label": "8"},
        },
        "status": {"phase": "Fulfilled", "run": {"name": plan.run}, "gates": status.gates, "record": evaluated},
    }))
    .unwrap();
    let model = serde_json::from_value(json!({
        "apiVersion": "lethe.dev/v1alpha1", "kind": "DiffusionModel",
        "metadata": {"name": "digits", "namespace": "studio"},
        "spec": {
            "base": {"uri": "file:///base", "digest": Digest::of("base")}, "policyRef": {"name": "standard"},
            "serving": {
                "target": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "digits"}, "container": "server",
            },
        },
        "status": {
            "served": {"digest": candidate, "short": candidate.short(), "since": "2026-11-27T08:00:00Z"},
            "ledger": [{
                "targets": ["3"], "override": {"strategy": "Fixed", "label": "8"},
                "request": {"name": "forget-three", "uid": "u"}, "run": plan.run, "digest": candidate,
                "at": "2026-11-27T08:00:00Z",
            }],
            "conditions": [{
                "type": "Compliant", "status": "True", "reason": "LedgerHonoured", "message": "",
                "lastTransitionTime": "2026-11-27T08:00:00Z",
            }],
        },
    }))
    .unwrap();
    let keys = tempfile::tempdir().unwrap();
    let key = key(keys.path(), "key.pem");
    sign(&mut run, &store, &key).await;
    let exported = Exported { runs: vec![run], requests: vec![request], models: vec![model] };
    Done { folder, store, exported, trusted: TrustedKeys::only(key.public()) }
}

fn broken(checks: &[Check]) -> Vec<String> {
    let broken = checks.iter().filter(|check| check.outcome == Outcome::Broken);
    broken.map(|check| format!("{}: {}: {}", check.subject, check.what, check.detail)).collect()
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

#[tokio::test]
async fn evidence_that_fits_is_told_step_by_step() {
    let done = done().await;
    let checks = check(&done.exported, &done.store, Some(&done.trusted)).await;
    assert_eq!(broken(&checks), Vec::<String>::new());
    let holds = checks.iter().filter(|check| check.outcome == Outcome::Holds).count();
    assert!(holds > 30, "{checks:#?}");
    let open: Vec<_> =
        checks.iter().filter(|check| check.outcome == Outcome::NotChecked).map(|c| c.what.as_str()).collect();
    assert_eq!(open, Vec::<&str>::new());
    // Without keys it is not known who said all of it, and that is not passed over.
    let checks = check(&done.exported, &done.store, None).await;
    assert_eq!(broken(&checks), Vec::<String>::new());
    let open: Vec<_> = checks.iter().filter(|check| check.outcome == Outcome::NotChecked).collect();
    assert!(open.len() == 1 && open[0].detail.contains("--trusted-keys"), "{open:?}");
}

#[tokio::test]
async fn what_nobody_trusted_has_signed_is_found() {
    let done = done().await;
    let keys = tempfile::tempdir().unwrap();
    let other = key(keys.path(), "other.pem");
    let said = broken(&check(&done.exported, &done.store, Some(&TrustedKeys::only(other.public()))).await);
    assert!(said.iter().any(|said| said.contains("no trusted key has signed it")), "{said:#?}");
    assert!(said.iter().any(|said| said.starts_with("model digits")), "{said:#?}");
    // Nor is a run that does not name any: somebody may have taken the name away.
    let mut exported = done.exported.clone();
    exported.runs[0].status.as_mut().unwrap().evidence = None;
    let said = broken(&check(&exported, &done.store, Some(&done.trusted)).await);
    assert!(said.iter().any(|said| said.contains("the run names none")), "{said:#?}");
    // Signed again with another key, and the first not trusted any more: it fits.
    let mut run = done.exported.runs[0].clone();
    sign(&mut run, &done.store, &other).await;
    let checks = check(&done.exported, &done.store, Some(&TrustedKeys::only(other.public()))).await;
    assert_eq!(broken(&checks), Vec::<String>::new());
    let open = checks.iter().filter(|check| check.outcome == Outcome::NotChecked).count();
    assert_eq!(open, 2, "that there is more, signed by somebody else, is told of the run and of the model");
}

#[tokio::test]
async fn a_status_that_was_changed_after_it_was_signed_is_found() {
    type Change = fn(&mut UnlearnRun);
    let changes: [(&str, Change); 4] = [
        ("requests", |run| run.spec.requests[0].uid = "another".into()),
        ("policy", |run| run.spec.policy.retention.runs = 99),
        ("trainers", |run| run.status.as_mut().unwrap().jobs[0].image = Some("another".into())),
        ("materials", |run| run.spec.never_saw = Some(Digest::of("another"))),
    ];
    let done = done().await;
    for (field, change) in changes {
        let mut run = done.exported.runs[0].clone();
        change(&mut run);
        let exported = Exported { runs: vec![run], ..Exported::default() };
        let said = broken(&check(&exported, &done.store, Some(&done.trusted)).await);
        let words = "what is signed differs in";
        assert!(said.iter().any(|said| said.contains(words) && said.contains(field)), "{field}: {said:#?}");
    }
}

#[tokio::test]
async fn every_flipped_byte_of_a_store_is_found() {
    const FLIPS: usize = 1000;
    let done = done().await;
    let files = files(done.folder.path());
    let sizes: Vec<usize> = files.iter().map(|file| fs::metadata(file).unwrap().len() as usize).collect();
    let total: usize = sizes.iter().sum();
    // Of a store: what requests and models say of it is read from the same files.
    let runs = Exported { runs: done.exported.runs.clone(), ..Exported::default() };
    assert!(files.len() >= 20 && total > FLIPS, "{} files, {total} bytes", files.len());
    // Other bytes and bits in every run, all over the store.
    let seed = RandomState::new().build_hasher().finish();
    let mut state = seed;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for flip in 0..FLIPS {
        let mut at = flip * total / FLIPS + random(total / FLIPS);
        let mut index = 0;
        while at >= sizes[index] {
            at -= sizes[index];
            index += 1;
        }
        let whole = fs::read(&files[index]).unwrap();
        let mut flipped = whole.clone();
        let bit = random(8);
        flipped[at] ^= 1 << bit;
        fs::write(&files[index], flipped).unwrap();
        let checks = check(&runs, &done.store, Some(&done.trusted)).await;
        let file = files[index].display();
        assert_ne!(broken(&checks), Vec::<String>::new(), "bit {bit} of byte {at} of {file}, seed {seed}");
        fs::write(&files[index], whole).unwrap();
    }
    assert_eq!(broken(&check(&done.exported, &done.store, Some(&done.trusted)).await), Vec::<String>::new());
}

#[tokio::test]
async fn a_file_that_is_gone_or_was_added_is_found() {
    let done = done().await;
    for file in files(done.folder.path()) {
        let whole = fs::read(&file).unwrap();
        fs::remove_file(&file).unwrap();
        let checks = check(&done.exported, &done.store, Some(&done.trusted)).await;
        assert_ne!(broken(&checks), Vec::<String>::new(), "{} is gone", file.display());
        fs::write(&file, whole).unwrap();
    }
    let manifest =
        files(done.folder.path()).into_iter().find(|file| file.ends_with("manifest.json")).unwrap();
    fs::write(manifest.with_file_name("teacher.safetensors"), b"more").unwrap();
    let said = broken(&check(&done.exported, &done.store, Some(&done.trusted)).await);
    assert!(said.iter().any(|said| said.contains("teacher.safetensors")), "{said:?}");
}

#[tokio::test]
async fn what_a_status_claims_beyond_its_record_is_found() {
    type Change = fn(&mut Exported);
    fn gate(run: &mut UnlearnRun) -> &mut GateResult {
        &mut run.status.as_mut().unwrap().gates[0]
    }
    let changes: [(&str, Change); 12] = [
        ("follows", |e| gate(&mut e.runs[0]).bound = Some("0.0001".into())),
        ("verdict follows", |e| {
            e.runs[0].status.as_mut().unwrap().verdict = Some(lethe_api::v1alpha1::Verdict::Fail);
        }),
        ("results", |e| drop(e.runs[0].status.as_mut().unwrap().gates.pop())),
        ("digest that names it", |e| e.runs[0].spec.plan.push(' ')),
        ("candidate", |e| e.runs[0].status.as_mut().unwrap().candidate = Some(Digest::of("other"))),
        ("names no record", |e| drop(e.runs[0].status.as_mut().unwrap().jobs.pop())),
        ("judged anew", |e| e.runs[0].spec.policy.gates[0].max_bound = Some("0.0001".into())),
        ("name follows", |e| e.runs[0].spec.model = "other".into()),
        ("very request", |e| e.requests[0].metadata.uid = Some("another".into())),
        ("its targets", |e| e.requests[0].spec.targets[0].label = "4".into()),
        ("promoted", |e| e.runs[0].status.as_mut().unwrap().conditions.clear()),
        ("ledger: 9", |e| e.models[0].status.as_mut().unwrap().ledger[0].targets = vec!["9".into()]),
    ];
    let done = done().await;
    for (words, change) in changes {
        let mut exported = done.exported.clone();
        change(&mut exported);
        let said = broken(&check(&exported, &done.store, Some(&done.trusted)).await);
        assert!(said.iter().any(|said| said.contains(words)), "{words}: {said:#?}");
    }
}

/// A run that goes on with what another one trained.
async fn gone_on_with(trained: &UnlearnRun, store: &Store) -> UnlearnRun {
    let mut run = trained.clone();
    run.metadata.name = Some("digits-another".into());
    let forgot = &trained.status.as_ref().unwrap().jobs[0];
    let candidate = trained.status.as_ref().unwrap().candidate.clone().unwrap();
    run.spec.made_before = serde_json::from_value(json!({
        "run": trained.name_any(), "candidate": candidate, "job": forgot.name, "record": forgot.record,
    }))
    .unwrap();
    let plan = plans::evaluate(&run.name_any(), &run.spec, &candidate).unwrap();
    let pictures =
        [store.put_blob(b"before".to_vec()).await.unwrap(), store.put_blob(b"after".to_vec()).await.unwrap()];
    let body = RecordBody::Evaluate(measured(&plan, pictures));
    let job = &mut run.status.as_mut().unwrap().jobs[1];
    job.plan_digest = plan.digest();
    job.record = Some(store.put_record(record(&plan, &plan.digest(), body)).await.unwrap());
    run
}

#[tokio::test]
async fn what_was_made_before_has_the_plan_and_the_record_of_who_made_it() {
    let done = done().await;
    let again = gone_on_with(&done.exported.runs[0], &done.store).await;
    let only = |run: UnlearnRun| Exported { runs: vec![run], ..Exported::default() };
    let said = broken(&check(&only(again.clone()), &done.store, None).await);
    assert!(said.is_empty(), "{said:#?}");
    let mut of_another = again.clone();
    of_another.spec.made_before.as_mut().unwrap().candidate = Digest::of("another");
    let said = broken(&check(&only(of_another), &done.store, None).await);
    assert!(said.iter().any(|said| said.contains("that was made before")), "{said:#?}");
    let mut of_nobody = again;
    of_nobody.spec.made_before = None;
    let said = broken(&check(&only(of_nobody), &done.store, None).await);
    for words in ["the plan is this run's", "name follows", "the record is this run's"] {
        assert!(said.iter().any(|said| said.contains(words)), "{words}: {said:#?}");
    }
}
