//! What people have agreed to and what not, counted anew beside core: nothing may begin, go on or be recorded without what
//! it needs of them, or against it.

use std::collections::BTreeSet;

use kube::ResourceExt;
use lethe_api::{
    Digest,
    v1alpha1::{
        Acknowledged, ApprovalDecision, ConditionType, DiffusionModelStatus, Mode, Reason, RequestPhase,
        RequestRef, Rollout, RolloutState, RunType, UnlearnApprovalSpec, UnlearnRequest,
        UnlearnRequestStatus, UnlearnRun, Verdict, annotations,
    },
};
use lethe_core::{Effect, accept, rollout, run};

use crate::{
    cluster::Beside,
    decisions::{Call, Status, is_owned_by},
    scene::REQUESTER,
    shared::Shared,
    state::{Key, Objects, State, find},
};

type Lack = Option<&'static str>;

/// What a decision that was just made lacks.
pub fn lacks(state: &State, key: &Key, calls: &[Call]) -> Lack {
    calls.iter().find_map(|call| match (key, call) {
        (Key::Model, Call::Effect(effect)) => match &**effect {
            Effect::CreateRun(run) => to_begin(state, run),
            Effect::PatchServing { bundle: Some(bundle), .. } => to_be_served(state, bundle),
            _ => None,
        },
        (Key::Model, Call::Status(Some(status))) => match &**status {
            Status::Model(after) => to_go_on(state, after.rollout.as_ref()?),
            _ => None,
        },
        (Key::Run(name), Call::Effect(effect)) if matches!(**effect, Effect::CreateJob(_)) => {
            to_work(state, find(state.runs(), name)?)
        }
        _ => None,
    })
}

/// Those who did not make the requests.
fn others(objects: &Objects) -> impl Iterator<Item = &UnlearnApprovalSpec> {
    objects.approvals.iter().map(|said| &said.spec).filter(|said| said.approver != REQUESTER)
}

/// Those who have a say about a candidate: a base is nobody's request.
fn those_who_may<'a>(
    objects: &'a Objects,
    members: &[&str],
) -> impl Iterator<Item = &'a UnlearnApprovalSpec> + use<'a> {
    let is_nobodys = members.is_empty();
    objects.approvals.iter().map(|said| &said.spec).filter(move |it| is_nobodys || it.approver != REQUESTER)
}

fn request<'a>(all: &'a [Shared<UnlearnRequest>], uid: &str) -> Option<&'a Shared<UnlearnRequest>> {
    all.iter().find(|request| request.metadata.uid.as_deref() == Some(uid))
}

fn phase(request: &UnlearnRequest) -> Option<RequestPhase> {
    request.status.as_ref()?.phase
}

/// The word of an annotation that the status does not know.
fn asked_for<'a>(
    request: &'a UnlearnRequest,
    annotation: &str,
    known: fn(&UnlearnRequestStatus) -> Option<&Acknowledged>,
) -> Option<&'a String> {
    let word = request.annotations().get(annotation)?;
    let known = request.status.as_ref().and_then(known).map(|known| &known.token);
    Some(word).filter(|word| known != Some(word))
}

/// Whether somebody said that nobody should work for it.
fn is_refused(request: &UnlearnRequest) -> bool {
    matches!(phase(request), Some(RequestPhase::Denied | RequestPhase::Aborted))
        || asked_for(request, annotations::ABORT, |status| status.abort.as_ref()).is_some()
}

fn to_begin(state: &State, run: &UnlearnRun) -> Lack {
    if run.spec.type_ != RunType::Forget {
        return None;
    }
    let about = |uid: &str| {
        let of_it: Vec<_> =
            others(&state.objects).filter(|it| it.request_ref.uid == uid && it.rollout.is_none()).collect();
        of_it
    };
    run.spec.requests.iter().find_map(|member| {
        let known = request(state.requests(), &member.uid)?;
        let said = about(&member.uid);
        let yes: BTreeSet<_> = said
            .iter()
            .filter(|it| it.decision == ApprovalDecision::Approve)
            .map(|it| &it.approver)
            .collect();
        let required = match known.spec.mode {
            Mode::Enforce => usize::from(state.objects.policy.spec.approvals.required),
            Mode::Pilot => 0,
        };
        if said.iter().any(|it| it.decision == ApprovalDecision::Deny) {
            return Some("a run begins for what somebody said no to");
        }
        if is_refused(known) {
            return Some("a run begins for a request that was denied or aborted");
        }
        if yes.len() < required || member.approved_by.iter().any(|who| !yes.contains(who)) {
            return Some("a run begins for what too few others agreed to");
        }
        let shares = run.spec.requests.len() > 1 && known.spec.mode == Mode::Pilot;
        (shares || run.spec.mode != known.spec.mode).then_some("a pilot shares a run that is not one")
    })
}

