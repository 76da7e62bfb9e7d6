//! The ledger beside its model: a backup or a repository restores specs, not statuses.

use std::{collections::BTreeSet, time::Duration};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{ResourceExt, core::ObjectMeta};
use lethe_api::v1alpha1::{CompliantBundle, ConditionType, DiffusionModel, Reason, UnlearnRequest, labels};

use crate::{ArchivedLedger, Effect, Event, base, model::Lineage, names, targets};

/// How often an archive that people have to see to is looked at: nobody tells of a ConfigMap that changes.
pub(crate) const LOOK: Duration = Duration::from_secs(10);

/// Why it may not be known for certain what was forgotten.
pub(crate) const DOUBTS: [Reason; 3] = [Reason::LedgerConflict, Reason::LedgerLost, Reason::LedgerUnreadable];

const KEY: &str = "ledger.json";
/// What the key of a ledger begins with that a model left which was deleted while [`KEY`] held another.
const ASIDE: &str = "ledger-of-";

/// What the status says, as it is kept.
fn of_the_status(lineage: &Lineage<'_>) -> Option<ArchivedLedger> {
    let compliant = base::compliant(lineage)?;
    Some(ArchivedLedger {
        base: compliant.base,
        entries: lineage.status.ledger.clone(),
        digest: Some(compliant.digest),
        run: Some(compliant.run),
        turn: compliant.turn,
        refuted: compliant.refuted,
    })
}

/// Keeps what the status says. The entries are only ever added to; what honours them changes with a new base.
pub(crate) fn keep(lineage: &mut Lineage<'_>) {
    let (Ok(found), Some(archived)) = (&lineage.observed.archived, of_the_status(lineage)) else { return };
    let is_news = found.as_ref().is_none_or(|found| {
        archived.entries.starts_with(&found.entries)
            && (archived.entries.len() > found.entries.len() || archived.turn > found.turn)
    });
    if is_news {
        let kept = config_map(&lineage.observed.model, KEY.to_owned(), &archived);
        lineage.effects.push(Effect::ArchiveLedger(Box::new(kept)));
    }
}

/// Keeps what the status says beside an archive that is another ledger, or none, so that its model need not stay for it.
/// Until somebody has chosen between the two, a model of that name does nothing.
pub(crate) fn set_aside(lineage: &mut Lineage<'_>, why: &str) {
    let Some(archived) = of_the_status(lineage) else { return };
    let model = &lineage.observed.model;
    let key = format!("{ASIDE}{}.json", model.uid().unwrap_or_default());
    let note = format!("The ledger of this model is kept under {key:?}, beside what is there: {why}");
    let kept = config_map(model, key, &archived);
    lineage.effects.push(Effect::SetLedgerAside(Box::new(kept)));
    lineage.events.push(Event { warning: true, reason: "LedgerSetAside".into(), note });
}

/// What an archived ledger is honoured by. Earlier versions kept no more than the entries.
fn honours(archived: &ArchivedLedger) -> Option<CompliantBundle> {
    let last = archived.entries.last()?;
    Some(CompliantBundle {
        digest: archived.digest.clone().unwrap_or_else(|| last.digest.clone()),
        base: archived.base.clone(),
        run: archived.run.clone().unwrap_or_else(|| last.run.clone()),
        turn: archived.turn,
        refuted: archived.refuted.clone(),
    })
}

/// A model that comes back under its old name, or with an old status, gets its whole ledger back, and what honours it. With
/// another base, it is as if that had been edited.
///
/// # Errors
/// If the archived ledger is another one, or cannot be read: either of them would be lost.
pub(crate) fn restore(lineage: &mut Lineage<'_>) -> Result<(), (Reason, String)> {
    let config_map = names::ledger_archive(&lineage.observed.model.name_any());
    let archived = match &lineage.observed.archived {
        Ok(Some(archived)) => archived,
        Ok(None) => return Ok(()),
        Err(why) => {
            let message = format!(
                "the archived ledger in ConfigMap {config_map:?} cannot be read: {why}. Repair it, or move it away to \
                 give it up"
            );
            return Err((Reason::LedgerUnreadable, message));
        }
    };
    let status = &mut lineage.status;
    let known = status.ledger.len();
    if status.ledger.starts_with(&archived.entries) {
        let turn = status.compliant.as_ref().map_or(0, |compliant| compliant.turn);
        if status.ledger.len() == archived.entries.len() && archived.turn > turn {
            // A status from before another base, or before an audit: no entry tells that it is old.
            status.compliant = honours(archived);
            base::drop_what_is_not_in_service(status);
        }
        return Ok(());
    }
    if !archived.entries.starts_with(&status.ledger) {
        let message = format!(
            "ConfigMap {config_map:?} keeps {} ledger entries that are not those of this model's status ({known}): \
             neither continues the other. Move the ConfigMap away if the status is right; it is written anew",
            archived.entries.len()
        );
        return Err((Reason::LedgerConflict, message));
    }
    status.ledger = archived.entries.clone();
    status.compliant = honours(archived);
    base::drop_what_is_not_in_service(status);
    let note = format!(
        "{} ledger entries were restored from ConfigMap {config_map:?}",
        archived.entries.len() - known
    );
    lineage.events.push(Event { warning: false, reason: "LedgerRestored".into(), note });
    Ok(())
}

