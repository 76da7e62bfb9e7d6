//! Metrics that are read from the caches when they are scraped: a series is gone with its object.

use std::{collections::BTreeMap, sync::Arc, time::UNIX_EPOCH};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use lethe_api::{
    gate::{GateName, Verdict},
    v1alpha1::{
        ConditionType, DiffusionModel, DiffusionModelStatus, LedgerEntry, Mode, Reason, RequestPhase,
        RolloutState, UnlearnRequest, UnlearnRun,
    },
};
use lethe_core::kueue::is_in_a_queue;

use crate::{series::Family, stores::Stores, watchdog::Watchdog};

/// Reasons of what was judged and did not pass, and the verdicts that they speak of.
const NOT_PASSED: [(Reason, &str); 3] =
    [(Reason::GateFailed, "Fail"), (Reason::GateInconclusive, "Inconclusive"), (Reason::GateError, "Error")];

/// Reads the caches of every watched scope.
pub struct ObjectCollector {
    stores: Vec<Stores>,
    watchdog: Arc<Watchdog>,
}

struct Gauges {
    requests: Family<1>,
    due: Family<3>,
    gate_bound: Family<5>,
    gate_threshold: Family<5>,
    gates_not_passed: Family<5>,
    request_waiting: Family<3>,
    request_failed: Family<4>,
    served_gates: Family<4>,
    progress: Family<3>,
    ledger: Family<2>,
    compliant: Family<2>,
    drift: Family<2>,
    base: Family<2>,
    waiting: Family<2>,
    rollout: Family<3>,
    model_condition: Family<5>,
    run_condition: Family<6>,
    watch: Family<1>,
}

impl Gauges {
    fn new() -> Self {
        Self {
            requests: Family::new("lethe_requests", "Requests by phase.", ["phase"]),
            due: Family::new(
                "lethe_request_due_timestamp_seconds",
                "End of the legal term of a request that is neither fulfilled nor denied.",
                ["namespace", "model", "request"],
            ),
            gate_bound: Family::new(
                "lethe_gate_bound",
                "What the verdict of a gate on one target rests on.",
                ["namespace", "model", "request", "gate", "target"],
            ),
            gate_threshold: Family::new(
                "lethe_gate_threshold",
                "What the policy allows where lethe_gate_bound says what was found.",
                ["namespace", "model", "request", "gate", "target"],
            ),
            gates_not_passed: Family::new(
                "lethe_request_gates_not_passed",
                "Verdicts that keep a request from being rolled out, until it is tried again, given up or deleted.",
                ["namespace", "model", "request", "gate", "verdict"],
            ),
            request_waiting: Family::new(
                "lethe_request_waiting",
                "1 for a request that waits for its model, for its turn, or for a pod of its run to begin.",
                ["namespace", "model", "request"],
            ),
            request_failed: Family::new(
                "lethe_request_failed",
                "1 for a request of which an attempt came to nothing before it could be judged or served, and why.",
                ["namespace", "model", "request", "reason"],
            ),
            served_gates: Family::new(
                "lethe_model_gates_not_passed",
                "1 if the last audit of what a model serves came to this verdict, until another one passes.",
                ["namespace", "model", "gate", "verdict"],
            ),
            progress: Family::new(
                "lethe_run_progress_ratio",
                "How much of its present stage a run has done, from 0 to 1.",
                ["namespace", "model", "run"],
            ),
            ledger: Family::new(
                "lethe_ledger_entries",
                "Requests that a model has honoured and goes on honouring.",
                ["namespace", "model"],
            ),
            compliant: Family::new(
                "lethe_model_compliant",
                "0 if the model may serve what it had to forget.",
                ["namespace", "model"],
            ),
            drift: Family::new(
                "lethe_served_digest_drift",
                "1 if what is served is not what should be.",
                ["namespace", "model"],
            ),
            base: Family::new(
                "lethe_base_refused",
                "1 if the base that a model names is not in service and will not be by itself.",
                ["namespace", "model"],
            ),
            waiting: Family::new(
                "lethe_rollout_waits_for_people",
                "1 if a step of a roll-out waits for somebody's approval.",
                ["namespace", "model"],
            ),
            rollout: Family::new(
                "lethe_model_rollout",
                "1 for the state in which a roll-out is that is under way.",
                ["namespace", "model", "state"],
            ),
            model_condition: Family::new(
                "lethe_model_condition",
                "1 for each condition of a model, by how it stands and why.",
                ["namespace", "model", "type", "status", "reason"],
            ),
            run_condition: Family::new(
                "lethe_run_condition",
                "1 for the condition Ready of a run that is not over, and for Signed where nothing is signed.",
                ["namespace", "model", "run", "type", "status", "reason"],
            ),
            watch: Family::new(
                "lethe_watch_last_event_timestamp_seconds",
                "Last sign of life of the quietest watch of a kind.",
                ["kind"],
            ),
        }
    }

