//! The store in a bucket of a real S3 server.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use lethe_api::{
    Digest,
    contract::BundleKind,
    v1alpha1::{ConditionType, Reason, RequestPhase, RunType, Stage},
};
use lethe_store::{Bundle, CREDENTIALS, Error, Kind, Problem, Store};
use lethe_tests::{
    World,
    bucket::Bucket,
    examples,
    operator::{Launch, Operator, free_port},
    place::condition,
    real::Trainer,
    trainer, wait,
    world::policy,
};
use serde_json::json;
use tokio::time::{Instant, timeout};

/// More than one part of an upload.
const LARGE: usize = 200 << 20;

pub async fn what_is_put_into_a_bucket_is_what_one_gets(_world: &World) -> Result<()> {
    let bucket = Bucket::start().await?;
    let store = bucket.store()?;
    let large = weights(LARGE)?;
    store.put_bundle(&large).await?;
    ensure!(store.get_bundle(large.digest(), BundleKind::Generator).await? == large, "it came back changed");
    let files = store.bundle_folder(large.digest()).list().await?;
    ensure!(files == ["manifest.json", "model.json", "model.safetensors"], "{files:?}");
    let record = store.put_record(b"{}".to_vec()).await?;
    ensure!(store.get_record(&record, 10).await? == b"{}");
    let plan = Digest::of(b"a plan");
    store.scratch(&plan).put("checkpoint", b"state").await?;
    ensure!(store.scratch(&plan).get("checkpoint", 1000).await?.as_deref() == Some(&b"state"[..]));

    let kinds: Vec<_> = store.inventory().await?.iter().map(|item| item.kind).collect();
    ensure!(kinds == [Kind::Bundle, Kind::Record, Kind::Scratch], "{kinds:?}");
    for item in store.inventory().await? {
        store.remove(&item).await?;
    }
    ensure!(store.inventory().await?.is_empty(), "something is left");
    let gone = store.get_record(&record, 10).await;
    ensure!(matches!(gone, Err(Error::NotFound { .. })), "{gone:?}");
    Ok(())
}

pub async fn an_upload_that_was_cut_off_leaves_nothing_to_see(_world: &World) -> Result<()> {
    let bucket = Bucket::start().await?;
    let store = bucket.store()?;
    let large = weights(LARGE)?;
    let upload = tokio::spawn({
        let (store, large) = (store.clone(), large.clone());
        async move { store.put_bundle(&large).await }
    });
    let (folder, begun) = (bucket.data(), 8 << 20);
    wait::until_answer("parts have arrived", async || Ok(bytes_below(&folder)), |bytes| *bytes > begun)
        .await?;
    bucket.die().await?;
    let result = upload.await?;
    ensure!(matches!(result, Err(Error::Unavailable { .. })), "{result:?}");

    bucket.come_back().await?;
    let found = store.get_bundle(large.digest(), BundleKind::Generator).await;
    ensure!(matches!(found, Err(Error::NotFound { .. })), "half a bundle can be seen");
    ensure!(store.bundle_folder(large.digest()).list().await?.is_empty());
    store.put_bundle(&large).await?;
    ensure!(store.get_bundle(large.digest(), BundleKind::Generator).await? == large);
    Ok(())
}

pub async fn what_is_wrong_with_a_bucket_is_told_apart(_world: &World) -> Result<()> {
    let bucket = Bucket::start().await?;
    let nothing = Digest::of(b"nothing");
    let wrong = BTreeMap::from([("AWS_SECRET_ACCESS_KEY".to_owned(), "another".to_owned())]);
    let variables = bucket.variables().into_iter().chain(wrong).collect();
    let refused = Store::open_with(&bucket.uri(), variables)?;
    let missing = Store::open_with("s3://elsewhere/store", bucket.variables())?;
    for (store, expected) in [(refused, Problem::Unauthorized), (missing, Problem::NoBucket)] {
        let read = store.get_record(&nothing, 10).await.map(|_| ());
        let written = store.put_record(b"{}".to_vec()).await.map(|_| ());
        for result in [read, written, store.inventory().await.map(|_| ())] {
            let is_it = matches!(&result, Err(Error::Unusable { problem, .. }) if *problem == expected);
            ensure!(is_it, "{expected:?}: {result:?}");
        }
    }
    bucket.die().await?;
    let begun = Instant::now();
    let away = bucket.store()?.get_record(&nothing, 10).await;
    ensure!(matches!(away, Err(Error::Unavailable { .. })), "{away:?}");
    ensure!(begun.elapsed() < Duration::from_secs(30), "it took {:?}", begun.elapsed());
    Ok(())
}

