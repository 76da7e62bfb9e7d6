//! Who looks again after what.

use futures::channel::mpsc::UnboundedReceiver;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{Client, Config, Resource, core::PartialObjectMeta};
use kube_runtime::{reflector::ObjectRef, watcher::Event};
use lethe_api::{
    Digest,
    v1alpha1::{
        ClusterUnlearnPolicy, DiffusionModel, DiffusionModelStatus, ModelPhase, PolicyKind, UnlearnApproval,
        UnlearnRequest, UnlearnRequestStatus, UnlearnRun, labels,
    },
};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::{
    last_told::LastTold,
    packed::Packed,
    stores::{Stores, Triggers, Writers},
    streams::Change,
};

fn object<T: DeserializeOwned>(kind: &str, name: &str, spec: serde_json::Value) -> T {
    serde_json::from_value(json!({
        "apiVersion": "lethe.dev/v1alpha1", "kind": kind,
        "metadata": {"name": name, "namespace": "studio"}, "spec": spec,
    }))
    .unwrap()
}

fn asked(name: &str, model: &str) -> UnlearnRequest {
    let replacement = json!({"strategy": "Nearest"});
    let targets = json!([{"label": "3"}]);
    let spec = json!({"modelRef": {"name": model}, "targets": targets, "override": replacement});
    object("UnlearnRequest", name, spec)
}

fn model(name: &str, policy: &str, target: &str) -> DiffusionModel {
    let base = json!({"uri": "file:///b", "digest": Digest::of(b"")});
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": target});
    let serving = json!({"target": target, "container": "server"});
    object("DiffusionModel", name, json!({"base": base, "policyRef": {"name": policy}, "serving": serving}))
}

fn run(name: &str, model: &str, requests: &[&str]) -> Packed<UnlearnRun> {
    let requests: Vec<_> =
        requests.iter().map(|name| json!({"name": name, "uid": "u", "targets": ["3"]})).collect();
    let policy = json!({"trainer": {"image": "x"}, "gates": []});
    let spec = json!({
        "model": model, "type": "Forget", "requests": requests, "policy": policy,
        "plan": "", "planDigest": Digest::of(b""),
    });
    object("UnlearnRun", name, spec)
}

/// Two models under one policy and one under a policy of the cluster that is called the same, a request for each of the
/// two and one that waits for the first, and a run for that.
fn studio() -> (Stores, Writers) {
    // The client is never used: nothing here calls the API server.
    let config = Config::new("http://127.0.0.1:1".parse().unwrap());
    let (stores, mut writers) = Stores::new(Client::try_from(config).unwrap());
    for (name, target) in [("digits", "digits-server"), ("faces", "faces-server")] {
        writers.models.apply_watcher_event(&Event::Apply(model(name, "standard", target)));
        writers.requests.apply_watcher_event(&Event::Apply(asked(&format!("forget-{name}"), name).into()));
    }
    let mut voices = model("voices", "standard", "voices-server");
    voices.spec.policy_ref.kind = PolicyKind::ClusterUnlearnPolicy;
    writers.models.apply_watcher_event(&Event::Apply(voices));
    let mut same = asked("same", "digits");
    let duplicate_of = vec!["forget-digits".into()];
    same.status = Some(UnlearnRequestStatus { duplicate_of, ..UnlearnRequestStatus::default() });
    writers.requests.apply_watcher_event(&Event::Apply(same.into()));
    writers.runs.apply_watcher_event(&Event::Apply(run("digits-1", "digits", &["forget-digits"])));
    stores.requests_by_model.hear(&stores.requests, &Change::Listed);
    stores.runs_by_model.hear(&stores.runs, &Change::Listed);
    (stores, writers)
}

fn named<K: Resource<DynamicType = ()>>(mut inbox: UnboundedReceiver<ObjectRef<K>>) -> Vec<String> {
    let mut names: Vec<_> = std::iter::from_fn(|| inbox.try_recv().ok())
        .map(|reference| format!("{}/{}", reference.namespace.unwrap_or_default(), reference.name))
        .collect();
    names.sort();
    names.dedup();
    names
}

