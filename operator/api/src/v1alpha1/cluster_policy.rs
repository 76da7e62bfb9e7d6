//! `ClusterUnlearnPolicy`: the same rules for models of any namespace.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::UnlearnPolicySpec;

/// What an `UnlearnPolicy` says, for models of any namespace that name it.
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[kube(
    group = "lethe.dev",
    version = "v1alpha1",
    kind = "ClusterUnlearnPolicy",
    plural = "clusterunlearnpolicies",
    shortname = "culp",
    category = "lethe",
    doc = "The rules of an UnlearnPolicy for models of any namespace.",
    printcolumn(name = "Image", type_ = "string", json_path = ".spec.trainer.image"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(transparent)]
pub struct ClusterUnlearnPolicySpec(pub UnlearnPolicySpec);
