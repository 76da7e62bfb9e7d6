//! The policy that a model names, wherever it is.

use kube::{Resource, ResourceExt};
use lethe_api::v1alpha1::{
    ClusterUnlearnPolicy, PolicyKind, PolicyRef, PolicySource, Reason, UnlearnPolicy, UnlearnPolicySpec,
};

/// A policy that was found.
#[derive(Clone, Debug)]
pub struct Policy {
    pub source: PolicySource,
    pub spec: UnlearnPolicySpec,
}

/// Why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPolicy {
    NotFound,
    /// It is of the cluster, and this operator sees some namespaces only.
    NotWatched,
}

impl From<&UnlearnPolicy> for Policy {
    fn from(policy: &UnlearnPolicy) -> Self {
        Self::new(PolicyKind::UnlearnPolicy, policy, &policy.spec)
    }
}

impl From<&ClusterUnlearnPolicy> for Policy {
    fn from(policy: &ClusterUnlearnPolicy) -> Self {
        Self::new(PolicyKind::ClusterUnlearnPolicy, policy, &policy.spec.0)
    }
}

impl Policy {
    fn new(kind: PolicyKind, object: &impl Resource, spec: &UnlearnPolicySpec) -> Self {
        let (name, generation) = (object.name_any(), object.meta().generation);
        Self { source: PolicySource { kind, name, generation }, spec: spec.clone() }
    }
}

impl NoPolicy {
    /// What to say of the policy that model `model` names.
    pub(crate) fn say(self, model: &str, named: &PolicyRef) -> (Reason, String) {
        let PolicyRef { kind, name } = named;
        match self {
            NoPolicy::NotFound => {
                let message = match kind {
                    PolicyKind::UnlearnPolicy => {
                        format!(
                            "UnlearnPolicy {name:?} of model {model:?} does not exist in this namespace; create it"
                        )
                    }
                    PolicyKind::ClusterUnlearnPolicy => {
                        format!("ClusterUnlearnPolicy {name:?} of model {model:?} does not exist; create it")
                    }
                };
                (Reason::PolicyNotFound, message)
            }
            NoPolicy::NotWatched => {
                let message = format!(
                    "model {model:?} names ClusterUnlearnPolicy {name:?}, and this operator has rights in some namespaces \
                     only: let spec.policyRef name an UnlearnPolicy of this namespace, or install the chart with \
                     watchNamespaces empty"
                );
                (Reason::PolicyNotWatched, message)
            }
        }
    }
}
