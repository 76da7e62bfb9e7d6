//! `kubectl lethe` in the hands of people with different rights.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use lethe_api::v1alpha1::{Reason, RequestPhase, Stage};
use lethe_store::folder_uri;
use lethe_tests::{
    World,
    audit_log::ORIGIN,
    place::{MODEL, request},
    world::policy,
};
use serde_json::{Value, json};

/// A request of Alice's, with a term.
fn of_alice(name: &str) -> Value {
    let mut asked = request(name, &["3"], "8");
    asked["spec"]["requestedBy"] = json!("alice");
    asked["spec"]["dataSubjectRequest"] =
        json!({"reference": "DSR-2026-0042", "receivedAt": "2026-11-20T09:00:00Z", "regulation": "GDPR"});
    asked
}

pub async fn who_asks_sees_why_it_waits_and_who_may_agrees(world: &World) -> Result<()> {
    let mut careful = policy()?;
    careful["spec"]["approvals"] = json!({"required": 1});
    world.begin_with(careful, world.model()?).await?;
    world.prepare().await?;
    world.apply(&of_alice("forget-three")).await?;
    world.request_says("forget-three", Reason::WaitingForApproval, "0 of 1").await?;

    // Who may only ask sees requests and models, and is told what she does not see.
    let alice = world.person("alice", &["request"]).await?;
    let seen = alice.says_that(&["get"], 0, "AwaitingApproval").await?;
    for words in
        ["3 \u{2192} 8", "0 of 1 approvals", "kubectl lethe approve forget-three", "you may not read runs"]
    {
        ensure!(seen.out.contains(words), "{words:?} is not in {}", seen.out);
    }
    let own = ["approve", "forget-three", "--reason", "it is mine"];
    alice.says_that(&own, 1, "nobody's word on their own request counts").await?;
    let mallory = world.person("mallory", &["request"]).await?;
    mallory.says_that(&own, 4, "you lack the right").await?;
    mallory.says_that(&["retry", "forget-three"], 4, "you lack the right").await?;
    mallory.says_that(&["get", "nobody"], 3, "there is no model and no request \"nobody\"").await?;

    let bob = world.person("bob", &["approve"]).await?;
    let view = bob.says(&["get", "forget-three", "-o", "json"]).await?.json()?;
    let asked = &view["models"][0]["requests"][0];
    ensure!(asked["approvals"] == json!({"required": 1, "by": [], "notBy": "alice"}), "{asked}");
    let mut watch = bob.start(&["watch", "forget-three"])?;
    let first = watch.first_line().await?;
    ensure!(first.contains("forget-three  AwaitingApproval"), "{first}");
    let lines = bob.start(&["watch", "forget-three", "-o", "json"])?;
    let mut screen = bob.start_on_a_terminal("watch forget-three")?;
    let top = screen.first_line().await?;
    ensure!(top.contains("nothing to forget yet") && top.contains("\u{1b}[1m"), "{top:?}");
    bob.says_that(&["approve", "forget-three", "--reason", "it is lawful"], 0, "approved by bob").await?;
    world.forget(|_| {}).await?;
    world.request_until("forget-three", RequestPhase::Fulfilled).await?;
    let watched = watch.ended().await?;
    ensure!(watched.code == 0 && watched.out.contains("Fulfilled  5/5 gates"), "{watched:#?}");
    let lines = lines.ended().await?;
    let told: Vec<Value> = lines.out.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let phases: Vec<_> = told.iter().map(|view| &view["models"][0]["requests"][0]["phase"]).collect();
    ensure!(lines.code == 0 && phases.first() == Some(&&json!("AwaitingApproval")), "{phases:?}");
    ensure!(
        phases.last() == Some(&&json!("Fulfilled")) && told.windows(2).all(|two| two[0] != two[1]),
        "{phases:?}"
    );
    let screen = screen.ended().await?;
    ensure!(screen.code == 0 && screen.out.contains("\u{1b}[32mFulfilled"), "{screen:#?}");
    // Drawn over itself, and a message that is longer than a row goes on in the next one.
    ensure!(screen.out.contains("A\r\u{1b}[J"), "{screen:#?}");
    ensure!(screen.out.lines().any(|row| row.contains("  \u{1b}[0mfor uid ")), "{screen:#?}");
    bob.says_that(&["approve", "forget-three", "--reason", "again"], 1, "has its answer").await?;
    let tree = bob.says_that(&["get", "ulr/forget-three"], 0, "compliant, 1 forgotten").await?;
    ensure!(tree.out.contains("\u{2713}  direct-leak 3"), "{}", tree.out);
    let completed = bob.says(&["complete", "--", "get", "forg"]).await?;
    ensure!(completed.out == "forget-three\n:4\n", "{completed:?}");
    Ok(())
}

