//! One run.

use jiff::Timestamp;
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use lethe_api::{
    Digest,
    contract::Progress,
    v1alpha1::{Stage, UnlearnRun, UnlearnRunStatus},
};

use crate::{Decision, Installation};

/// What the controller saw.
#[derive(Clone, Debug)]
pub struct Observed {
    pub run: UnlearnRun,
    /// The stage at work and its Job, if it exists.
    pub job: Option<Job>,
    /// The pods of that Job.
    pub pods: Vec<Pod>,
    /// What the working pod answers at `/progress`, if it could be asked.
    pub progress: Option<Progress>,
    /// The record that [`wanted_record`] named.
    pub record: Option<Result<Vec<u8>, RecordProblem>>,
    /// Names of requests that this run works for and that are gone.
    pub withdrawn: Vec<String>,
}

/// Why a record could not be read.
#[derive(Clone, Debug)]
pub struct RecordProblem {
    /// The store did not answer: try again later. Otherwise the record is missing or corrupt.
    pub transient: bool,
    pub message: String,
}

/// The stage that this run is at, whose Job is to be observed; none if the run is over.
pub fn stage(_run: &UnlearnRun) -> Option<Stage> {
    unimplemented!()
}

/// The record to read from the store before deciding, if the stage's Job has left one.
pub fn wanted_record(_run: &UnlearnRun, _job: Option<&Job>, _pods: &[Pod]) -> Option<Digest> {
    unimplemented!()
}

pub fn decide(
    _observed: &Observed,
    _installation: &Installation,
    _now: Timestamp,
) -> Decision<UnlearnRunStatus> {
    unimplemented!()
}
