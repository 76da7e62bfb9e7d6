//! What the API server refuses by itself: schema and validation rules of the custom resources.

use anyhow::{Context, Result, ensure};
use kube::api::{DynamicObject, Patch, PatchParams, ValidationDirective};
use lethe_api::{
    Digest,
    v1alpha1::{DiffusionModel, UnlearnRequest, UnlearnRun, unseen},
};
use lethe_tests::{
    World, examples,
    place::{MODEL, refused, request},
    world::{policy, run},
};
use serde_json::{Value, json};

use crate::probing::thorough;

pub async fn every_example_is_accepted(world: &World) -> Result<()> {
    for file in examples::files()? {
        // A part of a manifest, for `kubectl patch`.
        if file == "model-impossible.yaml" {
            continue;
        }
        for manifest in examples::read(&file)? {
            let named = manifest["metadata"]["name"].is_string();
            let result = if named { world.apply(&manifest).await } else { world.create(&manifest).await };
            result.with_context(|| format!("examples/{file}"))?;
        }
    }
    let part = examples::first("model-impossible.yaml")?;
    let model = world.patch::<DiffusionModel>(MODEL, part).await?;
    ensure!(model.spec.policy_ref.name == "impossible");
    Ok(())
}

pub async fn a_request_that_contradicts_itself_is_refused(world: &World) -> Result<()> {
    let good = request("good", &["3"], "8");
    let cases: [(&str, &str, Value, &str); 12] = [
        ("no targets", "/spec/targets", json!([]), "should have at least 1 items"),
        ("a target twice", "/spec/targets", json!([{"label": "3"}, {"label": "3"}]), "Duplicate value"),
        ("an empty label", "/spec/targets", json!([{"label": ""}]), "should be at least 1 chars long"),
        ("65 targets", "/spec/targets", many_targets(65), "must have at most 64 items"),
        ("override is a target", "/spec/override/label", json!("3"), "the override label is itself a target"),
        (
            "Fixed without a label",
            "/spec/override",
            json!({"strategy": "Fixed"}),
            "label is required for strategy Fixed",
        ),
        (
            "Nearest with a label",
            "/spec/override",
            json!({"strategy": "Nearest", "label": "8"}),
            "label is required for strategy Fixed and belongs to no other",
        ),
        ("no such strategy", "/spec/override/strategy", json!("Guess"), "Unsupported value"),
        ("no model", "/spec/modelRef", json!({"name": ""}), "should be at least 1 chars long"),
        (
            "a person in the reference",
            "/spec/dataSubjectRequest",
            json!({"reference": "jane@example.org", "receivedAt": "2026-11-20T09:00:00Z", "regulation": "GDPR"}),
            "should match",
        ),
        (
            "a regulation that is a sentence",
            "/spec/dataSubjectRequest",
            json!({"reference": "DSR-1", "receivedAt": "2026-11-20T09:00:00Z", "regulation": "as the law says"}),
            "should match",
        ),
        ("no such mode", "/spec/mode", json!("Audit"), "Unsupported value"),
    ];
    check_refusals(world, &good, &cases).await?;
    let term = json!({"reference": "DSR-1", "receivedAt": "2026-11-20T09:00:00Z", "regulation": "GDPR"});
    let mut pilot = request("pilot", &["3"], "8");
    pilot["spec"]["mode"] = json!("Pilot");
    pilot["spec"]["dataSubjectRequest"] = term;
    refused(world.apply(&pilot).await, "a Pilot answers nobody")?;
    world.apply(&good).await?;
    let strict =
        PatchParams { field_validation: Some(ValidationDirective::Strict), ..PatchParams::default() };
    let unknown = Patch::Merge(json!({"spec": {"targetz": []}}));
    refused(
        world.api::<UnlearnRequest>().patch("good", &strict, &unknown).await,
        "unknown field \"spec.targetz\"",
    )
}

