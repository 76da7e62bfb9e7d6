//! Trainers that fail, and trainers that say what is not so. None of it may change what is served.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{
    apps::v1::Deployment,
    batch::v1::Job,
    core::v1::{ConfigMap, Pod},
};
use kube::{
    ResourceExt,
    api::{EvictParams, ListParams},
};
use lethe_api::{
    Digest,
    contract::{Count, EvaluateRecord, Failure, ForgetRecord, Outcome, Record, RecordBody, Status, exit},
    v1alpha1::{ConditionType, DiffusionModel, Reason, RequestPhase, Stage, UnlearnRequest, UnlearnRun},
};
use lethe_tests::{
    Task, World,
    place::{HasConditions, MODEL, request},
    trainer::{self, failure, honest, outcome, record},
    wait,
    world::policy,
};
use serde_json::json;

pub async fn last_words_that_are_no_outcome_fail_the_run(world: &World) -> Result<()> {
    let scene = Scene::set(world).await?;
    let good = |task: &Task| outcome(task, Digest::of("some record"));
    scene.lie("none", Reason::NoOutcome, "empty", |_| String::new()).await?;
    scene.lie("blank", Reason::NoOutcome, "empty", |_| " \n".into()).await?;
    scene.lie("malformed", Reason::BadOutcome, "not an outcome", |_| "done, trust me".into()).await?;
    let oversized = |task: &Task| format!("{}{}", good(task).to_message(), " ".repeat(Outcome::MAX_BYTES));
    scene.lie("oversized", Reason::BadOutcome, "at most 4096", oversized).await?;
    let stale = |task: &Task| Outcome { plan: Digest::of("of yesterday"), ..good(task) }.to_message();
    scene.lie("stale", Reason::BadOutcome, "stale or someone else's", stale).await?;
    let empty = |task: &Task| Outcome { record: None, ..good(task) }.to_message();
    scene.lie("without-record", Reason::BadOutcome, "no record", empty).await?;
    let failed = |task: &Task| failure(task, Failure::Diverged, "the loss is not finite").to_message();
    scene.lie("failed-with-0", Reason::BadOutcome, "exited 0 but says Failed", failed).await?;
    let unknown = |task: &Task| good(task).to_message().replacen('{', r#"{"verdict":"Pass","#, 1);
    scene.lie("unknown-field", Reason::BadOutcome, "unknown field", unknown).await?;
    scene.assert_nothing_changed().await
}

pub async fn records_that_cannot_be_trusted_fail_the_run(world: &World) -> Result<()> {
    let scene = Scene::set(world).await?;
    let missing = |task: &Task| outcome(task, Digest::of("never written")).to_message();
    scene.lie("missing", Reason::RecordUnavailable, "", missing).await?;

    let task = scene.next("corrupt").await?;
    let digest = world.put_record(&record(&task, honest(&task.plan, &task.digest))).await?;
    let file = world.store_folder().join("records").join(format!("{}.json", digest.hex()));
    std::fs::write(&file, "{}").context("cannot spoil the record")?;
    world.exit(&task, 0, &outcome(&task, digest).to_message()).await?;
    scene.failed("corrupt", Reason::RecordUnavailable, "").await?;

    scene
        .lie_in_record("of-another-plan", "stale or someone else's", |record| record.plan = Digest::of("x"))
        .await?;
    scene
        .lie_in_record("of-another-schema", "its schema is not", |record| record.schema = "v0".into())
        .await?;
    let other_targets = |record: &mut Record| forgot(record).targets.clear();
    scene.lie_in_record("other-targets", "forgot other targets", other_targets).await?;
    let baseline = |record: &mut Record| forgot(record).candidate = trainer::baseline();
    scene.lie_in_record("the-baseline", "has forgotten nothing", baseline).await?;

    let task = scene.next("of-another-stage").await?;
    let prepared = json!({"schema": Record::SCHEMA, "run": task.plan.run, "plan": task.digest, "seed": 1,
        "trainer": "x", "body": {"type": "Prepare"}});
    let digest = world.store.put_record(serde_json::to_vec(&prepared)?).await?;
    world.exit(&task, 0, &outcome(&task, digest).to_message()).await?;
    scene.failed("of-another-stage", Reason::BadRecord, "not a record of this contract").await?;
    scene.assert_nothing_changed().await
}

pub async fn measurements_that_prove_nothing_hold_the_request(world: &World) -> Result<()> {
    let scene = Scene::set(world).await?;
    scene
        .mismeasure("too-few", Reason::GateInconclusive, "too few", |m| {
            m.targets[0].leak = Count { hits: 0, n: 100 }
        })
        .await?;
    scene
        .mismeasure("no-samples", Reason::GateInconclusive, "too few", |m| {
            m.targets[0].leak = Count::default()
        })
        .await?;
    scene.mismeasure("impossible", Reason::GateError, "cannot be", |m| m.targets[0].leak.hits = 4000).await?;
    scene
        .mismeasure("another-candidate", Reason::GateError, "measurement is of candidate", |m| {
            m.candidate = Digest::of("x")
        })
        .await?;
    scene
        .mismeasure("another-judge", Reason::GateError, "measurement is of judge", |m| {
            m.judge = Digest::of("x")
        })
        .await?;
    scene.mismeasure("unmeasured", Reason::GateError, "was not measured", |m| m.targets.clear()).await?;
    scene
        .mismeasure("kept-label-missing", Reason::GateError, "every kept label", |m| m.retain.truncate(8))
        .await?;
    scene
        .mismeasure("blind-judge", Reason::GateError, "positive control", |m| m.targets[0].control.hits = 5)
        .await?;
    scene.mismeasure("dirty", Reason::GateFailed, "hygiene Fail", |m| m.hygiene[0].passed = false).await?;
    scene.mismeasure("unchecked", Reason::GateError, "not checked", |m| m.hygiene.clear()).await?;
    scene.assert_nothing_changed().await
}

pub async fn a_random_override_that_always_shows_one_label_is_none(world: &World) -> Result<()> {
    let scene = Scene::set(world).await?;
    let mut manifest = request("monotonous", &["3"], "8");
    manifest["spec"]["override"] = json!({"strategy": "Random"});
    world.apply(&manifest).await?;
    world.forget(|measured| measured.targets[0].most_common = measured.targets[0].override_hits).await?;
    world.request_says("monotonous", Reason::GateFailed, "always shows one label").await?;
    manifest["metadata"]["name"] = json!("varied");
    scene.assert_nothing_changed().await?;
    world.apply(&manifest).await?;
    world.forget(|_| {}).await?;
    world.request_until("varied", RequestPhase::Fulfilled).await?;
    Ok(())
}

pub async fn a_measurement_that_is_not_a_number_fails_the_run(world: &World) -> Result<()> {
    let scene = Scene::set(world).await?;
    let task = scene.next("nan").await?;
    world.succeed(&task).await?;
    let task = world.task(Stage::Evaluate).await?;
    let mut body = honest(&task.plan, &task.digest);
    let RecordBody::Evaluate(measured) = &mut body else { anyhow::bail!("not an evaluation: {body:?}") };
    // JSON has no NaN: serde writes null.
    measured.quality.candidate = f64::NAN;
    world.succeed_with(&task, body).await?;
    scene.failed("nan", Reason::BadRecord, "not a record of this contract").await?;
    scene.assert_nothing_changed().await
}

pub async fn exit_codes_are_told_apart(world: &World) -> Result<()> {
    let scene = Scene::set(world).await?;
    let fatal = [
        ("bad-plan", exit::BAD_PLAN, Failure::BadPlan, Reason::BadPlan),
        ("bad-artifact", exit::BAD_ARTIFACT, Failure::BadArtifact, Reason::BadArtifact),
        ("bad-configuration", exit::BAD_CONFIGURATION, Failure::BadConfiguration, Reason::BadConfiguration),
    ];
    for (name, code, class, reason) in fatal {
        let task = scene.next(name).await?;
        world.exit(&task, code, &failure(&task, class, "the file w.bin is truncated").to_message()).await?;
        scene.failed(name, reason, "the file w.bin is truncated").await?;
    }
    let task = scene.next("silent").await?;
    world.exit(&task, 3, "").await?;
    scene.failed("silent", Reason::BackoffLimitExceeded, "exited with code 3").await?;
    let task = scene.next("out-of-memory").await?;
    world.end(&task, 137, "OOMKilled", "").await?;
    scene.failed("out-of-memory", Reason::BackoffLimitExceeded, "more memory than its limit").await?;
    // Last words of another plan are not repeated.
    let task = scene.next("foreign").await?;
    let foreign = Outcome { plan: Digest::of("x"), ..failure(&task, Failure::Internal, "pay no attention") };
    world.exit(&task, 1, &foreign.to_message()).await?;
    let failed = scene.failed("foreign", Reason::BackoffLimitExceeded, "exited with code 1").await?;
    ensure!(!format!("{:?}", failed.status).contains("pay no attention"), "{failed:?}");
    scene.assert_nothing_changed().await
}

pub async fn what_a_trainer_says_is_one_line_that_steers_no_terminal(world: &World) -> Result<()> {
    let scene = Scene::set(world).await?;
    let task = scene.next("steered").await?;
    let words = "w.bin\u{1b}[2J\r\n\u{202e}desrever\u{9b}31m is bad";
    let said = failure(&task, Failure::BadArtifact, "").to_message();
    // `to_message` keeps the first line only; this trainer does not use it.
    let mut said: serde_json::Value = serde_json::from_str(&said)?;
    said["message"] = json!(words);
    world.exit(&task, exit::BAD_ARTIFACT, &said.to_string()).await?;
    let shown = "w.bin [2J   desrever 31m is bad";
    let failed = scene.failed("steered", Reason::BadArtifact, shown).await?;
    let run = failed.status.clone().and_then(|status| status.run).context("no run")?;
    let run = world.api::<lethe_api::v1alpha1::UnlearnRun>().get(&run.name).await?;
    // Events come last.
    let events =
        wait::until_answer("it is an event", async || Ok(world.events().await), |all| all.contains(shown))
            .await?;
    let steers = |text: &str| text.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}');
    ensure!(!steers(&events), "{events:?}");
    for text in [serde_json::to_string(&failed.status)?, serde_json::to_string(&run.status)?] {
        // JSON writes control characters as escapes.
        ensure!(!text.contains("\\u00") && !text.contains("\\n") && !steers(&text), "{text}");
    }
    scene.assert_nothing_changed().await
}

