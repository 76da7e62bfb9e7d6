//! The custom resource definitions of this version, and an object checked by the one of its kind.

use std::{cell::RefCell, collections::HashMap, rc::Rc};

use serde_json::{Value, json};

use crate::yaml::{Node, Step, written};

use super::{
    Finding, Severity,
    schema::{self, Fault},
};

/// A line of a file that says that its objects are parts, for `kubectl patch`: what they lack is elsewhere.
pub const PART: &str = "# kubectl lethe lint: a part of a manifest";

const GROUP: &str = "lethe.dev";
const VERSION: &str = "lethe.dev/v1alpha1";

/// The definitions as they are installed.
pub(super) const DEFINITIONS: [(&str, &str); 6] = [
    ("ClusterUnlearnPolicy", include_str!("../../../../crds/clusterunlearnpolicies.yaml")),
    ("DiffusionModel", include_str!("../../../../crds/diffusionmodels.yaml")),
    ("UnlearnApproval", include_str!("../../../../crds/unlearnapprovals.yaml")),
    ("UnlearnPolicy", include_str!("../../../../crds/unlearnpolicies.yaml")),
    ("UnlearnRequest", include_str!("../../../../crds/unlearnrequests.yaml")),
    ("UnlearnRun", include_str!("../../../../crds/unlearnruns.yaml")),
];

/// An object that stands in a file.
#[derive(Clone, Debug)]
pub struct Object {
    pub file: String,
    pub node: Node,
    pub kind: String,
    pub name: String,
    pub namespace: Option<String>,
    /// With the defaults that the API server adds.
    pub value: Value,
}

pub enum Checked {
    NotOurs,
    Ours {
        /// None for a part of a manifest.
        object: Option<Object>,
        findings: Vec<Finding>,
    },
}

/// Checks one document of a file.
pub fn check(file: &str, node: Node, is_part: bool) -> Checked {
    let (version, kind) =
        (node.text("apiVersion").unwrap_or_default(), node.text("kind").unwrap_or_default());
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let mut value = node.json();
    let name = value["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let object = format!("{kind} {name}").trim().to_owned();
    let at = |path: &[Step], message: String| {
        let (line, column) = node.place(path);
        let (file, object) = (file.to_owned(), object.clone());
        Finding { file, line, column, severity: Severity::Error, object, path: written(path), message }
    };
    if group != GROUP {
        // A document without a kind is nobody's, and kubectl refuses it.
        let is_object = !version.is_empty() && !kind.is_empty();
        return match is_object {
            true => Checked::NotOurs,
            false => Checked::Ours {
                object: None,
                findings: vec![at(&[], "no apiVersion or kind is given".into())],
            },
        };
    }
    let known = if version == VERSION { schema_of(kind) } else { None };
    let Some(schema) = known else {
        let message = format!("no matches for kind {kind:?} in version {version:?}");
        return Checked::Ours { object: None, findings: vec![at(&[Step::Field("kind".into())], message)] };
    };
    let mut faults = schema::check(&mut value, &schema, is_part);
    faults.extend(metadata(&value, is_part));
    let findings = faults.into_iter().map(|fault| at(&fault.path, fault.message)).collect();
    let namespace = value["metadata"]["namespace"].as_str().map(str::to_owned);
    let object = Object { file: file.to_owned(), kind: kind.to_owned(), name, namespace, value, node };
    Checked::Ours { object: (!is_part).then_some(object), findings }
}

/// The schema of a kind, as far as people write it: what is in a status is the operator's.
fn schema_of(kind: &str) -> Option<Rc<Value>> {
    thread_local! {
        static KNOWN: RefCell<HashMap<String, Rc<Value>>> = RefCell::default();
    }
    KNOWN.with_borrow_mut(|known| {
        if let Some(schema) = known.get(kind) {
            return Some(schema.clone());
        }
        let (_, text) = DEFINITIONS.iter().find(|(name, _)| *name == kind)?;
        let mut definition: Value = serde_saphyr::from_str(text).ok()?;
        let mut schema = definition.pointer_mut("/spec/versions/0/schema/openAPIV3Schema")?.take();
        let properties = schema.get_mut("properties")?.as_object_mut()?;
        let text = json!({"type": "string"});
        properties.insert("apiVersion".into(), text.clone());
        properties.insert("kind".into(), text);
        let anything = json!({"x-kubernetes-preserve-unknown-fields": true});
        properties.insert("metadata".into(), anything.clone());
        if properties.contains_key("status") {
            properties.insert("status".into(), anything);
        }
        let schema = Rc::new(schema);
        known.insert(kind.to_owned(), schema.clone());
        Some(schema)
    })
}

/// What of an object's metadata can be known to be wrong.
fn metadata(value: &Value, is_part: bool) -> Vec<Fault> {
    let path = |field: &str| vec![Step::Field("metadata".into()), Step::Field(field.into())];
    let metadata = &value["metadata"];
    let mut faults = Vec::new();
    for field in metadata.as_object().into_iter().flat_map(|fields| fields.keys()) {
        if !KNOWN_METADATA.contains(&field.as_str()) {
            faults.push(Fault::new(path(field), format!("unknown field \"metadata.{field}\"")));
        }
    }
    match &metadata["name"] {
        Value::String(name) if !is_name(name) => {
            faults.push(Fault::new(path("name"), format!("Invalid value: {name:?}: {NAME_RULE}")));
        }
        Value::Null if !metadata["generateName"].is_string() && !is_part => {
            faults.push(Fault::new(path("name"), "Required value: name or generateName is required".into()));
        }
        _ => {}
    }
    for group in ["labels", "annotations"] {
        for (key, value) in metadata[group].as_object().into_iter().flatten() {
            if !value.is_string() {
                let mut path = path(group);
                path.push(Step::Field(key.clone()));
                faults.push(Fault::new(path, "it must be a string: put it into quotes".into()));
            }
        }
    }
    faults
}

const KNOWN_METADATA: [&str; 14] = [
    "name",
    "generateName",
    "namespace",
    "labels",
    "annotations",
    "finalizers",
    "ownerReferences",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
];

const NAME_RULE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
    and must start and end with an alphanumeric character";

fn is_name(name: &str) -> bool {
    let is_part = |part: &str| {
        let is_end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        is_end(part.chars().next())
            && is_end(part.chars().last())
            && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    name.len() <= 253 && name.split('.').all(is_part)
}