pub async fn a_request_is_immutable_but_for_suspend_and_the_extension_of_its_term(
    world: &World,
) -> Result<()> {
    let mut manifest = examples::first("forget-three.yaml")?;
    world.apply(&manifest).await?;
    let edits = [
        json!({"modelRef": {"name": "other"}}),
        json!({"targets": [{"label": "4"}]}),
        json!({"targets": [{"label": "3"}, {"label": "4"}]}),
        json!({"override": {"label": "9"}}),
        json!({"override": {"strategy": "Random", "label": null}}),
        json!({"mode": "Pilot", "dataSubjectRequest": null}),
        json!({"dataSubjectRequest": null}),
    ];
    let edit = async |spec: Value| world.patch::<UnlearnRequest>("forget-three", json!({"spec": spec})).await;
    for spec in edits {
        refused(edit(spec.clone()).await, "a request is immutable but for suspend")
            .with_context(|| spec.to_string())?;
    }
    let extension = |reason: &str| {
        let extension = json!({"informedAt": "2026-12-01T09:00:00Z", "reason": reason});
        json!({"dataSubjectRequest": {"extension": extension}})
    };
    let earlier = json!({"dataSubjectRequest": {"receivedAt": "2026-11-24T09:00:00Z"}});
    refused(edit(earlier).await, "only the extension can be added")?;
    refused(edit(extension("late")).await, "should be at least 10 chars long")?;
    edit(extension("the model is trained anew this month")).await?;
    refused(edit(extension("it takes even longer than that")).await, "an extension stands")?;
    refused(edit(json!({"dataSubjectRequest": {"extension": null}})).await, "an extension stands")?;
    manifest["spec"]["suspend"] = json!(true);
    world.apply(&manifest).await?;
    Ok(())
}

pub async fn a_policy_must_ask_for_every_gate_once(world: &World) -> Result<()> {
    let good = policy()?;
    let gates = good["spec"]["gates"].as_array().cloned().unwrap_or_default();
    let without_last = json!(gates[..4]);
    let twice = json!([gates[0], gates[1], gates[2], gates[3], gates[3]]);
    let with = |index: usize, field: &str, value: Value| {
        let mut changed = gates.clone();
        changed[index][field] = value;
        json!(changed)
    };
    let sixth = |name: &str| {
        let mut more = gates.clone();
        more.push(json!({"name": name}));
        json!(more)
    };
    let cases: [(&str, &str, Value, &str); 11] = [
        ("a gate is missing", "/spec/gates", without_last, "should have at least 5 items"),
        ("a gate twice", "/spec/gates", twice, "Duplicate value"),
        (
            "no bound",
            "/spec/gates",
            with(0, "maxBound", Value::Null),
            "direct-leak needs maxBound and minSamples",
        ),
        (
            "no samples",
            "/spec/gates",
            with(2, "minSamples", Value::Null),
            "retain-accuracy needs maxDrop and minSamples",
        ),
        (
            "another gate's field",
            "/spec/gates",
            with(4, "maxBound", json!("0.1")),
            "maxBound and confidence belong to gates on leaks and attacks only",
        ),
        ("one too many", "/spec/gates", sixth("hygiene"), "Duplicate value"),
        (
            "a bound of nothing",
            "/spec/gates",
            sixth("served-leak"),
            "served-leak needs maxBound and minSamples",
        ),
        ("a bound above one", "/spec/gates", with(0, "maxBound", json!("1.5")), "should match"),
        (
            "a number, not a string",
            "/spec/gates",
            with(0, "maxBound", json!(0.005)),
            "must be of type string",
        ),
        ("no such gate", "/spec/gates", with(4, "name", json!("beauty")), "Unsupported value"),
        (
            "no such pull policy",
            "/spec/trainer/imagePullPolicy",
            json!("Sometimes"),
            "imagePullPolicy must be",
        ),
    ];
    check_refusals(world, &good, &cases).await
}

