//! The store in a bucket of a real S3 server.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use anyhow::{Context, Error, Result, ensure};
use futures::future::LocalBoxFuture;
use k8s_openapi::api::core::v1::{Pod, Volume};
use kube::api::ListParams;
use lethe_api::{
    Digest,
    contract::{BundleKind, exit},
    v1alpha1::{ConditionType, Reason, RequestPhase, RunType, Stage, UnlearnRun, labels},
};
use lethe_store::{Bundle, CREDENTIALS, Error as StoreError, Kind, Problem, Store};
use lethe_tests::{
    Server, Tier, World,
    audit_log::ORIGIN,
    browser::Browser,
    bucket::Bucket,
    collecting::make_old,
    examples,
    keys::Key,
    operator::{Launch, Operator, free_port, said_by},
    place::{HasConditions, condition},
    real::Trainer,
    server, trainer, wait,
    world::policy,
};
use serde_json::{Value, json};
use tokio::{
    process::Command,
    time::{Instant, timeout},
};

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
    ensure!(matches!(gone, Err(StoreError::NotFound { .. })), "{gone:?}");
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
    ensure!(matches!(result, Err(StoreError::Unavailable { .. })), "{result:?}");

    bucket.come_back().await?;
    let found = store.get_bundle(large.digest(), BundleKind::Generator).await;
    ensure!(matches!(found, Err(StoreError::NotFound { .. })), "half a bundle can be seen");
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
            let is_it = matches!(&result, Err(StoreError::Unusable { problem, .. }) if *problem == expected);
            ensure!(is_it, "{expected:?}: {result:?}");
        }
    }
    bucket.die().await?;
    let begun = Instant::now();
    let away = bucket.store()?.get_record(&nothing, 10).await;
    ensure!(matches!(away, Err(StoreError::Unavailable { .. })), "{away:?}");
    ensure!(begun.elapsed() < Duration::from_secs(30), "it took {:?}", begun.elapsed());
    Ok(())
}

/// Whoever put it right restarts nothing, and nothing is done twice.
pub async fn what_is_wrong_with_a_bucket_is_said_of_the_run_until_it_is_put_right(
    world: &World,
) -> Result<()> {
    in_a_bucket(world, |world, bucket| Box::pin(is_put_right(world, bucket))).await
}

type InABucket = for<'a> fn(&'a World, &'a Bucket) -> LocalBoxFuture<'a, Result<()>>;

/// In a world beside this one, whose store is in a bucket.
async fn in_a_bucket(world: &World, life: InABucket) -> Result<()> {
    let bucket = Bucket::start().await?;
    let name: String = world.namespace.chars().take(56).collect();
    let mut beside = World::new(world.server.clone(), &format!("{name}-beside")).await?;
    beside.store = bucket.store()?;
    match life(&beside, &bucket).await {
        Err(error) => Err(error.context(Server::diagnose(&beside).await)),
        Ok(()) => Ok(()),
    }
}

async fn is_put_right(world: &World, bucket: &Bucket) -> Result<()> {
    start_operator(world, bucket, vec!["--store-credentials-secret=lethe-store".into()]).await?;
    world.lay_out(policy()?, world.model()?).await?;
    let secret = bucket.mounted_credentials()?.join("AWS_SECRET_ACCESS_KEY");
    let (right, task) = (fs::read(&secret)?, world.task(Stage::Prepare).await?);
    has_its_credentials_in_files(&task.pod, "lethe-store")?;
    fs::write(&secret, "another")?;
    world.succeed(&task).await?;
    run_waits(world, RunType::Prepare, Problem::Unauthorized).await?;
    fs::write(&secret, right)?;
    world.model_until("it is Ready", |m| condition(m, ConditionType::Ready, "True")).await?;

    world.request("forget-three", "3", "8").await?;
    let task = world.task(Stage::Forget).await?;
    let record = trainer::record(&task, trainer::honest(&task.plan, &task.digest));
    let record = world.put_record(&record).await?;
    let (there, gone) = (bucket.folder(), bucket.data().join("gone"));
    fs::rename(&there, &gone)?;
    world.exit(&task, 0, &trainer::outcome(&task, record).to_message()).await?;
    run_waits(world, RunType::Forget, Problem::NoBucket).await?;
    fs::rename(&gone, &there)?;
    world.evaluate(|_| {}).await?;
    world.request_until("forget-three", RequestPhase::Fulfilled).await?;
    ensure!(world.jobs().await?.len() == 3, "{:?}", world.jobs().await?);
    Ok(())
}