pub async fn what_a_trainer_says_becomes_no_name_no_label_and_no_path(world: &World) -> Result<()> {
    const MARK: &str = "said-by-a-trainer";
    let scene = Scene::set(world).await?;
    // As its last words,
    let task = scene.next("one").await?;
    let said = failure(&task, Failure::BadArtifact, MARK).to_message();
    world.exit(&task, exit::BAD_ARTIFACT, &said).await?;
    // It is shown to people,
    scene.failed("one", Reason::BadArtifact, MARK).await?;
    // in the record of a training,
    let task = scene.next("two").await?;
    let mut trained = record(&task, honest(&task.plan, &task.digest));
    trained.trainer = MARK.into();
    let digest = world.put_record(&trained).await?;
    world.exit(&task, 0, &outcome(&task, digest).to_message()).await?;
    // and in that of a measurement.
    let measured = |m: &mut EvaluateRecord| {
        m.targets[0].label = MARK.into();
        m.hygiene[0].name = MARK.into();
    };
    world.evaluate(measured).await?;
    world.request_until("two", RequestPhase::Held).await?;

    let all = ListParams::default();
    let mut named = Vec::new();
    named.extend(world.api::<UnlearnRequest>().list(&all).await?.into_iter().map(|it| it.metadata));
    named.extend(world.api::<UnlearnRun>().list(&all).await?.into_iter().map(|it| it.metadata));
    named.extend(world.api::<DiffusionModel>().list(&all).await?.into_iter().map(|it| it.metadata));
    named.extend(world.api::<Job>().list(&all).await?.into_iter().map(|it| it.metadata));
    named.extend(world.api::<Pod>().list(&all).await?.into_iter().map(|it| it.metadata));
    named.extend(world.api::<ConfigMap>().list(&all).await?.into_iter().map(|it| it.metadata));
    ensure!(named.len() > 8, "{named:?}");
    for metadata in named {
        let text = serde_json::to_string(&(&metadata.name, &metadata.labels, &metadata.annotations))?;
        ensure!(!text.contains(MARK), "{text}");
    }
    let operator = world.take_operator().await?;
    let metrics = operator.get("/metrics").await?.1;
    world.keep_operator(operator).await;
    ensure!(metrics.contains("request=\"two\"") && !metrics.contains(MARK), "{metrics}");
    let mut folders = vec![world.store_folder()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            ensure!(!path.to_string_lossy().contains(MARK), "{}", path.display());
            folders.extend(path.is_dir().then_some(path));
        }
    }
    scene.assert_nothing_changed().await
}