pub async fn gates_on_probes_need_probes_and_have_limits_of_their_own(world: &World) -> Result<()> {
    let good = thorough()?;
    world.apply(&good).await?;
    let gates = good["spec"]["gates"].as_array().cloned().unwrap_or_default();
    let with = |name: &str, field: &str, value: Value| -> Value {
        let changed = gates.iter().cloned().map(|mut gate| {
            if gate["name"] == name {
                gate[field] = value.clone();
            }
            gate
        });
        changed.collect()
    };
    let (none, some) = (|| Value::Null, || json!("0.1"));
    let leak = "need maxBound and minSamples";
    let cases: [(&str, &str, Value, &str); 14] = [
        (
            "no neighbours' loss",
            "/spec/gates",
            with("neighbour-accuracy", "maxDrop", none()),
            "needs maxDrop",
        ),
        ("no bound", "/spec/gates", with("other-door-leak", "maxBound", none()), leak),
        ("no samples", "/spec/gates", with("benign-resurgence", "minSamples", none()), leak),
        (
            "nothing to compare with",
            "/spec/gates",
            with("relearning", "maxAboveNeverSaw", none()),
            "relearning needs maxBound or maxAboveNeverSaw",
        ),
        ("a foreign maxNull", "/spec/gates", with("seed-search", "maxNull", some()), "maxNull belongs to"),
        (
            "a foreign comparison",
            "/spec/gates",
            with("stochastic-leak", "maxAboveNeverSaw", some()),
            "maxAboveNeverSaw belongs to",
        ),
        (
            "a foreign fidelity",
            "/spec/gates",
            with("retain-accuracy", "maxFidelityDrop", some()),
            "maxFidelityDrop belongs to",
        ),
        ("a foreign drop", "/spec/gates", with("seed-search", "maxDrop", some()), "maxDrop belongs to"),
        (
            "a foreign confidence",
            "/spec/gates",
            with("hygiene", "confidence", json!("0.95")),
            "confidence belong to",
        ),
        ("no number", "/spec/gates", with("other-door-leak", "maxNull", json!("1.5")), "should match"),
        (
            "no probes",
            "/spec/probes",
            Value::Null,
            "neighbour-accuracy and other-door-leak need probes: Fast",
        ),
        (
            "fast probes",
            "/spec/probes",
            json!("Fast"),
            "multistep-leak and stochastic-leak need probes: Full",
        ),
        ("full probes", "/spec/probes", json!("Full"), "benign-resurgence need probes: Attack"),
        ("no such probes", "/spec/probes", json!("Hard"), "Unsupported value"),
    ];
    check_refusals(world, &good, &cases).await?;
    let mut few = policy()?;
    put(&mut few, "/spec/probes", Value::Null)?;
    put(&mut few, "/spec/gates/3/maxFidelityDrop", some())?;
    refused(world.create(&few).await, "maxFidelityDrop of retain-quality needs probes")
}

pub async fn a_model_cannot_be_what_lethe_cannot_serve(world: &World) -> Result<()> {
    let good = world.model()?;
    let cases: [(&str, &str, Value, &str); 6] = [
        ("a long name", "/metadata/name", json!("m".repeat(41)), "at most 40 characters"),
        ("a StatefulSet", "/spec/serving/target/kind", json!("StatefulSet"), "only an apps/v1 Deployment"),
        ("port 0", "/spec/serving/port", json!(0), "should be greater than or equal to 1"),
        ("no digest", "/spec/base/digest", json!(format!("md5:{}", "0".repeat(67))), "should match"),
        ("a path, no URI", "/spec/base/uri", json!("/artifacts/base"), "should match"),
        ("no container", "/spec/serving/container", json!(""), "should be at least 1 chars long"),
    ];
    check_refusals(world, &good, &cases).await?;
    world.apply(&good).await?;
    let elsewhere = json!({"spec": {"serving": {"target": {"name": "another"}}}});
    refused(world.patch::<DiffusionModel>(MODEL, elsewhere).await, "serving target is immutable")
}

