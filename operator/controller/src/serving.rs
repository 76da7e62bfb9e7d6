//! What the pods of a serving target say they serve.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{Api, Client, ResourceExt, api::ListParams, core::Selector};
use lethe_api::{
    Digest,
    v1alpha1::{DiffusionModel, RolloutState, labels},
};
use lethe_core::rollout::PodReport;
use serde::Deserialize;

use crate::{calls, error::Result, probe::Prober};

/// A server describes its inputs and outputs there: a few kilobytes.
const MAX_METADATA: usize = 64 * 1024;
/// Pods that are asked at the same time.
const AT_ONCE: usize = 8;

/// The model metadata of the Open Inference Protocol, of which only the digest is of interest.
#[derive(Deserialize)]
struct Metadata {
    digest: Digest,
}

/// An answer counts as long, as long as nothing is heard of the Deployment: a run at work wakes its model every
/// few seconds.
const FRESH: Duration = Duration::from_secs(5);

/// Asks pods what they serve, and remembers the answers for a moment.
pub struct Inquiry {
    prober: Prober,
    /// By the uid of the model.
    answers: Mutex<HashMap<String, Answer>>,
}

struct Answer {
    at: Instant,
    /// The version of the Deployment whose pods were asked.
    target: Option<String>,
    reports: Vec<PodReport>,
}

impl Inquiry {
    pub fn new(prober: Prober) -> Self {
        Self { prober, answers: Mutex::default() }
    }

    /// What every pod of the target says that is ready. Afresh during a roll-out, which is decided by it.
    pub async fn reports(
        &self,
        client: &Client,
        model: &DiffusionModel,
        target: &Deployment,
    ) -> Result<Vec<PodReport>> {
        let uid = model.uid().unwrap_or_default();
        let rollout = model.status.as_ref().and_then(|status| status.rollout.as_ref());
        let decides =
            rollout.is_some_and(|it| matches!(it.state, RolloutState::Canary | RolloutState::Progressing));
        if let Some(known) = self.known(&uid, target).filter(|_| !decides) {
            return Ok(known);
        }
        let Some(selector) = selector(target) else { return Ok(Vec::new()) };
        let what = format!("list the pods of Deployment {:?}", target.name_any());
        let has_canary = rollout.is_some_and(|rollout| rollout.canary.is_some());
        let is_meant = |pod: &Pod| is_of_target(pod, has_canary);
        let reports = ask(client, &self.prober, model, what, &selector, is_meant).await?;
        let answer =
            Answer { at: Instant::now(), target: target.resource_version(), reports: reports.clone() };
        self.lock().insert(uid, answer);
        Ok(reports)
    }

    /// What every pod says that is ready and beside the target, whichever Deployment made it. Always afresh.
    pub async fn reports_beside(&self, client: &Client, model: &DiffusionModel) -> Result<Vec<PodReport>> {
        let own: BTreeMap<_, _> = [(labels::CANARY.to_owned(), model.name_any())].into();
        let what = format!("list the pods beside the serving target of {:?}", model.name_any());
        ask(client, &self.prober, model, what, &Selector::from_iter(own), |_| true).await
    }

