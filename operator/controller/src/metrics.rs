//! What the process counts. What can be read from the objects themselves is in [`crate::collector`].
//!
//! Every label takes its values from a closed set, or is the name of an object and gone with it.

use std::{sync::OnceLock, time::Duration};

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use lethe_api::v1alpha1::{
    ConditionType, DiffusionModel, GateName, Mode, Stage, UnlearnRequest, UnlearnRequestStatus, UnlearnRun,
    UnlearnRunStatus, Verdict,
};
use prometheus::{
    Counter, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder, core::Collector, process_collector::ProcessCollector,
};

use crate::{collector::ObjectCollector, controller::Kind, error::Category};

/// From a smoke test's seconds to a night of training.
const RUN_SECONDS: [f64; 12] =
    [5., 15., 30., 60., 120., 300., 600., 1_800., 3_600., 10_800., 36_000., 86_400.];
/// From minutes to the longest legal term.
const REQUEST_SECONDS: [f64; 9] =
    [60., 600., 3_600., 4. * 3_600., DAY, 3. * DAY, 7. * DAY, 14. * DAY, 30. * DAY];
const DAY: f64 = 86_400.;
/// From a look that finds nothing to do to one that waits for an API server that does not answer.
const RECONCILE_SECONDS: [f64; 14] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1., 5., 10., 60.];

/// From a disk that is at hand to a bucket that is slow.
const APPEND_SECONDS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1., 5.];

/// Of the audit log. There only if one is kept.
#[derive(Clone)]
pub struct LogMetrics {
    pub writable: IntGauge,
    pub intact: IntGauge,
    pub checked: IntGauge,
    pub check_seconds: IntGauge,
    pub waiting: IntGauge,
    /// As far as this replica knows.
    pub size: IntGauge,
    pub append_errors: IntCounter,
    entries: IntCounter,
    append: Histogram,
}

impl LogMetrics {
    /// Fails only if there are others of these names.
    pub fn new(metrics: &Metrics) -> prometheus::Result<Self> {
        let append = HistogramOpts::new(
            "lethe_audit_log_append_seconds",
            "Time to append to the audit log all that waited for it.",
        );
        let log = Self {
            writable: IntGauge::new("lethe_audit_log_writable", "0 while the audit log cannot be written.")?,
            intact: IntGauge::new(
                "lethe_audit_log_intact",
                "0 if the audit log was read and is not as it was written.",
            )?,
            checked: IntGauge::new(
                "lethe_audit_log_checked_timestamp_seconds",
                "When this replica last read all of the audit log, or began to keep it.",
            )?,
            check_seconds: IntGauge::new(
                "lethe_audit_log_check_seconds",
                "How often all of the audit log is to be read; 0: never.",
            )?,
            waiting: IntGauge::new(
                "lethe_audit_log_waiting_entries",
                "Entries of the audit log that are not written yet.",
            )?,
            size: IntGauge::new(
                "lethe_audit_log_size",
                "Entries in the audit log, once this replica has opened it.",
            )?,
            append_errors: IntCounter::new(
                "lethe_audit_log_append_errors_total",
                "Tries to open the audit log or to append to it that failed.",
            )?,
            entries: IntCounter::new("lethe_audit_log_entries_total", "Entries written to the audit log.")?,
            append: Histogram::with_opts(append.buckets(APPEND_SECONDS.to_vec()))?,
        };
        // Nothing is known to be wrong with it.
        log.writable.set(1);
        log.intact.set(1);
        metrics.register(log.writable.clone())?;
        metrics.register(log.intact.clone())?;
        metrics.register(log.checked.clone())?;
        metrics.register(log.check_seconds.clone())?;
        metrics.register(log.waiting.clone())?;
        metrics.register(log.size.clone())?;
        metrics.register(log.append_errors.clone())?;
        metrics.register(log.entries.clone())?;
        metrics.register(log.append.clone())?;
        Ok(log)
    }

    /// So many entries were written at once, and make so many in all.
    pub fn appended(&self, entries: usize, size: u64, took: Duration) {
        self.size.set(size as i64);
        self.entries.inc_by(entries as u64);
        self.append.observe(took.as_secs_f64());
    }
}

