//! Metrics that are read from the caches when they are scraped: a series is gone with its object.

use std::{sync::Arc, time::UNIX_EPOCH};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use lethe_api::{
    gate::{GateName, GateResult, Verdict},
    v1alpha1::{
        ConditionType, DiffusionModel, DiffusionModelStatus, LedgerEntry, Mode, Reason, RequestPhase,
        UnlearnRequest, UnlearnRun,
    },
};
use lethe_core::kueue::is_in_a_queue;
use prometheus::{
    GaugeVec, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use crate::{stores::Stores, watchdog::Watchdog};

/// Reasons of what was judged and did not pass, and the verdicts that they speak of.
const NOT_PASSED: [(Reason, &str); 3] =
    [(Reason::GateFailed, "Fail"), (Reason::GateInconclusive, "Inconclusive"), (Reason::GateError, "Error")];

/// Reads the caches of every watched scope.
pub struct ObjectCollector {
    stores: Vec<Stores>,
    watchdog: Arc<Watchdog>,
    /// Descriptions only. The values of a scrape are put into a copy that has none.
    empty: Gauges,
}

struct Gauges {
    requests: GaugeVec,
    due: GaugeVec,
    gate_bound: GaugeVec,
    gate_threshold: GaugeVec,
    gates_not_passed: GaugeVec,
    request_waiting: GaugeVec,
    served_gates: GaugeVec,
    progress: GaugeVec,
    ledger: GaugeVec,
    compliant: GaugeVec,
    drift: GaugeVec,
    base: GaugeVec,
    waiting: GaugeVec,
    watch: GaugeVec,
}

impl Gauges {
    fn new() -> prometheus::Result<Self> {
        let gauges = |name: &str, help: &str, labels: &[&str]| GaugeVec::new(Opts::new(name, help), labels);
        Ok(Self {
            requests: gauges("lethe_requests", "Requests by phase.", &["phase"])?,
            due: gauges(
                "lethe_request_due_timestamp_seconds",
                "End of the legal term of a request that is neither fulfilled nor denied.",
                &["namespace", "model", "request"],
            )?,
            gate_bound: gauges(
                "lethe_gate_bound",
                "What the verdict of a gate on one target rests on.",
                &["namespace", "model", "request", "gate", "target"],
            )?,
            gate_threshold: gauges(
                "lethe_gate_threshold",
                "What the policy allows where lethe_gate_bound says what was found.",
                &["namespace", "model", "request", "gate", "target"],
            )?,
            gates_not_passed: gauges(
                "lethe_request_gates_not_passed",
                "Verdicts that keep a request from being rolled out, until it is tried again, given up or deleted.",
                &["namespace", "model", "request", "gate", "verdict"],
            )?,
            request_waiting: gauges(
                "lethe_request_waiting",
                "1 for a request that waits for its model, for its turn, or for a pod of its run to begin.",
                &["namespace", "model", "request"],
            )?,
            served_gates: gauges(
                "lethe_model_gates_not_passed",
                "1 if the last audit of what a model serves came to this verdict, until another one passes.",
                &["namespace", "model", "gate", "verdict"],
            )?,
            progress: gauges(
                "lethe_run_progress_ratio",
                "How much of its present stage a run has done, from 0 to 1.",
                &["namespace", "model", "run"],
            )?,
            ledger: gauges(
                "lethe_ledger_entries",
                "Requests that a model has honoured and goes on honouring.",
                &["namespace", "model"],
            )?,
            compliant: gauges(
                "lethe_model_compliant",
                "0 if the model may serve what it had to forget.",
                &["namespace", "model"],
            )?,
            drift: gauges(
                "lethe_served_digest_drift",
                "1 if what is served is not what should be.",
                &["namespace", "model"],
            )?,
            base: gauges(
                "lethe_base_refused",
                "1 if the base that a model names is not in service and will not be by itself.",
                &["namespace", "model"],
            )?,
            waiting: gauges(
                "lethe_rollout_waits_for_people",
                "1 if a step of a roll-out waits for somebody's approval.",
                &["namespace", "model"],
            )?,
            watch: gauges(
                "lethe_watch_last_event_timestamp_seconds",
                "Last sign of life of the quietest watch of a kind.",
                &["kind"],
            )?,
        })
    }

    fn all(&self) -> [&GaugeVec; 14] {
        let Self { requests, due, gate_bound, gate_threshold, gates_not_passed, request_waiting, .. } = self;
        let Self { progress, served_gates, ledger, compliant, drift, base, waiting, watch, .. } = self;
        let [a, b, c, d, e, f] =
            [requests, due, gate_bound, gate_threshold, gates_not_passed, request_waiting];
        [a, b, c, d, e, f, progress, served_gates, ledger, compliant, drift, base, waiting, watch]
    }

    fn request(&self, request: &UnlearnRequest, ledger: &[LedgerEntry]) {
        let status = request.status.as_ref();
        let phase = status.and_then(|status| status.phase).unwrap_or(RequestPhase::Pending);
        self.requests.with_label_values(&[&format!("{phase:?}")]).inc();
        let (namespace, name) = (request.namespace().unwrap_or_default(), request.name_any());
        let model = request.spec.model_ref.name.as_str();
        let open = !matches!(phase, RequestPhase::Fulfilled | RequestPhase::Tried | RequestPhase::Denied);
        if let (Some(due), true) = (status.and_then(|status| status.due_at.as_ref()), open) {
            let seconds = due.0.as_second() as f64;
            self.due.with_label_values(&[&namespace, model, &name]).set(seconds);
        }
        let conditions = status.map(|status| &status.conditions[..]).unwrap_or_default();
        if waits(phase, conditions) {
            self.request_waiting.with_label_values(&[&namespace, model, &name]).set(1.);
        }
        // It went back for what the live server showed.
        let refuted = ConditionType::Promoted.find(conditions).filter(|c| c.status == "False");
        if let Some(verdict) = refuted.and_then(|promoted| verdict_of(&promoted.reason)) {
            let gate = GateName::ServedLeak.as_str();
            self.gates_not_passed.with_label_values(&[&namespace, model, &name, gate, verdict]).set(1.);
        }
        // What a pilot finds wakes nobody.
        let is_held = request.spec.mode == Mode::Enforce && ConditionType::GatesPassed.is_false(conditions);
        for gate in status.iter().flat_map(|status| &status.gates) {
            let (object, name_of_gate) = ([&*namespace, model, &*name], gate.name.as_str());
            if is_held && gate.verdict != Verdict::Pass {
                let [namespace, model, name] = object;
                let labels = [namespace, model, name, name_of_gate, &format!("{:?}", gate.verdict)];
                self.gates_not_passed.with_label_values(&labels).inc();
            }
            let Some(target) = &gate.target else { continue };
            // Labels come from what people wrote, never from what a trainer said.
            let is_known = request.spec.targets.iter().any(|t| t.label == *target)
                || ledger.iter().any(|entry| entry.targets.contains(target));
            if is_known {
                self.measured(object, gate, target);
            }
        }
    }

    fn measured(&self, [namespace, model, request]: [&str; 3], gate: &GateResult, target: &str) {
        let labels = [namespace, model, request, gate.name.as_str(), target];
        let number = |text: &Option<String>| text.as_ref().and_then(|text| text.parse().ok());
        if let Some(bound) = number(&gate.bound) {
            self.gate_bound.with_label_values(&labels).set(bound);
            if let Some(threshold) = number(&gate.threshold) {
                self.gate_threshold.with_label_values(&labels).set(threshold);
            }
        }
    }

    fn run(&self, run: &UnlearnRun) {
        let Some(status) = &run.status else { return };
        let Some(progress) = status.progress.as_ref().filter(|progress| progress.total > 0) else { return };
        if ConditionType::Ready.is_decided(&status.conditions) || status.verdict.is_some() {
            return;
        }
        let labels = [&run.namespace().unwrap_or_default(), &run.spec.model, &run.name_any()];
        let done = progress.step as f64 / progress.total as f64;
        self.progress.with_label_values(&labels).set(done.min(1.));
    }

    /// What the last audit says of what should be served, and, where nothing compliant can be, of what was.
    fn audited(&self, [namespace, model]: &[String; 2], status: &DiffusionModelStatus) {
        let last = status.ledger.last().map(|entry| &entry.digest);
        let wanted = status.compliant.as_ref().map(|compliant| &compliant.digest).or(last);
        let audit = status.audit.as_ref().filter(|audit| Some(&audit.digest) == wanted);
        let compliant = ConditionType::Compliant.find(&status.conditions).filter(|c| c.status == "False");
        let refuted = compliant.and_then(|compliant| verdict_of(&compliant.reason));
        for (_, verdict) in NOT_PASSED {
            let is_found = audit.is_some_and(|audit| format!("{:?}", audit.verdict) == verdict);
            let value = f64::from(u8::from(is_found || refuted == Some(verdict)));
            let labels = [namespace, model, GateName::ServedLeak.as_str(), verdict];
            self.served_gates.with_label_values(&labels).set(value);
        }
    }

    fn model(&self, model: &DiffusionModel) {
        let Some(status) = &model.status else { return };
        let labels = [model.namespace().unwrap_or_default(), model.name_any()];
        self.ledger.with_label_values(&labels).set(status.ledger.len() as f64);
        // A condition that nobody has set yet is no reason to wake anybody.
        if let Some(compliant) = ConditionType::Compliant.find(&status.conditions) {
            let value = f64::from(u8::from(compliant.status != "False"));
            self.compliant.with_label_values(&labels).set(value);
        }
        self.audited(&labels, status);
        let serving = ConditionType::Serving.find(&status.conditions);
        let serving_is = |reasons: &[Reason]| {
            let is_one = |c: &Condition| reasons.iter().any(|reason| c.reason == reason.to_string());
            f64::from(u8::from(serving.is_some_and(|c| c.status != "True" && is_one(c))))
        };
        let drifted = serving_is(&[Reason::Drifted, Reason::DigestMismatch]);
        self.drift.with_label_values(&labels).set(drifted);
        let people = [
            Reason::WaitingForApproval,
            Reason::WaitingForPromotion,
            Reason::RequesterUnknown,
            Reason::ApprovalsNotProtected,
        ];
        self.waiting.with_label_values(&labels).set(serving_is(&people));
        let refused = ConditionType::BaseInService.is_false(&status.conditions);
        self.base.with_label_values(&labels).set(f64::from(u8::from(refused)));
    }
}

/// Whether a request of this phase waits for something else than people, and nothing is done for it.
fn waits(phase: RequestPhase, conditions: &[Condition]) -> bool {
    use Reason::{
        BadConfiguration, ImageUnavailable, PodNotCreated, PodNotStarted, Suspended, Unschedulable,
    };
    let no_pod = [BadConfiguration, ImageUnavailable, PodNotCreated, PodNotStarted, Suspended, Unschedulable];
    let ready = ConditionType::Ready.find(conditions);
    match phase {
        RequestPhase::Pending | RequestPhase::Queued => true,
        RequestPhase::Training | RequestPhase::Evaluating => ready.is_some_and(|ready| {
            is_in_a_queue(ready) || no_pod.iter().any(|reason| reason.to_string() == ready.reason)
        }),
        _ => false,
    }
}

/// The verdict that a reason speaks of.
fn verdict_of(reason: &str) -> Option<&'static str> {
    NOT_PASSED.iter().find(|(known, _)| known.to_string() == reason).map(|(_, verdict)| *verdict)
}

