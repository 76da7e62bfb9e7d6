//! A run as the cache keeps it. It holds its plan, a copy of the policy and a result for each gate and label, most of which is
//! alike: with thousands of finished runs this is the operator's memory, packed to a tenth.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt};
use lethe_api::v1alpha1::{ConditionType, UnlearnRequest, UnlearnRun, UnlearnRunSpec, UnlearnRunStatus};
use lz4_flex::block::{compress_prepend_size, decompress_size_prepended};
use serde::{Deserialize, Serialize};

use crate::stores::{Stores, in_namespace, namespace};

/// An [`UnlearnRun`], and beside it what caches are searched by.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "UnlearnRun")]
pub struct PackedRun {
    metadata: ObjectMeta,
    pub model: String,
    pub requests: Box<[Asker]>,
    /// It is over, and signed if it is to be: there is nothing of it to be watched.
    pub is_settled: bool,
    /// [`Contents`] as JSON, packed by LZ4.
    packed: Box<[u8]>,
}

/// A request that a run works for.
#[derive(Clone, Debug)]
pub struct Asker {
    pub name: Box<str>,
    pub uid: Box<str>,
}

#[derive(Serialize)]
struct Contents<'a> {
    spec: &'a UnlearnRunSpec,
    status: &'a Option<UnlearnRunStatus>,
}

#[derive(Deserialize)]
struct Unpacked {
    spec: UnlearnRunSpec,
    status: Option<UnlearnRunStatus>,
}

impl From<UnlearnRun> for PackedRun {
    fn from(run: UnlearnRun) -> Self {
        let UnlearnRun { metadata, spec, status } = run;
        let requests = spec.requests.iter();
        let asker = |name: &str, uid: &str| Asker { name: name.into(), uid: uid.into() };
        Self {
            requests: requests.map(|request| asker(&request.name, &request.uid)).collect(),
            is_settled: is_settled(status.as_ref()),
            packed: pack(&Contents { spec: &spec, status: &status }).into(),
            model: spec.model,
            metadata,
        }
    }
}

impl PackedRun {
    pub fn open(&self) -> UnlearnRun {
        let Unpacked { spec, status } = unpack(&self.packed);
        UnlearnRun { metadata: self.metadata.clone(), spec, status }
    }

    /// Whether it works for the request with this uid.
    pub fn is_for(&self, uid: &str) -> bool {
        self.requests.iter().any(|request| &*request.uid == uid)
    }
}

impl Stores {
    /// The runs of a model.
    pub fn runs_of(&self, namespace: &str, model: &str) -> Vec<UnlearnRun> {
        self.open_runs(|run| in_namespace(run, namespace) && run.model == model)
    }

    /// The runs that work for a request.
    pub fn runs_for(&self, request: &UnlearnRequest) -> Vec<UnlearnRun> {
        let (namespace, uid) = (namespace(request), request.uid().unwrap_or_default());
        self.open_runs(|run| in_namespace(run, &namespace) && run.is_for(&uid))
    }

    fn open_runs(&self, is_such: impl Fn(&PackedRun) -> bool) -> Vec<UnlearnRun> {
        self.runs.state_filter(is_such).iter().map(|run| run.open()).collect()
    }
}

fn is_settled(status: Option<&UnlearnRunStatus>) -> bool {
    let conditions = status.map(|status| &status.conditions[..]).unwrap_or_default();
    ConditionType::Ready.is_decided(conditions) && !ConditionType::Signed.is_false(conditions)
}

// What was packed in this process is read again in this process, by the same types: neither can fail. If one did, going on
// without a run would be worse than to begin anew.
#[allow(clippy::expect_used)]
fn pack(contents: &Contents<'_>) -> Vec<u8> {
    compress_prepend_size(&serde_json::to_vec(contents).expect("a run is JSON"))
}

#[allow(clippy::expect_used)]
fn unpack(packed: &[u8]) -> Unpacked {
    let json = decompress_size_prepended(packed).expect("it was packed here");
    serde_json::from_slice(&json).expect("it was written from a run")
}

/// To the API server it is a run.
impl Resource for PackedRun {
    type DynamicType = ();
    type Scope = <UnlearnRun as Resource>::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        UnlearnRun::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        UnlearnRun::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        UnlearnRun::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        UnlearnRun::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
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
        let policy = json!({"trainer": {"image": "x"}, "gates": []});
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

    fn packed(run: &Value) -> PackedRun {
        serde_json::from_value(run.clone()).unwrap()
    }

    #[test]
    fn what_is_taken_out_is_what_was_put_in() {
        let run = run(300, &[("Ready", "True")]);
        let packed = packed(&run);
        let whole: UnlearnRun = serde_json::from_value(run).unwrap();
        let open = packed.open();
        assert_eq!((open.metadata, open.spec, open.status), (whole.metadata, whole.spec, whole.status));
        assert!(packed.is_for("u") && !packed.is_for("forget-three"));
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
            assert_eq!(packed(&run(1, conditions)).is_settled, is_settled, "{conditions:?}");
        }
    }

    #[test]
    fn one_that_is_not_of_its_schema_is_refused_as_it_was() {
        let mut run = run(1, &[]);
        run["spec"]["model"] = json!(7);
        assert!(serde_json::from_value::<PackedRun>(run).is_err());
    }
}