/// The run waits for its record, and says what is wrong.
async fn run_waits(world: &World, type_: RunType, problem: Problem) -> Result<()> {
    run_says(world, type_, ("Unknown", Reason::RecordUnavailable), problem).await
}

/// The run is, or is not, ready for this reason, and says what is wrong.
async fn run_says(world: &World, type_: RunType, ready: (&str, Reason), problem: Problem) -> Result<()> {
    let run = async || Ok(world.runs().await?.into_iter().find(|run| run.spec.type_ == type_));
    let (status, reason, words) = (ready.0, ready.1.to_string(), problem.to_string());
    let says = |run: &Option<UnlearnRun>| {
        let ready = run.as_ref().and_then(|run| ConditionType::Ready.find(run.conditions()));
        ready.is_some_and(|it| it.status == status && it.reason == reason && it.message.contains(&words))
    };
    wait::until_answer(&format!("the run says {words:?}"), run, says).await?;
    Ok(())
}

/// The real trainer, tried again by the Job that runs it.
pub async fn a_trainer_whose_bucket_is_away_exits_with_75_and_does_the_task_once_it_is_back(
    world: &World,
) -> Result<()> {
    in_a_bucket(world, |world, bucket| Box::pin(is_tried_again(world, bucket))).await
}

async fn is_tried_again(world: &World, bucket: &Bucket) -> Result<()> {
    let trainer = Trainer::new(bucket.variables())?;
    let (mut patient, mut model) = (policy()?, world.model()?);
    patient["spec"]["trainer"]["backoffLimit"] = json!(2);
    // What becomes of the baseline is no matter here.
    patient["spec"]["training"]["prepareSteps"] = json!(2);
    model["spec"]["base"] = taught_in_seconds(&trainer).await?;
    start_operator(world, bucket, vec![]).await?;
    world.lay_out(patient, model).await?;
    let first = world.task(Stage::Prepare).await?;
    bucket.die().await?;
    let code = trainer.carry_out(world, &first).await?;
    ensure!(code == exit::TRY_AGAIN, "it ended with {code}: {}", trainer.log());

    bucket.come_back().await?;
    let second = world.task(Stage::Prepare).await?;
    ensure!(second.pod.metadata.uid != first.pod.metadata.uid, "the same pod");
    ensure!(second.digest == first.digest, "another plan");
    done(&trainer, world, Stage::Prepare).await?;
    ensure!(world.jobs().await?.len() == 1, "{:?}", world.jobs().await?);
    Ok(())
}

/// Before it has read or made anything, and for good, although the Job has attempts left.
pub async fn a_trainer_with_a_wrong_key_exits_with_78_and_is_not_tried_again(world: &World) -> Result<()> {
    in_a_bucket(world, |world, bucket| Box::pin(is_not_tried_again(world, bucket))).await
}

async fn is_not_tried_again(world: &World, bucket: &Bucket) -> Result<()> {
    let mut variables = bucket.variables();
    variables.insert("AWS_SECRET_ACCESS_KEY".into(), "another".into());
    let trainer = Trainer::new(variables)?;
    let mut patient = policy()?;
    patient["spec"]["trainer"]["backoffLimit"] = json!(2);
    start_operator(world, bucket, vec![]).await?;
    world.lay_out(patient, world.model()?).await?;
    let task = world.task(Stage::Prepare).await?;
    let code = trainer.carry_out(world, &task).await?;
    ensure!(code == exit::BAD_CONFIGURATION, "it ended with {code}: {}", trainer.log());
    let failed = ("False", Reason::BadConfiguration);
    run_says(world, RunType::Prepare, failed, Problem::Unauthorized).await?;
    let pods = world.api::<Pod>().list(&ListParams::default().labels(labels::STAGE)).await?.items;
    ensure!(pods.len() == 1, "there are {} pods", pods.len());
    Ok(())
}

/// A base in the bucket that knows the zeros and ones of the digits: more of them take minutes to teach and to prepare.
async fn taught_in_seconds(trainer: &Trainer) -> Result<Value> {
    const OUT: &str = "s3://lethe/base/two-digits";
    let folder = tempfile::tempdir()?;
    let images = folder.path().join("images.csv.gz");
    let mut choose = Command::new("sh");
    choose.args(["-c", "zcat \"$0\" | grep ',[01]$' | gzip > \"$1\""]);
    said_by(choose.arg(server::repository("trainer/data/optical-digits.csv.gz")).arg(&images)).await?;
    Ok(json!({"uri": OUT, "digest": trainer.teach_of(&images, OUT, &["--steps=2000"]).await?}))
}

