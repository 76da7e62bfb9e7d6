//! Writing scenarios: what people apply, edit and delete, and how a scenario is run again and again.

use std::{fmt::Write, rc::Rc};

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt;
use lethe_api::{
    Digest,
    contract::BaseArtifact,
    v1alpha1::{
        ApprovalDecision, ApprovedRequest, ApprovedStep, ConditionType, DiffusionModel, Extension,
        InitialServing, Mode, OverrideSpec, Reason, RequestPhase, Stage, UnlearnApproval,
        UnlearnApprovalSpec, UnlearnPolicy, UnlearnPolicySpec, UnlearnRequest, UnlearnRun, annotations,
    },
};
use lethe_core::names;
pub use lethe_model::objects::{MODEL, careful, fixed, model, nearest, policy, probing, request, watchful};

use crate::{
    cluster::{Cluster, Work, annotate, deployment},
    invariants,
    trainer::digest,
    world::{Chance, Tape, World, repeated},
};

/// Seconds without any API call after which nothing more is expected.
const CALM: i64 = 450;

impl World {
    /// Policy, Deployment and model are there; nothing was done yet.
    pub fn with_model(&mut self) {
        self.apply_policy(policy());
        self.change(|cluster| cluster.deployment = Some(deployment(MODEL, "server")));
        self.apply_model(model(InitialServing::Baseline));
    }

    /// The model is prepared and its baseline is served.
    pub fn ready(&mut self) {
        self.with_model();
        self.until("the baseline is served", |world| world.model_is(ConditionType::Serving));
        self.prologue = self.calls;
    }

    pub fn apply_policy(&mut self, mut policy: UnlearnPolicy) {
        self.admit(&mut policy);
        self.change(|cluster| cluster.policies.insert(policy.name_any(), policy));
    }

    pub fn edit_policy(&mut self, edit: impl FnOnce(&mut UnlearnPolicySpec)) {
        self.change(|cluster| edit(&mut cluster.policies.get_mut("standard").expect("applied before").spec));
    }

    pub fn apply_model(&mut self, mut model: DiffusionModel) {
        self.admit(&mut model);
        self.change(|cluster| cluster.models.insert(model.name_any(), model));
    }

    /// Names another base artifact in the model's spec.
    pub fn edit_base(&mut self, base: &str) {
        let version = self.bump();
        self.change(|cluster| {
            let model = cluster.models.get_mut(MODEL).expect("applied before");
            model.spec.base = BaseArtifact { uri: format!("file:///{base}"), digest: digest(base) };
            model.metadata.resource_version = version;
            *model.metadata.generation.get_or_insert(1) += 1;
        });
    }

    /// `kubectl delete`: with a finalizer, the operator has the last word.
    pub fn delete_model(&mut self) {
        let (now, version) = (Time(self.now), self.bump());
        self.change(|cluster| {
            if let Some(model) = cluster.models.get_mut(MODEL) {
                model.metadata.deletion_timestamp = Some(now);
                model.metadata.resource_version = version;
            }
        });
    }

    pub fn ask(&mut self, name: &str, targets: &[&str], replacement: OverrideSpec) {
        self.apply_request(request(name, targets, replacement));
    }

    /// Asks for a target to be tried.
    pub fn try_out(&mut self, name: &str, targets: &[&str], replacement: OverrideSpec) {
        let mut pilot = request(name, targets, replacement);
        pilot.spec.mode = Mode::Pilot;
        self.apply_request(pilot);
    }

    pub fn apply_request(&mut self, mut request: UnlearnRequest) {
        self.now += SignedDuration::from_secs(1);
        self.admit(&mut request);
        self.change(|cluster| cluster.requests.insert(request.name_any(), request));
    }

    pub fn suspend(&mut self, name: &str, suspend: bool) {
        let version = self.bump();
        self.change(|cluster| {
            if let Some(request) = cluster.requests.get_mut(name) {
                request.spec.suspend = suspend;
                request.metadata.resource_version = version;
                *request.metadata.generation.get_or_insert(1) += 1;
            }
        });
    }

    /// `kubectl annotate --overwrite`.
    pub fn annotate(&mut self, name: &str, annotation: &str, value: &str) {
        let version = self.bump();
        self.change(|cluster| {
            if let Some(request) = cluster.requests.get_mut(name) {
                request.annotations_mut().insert(annotation.into(), value.into());
                request.metadata.resource_version = version;
            }
        });
    }

