//! One lineage: prepare it, make it forget, change what is served, write the ledger.
//! This is the only place that decides about serving and the ledger.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use kube::{Resource, ResourceExt};
use lethe_api::{
    contract::Plan,
    v1alpha1::{
        ConditionType, DiffusionModel, DiffusionModelStatus, InitialServing, Mode, ModelPhase, NewBase,
        PolicySource, Reason, RequestRef, Rollout, RunType, UnlearnApproval, UnlearnPolicySpec,
        UnlearnRequest, UnlearnRun, UnlearnRunSpec, Verdict, labels,
    },
};

use crate::{
    ArchivedLedger, Decision, Effect, Event, FINALIZER, Installation, POLL, archive, base, canary,
    compliance,
    conditions::{Conditions, transitions},
    evidence, forgetting, history, job, look_at, plans,
    policy::{NoPolicy, Policy},
    publish, reuse,
    rollout::PodReport,
    serving, targets, unlogged,
};

pub use archive::read as read_archive;

/// What the controller saw.
#[derive(Clone, Debug)]
pub struct Observed {
    pub model: DiffusionModel,
    /// The policy that the model names.
    pub policy: Result<Policy, NoPolicy>,
    /// Every request that names this model. Those that the active run works for must not be missing only because
    /// a cache lags behind: the run would be taken for withdrawn. If it [`may_roll_out`], they are not from a cache.
    pub requests: Vec<UnlearnRequest>,
    /// What people said to them; none if nothing checks who they are.
    pub approvals: Option<Vec<UnlearnApproval>>,
    /// Every run of this model. Those of [`named_runs`] must not be missing only because a cache lags behind:
    /// others would be started beside them.
    pub runs: Vec<UnlearnRun>,
    /// Every other model of the namespace that names the same serving target.
    pub rivals: Vec<DiffusionModel>,
    /// The serving target, not from a cache.
    pub deployment: Option<Deployment>,
    /// What the target's pods say they serve. Asked only if [`wants_reports`].
    pub reports: Vec<PodReport>,
    /// What there is beside the target, if [`canary::to_look_for`] names anything.
    pub canary: canary::Seen,
    /// From the archive ConfigMap, if there is one; or why it cannot be read.
    pub archived: Result<Option<ArchivedLedger>, String>,
    /// Why the audit log cannot be written, if one is kept and it cannot.
    pub unlogged: Option<String>,
    /// What the store has about the bundles that [`evidence::to_look_for`] names, if anything is signed at all.
    pub evidence: evidence::Seen,
}

/// Whether the pods have to be asked what they serve: once a first roll-out has begun, whenever the model is
/// looked at. A template that overrides the annotation must not go unnoticed.
pub fn wants_reports(model: &DiffusionModel) -> bool {
    let is_served = |status: &DiffusionModelStatus| status.rollout.is_some() || !status.ledger.is_empty();
    model.status.as_ref().is_some_and(is_served)
}

/// Whether a roll-out may begin for this run: then the requests that it works for must not come from a cache, or one that
/// says that it was aborted would be rolled out all the same.
pub fn may_roll_out(model: &DiffusionModel, run: &UnlearnRun) -> bool {
    let verdict = run.status.as_ref().and_then(|status| status.verdict);
    let rollout = model.status.as_ref().and_then(|status| status.rollout.as_ref());
    // As long as a canary runs, or nobody has promoted what was published, the target is not touched.
    let has_begun = rollout
        .is_some_and(|rollout| rollout.run == Some(run.name_any()) && !rollout.state.leaves_target_alone());
    verdict == Some(Verdict::Pass) && !has_begun
}

/// The runs that a status names as being at work: their absence has to be confirmed.
pub fn named_runs(status: &DiffusionModelStatus) -> impl Iterator<Item = &String> {
    let rollout = status.rollout.as_ref();
    let dark = rollout.and_then(|rollout| rollout.canary.as_ref()?.audit.as_ref());
    status.active_run.iter().chain(rollout.and_then(|rollout| rollout.audit.as_ref())).chain(dark)
}