    fn known(&self, uid: &str, target: &Deployment) -> Option<Vec<PodReport>> {
        let mut answers = self.lock();
        answers.retain(|_, answer| answer.at.elapsed() < FRESH);
        let answer = answers.get(uid)?;
        (answer.target == target.resource_version()).then(|| answer.reports.clone())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Answer>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks every pod that is meant and ready. They are listed afresh.
async fn ask(
    client: &Client,
    prober: &Prober,
    model: &DiffusionModel,
    what: String,
    selector: &Selector,
    is_meant: impl Fn(&Pod) -> bool,
) -> Result<Vec<PodReport>> {
    let namespace = model.namespace().unwrap_or_default();
    let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let what = format!("{what} in namespace {namespace}");
    let pods = calls::read(what, api.list(&ListParams::default().labels_from(selector))).await?;
    let serving = pods.items.into_iter().filter(|pod| is_ready(pod) && is_meant(pod));
    let port = model.spec.serving.port;
    let path = format!("/v2/models/{}", model.name_any());
    let asked = serving.map(|pod| {
        let path = path.clone();
        async move {
            let metadata: Result<Metadata, _> = prober.get(&pod, port, &path, MAX_METADATA).await;
            let digest = metadata.map(|m| m.digest).map_err(|e| format!("{path} of port {port}: {e}"));
            PodReport { pod: pod.name_any(), digest }
        }
    });
    let mut reports: Vec<_> = stream::iter(asked).buffer_unordered(AT_ONCE).collect().await;
    reports.sort_by(|a, b| a.pod.cmp(&b.pod));
    Ok(reports)
}

/// Whether what a pod with the target's labels says counts as what the target serves. Those of a canary that gets traffic have
/// these labels as well, and are no pods of it. Where there should be none, what they say counts as what users get.
fn is_of_target(pod: &Pod, has_canary: bool) -> bool {
    !(has_canary && pod.labels().contains_key(labels::CANARY))
}

/// The target's own selector; none if it has one that would select every pod.
fn selector(target: &Deployment) -> Option<Selector> {
    let selector = Selector::try_from(target.spec.as_ref()?.selector.clone()).ok()?;
    (!selector.selects_all()).then_some(selector)
}

/// A pod that gets traffic: ready, and not about to go.
fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"));
    ready && pod.metadata.deletion_timestamp.is_none()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(ready: &str, deleted: Option<&str>) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "digits-1", "deletionTimestamp": deleted},
            "status": {"conditions": [{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": ready}]},
        }))
        .unwrap()
    }

    #[test]
    fn only_a_pod_that_gets_traffic_is_asked() {
        assert!(is_ready(&pod("True", None)));
        assert!(!is_ready(&pod("False", None)));
        assert!(!is_ready(&pod("True", Some("2026-11-24T21:00:00Z"))));
        assert!(!is_ready(&Pod::default()));
    }

    #[test]
    fn a_canarys_pods_are_not_the_targets_but_where_there_should_be_none() {
        let of_canary: Pod = serde_json::from_value(
            json!({"metadata": {"labels": {labels::CANARY: "digits", "app": "digits"}}}),
        )
        .unwrap();
        let of_target: Pod =
            serde_json::from_value(json!({"metadata": {"labels": {"app": "digits"}}})).unwrap();
        assert!(is_of_target(&of_target, true) && is_of_target(&of_target, false));
        assert!(!is_of_target(&of_canary, true), "the share of the traffic that it gets is another's answer");
        assert!(is_of_target(&of_canary, false), "it was left behind and gets traffic");
    }

    #[test]
    fn an_answer_counts_for_the_version_of_the_deployment_that_was_asked() {
        let target = |version: &str| -> Deployment {
            serde_json::from_value(json!({"metadata": {"resourceVersion": version}})).unwrap()
        };
        let inquiry = Inquiry::new(Prober::new());
        let answer = |at| Answer { at, target: Some("7".into()), reports: Vec::new() };
        inquiry.lock().insert("uid".into(), answer(Instant::now()));
        assert!(inquiry.known("uid", &target("7")).is_some());
        assert!(inquiry.known("uid", &target("8")).is_none());
        assert!(inquiry.known("another", &target("7")).is_none());
        inquiry.lock().insert("uid".into(), answer(Instant::now() - FRESH));
        assert!(inquiry.known("uid", &target("7")).is_none());
        assert!(inquiry.lock().is_empty(), "an old answer is not kept");
    }

    #[test]
    fn a_target_without_a_selector_has_no_pods() {
        let target = |selector| -> Deployment {
            serde_json::from_value(json!({"metadata": {}, "spec": {"selector": selector, "template": {}}}))
                .unwrap()
        };
        let labels = selector(&target(json!({"matchLabels": {"app": "digits"}}))).map(|s| s.to_string());
        assert_eq!(labels.as_deref(), Some("app=digits"));
        assert!(selector(&target(json!({}))).is_none());
        assert!(selector(&Deployment::default()).is_none());
    }
}
