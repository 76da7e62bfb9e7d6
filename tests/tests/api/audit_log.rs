//! The audit log: everything is in it, in order; without it nothing is put into service; and it is one, whoever dies.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use anyhow::{Context, Result, ensure};
use lethe_api::{
    Digest,
    v1alpha1::{Reason, RequestPhase, Stage, UnlearnRequest},
};
use lethe_store::{folder_uri, log::Reading};
use lethe_tests::{
    World,
    audit_log::{ORIGIN, Told, told},
    cli::Person,
    collecting::make_old,
    keys::Key,
    operator::Operator,
    place::MODEL,
    trainer, wait,
};
use lethe_transparency::{Action, Said, Upshot};
use rustix::process::Signal;

use crate::crash::{Pair, dying_all_the_time_it_forgets_three, one_job_per_stage};

pub async fn what_is_done_and_decided_is_in_the_audit_log_in_order(world: &World) -> Result<()> {
    let key = world.keep_log().await?;
    world.begin_ready().await?;
    world.request("forget-three", "3", "8").await?;
    let candidate = world.forget(|_| {}).await?;
    world.request_until("forget-three", RequestPhase::Fulfilled).await?;
    // Of a request that is held, the same is known.
    world.request("leaks", "5", "8").await?;
    world.forget(|measured| measured.targets[0].leak.hits = 300).await?;
    world.request_until("leaks", RequestPhase::Held).await?;
    let metrics =
        world.metrics_until("it is written", |text| text.contains("lethe_audit_log_waiting_entries 0\n"));
    ensure!(
        metrics.await?.contains("lethe_audit_log_writable 1\n"),
        "it does not say that it can be written"
    );
    world.take_operator().await?.stop().await?;

    let reading = world.read_log(&key).await?;
    is_whole(&reading)?;
    let all = told(&reading.entries);
    let done = in_order(&all)?;
    let mut rest = done.iter();
    for (action, kind, name, after) in [
        (Action::Create, "UnlearnRun", "", ""),
        (Action::Create, "Job", "", ""),
        (Action::BeginRollout, "DiffusionModel", MODEL, trainer::baseline().as_str()),
        (Action::Serve, "Deployment", MODEL, trainer::baseline().as_str()),
        (Action::Promote, "DiffusionModel", MODEL, trainer::baseline().as_str()),
        (Action::Accept, "UnlearnRequest", "forget-three", ""),
        (Action::Create, "UnlearnRun", "", ""),
        (Action::Create, "Job", "", ""),
        (Action::Judge, "UnlearnRun", "", "Pass"),
        (Action::BeginRollout, "DiffusionModel", MODEL, candidate.as_str()),
        (Action::Serve, "Deployment", MODEL, candidate.as_str()),
        (Action::Promote, "DiffusionModel", MODEL, candidate.as_str()),
        (Action::MarkPromoted, "UnlearnRun", "", "True"),
        (Action::Fulfil, "UnlearnRequest", "forget-three", ""),
        (Action::Judge, "UnlearnRun", "", "Fail"),
        (Action::Close, "UnlearnRequest", "leaks", "Held"),
    ] {
        let is = |it: &&&Told| {
            it.action == action
                && it.object.0 == kind
                && (name.is_empty() || it.object.1 == name)
                && (after.is_empty() || it.after == after)
        };
        rest.by_ref()
            .find(|it| is(&it))
            .with_context(|| format!("no {action:?} {kind} {after}: {all:#?}"))?;
    }
    ensure!(all.iter().all(|it| !it.late), "{all:#?}");
    let (checkpoint, _) = reading.checkpoint.context("there is no checkpoint")?;
    ensure!(checkpoint.size == reading.tree.size(), "the last entries are in no checkpoint");
    Ok(())
}

