//! One lineage.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use lethe_api::v1alpha1::{DiffusionModel, DiffusionModelStatus, UnlearnPolicy, UnlearnRequest, UnlearnRun};

use crate::{ArchivedLedger, Decision, Installation, rollout::PodReport};

/// What the controller saw.
#[derive(Clone, Debug)]
pub struct Observed {
    pub model: DiffusionModel,
    pub policy: Option<UnlearnPolicy>,
    /// Every request that names this model.
    pub requests: Vec<UnlearnRequest>,
    /// Every run of this model.
    pub runs: Vec<UnlearnRun>,
    /// The serving target.
    pub deployment: Option<Deployment>,
    /// What the target's pods say they serve. Asked only if [`wants_reports`].
    pub reports: Vec<PodReport>,
    /// From the archive ConfigMap, if there is one.
    pub archived: Option<ArchivedLedger>,
}

/// Whether the pods have to be asked what they serve.
pub fn wants_reports(_model: &DiffusionModel) -> bool {
    unimplemented!()
}

pub fn decide(
    _observed: &Observed,
    _installation: &Installation,
    _now: Timestamp,
) -> Decision<DiffusionModelStatus> {
    unimplemented!()
}