impl ObjectCollector {
    pub fn new(stores: Vec<Stores>, watchdog: Arc<Watchdog>) -> prometheus::Result<Self> {
        Ok(Self { stores, watchdog, empty: Gauges::new()? })
    }

    fn fill(&self, gauges: &Gauges) {
        for phase in RequestPhase::ALL {
            gauges.requests.with_label_values(&[&format!("{phase:?}")]).set(0.);
        }
        for stores in &self.stores {
            for request in stores.requests.state() {
                let model =
                    stores.model(&request.namespace().unwrap_or_default(), &request.spec.model_ref.name);
                let ledger = model.as_ref().and_then(|m| m.status.as_ref()).map(|s| s.ledger.as_slice());
                gauges.request(&request, ledger.unwrap_or_default());
            }
            stores.models.state().iter().for_each(|model| gauges.model(model));
            stores.runs.state().iter().for_each(|run| gauges.run(run));
        }
        for (resource, time) in self.watchdog.by_resource() {
            let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
            gauges.watch.with_label_values(&[resource]).set(seconds);
        }
    }
}

impl Collector for ObjectCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.empty.all().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // The names were accepted once, so they are again.
        let Ok(gauges) = Gauges::new() else { return Vec::new() };
        self.fill(&gauges);
        gauges.all().into_iter().flat_map(Collector::collect).filter(|f| !f.get_metric().is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use kube::{Client, Config};
    use kube_runtime::watcher::Event;
    use serde_json::json;

    use super::*;
    use crate::{metrics::Metrics, stores::Writers};

    /// A client that is never used: nothing here calls the API server.
    fn stores() -> (Stores, Writers) {
        let config = Config::new("http://127.0.0.1:1".parse().unwrap());
        Stores::new(Client::try_from(config).unwrap())
    }

    fn request(phase: &str) -> UnlearnRequest {
        request_called("forget-three", phase)
    }

    fn request_called(name: &str, phase: &str) -> UnlearnRequest {
        let passed = if phase == "Held" { "False" } else { "True" };
        serde_json::from_value(json!({
            "apiVersion": "lethe.dev/v1alpha1", "kind": "UnlearnRequest",
            "metadata": {"name": name, "namespace": "studio"},
            "spec": {
                "modelRef": {"name": "digits"}, "targets": [{"label": "3"}],
                "override": {"strategy": "Fixed", "label": "8"},
            },
            "status": {
                "phase": phase, "dueAt": "2026-12-20T09:00:00Z",
                "gates": [
                    {"name": "direct-leak", "target": "3", "bound": "0.0021", "threshold": "0.005", "verdict": "Pass"},
                    {"name": "direct-leak", "target": "from a trainer", "bound": "1", "verdict": "Fail"},
                    {"name": "hygiene", "verdict": "Fail"},
                ],
                "conditions": [{
                    "type": "GatesPassed", "status": passed, "reason": "GateFailed", "message": "",
                    "lastTransitionTime": "2026-12-20T09:00:00Z",
                }],
            },
        }))
        .unwrap()
    }

    #[tokio::test]
    async fn series_are_gone_with_their_object() {
        let (stores, mut writers) = stores();
        let metrics = Metrics::new().unwrap();
        metrics.register(ObjectCollector::new(vec![stores], Arc::new(Watchdog::new(200))).unwrap()).unwrap();
        let bound = "lethe_gate_bound{gate=\"direct-leak\",model=\"digits\",namespace=\"studio\",\
            request=\"forget-three\",target=\"3\"} 0.0021\n";
        let due = "lethe_request_due_timestamp_seconds{model=\"digits\"";
        let held = "lethe_request_gates_not_passed{gate=\"hygiene\",model=\"digits\",namespace=\"studio\",\
            request=\"forget-three\",verdict=\"Fail\"} 1\n";
        let allowed = "lethe_gate_threshold{gate=\"direct-leak\",model=\"digits\",namespace=\"studio\",\
            request=\"forget-three\",target=\"3\"} 0.005\n";

        writers.requests.apply_watcher_event(&Event::Apply(request("Held")));
        let text = metrics.render().unwrap();
        assert!(text.contains(bound) && text.contains(due), "{text}");
        assert!(text.contains("lethe_requests{phase=\"Held\"} 1\n"), "{text}");
        assert!(text.contains(held) && text.contains(allowed), "{text}");
        assert!(!text.contains("from a trainer"), "{text}");

        writers.requests.apply_watcher_event(&Event::Apply(request("Fulfilled")));
        let text = metrics.render().unwrap();
        assert!(text.contains(bound) && !text.contains(due), "{text}");
        assert!(!text.contains("lethe_request_gates_not_passed"), "it is answered: {text}");

        writers.requests.apply_watcher_event(&Event::Delete(request("Fulfilled")));
        let text = metrics.render().unwrap();
        assert!(!text.contains("lethe_gate_bound"), "{text}");
        assert!(text.contains("lethe_requests{phase=\"Held\"} 0\n"), "{text}");
    }

    #[tokio::test]
    async fn a_request_waits_in_the_queue_and_for_the_pod_of_its_run_and_not_while_one_works() {
        let (stores, mut writers) = stores();
        let metrics = Metrics::new().unwrap();
        metrics.register(ObjectCollector::new(vec![stores], Arc::new(Watchdog::new(200))).unwrap()).unwrap();
        let cases = [
            ("Pending", "ModelNotFound", true),
            ("Queued", "WaitingForRun", true),
            ("Training", "Training", false),
            ("Training", "Suspended", true),
            ("Training", "WaitingForQuota", true),
            ("Evaluating", "Preempted", true),
            ("Training", "Inadmissible", true),
            ("Training", "NotQueued", true),
            ("Evaluating", "Unschedulable", true),
            ("AwaitingApproval", "WaitingForApproval", false),
            ("Held", "GateFailed", false),
        ];
        for (phase, reason, is_shown) in cases {
            let mut request = request(phase);
            let ready = json!({
                "type": "Ready", "status": "Unknown", "reason": reason, "message": "",
                "lastTransitionTime": "2026-12-20T09:00:00Z",
            });
            request.status.as_mut().unwrap().conditions.push(serde_json::from_value(ready).unwrap());
            writers.requests.apply_watcher_event(&Event::Apply(request));
            let text = metrics.render().unwrap();
            let line =
                "lethe_request_waiting{model=\"digits\",namespace=\"studio\",request=\"forget-three\"} 1\n";
            assert_eq!(text.contains(line), is_shown, "{phase} {reason}: {text}");
        }
    }

    #[tokio::test]
    async fn a_live_server_that_leaks_is_said_of_its_model_until_an_audit_passes_and_of_what_went_back() {
        let (stores, mut writers) = stores();
        let metrics = Metrics::new().unwrap();
        metrics.register(ObjectCollector::new(vec![stores], Arc::new(Watchdog::new(200))).unwrap()).unwrap();
        let (served, other) = (lethe_api::Digest::of("served"), lethe_api::Digest::of("other"));
        let line = "lethe_model_gates_not_passed{gate=\"served-leak\",model=\"digits\",namespace=\"studio\",\
            verdict=\"Fail\"}";
        for (digest, verdict, value) in
            [(&served, "Fail", 1), (&served, "Pass", 0), (&served, "Inconclusive", 0), (&other, "Fail", 0)]
        {
            let base = json!({"uri": "file:///b", "digest": lethe_api::Digest::of(b"")});
            let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "digits"});
            let audit = json!({"run": "digits-2", "digest": digest, "verdict": verdict, "at": "2026-12-20T09:00:00Z"});
            let compliant =
                json!({"digest": served, "base": lethe_api::Digest::of(b""), "run": "digits-1", "turn": 0});
            let model = serde_json::from_value(json!({
                "apiVersion": "lethe.dev/v1alpha1", "kind": "DiffusionModel",
                "metadata": {"name": "digits", "namespace": "studio"},
                "spec": {"base": base, "policyRef": {"name": "p"}, "serving": {"target": target, "container": "c"}},
                "status": {"audit": audit, "compliant": compliant},
            }))
            .unwrap();
            writers.models.apply_watcher_event(&Event::Apply(model));
            let text = metrics.render().unwrap();
            assert!(text.contains(&format!("{line} {value}\n")), "{verdict}: {text}");
        }
        let mut back = request("Failed");
        let promoted = json!({
            "type": "Promoted", "status": "False", "reason": "GateFailed", "message": "",
            "lastTransitionTime": "2026-12-20T09:00:00Z",
        });
        back.status.as_mut().unwrap().conditions.push(serde_json::from_value(promoted).unwrap());
        writers.requests.apply_watcher_event(&Event::Apply(back));
        let line = "lethe_request_gates_not_passed{gate=\"served-leak\",model=\"digits\",namespace=\"studio\",\
            request=\"forget-three\",verdict=\"Fail\"} 1\n";
        let text = metrics.render().unwrap();
        assert!(text.contains(line), "{text}");
    }

    #[tokio::test]
    async fn how_far_a_run_is_is_seen_until_it_is_over() {
        let (stores, mut writers) = stores();
        let metrics = Metrics::new().unwrap();
        metrics.register(ObjectCollector::new(vec![stores], Arc::new(Watchdog::new(200))).unwrap()).unwrap();
        for (verdict, is_shown) in [(None, true), (Some("Pass"), false)] {
            let run = serde_json::from_value(json!({
                "apiVersion": "lethe.dev/v1alpha1", "kind": "UnlearnRun",
                "metadata": {"name": "digits-1", "namespace": "studio"},
                "spec": {
                    "model": "digits", "type": "Forget", "plan": "{}", "planDigest": lethe_api::Digest::of(b""),
                    "policy": {"trainer": {"image": "x"}, "gates": []},
                },
                "status": {"progress": {"stage": "forget", "step": 125, "total": 500}, "verdict": verdict},
            }))
            .unwrap();
            writers.runs.apply_watcher_event(&Event::Apply(run));
            let text = metrics.render().unwrap();
            let line =
                "lethe_run_progress_ratio{model=\"digits\",namespace=\"studio\",run=\"digits-1\"} 0.25\n";
            assert_eq!(text.contains(line), is_shown, "{text}");
        }
    }

    #[tokio::test]
    async fn a_step_that_waits_for_people_is_seen_and_a_roll_out_that_goes_on_is_not() {
        let (stores, mut writers) = stores();
        let metrics = Metrics::new().unwrap();
        metrics.register(ObjectCollector::new(vec![stores], Arc::new(Watchdog::new(200))).unwrap()).unwrap();
        for (reason, waits) in [("WaitingForApproval", 1), ("WaitingForPromotion", 1), ("RollingOut", 0)] {
            let model = serde_json::from_value(json!({
                "apiVersion": "lethe.dev/v1alpha1", "kind": "DiffusionModel",
                "metadata": {"name": "digits", "namespace": "studio"},
                "spec": {
                    "base": {"uri": "file:///b", "digest": lethe_api::Digest::of(b"")}, "policyRef": {"name": "standard"},
                    "serving": {
                        "target": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "digits"}, "container": "server",
                    },
                },
                "status": {"conditions": [{
                    "type": "Serving", "status": "Unknown", "reason": reason, "message": "",
                    "lastTransitionTime": "2026-12-20T09:00:00Z",
                }]},
            }))
            .unwrap();
            writers.models.apply_watcher_event(&Event::Apply(model));
            let text = metrics.render().unwrap();
            let line =
                format!("lethe_rollout_waits_for_people{{model=\"digits\",namespace=\"studio\"}} {waits}\n");
            assert!(text.contains(&line), "{text}");
        }
    }
}
