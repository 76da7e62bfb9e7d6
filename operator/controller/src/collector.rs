//! Metrics that are read from the caches when they are scraped: a series is gone with its object.

use std::{sync::Arc, time::UNIX_EPOCH};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use lethe_api::{
    gate::{GateName, GateResult, Verdict},
    v1alpha1::{
        ConditionType, DiffusionModel, DiffusionModelStatus, LedgerEntry, Mode, Reason, RequestPhase,
        RolloutState, UnlearnRequest, UnlearnRun,
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
    request_failed: GaugeVec,
    served_gates: GaugeVec,
    progress: GaugeVec,
    ledger: GaugeVec,
    compliant: GaugeVec,
    drift: GaugeVec,
    base: GaugeVec,
    waiting: GaugeVec,
    rollout: GaugeVec,
    model_condition: GaugeVec,
    run_condition: GaugeVec,
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
            request_failed: gauges(
                "lethe_request_failed",
                "1 for a request of which an attempt came to nothing before it could be judged or served, and why.",
                &["namespace", "model", "request", "reason"],
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
            rollout: gauges(
                "lethe_model_rollout",
                "1 for the state in which a roll-out is that is under way.",
                &["namespace", "model", "state"],
            )?,
            model_condition: gauges(
                "lethe_model_condition",
                "1 for each condition of a model, by how it stands and why.",
                &["namespace", "model", "type", "status", "reason"],
            )?,
            run_condition: gauges(
                "lethe_run_condition",
                "1 for the condition Ready of a run that is not over, and for Signed where nothing is signed.",
                &["namespace", "model", "run", "type", "status", "reason"],
            )?,
            watch: gauges(
                "lethe_watch_last_event_timestamp_seconds",
                "Last sign of life of the quietest watch of a kind.",
                &["kind"],
            )?,
        })
    }

    fn all(&self) -> Vec<&GaugeVec> {
        let Self { requests, due, gate_bound, gate_threshold, gates_not_passed, request_waiting, .. } = self;
        let Self { progress, served_gates, ledger, compliant, drift, base, waiting, watch, .. } = self;
        let Self { request_failed, rollout, model_condition, run_condition, .. } = self;
        let of_requests = [requests, due, gate_bound, gate_threshold, gates_not_passed, request_waiting];
        let of_requests = of_requests.into_iter().chain([request_failed]);
        let of_models = [served_gates, ledger, compliant, drift, base, waiting, rollout, model_condition];
        of_requests.chain(of_models).chain([progress, run_condition, watch]).collect()
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
        let failed = ConditionType::Ready.find(conditions).filter(|_| phase == RequestPhase::Failed);
        if let (Some(failed), Mode::Enforce) = (failed, request.spec.mode) {
            let labels = [&namespace, model, &name, &known(&failed.reason)];
            self.request_failed.with_label_values(&labels).set(1.);
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
        self.run_waits(run, &status.conditions);
        let Some(progress) = status.progress.as_ref().filter(|progress| progress.total > 0) else { return };
        if ConditionType::Ready.is_decided(&status.conditions) || status.verdict.is_some() {
            return;
        }
        let labels = [&run.namespace().unwrap_or_default(), &run.spec.model, &run.name_any()];
        let done = progress.step as f64 / progress.total as f64;
        self.progress.with_label_values(&labels).set(done.min(1.));
    }

    /// A run that is over waits for nothing, but for a signature: whatever came of it is to be signed.
    fn run_waits(&self, run: &UnlearnRun, conditions: &[Condition]) {
        for (type_, waiting) in [(ConditionType::Ready, "Unknown"), (ConditionType::Signed, "False")] {
            let Some(found) = type_.find(conditions).filter(|found| found.status == waiting) else {
                continue;
            };
            let (namespace, name) = (run.namespace().unwrap_or_default(), run.name_any());
            let labels = [&namespace, &run.spec.model, &name, type_.as_str(), waiting, &known(&found.reason)];
            self.run_condition.with_label_values(&labels).set(1.);
        }
    }

    fn model_conditions(&self, [namespace, model]: &[String; 2], status: &DiffusionModelStatus) {
        use ConditionType::{Audited, BaseInService, Compliant, Prepared, Ready, Serving};
        for type_ in [Prepared, Serving, Compliant, Audited, BaseInService, Ready] {
            let Some(found) = type_.find(&status.conditions) else { continue };
            let labels = [namespace, model, type_.as_str(), &found.status, &known(&found.reason)];
            self.model_condition.with_label_values(&labels).set(1.);
        }
        let now = status.rollout.as_ref().map(|rollout| rollout.state);
        for state in RolloutState::ALL.into_iter().filter(|state| state.is_under_way()) {
            let value = f64::from(u8::from(now == Some(state)));
            self.rollout.with_label_values(&[namespace, model, &format!("{state:?}")]).set(value);
        }
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
        self.model_conditions(&labels, status);
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

/// A reason that there is, or nothing: labels come from closed sets, whoever wrote the status.
fn known(reason: &str) -> String {
    let known = serde_json::from_value::<Reason>(reason.into());
    known.map(|reason| reason.to_string()).unwrap_or_default()
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
            let at_work = stores.runs.state_filter(|run| !run.is_settled);
            at_work.iter().for_each(|run| gauges.run(&run.open()));
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