pub async fn what_passed_waits_for_an_audit_log_that_cannot_be_written(world: &World) -> Result<()> {
    let key = world.keep_log().await?;
    world.begin_ready().await?;
    world.request("forget-three", "3", "8").await?;
    let task = world.task(Stage::Forget).await?;
    world.break_log()?;
    // Who trains does not wait for it.
    world.succeed(&task).await?;
    world.evaluate(|_| {}).await?;
    let words = "every gate passed; the audit log cannot be written";
    world.request_waits("forget-three", Reason::AuditLogUnavailable, words).await?;
    world.assert_serves(&trainer::baseline()).await?;
    world.metrics_until("it is said", |text| text.contains("lethe_audit_log_writable 0\n")).await?;
    let events = world.events().await;
    ensure!(events.contains("AuditLogUnavailable"), "{events}");
    // What somebody else puts into service goes all the same.
    let other = Digest::of("nobody measured it");
    world.drift(Some(&other)).await?;
    let named = || world.named_bundle();
    let baseline = trainer::baseline();
    wait::until_answer("it is set back", named, |named| named.as_deref() == Some(baseline.as_str())).await?;
    // And a request comes, and is accepted.
    world.request("forget-seven", "7", "1").await?;
    world.request_until("forget-seven", RequestPhase::Queued).await?;

    world.mend_log()?;
    world.request_until("forget-three", RequestPhase::Fulfilled).await?;
    world.forget(|_| {}).await?;
    world.request_until("forget-seven", RequestPhase::Fulfilled).await?;
    world.take_operator().await?.stop().await?;
    let reading = world.read_log(&key).await?;
    is_whole(&reading)?;
    let all = told(&reading.entries);
    in_order(&all)?;
    let late = |action| all.iter().any(|it| it.action == action && it.late);
    ensure!(late(Action::Judge) && late(Action::Serve) && late(Action::Accept), "{all:#?}");
    let served = trainer::product(&task.digest);
    let rolled = all.iter().find(|it| it.action == Action::Serve && it.after == served.as_str());
    ensure!(rolled.is_some_and(|it| !it.late), "{rolled:?}");
    Ok(())
}

pub async fn an_operator_that_dies_after_every_write_leaves_one_log_in_which_all_is_closed(
    world: &World,
) -> Result<()> {
    let key = world.keep_log().await?;
    dying_all_the_time_it_forgets_three(world).await?;
    // Whoever comes last closes what the one before left open.
    world.start_operator().await?;
    let is_written =
        |text: &str| text.contains("lethe_leader 1\n") && !text.contains("lethe_audit_log_entries_total 0\n");
    world.metrics_until("the last one has begun", is_written).await?;
    world.take_operator().await?.stop().await?;
    let reading = world.read_log(&key).await?;
    is_whole(&reading)?;
    let all = told(&reading.entries);
    let closed = |upshot| all.iter().filter(|it| it.outcome.is_some_and(|(_, it)| it == upshot)).count();
    ensure!(closed(Upshot::FoundDone) > 5, "what was done before a death was not looked at: {all:#?}");
    let began = reading.entries.iter().filter(|entry| entry.said == Said::Began).count();
    let deaths = world.fate.deaths().len();
    ensure!(began > deaths / 2, "{began} began, and {deaths} died");
    one_job_per_stage(world).await
}

/// Between what it says it will do and doing it.
pub async fn what_was_announced_and_not_done_is_found_undone_and_done_then(world: &World) -> Result<()> {
    let key = world.keep_log().await?;
    world.begin_ready().await?;
    world.request("forget-three", "3", "8").await?;
    let task = world.task(Stage::Forget).await?;
    world.take_operator().await?.stop().await?;
    let proxy = world.proxy().await?;
    let launch = world.through(&world.launch().await?, &proxy.url, "operator-0")?;
    let mut operator = Operator::start(&launch)?;
    let write = format!("PATCH /apis/apps/v1/namespaces/{}/deployments/", world.namespace);
    let mut died = proxy.kill_before(operator.id()?, &write);
    world.succeed(&task).await?;
    world.evaluate(|_| {}).await?;
    died.recv().await.context("it has not died")?;
    operator.ended().await?;
    world.assert_serves(&trainer::baseline()).await?;
    world.start_operator().await?;
    world.request_until("forget-three", RequestPhase::Fulfilled).await?;
    world.take_operator().await?.stop().await?;

    let reading = world.read_log(&key).await?;
    is_whole(&reading)?;
    let candidate = trainer::product(&task.digest);
    let served: Vec<_> = told(&reading.entries)
        .into_iter()
        .filter(|it| it.action == Action::Serve && it.after == candidate.as_str())
        .filter_map(|it| it.outcome.map(|(_, upshot)| upshot))
        .collect();
    ensure!(served == [Upshot::FoundUndone, Upshot::Done], "{served:?}");
    Ok(())
}

