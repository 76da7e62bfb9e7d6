//! By what runs are found.

use std::sync::Arc;

use kube::ResourceExt;
use lethe_api::v1alpha1::{ConditionType, UnlearnRequest, UnlearnRun, UnlearnRunStatus};

use super::{Dictionary, Pack, Packed, by_model::OfModel};
use crate::stores::{Stores, namespace};

#[derive(Clone, Debug)]
pub struct RunIndex {
    pub model: Box<str>,
    pub requests: Box<[Asker]>,
    /// It is over, and signed if it is to be: there is nothing of it to be watched.
    pub is_settled: bool,
}

/// A request that a run works for.
#[derive(Clone, Debug)]
pub struct Asker {
    pub name: Box<str>,
    pub uid: Box<str>,
}

impl Pack for UnlearnRun {
    type Index = RunIndex;

    fn index(&self) -> RunIndex {
        let asker = |name: &str, uid: &str| Asker { name: name.into(), uid: uid.into() };
        let requests = self.spec.requests.iter();
        RunIndex {
            model: self.spec.model.as_str().into(),
            requests: requests.map(|request| asker(&request.name, &request.uid)).collect(),
            is_settled: is_settled(self.status.as_ref()),
        }
    }

    fn dictionary() -> &'static Dictionary {
        static RUNS: Dictionary = Dictionary::new();
        &RUNS
    }
}

impl RunIndex {
    /// Whether it works for the request with this uid.
    fn is_for(&self, uid: &str) -> bool {
        self.requests.iter().any(|request| &*request.uid == uid)
    }
}

impl OfModel for RunIndex {
    fn model(&self) -> &str {
        &self.model
    }
}

impl Stores {
    /// The runs of a model.
    pub fn runs_of(&self, namespace: &str, model: &str) -> Vec<UnlearnRun> {
        self.find_runs((namespace, model), |_| true).iter().map(|run| run.open()).collect()
    }

    /// The runs that work for a request.
    pub fn runs_for(&self, request: &UnlearnRequest) -> Vec<UnlearnRun> {
        let (namespace, uid) = (namespace(request), request.uid().unwrap_or_default());
        let of = (namespace.as_str(), request.spec.model_ref.name.as_str());
        self.find_runs(of, |run| run.index.is_for(&uid)).iter().map(|run| run.open()).collect()
    }

    /// The names of the runs that work for a request of this name, or have worked for another one of it.
    pub fn names_of_runs_for(&self, request: &Packed<UnlearnRequest>) -> Vec<String> {
        let (namespace, name) = (namespace(request), request.name_any());
        let works_for_it =
            |run: &Packed<UnlearnRun>| run.index.requests.iter().any(|request| *request.name == *name);
        let found = self.find_runs((&namespace, &request.index.model), works_for_it);
        found.iter().map(|run| run.name_any()).collect()
    }

    fn find_runs(
        &self,
        of: (&str, &str),
        is_such: impl Fn(&Packed<UnlearnRun>) -> bool,
    ) -> Vec<Arc<Packed<UnlearnRun>>> {
        self.runs_by_model.find(&self.runs, of, is_such)
    }
}

fn is_settled(status: Option<&UnlearnRunStatus>) -> bool {
    let conditions = status.map(|status| &status.conditions[..]).unwrap_or_default();
    ConditionType::Ready.is_decided(conditions) && !ConditionType::Signed.is_false(conditions)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn gate(target: u32) -> Value {
        json!({
            "name": "direct-leak", "target": target.to_string(), "value": "0.0012", "bound": "0.0042", "threshold": "0.01",
            "hits": 5, "n": 4096, "verdict": "Pass",
        })
    }

    fn run(gates: u32, conditions: &[(&str, &str)]) -> Value {
        let condition = |(type_, status): &(&str, &str)| {
            let at = "2026-11-24T21:00:00Z";
            json!({"type": type_, "status": status, "reason": "R", "message": "", "lastTransitionTime": at})
        };
        let limits = json!({"nvidia.com/gpu": 1, "memory": "16Gi"});
        let trainer = json!({
            "image": "x", "resources": {"limits": limits},
            "tolerations": [{"key": "gpu", "operator": "Exists", "tolerationSeconds": 60}],
        });
        let policy = json!({"trainer": trainer, "training": {"forgetSteps": 1500}, "gates": [{"name": "direct-leak", "maxBound": "0.01"}]});
        json!({
            "apiVersion": "lethe.dev/v1alpha1", "kind": "UnlearnRun",
            "metadata": {"name": "digits-1", "namespace": "studio", "uid": "7", "resourceVersion": "12"},
            "spec": {
                "model": "digits", "type": "Forget", "plan": "{\"schema\": 1}", "planDigest": lethe_api::Digest::of(b""),
                "requests": [{"name": "forget-three", "uid": "u", "targets": ["3"]}], "policy": policy,
            },
            "status": {
                "gates": (0..gates).map(gate).collect::<Vec<_>>(),
                "conditions": conditions.iter().map(condition).collect::<Vec<_>>(),
            },
        })
    }

    fn packed(run: &Value) -> Packed<UnlearnRun> {
        serde_json::from_value(run.clone()).unwrap()
    }

    #[test]
    fn what_is_taken_out_is_what_was_put_in() {
        let run = run(300, &[("Ready", "True")]);
        let packed = packed(&run);
        let whole: UnlearnRun = serde_json::from_value(run).unwrap();
        let open = packed.open();
        assert_eq!((open.metadata, open.spec, open.status), (whole.metadata, whole.spec, whole.status));
        assert!(packed.index.is_for("u") && !packed.index.is_for("forget-three"));
    }

    #[test]
    fn a_run_with_many_results_takes_a_tenth_of_its_json() {
        let run = run(300, &[]);
        let (json, packed) = (serde_json::to_vec(&run).unwrap().len(), packed(&run).packed.len());
        assert!(packed * 10 < json, "{packed} of {json} bytes");
    }

    #[test]
    fn a_run_is_settled_once_it_is_over_and_its_signature_is_not_missing() {
        for (conditions, is_settled) in [
            (&[][..], false),
            (&[("Ready", "Unknown")], false),
            (&[("Ready", "False")], true),
            (&[("Ready", "True"), ("Signed", "True")], true),
            (&[("Ready", "True"), ("Signed", "False")], false),
        ] {
            assert_eq!(packed(&run(1, conditions)).index.is_settled, is_settled, "{conditions:?}");
        }
    }

    #[test]
    fn one_that_is_not_of_its_schema_is_refused_as_it_was() {
        let mut run = run(1, &[]);
        run["spec"]["model"] = json!(7);
        assert!(serde_json::from_value::<Packed<UnlearnRun>>(run).is_err());
    }
}
