//! The tree: model, requests, run, gates. From listed objects and the time to what is shown, and from that to lines.

mod draw;
mod next;
#[cfg(test)]
mod tests;
mod view;

pub use draw::draw;
pub use view::{ModelView, RequestView, RunView, View, view};

use kube::ResourceExt;
use lethe_api::v1alpha1::{
    ClusterUnlearnPolicy, DiffusionModel, PolicyKind, UnlearnApproval, UnlearnPolicy, UnlearnPolicySpec,
    UnlearnRequest, UnlearnRun,
};

/// What was read of the cluster.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub models: Vec<DiffusionModel>,
    pub requests: Vec<UnlearnRequest>,
    pub runs: Vec<UnlearnRun>,
    pub approvals: Vec<UnlearnApproval>,
    pub policies: Vec<UnlearnPolicy>,
    pub cluster_policies: Vec<ClusterUnlearnPolicy>,
    /// What could not be read, in sentences.
    pub unread: Vec<String>,
}

impl Seen {
    /// The policy that a model names, if it was read.
    pub fn policy_of(&self, model: &DiffusionModel) -> Option<&UnlearnPolicySpec> {
        let named = &model.spec.policy_ref;
        match named.kind {
            PolicyKind::UnlearnPolicy => {
                let is_it = |policy: &&UnlearnPolicy| {
                    policy.name_any() == named.name && policy.namespace() == model.namespace()
                };
                self.policies.iter().find(is_it).map(|policy| &policy.spec)
            }
            PolicyKind::ClusterUnlearnPolicy => {
                let found = self.cluster_policies.iter().find(|policy| policy.name_any() == named.name);
                found.map(|policy| &policy.spec.0)
            }
        }
    }

    /// The run of this name, in the namespace of `beside`.
    pub fn run(&self, name: &str, beside: &impl ResourceExt) -> Option<&UnlearnRun> {
        self.runs.iter().find(|run| run.name_any() == name && run.namespace() == beside.namespace())
    }
}