/// The whole loop, with the real trainer, on the real server: everything is signed, verified, and left alone by the collector.
pub async fn a_model_is_made_to_forget_in_a_bucket(world: &World) -> Result<()> {
    in_a_bucket(world, |world, bucket| Box::pin(is_made_to_forget(world, bucket))).await
}

async fn is_made_to_forget(world: &World, bucket: &Bucket) -> Result<()> {
    let trainer = Trainer::new(bucket.variables())?;
    let base = trainer.teach("s3://lethe/base/digits").await?;
    let key = world.key("a")?;
    let log = [format!("--audit-log={}/log", bucket.uri()), format!("--audit-log-origin={ORIGIN}")];
    start_operator(world, bucket, [key.flags(&[&key])?, log.into()].concat()).await?;
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
    can_be_served(&trainer, bucket, &entry.digest).await?;
    is_verified(world, bucket, &key).await?;

    let stray = world.store.put_blob(b"stray".to_vec()).await?;
    make_old(&bucket.folder(), Path::new(""))?;
    let said = world.collect(bucket.variables(), &["--delete"]).await?;
    ensure!(said.contains(stray.as_str()) && world.store.get_blob(&stray, 100).await.is_err(), "{said}");
    world.store.get_bundle(&entry.digest, BundleKind::Generator).await?;
    is_verified(world, bucket, &key).await
}

/// `kubectl lethe verify`, of all that there is, with nothing but the bucket and the public key.
async fn is_verified(world: &World, bucket: &Bucket, key: &Key) -> Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), world.exported().await?)?;
    let verify = async || {
        let mut command = Command::new(server::cli()?);
        command.env_clear().envs(bucket.variables()).arg("verify").arg(file.path());
        command.arg(format!("--store={}", bucket.uri())).arg(format!("--log={}/log", bucket.uri()));
        command.arg(format!("--trusted-keys={}", key.public.display())).arg(format!("--origin={ORIGIN}"));
        Ok(said_by(&mut command).await.map_err(|error| error.to_string()))
    };
    // What was done last may still be on its way into the log.
    let said = wait::until_answer("all of it is verified", verify, Result::is_ok).await?;
    let said = said.map_err(Error::msg)?;
    let words =
        ["request forget-three", "has signed what follows from this run", "every byte, hash and signature"];
    ensure!(words.iter().all(|words| said.contains(words)), "{said}");
    Ok(())
}

/// A record that cannot be read yet is waited for, and what was done is not done again.
pub async fn a_bucket_that_is_away_is_waited_for(world: &World) -> Result<()> {
    let bucket = Bucket::start().await?;
    start_operator(world, &bucket, vec![]).await?;
    world.lay_out(policy()?, world.model()?).await?;
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

/// The operator, with its store in the bucket, its credentials in files, and further flags.
async fn start_operator(world: &World, bucket: &Bucket, mut flags: Vec<String>) -> Result<()> {
    let mut env = bucket.place();
    let credentials = bucket.mounted_credentials()?;
    env.insert(CREDENTIALS.into(), credentials.display().to_string());
    flags.extend(bucket.place().iter().map(|(name, value)| format!("--store-env={name}={value}")));
    let launch = Launch { store: bucket.uri(), env, flags, ..world.launch().await? };
    world.keep_operator(Operator::start(&launch)?).await;
    Ok(())
}

/// A trainer's pod mounts the Secret, read-only, where the variable says.
fn has_its_credentials_in_files(pod: &Pod, secret: &str) -> Result<()> {
    let spec = pod.spec.as_ref().context("a pod without a spec")?;
    let is_it =
        |volume: &&Volume| volume.secret.as_ref().is_some_and(|it| it.secret_name.as_deref() == Some(secret));
    let volume = spec.volumes.iter().flatten().find(is_it).context("no volume is of the Secret")?;
    let container = spec.containers.first().context("a pod without a container")?;
    let mount = container.volume_mounts.iter().flatten().find(|mount| mount.name == volume.name);
    let mount = mount.context("the Secret is not mounted")?;
    let variable = container.env.iter().flatten().find(|variable| variable.name == CREDENTIALS);
    let said = variable.and_then(|variable| variable.value.as_ref());
    ensure!(said == Some(&mount.mount_path) && mount.read_only == Some(true), "{said:?}: {mount:?}");
    Ok(())
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

/// The real server loads the bundle from the bucket, says so, and shows what it generates.
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
    let mut browser = Browser::start().await?;
    browser.reads_well("gallery-served", &format!("http://127.0.0.1:{port}/")).await?;
    drop(server);
    Ok(())
}