/// The whole loop, with the real trainer, on the real server.
pub async fn a_model_is_made_to_forget_in_a_bucket(world: &World) -> Result<()> {
    let bucket = Bucket::start().await?;
    let trainer = Trainer::new(bucket.variables())?;
    let base = trainer.teach("s3://lethe/base/digits").await?;
    let operator = start_operator(world, &bucket).await?;
    world.keep_operator(operator).await;
    let mut model = world.model()?;
    model["spec"]["base"] = json!({"uri": "s3://lethe/base/digits", "digest": base});
    world.lay_out(policy()?, model).await?;
    done(&trainer, world, Stage::Prepare).await?;
    world.model_until("it is Ready", |m| condition(m, ConditionType::Ready, "True")).await?;

    world.apply(&examples::first("forget-three.yaml")?).await?;
    done(&trainer, world, Stage::Forget).await?;
    done(&trainer, world, Stage::Evaluate).await?;
    world.request_until("forget-three", RequestPhase::Fulfilled).await?;
    let ledger = world.ledger().await?;
    let entry = ledger.first().context("the ledger is empty")?;
    world.assert_serves(&entry.digest).await?;
    bucket.store()?.get_bundle(&entry.digest, BundleKind::Generator).await?;
    can_be_served(&trainer, &bucket, &entry.digest).await
}

/// A record that cannot be read yet is waited for; a trainer that finds nobody there tries again later.
pub async fn a_bucket_that_is_away_is_waited_for(world: &World) -> Result<()> {
    let bucket = Bucket::start().await?;
    let operator = start_operator(world, &bucket).await?;
    world.keep_operator(operator).await;
    let mut again = policy()?;
    again["spec"]["trainer"]["backoffLimit"] = json!(2);
    world.lay_out(again, world.model()?).await?;
    let task = world.task(Stage::Prepare).await?;
    let body = trainer::honest(&task.plan, &task.digest);
    let record = trainer::record(&task, body);
    let record = bucket.store()?.put_record(serde_json::to_vec(&record)?).await?;
    bucket.die().await?;
    world.exit(&task, 0, &trainer::outcome(&task, record).to_message()).await?;
    let prepares = async || {
        let runs = world.runs().await?;
        Ok(runs.into_iter().find(|run| run.spec.type_ == RunType::Prepare))
    };
    let waits = Reason::RecordUnavailable.to_string();
    wait::until_answer("the run waits for its record", prepares, |run| {
        let status = run.as_ref().and_then(|run| run.status.as_ref());
        status.is_some_and(|status| {
            status.conditions.iter().any(|c| c.reason == waits && c.status == "Unknown")
        })
    })
    .await?;
    bucket.come_back().await?;
    world.model_until("it is Ready", |m| condition(m, ConditionType::Ready, "True")).await?;
    ensure!(world.jobs().await?.len() == 1, "it was prepared twice");
    Ok(())
}

/// Does a stage's work, and wants it to succeed.
async fn done(trainer: &Trainer, world: &World, stage: Stage) -> Result<()> {
    let task = world.task(stage).await?;
    let code = trainer.carry_out(world, &task).await?;
    ensure!(code == 0, "{stage:?} ended with {code}: {}", trainer.log());
    Ok(())
}

/// The operator, with its store in the bucket and its credentials in files.
async fn start_operator(world: &World, bucket: &Bucket) -> Result<Operator> {
    let mut env = bucket.place();
    let credentials = bucket.mounted_credentials()?;
    env.insert(CREDENTIALS.into(), credentials.display().to_string());
    let flags = bucket.place().iter().map(|(name, value)| format!("--store-env={name}={value}")).collect();
    let launch = Launch { store: bucket.uri(), env, flags, ..world.launch().await? };
    Operator::start(&launch)
}

/// A bundle with weights of about this size, which are not all the same.
fn weights(bytes: usize) -> Result<Bundle> {
    let header = format!("{{\"w\":{{\"dtype\":\"U8\",\"shape\":[{bytes}],\"data_offsets\":[0,{bytes}]}}}}");
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.bytes());
    file.extend((0..bytes).map(|i| (i >> 8) as u8 ^ i as u8));
    Ok(Bundle::new(BundleKind::Generator, file, b"{\"labels\":[]}".to_vec())?)
}

/// Of all files below a folder, as far as they are there.
fn bytes_below(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

/// The real server loads the bundle from the bucket and says so.
async fn can_be_served(trainer: &Trainer, bucket: &Bucket, digest: &Digest) -> Result<()> {
    let port = free_port()?;
    let server = trainer.serve(&bucket.uri(), digest, port)?;
    let url = format!("http://127.0.0.1:{port}/v2/models/digits");
    let asked = async || {
        let url = url.clone();
        Ok(tokio::task::spawn_blocking(move || ureq::get(&url).call().ok()?.body_mut().read_to_string().ok())
            .await?)
    };
    let says_so =
        |answer: &Option<String>| answer.as_ref().is_some_and(|text| text.contains(digest.as_str()));
    timeout(Duration::from_secs(60), wait::until_answer("the server has the bundle", asked, says_so))
        .await??;
    drop(server);
    Ok(())
}
