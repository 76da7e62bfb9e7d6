//! A namespace of a cluster: what people do to the objects in it, and what they see.

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::{
    api::{apps::v1::Deployment, batch::v1::Job, core::v1::ServiceAccount},
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{
        ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams,
        ValidationDirective,
    },
    core::{GroupVersionKind, NamespaceResourceScope, Request},
};
use lethe_api::{
    Digest,
    v1alpha1::{
        BUNDLE_ANNOTATION, ConditionType, DiffusionModel, LedgerEntry, Reason, RequestPhase, UnlearnRequest,
        UnlearnRun,
    },
};
use serde_json::{Value, json};

use crate::wait::{self, Kind};

/// The model, its Deployment and the label of its pods, as in `examples/`.
pub const MODEL: &str = "digits";
/// Field manager of what people apply.
const PERSON: &str = "person";

/// A namespace, as an administrator has it.
#[derive(Clone)]
pub struct Place {
    pub client: Client,
    pub namespace: String,
}

impl Place {
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// # Errors
    /// If the API server refuses; that is an answer that scenarios may want.
    pub async fn apply(&self, manifest: &Value) -> kube::Result<DynamicObject> {
        apply(&self.client, &*self.namespace, manifest).await
    }

    /// Changes the policy that the model is under. Returns once the operator works by it: a request that came sooner
    /// could still get the old one.
    ///
    /// # Errors
    /// If it is refused, or that takes too long.
    pub async fn change_policy(&self, policy: &Value) -> Result<()> {
        let generation = self.apply(policy).await?.metadata.generation;
        self.policy_is_known(generation).await
    }