pub async fn what_was_held_is_tried_again_and_given_up_from_the_command_line(world: &World) -> Result<()> {
    world.begin_ready().await?;
    world.apply(&request("forget-three", &["3"], "8")).await?;
    let person = world.person("carol", &["edit", "view"]).await?;
    person.says_that(&["retry", "forget-three"], 1, "nothing was done: the request has not failed").await?;
    world.forget(|record| record.targets[0].leak.hits = 300).await?;
    world.request_until("forget-three", RequestPhase::Held).await?;
    let held = person.says_that(&["get"], 0, "Held").await?;
    for words in ["\u{2717}  direct-leak 3", "training.forgetSteps", "kubectl lethe retry forget-three"] {
        ensure!(held.out.contains(words), "{words:?} is not in {}", held.out);
    }
    let watched = person.says(&["watch", "forget-three"]).await?;
    ensure!(watched.code == 1 && watched.out.contains("Held"), "{watched:#?}");
    person.says_that(&["retry", "forget-three", "--word", "monday"], 0, "attempt 2 is planned").await?;
    person.says_that(&["retry", "forget-three", "--word", "monday"], 1, "was acted upon already").await?;
    world.task(Stage::Forget).await?;
    let aborted = person.says(&["abort", "forget-three", "-o", "json"]).await?.json()?;
    let (verb, answer) = (&aborted["verb"], aborted["answer"].as_str().unwrap_or_default());
    ensure!(verb == "abort" && answer.contains("Nothing was rolled out"), "{aborted}");
    person.says_that(&["abort", "forget-three"], 1, "nothing was done").await?;
    world.request_until("forget-three", RequestPhase::Aborted).await?;
    // Nobody answers where no operator runs.
    world.take_operator().await?.stop().await?;
    person.says_that(&["retry", "forget-three", "--timeout", "1"], 3, "Is one running?").await?;
    person.says_that(&["retry", "forget-three", "--no-wait"], 0, "asked to retry").await?;
    Ok(())
}

