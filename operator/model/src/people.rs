//! What people do: they make requests, change and delete what is theirs, and say what they think of it.

use std::sync::Arc;

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Resource, ResourceExt};
use lethe_api::Digest;
use lethe_api::v1alpha1::{
    ApprovalDecision, ApprovedRequest, ApprovedStep, InitialServing, Promotion, RequestPhase, Rollout,
    RolloutState, UnlearnApproval, UnlearnApprovalSpec, UnlearnRequest, annotations,
};
use lethe_core::{asked, request, rollout};

use crate::{
    acts::{Disturbance, Drift},
    objects::{self, BASES, MODEL},
    scene::{REQUESTER, Scene},
    shared::Shared,
    state::{State, find, find_mut, written},
    trainer::digest,
};

/// Something that somebody says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    Says {
        who: &'static str,
        decision: ApprovalDecision,
        request: Arc<str>,
        of: Of,
    },
    /// Deletes an approval.
    TakesBack(Arc<str>),
    AsksToRetry(Arc<str>),
    AsksToAbort(Arc<str>),
}

/// What it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    Request,
    /// The same again, by an object of another name.
    RequestAgain,
    /// The candidate that is beside the target, at the step where that stands.
    Step,
    AnotherStep,
    AnotherCandidate,
}

/// Who may agree to what somebody else asks for.
const OTHERS: [&str; 2] = ["ann", "ben"];

use ApprovalDecision::{Approve, Deny};

/// Everything that somebody may say in a state.
pub fn words(scene: Scene, state: &State, all: &mut Vec<Word>) {
    let says =
        |who, decision, request: &Arc<str>, of| Word::Says { who, decision, request: request.clone(), of };
    for request in &state.objects.requests {
        let name: Arc<str> = request.name_any().into();
        if asked::retry(request).is_none() {
            all.push(Word::AsksToRetry(name.clone()));
        }
        if asked::abort(request).is_none() {
            all.push(Word::AsksToAbort(name.clone()));
        }
        if request::is_over(request) {
            continue;
        }
        if matches!(scene, Scene::Approvals(_) | Scene::Pilots) {
            all.extend([
                says("ann", Approve, &name, Of::Request),
                says("ben", Approve, &name, Of::Request),
                says("ben", Deny, &name, Of::Request),
                says("ben", Approve, &name, Of::AnotherCandidate),
                says(REQUESTER, Approve, &name, Of::Request),
                says(REQUESTER, Deny, &name, Of::Request),
            ]);
            let once = state.approval("ann", Approve, &name, Of::Request);
            let is_said = find(&state.objects.approvals, &once.name_any()).is_some();
            all.extend(is_said.then(|| says("ann", Approve, &name, Of::RequestAgain)));
        }
    }
    if canary(state).is_some() {
        let name = &state.worked_for();
        all.extend([
            says("ann", Approve, name, Of::Step),
            says("ann", Approve, name, Of::AnotherStep),
            says("ann", Approve, name, Of::AnotherCandidate),
            says("ann", Approve, name, Of::Request),
            says("ben", Deny, name, Of::Step),
            says(REQUESTER, Approve, name, Of::Step),
        ]);
    }
    all.retain(|word| match word {
        Word::Says { who, decision, request, of } => {
            let said = state.approval(who, *decision, request, *of);
            find(&state.objects.approvals, &said.name_any()).is_none()
        }
        _ => true,
    });
    all.extend(state.objects.approvals.iter().map(|said| Word::TakesBack(said.name_any().into())));
}

/// A key by which an archive keeps two ledgers, as far as anybody can tell.
const SPOILS: &str = "ledger-of-nobody.json";

