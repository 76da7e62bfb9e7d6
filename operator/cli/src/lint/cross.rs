//! Objects of the same files beside each other. What is not in these files may be in the cluster.

use std::collections::BTreeSet;

use lethe_api::v1alpha1::{
    DiffusionModel, NeverSaw, PolicyKind, RolloutStrategy, UnlearnPolicySpec, UnlearnRequest,
    UnlearnRequestSpec,
};
use lethe_core::{
    accept::{self, Acceptance},
    asks_for_audits, deadline, plans, schedule, targets,
};
use serde::de::DeserializeOwned;

use crate::yaml::{Step, written};

use super::{Finding, Severity, definitions::Object};

/// What is odd about objects that are each fine by themselves.
pub fn check(objects: &[Object]) -> Vec<Finding> {
    let mut findings = twice(objects);
    for object in objects {
        match object.kind.as_str() {
            "DiffusionModel" => findings.extend(model(object, objects)),
            "UnlearnRequest" => findings.extend(request(object, objects)),
            "UnlearnPolicy" | "ClusterUnlearnPolicy" => findings.extend(policy(object)),
            _ => {}
        }
    }
    findings
}

/// The later of two objects of one name would replace the earlier.
fn twice(objects: &[Object]) -> Vec<Finding> {
    let key = |object: &Object| (object.kind.clone(), object.namespace.clone(), object.name.clone());
    let is_repeated = |(index, object): &(usize, &Object)| {
        !object.name.is_empty() && objects[..*index].iter().any(|earlier| key(earlier) == key(object))
    };
    let repeated = objects.iter().enumerate().filter(is_repeated);
    repeated
        .map(|(_, object)| {
            warning(
                object,
                &["metadata", "name"],
                "there is another one of this kind and name in these files".into(),
            )
        })
        .collect()
}

fn warning(object: &Object, path: &[&str], message: String) -> Finding {
    finding(Severity::Warning, object, path, message)
}

fn finding(severity: Severity, object: &Object, path: &[&str], message: String) -> Finding {
    let path: Vec<Step> = path.iter().map(|field| Step::Field((*field).into())).collect();
    let (line, column) = object.node.place(&path);
    Finding {
        file: object.file.clone(),
        line,
        column,
        severity,
        object: format!("{} {}", object.kind, object.name),
        path: written(&path),
        message,
    }
}

fn typed<T: DeserializeOwned>(object: &Object) -> Option<T> {
    serde_json::from_value(object.value.clone()).ok()
}

fn find<'a>(objects: &'a [Object], kind: &str, name: &str, beside: &Object) -> Option<&'a Object> {
    objects.iter().find(|object| {
        let is_of_cluster = kind == "ClusterUnlearnPolicy";
        object.kind == kind && object.name == name && (is_of_cluster || object.namespace == beside.namespace)
    })
}

/// The policy that a model names, if it is in these files.
fn policy_of(model: &DiffusionModel, beside: &Object, objects: &[Object]) -> Option<UnlearnPolicySpec> {
    let named = &model.spec.policy_ref;
    let found = find(objects, kind_of(named.kind), &named.name, beside)?;
    serde_json::from_value(found.value["spec"].clone()).ok()
}

fn kind_of(kind: PolicyKind) -> &'static str {
    match kind {
        PolicyKind::UnlearnPolicy => "UnlearnPolicy",
        PolicyKind::ClusterUnlearnPolicy => "ClusterUnlearnPolicy",
    }
}

fn policy(object: &Object) -> Vec<Finding> {
    let Ok(spec) = serde_json::from_value(object.value["spec"].clone()) else { return vec![] };
    let gates = out_of_reach(&spec).map(|why| warning(object, &["spec", "gates"], why));
    let is_late = asks_for_audits(&spec) && spec.rollout.strategy == RolloutStrategy::Immediate;
    let late = is_late.then(|| {
        let message = "served-leak is asked of a candidate only when users have it already: with the strategy Canary, which \
                       needs no steps, it is asked before";
        warning(object, &["spec", "rollout", "strategy"], message.into())
    });
    gates.into_iter().chain(late).collect()
}

/// Why nothing could pass. How many labels will be kept is not known here: it is said only if it does not matter.
fn out_of_reach(spec: &UnlearnPolicySpec) -> Option<String> {
    const KEPT: [usize; 4] = [9, 1, 99, 999];
    let mut whys = KEPT.iter().map(|kept| plans::out_of_reach(spec, *kept));
    let why = whys.next().flatten()?;
    whys.all(|why| why.is_some()).then_some(why)
}