    /// What came of the last word in an annotation.
    pub fn acknowledged(&self, name: &str, annotation: &str) -> Option<(String, String)> {
        let status = self.cluster.requests[name].status.as_ref()?;
        let known = match annotation {
            annotations::RETRY => status.retry.as_ref(),
            _ => status.abort.as_ref(),
        };
        known.map(|known| (known.token.clone(), known.message.clone()))
    }

    /// How often a request was tried, and how often it may be.
    pub fn attempts(&self, request: &str) -> Option<(u32, u32)> {
        let attempts = self.cluster.requests[request].status.as_ref()?.attempts.as_ref()?;
        Some((attempts.used, attempts.allowed))
    }

    /// Extends its term now.
    pub fn extend_term(&mut self, name: &str, reason: &str) {
        let version = self.bump();
        let extension = Some(Extension { informed_at: Time(self.now), reason: reason.into() });
        self.change(|cluster| {
            let request = cluster.requests.get_mut(name).expect("it was asked for");
            request.spec.data_subject_request.as_mut().expect("it has a term").extension = extension;
            request.metadata.resource_version = version;
            *request.metadata.generation.get_or_insert(1) += 1;
        });
    }

    /// Says yes or no to a request that is there.
    pub fn says(&mut self, approver: &str, decision: ApprovalDecision, request: &str) {
        let uid = self.cluster.requests[request].uid().expect("it was admitted");
        let request_ref = ApprovedRequest { name: request.into(), uid };
        let (approver, reason) = (approver.to_owned(), "looked at it".to_owned());
        let rollout = None;
        let spec = UnlearnApprovalSpec { request_ref, decision, rollout, approver: approver.clone(), reason };
        let approval = UnlearnApproval::new(&format!("{approver}-{request}"), spec);
        self.change(|cluster| cluster.approvals.push(approval));
    }

    /// Says yes or no to the candidate that is being rolled out for a request, at a step.
    pub fn says_of_step(&mut self, approver: &str, decision: ApprovalDecision, request: &str, step: u32) {
        let digest =
            self.run_for(request).and_then(|run| run.status.clone()?.candidate).expect("there is one");
        self.says(approver, decision, request);
        self.change(|cluster| {
            let last = cluster.approvals.last_mut().expect("just said");
            last.spec.rollout = Some(ApprovedStep { digest, step });
        });
    }

    pub fn delete_request(&mut self, name: &str) {
        self.change(|cluster| cluster.requests.remove(name));
    }

    /// Somebody changes the annotation by hand.
    pub fn drift(&mut self, bundle: Option<&str>) {
        self.change(|cluster| annotate(cluster.deployment.as_mut().expect("applied before"), bundle));
    }

    /// Steps until `reached`. Every single API call and every move of the cluster is looked at.
    pub fn until(&mut self, what: &str, reached: impl Fn(&World) -> bool) {
        if self.skip_wait() {
            return;
        }
        for _ in 0..3_000 {
            if reached(self) {
                return self.record_wait();
            }
            if !self.step() {
                self.now += SignedDuration::from_secs(10);
            }
        }
        panic!("never: {what}\n{}", self.summary());
    }

    /// Steps until nothing happens any more, however much time passes.
    pub fn settle(&mut self) {
        if self.skip_wait() {
            return;
        }
        let mut calm = 0;
        for _ in 0..3_000 {
            if self.step() {
                calm = 0;
            } else if calm < CALM {
                calm += 150;
                self.now += SignedDuration::from_secs(150);
            } else {
                self.rests();
                invariants::nothing_is_left_beside(self);
                return self.record_wait();
            }
        }
        panic!("never at rest\n{}", self.summary());
    }

    /// An idle operator writes nothing, now or later.
    fn rests(&mut self) {
        let now = self.now;
        for hours in [0, 1, 20] {
            self.now = now + SignedDuration::from_hours(hours);
            assert_eq!(self.wants_something(), None, "after {hours} h at rest\n{}", self.summary());
        }
        self.now = now;
    }

    pub fn model(&self) -> &DiffusionModel {
        &self.cluster.models[MODEL]
    }