/// What people do to objects, each as one disturbance.
pub fn troubles(state: &State, all: &mut Vec<Disturbance>) {
    for request in &state.objects.requests {
        let name: Arc<str> = request.name_any().into();
        if !request.spec.suspend && !request::is_over(request) {
            all.push(Disturbance::Suspends(name.clone()));
        }
        all.push(Disturbance::DeletesRequest(name));
    }
    all.extend(state.objects.runs.iter().map(|run| Disturbance::DeletesRun(run.name_any().into())));
    if state.objects.model.as_ref().is_some_and(|model| model.metadata.deletion_timestamp.is_none()) {
        all.push(Disturbance::EditsBase);
        all.extend(state.audit.publishes.then_some(Disturbance::EditsPromotion));
        match state.objects.archive {
            // A model that comes back meanwhile begins without a ledger, as it says: scenarios play that.
            Some(_) if state.is_archive_spoilt() => {}
            Some(_) => all.extend([Disturbance::DeletesModel, Disturbance::SpoilsArchive]),
            None => all.push(Disturbance::DeletesModel),
        }
    }
    if state.objects.policy.spec.training.forget_steps.is_none() {
        all.push(Disturbance::EditsPolicy);
    }
    all.extend(state.objects.canary.is_some().then_some(Disturbance::DeletesCanary));
    all.extend(state.objects.service.is_some().then_some(Disturbance::DeletesService));
    let named = rollout::annotation(&state.objects.deployment);
    let baseline = digest("baseline");
    for (drift, names) in [
        (Drift::Nothing, None),
        (Drift::Baseline, Some(baseline.as_str())),
        (Drift::Garbage, Some("garbage")),
    ] {
        if named != names {
            all.push(Disturbance::Drifts(drift));
        }
    }
}

/// The roll-out whose candidate is beside the target.
fn canary(state: &State) -> Option<&Rollout> {
    let rollout = state.objects.model.as_ref()?.status.as_ref()?.rollout.as_ref()?;
    Some(rollout).filter(|rollout| rollout.state == RolloutState::Canary)
}

impl State {
    pub fn hear(&mut self, word: &Word) {
        match word {
            Word::Says { who, decision, request, of } => {
                let said = self.approval(who, *decision, request, *of);
                self.objects.approvals.push(Shared::new(said));
                self.objects.approvals.sort_by_key(|said| said.name_any());
            }
            Word::TakesBack(name) => self.objects.approvals.retain(|said| said.name_any() != **name),
            Word::AsksToRetry(name) => self.annotate_request(name, annotations::RETRY),
            Word::AsksToAbort(name) => self.annotate_request(name, annotations::ABORT),
        }
    }

    /// As somebody would write it. Of a base's candidate, no request has to be named.
    fn approval(&self, who: &str, decision: ApprovalDecision, request: &str, of: Of) -> UnlearnApproval {
        let uid = find(&self.objects.requests, request).and_then(|found| found.metadata.uid.clone());
        let uid = uid.unwrap_or_else(|| "nobodys".into());
        let beside = canary(self);
        let step = beside.and_then(|it| it.canary.as_ref()).map_or(1, |canary| canary.step.max(1));
        let candidate = beside.map_or_else(|| digest("another"), |rollout| rollout.to.clone());
        let rollout = match of {
            Of::Request | Of::RequestAgain => None,
            Of::Step => Some(ApprovedStep { digest: candidate, step }),
            Of::AnotherStep => Some(ApprovedStep { digest: candidate, step: step + 1 }),
            Of::AnotherCandidate => Some(ApprovedStep { digest: digest("another"), step }),
        };
        let about = rollout.as_ref().map(|it| format!("{}-{}", it.step, it.digest.short()));
        let name = format!("{who}-{decision:?}-{uid}-{of:?}-{}", about.unwrap_or_default());
        let request_ref = ApprovedRequest { name: request.into(), uid };
        let (approver, reason) = (who.into(), "looked at it".into());
        UnlearnApproval::new(&name, UnlearnApprovalSpec { request_ref, decision, rollout, approver, reason })
    }

    /// A word that was not there before.
    fn annotate_request(&mut self, name: &str, annotation: &str) {
        let count = self.births.add(&format!("{annotation} of {name}"));
        if let Some(request) = find_mut(&mut self.objects.requests, name) {
            *request = request
                .with(|it| drop(it.annotations_mut().insert(annotation.into(), format!("word {count}"))));
        }
    }

    /// The first request that the candidate beside the target works for, if there is one.
    fn worked_for(&self) -> Arc<str> {
        let run = canary(self).and_then(|rollout| find(&self.objects.runs, rollout.run.as_ref()?));
        let first = run.and_then(|run| run.spec.requests.first().map(|request| request.name.clone()));
        first.unwrap_or_else(|| "nobodys".into()).into()
    }

    /// Those who are asked agree.
    pub fn agree(&mut self) {
        let waits = |request: &&Shared<UnlearnRequest>| {
            let phase = request.status.as_ref().and_then(|status| status.phase);
            phase == Some(RequestPhase::AwaitingApproval)
        };
        let waiting = self.objects.requests.iter().filter(waits);
        let mut about: Vec<(Arc<str>, Of)> =
            waiting.map(|request| (request.name_any().into(), Of::Request)).collect();
        about.extend(canary(self).map(|_| (self.worked_for(), Of::Step)));
        for (request, of) in about {
            for who in OTHERS {
                let said = self.approval(who, Approve, &request, of);
                if find(&self.objects.approvals, &said.name_any()).is_none() {
                    self.hear(&Word::Says { who, decision: Approve, request: request.clone(), of });
                }
            }
        }
    }