    /// Returns once the operator works by this generation of the model's policy.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn policy_is_known(&self, generation: Option<i64>) -> Result<()> {
        let known = |model: &DiffusionModel| model.status.as_ref()?.policy.as_ref()?.generation;
        self.model_until("the operator has its new policy", |model| known(model) == generation).await?;
        Ok(())
    }

    /// As `kubectl create`: nothing of that name may be there.
    ///
    /// # Errors
    /// If the API server refuses; that is an answer that scenarios may want.
    pub async fn create(&self, manifest: &Value) -> kube::Result<DynamicObject> {
        let object = serde_json::from_value(manifest.clone()).map_err(kube::Error::SerdeError)?;
        dynamic(&self.client, Some(&self.namespace), manifest).create(&PostParams::default(), &object).await
    }

    /// As `kubectl create --dry-run=server`: a field that nobody knows is an error, and nothing is kept.
    ///
    /// # Errors
    /// If the API server refuses; that is an answer that scenarios may want.
    pub async fn try_out(&self, manifest: &Value) -> kube::Result<DynamicObject> {
        let api = dynamic(&self.client, Some(&self.namespace), manifest);
        let body = serde_json::to_vec(manifest).map_err(kube::Error::SerdeError)?;
        let trial = PostParams { dry_run: true, ..PostParams::default() };
        let request = Request::new(api.resource_url()).create(&trial, body);
        let mut request = request.map_err(kube::Error::BuildRequest)?;
        // The client has no parameter for it.
        let strict = format!("{}&fieldValidation=Strict", request.uri());
        *request.uri_mut() = strict.parse().expect("a parameter more makes no URI wrong");
        self.client.request(request).await
    }

    /// Changes something as a person would with `kubectl patch --type=merge`.
    ///
    /// # Errors
    /// If the API server refuses.
    pub async fn patch<K>(&self, name: &str, patch: Value) -> kube::Result<K>
    where
        K: Kind + Resource<Scope = NamespaceResourceScope>,
    {
        self.api::<K>().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await
    }

    /// # Errors
    /// If the API server refuses.
    pub async fn delete<K>(&self, name: &str) -> kube::Result<()>
    where
        K: Kind + Resource<Scope = NamespaceResourceScope>,
    {
        self.api::<K>().delete(name, &DeleteParams::background()).await.map(|_| ())
    }

    /// No pod of a namespace is created before the namespace has its service account.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn await_service_account(&self) -> Result<()> {
        wait::until(&self.api::<ServiceAccount>(), "default", "it exists", |_| true).await?;
        Ok(())
    }

    /// Applies a request for one label.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn request(&self, name: &str, target: &str, replacement: &str) -> Result<()> {
        self.apply(&request(name, &[target], replacement)).await?;
        Ok(())
    }

    // --- What people see.

    /// # Errors
    /// If that takes too long.
    pub async fn model_until(
        &self,
        what: &str,
        is: impl Fn(&DiffusionModel) -> bool + Send + Sync,
    ) -> Result<DiffusionModel> {
        wait::until(&self.api(), MODEL, what, is).await
    }

    /// # Errors
    /// If that takes too long.
    pub async fn request_until(&self, name: &str, phase: RequestPhase) -> Result<UnlearnRequest> {
        let what = format!("its phase is {phase:?}");
        wait::until(&self.api::<UnlearnRequest>(), name, &what, |r| {
            r.status.as_ref().and_then(|status| status.phase) == Some(phase)
        })
        .await
    }

    /// The request once it is not Ready for this reason, and says so with these words.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn request_says(&self, name: &str, reason: Reason, words: &str) -> Result<UnlearnRequest> {
        let what = format!("it is not Ready because {reason} ({words:?})");
        wait::until(&self.api::<UnlearnRequest>(), name, &what, |r| {
            let conditions = r.conditions();
            ConditionType::Ready.find(conditions).is_some_and(|c| {
                c.status != "True" && c.reason == reason.to_string() && c.message.contains(words)
            })
        })
        .await
    }

    /// The request once it waits for this reason, and says so where people look, with these words.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn request_waits(&self, name: &str, reason: Reason, words: &str) -> Result<UnlearnRequest> {
        let what = format!("it waits because {reason} ({words:?})");
        wait::until(&self.api::<UnlearnRequest>(), name, &what, |r| {
            let conditions = r.conditions();
            let why = conditions.iter().any(|c| c.status == "Unknown" && c.reason == reason.to_string());
            let ready = ConditionType::Ready.find(conditions);
            why && ready.is_some_and(|c| c.status == "Unknown" && c.message.contains(words))
        })
        .await
    }

    /// The bundle that the Deployment's pod template names.
    ///
    /// # Errors
    /// If there is no Deployment.
    pub async fn named_bundle(&self) -> Result<Option<String>> {
        let deployment = self.api::<Deployment>().get(MODEL).await?;
        Ok(bundle(&deployment))
    }

    /// Somebody else has the Deployment name another bundle, or none.
    ///
    /// # Errors
    /// If that may not be written.
    pub async fn drift(&self, to: Option<&Digest>) -> Result<()> {
        let annotations = json!({BUNDLE_ANNOTATION: to});
        let drift = json!({"spec": {"template": {"metadata": {"annotations": annotations}}}});
        self.patch::<Deployment>(MODEL, drift).await?;
        Ok(())
    }

    /// # Errors
    /// If the Deployment does not name `digest`.
    pub async fn assert_serves(&self, digest: &Digest) -> Result<()> {
        let named = self.named_bundle().await?;
        ensure!(named.as_deref() == Some(digest.as_str()), "the Deployment names {named:?}, not {digest}");
        Ok(())
    }

    /// Names of all Jobs, sorted.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub async fn jobs(&self) -> Result<Vec<String>> {
        let mut jobs: Vec<_> =
            self.api::<Job>().list(&ListParams::default()).await?.iter().map(ResourceExt::name_any).collect();
        jobs.sort();
        Ok(jobs)
    }

    /// # Errors
    /// If they cannot be listed.
    pub async fn runs(&self) -> Result<Vec<UnlearnRun>> {
        Ok(self.api::<UnlearnRun>().list(&ListParams::default()).await?.items)
    }

    /// What somebody exports to have it verified: models, requests and runs, as a List in JSON.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub async fn exported(&self) -> Result<String> {
        let all = ListParams::default();
        let mut items = vec![];
        for model in self.api::<DiffusionModel>().list(&all).await?.items {
            items.push(serde_json::to_value(model)?);
        }
        for request in self.api::<UnlearnRequest>().list(&all).await?.items {
            items.push(serde_json::to_value(request)?);
        }
        for run in self.runs().await? {
            items.push(serde_json::to_value(run)?);
        }
        Ok(json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string())
    }

    /// A copy of a run that has an attempt of a number which the definitions allow and no operator can read.
    ///
    /// # Errors
    /// If there is no run for a request, or the API server refuses the copy.
    pub async fn copy_a_run_that_nobody_can_read(&self, name: &str) -> Result<()> {
        let run = self.runs().await?.into_iter().find(|run| !run.spec.requests.is_empty());
        let mut copy = serde_json::to_value(run.context("no run works for a request")?)?;
        copy["metadata"] = json!({"name": name});
        copy["spec"]["requests"][0]["attempt"] = json!(u64::from(u32::MAX) + 1);
        self.create(&copy).await?;
        Ok(())
    }

    /// # Errors
    /// If there is no model.
    pub async fn ledger(&self) -> Result<Vec<LedgerEntry>> {
        let model = self.api::<DiffusionModel>().get(MODEL).await?;
        Ok(model.status.unwrap_or_default().ledger)
    }

    /// All events, one per line.
    pub async fn events(&self) -> String {
        crate::diagnosis::events(&self.api()).await
    }
}