    pub fn model_is(&self, type_: ConditionType) -> bool {
        let status = self.cluster.models.get(MODEL).and_then(|model| model.status.as_ref());
        status.is_some_and(|status| type_.is_true(&status.conditions))
    }

    pub fn model_condition(&self, type_: ConditionType) -> (String, String, String) {
        self.condition_of(MODEL, type_)
    }

    /// Status, reason and message of a model's condition.
    pub fn condition_of(&self, model: &str, type_: ConditionType) -> (String, String, String) {
        let status = self.cluster.models.get(model).and_then(|model| model.status.as_ref());
        parts(type_.find(status.map(|status| &status.conditions[..]).unwrap_or_default()))
    }

    /// Status, reason and message of a request's condition.
    pub fn condition(&self, request: &str, type_: ConditionType) -> (String, String, String) {
        let status = self.cluster.requests.get(request).and_then(|request| request.status.as_ref());
        parts(type_.find(status.map(|status| &status.conditions[..]).unwrap_or_default()))
    }

    pub fn phase(&self, request: &str) -> Option<RequestPhase> {
        self.cluster.requests.get(request)?.status.as_ref()?.phase
    }

    /// Asserts how a request ended: its phase, the reason of Ready, and a part of the message.
    #[track_caller]
    pub fn ended(&self, request: &str, phase: RequestPhase, reason: Reason, says: &str) {
        let (_, found, message) = self.condition(request, ConditionType::Ready);
        let is_so =
            self.phase(request) == Some(phase) && found == reason.to_string() && message.contains(says);
        assert!(is_so, "{request}: {:?} {found}: {message}\n{}", self.phase(request), self.summary());
    }

    /// The last run for a request.
    pub fn run_for(&self, request: &str) -> Option<&UnlearnRun> {
        let works = |run: &&UnlearnRun| run.spec.requests.iter().any(|r| r.name == request);
        self.cluster.runs.values().filter(works).max_by_key(|run| run.creation_timestamp().map(|at| at.0))
    }

    /// The Job of a stage of the last run for a request.
    pub fn job_for(&self, request: &str, stage: Stage) -> Option<&Work> {
        self.cluster.jobs.get(&names::job(&self.run_for(request)?.name_any(), stage))
    }

    pub fn is_running(&self, request: &str, stage: Stage) -> bool {
        self.job_for(request, stage).is_some_and(Work::is_running)
    }

    pub fn is_rolling_out(&self) -> bool {
        let rollout = self.cluster.models.get(MODEL).and_then(|m| m.status.as_ref()?.rollout.as_ref());
        rollout.is_some_and(|r| r.run.is_some() && r.state == lethe_api::v1alpha1::RolloutState::Progressing)
    }

    /// Every label in the ledger, with what is yielded instead, in the order of the ledger.
    pub fn ledger(&self) -> Vec<String> {
        let Some(status) = self.cluster.models.get(MODEL).and_then(|m| m.status.as_ref()) else {
            return vec![];
        };
        let entry = |entry: &lethe_api::v1alpha1::LedgerEntry| {
            let label = entry.replacement.label.clone().unwrap_or_else(|| "any".into());
            format!("{}->{label}", entry.targets.join("+"))
        };
        status.ledger.iter().map(entry).collect()
    }

    pub fn baseline(&self) -> Digest {
        digest("baseline")
    }

