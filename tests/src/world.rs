//! One scenario's namespace, with the operator, the store, and what people do to the objects in it.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::{
    apps::v1::Deployment,
    batch::v1::Job,
    core::v1::{Namespace, ServiceAccount},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{
        ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams,
        ValidationDirective,
    },
    core::{GroupVersionKind, NamespaceResourceScope},
};
use lethe_api::{
    Digest,
    v1alpha1::{
        BUNDLE_ANNOTATION, ConditionType, DiffusionModel, Reason, RequestPhase, UnlearnRequest, UnlearnRun,
    },
};
use lethe_store::Store;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Mutex;

use crate::{
    Server, examples,
    kubelet::Kubelet,
    operator::{Launch, Operator},
    rights, trainer,
    wait::{self, Kind},
};

/// The model, its Deployment and the label of its pods, as in `examples/`.
pub const MODEL: &str = "digits";
pub const POLICY: &str = "standard";
/// Field manager of what people apply.
const PERSON: &str = "person";

pub struct World {
    pub server: Arc<Server>,
    /// The administrator.
    pub client: Client,
    pub namespace: String,
    pub store: Store,
    pub kubelet: Kubelet,
    operator: Mutex<Option<Operator>>,
    /// Holds the store, kubeconfigs and the operator's log.
    files: TempDir,
}

impl World {
    /// A namespace called after the scenario, and nothing in it.
    ///
    /// # Errors
    /// If the API server refuses.
    pub async fn new(server: Arc<Server>, name: &str) -> Result<Self> {
        let client = server.client.clone();
        let namespace: String = name.replace('_', "-").chars().take(63).collect();
        let namespace = namespace.trim_end_matches('-').to_owned();
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        let namespaces: Api<Namespace> = Api::all(client.clone());
        namespaces.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
        let files = tempfile::tempdir().context("cannot create a directory")?;
        let folder = files.path().join("store");
        std::fs::create_dir(&folder)?;
        let store = Store::open(&lethe_store::folder_uri(&folder)?)?;
        let kubelet = Kubelet::start(Api::namespaced(client.clone(), &namespace), MODEL)?;
        Ok(Self { server, client, namespace, store, kubelet, operator: Mutex::default(), files })
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The folder of the store.
    pub fn store_folder(&self) -> PathBuf {
        self.files.path().join("store")
    }

    pub fn operator_log(&self) -> PathBuf {
        self.files.path().join("operator.log")
    }

    // --- The operator.

    /// How to start the operator with the rights that the chart gives it.
    ///
    /// # Errors
    /// If these cannot be given.
    pub async fn launch(&self) -> Result<Launch> {
        rights::grant(&self.server, &self.namespace).await?;
        let kubeconfig = rights::kubeconfig(&self.server, &self.namespace).await?;
        Ok(Launch {
            binary: self.server.operator.clone(),
            kubeconfig: rights::write(&kubeconfig, self.files.path(), "kubeconfig")?,
            namespace: self.namespace.clone(),
            identity: "operator-0".into(),
            store: self.store.uri().into(),
            log: self.operator_log(),
        })
    }

    /// The same, but every request passes through a proxy at `url`.
    ///
    /// # Errors
    /// If the kubeconfig cannot be written.
    pub fn through(&self, launch: &Launch, url: &str, identity: &str) -> Result<Launch> {
        let kubeconfig = rights::open_kubeconfig(url)?;
        let kubeconfig = rights::write(&kubeconfig, self.files.path(), &format!("{identity}.kubeconfig"))?;
        Ok(Launch { kubeconfig, identity: identity.into(), ..launch.clone() })
    }

    /// Starts the operator, in place of the one that may be running.
    ///
    /// # Errors
    /// If it cannot be started.
    pub async fn start_operator(&self) -> Result<()> {
        let launch = self.launch().await?;
        *self.operator.lock().await = Some(Operator::start(&launch)?);
        Ok(())
    }

    /// `kill -9`, then the same operator again, as the kubelet starts a container anew.
    ///
    /// # Errors
    /// If none is running.
    pub async fn crash_operator(&self) -> Result<()> {
        self.take_operator().await?.kill().await?;
        self.start_operator().await
    }

    /// The running operator, to be dealt with otherwise.
    ///
    /// # Errors
    /// If none is running.
    pub async fn take_operator(&self) -> Result<Operator> {
        self.operator.lock().await.take().context("no operator is running")
    }

    /// Gives an operator back, so that it lives as long as the scenario.
    pub async fn keep_operator(&self, operator: Operator) {
        *self.operator.lock().await = Some(operator);
    }

    /// The text of the operator's metrics as soon as it `is` as described by `what`.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn metrics_until(&self, what: &str, is: impl Fn(&str) -> bool) -> Result<String> {
        let operator = self.operator.lock().await;
        operator.as_ref().context("no operator is running")?.metrics_until(what, is).await
    }

    // --- What people apply.

