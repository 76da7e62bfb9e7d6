//! Objects as people write them, and as the API server keeps them.

use lethe_api::{
    contract::BaseArtifact,
    v1alpha1::{
        self, DiffusionModel, DiffusionModelSpec, Gate, GateName, InitialServing, Mode, ModelRef,
        OverrideSpec, PolicyKind, PolicyRef, Probes, Promotion, Serving, ServingTarget, Strategy, Target,
        UnlearnPolicy, UnlearnPolicySpec, UnlearnRequest, UnlearnRequestSpec,
    },
};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::trainer::digest;

pub const MODEL: &str = "digits";

/// The base artifacts of the model: the one that it begins with, and another.
pub const BASES: [&str; 2] = ["teacher", "another teacher"];

pub fn base(name: &str) -> BaseArtifact {
    BaseArtifact { uri: "file:///base".into(), digest: digest(name) }
}

pub fn model(initial: InitialServing) -> DiffusionModel {
    let target =
        ServingTarget { api_version: "apps/v1".into(), kind: "Deployment".into(), name: MODEL.into() };
    let spec = DiffusionModelSpec {
        base: base(BASES[0]),
        policy_ref: PolicyRef { kind: PolicyKind::UnlearnPolicy, name: "standard".into() },
        serving: Serving {
            target,
            container: "server".into(),
            port: 8080,
            endpoint: None,
            initial,
            promotion: Promotion::Apply,
        },
        audit: None,
        never_saw: vec![],
    };
    DiffusionModel { status: unseen(), ..DiffusionModel::new(MODEL, spec) }
}

/// The status that the API server gives to what has none.
pub fn unseen<S: DeserializeOwned>() -> Option<S> {
    Some(serde_json::from_value(v1alpha1::unseen()).expect("the default is a status"))
}

pub fn policy() -> UnlearnPolicy {
    let gates = vec![
        Gate {
            max_bound: Some("0.005".into()),
            min_samples: Some(3000),
            ..Gate::named(GateName::DirectLeak)
        },
        Gate {
            min: Some("0.95".into()),
            min_samples: Some(3000),
            ..Gate::named(GateName::OverrideConformity)
        },
        Gate {
            max_drop: Some("0.015".into()),
            min_samples: Some(200),
            ..Gate::named(GateName::RetainAccuracy)
        },
        Gate {
            max_ratio: Some("1.5".into()),
            min_samples: Some(3600),
            ..Gate::named(GateName::RetainQuality)
        },
        Gate::named(GateName::Hygiene),
    ];
    let spec = json!({
        "trainer": {"image": "lethe/trainer:test", "activeDeadlineSeconds": 300, "backoffLimit": 2},
        "gates": gates,
        "rollout": {"progressDeadlineSeconds": 120},
    });
    let spec: UnlearnPolicySpec = serde_json::from_value(spec).expect("a policy as a person would write it");
    UnlearnPolicy::new("standard", spec)
}

/// A policy with every gate that reads probes. One of them compares with a model that never saw the label.
pub fn probing() -> UnlearnPolicy {
    let number = |text: &str| Some(text.to_owned());
    let mut policy = policy();
    policy.spec.probes = Some(Probes::Attack);
    policy.spec.gates.extend(GateName::PROBES.map(|name| {
        let leak = Gate { max_bound: number("0.01"), min_samples: Some(100), ..Gate::named(name) };
        match name {
            GateName::NeighbourAccuracy => Gate { max_bound: None, max_drop: number("0.03"), ..leak },
            GateName::Relearning => Gate { max_bound: None, max_above_never_saw: number("0.1"), ..leak },
            _ => leak,
        }
    }));
    policy
}

/// A policy that has the live server asked.
pub fn watchful() -> UnlearnPolicy {
    let mut policy = policy();
    let leak = policy.spec.gates.iter().find(|gate| gate.name == GateName::DirectLeak).cloned();
    policy.spec.gates.extend(leak.map(|leak| Gate { name: GateName::ServedLeak, ..leak }));
    policy
}

/// A policy that tries a candidate beside the target first.
pub fn careful(steps: serde_json::Value) -> UnlearnPolicy {
    let mut policy = watchful();
    let rollout = json!({"strategy": "Canary", "steps": steps, "progressDeadlineSeconds": 120});
    policy.spec.rollout = serde_json::from_value(rollout).expect("steps as a person would write them");
    policy
}

pub fn request(name: &str, targets: &[&str], replacement: OverrideSpec) -> UnlearnRequest {
    let spec = UnlearnRequestSpec {
        model_ref: ModelRef { name: MODEL.into() },
        targets: targets.iter().map(|label| Target { label: (*label).into() }).collect(),
        replacement,
        mode: Mode::Enforce,
        requested_by: None,
        data_subject_request: None,
        suspend: false,
    };
    UnlearnRequest { status: unseen(), ..UnlearnRequest::new(name, spec) }
}

pub fn fixed(label: &str) -> OverrideSpec {
    OverrideSpec { strategy: Strategy::Fixed, label: Some(label.into()) }
}

pub fn nearest() -> OverrideSpec {
    OverrideSpec { strategy: Strategy::Nearest, label: None }
}