    /// Everything that counts about the state reached, without times.
    pub fn summary(&self) -> String {
        let Cluster { models, requests, runs, jobs, serving, .. } = &self.cluster;
        let mut text = String::new();
        for (name, model) in models {
            let status = model.status.clone().unwrap_or_default();
            let _ = writeln!(text, "model {name} {:?} {:?}", status.phase, status.active_run);
            let _ = writeln!(text, "  {}", shown(&status.conditions));
            let _ = writeln!(text, "  served {:?}", status.served.map(|served| served.short));
            let base = status.baseline.map(|baseline| baseline.teacher.short().to_owned());
            let new_base = status.new_base.map(|new| new.baseline.teacher.short().to_owned());
            let compliant = status.compliant.map(|it| (it.digest.short().to_owned(), it.run));
            let _ = writeln!(text, "  base {base:?} to be {new_base:?} compliant {compliant:?}");
            let _ = writeln!(
                text,
                "  rollout {:?}",
                status.rollout.map(|r| (r.run, r.state, r.to.short().to_owned()))
            );
            for entry in status.ledger {
                let _ = writeln!(text, "  forgot {:?} {} {}", entry.targets, entry.run, entry.digest.short());
            }
        }
        for (name, request) in requests {
            let status = request.status.clone().unwrap_or_default();
            let run = status.run.map(|run| run.name);
            let _ = writeln!(text, "request {name} {:?} {run:?} {:?}", status.phase, status.gate_summary);
            let _ = writeln!(text, "  {}", shown(&status.conditions));
        }
        for (name, run) in runs {
            let status = run.status.clone().unwrap_or_default();
            let _ = writeln!(text, "run {name} {:?} {:?}", status.phase, status.verdict);
            let _ = writeln!(text, "  {}", shown(&status.conditions));
        }
        let _ = writeln!(text, "jobs {:?}", jobs.keys().collect::<Vec<_>>());
        let _ = writeln!(
            text,
            "archives {:?}",
            self.cluster.config_maps.keys().filter(|n| n.ends_with("ledger")).collect::<Vec<_>>()
        );
        let named = self.named_bundle();
        let _ = writeln!(
            text,
            "named {:?} serving {:?}",
            named.as_ref().map(Digest::short),
            serving.as_ref().map(Digest::short)
        );
        text
    }

    /// What people care about: answers, ledger and serving, but not by which runs it came to be.
    pub fn answers(&self) -> String {
        let ready = |name: &String| self.condition(name, ConditionType::Ready).1;
        let requests: Vec<_> = self.cluster.requests.keys().map(|n| (n, self.phase(n), ready(n))).collect();
        let mut forgotten: Vec<_> = self.ledger();
        forgotten.sort();
        forgotten.dedup();
        let named = self.named_bundle();
        let kind = match named {
            None => "nothing",
            Some(named) if named == self.baseline() => "the baseline",
            Some(_) => "a candidate",
        };
        format!("{requests:?} {forgotten:?} {kind}")
    }
}

fn parts(condition: Option<&Condition>) -> (String, String, String) {
    condition.map(|c| (c.status.clone(), c.reason.clone(), c.message.clone())).unwrap_or_default()
}

fn shown(conditions: &[Condition]) -> String {
    let one = |c: &Condition| format!("{}={}/{}", c.type_, c.status, c.reason);
    let mut all: Vec<_> = conditions.iter().map(one).collect();
    all.sort();
    all.join(" ")
}

/// Runs a scenario once, to its end.
pub fn play(scenario: &dyn Fn(&mut World), prepare: impl FnOnce(&mut World)) -> World {
    let mut world = World::new();
    prepare(&mut world);
    scenario(&mut world);
    world.settle();
    world
}

/// Runs a scenario undisturbed, then with an operator that dies before each of its API calls in turn, then
/// with late caches and in random orders. Whatever happens, it ends the same, with every Job made once.
#[track_caller]
pub fn everywhere(scenario: impl Fn(&mut World)) -> World {
    let undisturbed = crashes(&scenario);
    for seed in 1..=2 {
        let late = play(&scenario, |world| world.chance = Some(Chance::new(seed, 500)));
        assert_eq!(late.answers(), undisturbed.answers(), "seed {seed}\n{}", late.summary());
        assert!(repeated(&late.audit.jobs_created).is_empty(), "seed {seed}");
    }
    undisturbed
}

/// [`everywhere`], without late caches: for scenarios whose end depends on who is first.
#[track_caller]
pub fn crashes(scenario: &dyn Fn(&mut World)) -> World {
    let mut undisturbed = play(scenario, |world| world.tape = Tape::Records(vec![]));
    let tape = match std::mem::take(&mut undisturbed.tape) {
        Tape::Records(waits) => Rc::new(waits),
        Tape::None | Tape::Replays(_) => panic!("a scenario leaves the tape alone"),
    };
    // Up to here all scenarios are the same, and one of them dies there as well.
    for call in undisturbed.prologue..undisturbed.calls {
        let survived = play(scenario, |world| {
            world.dies_before = Some(call);
            world.tape = Tape::Replays(tape.clone());
        });
        assert_eq!(survived.summary(), undisturbed.summary(), "died before call {call}");
        assert_eq!(survived.audit.jobs_created, undisturbed.audit.jobs_created, "died before call {call}");
    }
    undisturbed
}