pub async fn lint_says_what_the_api_server_says(world: &World) -> Result<()> {
    let person = world.person("dave", &[]).await?;
    let (ask, rules, lineage) = (of_alice("asked"), policy()?, world.model()?);
    let gates = |change: &dyn Fn(&mut Vec<Value>)| {
        let mut gates = rules["spec"]["gates"].as_array().cloned().unwrap_or_default();
        change(&mut gates);
        json!(gates)
    };
    let many: Value = (0..65).map(|label| json!({"label": format!("label-{label}")})).collect();
    let cases: Vec<(&Value, &str, Value)> = vec![
        (&ask, "/spec/suspend", json!(true)),
        (&ask, "/spec/mode", Value::Null),
        (&ask, "/spec/targets", json!([])),
        (&ask, "/spec/targets", json!([{"label": "3"}, {"label": "3"}])),
        (&ask, "/spec/targets", json!([{"label": ""}])),
        (&ask, "/spec/targets", json!([{"label": 3}])),
        (&ask, "/spec/targets", json!([{"label": "3\n"}])),
        (&ask, "/spec/targets", json!("3")),
        (&ask, "/spec/targets", many),
        (&ask, "/spec/targets/0/label", json!("x".repeat(129))),
        (&ask, "/spec/override/label", json!("3")),
        (&ask, "/spec/override", json!({"strategy": "Fixed"})),
        (&ask, "/spec/override", json!({"strategy": "Nearest", "label": "8"})),
        (&ask, "/spec/override/strategy", json!("Guess")),
        (&ask, "/spec/modelRef", json!({})),
        (&ask, "/spec/modelRef/name", json!("../secrets")),
        (&ask, "/spec/mode", json!("Audit")),
        (&ask, "/spec/mode", json!("Pilot")),
        (&ask, "/spec/targetz", json!([])),
        (&ask, "/spec/dataSubjectRequest/reference", json!("jane@example.org")),
        (&ask, "/spec/dataSubjectRequest/receivedAt", json!("yesterday")),
        (
            &ask,
            "/spec/dataSubjectRequest/extension",
            json!({"informedAt": "2026-12-01T09:00:00Z", "reason": "late"}),
        ),
        (&rules, "/spec/gates", gates(&|gates| drop(gates.pop()))),
        (&rules, "/spec/gates", gates(&|gates| gates[4]["name"] = json!("hygien"))),
        (&rules, "/spec/gates", gates(&|gates| gates[4] = gates[3].clone())),
        (&rules, "/spec/gates", gates(&|gates| gates[0]["maxBound"] = Value::Null)),
        (&rules, "/spec/gates", gates(&|gates| gates[0]["maxBound"] = json!(0.005))),
        (&rules, "/spec/gates", gates(&|gates| gates[0]["maxBound"] = json!("1.5"))),
        (&rules, "/spec/gates", gates(&|gates| gates[4]["maxBound"] = json!("0.1"))),
        (&rules, "/spec/gates", gates(&|gates| gates.push(json!({"name": "seed-search"})))),
        (&rules, "/spec/probes", Value::Null),
        (&rules, "/spec/trainer/threads", json!(0)),
        (&rules, "/spec/trainer/threads", json!("two")),
        (&rules, "/spec/trainer/imagePullPolicy", json!("Sometimes")),
        (&rules, "/spec/trainer/resources", json!({"limits": {"cpu": 2, "memory": "4Gi"}})),
        (&rules, "/spec/onGateFailure", json!({"action": "Retry"})),
        (&rules, "/spec/onGateFailure", json!({"attempts": 3})),
        (&rules, "/spec/rollout", json!({"steps": [{"weight": 25}]})),
        (
            &rules,
            "/spec/rollout",
            json!({"strategy": "Canary", "steps": [{"weight": 25, "pause": {"seconds": 1}}]}),
        ),
        (&rules, "/spec/approvals", json!({"required": 11})),
        (&lineage, "/metadata/name", json!("m".repeat(41))),
        (&lineage, "/metadata/name", json!("Digits")),
        (&lineage, "/spec/serving/target/kind", json!("StatefulSet")),
        (&lineage, "/spec/serving/port", json!(0)),
        (&lineage, "/spec/serving/container", Value::Null),
        (&lineage, "/spec/base/digest", json!("md5:0")),
        (&lineage, "/spec/base/uri", json!("/artifacts/base")),
        (&lineage, "/spec/base", Value::Null),
    ];
    let (mut refused, mut accepted) = (0, 0);
    for (good, pointer, value) in cases {
        let what = format!("{pointer} = {value}");
        let mut manifest = good.clone();
        put(&mut manifest, pointer, value)?;
        let found = person.says_to(&["lint", "-o", "json", "-"], &manifest.to_string()).await?;
        match refusal(world, &manifest).await? {
            None => {
                accepted += 1;
                ensure!(found.code == 0, "{what}: the API server takes it: {found:#?}");
            }
            Some(refusal) => {
                refused += 1;
                ensure!(found.code == 1, "{what}: the API server refuses it ({refusal}): {found:#?}");
                let findings = found.json()?["findings"].as_array().cloned().unwrap_or_default();
                for finding in findings.iter().filter(|finding| finding["severity"] == "error") {
                    let message = finding["message"].as_str().unwrap_or_default();
                    // The value stands where the API server's words begin: a rule's message is what counts.
                    let words = message.strip_prefix("Invalid value: ").unwrap_or(message);
                    ensure!(refusal.contains(words), "{what}: {words:?} is not in {refusal:?}");
                }
            }
        }
    }
    ensure!(refused > 35 && accepted > 2, "{refused} refused, {accepted} accepted");
    Ok(())
}

