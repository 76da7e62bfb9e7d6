//! Who vouches for what was measured: a digest tells that bytes are what was named, not who named them.

use lethe_api::{
    Digest,
    contract::{Evidence, Statement},
    v1alpha1::{DiffusionModel, RunType, UnlearnRun, Verdict},
};
use lethe_core::evidence::{is_of, of_run};
use lethe_evidence::TrustedKeys;
use lethe_store::{Evidence as Found, Store};
use serde_json::Value;

use super::Notes;

const UNSIGNED: &str =
    "nothing is signed: whoever could write to the store and to the API server could have written all of it";

/// Whether a trusted key has signed what follows from a run, and nothing else lies beside it.
pub(super) async fn run(
    run: &UnlearnRun,
    store: &Store,
    trusted: Option<&TrustedKeys>,
    notes: &mut Notes<'_>,
) {
    let status = run.status.clone().unwrap_or_default();
    if run.spec.type_ != RunType::Forget {
        return notes.not_checked("signatures", "of such a run nothing is signed");
    }
    let Some(trusted) = trusted else {
        return match &status.evidence {
            None => notes.not_checked("signatures", UNSIGNED),
            Some(_) => notes.not_checked("signatures", "who signed the evidence: give --trusted-keys"),
        };
    };
    let (Some(statement), Some(bundle)) = (of_run(run), &status.candidate) else {
        return match status.verdict {
            None => notes.not_checked("signatures", "nothing was measured yet"),
            Some(_) => {
                let why = "the run does not say what its verdict rests on".to_owned();
                notes.that("what is to be signed follows from the run", Err(why));
            }
        };
    };
    let Some(found) = read(bundle, store, trusted, notes).await else { return };
    let named = status.evidence.as_ref().ok_or("the run names none");
    let named = named.map_err(ToString::to_string).and_then(|named| is_there(named, &found));
    notes.that("the evidence that the run names is in the store", named);
    let signed = is_signed(run, &statement, &found);
    let what = match &signed {
        Ok(key) => format!("key {} has signed what follows from this run", key.short()),
        Err(_) => "a trusted key has signed what follows from this run".into(),
    };
    notes.that(what, signed.map(drop));
}

/// Whether what should be served is signed as something that passed for all that is forgotten.
pub(super) async fn model(
    model: &DiffusionModel,
    store: &Store,
    trusted: Option<&TrustedKeys>,
    notes: &mut Notes<'_>,
) {
    let (status, Some(trusted)) = (model.status.clone().unwrap_or_default(), trusted) else { return };
    let Some(last) = status.ledger.last() else { return };
    let bundle = status.compliant.as_ref().map_or(&last.digest, |compliant| &compliant.digest);
    let Some(found) = read(bundle, store, trusted, notes).await else { return };
    let labels: Vec<&String> = status.ledger.iter().flat_map(|entry| &entry.targets).collect();
    let is_it = |evidence: &Evidence| {
        let forgets = |label: &&String| evidence.forgets.iter().any(|forgotten| forgotten.label == **label);
        evidence.verdict == Verdict::Pass && labels.iter().all(forgets)
    };
    let proven = found.good.iter().any(|(_, proof)| is_it(&proof.evidence));
    let why = || first_doubt(&found).unwrap_or_else(|| "nothing that is signed says so".into());
    notes.that(
        format!("a trusted key has signed that {} passed for the whole ledger", bundle.short()),
        if proven { Ok(()) } else { Err(why()) },
    );
}

/// What there is about a bundle. Whatever was changed is told, even if something else there is good.
async fn read(bundle: &Digest, store: &Store, trusted: &TrustedKeys, notes: &mut Notes<'_>) -> Option<Found> {
    let found = store.evidence(bundle, trusted).await.map_err(|error| error.to_string());
    let whole = found.as_ref().map_err(Clone::clone).and_then(|found| {
        let changed = found.bad.iter().find(|doubt| !doubt.is_foreign);
        changed.map_or(Ok(()), |doubt| Err(doubt.to_string()))
    });
    notes.that(format!("the evidence about {} in the store is whole", bundle.short()), whole);
    let found = found.ok()?;
    for doubt in found.bad.iter().filter(|doubt| doubt.is_foreign && !found.good.is_empty()) {
        notes.not_checked(format!("more evidence about {}", bundle.short()), doubt.to_string());
    }
    Some(found)
}

fn is_there(named: &Digest, found: &Found) -> Result<(), String> {
    let is_good = found.good.iter().any(|(envelope, _)| envelope == named);
    let doubt = found.bad.iter().find(|doubt| doubt.envelope.as_ref() == Some(named));
    match doubt {
        _ if is_good => Ok(()),
        // Another key has signed the same since, or that is told below.
        Some(doubt) if doubt.is_foreign => Ok(()),
        Some(doubt) => Err(doubt.to_string()),
        None => Err(format!("there is no envelope {}", named.short())),
    }
}

/// The key that has signed exactly this.
fn is_signed(run: &UnlearnRun, statement: &Statement, found: &Found) -> Result<Digest, String> {
    let exact = found.good.iter().find(|(_, proof)| proof.evidence == statement.predicate);
    if let Some((_, proof)) = exact {
        return Ok(proof.key.clone());
    }
    let about = found.good.iter().find(|(_, proof)| is_of(&proof.evidence, run)).or(found.good.first());
    Err(match about {
        Some((_, proof)) => {
            format!("what is signed differs in {}", differences(&statement.predicate, &proof.evidence))
        }
        None => first_doubt(found).unwrap_or_else(|| "there is no evidence about its candidate".into()),
    })
}

fn first_doubt(found: &Found) -> Option<String> {
    found.bad.first().map(ToString::to_string)
}

/// The fields in which they are not the same.
fn differences(one: &Evidence, other: &Evidence) -> String {
    let (one, other) = (serde_json::to_value(one), serde_json::to_value(other));
    let (Ok(Value::Object(one)), Ok(Value::Object(other))) = (one, other) else { return String::new() };
    let names =
        one.iter().filter(|(name, value)| other.get(*name) != Some(value)).map(|(name, _)| name.as_str());
    names.collect::<Vec<_>>().join(", ")
}
