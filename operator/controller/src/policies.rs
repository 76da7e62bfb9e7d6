//! Where the policy is that a model names, and who has to look again when it changes.

use kube::{Api, ResourceExt};
use kube_runtime::reflector::ObjectRef;
use lethe_api::v1alpha1::{ClusterUnlearnPolicy, DiffusionModel, PolicyKind, UnlearnPolicy};
use lethe_core::policy::{NoPolicy, Policy};

use crate::{
    calls,
    error::Result,
    last_told::News,
    stores::{Stores, Triggers, in_namespace, namespace},
    streams::Change,
};

impl Stores {
    /// The policy that a model names. That it does not exist is confirmed by the API server.
    pub async fn policy(&self, model: &DiffusionModel) -> Result<std::result::Result<Policy, NoPolicy>> {
        let name = &model.spec.policy_ref.name;
        let policy = match model.spec.policy_ref.kind {
            PolicyKind::UnlearnPolicy => {
                let policy = self.find(&self.policies, &namespace(model), name).await?;
                policy.map(|policy| Policy::from(&*policy))
            }
            PolicyKind::ClusterUnlearnPolicy => {
                let Some(known) = &self.cluster_policies else { return Ok(Err(NoPolicy::NotWatched)) };
                match known.get(&ObjectRef::new(name)) {
                    Some(policy) => Some(Policy::from(&*policy)),
                    None => self.cluster_policy(name).await?.as_ref().map(Policy::from),
                }
            }
        };
        Ok(policy.ok_or(NoPolicy::NotFound))
    }

    async fn cluster_policy(&self, name: &str) -> Result<Option<ClusterUnlearnPolicy>> {
        let api: Api<ClusterUnlearnPolicy> = Api::all(self.client.clone());
        calls::read(format!("read ClusterUnlearnPolicy {name}"), api.get_opt(name)).await
    }
}

impl Triggers {
    pub fn on_policy(&self, stores: &Stores, change: Change<'_, UnlearnPolicy>) {
        let (Change::Applied(policy) | Change::Deleted(policy)) = change else {
            return self.everything(stores);
        };
        let namespace = namespace(policy);
        let is_near = |model: &DiffusionModel| in_namespace(model, &namespace);
        self.models_under(stores, PolicyKind::UnlearnPolicy, &policy.name_any(), is_near);
    }

    pub fn on_cluster_policy(&self, stores: &Stores, change: Change<'_, ClusterUnlearnPolicy>) {
        let (Change::Applied(policy) | Change::Deleted(policy)) = change else {
            return self.everything(stores);
        };
        self.models_under(stores, PolicyKind::ClusterUnlearnPolicy, &policy.name_any(), |_| true);
    }

    fn models_under(
        &self,
        stores: &Stores,
        kind: PolicyKind,
        name: &str,
        is_near: impl Fn(&DiffusionModel) -> bool,
    ) {
        let names_it = |model: &DiffusionModel| {
            let named = &model.spec.policy_ref;
            named.kind == kind && named.name == name && is_near(model)
        };
        for model in stores.models.state_filter(names_it) {
            self.model(&namespace(&*model), &model.name_any());
            self.around_model(stores, &model, News::FOR_ALL);
        }
    }
}