    fn write_to(self, text: &mut String) {
        self.requests.write_to(text);
        self.due.write_to(text);
        self.gate_bound.write_to(text);
        self.gate_threshold.write_to(text);
        self.gates_not_passed.write_to(text);
        self.request_waiting.write_to(text);
        self.request_failed.write_to(text);
        self.served_gates.write_to(text);
        self.progress.write_to(text);
        self.ledger.write_to(text);
        self.compliant.write_to(text);
        self.drift.write_to(text);
        self.base.write_to(text);
        self.waiting.write_to(text);
        self.rollout.write_to(text);
        self.model_condition.write_to(text);
        self.run_condition.write_to(text);
        self.watch.write_to(text);
    }

    fn request(&mut self, request: &UnlearnRequest, ledger: &[LedgerEntry]) {
        let status = request.status.as_ref();
        let phase = phase_of(request);
        let (namespace, name) = (request.namespace().unwrap_or_default(), request.name_any());
        let object = [&*namespace, request.spec.model_ref.name.as_str(), &*name];
        let open = !matches!(phase, RequestPhase::Fulfilled | RequestPhase::Tried | RequestPhase::Denied);
        if let (Some(due), true) = (status.and_then(|status| status.due_at.as_ref()), open) {
            self.due.add(object, due.0.as_second() as f64);
        }
        let conditions = status.map(|status| &status.conditions[..]).unwrap_or_default();
        if waits(phase, conditions) {
            self.request_waiting.add(object, 1.);
        }
        let [namespace, model, name] = object;
        let failed = ConditionType::Ready.find(conditions).filter(|_| phase == RequestPhase::Failed);
        if let (Some(failed), Mode::Enforce) = (failed, request.spec.mode) {
            self.request_failed.add([namespace, model, name, &known(&failed.reason)], 1.);
        }
        for ((gate, verdict), count) in not_passed(request, conditions) {
            self.gates_not_passed.add([namespace, model, name, gate, &verdict], f64::from(count));
        }
        self.measured(object, request, ledger);
    }

    /// What was found of each target. Labels come from what people wrote, never from what a trainer said.
    fn measured(
        &mut self,
        [namespace, model, request]: [&str; 3],
        of: &UnlearnRequest,
        ledger: &[LedgerEntry],
    ) {
        let number = |text: &Option<String>| text.as_ref().and_then(|text| text.parse().ok());
        let mut found: BTreeMap<_, (f64, Option<f64>)> = BTreeMap::new();
        for gate in of.status.iter().flat_map(|status| &status.gates) {
            let Some(target) = &gate.target else { continue };
            let is_known = of.spec.targets.iter().any(|t| t.label == *target)
                || ledger.iter().any(|entry| entry.targets.contains(target));
            if let (true, Some(bound)) = (is_known, number(&gate.bound)) {
                found.insert((gate.name.as_str(), target.as_str()), (bound, number(&gate.threshold)));
            }
        }
        for ((gate, target), (bound, threshold)) in found {
            let labels = [namespace, model, request, gate, target];
            self.gate_bound.add(labels, bound);
            if let Some(threshold) = threshold {
                self.gate_threshold.add(labels, threshold);
            }
        }
    }

    fn run(&mut self, run: &UnlearnRun) {
        let Some(status) = &run.status else { return };
        self.run_waits(run, &status.conditions);
        let Some(progress) = status.progress.as_ref().filter(|progress| progress.total > 0) else { return };
        if ConditionType::Ready.is_decided(&status.conditions) || status.verdict.is_some() {
            return;
        }
        let done = progress.step as f64 / progress.total as f64;
        let (namespace, name) = (run.namespace().unwrap_or_default(), run.name_any());
        self.progress.add([&namespace, &run.spec.model, &name], done.min(1.));
    }

    /// A run that is over waits for nothing, but for a signature: whatever came of it is to be signed.
    fn run_waits(&mut self, run: &UnlearnRun, conditions: &[Condition]) {
        for (type_, waiting) in [(ConditionType::Ready, "Unknown"), (ConditionType::Signed, "False")] {
            let Some(found) = type_.find(conditions).filter(|found| found.status == waiting) else {
                continue;
            };
            let (namespace, name) = (run.namespace().unwrap_or_default(), run.name_any());
            let labels = [&namespace, &run.spec.model, &name, type_.as_str(), waiting, &known(&found.reason)];
            self.run_condition.add(labels, 1.);
        }
    }

    fn model_conditions(&mut self, [namespace, model]: [&str; 2], status: &DiffusionModelStatus) {
        use ConditionType::{Audited, BaseInService, Compliant, Prepared, Ready, Serving};
        for type_ in [Prepared, Serving, Compliant, Audited, BaseInService, Ready] {
            let Some(found) = type_.find(&status.conditions) else { continue };
            let labels = [namespace, model, type_.as_str(), &found.status, &known(&found.reason)];
            self.model_condition.add(labels, 1.);
        }
        let now = status.rollout.as_ref().map(|rollout| rollout.state);
        for state in RolloutState::ALL.into_iter().filter(|state| state.is_under_way()) {
            let value = f64::from(u8::from(now == Some(state)));
            self.rollout.add([namespace, model, &format!("{state:?}")], value);
        }
    }