pub async fn a_trainer_whose_store_does_not_answer_is_tried_again(world: &World) -> Result<()> {
    let mut patient = policy()?;
    patient["spec"]["trainer"]["backoffLimit"] = json!(3);
    world.begin_with(patient, world.model()?).await?;
    world.prepare().await?;
    world.request("away", "3", "8").await?;
    let first = world.task(Stage::Forget).await?;
    let away = failure(&first, Failure::StoreUnavailable, "the store does not answer");
    world.exit(&first, exit::TRY_AGAIN, &away.to_message()).await?;
    let second = world.task(Stage::Forget).await?;
    ensure!(first.pod.name_any() != second.pod.name_any(), "the same pod");
    ensure!(first.digest == second.digest, "another plan");
    world.succeed(&second).await?;
    world.evaluate(|_| {}).await?;
    world.request_until("away", RequestPhase::Fulfilled).await?;
    Ok(())
}

pub async fn a_pod_that_is_evicted_costs_no_attempt(world: &World) -> Result<()> {
    // The policy of these scenarios lets nothing be tried again.
    world.begin_ready().await?;
    world.request("evicted", "3", "8").await?;
    let first = world.task(Stage::Forget).await?;
    world.run(&first).await?;
    let name = first.pod.name_any();
    world.api::<Pod>().evict(&name, &EvictParams::default()).await?;
    // The API server says so in the pod, and the kubelet ends it.
    let disrupted = |pod: &Pod| {
        let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
        conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "DisruptionTarget" && c.status == "True"))
    };
    wait::until(&world.api::<Pod>(), &name, "it is a target of a disruption", disrupted).await?;
    world.exit(&first, 143, "").await?;
    let second = world.task(Stage::Forget).await?;
    ensure!(name != second.pod.name_any() && first.digest == second.digest, "{:?}", second.plan);
    world.succeed(&second).await?;
    world.evaluate(|_| {}).await?;
    world.request_until("evicted", RequestPhase::Fulfilled).await?;
    Ok(())
}

