//! `UnlearnRequest`: observe, and ask core where it stands.

use std::sync::Arc;

use jiff::Timestamp;
use kube::ResourceExt;
use lethe_api::v1alpha1::{DiffusionModel, UnlearnRequest, UnlearnRequestStatus};
use lethe_core::{
    Decision, asked,
    policy::{NoPolicy, Policy},
    request, term,
    told::Told,
    trail,
};
use lethe_transparency::Said;

use crate::{context::Context, controller::Kind, error::Result};

impl Kind for UnlearnRequest {
    type Status = UnlearnRequestStatus;

    const CONTROLLER: &'static str = "request";
    const MANAGER: &'static str = "lethe-request";

    fn status(&self) -> Option<&UnlearnRequestStatus> {
        self.status.as_ref()
    }

    async fn decide(object: &Self, context: &Context) -> Result<Decision<UnlearnRequestStatus>> {
        let observed = observe(object, context).await?;
        Ok(request::decide(&observed, Timestamp::now()))
    }

    fn said(&self, after: &UnlearnRequestStatus) -> Vec<Said> {
        trail::of_request(self, after)
    }

    fn wrote(context: &Context, observed: &Self, status: &UnlearnRequestStatus) {
        context.metrics.request_progressed(observed, status);
    }
}

async fn observe(request: &UnlearnRequest, context: &Context) -> Result<request::Observed> {
    let stores = &context.stores;
    let namespace = request.namespace().unwrap_or_default();
    let name = &request.spec.model_ref.name;
    if request::is_over(request) {
        let model = stores.model(&namespace, name);
        let policy = match &model {
            Some(model) if term::is_running(request) => stores.policy(model).await?,
            _ => Err(NoPolicy::NotFound),
        };
        return Ok(settled(request, model.as_deref(), policy));
    }
    let is_to_be_aborted = asked::abort(request).is_some();
    let model = match is_to_be_aborted {
        true => stores.confirm(&stores.models, &namespace, name).await?.map(Arc::new),
        false => stores.find(&stores.models, &namespace, name).await?,
    };
    let mut runs = stores.runs_for(request);
    if let Some(active) = active_run(model.as_deref()).filter(|_| is_to_be_aborted) {
        runs.retain(|run| run.name_any() != *active);
        runs.extend(stores.confirm(&stores.runs, &namespace, active).await?.map(|run| run.open()));
    }
    let policy = match &model {
        Some(model) => stores.policy(model).await?,
        None => Err(NoPolicy::NotFound),
    };
    let own_name = request.name_any();
    let approvals = || stores.approvals_of(&namespace, |said| said.request_ref.name == own_name);
    Ok(request::Observed {
        request: request.clone(),
        others: stores.requests_like(request),
        approvals: context.approvals_are_protected.then(approvals),
        model: model.map(|model| Told::to(request, &model)),
        policy,
        runs,
    })
}

/// A request that has its answer needs neither runs nor people for it, and a policy for its legal term only. Most are that, and
/// each is looked at after every restart.
fn settled(
    request: &UnlearnRequest,
    model: Option<&DiffusionModel>,
    policy: std::result::Result<Policy, NoPolicy>,
) -> request::Observed {
    request::Observed {
        request: request.clone(),
        others: Vec::new(),
        approvals: None,
        model: model.map(|model| Told::to(request, model)),
        policy,
        runs: Vec::new(),
    }
}

fn active_run(model: Option<&DiffusionModel>) -> Option<&String> {
    model?.status.as_ref()?.active_run.as_ref()
}