    pub fn ask(&mut self, mut request: UnlearnRequest, which: usize) {
        let name = request.name_any();
        let births = self.births.add(&format!("request {name}"));
        let age = i64::from(births) * 10 + which as i64;
        let meta = request.meta_mut();
        meta.uid = Some(format!("uid-{name}-{births}"));
        meta.generation = Some(1);
        meta.creation_timestamp = Some(Time(written() - SignedDuration::from_secs(900 - age)));
        self.objects.requests.push(Shared::new(request));
        self.objects.requests.sort_by_key(|request| request.name_any());
    }

    pub fn suspend(&mut self, name: &str, suspend: bool) {
        if let Some(request) = find_mut(&mut self.objects.requests, name) {
            *request = request.with(|request| {
                request.spec.suspend = suspend;
                // Two generations are enough to tell apart what was observed.
                request.metadata.generation = Some(if suspend { 2 } else { 1 });
            });
        }
    }

    pub fn apply_model(&mut self) {
        let mut model = objects::model(InitialServing::Baseline);
        if self.audit.publishes {
            model.spec.serving.promotion = Promotion::Publish;
        }
        let births = self.births.add(MODEL);
        model.metadata.uid = Some(format!("uid-{MODEL}-{births}"));
        model.metadata.generation = Some(1);
        model.metadata.creation_timestamp = Some(Time(written() - SignedDuration::from_secs(1_000)));
        self.objects.model = Some(Shared::new(model));
    }

    pub fn edit_promotion(&mut self) {
        self.audit.publishes = false;
        if let Some(model) = &mut self.objects.model {
            *model = model.with(|model| {
                model.spec.serving.promotion = Promotion::Apply;
                model.metadata.generation = Some(3);
            });
        }
    }

    /// What Git would have the target name, if that names something else.
    pub fn promotion(&self) -> Option<Option<Digest>> {
        let status = self.objects.model.as_ref()?.status.as_ref()?;
        let published = &status.published.as_ref()?.bundle;
        let names = rollout::annotation(&self.objects.deployment);
        (names != published.as_ref().map(Digest::as_str)).then(|| published.clone())
    }

    /// Git has the target name what is published.
    pub fn promote(&mut self) {
        if let Some(bundle) = self.promotion() {
            self.audit.serves(bundle.as_ref());
            self.annotate(bundle.as_ref().map(Digest::as_str));
        }
    }

    /// Adds what nobody can make anything of; the ledger stays beside it.
    pub fn spoil_archive(&mut self) {
        if let Some(archive) = &mut self.objects.archive {
            *archive = archive.with(|map| {
                map.data.get_or_insert_default().insert(SPOILS.into(), String::new());
            });
        }
    }

    pub fn is_archive_spoilt(&self) -> bool {
        let data = self.objects.archive.as_ref().and_then(|archive| archive.data.as_ref());
        data.is_some_and(|data| data.contains_key(SPOILS))
    }

    pub fn repair_archive(&mut self) {
        if !self.is_archive_spoilt() {
            return;
        }
        if let Some(archive) = &mut self.objects.archive {
            *archive = archive.with(|map| {
                map.data.get_or_insert_default().remove(SPOILS);
            });
        }
    }

    pub fn edit_base(&mut self) {
        let base = |name: &str| objects::base(name);
        if let Some(model) = &mut self.objects.model {
            *model = model.with(|model| {
                let is_first = model.spec.base == base(BASES[0]);
                model.spec.base = base(BASES[usize::from(is_first)]);
                model.metadata.generation = Some(if is_first { 2 } else { 1 });
            });
        }
    }

    pub fn delete_model(&mut self) {
        if let Some(model) = &mut self.objects.model {
            *model = model.with(|model| model.metadata.deletion_timestamp = Some(Time(written())));
        }
    }

    pub fn edit_policy(&mut self, steps: u32) {
        self.objects.policy = self.objects.policy.with(|policy| {
            policy.spec.training.forget_steps = Some(steps);
            policy.spec.training.prepare_steps = Some(steps);
        });
    }
}