    /// What the last audit says of what should be served, and, where nothing compliant can be, of what was.
    fn audited(&mut self, [namespace, model]: [&str; 2], status: &DiffusionModelStatus) {
        let last = status.ledger.last().map(|entry| &entry.digest);
        let wanted = status.compliant.as_ref().map(|compliant| &compliant.digest).or(last);
        let audit = status.audit.as_ref().filter(|audit| Some(&audit.digest) == wanted);
        let compliant = ConditionType::Compliant.find(&status.conditions).filter(|c| c.status == "False");
        let refuted = compliant.and_then(|compliant| verdict_of(&compliant.reason));
        for (_, verdict) in NOT_PASSED {
            let is_found = audit.is_some_and(|audit| format!("{:?}", audit.verdict) == verdict);
            let value = f64::from(u8::from(is_found || refuted == Some(verdict)));
            let labels = [namespace, model, GateName::ServedLeak.as_str(), verdict];
            self.served_gates.add(labels, value);
        }
    }

    fn model(&mut self, model: &DiffusionModel) {
        let Some(status) = model.seen() else { return };
        let (namespace, name) = (model.namespace().unwrap_or_default(), model.name_any());
        let labels = [&*namespace, &*name];
        self.ledger.add(labels, status.ledger.len() as f64);
        // A condition that nobody has set yet is no reason to wake anybody.
        if let Some(compliant) = ConditionType::Compliant.find(&status.conditions) {
            let value = f64::from(u8::from(compliant.status != "False"));
            self.compliant.add(labels, value);
        }
        self.audited(labels, status);
        self.model_conditions(labels, status);
        let serving = ConditionType::Serving.find(&status.conditions);
        let serving_is = |reasons: &[Reason]| {
            let is_one = |c: &Condition| reasons.iter().any(|reason| c.reason == reason.to_string());
            f64::from(u8::from(serving.is_some_and(|c| c.status != "True" && is_one(c))))
        };
        let drifted = serving_is(&[Reason::Drifted, Reason::DigestMismatch]);
        self.drift.add(labels, drifted);
        let people = [
            Reason::WaitingForApproval,
            Reason::WaitingForPromotion,
            Reason::RequesterUnknown,
            Reason::ApprovalsNotProtected,
        ];
        self.waiting.add(labels, serving_is(&people));
        let refused = ConditionType::BaseInService.is_false(&status.conditions);
        self.base.add(labels, f64::from(u8::from(refused)));
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
    pub fn new(stores: Vec<Stores>, watchdog: Arc<Watchdog>) -> Self {
        Self { stores, watchdog }
    }

    /// What there is of the objects, in the text format of Prometheus.
    pub fn write_to(&self, text: &mut String) {
        let mut gauges = Gauges::new();
        self.fill(&mut gauges);
        gauges.write_to(text);
    }

    fn fill(&self, gauges: &mut Gauges) {
        let mut phases: BTreeMap<String, u32> =
            RequestPhase::ALL.map(|phase| (format!("{phase:?}"), 0)).into();
        for stores in &self.stores {
            for request in stores.requests.state().iter().map(|request| request.open()) {
                *phases.entry(format!("{:?}", phase_of(&request))).or_default() += 1;
                let model =
                    stores.model(&request.namespace().unwrap_or_default(), &request.spec.model_ref.name);
                let ledger = model.as_ref().and_then(|m| m.status.as_ref()).map(|s| s.ledger.as_slice());
                gauges.request(&request, ledger.unwrap_or_default());
            }
            stores.models.state().iter().for_each(|model| gauges.model(model));
            let at_work = stores.runs.state_filter(|run| !run.index.is_settled);
            at_work.iter().for_each(|run| gauges.run(&run.open()));
        }
        for (phase, count) in phases {
            gauges.requests.add([&phase], f64::from(count));
        }
        for (resource, time) in self.watchdog.by_resource() {
            let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
            gauges.watch.add([&resource], seconds);
        }
    }
}

fn phase_of(request: &UnlearnRequest) -> RequestPhase {
    request.status.as_ref().and_then(|status| status.phase).unwrap_or(RequestPhase::Pending)
}

/// How often each gate of a request came to each verdict that keeps it from being rolled out.
fn not_passed(request: &UnlearnRequest, conditions: &[Condition]) -> BTreeMap<(&'static str, String), u32> {
    let mut counts = BTreeMap::new();
    // It went back for what the live server showed.
    let refuted = ConditionType::Promoted.find(conditions).filter(|c| c.status == "False");
    if let Some(verdict) = refuted.and_then(|promoted| verdict_of(&promoted.reason)) {
        counts.insert((GateName::ServedLeak.as_str(), verdict.to_owned()), 1);
    }
    // What a pilot finds wakes nobody.
    if request.spec.mode != Mode::Enforce || !ConditionType::GatesPassed.is_false(conditions) {
        return counts;
    }
    let gates = request.status.iter().flat_map(|status| &status.gates);
    for gate in gates.filter(|gate| gate.verdict != Verdict::Pass) {
        *counts.entry((gate.name.as_str(), format!("{:?}", gate.verdict))).or_default() += 1;
    }
    counts
}
