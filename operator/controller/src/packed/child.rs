//! By what the Jobs of runs and their pods are found.

use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::ResourceExt;
use lethe_api::v1alpha1::labels;

use super::{Dictionary, Pack};

/// Whom a child belongs to.
#[derive(Clone, Debug)]
pub struct Parents {
    /// The run that its label names.
    pub run: Option<Box<str>>,
    /// The uids of its owners.
    owners: Box<[Box<str>]>,
}

impl Parents {
    fn of(child: &impl ResourceExt) -> Self {
        Self {
            run: child.labels().get(labels::RUN).map(|run| run.as_str().into()),
            owners: child.owner_references().iter().map(|owner| owner.uid.as_str().into()).collect(),
        }
    }

    /// What [`crate::run::is_owned_by`] says of the child when it is open.
    pub fn include(&self, owner: &impl ResourceExt) -> bool {
        owner.uid().is_some_and(|uid| self.owners.iter().any(|known| **known == *uid))
    }
}

impl Pack for Job {
    type Index = Parents;

    fn index(&self) -> Parents {
        Parents::of(self)
    }

    fn dictionary() -> &'static Dictionary {
        static JOBS: Dictionary = Dictionary::new();
        &JOBS
    }
}

impl Pack for Pod {
    type Index = Parents;

    fn index(&self) -> Parents {
        Parents::of(self)
    }

    fn dictionary() -> &'static Dictionary {
        static PODS: Dictionary = Dictionary::new();
        &PODS
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::packed::Packed;

    fn job() -> serde_json::Value {
        json!({
            "apiVersion": "batch/v1", "kind": "Job",
            "metadata": {
                "name": "digits-1-forget", "namespace": "studio", "uid": "7", "resourceVersion": "12",
                "labels": {"lethe.dev/run": "digits-1"},
                "ownerReferences": [
                    {"apiVersion": "lethe.dev/v1alpha1", "kind": "UnlearnRun", "name": "digits-1", "uid": "6"},
                ],
                "managedFields": [{"manager": "kubectl"}],
            },
            "spec": {"suspend": true, "template": {"spec": {"containers": [{"name": "trainer"}]}}},
            "status": {"conditions": [{"type": "Complete", "status": "True"}]},
        })
    }

    #[test]
    fn a_job_is_found_by_its_run_and_by_its_owner_and_comes_back_as_it_is_kept() {
        let packed: Packed<Job> = serde_json::from_value(job()).unwrap();
        let mut kept: Job = serde_json::from_value(job()).unwrap();
        crate::kept::trim(&mut kept);
        assert_eq!(packed.open(), kept);
        assert_eq!((packed.name_any(), packed.uid()), ("digits-1-forget".into(), Some("7".into())));
        assert_eq!(packed.index.run.as_deref(), Some("digits-1"));
        let called = |uid: serde_json::Value| -> Job {
            serde_json::from_value(json!({"metadata": {"name": "digits-1", "uid": uid}})).unwrap()
        };
        assert!(packed.index.include(&called(json!("6"))));
        assert!(!packed.index.include(&called(json!("5"))), "another of the same name");
        assert!(!packed.index.include(&called(json!(null))));
        let mut of_two = job();
        let second = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "other", "uid": "5"});
        of_two["metadata"]["ownerReferences"].as_array_mut().unwrap().push(second);
        let of_two: Packed<Job> = serde_json::from_value(of_two).unwrap();
        assert!(of_two.index.include(&called(json!("5"))) && of_two.index.include(&called(json!("6"))));
        let mut of_none = job();
        of_none["metadata"]["ownerReferences"] = json!([]);
        let of_none: Packed<Job> = serde_json::from_value(of_none).unwrap();
        assert!(!of_none.index.include(&called(json!("6"))) && !of_none.index.include(&called(json!(null))));
    }

    #[test]
    fn a_pod_says_how_it_ended_after_it_was_packed() {
        let pod = json!({
            "metadata": {"name": "p", "namespace": "studio", "creationTimestamp": "2026-11-24T21:00:00Z"},
            "status": {
                "phase": "Failed", "podIP": "10.0.0.7", "startTime": "2026-11-24T21:00:01Z",
                "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": null}],
                "containerStatuses": [{
                    "name": "trainer", "image": "trainer:1", "imageID": "", "ready": false, "restartCount": 1,
                    "state": {"terminated": {
                        "exitCode": 137, "reason": "OOMKilled", "message": "{\"status\":\"Failed\"}\né",
                        "finishedAt": "2026-11-24T21:03:00Z",
                    }},
                    "resources": {"limits": {"nvidia.com/gpu": "1", "memory": "16Gi"}},
                }],
            },
        });
        let whole: Pod = serde_json::from_value(pod.clone()).unwrap();
        assert_eq!(serde_json::from_value::<Packed<Pod>>(pod).unwrap().open(), whole);
    }
}