pub async fn a_ledger_only_grows(world: &World) -> Result<()> {
    world.apply(&world.model()?).await?;
    let entry = |label: &str| {
        json!({
            "targets": [label], "override": {"strategy": "Fixed", "label": "8"},
            "request": {"name": format!("forget-{label}"), "uid": label}, "run": "digits-00000000",
            "digest": Digest::of(label), "at": "2026-11-24T21:00:00Z",
        })
    };
    let write = async |status: Value| {
        let patch = Patch::Merge(json!({"status": status}));
        world.api::<DiffusionModel>().patch_status(MODEL, &PatchParams::default(), &patch).await
    };
    let ledger = async |entries: Value| write(json!({"ledger": entries})).await;
    ledger(json!([entry("3")])).await?;
    ledger(json!([entry("3"), entry("5")])).await?;
    for (what, smaller) in [
        ("one entry less", json!([entry("3")])),
        ("another entry", json!([entry("3"), entry("7")])),
        ("an entry for others", json!([entry("7"), entry("8"), entry("9")])),
        ("another order", json!([entry("5"), entry("3")])),
        ("an empty ledger", json!([])),
        ("no ledger", Value::Null),
    ] {
        refused(ledger(smaller).await, "the ledger only grows").context(what)?;
    }
    let removed = Patch::Json::<()>(serde_json::from_value(json!([{"op": "remove", "path": "/status"}]))?);
    let removed = world.api::<DiffusionModel>().patch_status(MODEL, &PatchParams::default(), &removed).await;
    refused(removed, "the ledger only grows").context("no status")?;
    ledger(json!([entry("3"), entry("5"), entry("7")])).await?;
    Ok(())
}

/// Whoever judges by kstatus compares both generations.
pub async fn what_nobody_has_looked_at_says_so_and_nobody_brings_a_status_along(world: &World) -> Result<()> {
    let done = json!({"observedGeneration": 1, "phase": "Ready", "conditions": [{
        "type": "Ready", "status": "True", "reason": "Ready", "message": "",
        "lastTransitionTime": "2026-11-27T08:00:00Z",
    }]});
    for mut manifest in [request("new", &["3"], "8"), world.model()?, run()?] {
        let kind = manifest["kind"].as_str().unwrap_or_default().to_owned();
        let is_unseen = |what: &str, found: &DynamicObject| {
            ensure!(found.data["status"] == unseen(), "{kind}, {what}: {}", found.data["status"]);
            ensure!(found.metadata.generation == Some(1), "{kind}, {what}: {:?}", found.metadata.generation);
            Ok(())
        };
        is_unseen("applied", &world.apply(&manifest).await?)?;
        manifest["status"] = done.clone();
        is_unseen("applied with a status", &world.apply(&manifest).await?)?;
        manifest["metadata"]["name"] = json!("another");
        is_unseen("created with a status", &world.create(&manifest).await?)?;
        is_unseen("applied to it", &world.apply(&manifest).await?)?;
    }
    Ok(())
}

pub async fn a_run_is_immutable(world: &World) -> Result<()> {
    world.apply(&run()?).await?;
    for spec in [
        json!({"plan": "{ }"}),
        json!({"type": "Prepare"}),
        json!({"policy": {"trainer": {"image": "other"}}}),
        json!({"requests": [{"name": "r", "uid": "u", "targets": ["3"]}]}),
    ] {
        let edited = world.patch::<UnlearnRun>("digits-00000000", json!({"spec": spec})).await;
        refused(edited, "a run's spec is immutable").with_context(|| spec.to_string())?;
    }
    Ok(())
}

/// Each case changes one thing in a good manifest: what it is, where, to what, and what the refusal says.
async fn check_refusals(world: &World, good: &Value, cases: &[(&str, &str, Value, &str)]) -> Result<()> {
    for (what, pointer, value, words) in cases {
        let mut bad = good.clone();
        put(&mut bad, pointer, value.clone())?;
        refused(world.create(&bad).await, words).with_context(|| (*what).to_owned())?;
    }
    Ok(())
}

/// Puts a value where a JSON pointer says; its parent must be there.
fn put(manifest: &mut Value, pointer: &str, value: Value) -> Result<()> {
    let (parent, key) = pointer.rsplit_once('/').context("a pointer begins with a slash")?;
    let parent = manifest.pointer_mut(parent).with_context(|| format!("nothing at {parent}"))?;
    parent[key] = value;
    Ok(())
}

fn many_targets(count: usize) -> Value {
    (0..count).map(|label| json!({"label": format!("label-{label}")})).collect()
}