pub struct Metrics {
    registry: Registry,
    /// There once the caches are filled.
    objects: OnceLock<ObjectCollector>,
    pub leader: IntGauge,
    pub memory_limit: Gauge,
    pub reconcile_duration: HistogramVec,
    pub reconcile_errors: IntCounterVec,
    pub watch_errors: IntCounterVec,
    pub malformed_objects: IntCounterVec,
    pub unreadable_objects: IntGaugeVec,
    pub event_errors: IntCounterVec,
    gate_evaluations: IntCounterVec,
    run_duration: HistogramVec,
    gpu_seconds: Counter,
    approval_wait: Histogram,
    request_duration: Histogram,
    requests_reexposed: IntCounter,
}

impl Metrics {
    /// Fails only if two metrics were given the same name.
    pub fn new() -> prometheus::Result<Self> {
        let histogram = |name: &str, help: &str, label: &str, buckets: &[f64]| {
            HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), &[label])
        };
        let of_requests = |name: &str, help: &str| {
            Histogram::with_opts(HistogramOpts::new(name, help).buckets(REQUEST_SECONDS.to_vec()))
        };
        let counters =
            |name: &str, help: &str, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
        let metrics = Self {
            registry: Registry::new(),
            objects: OnceLock::new(),
            leader: IntGauge::new("lethe_leader", "1 if this replica holds the lease and acts.")?,
            memory_limit: Gauge::new("lethe_memory_limit_bytes", "How much memory this process may have.")?,
            reconcile_duration: histogram(
                "lethe_reconcile_duration_seconds",
                "Time to look at one object and to do what was decided.",
                "controller",
                &RECONCILE_SECONDS,
            )?,
            reconcile_errors: counters(
                "lethe_reconcile_errors_total",
                "Objects that could not be worked on, by cause.",
                &["controller", "category"],
            )?,
            watch_errors: counters("lethe_watch_errors_total", "Watches that broke.", &["kind"])?,
            malformed_objects: counters(
                "lethe_malformed_objects_total",
                "Objects seen that are not of their schema.",
                &["kind"],
            )?,
            unreadable_objects: IntGaugeVec::new(
                Opts::new(
                    "lethe_unreadable_object",
                    "1 for an object that is not of its schema, while it is there.",
                ),
                &["kind", "namespace", "object"],
            )?,
            event_errors: counters(
                "lethe_event_errors_total",
                "Events that could not be published.",
                &["controller"],
            )?,
            gate_evaluations: counters(
                "lethe_gate_evaluations_total",
                "Verdicts given, one per gate and target; those of pilots are not counted.",
                &["gate", "verdict"],
            )?,
            run_duration: histogram(
                "lethe_run_duration_seconds",
                "Time from the start of a stage's first pod to the end of the stage.",
                "stage",
                &RUN_SECONDS,
            )?,
            gpu_seconds: Counter::new(
                "lethe_gpu_seconds_total",
                "GPUs of finished Jobs times the seconds that they were held.",
            )?,
            approval_wait: of_requests(
                "lethe_approval_wait_seconds",
                "Time from the creation of a request to the approval that it needed last.",
            )?,
            request_duration: of_requests(
                "lethe_request_duration_seconds",
                "Time from the creation of a request until it was fulfilled.",
            )?,
            requests_reexposed: IntCounter::new(
                "lethe_requests_reexposed_total",
                "Fulfilled requests of which what they had to forget may have been shown again, be it for a moment.",
            )?,
        };
        metrics.register_all()?;
        metrics.begin_with_zero();
        Ok(metrics)
    }

    /// A series that first appears with 1 has not increased: an alert would miss it, and so would a graph.
    fn begin_with_zero(&self) {
        for gate in GateName::ALL {
            for verdict in Verdict::ALL {
                self.gate_evaluations.with_label_values(&[gate.as_str(), &format!("{verdict:?}")]);
            }
        }
        for stage in [Stage::Prepare, Stage::Forget, Stage::Evaluate, Stage::Audit] {
            self.run_duration.with_label_values(&[stage.as_str()]);
        }
        for controller in [DiffusionModel::CONTROLLER, UnlearnRequest::CONTROLLER, UnlearnRun::CONTROLLER] {
            for category in Category::ALL {
                self.reconcile_errors.with_label_values(&[controller, category.as_str()]);
            }
            self.event_errors.with_label_values(&[controller]);
        }
    }

    fn register_all(&self) -> prometheus::Result<()> {
        let info =
            Opts::new("lethe_build_info", "Always 1.").const_label("version", env!("CARGO_PKG_VERSION"));
        let info = IntGauge::with_opts(info)?;
        info.set(1);
        let collectors: [Box<dyn Collector>; 16] = [
            Box::new(info),
            Box::new(ProcessCollector::for_self()),
            Box::new(self.leader.clone()),
            Box::new(self.memory_limit.clone()),
            Box::new(self.reconcile_duration.clone()),
            Box::new(self.reconcile_errors.clone()),
            Box::new(self.watch_errors.clone()),
            Box::new(self.malformed_objects.clone()),
            Box::new(self.unreadable_objects.clone()),
            Box::new(self.event_errors.clone()),
            Box::new(self.gate_evaluations.clone()),
            Box::new(self.run_duration.clone()),
            Box::new(self.gpu_seconds.clone()),
            Box::new(self.approval_wait.clone()),
            Box::new(self.request_duration.clone()),
            Box::new(self.requests_reexposed.clone()),
        ];
        collectors.into_iter().try_for_each(|collector| self.registry.register(collector))
    }

    pub fn register(&self, collector: impl Collector + 'static) -> prometheus::Result<()> {
        self.registry.register(Box::new(collector))
    }

    /// From now on, what there is of the objects in the caches is shown as well. Fails if others are shown already.
    pub fn show(&self, objects: ObjectCollector) -> prometheus::Result<()> {
        self.objects.set(objects).map_err(|_| prometheus::Error::AlreadyReg)
    }

    /// All metrics in the text format of Prometheus.
    pub fn render(&self) -> prometheus::Result<String> {
        let mut text = TextEncoder::new().encode_to_string(&self.registry.gather())?;
        if let Some(objects) = self.objects.get() {
            objects.write_to(&mut text);
        }
        Ok(text)
    }

    /// Counts what is new in `after`: stages that ended and verdicts that were given.
    pub fn run_progressed(&self, run: &UnlearnRun, after: &UnlearnRunStatus) {
        let before = run.status.as_ref();
        for job in &after.jobs {
            let ended_before =
                before.and_then(|s| s.job(job.stage)).is_some_and(|old| old.finished_at.is_some());
            let Some(end) = job.finished_at.as_ref().filter(|_| !ended_before) else { continue };
            // Of a Job that was made again and never worked, the first one has.
            if job.started_at.is_some() || job.earlier_seconds > 0 {
                let last = job.started_at.as_ref().map_or(0.0, |start| seconds_between(start.0, end.0));
                let seconds = last + job.earlier_seconds as f64;
                self.run_duration.with_label_values(&[job.stage.as_str()]).observe(seconds);
                self.gpu_seconds.inc_by(seconds * gpus(run, job.stage));
            }
        }
        // Whoever tries something wants to know; nobody is to be woken by it.
        let is_news = run.spec.mode == Mode::Enforce && before.is_none_or(|s| s.verdict.is_none());
        if is_news && after.verdict.is_some() {
            for gate in &after.gates {
                let verdict = format!("{:?}", gate.verdict);
                self.gate_evaluations.with_label_values(&[gate.name.as_str(), &verdict]).inc();
            }
        }
    }
}

