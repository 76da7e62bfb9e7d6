//! `model.json`: what the weights of a bundle are, and what the model has forgotten.

use lethe_api::contract::{BundleKind, Digest, Override, PlannedTarget, check_labels};
use lethe_sfd::{Denoiser, Device, Judge, ModelConfig, Reference, Replacement, Target};
use lethe_store::Bundle;
use serde::{Deserialize, Serialize};

use crate::{
    artifacts::Artifacts,
    failure::{Failed, Result},
};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Model {
    schema: String,
    /// Images, labels, noise levels and network.
    pub(crate) model: ModelConfig,
    /// What this generator was taught to forget, and what it shows instead. Empty for every other bundle.
    pub(crate) forgotten: Vec<PlannedTarget>,
}

impl Model {
    const SCHEMA: &str = "lethe.dev/model/v1";

    pub(crate) fn new(model: &ModelConfig, forgotten: Vec<PlannedTarget>) -> Self {
        Self { schema: Self::SCHEMA.into(), model: model.clone(), forgotten }
    }

    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|e| Failed::internal(format!("model.json: {e}")))
    }

    pub(crate) fn of(bundle: &Bundle) -> Result<Self> {
        let failed = |problem: String| {
            Failed::bad_artifact(format!("model.json of bundle {}: {problem}", bundle.digest()))
        };
        let model: Self = serde_json::from_slice(bundle.model()).map_err(|e| failed(e.to_string()))?;
        if model.schema != Self::SCHEMA {
            let found: String = model.schema.chars().take(80).collect();
            return Err(failed(format!("its schema is {found:?}, not {:?}", Self::SCHEMA)));
        }
        check_labels(&model.model.labels).map_err(failed)?;
        model.model.validate().map_err(|e| failed(e.to_string()))?;
        Ok(model)
    }
}

/// Loads a teacher, a generator or a fake score: its names, shapes, types and values are checked.
pub(crate) fn denoiser(bundle: &Bundle, device: Device) -> Result<(Model, Denoiser)> {
    let what = || format!("{:?} bundle {}", bundle.kind(), bundle.digest());
    let model = Model::of(bundle)?;
    let denoiser = Denoiser::from_bytes(&model.model, bundle.weights(), device);
    Ok((model, denoiser.map_err(|error| as_artifact(error).of(what()))?))
}

/// Loads the judge and the configuration of the model that it judges.
pub(crate) fn judge(artifacts: &Artifacts, digest: &Digest, device: Device) -> Result<(ModelConfig, Judge)> {
    let bundle = artifacts.bundle(digest, BundleKind::Judge)?;
    let model = Model::of(&bundle)?.model;
    let judge = Judge::from_bytes(&model, bundle.weights(), device);
    let judge = judge.map_err(|error| as_artifact(error).of(format!("Judge bundle {digest}")))?;
    Ok((model, judge))
}

/// The model that all bundles of a plan have to be of, and the bundle that says so.
pub(crate) struct Form<'a> {
    pub(crate) config: &'a ModelConfig,
    pub(crate) kind: BundleKind,
    pub(crate) digest: &'a Digest,
}

impl Form<'_> {
    /// Refuses a bundle of another model.
    pub(crate) fn check(&self, kind: BundleKind, digest: &Digest, found: &ModelConfig) -> Result<()> {
        let Self { config, kind: other_kind, digest: other } = self;
        if found == *config {
            return Ok(());
        }
        let what = if found.labels == config.labels { "form" } else { "labels" };
        Err(Failed::bad_artifact(format!(
            "{kind:?} bundle {digest} is of a model of other {what} than {other_kind:?} bundle {other}; name bundles of one \
             preparation"
        )))
    }

    /// Loads the judge of this model.
    pub(crate) fn judge(&self, artifacts: &Artifacts, digest: &Digest, device: Device) -> Result<Judge> {
        let (judged, judge) = judge(artifacts, digest, device)?;
        self.check(BundleKind::Judge, digest, &judged)?;
        Ok(judge)
    }

    /// Loads the statistics of this model's teacher in the features of this judge.
    pub(crate) fn reference(
        &self,
        artifacts: &Artifacts,
        digest: &Digest,
        judge: &Judge,
    ) -> Result<Reference> {
        let bundle = artifacts.bundle(digest, BundleKind::Reference)?;
        self.check(BundleKind::Reference, digest, &Model::of(&bundle)?.model)?;
        let reference = Reference::from_bytes(self.config, judge, bundle.weights());
        reference.map_err(|error| as_artifact(error).of(format!("Reference bundle {digest}")))
    }
}

/// Whatever is wrong with a bundle's content, it is the bundle that is bad.
pub(crate) fn as_artifact(error: lethe_sfd::Error) -> Failed {
    Failed::bad_artifact(error.to_string())
}

/// A label's index.
pub(crate) fn label(config: &ModelConfig, name: &str) -> Result<i64> {
    config.label(name).ok_or_else(|| {
        let known = config.labels.iter().take(32).cloned().collect::<Vec<_>>().join(", ");
        Failed::bad_plan(format!("the model has no label {name:?}; it has {known}"))
    })
}

/// A label's name.
pub(crate) fn label_name(config: &ModelConfig, label: i64) -> String {
    usize::try_from(label).ok().and_then(|index| config.labels.get(index)).cloned().unwrap_or_default()
}

/// The plan's targets by index, if they and the kept labels together are exactly the model's labels.
pub(crate) fn targets(
    config: &ModelConfig,
    planned: &[PlannedTarget],
    kept: &[String],
) -> Result<Vec<Target>> {
    for name in planned.iter().map(|target| &target.label).chain(kept) {
        label(config, name)?;
    }
    let is_named = |name: &String| kept.contains(name) || planned.iter().any(|target| target.label == *name);
    if let Some(missing) = config.labels.iter().find(|name| !is_named(name)) {
        let message =
            format!("label {missing:?} of the model is neither a target nor kept: nobody would measure it");
        return Err(Failed::bad_plan(message));
    }
    let target = |planned: &PlannedTarget| {
        let replacement = match &planned.replacement {
            Override::Fixed { label: name } => lethe_sfd::Override::Fixed(label(config, name)?),
            Override::Nearest => lethe_sfd::Override::Nearest,
            Override::Random => lethe_sfd::Override::Random,
        };
        Ok(Target { label: label(config, &planned.label)?, replacement })
    };
    planned.iter().map(target).collect()
}

/// The contract's word for a resolved override.
pub(crate) fn planned(config: &ModelConfig, replacement: Replacement) -> Override {
    match replacement {
        Replacement::Label(label) => Override::Fixed { label: label_name(config, label) },
        // A plan has no word for a judged override; it too shows any kept label.
        Replacement::AnyKept | Replacement::Judged(_) => Override::Random,
    }
}
