//! What a cache keeps of an object. Nothing is decided by the rest, which is most of its bytes: with thousands of finished
//! runs it is the operator's memory.

use k8s_openapi::{
    api::{
        batch::v1::{Job, JobSpec},
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::Resource;
use lethe_api::v1alpha1::{
    ClusterUnlearnPolicy, DiffusionModel, UnlearnApproval, UnlearnPolicy, UnlearnRequest, UnlearnRun,
    annotations,
};
use lethe_core::kueue::Workload;

/// An object that is kept in a cache.
pub trait Kept: Resource {
    /// How many are listed at once. A page is in memory twice, as text and as whole objects, and an allocator gives little of
    /// that back; and the next page is asked for when this one was read, so that short ones take longer: some two megabytes.
    const PAGE: u32 = 250;

    /// Which of them are watched at all, where the API server can tell: what is over is most of all that there is.
    const FIELDS: Option<&str> = None;

    /// Drops what nobody reads of the fields that are its kind's own.
    fn trim(&mut self) {}

    /// Whether anybody reads it at all.
    fn is_read(&self) -> bool {
        true
    }
}

impl Kept for DiffusionModel {}
impl Kept for UnlearnPolicy {}
impl Kept for ClusterUnlearnPolicy {}
impl Kept for UnlearnApproval {}

/// They are the most, and small.
impl Kept for UnlearnRequest {
    const PAGE: u32 = 500;
}

/// One may have a thousand results.
impl Kept for UnlearnRun {
    const PAGE: u32 = 25;
}

/// One that has succeeded is asked for by the run that it worked for, until that has read what it left.
impl Kept for Job {
    const FIELDS: Option<&str> = Some("status.successful=0");

    fn trim(&mut self) {
        let suspend = self.spec.take().and_then(|spec| spec.suspend);
        self.spec = Some(JobSpec { suspend, ..JobSpec::default() });
    }
}

/// Those of others are many.
impl Kept for Workload {
    fn is_read(&self) -> bool {
        self.run().is_some()
    }
}

/// Those of a Job of which none is at work are listed afresh, for what they left.
impl Kept for Pod {
    const FIELDS: Option<&str> = Some("status.phase!=Succeeded");

    fn trim(&mut self) {
        self.spec = None;
    }
}

/// Drops what nobody reads.
pub fn trim(object: &mut impl Kept) {
    let meta = object.meta_mut();
    meta.managed_fields = None;
    trim_annotations(meta);
    object.trim();
}

/// Annotations are as large as whoever writes them likes; two of them are questions to the operator.
fn trim_annotations(meta: &mut ObjectMeta) {
    if let Some(known) = &mut meta.annotations {
        known.retain(|name, _| annotations::ASKED.contains(&name.as_str()));
        if known.is_empty() {
            meta.annotations = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use lethe_core::{job_state, request};
    use serde_json::json;

    use super::*;

    #[test]
    fn questions_to_the_operator_are_kept_and_other_annotations_are_not() {
        let mut request: UnlearnRequest = serde_json::from_value(json!({
            "apiVersion": "lethe.dev/v1alpha1", "kind": "UnlearnRequest",
            "metadata": {
                "name": "forget-three", "managedFields": [{"manager": "kubectl"}],
                "annotations": {"lethe.dev/retry": "again", "note": "long"},
            },
            "spec": {"modelRef": {"name": "digits"}, "targets": [{"label": "3"}], "override": {"strategy": "Nearest"}},
        }))
        .unwrap();
        trim(&mut request);
        assert!(request.metadata.managed_fields.is_none());
        let kept = request.metadata.annotations.take().unwrap();
        assert_eq!(Vec::from_iter(kept), [("lethe.dev/retry".to_owned(), "again".to_owned())]);
        assert!(!request::is_over(&request));
    }

    #[test]
    fn of_workloads_only_those_of_runs_are_kept() {
        let of = |labels: serde_json::Value| -> Workload {
            let pods = json!([{"name": "main", "count": 1, "template": {"metadata": {"labels": labels}}}]);
            serde_json::from_value(json!({
                "apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "Workload", "metadata": {"name": "job-1"},
                "spec": {"podSets": pods, "queueName": "gpus"},
            }))
            .unwrap()
        };
        assert!(of(json!({"lethe.dev/run": "digits-1"})).is_read());
        assert!(!of(json!({"app": "other"})).is_read());
    }

    #[test]
    fn a_job_says_what_became_of_it_without_what_its_pods_were_to_be() {
        let mut job: Job = serde_json::from_value(json!({
            "metadata": {"name": "digits-1-forget", "uid": "7", "ownerReferences": [
                {"apiVersion": "lethe.dev/v1alpha1", "kind": "UnlearnRun", "name": "digits-1", "uid": "6"},
            ]},
            "spec": {"suspend": true, "template": {"spec": {"containers": [{"name": "trainer"}]}}},
            "status": {"conditions": [{"type": "Complete", "status": "True"}]},
        }))
        .unwrap();
        trim(&mut job);
        let spec = job.spec.as_ref().unwrap();
        assert_eq!((spec.suspend, spec.template.spec.as_ref()), (Some(true), None));
        assert!(job_state::is_finished(&job) && job.metadata.owner_references.is_some());
    }
}