/// Whoever was told that something is forgotten finds it in the ledger.
///
/// # Errors
/// If a request is Fulfilled, and the ledger does not have all that it asked for: its record was lost, and with it what kept it
/// from being served.
pub(crate) fn nothing_is_lost(lineage: &Lineage<'_>) -> Result<(), (Reason, String)> {
    let lost = lost(lineage);
    if lost.is_empty() {
        return Ok(());
    }
    let labels: BTreeSet<_> = lost.iter().map(|(_, label)| label.as_str()).collect();
    let requests: BTreeSet<_> = lost.iter().map(|(request, _)| request.as_str()).collect();
    let list = |names: BTreeSet<&str>| names.into_iter().collect::<Vec<_>>().join(", ");
    let message = format!(
        "{} had the answer that it was forgotten, and no ledger has it: {}. Restore ConfigMap {:?} from a backup; or, if \
         the model is to start anew, delete these requests, and create them again if it is to forget that",
        list(requests),
        list(labels),
        names::ledger_archive(&lineage.observed.model.name_any())
    );
    Err((Reason::LedgerLost, message))
}

/// The requests that were fulfilled, each with a label that the ledger does not have.
pub(crate) fn lost(lineage: &Lineage<'_>) -> Vec<(String, String)> {
    let known = targets::ledger_targets(&lineage.status.ledger);
    let fulfilled = lineage.observed.requests.iter().filter(|request| was_fulfilled(request));
    let labels = fulfilled.flat_map(|request| {
        let labels = request.spec.targets.iter().map(|target| target.label.clone());
        labels.map(|label| (request.name_any(), label))
    });
    labels.filter(|(_, label)| !known.contains_key(label)).collect()
}

fn was_fulfilled(request: &UnlearnRequest) -> bool {
    let conditions = request.status.as_ref().map(|status| &status.conditions[..]).unwrap_or_default();
    let fulfilled = ConditionType::Fulfilled.find(conditions);
    fulfilled.is_some_and(|it| it.status == "True" || it.reason == Reason::Reexposed.to_string())
}

/// The ConfigMap that keeps a ledger. It has no owner: nothing deletes it with the model.
fn config_map(model: &DiffusionModel, key: String, archived: &ArchivedLedger) -> ConfigMap {
    let ledger = serde_json::to_string(archived).expect("a ledger is strings and times");
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(names::ledger_archive(&model.name_any())),
            namespace: model.namespace(),
            labels: Some(
                [(labels::MANAGED_BY, labels::MANAGER.to_owned()), (labels::MODEL, model.name_any())]
                    .map(|(key, value)| (key.to_owned(), value))
                    .into(),
            ),
            ..Default::default()
        },
        data: Some([(key, ledger)].into()),
        ..Default::default()
    }
}

/// Reads an archive ConfigMap. An unreadable one is an error: a ledger must not be lost silently.
pub fn read(config_map: &ConfigMap) -> Result<ArchivedLedger, String> {
    let mut keys = config_map.data.iter().flat_map(|data| data.keys());
    if let Some(aside) = keys.find(|key| key.starts_with(ASIDE)) {
        return Err(format!(
            "it keeps two ledgers, {KEY:?} and that of a deleted model, {aside:?}: keep the right one under {KEY:?} \
             and remove the other key"
        ));
    }
    let text = config_map.data.as_ref().and_then(|data| data.get(KEY));
    let text = text.ok_or_else(|| format!("it has no key {KEY:?}"))?;
    serde_json::from_str(text).map_err(|error| error.to_string())
}