    /// # Errors
    /// If the API server refuses; that is an answer that scenarios may want.
    pub async fn apply(&self, manifest: &Value) -> kube::Result<DynamicObject> {
        apply(&self.client, &self.namespace, manifest).await
    }

    /// As `kubectl create`: nothing of that name may be there.
    ///
    /// # Errors
    /// If the API server refuses; that is an answer that scenarios may want.
    pub async fn create(&self, manifest: &Value) -> kube::Result<DynamicObject> {
        let object = serde_json::from_value(manifest.clone()).map_err(kube::Error::SerdeError)?;
        dynamic(&self.client, &self.namespace, manifest).create(&PostParams::default(), &object).await
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

    /// The operator, the policy, the Deployment and the model of `examples/`.
    ///
    /// # Errors
    /// If one of them is refused.
    pub async fn begin(&self) -> Result<()> {
        self.begin_with(policy()?, self.model()?).await
    }

    /// As [`World::begin`], with another policy and model.
    ///
    /// # Errors
    /// If one of them is refused.
    pub async fn begin_with(&self, policy: Value, model: Value) -> Result<()> {
        self.await_service_account().await?;
        self.start_operator().await?;
        self.apply(&policy).await?;
        self.apply(&examples::first("serving.yaml")?).await?;
        self.apply(&model).await?;
        Ok(())
    }

    /// No pod of a namespace is created before the namespace has its service account.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn await_service_account(&self) -> Result<()> {
        wait::until(&self.api::<ServiceAccount>(), "default", "it exists", |_| true).await?;
        Ok(())
    }

    /// The model of `examples/`, with a base digest and the port on which the pods of this world answer.
    ///
    /// # Errors
    /// If the example cannot be read.
    pub fn model(&self) -> Result<Value> {
        let mut model = examples::first("model.yaml")?;
        model["spec"]["base"]["digest"] = json!(trainer::base());
        model["spec"]["serving"]["port"] = json!(self.kubelet.port());
        Ok(model)
    }

    /// [`World::begin`], and everything until the baseline is served.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn begin_ready(&self) -> Result<()> {
        self.begin().await?;
        self.prepare().await
    }

    /// Plays the trainer until the baseline is served.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn prepare(&self) -> Result<()> {
        let task = self.task(lethe_api::v1alpha1::Stage::Prepare).await?;
        self.succeed(&task).await?;
        self.model_until("it is Ready", |m| {
            condition(m.status.as_ref().map(|s| &s.conditions[..]), ConditionType::Ready, "True")
        })
        .await?;
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
            let conditions = r.status.as_ref().map(|s| &s.conditions[..]).unwrap_or_default();
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
            let conditions = r.status.as_ref().map(|s| &s.conditions[..]).unwrap_or_default();
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

    /// # Errors
    /// If there is no model.
    pub async fn ledger(&self) -> Result<Vec<lethe_api::v1alpha1::LedgerEntry>> {
        let model = self.api::<DiffusionModel>().get(MODEL).await?;
        Ok(model.status.unwrap_or_default().ledger)
    }

    /// All events, one per line.
    pub async fn events(&self) -> String {
        crate::diagnosis::events(&self.api()).await
    }
}

/// Server-side apply, as a person.
///
/// # Errors
/// If the API server refuses.
pub async fn apply(client: &Client, namespace: &str, manifest: &Value) -> kube::Result<DynamicObject> {
    let name = manifest["metadata"]["name"].as_str().unwrap_or_default();
    // As kubectl asks for: a field that nobody knows is an error.
    let strict =
        PatchParams { field_validation: Some(ValidationDirective::Strict), ..PatchParams::apply(PERSON) };
    dynamic(client, namespace, manifest).patch(name, &strict.force(), &Patch::Apply(manifest)).await
}

/// The resource that a manifest is of.
fn dynamic(client: &Client, namespace: &str, manifest: &Value) -> Api<DynamicObject> {
    let text = |key: &str| manifest[key].as_str().unwrap_or_default();
    let (group, version) = text("apiVersion").rsplit_once('/').unwrap_or(("", text("apiVersion")));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, text("kind")));
    Api::namespaced_with(client.clone(), namespace, &resource)
}

/// The policy of `examples/`, but a trainer that fails is not tried again: that would only take time.
///
/// # Errors
/// If the example cannot be read.
pub fn policy() -> Result<Value> {
    let mut policy = examples::first("policy.yaml")?;
    policy["spec"]["trainer"]["backoffLimit"] = json!(0);
    Ok(policy)
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

/// Whether a condition is there with this status.
pub fn condition(
    conditions: Option<&[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition]>,
    type_: ConditionType,
    status: &str,
) -> bool {
    type_.find(conditions.unwrap_or_default()).is_some_and(|c| c.status == status)
}

/// The bundle that a Deployment's pod template names.
pub fn bundle(deployment: &Deployment) -> Option<String> {
    let template = deployment.spec.as_ref()?.template.metadata.as_ref()?;
    template.annotations.as_ref()?.get(BUNDLE_ANNOTATION).cloned()
}