impl Metrics {
    /// Counts what is new in `after`: that people agreed, and that it is fulfilled. What waits for people is no work, and is
    /// counted apart.
    pub fn request_progressed(&self, request: &UnlearnRequest, after: &UnlearnRequestStatus) {
        let Some(created) = request.creation_timestamp() else { return };
        let before = request.status.as_ref().map(|status| &status.conditions[..]).unwrap_or_default();
        let counted = [
            (ConditionType::Approved, &self.approval_wait),
            (ConditionType::Fulfilled, &self.request_duration),
        ];
        for (type_, histogram) in counted {
            // A condition that was True before has come back: what was served was put right.
            if let (None | Some("Unknown"), Some(now)) =
                (type_.find(before).map(|c| c.status.as_str()), type_.find(&after.conditions))
                && now.status == "True"
            {
                histogram.observe(seconds_between(created.0, now.last_transition_time.0));
            }
        }
        let fulfilled = ConditionType::Fulfilled;
        if fulfilled.is_true(before) && fulfilled.is_false(&after.conditions) {
            self.requests_reexposed.inc();
        }
    }
}

fn seconds_between(start: Timestamp, end: Timestamp) -> f64 {
    end.duration_since(start).as_secs_f64().max(0.)
}

/// GPUs that a pod of this stage holds: as [`lethe_core::job::job`] asks for them, an audit holds none.
fn gpus(run: &UnlearnRun, stage: Stage) -> f64 {
    if stage == Stage::Audit {
        return 0.;
    }
    let limits = run.spec.policy.trainer.resources.limits.as_ref();
    let gpu = limits.and_then(|limits| limits.get("nvidia.com/gpu"));
    gpu.and_then(|quantity| quantity.0.parse().ok()).unwrap_or(0.)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(json: serde_json::Value) -> UnlearnRunStatus {
        serde_json::from_value(json).unwrap()
    }

    fn run(status: UnlearnRunStatus) -> UnlearnRun {
        let mut run: UnlearnRun = serde_json::from_value(json!({
            "apiVersion": "lethe.dev/v1alpha1", "kind": "UnlearnRun", "metadata": {"name": "digits-1"},
            "spec": {
                "model": "digits", "type": "Forget", "plan": "{}", "planDigest": lethe_api::Digest::of(b""),
                "policy": {"trainer": {"image": "x", "resources": {"limits": {"nvidia.com/gpu": "2"}}}, "gates": []},
            },
        }))
        .unwrap();
        run.status = Some(status);
        run
    }

    fn job(stage: &str, end: Option<&str>) -> serde_json::Value {
        json!({"stage": stage, "name": "digits-1", "planDigest": lethe_api::Digest::of(b""),
            "startedAt": "2026-11-24T21:00:00Z", "finishedAt": end})
    }

    #[test]
    fn an_audit_takes_time_and_holds_no_gpu() {
        let metrics = Metrics::new().unwrap();
        let working = status(json!({"jobs": [job("Audit", None)]}));
        let done = status(json!({"jobs": [job("Audit", Some("2026-11-24T21:00:40Z"))], "verdict": "Pass"}));
        metrics.run_progressed(&run(working), &done);
        let text = metrics.render().unwrap();
        assert!(text.contains("lethe_run_duration_seconds_sum{stage=\"audit\"} 40\n"), "{text}");
        assert!(text.contains("lethe_gpu_seconds_total 0\n"), "{text}");
    }

    #[test]
    fn what_a_queue_took_back_counts_for_as_long_as_it_worked() {
        let metrics = Metrics::new().unwrap();
        let mut working = status(json!({"jobs": [job("Forget", None)]}));
        (working.jobs[0].preemptions, working.jobs[0].earlier_seconds) = (2, 100);
        let mut done = working.clone();
        done.jobs[0].finished_at = status(json!({"jobs": [job("Forget", Some("2026-11-24T21:00:40Z"))]}))
            .jobs[0]
            .finished_at
            .clone();
        metrics.run_progressed(&run(working), &done);
        let text = metrics.render().unwrap();
        assert!(text.contains("lethe_run_duration_seconds_sum{stage=\"forget\"} 140\n"), "{text}");
        assert!(text.contains("lethe_gpu_seconds_total 280\n"), "{text}");
    }

    #[test]
    fn of_a_job_that_was_made_again_and_never_worked_the_first_one_counts() {
        let metrics = Metrics::new().unwrap();
        let mut waiting = status(json!({"jobs": [job("Forget", None)]}));
        (waiting.jobs[0].started_at, waiting.jobs[0].earlier_seconds) = (None, 100);
        let mut done = status(json!({"jobs": [job("Forget", Some("2026-11-24T21:00:40Z"))]}));
        (done.jobs[0].started_at, done.jobs[0].earlier_seconds) = (None, 100);
        metrics.run_progressed(&run(waiting), &done);
        let text = metrics.render().unwrap();
        assert!(text.contains("lethe_gpu_seconds_total 200\n"), "{text}");
    }

    #[test]
    fn a_stage_and_a_verdict_count_once_however_often_the_status_is_written() {
        let metrics = Metrics::new().unwrap();
        let working = status(json!({"jobs": [job("Forget", None)]}));
        let gates = json!([{"name": "direct-leak", "target": "3", "verdict": "Pass"}, {"name": "hygiene", "verdict": "Fail"}]);
        let done = status(
            json!({"jobs": [job("Forget", Some("2026-11-24T21:00:40Z"))], "gates": gates, "verdict": "Fail"}),
        );
        metrics.run_progressed(&run(working.clone()), &working);
        metrics.run_progressed(&run(working), &done);
        metrics.run_progressed(&run(done.clone()), &done);
        let text = metrics.render().unwrap();
        assert!(
            text.contains("lethe_gate_evaluations_total{gate=\"retain-quality\",verdict=\"Error\"} 0\n"),
            "{text}"
        );
        assert!(text.contains("lethe_run_duration_seconds_count{stage=\"forget\"} 1\n"), "{text}");
        assert!(text.contains("lethe_gpu_seconds_total 80\n"), "{text}");
        assert!(
            text.contains("lethe_gate_evaluations_total{gate=\"direct-leak\",verdict=\"Pass\"} 1\n"),
            "{text}"
        );
        assert!(
            text.contains("lethe_gate_evaluations_total{gate=\"hygiene\",verdict=\"Fail\"} 1\n"),
            "{text}"
        );
    }

    #[test]
    fn a_request_counts_once_when_people_agreed_and_once_when_it_is_fulfilled() {
        let metrics = Metrics::new().unwrap();
        let condition = |type_, status, at: &str| {
            json!({"type": type_, "status": status, "reason": "Scheduled", "message": "",
                "lastTransitionTime": format!("2026-11-24T{at}Z")})
        };
        let after = |conditions: serde_json::Value| -> UnlearnRequestStatus {
            serde_json::from_value(json!({"conditions": conditions})).unwrap()
        };
        let steps = [
            after(json!([condition("Approved", "Unknown", "21:00:00")])),
            after(json!([condition("Approved", "True", "22:00:00")])),
            after(json!([
                condition("Approved", "True", "22:00:00"),
                condition("Fulfilled", "True", "23:00:00")
            ])),
            after(json!([
                condition("Approved", "True", "22:00:00"),
                condition("Fulfilled", "False", "23:10:00")
            ])),
            after(json!([
                condition("Approved", "True", "22:00:00"),
                condition("Fulfilled", "True", "23:20:00")
            ])),
        ];
        let mut request: UnlearnRequest = serde_json::from_value(json!({
            "apiVersion": "lethe.dev/v1alpha1", "kind": "UnlearnRequest",
            "metadata": {"name": "forget-three", "creationTimestamp": "2026-11-24T20:00:00Z"},
            "spec": {"modelRef": {"name": "digits"}, "targets": [{"label": "3"}], "override": {"strategy": "Random"}},
        }))
        .unwrap();
        for step in steps {
            metrics.request_progressed(&request, &step);
            request.status = Some(step);
        }
        let text = metrics.render().unwrap();
        for line in [
            "lethe_approval_wait_seconds_count 1\n",
            "lethe_approval_wait_seconds_sum 7200\n",
            "lethe_request_duration_seconds_count 1\n",
            "lethe_request_duration_seconds_sum 10800\n",
            "lethe_requests_reexposed_total 1\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
    }
}