/// What the API server says to a manifest, if it refuses it; nothing is kept of what it takes.
async fn refusal(world: &World, manifest: &Value) -> Result<Option<String>> {
    match world.try_out(manifest).await {
        Ok(_) => Ok(None),
        Err(kube::Error::Api(status)) if (400..500).contains(&status.code) => {
            Ok(Some(status.message.clone()))
        }
        Err(error) => Err(error).context("the API server did not answer"),
    }
}

fn put(manifest: &mut Value, pointer: &str, value: Value) -> Result<()> {
    let (parent, key) = pointer.rsplit_once('/').context("a pointer begins with a slash")?;
    let parent = manifest.pointer_mut(parent).with_context(|| format!("nothing at {parent}"))?;
    match parent {
        Value::Array(items) => items[key.parse::<usize>()?] = value,
        fields => fields[key] = value,
    }
    Ok(())
}

pub async fn a_report_holds_no_names_and_a_page_says_what_was_forgotten(world: &World) -> Result<()> {
    let key = world.keep_log().await?;
    world.begin_ready().await?;
    world.apply(&of_alice("forget-three")).await?;
    world.forget(|_| {}).await?;
    world.request_until("forget-three", RequestPhase::Fulfilled).await?;
    let person = world.person("erin", &["view"]).await?;
    let folder = tempfile::tempdir()?;
    let archive = folder.path().join("report.tar.gz").display().to_string();
    // Who may not read pods and events gets the rest, and is told.
    let log = format!("--log={}", folder_uri(&world.log_folder())?);
    let trusted = format!("--trusted-keys={}", key.public.display());
    let arguments = ["report", "--out", &archive, &log, &trusted];
    let said = person.says_that(&arguments, 0, "left out: cannot read pods").await?;
    let head = said.out.lines().find(|line| line.contains(&format!("audit log {ORIGIN}: ")));
    ensure!(head.is_some_and(|head| head.ends_with("signed by a trusted key")), "{said:#?}");
    ensure!(said.out.contains("left out: cannot read events"), "{said:#?}");
    let unpacked = Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(folder.path()).status()?;
    ensure!(unpacked.success(), "the archive cannot be read");
    let objects = folder.path().join("lethe-report/objects").join(&world.namespace);
    let asked = std::fs::read_to_string(objects.join("unlearnrequests.forget-three.yaml"))?;
    ensure!(asked.contains("reference: subject-") && asked.contains("requestedBy: person-"), "{asked}");
    let everything = Command::new("grep")
        .args(["-rE", "DSR-2026|alice"])
        .arg(folder.path().join("lethe-report"))
        .output()?;
    ensure!(everything.stdout.is_empty(), "{}", String::from_utf8_lossy(&everything.stdout));

    let out = folder.path().display().to_string();
    let store = world.store.uri();
    person
        .says_that(&["report", MODEL, "--compliance", "--store", store, "--out", &out], 0, "compliance-")
        .await?;
    let data = ["report", MODEL, "--compliance", "--store", store, "--out", &out, "-o", "json"];
    let said = person.says_that(&data, 0, "\"pages\"").await?;
    let data: Value = serde_json::from_str(&said.out)?;
    let leak = &data["pages"][0]["model"]["requests"][0]["leaks"][0];
    ensure!(leak["after"] == json!({"hits": 2, "n": 3000}), "{data}");
    let data = ["report", "--out", &archive, "-o", "json"];
    let said = person.says_that(&data, 0, "\"leftOut\"").await?;
    let data: Value = serde_json::from_str(&said.out)?;
    ensure!(data["archive"] == archive.as_str() && data["files"].as_u64() > Some(3), "{data}");

    let page = folder.path().join(format!("compliance-{}-{MODEL}.html", world.namespace));
    let page = std::fs::read_to_string(page)?;
    for words in [
        "DSR-2026-0042",
        "2,970 of 3,000",
        "2 of 3,000",
        "not observed in more than 0.21",
        "\u{2713}\u{a0}Yes",
        "2026-12-20",
        ORIGIN,
    ] {
        ensure!(page.contains(words), "{words:?} is not on the page");
    }
    ensure!(!page.contains("removed from") && !page.contains("<script"), "the page says or does too much");
    Ok(())
}