fn model(object: &Object, objects: &[Object]) -> Vec<Finding> {
    let Some(model) = typed::<DiffusionModel>(object) else { return vec![] };
    let mut findings = Vec::new();
    let named = &model.spec.policy_ref;
    let policy = policy_of(&model, object, objects);
    if policy.is_none() {
        let message = format!(
            "{} {:?} is not in these files: it has to be in the cluster",
            kind_of(named.kind),
            named.name
        );
        findings.push(warning(object, &["spec", "policyRef", "name"], message));
    }
    if let Some(audit) = &model.spec.audit {
        // Any time will do: what is asked is whether it can be read.
        if let Err(why) = schedule::next(&audit.schedule, jiff::Timestamp::UNIX_EPOCH) {
            let message = format!("the schedule cannot be read: {why}");
            findings.push(finding(Severity::Error, object, &["spec", "audit", "schedule"], message));
        }
        if policy.as_ref().is_some_and(|policy| !asks_for_audits(policy)) {
            let message =
                format!("policy {:?} has no gate served-leak, without which nothing is audited", named.name);
            findings.push(warning(object, &["spec", "audit"], message));
        }
    }
    findings
}

fn request(object: &Object, objects: &[Object]) -> Vec<Finding> {
    let Some(request) = typed::<UnlearnRequest>(object) else { return vec![] };
    let Some(beside) = find(objects, "DiffusionModel", &request.spec.model_ref.name, object) else {
        return vec![];
    };
    let Some(model) = typed::<DiffusionModel>(beside) else { return vec![] };
    let mut findings = Vec::new();
    // What an exported model says of itself.
    let known = model.status.as_ref().filter(|status| !status.labels.is_empty());
    if let Some(status) = known
        && let Acceptance::Denied(reason, message) = accept::check(&request, status)
    {
        let path = match reason {
            lethe_api::v1alpha1::Reason::UnknownLabel | lethe_api::v1alpha1::Reason::NothingWouldRemain => {
                "targets"
            }
            _ => "override",
        };
        findings.push(finding(Severity::Error, object, &["spec", path], message));
    }
    findings.extend(others(object, &request.spec, objects));
    if let Some(policy) = policy_of(&model, beside, objects) {
        findings.extend(under(object, &request, &model, &policy));
    }
    findings
}

/// What other requests for the same model forget cannot be yielded.
fn others(object: &Object, request: &UnlearnRequestSpec, objects: &[Object]) -> Option<Finding> {
    let label = request.replacement.label.as_ref()?;
    let is_other = |other: &&Object| {
        other.kind == "UnlearnRequest"
            && other.namespace == object.namespace
            && (other.name != object.name || other.file != object.file)
    };
    let forgets = |other: &Object| {
        let other = typed::<UnlearnRequest>(other)?;
        let is_same = other.spec.model_ref == request.model_ref
            && other.spec.mode == lethe_api::v1alpha1::Mode::Enforce;
        is_same.then(|| other.spec.targets.iter().any(|target| target.label == *label))
    };
    let other = objects.iter().filter(is_other).find(|other| forgets(other) == Some(true))?;
    let message = format!(
        "override {label:?} is forgotten by request {:?} of these files: whichever comes second is denied, or yields \
         something else; choose a label that stays",
        other.name
    );
    Some(warning(object, &["spec", "override", "label"], message))
}

/// What the policy asks of a request.
fn under(
    object: &Object,
    request: &UnlearnRequest,
    model: &DiffusionModel,
    policy: &UnlearnPolicySpec,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(subject) = &request.spec.data_subject_request
        && let Err(why) = deadline::Terms::of(&subject.regulation, &policy.legal_terms)
    {
        findings.push(finding(Severity::Error, object, &["spec", "dataSubjectRequest", "regulation"], why));
    }
    let is_asked = policy.approvals.required > 0 && request.spec.mode == lethe_api::v1alpha1::Mode::Enforce;
    if is_asked && request.spec.requested_by.is_none() {
        let message =
            "the policy asks for approvals, and this request does not say who asks: add spec.requestedBy";
        findings.push(warning(object, &["spec"], message.into()));
    }
    let Some(gate) = policy.gates.iter().find(|gate| gate.max_above_never_saw.is_some()) else {
        return findings;
    };
    let ledger =
        model.status.as_ref().map(|status| targets::ledger_targets(&status.ledger)).unwrap_or_default();
    let own = request.spec.targets.iter().map(|target| &target.label);
    let labels: BTreeSet<&String> = ledger.keys().chain(own).collect();
    let is_beside = |one: &&NeverSaw| one.base == model.spec.base.digest;
    let mut known = model.spec.never_saw.iter().filter(is_beside);
    let covers = known.any(|one| labels.iter().all(|label| one.labels.contains(label)));
    if !covers {
        let message = format!(
            "gate {} of the policy compares with a model that never saw {} (maxAboveNeverSaw), and spec.neverSaw of the \
             model names none for its base: the request would wait for one",
            gate.name,
            labels.iter().map(|label| label.as_str()).collect::<Vec<_>>().join(", ")
        );
        findings.push(warning(object, &["spec", "targets"], message));
    }
    findings
}