pub async fn two_operators_of_which_one_was_frozen_write_one_audit_log(world: &World) -> Result<()> {
    let key = world.keep_log().await?;
    let mut pair = Pair::start(world).await?;
    world.prepare().await?;
    pair.operators.0.signal(Signal::STOP)?;
    world.request("forget-three", "3", "8").await?;
    let task = world.task(Stage::Forget).await?;
    pair.operators.0.signal(Signal::CONT)?;
    world.succeed(&task).await?;
    world.evaluate(|_| {}).await?;
    world.request_until("forget-three", RequestPhase::Fulfilled).await?;
    pair.operators.0.ended().await?;
    pair.operators.1.stop().await?;
    let reading = world.read_log(&key).await?;
    is_whole(&reading)?;
    let writers: Vec<_> = reading.entries.iter().map(|entry| entry.by.replica.as_str()).collect();
    let both: BTreeSet<_> = writers.iter().collect();
    ensure!(both.len() == 2, "{both:?}");
    // Once the second one has begun, the first one has said nothing.
    ensure!(
        writers.windows(2).filter(|pair| pair[0] != pair[1]).count() == 1,
        "they took turns: {writers:?}"
    );
    one_job_per_stage(world).await
}

pub async fn an_auditor_verifies_the_audit_log_and_finds_what_was_changed(world: &World) -> Result<()> {
    let key = world.keep_log().await?;
    world.begin_ready().await?;
    world.request("forget-three", "3", "8").await?;
    world.forget(|_| {}).await?;
    world.request_until("forget-three", RequestPhase::Fulfilled).await?;
    world.take_operator().await?.stop().await?;
    let auditor = world.person("auditor", &[]).await?;
    let (code, said) = verify(world, &auditor, &key).await?;
    ensure!(code == 0 && said.contains("all of it fits"), "{said}");
    ensure!(fs::read_to_string(seen(world))?.starts_with(ORIGIN), "it did not keep the checkpoint");
    // The log goes on, and continues what was seen.
    world.start_operator().await?;
    world.delete::<UnlearnRequest>("forget-three").await?;
    world.request("forget-seven", "7", "1").await?;
    world.forget(|_| {}).await?;
    world.request_until("forget-seven", RequestPhase::Fulfilled).await?;
    world.take_operator().await?.stop().await?;
    let (code, said) = verify(world, &auditor, &key).await?;
    ensure!(code == 0 && said.contains("continues"), "{said}");
    // One byte, and one entry.
    let commit = world.log_folder().join("commits/000/000");
    let good = fs::read(&commit)?;
    let mut bad = good.clone();
    bad[20] ^= 1;
    fs::write(&commit, &bad)?;
    let (code, said) = verify(world, &auditor, &key).await?;
    ensure!(code == 1 && said.contains("commits/000/000"), "{said}");
    fs::write(&commit, &good)?;
    // Another log of the same name, signed with the same key: it is not the one that was seen.
    fs::rename(world.log_folder(), world.log_folder().with_extension("first"))?;
    fs::create_dir(world.log_folder())?;
    world.start_operator().await?;
    world.metrics_until("it has begun", |text| text.contains("lethe_audit_log_entries_total 1\n")).await?;
    world.take_operator().await?.stop().await?;
    let (code, said) = verify(world, &auditor, &key).await?;
    ensure!(code == 1 && said.contains("was seen"), "{said}");
    Ok(())
}

