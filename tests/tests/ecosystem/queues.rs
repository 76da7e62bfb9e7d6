//! Runs that wait for their turn in a real Kueue, with the manifests of `examples/queues`.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    ResourceExt,
    api::ListParams,
    runtime::watcher::{self, watcher},
};
use lethe_api::{
    contract::{Failure, Outcome, Status, exit},
    v1alpha1::{
        ConditionType, DiffusionModel, Reason, RequestPhase, RunType, Stage, UnlearnRequest, UnlearnRun,
        labels,
    },
};
use lethe_tests::{
    Task, World, audit,
    kueue::{self, Kueue, POLICY, is_admitted},
    place::{HasConditions, condition, request},
    real::Trainer,
    trainer::{self, failure},
    wait,
};
use serde_json::{Value, json};
use tokio::sync::watch;

/// GPUs of the queue in `examples/queues`; a run needs one.
const QUOTA: usize = 4;

/// Kueue, its queue, and the policy that names it.
async fn begin() -> Result<(World, Kueue)> {
    let world = kueue::alone().await?;
    let kueue = Kueue::install(&world.server).await?;
    kueue::apply_examples(&world, "kueue.yaml", |_| true).await?;
    apply_policy(&world).await?;
    Ok((world, kueue))
}

/// The policy of the examples; a trainer that fails is not tried again: nothing here is a failure.
async fn apply_policy(world: &World) -> Result<()> {
    kueue::apply_examples(world, "policy.yaml", |_| true).await?;
    let none = json!({"spec": {"trainer": {"backoffLimit": 0}}});
    world.patch::<lethe_api::v1alpha1::UnlearnPolicy>(POLICY, none).await?;
    Ok(())
}

/// Whatever fails, the logs say more.
async fn told<T>(world: &World, kueue: &Kueue, result: Result<T>) -> Result<T> {
    match result {
        Ok(done) => Ok(done),
        Err(error) => {
            let log = xtask::cmd::tail(&world.operator_log());
            Err(error.context(format!("{}\n{log}\n{}", world.diagnose().await, kueue.log_tail())))
        }
    }
}

async fn apply_model(world: &World, name: &str) -> Result<()> {
    world.apply_model(name).await?;
    let policy = json!({"spec": {"policyRef": {"name": POLICY}}});
    world.patch::<DiffusionModel>(name, policy).await?;
    Ok(())
}

async fn ask(world: &World, name: &str, model: &str) -> Result<()> {
    let mut manifest = request(name, &["3"], "8");
    manifest["spec"]["modelRef"]["name"] = json!(model);
    world.apply(&manifest).await?;
    Ok(())
}

/// The pod of a stage of a model's run, once there is one at work.
async fn task(world: &World, model: &str, stage: Stage) -> Result<Task> {
    let of = format!("{}={model},{}={}", labels::MODEL, labels::STAGE, stage.as_str());
    let pod = wait::until_any(&world.api::<Pod>(), &of, "is to work", |pod| !trainer::has_ended(pod)).await?;
    world.told(pod).await
}

async fn finish(world: &World, model: &str, stage: Stage) -> Result<()> {
    world.succeed(&task(world, model, stage).await?).await
}

async fn prepare(world: &World, model: &str) -> Result<()> {
    apply_model(world, model).await?;
    finish(world, model, Stage::Prepare).await?;
    let is_ready = |model: &DiffusionModel| condition(model, ConditionType::Ready, "True");
    wait::until(&world.api(), model, "it is Ready", is_ready).await?;
    Ok(())
}

/// The run that works for a request.
async fn run_of(world: &World, name: &str) -> Result<UnlearnRun> {
    let named = |request: &UnlearnRequest| request.status.as_ref().is_some_and(|status| status.run.is_some());
    let request = wait::until(&world.api::<UnlearnRequest>(), name, "a run works for it", named).await?;
    let run = request.status.and_then(|status| status.run).context("it names its run")?;
    Ok(world.api::<UnlearnRun>().get(&run.name).await?)
}

/// Trainer pods that are to work.
async fn at_work(world: &World) -> Result<Vec<Pod>> {
    let pods = world.api::<Pod>().list(&ListParams::default().labels(labels::STAGE)).await?;
    Ok(pods.items.into_iter().filter(|pod| !trainer::has_ended(pod)).collect())
}