pub fn decide(
    observed: &Observed,
    installation: &Installation,
    now: Timestamp,
) -> Decision<DiffusionModelStatus> {
    let mut lineage = Lineage::new(observed, installation, now);
    if observed.model.meta().deletion_timestamp.is_some() {
        return lineage.let_go();
    }
    if !observed.model.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
        lineage.effects.push(Effect::AddFinalizer);
    }
    if let Err(doubt) = archive::restore(&mut lineage).and_then(|()| archive::nothing_is_lost(&lineage)) {
        lineage.conditions.no(ConditionType::Prepared, doubt.0, doubt.1.clone());
        lineage.doubt = Some(doubt);
        lineage.look_again_in(archive::LOOK);
    }
    // Nothing new is made, of what may not be everything.
    let is_prepared = lineage.doubt.is_none() && base::prepare(&mut lineage);
    if let Some(holder) = holder(&observed.model, &observed.rivals) {
        let message = taken_by(holder);
        lineage.conditions.no(ConditionType::Serving, Reason::TargetTaken, message);
        return lineage.done();
    }
    // What was forgotten is not served while a model that came back is prepared anew, or while it is not known what was forgotten
    // besides.
    if is_prepared || !lineage.status.ledger.is_empty() {
        serving::step(&mut lineage);
    }
    if is_prepared {
        forgetting::step(&mut lineage);
        history::step(&mut lineage);
    }
    lineage.done()
}

/// The model that has the serving target of `model`, if that is another one: the first that was created, and of
/// two of the same second the first by name. A model has its target until it is gone.
pub(crate) fn holder<'a>(model: &DiffusionModel, rivals: &'a [DiffusionModel]) -> Option<&'a DiffusionModel> {
    let age = |model: &DiffusionModel| (model.creation_timestamp().map(|at| at.0), model.name_any());
    let elders = rivals.iter().filter(|rival| age(rival) < age(model));
    elders.min_by_key(|rival| age(rival))
}

fn taken_by(holder: &DiffusionModel) -> String {
    format!(
        "Deployment {:?} serves DiffusionModel {:?}, which was first; delete that model, or create this one anew \
         with another spec.serving.target",
        holder.spec.serving.target.name,
        holder.name_any()
    )
}

/// A run that is to be started.
pub(crate) struct NextRun {
    pub(crate) type_: RunType,
    pub(crate) mode: Mode,
    /// Under the name that the run has if it is free.
    pub(crate) plan: Plan,
    pub(crate) requests: Vec<RequestRef>,
    /// The base that it makes forget what is forgotten, if that is not the one in service.
    pub(crate) new_base: Option<NewBase>,
}

/// A decision about one lineage under construction.
pub(crate) struct Lineage<'a> {
    pub(crate) observed: &'a Observed,
    pub(crate) installation: &'a Installation,
    pub(crate) now: Timestamp,
    pub(crate) status: DiffusionModelStatus,
    pub(crate) conditions: Conditions,
    pub(crate) effects: Vec<Effect>,
    pub(crate) events: Vec<Event>,
    /// Why it is not known for certain what was forgotten.
    pub(crate) doubt: Option<(Reason, String)>,
    recheck: Option<Duration>,
}

impl<'a> Lineage<'a> {
    fn new(observed: &'a Observed, installation: &'a Installation, now: Timestamp) -> Self {
        let generation = observed.model.meta().generation;
        let mut status = observed.model.status.clone().unwrap_or_default();
        status.observed_generation = generation;
        status.policy = observed.policy.as_ref().ok().map(|policy| policy.source.clone());
        let conditions = Conditions::new(&status.conditions, generation, now);
        Lineage {
            observed,
            installation,
            now,
            status,
            conditions,
            effects: vec![],
            events: vec![],
            doubt: None,
            recheck: None,
        }
    }

    pub(crate) fn look_again_in(&mut self, after: Duration) {
        self.recheck = Some(self.recheck.map_or(after, |sooner| sooner.min(after)));
    }

    pub(crate) fn look_again_at(&mut self, then: Timestamp) {
        self.recheck = Some(look_at(then, self.now, self.recheck));
    }

