//! Requests that ask for what others have asked for already.
//!
//! Those that wait at the same time share a run, and with it their answer. One that comes while an earlier one is worked for
//! waits for what becomes of that: a run of its own would find the same.

use jiff::Timestamp;
use kube::{Resource, ResourceExt};
use lethe_api::v1alpha1::{ConditionType, DiffusionModelStatus, Mode, UnlearnRequest, UnlearnRun};

use crate::{asked, request};

/// The requests by which everything that one asks for is forgotten, or will be, each once: those in the ledger, and of the
/// `others` those that came earlier and are in the queue or worked for. None if anything of it is left for itself. If one of
/// these fails, is suspended or goes, it counts no more.
pub fn of<'a>(
    request: &UnlearnRequest,
    model: &DiffusionModelStatus,
    others: impl IntoIterator<Item = &'a UnlearnRequest>,
) -> Option<Vec<String>> {
    let mut earlier: Vec<_> = others.into_iter().filter(|other| may_cover(request, other)).collect();
    earlier.sort_by_key(|request| age(request));
    let mut names: Vec<String> = Vec::new();
    for target in &request.spec.targets {
        let recorded = model.ledger.iter().find(|entry| entry.targets.contains(&target.label));
        let name = match recorded {
            Some(entry) if Some(&entry.request.uid) == request.metadata.uid.as_ref() => continue,
            Some(entry) => entry.request.name.clone(),
            None => earlier.iter().find(|other| other.spec.targets.contains(target))?.name_any(),
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Some(names)
}

/// Of those that share a run with the request of this uid, the earlier ones that ask for all of it; none if they do not.
pub fn within(run: &UnlearnRun, uid: &str) -> Vec<String> {
    let requests = &run.spec.requests;
    let Some(index) = requests.iter().position(|request| request.uid == uid) else { return Vec::new() };
    let mut names: Vec<String> = Vec::new();
    for target in &requests[index].targets {
        let Some(earlier) = requests[..index].iter().find(|request| request.targets.contains(target)) else {
            return Vec::new();
        };
        if !names.contains(&earlier.name) {
            names.push(earlier.name.clone());
        }
    }
    names
}

/// Whether another request for the same model asks for something of `request` as well, in earnest, and came before it.
pub fn may_cover(request: &UnlearnRequest, other: &UnlearnRequest) -> bool {
    other.spec.mode == Mode::Enforce
        && !other.spec.suspend
        && age(other) < age(request)
        && is_in_the_queue(other)
        && request.spec.targets.iter().any(|target| other.spec.targets.contains(target))
}

fn age(request: &UnlearnRequest) -> (Option<Timestamp>, Option<&str>) {
    let meta = request.meta();
    (meta.creation_timestamp.as_ref().map(|at| at.0), meta.name.as_deref())
}

/// Whether a request waits for a run, or is worked for.
pub fn is_in_the_queue(request: &UnlearnRequest) -> bool {
    let conditions = request.status.as_ref().map(|status| &status.conditions[..]).unwrap_or_default();
    ConditionType::Accepted.is_true(conditions)
        && ConditionType::Scheduled.find(conditions).is_some()
        && !request::is_over(request)
        && !asked::is_withdrawn(request)
}
