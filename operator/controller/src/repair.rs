//! Closing what a predecessor left open in the audit log: it said what it was about to do, and died before it could say what
//! became of it. What is there now tells.

use jiff::{SignedDuration, Timestamp};
use kube::{
    Api, Client,
    core::{ApiResource, DynamicObject},
};
use lethe_core::trail;
use lethe_store::log::Writer;
use lethe_transparency::{Action, Object, Said, Upshot};
use serde_json::Value;

use crate::{
    calls,
    error::{Category, Error},
};

/// What a command has left open for longer it has left for good. The chart's collector has an hour.
const LONGEST_COMMAND: SignedDuration = SignedDuration::from_hours(2);

/// Numbers of open entries, and what became of each. `own` are this process's, which says so itself.
///
/// # Errors
/// If the log or the API server cannot be read.
pub async fn close(client: &Client, writer: &Writer, own: &[u64]) -> Result<Vec<(u64, Upshot)>, String> {
    let mut closed = Vec::new();
    for number in writer.book().open().filter(|number| !own.contains(number)) {
        let entry = match writer.book().entry(number) {
            Some(entry) => entry.clone(),
            None => writer.entry(number).await.map_err(|error| error.to_string())?,
        };
        let said = entry.said;
        if is_of_a_command(&said) && may_be_at_work(&entry.at, Timestamp::now()) {
            continue;
        }
        let upshot = match said.is_to_be() {
            Some((_, object)) => match live(client, object).await? {
                Seen::Nothing => trail::found(&said, None),
                Seen::Object(live) => trail::found(&said, Some(&live)),
                Seen::Forbidden => Upshot::Unknown,
            },
            None => Upshot::Unknown,
        };
        tracing::info!(entry = number, ?upshot, "an entry that a predecessor left open is closed");
        closed.push((number, upshot));
    }
    Ok(closed)
}

/// Whether it was said beside the operator ([`crate::clerk`]), which is at work when this is read.
fn is_of_a_command(said: &Said) -> bool {
    matches!(said.is_to_be(), Some((Action::Collect | Action::SignAgain, _)))
}

/// Whether a command that said something then may still say what became of it.
fn may_be_at_work(at: &str, now: Timestamp) -> bool {
    at.parse::<Timestamp>().is_ok_and(|at| now.duration_since(at) < LONGEST_COMMAND)
}

enum Seen {
    Nothing,
    Object(Value),
    /// It is of no kind that this version knows, or this operator may not see it any more.
    Forbidden,
}

async fn live(client: &Client, object: &Object) -> Result<Seen, String> {
    let Some((group, version, plural)) = place(&object.kind) else { return Ok(Seen::Forbidden) };
    let resource = ApiResource {
        group: group.into(),
        version: version.into(),
        api_version: if group.is_empty() { version.into() } else { format!("{group}/{version}") },
        kind: object.kind.clone(),
        plural: plural.into(),
    };
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &object.namespace, &resource);
    let what = format!("read {} {}/{}", object.kind, object.namespace, object.name);
    match calls::read(what, api.get_opt(&object.name)).await {
        Ok(None) => Ok(Seen::Nothing),
        Ok(Some(found)) => serde_json::to_value(found).map(Seen::Object).map_err(|error| error.to_string()),
        Err(error @ Error::Api { .. })
            if matches!(error.category(), Category::Forbidden | Category::Invalid | Category::Malformed) =>
        {
            Ok(Seen::Forbidden)
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Group, version and plural of the kinds that are ever said to be changed.
fn place(kind: &str) -> Option<(&'static str, &'static str, &'static str)> {
    Some(match kind {
        "ConfigMap" => ("", "v1", "configmaps"),
        "Service" => ("", "v1", "services"),
        "Deployment" => ("apps", "v1", "deployments"),
        "Job" => ("batch", "v1", "jobs"),
        "DiffusionModel" => ("lethe.dev", "v1alpha1", "diffusionmodels"),
        "UnlearnRequest" => ("lethe.dev", "v1alpha1", "unlearnrequests"),
        "UnlearnRun" => ("lethe.dev", "v1alpha1", "unlearnruns"),
        _ => return None,
    })
}