pub async fn a_pod_that_is_told_to_stop_costs_no_attempt(world: &World) -> Result<()> {
    // The policy of these scenarios lets nothing be tried again.
    world.begin_ready().await?;
    world.request("stopped", "3", "8").await?;
    let first = world.task(Stage::Forget).await?;
    world.run(&first).await?;
    let interrupted =
        Outcome { status: Status::Interrupted, ..failure(&first, Failure::Interrupted, "SIGTERM") };
    world.exit(&first, exit::INTERRUPTED, &interrupted.to_message()).await?;
    let second = world.task(Stage::Forget).await?;
    ensure!(first.pod.name_any() != second.pod.name_any(), "the same pod");
    ensure!(first.digest == second.digest, "another plan");
    world.succeed(&second).await?;
    world.evaluate(|_| {}).await?;
    world.request_until("stopped", RequestPhase::Fulfilled).await?;
    Ok(())
}

pub async fn a_trainer_that_never_ends_runs_into_its_deadline(world: &World) -> Result<()> {
    let scene = Scene::set(world).await?;
    let mut hasty = policy()?;
    hasty["spec"]["trainer"]["activeDeadlineSeconds"] = json!(2);
    world.change_policy(&hasty).await?;
    let task = scene.next("endless").await?;
    world.run(&task).await?;
    // The kubelet would end the pod that the Job controller deletes; without a node it is gone at once.
    scene.failed("endless", Reason::DeadlineExceeded, "did not end in time").await?;
    wait::until_gone(&world.api::<Pod>(), &task.pod.name_any(), None).await?;
    scene.assert_nothing_changed().await
}