/// Pilots are tried, and never served.
fn to_be_served(state: &State, bundle: &Digest) -> Lack {
    let is_it = |run: &&Shared<UnlearnRun>| {
        run.status.as_ref().and_then(|status| status.candidate.as_ref()) == Some(bundle)
    };
    let run = state.objects.runs.iter().find(is_it)?;
    (run.spec.mode == Mode::Pilot).then_some("the candidate of a pilot is served")
}

/// A run that everybody turned away from works no further.
fn to_work(state: &State, run: &UnlearnRun) -> Lack {
    let refused = |uid: &str| request(state.requests(), uid).is_some_and(|request| is_refused(request));
    let members = &run.spec.requests;
    members.iter().any(|member| refused(&member.uid)).then_some("a run works for what was denied or aborted")
}

/// A roll-out begins or goes on: its requests are still wanted, and those who are asked have agreed to the step that it
/// leaves.
fn to_go_on(state: &State, after: &Rollout) -> Lack {
    let known = state.model().and_then(|model| model.status.as_ref());
    let before = known.and_then(|status: &DiffusionModelStatus| status.rollout.as_ref());
    let before = before.filter(|it| it.run == after.run && it.to == after.to);
    let step = |rollout: &Rollout| rollout.canary.as_ref().map_or(0, |canary| canary.step);
    let goes_on = match before {
        None => matches!(after.state, RolloutState::Canary | RolloutState::Progressing),
        Some(before) if before.state == RolloutState::Canary => match after.state {
            RolloutState::Canary => step(after) > step(before),
            RolloutState::Progressing | RolloutState::Auditing | RolloutState::Complete => true,
            _ => false,
        },
        Some(_) => false,
    };
    let run = after.run.as_ref().and_then(|name| find(state.runs(), name));
    let run = run.filter(|run| goes_on && run.spec.type_ == RunType::Forget)?;
    if run.spec.mode == Mode::Pilot {
        return Some("a pilot is rolled out");
    }
    let members: Vec<&str> = run.spec.requests.iter().map(|member| member.uid.as_str()).collect();
    // Not as a cache shows them.
    let wanted = |uid: &&str| {
        request(&state.objects.requests, uid).is_some_and(|it| !is_refused(it) && !it.spec.suspend)
    };
    if !members.iter().all(wanted) {
        return Some("a roll-out goes on though somebody took it back");
    }
    let before = before?;
    let is_about = |said: &&UnlearnApprovalSpec| {
        said.rollout.as_ref().is_some_and(|it| it.digest == after.to)
            && (members.is_empty() || members.contains(&said.request_ref.uid.as_str()))
    };
    if those_who_may(&state.objects, &members)
        .filter(is_about)
        .any(|said| said.decision == ApprovalDecision::Deny)
    {
        return Some("a roll-out goes on though somebody said no");
    }
    let left = usize::try_from(step(before)).ok()?.checked_sub(1)?;
    let required = run.spec.policy.rollout.steps.get(left)?.approval.as_ref()?.required;
    let yes: BTreeSet<_> = those_who_may(&state.objects, &members)
        .filter(is_about)
        .filter(|said| said.decision == ApprovalDecision::Approve)
        .filter(|said| said.rollout.as_ref().is_some_and(|it| it.step == step(before)))
        .map(|said| &said.approver)
        .collect();
    (yes.len() < usize::from(required))
        .then_some("a step of a roll-out is left that too few others agreed to")
}

/// Nothing is in the ledger for a pilot, or for what was denied or aborted.
pub fn recorded(objects: &Objects) -> Lack {
    let status = objects.model.as_ref()?.status.as_ref()?;
    status.ledger.iter().find_map(|entry| {
        let known = request(&objects.requests, &entry.request.uid)?;
        if known.spec.mode == Mode::Pilot {
            return Some("a pilot is in the ledger");
        }
        matches!(phase(known), Some(RequestPhase::Denied | RequestPhase::Aborted))
            .then_some("the ledger names a request that was denied or aborted")
    })
}