/// Somebody else's Job has the GPUs.
async fn somebody_else_works(world: &World, name: &str, class: &str, gpus: u32) -> Result<()> {
    kueue::another_job(world, name, class, gpus).await?;
    wait::until(&world.api::<Job>(), name, "it is admitted", is_admitted).await?;
    Ok(())
}

pub async fn runs_wait_for_quota_in_the_words_of_kueue_and_are_admitted_in_order(_: &World) -> Result<()> {
    let (world, kueue) = begin().await?;
    told(&world, &kueue, wait_in_order(&world).await).await
}

async fn wait_in_order(world: &World) -> Result<()> {
    let models = ["first", "second", "third"];
    for model in models {
        prepare(world, model).await?;
    }
    for index in 0..QUOTA {
        somebody_else_works(world, &format!("other-{index}"), "outage", 1).await?;
    }
    for model in models {
        ask(world, model, model).await?;
        let waiting = world.request_waits(model, Reason::WaitingForQuota, "waits in queue training").await?;
        let scheduled = ConditionType::Scheduled.find(waiting.conditions()).context("it is scheduled")?;
        // Kueue goes by when its Workloads were made, in seconds.
        let then = scheduled.last_transition_time.0.as_second();
        let next = async || Ok(Timestamp::now().as_second() > then + 1);
        wait::until_answer("the next second has begun", next, |is| *is).await?;
    }
    // Of those that would fare no better than one before them Kueue says nothing.
    let job = format!("{}-forget", run_of(world, "first").await?.name_any());
    let says = async || Ok(kueue::quota(world, &job).await?.unwrap_or_default());
    let quota = wait::until_answer("Kueue says for what it waits", says, |quota: &Value| {
        quota["message"].as_str().is_some_and(|message| message.contains("nvidia.com/gpu"))
    })
    .await?;
    let word = |key: &str| quota[key].as_str().unwrap_or_default();
    let words = format!("QuotaReserved=False, {}: {}", word("reason"), word("message"));
    println!("the first waits: {words}");
    world.request_waits("first", Reason::WaitingForQuota, &words).await?;
    let events = world.events().await;
    ensure!(events.contains("Normal WaitingForQuota UnlearnRequest/third"), "no event says so: {events}");
    ensure!(at_work(world).await?.is_empty(), "a pod came before its turn");
    let is_waiting =
        |line: &str| line.starts_with("lethe_request_waiting") && line.contains(r#"request="third""#);
    world.metrics_until("it counts as waiting", |text| text.lines().any(is_waiting)).await?;

    // One of four GPUs is free: one by one, the first first.
    world.delete::<Job>("other-0").await?;
    for model in models {
        let task = task(world, model, Stage::Forget).await?;
        let others: Vec<_> = at_work(world).await?.iter().map(ResourceExt::name_any).collect();
        ensure!(others == [task.pod.name_any()], "{model} works beside {others:?}");
        let pool =
            task.pod.spec.as_ref().and_then(|spec| spec.node_selector.as_ref()?.get("example.org/pool"));
        ensure!(pool.is_some_and(|pool| pool == "training"), "what Kueue adds to the Job is gone: {pool:?}");
        world.succeed(&task).await?;
    }
    for model in models {
        finish(world, model, Stage::Evaluate).await?;
        world.request_until(model, RequestPhase::Fulfilled).await?;
    }
    let entries = audit::of(&world.server.audit_log(), &world.home)?;
    let forbidden: Vec<_> = entries.iter().filter(|entry| entry.is_forbidden()).collect();
    ensure!(forbidden.is_empty(), "the chart lacks a right: {forbidden:#?}");
    let used =
        entries.iter().filter_map(audit::Entry::used).filter(|(_, what)| what == "kueue.x-k8s.io/workloads");
    let used: BTreeSet<_> = used.map(|(verb, _)| verb).collect();
    // Lists are streamed. The right to list is for a server that streams none, as it is for the other kinds (api/rights.rs).
    ensure!(used == ["watch"].map(String::from).into(), "of Workloads it used {used:?}");
    each_once(world, &models).await
}

pub async fn a_run_that_is_preempted_goes_on_and_is_done_once(_: &World) -> Result<()> {
    let (world, kueue) = begin().await?;
    told(&world, &kueue, preempt(&world).await).await
}

async fn preempt(world: &World) -> Result<()> {
    prepare(world, "digits").await?;
    ask(world, "digits", "digits").await?;
    let mut first = None;
    for outage in ["outage-0", "outage-1"] {
        let task = task(world, "digits", Stage::Forget).await?;
        world.run(&task).await?;
        world.request_waits("digits", Reason::Training, "at work").await?;
        let known = |run: &UnlearnRun| {
            let job = run.status.as_ref().and_then(|status| status.job(Stage::Forget));
            job.is_some_and(|job| job.started_at.is_some())
        };
        wait::until(&world.api(), &task.plan.run, "its pod was seen at work", known).await?;
        // Everybody's GPUs are needed.
        kueue::another_job(world, outage, "outage", 4).await?;
        let asked = |pod: &Pod| pod.metadata.deletion_timestamp.is_some();
        wait::until(&world.api::<Pod>(), &task.pod.name_any(), "it is told to stop", asked).await?;
        let said = Outcome { status: Status::Interrupted, ..failure(&task, Failure::Interrupted, "SIGTERM") };
        world.exit(&task, exit::INTERRUPTED, &said.to_message()).await?;
        wait::until_gone(&world.api::<Pod>(), &task.pod.name_any(), None).await?;
        let says =
            world.request_waits("digits", Reason::Preempted, "Preempted: Preempted to accommodate").await?;
        println!("{}", ConditionType::Ready.find(says.conditions()).map_or("", |ready| &ready.message));
        wait::until(&world.api::<Job>(), outage, "it is admitted", is_admitted).await?;
        if let Some(first) = first.replace(task.digest.clone()) {
            ensure!(first == task.digest, "another plan");
        }
        // An operator that comes later knows as much.
        world.take_operator().await?.kill().await?;
        kueue::start_operator(world).await?;
        world.delete::<Job>(outage).await?;
    }
    let again = task(world, "digits", Stage::Forget).await?;
    ensure!(first.as_ref() == Some(&again.digest), "another plan, so not its checkpoint");
    world.succeed(&again).await?;
    finish(world, "digits", Stage::Evaluate).await?;
    let done = world.request_until("digits", RequestPhase::Fulfilled).await?;
    let attempts = done.status.as_ref().and_then(|status| status.attempts.as_ref());
    ensure!(attempts.is_some_and(|attempts| attempts.used == 1), "{attempts:?}");
    let run = run_of(world, "digits").await?.status.unwrap_or_default();
    ensure!(run.job(Stage::Forget).is_some_and(|job| job.preemptions == 2), "{:?}", run.jobs);
    let events = world.events().await;
    ensure!(events.contains("Normal Preempted UnlearnRequest/digits"), "no event says so: {events}");
    each_once(world, &["digits"]).await
}

/// With the real trainer: no step that was made is made again.
pub async fn a_trainer_that_is_preempted_goes_on_from_its_checkpoint(_: &World) -> Result<()> {
    let (world, kueue) = begin().await?;
    told(&world, &kueue, preempt_the_real_one(&world).await).await
}

async fn preempt_the_real_one(world: &World) -> Result<()> {
    // Long enough for Kueue to come in between.
    let longer = json!({"spec": {"training": {"forgetSteps": 4000}}});
    world.patch::<lethe_api::v1alpha1::UnlearnPolicy>(POLICY, longer).await?;
    let trainer = Trainer::new(BTreeMap::new())?;
    let base = lethe_store::folder_uri(&world.store_folder().with_file_name("base"))?;
    let digest = trainer.teach(&base).await?;
    world.apply_model("digits").await?;
    let taught = json!({"base": {"uri": base, "digest": digest}, "policyRef": {"name": POLICY}});
    world.patch::<DiffusionModel>("digits", json!({"spec": taught})).await?;
    let carry_out = async |stage| {
        let task = task(world, "digits", stage).await?;
        let code = trainer.carry_out(world, &task).await?;
        ensure!(code == 0, "{stage:?} ended with {code}: {}", trainer.log());
        Ok(task)
    };
    carry_out(Stage::Prepare).await?;
    ask(world, "digits", "digits").await?;
    let task = task(world, "digits", Stage::Forget).await?;
    let working = trainer.begin(&task)?;
    world.run(&task).await?;
    world.request_waits("digits", Reason::Training, "at work").await?;
    let curves = world.store_folder().join("scratch").join(task.digest.hex()).join("metrics.jsonl");
    let trains = async || Ok(curves.exists());
    wait::until_answer("it has made some steps", trains, |trains| *trains).await?;

    kueue::another_job(world, "outage", "outage", 4).await?;
    let asked = |pod: &Pod| pod.metadata.deletion_timestamp.is_some();
    wait::until(&world.api::<Pod>(), &task.pod.name_any(), "it is told to stop", asked).await?;
    working.stop()?;
    let (code, words) = working.end(world, &task).await?;
    let step = words.split_once("forget step ").and_then(|(_, rest)| rest.split_once(" of "));
    let (step, _) = step.with_context(|| format!("{code}, and it does not say at which step: {words}"))?;
    ensure!(code == exit::INTERRUPTED && step != "0", "{code}: {words}");
    wait::until_gone(&world.api::<Pod>(), &task.pod.name_any(), None).await?;
    world.request_waits("digits", Reason::Preempted, "Preempted").await?;
    world.delete::<Job>("outage").await?;
    let again = carry_out(Stage::Forget).await?;
    ensure!(again.digest == task.digest, "another plan, so not its checkpoint");
    let log = trainer.whole_log()?;
    let (_, after) =
        log.split_once("continuing from the checkpoint of an earlier pod").context("it began anew")?;
    let begins = after.lines().find(|line| line.contains("begin")).context("it did not begin again")?;
    println!("interrupted at step {step}; then: {begins}");
    ensure!(begins.contains(&format!("\"step\":{step},")), "not at step {step}: {begins}");
    carry_out(Stage::Evaluate).await?;
    world.request_until("digits", RequestPhase::Fulfilled).await?;
    each_once(world, &["digits"]).await
}

/// Of each model, one run prepared it and one forgot, with one Job for every stage and one entry in the ledger.
async fn each_once(world: &World, models: &[&str]) -> Result<()> {
    let runs = world.runs().await?;
    for model in models {
        let of =
            |type_| runs.iter().filter(|run| run.spec.model == *model && run.spec.type_ == type_).count();
        ensure!((of(RunType::Prepare), of(RunType::Forget)) == (1, 1), "{model} has other runs than two");
        let object = world.api::<DiffusionModel>().get(model).await?;
        let ledger = object.status.unwrap_or_default().ledger;
        ensure!(ledger.len() == 1, "{model} has {} entries in its ledger", ledger.len());
    }
    let jobs = world.api::<Job>().list(&ListParams::default().labels(labels::STAGE)).await?;
    let uids: BTreeSet<_> = jobs.iter().filter_map(ResourceExt::uid).collect();
    ensure!(uids.len() == 3 * models.len(), "{} Jobs for {} models", uids.len(), models.len());
    let made_twice =
        jobs.iter().any(|job| job.status.as_ref().is_some_and(|status| status.succeeded != Some(1)));
    ensure!(!made_twice, "a Job was not done just once");
    Ok(())
}

pub async fn a_cluster_without_kueue_and_a_queue_that_is_missing_are_told_and_waited_for(
    _: &World,
) -> Result<()> {
    let world = kueue::alone().await?;
    apply_policy(&world).await?;
    apply_model(&world, "digits").await?;
    let runs = world.api::<UnlearnRun>();
    let says = async |reason: Reason, words: &str| {
        let what = format!("waits because {reason} ({words})");
        let is_so = |run: &UnlearnRun| {
            let ready = ConditionType::Ready.find(run.conditions());
            ready.is_some_and(|c| c.reason == reason.to_string() && c.message.contains(words))
        };
        wait::until_any(&runs, "", &what, is_so).await.map(|_| ())
    };
    says(Reason::NotQueued, "the cluster has no Kueue").await?;
    // It comes, and takes the Job that is there.
    let kueue = Kueue::install(&world.server).await?;
    let wait = async {
        says(Reason::NotQueued, "Kueue has made no Workload for the Job").await?;
        // What it lacks is the class of the policy. Then the queue.
        let classes = |manifest: &Value| manifest["kind"] == "WorkloadPriorityClass";
        kueue::apply_examples(&world, "kueue.yaml", classes).await?;
        says(Reason::Inadmissible, "LocalQueue training doesn't exist").await?;
        let warned = world.events().await.contains("Warning Inadmissible UnlearnRun/digits");
        ensure!(warned, "no event says so");
        kueue::apply_examples(&world, "kueue.yaml", |manifest| !classes(manifest)).await?;
        finish(&world, "digits", Stage::Prepare).await?;
        ask(&world, "digits", "digits").await?;
        finish(&world, "digits", Stage::Forget).await?;
        finish(&world, "digits", Stage::Evaluate).await?;
        world.request_until("digits", RequestPhase::Fulfilled).await?;
        each_once(&world, &["digits"]).await
    };
    let done = wait.await;
    told(&world, &kueue, done).await
}

pub async fn while_kueue_is_down_nothing_begins_and_nothing_is_lost(_: &World) -> Result<()> {
    let (world, mut kueue) = begin().await?;
    prepare(&world, "digits").await?;
    kueue.stop().await?;
    ask(&world, "digits", "digits").await?;
    let done = async {
        let refused = async || Ok(world.events().await);
        let is_told =
            |line: &str| line.contains("CannotApply UnlearnRun/") && line.contains("failed calling webhook");
        let told = |events: &String| events.lines().any(is_told);
        wait::until_answer("the operator says why no Job comes", refused, told).await?;
        ensure!(at_work(&world).await?.is_empty(), "a pod came without a word of Kueue");
        kueue.start().await?;
        finish(&world, "digits", Stage::Forget).await?;
        finish(&world, "digits", Stage::Evaluate).await?;
        world.request_until("digits", RequestPhase::Fulfilled).await?;
        each_once(&world, &["digits"]).await
    };
    let done = done.await;
    told(&world, &kueue, done).await
}

pub async fn twenty_requests_over_quota_for_four_are_all_done_and_none_twice(_: &World) -> Result<()> {
    let (world, kueue) = begin().await?;
    told(&world, &kueue, twenty(&world).await).await
}

async fn twenty(world: &World) -> Result<()> {
    let models: Vec<String> = (0..20).map(|index| format!("digits-{index}")).collect();
    let most = most_at_work(world);
    for model in &models {
        apply_model(world, model).await?;
        ask(world, model, model).await?;
    }
    let mut left = 3 * models.len();
    while left > 0 {
        // All of the quota is used, and no more. In the end, the last stages of a few models come one after the other.
        let least = if left > 2 * QUOTA { QUOTA } else { 1 };
        let what = format!("{least} or more pods are at work, of {left} that are left");
        let found = async || Ok(at_work(world).await?.len());
        wait::until_answer(&what, found, |found| (least..=QUOTA).contains(found)).await?;
        for pod in at_work(world).await? {
            world.succeed(&world.told(pod).await?).await?;
            left -= 1;
        }
    }
    for model in &models {
        let done = world.request_until(model, RequestPhase::Fulfilled).await?;
        let attempts = done.status.and_then(|status| status.attempts).context("it was tried")?;
        ensure!(attempts.used == 1, "{model}: {attempts:?}");
    }
    let most = *most.borrow();
    println!("20 requests over quota for {QUOTA}: all done, none twice, {most} at work at most");
    ensure!(most == QUOTA, "{most} Jobs were at work at once");
    each_once(world, &models.iter().map(String::as_str).collect::<Vec<_>>()).await
}

/// How many Jobs that are not over were let go on at once, at most so far.
fn most_at_work(world: &World) -> watch::Receiver<usize> {
    let (most, reader) = watch::channel(0);
    let mut jobs = watcher(world.api::<Job>(), watcher::Config::default().labels(labels::STAGE)).boxed();
    tokio::spawn(async move {
        let mut working = BTreeMap::new();
        while let Some(event) = jobs.next().await {
            let Ok(watcher::Event::Apply(job) | watcher::Event::InitApply(job)) = event else { continue };
            let is_over = job.status.as_ref().is_some_and(|status| status.succeeded.is_some());
            working.insert(job.name_any(), is_admitted(&job) && !is_over);
            let now = working.values().filter(|is_working| **is_working).count();
            most.send_if_modified(|most| std::mem::replace(most, now.max(*most)) < now);
        }
    });
    reader
}