    fn done(mut self) -> Decision<DiffusionModelStatus> {
        archive::keep(&mut self);
        publish::say(&mut self);
        self.summarize();
        let before = std::mem::take(&mut self.status.conditions);
        self.status.conditions = self.conditions.into_list();
        self.events.extend(transitions(&before, &self.status.conditions));
        self.events.extend(unlogged::event(&before, &self.status.conditions));
        Decision { status: self.status, effects: self.effects, events: self.events, recheck: self.recheck }
    }

    /// The model is being deleted: its ledger must outlive it.
    fn let_go(mut self) -> Decision<DiffusionModelStatus> {
        if !self.observed.model.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
            let status = self.observed.model.status.clone().unwrap_or_default();
            return Decision { status, effects: vec![], events: vec![], recheck: None };
        }
        match archive::restore(&mut self) {
            Ok(()) => archive::keep(&mut self),
            // Of an empty ledger nothing is lost.
            Err(_) if self.status.ledger.is_empty() => {}
            Err((_, why)) => archive::set_aside(&mut self, &why),
        }
        // Who orphans what the model owns means the archive, not a candidate beside the target.
        canary::take_away(&mut self);
        let mut effects = self.effects;
        effects.push(Effect::RemoveFinalizer);
        let events = self.events.into_iter().filter(|event| event.warning).collect();
        let status = self.observed.model.status.clone().unwrap_or_default();
        Decision { status, effects, events, recheck: None }
    }

    /// As [`own_runs`].
    pub(crate) fn own_runs(&self) -> impl Iterator<Item = &'a UnlearnRun> + use<'a> {
        own_runs(&self.observed.model, &self.observed.runs)
    }

    /// The run whose candidate is rolled out, if it is still there.
    pub(crate) fn run_of(&self, rollout: &Rollout) -> Option<&'a UnlearnRun> {
        self.own_runs().find(|run| Some(run.name_any()) == rollout.run)
    }

    /// Whether a candidate is being rolled out or taken back.
    pub(crate) fn is_rolling_out(&self) -> bool {
        let rollout = self.status.rollout.as_ref();
        rollout.is_some_and(|rollout| rollout.run.is_some() && rollout.state.is_under_way())
    }

    /// Says that there will be a run, then creates it. It goes on with what an earlier one trained, if that may be.
    pub(crate) fn start_run(&mut self, next: NextRun, policy: &Policy) {
        let taken: Vec<_> = self.own_runs().collect();
        let plan = Plan { run: free_name(&next.plan.run, &taken), ..next.plan };
        // What became of a deleted run of the same name says nothing about this one.
        self.status.rollout.take_if(|rollout| rollout.run.as_ref() == Some(&plan.run));
        self.status.active_run = Some(plan.run.clone());
        let next = NextRun { plan, ..next };
        let before = reuse::find(self, &next, &policy.spec);
        self.create_run(next, &policy.spec, Some(&policy.source), before);
    }

    /// Creates a run under the name that its plan has. With what was made `before` it has the plan of that.
    pub(crate) fn create_run(
        &mut self,
        next: NextRun,
        policy: &UnlearnPolicySpec,
        source: Option<&PolicySource>,
        before: Option<&UnlearnRun>,
    ) {
        let NextRun { type_, mode, plan, requests, new_base } = next;
        let model = &self.observed.model;
        let baseline = match &new_base {
            Some(_) => self.status.new_base.as_ref().map(|prepared| &prepared.baseline),
            None => self.status.baseline.as_ref().filter(|_| type_ == RunType::Forget),
        };
        let spec = UnlearnRunSpec {
            model: model.name_any(),
            type_,
            requests,
            new_base,
            mode,
            policy: policy.clone(),
            policy_source: source.cloned(),
            plan: before.map_or_else(|| plan.to_json(), |before| before.spec.plan.clone()),
            plan_digest: before.map_or_else(|| plan.digest(), |before| before.spec.plan_digest.clone()),
            reference: baseline.map(|baseline| baseline.reference.clone()),
            baseline_record: baseline.map(|baseline| baseline.record.clone()),
            baseline_quality: baseline.map(|baseline| baseline.quality.clone()),
            never_saw: plans::never_saw(model, &plan.task),
            made_before: before.and_then(reuse::made_by),
        };
        let mut run = UnlearnRun::new(&plan.run, spec);
        run.metadata.namespace = model.namespace();
        run.metadata.owner_references = job::owner(model).map(|owner| vec![owner]);
        run.metadata.labels = Some(
            [(labels::MANAGED_BY, labels::MANAGER.to_owned()), (labels::MODEL, model.name_any())]
                .map(|(key, value)| (key.to_owned(), value))
                .into(),
        );
        self.effects.push(Effect::CreateRun(Box::new(run)));
        self.look_again_in(POLL);
    }

    /// Compliant, Ready, phase and count, from everything else.
    fn summarize(&mut self) {
        let forgotten = targets::ledger_targets(&self.status.ledger).len();
        self.status.forgotten = Some(forgotten as u32);
        compliance::judge(self, forgotten);
        use ConditionType::{BaseInService, Compliant, Prepared, Ready, Serving};
        let list = self.conditions.clone().into_list();
        let failed =
            [Prepared, Compliant, Serving, BaseInService].into_iter().find(|type_| type_.is_false(&list));
        let waits = |type_: &ConditionType| match type_ {
            BaseInService => type_.find(&list).is_some_and(|condition| condition.status != "True"),
            _ => !type_.is_true(&list),
        };
        let waiting = [Prepared, Serving, BaseInService].into_iter().find(waits);
        let serves_nothing =
            self.observed.model.spec.serving.initial == InitialServing::None && forgotten == 0;
        match (failed, waiting) {
            (Some(type_), _) => {
                self.status.phase = Some(ModelPhase::Degraded);
                self.repeat(&list, type_, "False");
            }
            (None, Some(type_)) if !(type_ == Serving && serves_nothing && !self.is_rolling_out()) => {
                self.status.phase = Some(match type_ {
                    Prepared if self.status.active_run.is_some() => ModelPhase::Preparing,
                    Serving => ModelPhase::RollingOut,
                    BaseInService if self.status.active_run.is_some() => base::phase(&list),
                    _ => ModelPhase::Pending,
                });
                self.repeat(&list, type_, "Unknown");
            }
            _ => {
                let busy = self.status.active_run.is_some();
                self.status.phase = Some(if busy { ModelPhase::Forgetting } else { ModelPhase::Ready });
                match &self.observed.policy {
                    Ok(_) => self.conditions.yes(Ready, Reason::Ready, "prepared, served and compliant"),
                    // What is served stays, and a run under way has its copy.
                    Err(none) => {
                        let model = &self.observed.model;
                        let (reason, message) = none.say(&model.name_any(), &model.spec.policy_ref);
                        let message = format!("{message}. It is served, and no run can begin");
                        self.conditions.unknown(Ready, reason, message);
                    }
                }
            }
        }
    }

    /// Ready repeats the condition that keeps it from being True.
    fn repeat(
        &mut self,
        list: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition],
        type_: ConditionType,
        status: &str,
    ) {
        match type_.find(list) {
            Some(found) => {
                let mut ready = found.clone();
                ready.type_ = ConditionType::Ready.as_str().into();
                ready.status = status.into();
                self.conditions.copy(&ready);
            }
            None => {
                self.conditions.unknown(ConditionType::Ready, Reason::WaitingForModel, "not observed yet")
            }
        }
    }
}

/// Runs that this very model owns, not those of a deleted one of the same name.
pub fn own_runs<'a>(
    model: &DiffusionModel,
    runs: &'a [UnlearnRun],
) -> impl Iterator<Item = &'a UnlearnRun> + Clone + use<'a> {
    let uid = model.uid();
    runs.iter().filter(move |run| {
        let owners = run.meta().owner_references.iter().flatten();
        owners.into_iter().any(|owner| Some(&owner.uid) == uid.as_ref())
    })
}

/// The name of the plan's run; with a number if a run that failed or was given up has it already.
fn free_name(name: &str, taken: &[&UnlearnRun]) -> String {
    let is_taken = |name: &str| taken.iter().any(|run| run.name_any() == name);
    let numbered = (2..).map(|attempt| format!("{name}-{attempt}"));
    std::iter::once(name.to_owned()).chain(numbered).find(|name| !is_taken(name)).unwrap_or_default()
}