/// The models, requests and runs that look again after what `change` does.
fn woken(change: impl FnOnce(&Triggers, &Stores)) -> [Vec<String>; 3] {
    woken_in(|_, _| {}, change)
}

/// The same, of a studio that is somewhat different.
fn woken_in(
    prepare: impl FnOnce(&Stores, &mut Writers),
    change: impl FnOnce(&Triggers, &Stores),
) -> [Vec<String>; 3] {
    let (stores, mut writers) = studio();
    prepare(&stores, &mut writers);
    let (triggers, inboxes) = Triggers::new();
    change(&triggers, &stores);
    [named(inboxes.models), named(inboxes.requests), named(inboxes.runs)]
}

fn names<const N: usize>(names: [&str; N]) -> Vec<String> {
    names.into_iter().map(|name| format!("studio/{name}")).collect()
}

#[tokio::test]
async fn a_request_that_goes_wakes_its_model_its_run_and_those_that_wait_for_it() {
    let gone = asked("forget-digits", "digits").into();
    let woken = woken(|t, s| t.on_request(s, Change::Deleted(&gone)));
    assert_eq!(woken, [names(["digits"]), names(["same"]), names(["digits-1"])]);
}

#[tokio::test]
async fn a_run_wakes_itself_its_model_and_its_requests_only() {
    let changed = run("digits-1", "digits", &["forget-digits"]);
    let woken = woken(|t, s| t.on_run(s, Change::Applied(&changed)));
    assert_eq!(woken, [names(["digits"]), names(["forget-digits"]), names(["digits-1"])]);
}

#[tokio::test]
async fn a_policy_wakes_every_model_under_it_and_their_requests() {
    let spec = json!({"trainer": {"image": "x"}, "gates": []});
    let created = object("UnlearnPolicy", "standard", spec);
    let woken = woken(|t, s| t.on_policy(s, Change::Applied(&created)));
    assert_eq!(woken, [names(["digits", "faces"]), names(["forget-digits", "forget-faces", "same"]), vec![]]);
}

#[tokio::test]
async fn a_policy_of_the_cluster_wakes_the_models_that_name_its_kind() {
    let spec = json!({"trainer": {"image": "x"}, "gates": []});
    let mut created: ClusterUnlearnPolicy = object("ClusterUnlearnPolicy", "standard", spec);
    created.metadata.namespace = None;
    let woken = woken(|t, s| t.on_cluster_policy(s, Change::Applied(&created)));
    assert_eq!(woken, [names(["voices"]), vec![], vec![]]);
}

#[tokio::test]
async fn a_serving_target_wakes_its_model_and_a_child_its_run() {
    let deployment: PartialObjectMeta<Deployment> =
        serde_json::from_value(json!({"metadata": {"name": "faces-server", "namespace": "studio"}})).unwrap();
    let pod: Packed<Pod> = serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "studio", "labels": {labels::RUN: "digits-1"}},
    }))
    .unwrap();
    let woken = woken(|t, s| {
        t.on_deployment(s, Change::Applied(&deployment));
        t.on_child(s, Change::Deleted(&pod));
    });
    assert_eq!(woken, [names(["faces"]), vec![], names(["digits-1"])]);
}

#[tokio::test]
async fn what_people_said_in_another_namespace_is_not_heard() {
    let config = Config::new("http://127.0.0.1:1".parse().unwrap());
    let (stores, mut writers) = Stores::new(Client::try_from(config).unwrap());
    for (name, namespace, request) in [
        ("ada", "studio", "forget-digits"),
        ("ben", "elsewhere", "forget-digits"),
        ("cleo", "studio", "other"),
    ] {
        let spec = json!({
            "requestRef": {"name": request, "uid": "u"}, "decision": "Approve", "approver": name,
            "reason": "as agreed",
        });
        let mut approval: UnlearnApproval = object("UnlearnApproval", name, spec);
        approval.metadata.namespace = Some(namespace.into());
        writers.approvals.apply_watcher_event(&Event::Apply(approval));
    }
    let heard = stores.approvals_of("studio", |said| said.request_ref.name == "forget-digits");
    let by: Vec<_> = heard.iter().map(|approval| approval.spec.approver.as_str()).collect();
    assert_eq!(by, ["ada"]);
}

