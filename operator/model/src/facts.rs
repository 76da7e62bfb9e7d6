//! What a decision about one object reads of others. The rest of them only makes more observations of what is the same.

use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{ConfigMap, Service},
    },
    apimachinery::pkg::apis::meta::v1::Condition,
};
use lethe_api::{
    Digest,
    v1alpha1::{
        ConditionType, DiffusionModel, LedgerEntry, UnlearnApproval, UnlearnPolicy, UnlearnRequest,
        UnlearnRun,
    },
};
use lethe_core::{asked, attempts, request, run, told::Told};
use serde::Serialize;

use crate::{
    audit::Passed,
    cluster::{Beside, Work},
    shared::{Facts, hash_of},
};

impl Facts for UnlearnPolicy {}
impl Facts for UnlearnApproval {}
impl Facts for ConfigMap {}
impl Facts for Deployment {}
impl Facts for Work {}
impl Facts for Beside {}
impl Facts for Service {}
impl Facts for Digest {}
impl Facts for Passed {}
impl Facts for Vec<LedgerEntry> {}

/// Of a request: whether it is accepted and approved, whether it has its answer, and what people ask of it once.
impl Facts for UnlearnRequest {
    fn facts(&self, _: u64) -> u64 {
        let conditions = self.status.as_ref().map(|status| &status.conditions[..]).unwrap_or_default();
        let stands = (ConditionType::Accepted.is_true(conditions), request::is_over(self));
        let queued = ConditionType::Scheduled.find(conditions).is_some();
        let asked = (asked::is_withdrawn(self), attempts::put_aside(self), queued);
        let approved = self.status.as_ref().map(|status| json(&status.approved_by));
        let approval = json(&ConditionType::Approved.find(conditions));
        hash_of(&(json(&self.metadata), json(&self.spec), stands, asked, approved, approval))
    }
}

/// Of a run, for its model: what came of it, and not how.
impl Facts for UnlearnRun {
    fn facts(&self, _: u64) -> u64 {
        let status = self.status.clone().unwrap_or_default();
        let promoted: Option<&Condition> = ConditionType::Promoted.find(&status.conditions);
        // A preparation that failed says why.
        let ended = ConditionType::Ready.find(&status.conditions).filter(|_| run::is_over(self));
        let measured = (json(&status.verdict), json(&status.candidate), json(&status.evidence));
        let came = (measured, json(&status.prepared));
        let failed = (json(&status.attempts), json(&status.gates));
        hash_of(&(json(&self.metadata), json(&self.spec), came, failed, json(&promoted), json(&ended)))
    }
}

/// Of a model, for its requests.
impl Facts for DiffusionModel {
    fn facts(&self, _: u64) -> u64 {
        hash_of(&json(&Told::to_open(self)))
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("objects have string keys")
}