pub async fn what_the_collector_removes_is_in_the_audit_log_and_stays_without_one(
    world: &World,
) -> Result<()> {
    let key = world.keep_log().await?;
    world.begin_ready().await?;
    let stray = world.store.put_blob(b"stray".to_vec()).await?;
    let another = world.store.put_blob(b"another".to_vec()).await?;
    let young = world.store_folder().join("blobs").join(another.hex());
    make_old(&world.store_folder().join("blobs"), &young)?;
    let flags = [world.log_flags(&key)?, vec!["--delete".into()]].concat();
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    world.collect(BTreeMap::new(), &flags).await?;
    ensure!(world.store.get_blob(&stray, 100).await.is_err(), "it is still there");
    // Who leads finds that somebody else has written, and goes on.
    world.request("forget-three", "3", "8").await?;
    world.forget(|_| {}).await?;
    world.request_until("forget-three", RequestPhase::Fulfilled).await?;
    world.take_operator().await?.stop().await?;
    let reading = world.read_log(&key).await?;
    is_whole(&reading)?;
    let all = told(&reading.entries);
    in_order(&all)?;
    let removed: Vec<_> = all.iter().filter(|it| it.action == Action::Collect).collect();
    ensure!(removed.len() == 1 && removed[0].object.1 == stray.as_str(), "{removed:?}");
    ensure!(removed[0].outcome.is_some_and(|(_, upshot)| upshot == Upshot::Done), "{removed:?}");
    // What cannot be said is not removed.
    make_old(&world.store_folder().join("blobs"), &world.log_folder())?;
    world.break_log()?;
    let refused = world.collect(BTreeMap::new(), &flags).await;
    ensure!(refused.as_ref().is_err_and(|error| error.to_string().contains("audit log")), "{refused:?}");
    world.store.get_blob(&another, 100).await?;
    Ok(())
}

pub async fn an_audit_log_that_is_changed_where_nobody_appends_is_found_by_the_operator(
    world: &World,
) -> Result<()> {
    let key = world.keep_log().await?;
    world.add_flag("--audit-log-check-seconds=1".into()).await;
    world.begin_ready().await?;
    world
        .metrics_until("it was read, and is whole", |text| {
            text.contains("lethe_audit_log_intact 1\n")
                && !text.contains("lethe_audit_log_checked_timestamp_seconds 0\n")
        })
        .await?;
    let first = world.log_folder().join("commits/000/000");
    let good = fs::read(&first)?;
    let mut bad = good.clone();
    bad[20] ^= 1;
    fs::write(&first, &bad)?;
    world.metrics_until("it was found", |text| text.contains("lethe_audit_log_intact 0\n")).await?;
    // What is appended goes on.
    world.request("forget-three", "3", "8").await?;
    world.forget(|_| {}).await?;
    world.request_until("forget-three", RequestPhase::Fulfilled).await?;
    let said = fs::read_to_string(world.operator_log())?;
    ensure!(
        said.contains("the audit log is not as it was written") && said.contains("commits/000/000"),
        "{said}"
    );
    fs::write(&first, &good)?;
    world.metrics_until("it was restored", |text| text.contains("lethe_audit_log_intact 1\n")).await?;
    is_whole(&world.read_log(&key).await?)
}

/// `kubectl lethe verify --log` of all that the namespace has.
async fn verify(world: &World, auditor: &Person, key: &Key) -> Result<(i32, String)> {
    let exported = world.exported().await?;
    let arguments = [
        "verify".to_owned(),
        "-".into(),
        format!("--trusted-keys={}", key.public.display()),
        format!("--log={}", folder_uri(&world.log_folder())?),
        format!("--origin={ORIGIN}"),
        format!("--since={}", seen(world).display()),
    ];
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let said = auditor.says_to(&arguments, &exported).await?;
    Ok((said.code, format!("{}{}", said.out, said.err)))
}

/// Where the auditor keeps the checkpoint that was seen last.
fn seen(world: &World) -> PathBuf {
    world.store_folder().with_file_name("seen")
}

/// Nothing is wrong with it, and nothing is open.
fn is_whole(reading: &Reading) -> Result<()> {
    ensure!(reading.faults.is_empty(), "{:#?}", reading.faults);
    let open: Vec<_> = reading.book.open().map(|number| &reading.entries[number as usize]).collect();
    ensure!(open.is_empty(), "{open:#?}");
    Ok(())
}

/// Everything has its outcome, after it. Returns what was done.
fn in_order(all: &[Told]) -> Result<Vec<Told>> {
    for it in all {
        ensure!(it.outcome.is_some_and(|(number, _)| number > it.number), "{it:?}");
    }
    Ok(all
        .iter()
        .filter(|it| it.outcome.is_some_and(|(_, upshot)| upshot == Upshot::Done))
        .cloned()
        .collect())
}