/// Server-side apply, as a person. Without a namespace, the resource is one of the cluster.
///
/// # Errors
/// If the API server refuses.
pub async fn apply(
    client: &Client,
    namespace: impl Into<Option<&str>>,
    manifest: &Value,
) -> kube::Result<DynamicObject> {
    let name = manifest["metadata"]["name"].as_str().unwrap_or_default();
    // As kubectl asks for: a field that nobody knows is an error.
    let strict =
        PatchParams { field_validation: Some(ValidationDirective::Strict), ..PatchParams::apply(PERSON) };
    dynamic(client, namespace.into(), manifest).patch(name, &strict.force(), &Patch::Apply(manifest)).await
}

/// The resource that a manifest is of.
fn dynamic(client: &Client, namespace: Option<&str>, manifest: &Value) -> Api<DynamicObject> {
    let text = |key: &str| manifest[key].as_str().unwrap_or_default();
    let (group, version) = text("apiVersion").rsplit_once('/').unwrap_or(("", text("apiVersion")));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, text("kind")));
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

/// A request with a fixed override.
pub fn request(name: &str, targets: &[&str], replacement: &str) -> Value {
    let targets: Vec<_> = targets.iter().map(|label| json!({"label": label})).collect();
    json!({
        "apiVersion": "lethe.dev/v1alpha1",
        "kind": "UnlearnRequest",
        "metadata": {"name": name},
        "spec": {
            "modelRef": {"name": MODEL},
            "targets": targets,
            "override": {"strategy": "Fixed", "label": replacement},
        },
    })
}

/// That the API server refused something, and said these words.
///
/// # Errors
/// If it did not.
pub fn refused<T>(result: kube::Result<T>, words: &str) -> Result<()> {
    match result {
        Ok(_) => bail!("it was accepted; expected a refusal with {words:?}"),
        Err(kube::Error::Api(status))
            if (400..500).contains(&status.code) && status.message.contains(words) =>
        {
            Ok(())
        }
        Err(error) => bail!("expected a refusal with {words:?}, got {error}"),
    }
}

/// Objects with conditions in their status.
pub trait HasConditions {
    /// None yet, if nobody has looked at it.
    fn conditions(&self) -> &[Condition];
}

impl HasConditions for DiffusionModel {
    fn conditions(&self) -> &[Condition] {
        self.status.as_ref().map(|status| &status.conditions[..]).unwrap_or_default()
    }
}

impl HasConditions for UnlearnRequest {
    fn conditions(&self) -> &[Condition] {
        self.status.as_ref().map(|status| &status.conditions[..]).unwrap_or_default()
    }
}

impl HasConditions for UnlearnRun {
    fn conditions(&self) -> &[Condition] {
        self.status.as_ref().map(|status| &status.conditions[..]).unwrap_or_default()
    }
}

/// Whether a condition is there with this status.
pub fn condition(object: &impl HasConditions, type_: ConditionType, status: &str) -> bool {
    type_.find(object.conditions()).is_some_and(|c| c.status == status)
}

/// The bundle that a Deployment's pod template names.
pub fn bundle(deployment: &Deployment) -> Option<String> {
    let template = deployment.spec.as_ref()?.template.metadata.as_ref()?;
    template.annotations.as_ref()?.get(BUNDLE_ANNOTATION).cloned()
}
