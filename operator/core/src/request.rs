//! Where a request stands.

use jiff::Timestamp;
use lethe_api::v1alpha1::{DiffusionModel, UnlearnPolicy, UnlearnRequest, UnlearnRequestStatus, UnlearnRun};

use crate::Decision;

/// What the controller saw.
#[derive(Clone, Debug)]
pub struct Observed {
    pub request: UnlearnRequest,
    /// The model that it names.
    pub model: Option<DiffusionModel>,
    /// The policy that the model names.
    pub policy: Option<UnlearnPolicy>,
    /// Every run of that model.
    pub runs: Vec<UnlearnRun>,
}
pub fn decide(_observed: &Observed, _now: Timestamp) -> Decision<UnlearnRequestStatus> {
    unimplemented!()
}