/// An answer of a request, and what it acknowledges.
pub fn answered(before: &UnlearnRequest, after: &UnlearnRequest, objects: &Objects) -> Lack {
    let status = after.status.as_ref()?;
    let known = before.status.clone().unwrap_or_default();
    for (known, now) in [(&known.retry, &status.retry), (&known.abort, &status.abort)] {
        let is_told_again = known != now
            && known.as_ref().is_some_and(|known| now.as_ref().is_none_or(|now| now.token == known.token));
        if is_told_again {
            return Some("a word was acknowledged twice");
        }
    }
    match (after.spec.mode, status.phase?) {
        (Mode::Pilot, RequestPhase::Fulfilled) => Some("a pilot is fulfilled"),
        (Mode::Enforce, RequestPhase::Tried) => Some("what is not a pilot was only tried"),
        (_, RequestPhase::Aborted | RequestPhase::Denied) if phase(before) != status.phase => {
            ended(after, objects)
        }
        _ => None,
    }
}

/// Nothing works for what was just aborted or denied, and nothing of it is served.
fn ended(request: &UnlearnRequest, objects: &Objects) -> Lack {
    let uid = request.metadata.uid.as_deref()?;
    if phase(request) == Some(RequestPhase::Aborted) {
        // Those of a model that is gone are about to be collected.
        let is_own = |run: &&Shared<UnlearnRun>| {
            objects.model.as_ref().is_some_and(|model| is_owned_by(&***run, &**model))
                && run.spec.requests.iter().any(|member| member.uid == uid)
        };
        let own = objects.runs.iter().filter(is_own);
        if own.clone().any(|run| !run::is_over(run) && !is_given_up(run)) {
            return Some("a request is Aborted while a run works for it");
        }
        let made: Vec<_> = own.filter_map(|run| run.status.as_ref()?.candidate.clone()).collect();
        let of_target = rollout::reference(&objects.deployment);
        let beside =
            objects.canary.as_ref().and_then(|it: &Shared<Beside>| rollout::reference(&it.deployment));
        if [of_target, beside].into_iter().flatten().any(|named| made.contains(&named)) {
            return Some("a request is Aborted while its candidate is served");
        }
    }
    None
}

/// A run that was just created: whether it is an attempt that was made already, or one more than there may be.
pub fn tried_again(objects: &Objects, name: &str) -> Lack {
    let run = find(&objects.runs, name)?;
    let allowed = run.spec.policy.on_gate_failure.allowed();
    run.spec.requests.iter().find_map(|member| {
        let is_it = |other: &&UnlearnRun| {
            let same = |it: &RequestRef| it.uid == member.uid && it.attempt == member.attempt;
            other.name_any() != name && other.spec.requests.iter().any(same)
        };
        let others = objects.runs.iter().map(|run| &**run);
        if others.filter(is_it).any(|other| has_failed(other, &member.uid)) {
            return Some("an attempt is made twice");
        }
        let retried = request(&objects.requests, &member.uid)?.status.as_ref()?.retry.as_ref();
        let aside = retried.and_then(|retry| retry.after_attempt).unwrap_or_default();
        (member.attempt > allowed.max(aside + 1)).then_some("there are more attempts than anybody asked for")
    })
}

/// Whether a run was measured and failed, and that counts for this request.
fn has_failed(run: &UnlearnRun, uid: &str) -> bool {
    let verdict = run.status.as_ref().and_then(|status| status.verdict);
    verdict.is_some_and(|verdict| verdict != Verdict::Pass)
        && !is_given_up(run)
        && !accept::is_blameless(run, uid)
}

/// Whether nothing will come of a run, or came of it, because nobody wants it to.
fn is_given_up(run: &UnlearnRun) -> bool {
    let conditions = run.status.as_ref().map(|status| &status.conditions[..]).unwrap_or_default();
    [ConditionType::Ready, ConditionType::Promoted]
        .into_iter()
        .any(|type_| type_.find(conditions).is_some_and(|it| it.reason == Reason::Superseded.to_string()))
}

/// Every word has its answer in the end, and whoever is in the ledger is told so.
pub fn at_the_end(objects: &Objects) -> Lack {
    objects.requests.iter().find_map(|it| {
        let retry = asked_for(it, annotations::RETRY, |status| status.retry.as_ref());
        let abort = asked_for(it, annotations::ABORT, |status| status.abort.as_ref());
        if retry.or(abort).is_some() {
            return Some("what somebody asked for by an annotation is never answered");
        }
        let ledger = objects.model.iter().flat_map(|model| &model.status).flat_map(|status| &status.ledger);
        let is_recorded =
            ledger.into_iter().any(|entry| Some(&entry.request.uid) == it.metadata.uid.as_ref());
        let known = [RequestPhase::Fulfilled, RequestPhase::Reexposed];
        (is_recorded && phase(it).is_none_or(|phase| !known.contains(&phase)))
            .then_some("the ledger names a request that does not say so")
    })
}