pub async fn a_preparation_that_fails_says_how_to_go_on(world: &World) -> Result<()> {
    world.begin().await?;
    let task = world.task(Stage::Prepare).await?;
    let words = "base/model.safetensors is a pickle, not a safetensors file";
    world.exit(&task, exit::BAD_ARTIFACT, &failure(&task, Failure::BadArtifact, words).to_message()).await?;
    let degraded = |m: &lethe_api::v1alpha1::DiffusionModel| {
        let conditions = m.conditions();
        ConditionType::Prepared
            .find(conditions)
            .is_some_and(|c| c.status == "False" && c.message.contains(words))
    };
    world.model_until("it is not Prepared, and says why", degraded).await?;
    world.request("waiting", "3", "8").await?;
    world.request_says("waiting", Reason::WaitingForModel, "see its conditions").await?;
    // Somebody repairs the artifact and deletes the run.
    let failed = world.runs().await?.pop().context("no run")?;
    world.delete::<lethe_api::v1alpha1::UnlearnRun>(&failed.name_any()).await?;
    world.prepare().await?;
    world.forget(|_| {}).await?;
    world.request_until("waiting", RequestPhase::Fulfilled).await?;
    Ok(())
}

pub async fn a_judge_that_cannot_judge_is_refused(world: &World) -> Result<()> {
    world.begin().await?;
    let task = world.task(Stage::Prepare).await?;
    let mut body = honest(&task.plan, &task.digest);
    let RecordBody::Prepare(prepared) = &mut body else { anyhow::bail!("not a preparation: {body:?}") };
    prepared.judge_accuracy = Count { hits: 200, n: 2000 };
    world.succeed_with(&task, body).await?;
    world
        .model_until("it is not Prepared, for its judge", |m| {
            let conditions = m.conditions();
            ConditionType::Prepared
                .find(conditions)
                .is_some_and(|c| c.status == "False" && c.message.contains("200 of 2000"))
        })
        .await?;
    ensure!(world.named_bundle().await?.is_none(), "something is served");
    Ok(())
}

/// A model that serves its baseline, and what a series of liars do to it.
struct Scene<'a> {
    world: &'a World,
    generation: Option<i64>,
}

impl<'a> Scene<'a> {
    async fn set(world: &'a World) -> Result<Self> {
        world.begin_ready().await?;
        let generation = world.api::<Deployment>().get(MODEL).await?.metadata.generation;
        Ok(Self { world, generation })
    }

    /// A new request, and the pod that is to train for it.
    async fn next(&self, name: &str) -> Result<Task> {
        self.world.apply(&request(name, &["3"], "8")).await?;
        self.world.task(Stage::Forget).await.context(name.to_owned())
    }

    /// The training pod exits 0 with these last words.
    async fn lie(
        &self,
        name: &str,
        reason: Reason,
        words: &str,
        last_words: impl Fn(&Task) -> String,
    ) -> Result<()> {
        let task = self.next(name).await?;
        self.world.exit(&task, 0, &last_words(&task)).await?;
        self.failed(name, reason, words).await.map(|_| ())
    }

    /// The training pod succeeds, with a record that is good but for `change`.
    async fn lie_in_record(&self, name: &str, words: &str, change: impl Fn(&mut Record)) -> Result<()> {
        let task = self.next(name).await?;
        let mut record = record(&task, honest(&task.plan, &task.digest));
        change(&mut record);
        let digest = self.world.put_record(&record).await?;
        self.world.exit(&task, 0, &outcome(&task, digest).to_message()).await?;
        self.failed(name, Reason::BadRecord, words).await.map(|_| ())
    }

    /// The evaluating pod succeeds, with measurements that are good but for `change`.
    async fn mismeasure(
        &self,
        name: &str,
        reason: Reason,
        words: &str,
        change: impl FnOnce(&mut EvaluateRecord),
    ) -> Result<()> {
        let task = self.next(name).await?;
        self.world.succeed(&task).await?;
        self.world.evaluate(change).await?;
        self.world.request_says(name, reason, words).await?;
        self.world.request_until(name, RequestPhase::Held).await.map(|_| ())
    }

    async fn failed(&self, name: &str, reason: Reason, words: &str) -> Result<UnlearnRequest> {
        self.world.request_says(name, reason, words).await?;
        self.world.request_until(name, RequestPhase::Failed).await
    }

    async fn assert_nothing_changed(&self) -> Result<()> {
        let deployment = self.world.api::<Deployment>().get(MODEL).await?;
        ensure!(deployment.metadata.generation == self.generation, "the Deployment was changed");
        ensure!(self.world.ledger().await?.is_empty(), "the ledger was written");
        self.world.assert_serves(&trainer::baseline()).await
    }
}

fn forgot(record: &mut Record) -> &mut ForgetRecord {
    match &mut record.body {
        RecordBody::Forget(body) => body,
        other => panic!("not a record of forgetting: {other:?}"),
    }
}