#[tokio::test]
async fn a_model_that_goes_wakes_those_that_wait_for_its_target() {
    let gone = model("earlier", "standard", "faces-server");
    let woken = woken(|t, s| t.on_model(s, Change::Deleted(&gone), &mut LastTold::default()));
    assert_eq!(woken, [names(["faces"]), vec![], vec![]]);
}

#[tokio::test]
async fn a_model_wakes_its_requests_only_if_it_tells_them_something_new() {
    let mut told = LastTold::default();
    let mut after = |change: &dyn Fn(&mut DiffusionModelStatus)| {
        let mut changed = model("digits", "standard", "digits-server");
        changed.status = Some(DiffusionModelStatus::default());
        change(changed.status.as_mut().unwrap());
        woken(|t, s| t.on_model(s, Change::Applied(&changed), &mut told))[1].clone()
    };
    assert_eq!(after(&|_| {}), names(["forget-digits", "same"]));
    assert_eq!(after(&|status| status.phase = Some(ModelPhase::Ready)), names([]));
    assert_eq!(
        after(&|status| status.active_run = Some("digits-1".into())),
        names(["forget-digits", "same"])
    );
    assert_eq!(after(&|status| status.active_run = Some("digits-2".into())), names([]));
}

#[tokio::test]
async fn a_model_that_is_gone_or_listed_anew_wakes_its_requests_though_it_is_as_it_was() {
    let model = model("digits", "standard", "digits-server");
    let mut told = LastTold::default();
    let mut after = |change| woken(|t, s| t.on_model(s, change, &mut told))[1].clone();
    let all = names(["forget-digits", "same"]);
    assert_eq!(after(Change::Applied(&model)), all);
    assert_eq!(after(Change::Deleted(&model)), all);
    assert_eq!(after(Change::Applied(&model)), all);
    assert_eq!(after(Change::Applied(&model)), names([]));
    assert_eq!(after(Change::Listed).len(), 3);
    assert_eq!(after(Change::Applied(&model)), all);
}

#[tokio::test]
async fn a_request_that_enters_the_queue_wakes_those_that_ask_for_the_same() {
    let mut waits = asked("forget-digits", "digits");
    let known = |type_: &str, status: &str| {
        let at = "2026-01-01T00:00:00Z";
        json!({"type": type_, "status": status, "reason": "R", "message": "", "lastTransitionTime": at})
    };
    let conditions = json!([known("Accepted", "True"), known("Scheduled", "Unknown")]);
    let status = UnlearnRequestStatus {
        conditions: serde_json::from_value(conditions).unwrap(),
        ..UnlearnRequestStatus::default()
    };
    waits.status = Some(status);
    let mut other = asked("other", "digits");
    let change = |waits: &UnlearnRequest, other: &UnlearnRequest| {
        let (waits, other): (Packed<_>, Packed<_>) = (waits.clone().into(), other.clone().into());
        woken_in(
            |stores, writers| {
                writers.requests.apply_watcher_event(&Event::Apply(other.clone()));
                stores.requests_by_model.hear(&stores.requests, &Change::Applied(&other));
            },
            |t, s| t.on_request(s, Change::Applied(&waits)),
        )[1]
        .clone()
    };
    assert_eq!(change(&waits, &other), names(["forget-digits", "other", "same"]));
    other.spec.targets[0].label = "5".into();
    assert_eq!(change(&waits, &other), names(["forget-digits", "same"]));
    other = asked("other", "faces");
    assert_eq!(change(&waits, &other), names(["forget-digits", "same"]));
}

#[tokio::test]
async fn after_a_new_list_everything_is_looked_at() {
    let woken = woken(|t, s| t.on_child::<Pod>(s, Change::Listed));
    let requests = names(["forget-digits", "forget-faces", "same"]);
    assert_eq!(woken, [names(["digits", "faces", "voices"]), requests, names(["digits-1"])]);
}
