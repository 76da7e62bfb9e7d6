//! What the API server noted about the requests of the operators.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context, Result};
use k8s_openapi::api::rbac::v1::PolicyRule;
use serde::Deserialize;

/// One request, as in the audit log.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    #[serde(rename = "auditID")]
    pub id: String,
    pub verb: String,
    pub user: User,
    pub object_ref: Option<ObjectRef>,
    pub response_status: Option<Status>,
    #[serde(rename = "requestURI")]
    pub uri: String,
}

#[derive(Clone, Debug, Deserialize)]
pub struct User {
    pub username: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectRef {
    pub api_group: String,
    pub resource: String,
    pub subresource: String,
    pub name: String,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    #[serde(default)]
    pub code: u16,
}

/// A verb on a resource (`group/resource` or `group/resource/subresource`), as RBAC names them.
pub type Use = (String, String);

/// The requests that the service account of `namespace` has made so far, each once.
///
/// # Errors
/// If the log cannot be read.
pub fn of(log: &Path, namespace: &str) -> Result<Vec<Entry>> {
    let text = fs::read_to_string(log).with_context(|| format!("cannot read {}", log.display()))?;
    let user = format!("system:serviceaccount:{namespace}:");
    let mut seen = BTreeSet::new();
    // The last line may be half written.
    let entries = text.lines().filter_map(|line| serde_json::from_str::<Entry>(line).ok());
    Ok(entries.filter(|e| e.user.username.starts_with(&user) && seen.insert(e.id.clone())).collect())
}

impl Entry {
    /// Whether a service account of this name asked for it.
    pub fn is_by(&self, account: &str) -> bool {
        self.user.username.rsplit(':').next() == Some(account)
    }

    pub fn is_write(&self) -> bool {
        !["get", "list", "watch"].contains(&&*self.verb)
    }

    pub fn is_of_a_lease(&self) -> bool {
        self.object_ref.as_ref().is_some_and(|object| object.resource == "leases")
    }

    pub fn is_forbidden(&self) -> bool {
        self.response_status.as_ref().is_some_and(|status| status.code == 403)
    }

    /// What was done to what; none for a request that is about no resource.
    pub fn used(&self) -> Option<Use> {
        let object = self.object_ref.as_ref()?;
        Some((self.verb.clone(), resource(&object.api_group, &object.resource, &object.subresource)))
    }
}

/// All that these rules allow.
pub fn allowed(rules: &[PolicyRule]) -> BTreeSet<Use> {
    let mut all = BTreeSet::new();
    for rule in rules {
        for group in rule.api_groups.iter().flatten() {
            for named in rule.resources.iter().flatten() {
                let (named, subresource) = named.split_once('/').unwrap_or((named, ""));
                all.extend(rule.verbs.iter().map(|verb| (verb.clone(), resource(group, named, subresource))));
            }
        }
    }
    all
}

pub fn resource(group: &str, resource: &str, subresource: &str) -> String {
    match subresource {
        "" => format!("{group}/{resource}"),
        subresource => format!("{group}/{resource}/{subresource}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_write_is_not_the_operators() {
        let by = |id: &str, user: &str, verb: &str, resource: &str| {
            serde_json::json!({
                "auditID": id, "verb": verb, "user": {"username": user}, "requestURI": "/",
                "objectRef": {"resource": resource},
            })
            .to_string()
        };
        let operator = "system:serviceaccount:lethe-system:lethe";
        let lines = [
            by("1", operator, "patch", "unlearnruns"),
            by("1", operator, "patch", "unlearnruns"),
            by("2", operator, "update", "leases"),
            by("3", operator, "get", "deployments"),
            by("4", "kwok", "update", "leases"),
            by("5", "kwok", "patch", "pods"),
            by("6", "system:serviceaccount:models:default", "patch", "pods"),
            r#"{"auditID": "7", "verb": "pat"#.into(),
        ];
        let log = tempfile::NamedTempFile::new().unwrap();
        fs::write(log.path(), lines.join("\n")).unwrap();
        let entries = of(log.path(), "lethe-system").unwrap();
        let ids = |is: fn(&&Entry) -> bool| entries.iter().filter(is).map(|e| &*e.id).collect::<Vec<_>>();
        assert_eq!(ids(|_| true), ["1", "2", "3"]);
        assert_eq!(ids(|entry| entry.is_write() && !entry.is_of_a_lease()), ["1"]);
    }
}
