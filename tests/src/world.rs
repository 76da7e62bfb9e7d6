//! One scenario's namespace, with the operator, the store, and what people do to the objects in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Deref,
    path::PathBuf,
    sync::Arc,
};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, api::PostParams};
use lethe_api::{
    Digest,
    v1alpha1::{ConditionType, Stage},
};
use lethe_store::Store;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Mutex;

use crate::{
    Server,
    deaths::Fate,
    examples,
    keys::Key,
    kubelet::{Kubelet, Statuses},
    operator::{Launch, Operator},
    place::{MODEL, Place, condition},
    proxy::Proxy,
    rights::{self, Reach},
    server, trainer,
};

/// The policy of `examples/`.
pub const POLICY: &str = "standard";

/// What one scenario of the API tier has for itself.
pub struct World {
    pub server: Arc<Server>,
    pub reach: Reach,
    /// The namespace that the operator runs in.
    pub home: String,
    place: Place,
    pub store: Store,
    pub kubelet: Kubelet,
    pub statuses: Statuses,
    operator: Mutex<Option<Operator>>,
    /// Further flags of the operator.
    flags: Mutex<Vec<String>>,
    /// What becomes of the operator in [`World::dying`].
    pub fate: Fate,
    /// Holds the store, kubeconfigs and the operator's log.
    files: TempDir,
}

impl Deref for World {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}

impl World {
    /// A namespace called after the scenario, with nothing in it but the operator.
    ///
    /// # Errors
    /// If the API server refuses.
    pub async fn new(server: Arc<Server>, name: &str) -> Result<Self> {
        let namespace: String = name.replace('_', "-").chars().take(63).collect();
        let namespace = namespace.trim_end_matches('-').to_owned();
        Self::with(server, Reach::Namespace, namespace.clone(), namespace, Statuses::Own).await
    }

    /// An empty namespace, and an operator in another one that works in all of them: such a server has one world.
    ///
    /// # Errors
    /// If the API server refuses.
    pub async fn of_all_namespaces(server: Arc<Server>) -> Result<Self> {
        Self::with(server, Reach::Cluster, "lethe-system".into(), "models".into(), Statuses::Own).await
    }

    /// The same where there are kubelets, which write the statuses of pods.
    ///
    /// # Errors
    /// If the API server refuses.
    pub async fn with_kubelets(server: Arc<Server>) -> Result<Self> {
        Self::with(server, Reach::Cluster, "lethe-system".into(), "models".into(), Statuses::Kubelets).await
    }

    async fn with(
        server: Arc<Server>,
        reach: Reach,
        home: String,
        namespace: String,
        statuses: Statuses,
    ) -> Result<Self> {
        let client = server.client.clone();
        let namespaces: Api<Namespace> = Api::all(client.clone());
        for name in BTreeSet::from([&home, &namespace]) {
            let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            namespaces.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
        }
        Self::bare(server, reach, home, namespace, statuses)
    }

    /// The same before anything is there, the namespaces neither: somebody else creates them.
    ///
    /// # Errors
    /// If the store cannot be created.
    pub fn of_nothing(server: Arc<Server>, reach: Reach, home: String, namespace: String) -> Result<Self> {
        Self::bare(server, reach, home, namespace, Statuses::Own)
    }

    fn bare(
        server: Arc<Server>,
        reach: Reach,
        home: String,
        namespace: String,
        statuses: Statuses,
    ) -> Result<Self> {
        let client = server.client.clone();
        let files = tempfile::tempdir().context("cannot create a directory")?;
        let folder = files.path().join("store");
        std::fs::create_dir(&folder)?;
        let store = Store::open(&lethe_store::folder_uri(&folder)?)?;
        let kubelet = Kubelet::start(Api::namespaced(client.clone(), &namespace), MODEL, statuses)?;
        let place = Place { client, namespace };
        Ok(Self {
            server,
            reach,
            home,
            place,
            store,
            kubelet,
            statuses,
            operator: Mutex::default(),
            flags: Mutex::default(),
            fate: Fate::default(),
            files,
        })
    }

    /// The folder of the store.
    pub fn store_folder(&self) -> PathBuf {
        self.files.path().join("store")
    }

    /// The files of all evidence about a bundle.
    ///
    /// # Errors
    /// If there is none.
    pub fn envelopes(&self, bundle: &Digest) -> Result<Vec<PathBuf>> {
        let folder = self.store_folder().join("evidence").join(bundle.hex());
        Ok(std::fs::read_dir(folder)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()?)
    }

    pub fn operator_log(&self) -> PathBuf {
        self.files.path().join("operator.log")
    }

    /// A key that may sign evidence.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn key(&self, name: &str) -> Result<Key> {
        Key::make(self.files.path(), name)
    }

    // --- The operator.

    /// Further flags for an operator that is started from now on.
    pub async fn set_flags(&self, flags: Vec<String>) {
        *self.flags.lock().await = flags;
    }

    /// One more.
    pub async fn add_flag(&self, flag: String) {
        self.flags.lock().await.push(flag);
    }

    /// How to start the operator with the rights that the chart gives it.
    ///
    /// # Errors
    /// If these cannot be given.
    pub async fn launch(&self) -> Result<Launch> {
        rights::grant(&self.server, &self.home, self.reach).await?;
        let kubeconfig = rights::kubeconfig(&self.server, &self.home).await?;
        let kubeconfig = rights::write(&kubeconfig, self.files.path(), "kubeconfig")?;
        Ok(Launch { kubeconfig, ..self.bare_launch().await })
    }

    /// The same without a kubeconfig.
    pub async fn bare_launch(&self) -> Launch {
        Launch {
            binary: self.server.operator.clone(),
            kubeconfig: PathBuf::new(),
            home: self.home.clone(),
            watch: (self.reach == Reach::Namespace).then(|| self.namespace.clone()),
            identity: "operator-0".into(),
            store: self.store.uri().into(),
            verbosity: "info,lethe_operator=debug",
            flags: self.flags.lock().await.clone(),
            env: BTreeMap::new(),
            log: self.operator_log(),
        }
    }

    /// A proxy to the API server that has the operator's rights.
    ///
    /// # Errors
    /// If these cannot be given, or there is no free port.
    pub async fn proxy(&self) -> Result<Proxy> {
        let kubeconfig = rights::kubeconfig(&self.server, &self.home).await?;
        Proxy::start(server::client(kubeconfig).await?).await
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

    /// Host and port at which the running operator says its metrics.
    ///
    /// # Errors
    /// If none is running.
    pub async fn operator_address(&self) -> Result<String> {
        let operator = self.operator.lock().await;
        Ok(operator.as_ref().context("no operator is running")?.address().to_owned())
    }

    /// The text of the operator's metrics as soon as it `is` as described by `what`.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn metrics_until(&self, what: &str, is: impl Fn(&str) -> bool) -> Result<String> {
        let operator = self.operator.lock().await;
        operator.as_ref().context("no operator is running")?.metrics_until(what, is).await
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
        self.start_operator().await?;
        self.lay_out(policy, model).await
    }

    /// Everything but the operator, which may run already or come later.
    ///
    /// # Errors
    /// If one of the objects is refused.
    pub async fn lay_out(&self, policy: Value, model: Value) -> Result<()> {
        self.await_service_account().await?;
        self.apply(&policy).await?;
        self.apply(&examples::first("serving.yaml")?).await?;
        self.apply(&model).await?;
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

    /// One of many models, which serves nothing yet, and its Deployment.
    ///
    /// # Errors
    /// If one of them is refused.
    pub async fn apply_model(&self, name: &str) -> Result<()> {
        self.apply(&deployment(name)?).await?;
        let mut model = self.model()?;
        model["metadata"]["name"] = json!(name);
        model["spec"]["serving"]["target"]["name"] = json!(name);
        model["spec"]["serving"]["initial"] = json!("None");
        self.apply(&model).await?;
        Ok(())
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
        let task = self.task(Stage::Prepare).await?;
        self.succeed(&task).await?;
        self.model_until("it is Ready", |m| condition(m, ConditionType::Ready, "True")).await?;
        Ok(())
    }
}

/// The Deployment of `examples/`, for one of many models.
fn deployment(name: &str) -> Result<Value> {
    let mut deployment = examples::first("serving.yaml")?;
    deployment["metadata"]["name"] = json!(name);
    for labels in ["/spec/selector/matchLabels", "/spec/template/metadata/labels"] {
        let labels = deployment.pointer_mut(labels).context("the example has no labels")?;
        labels["example.org/model"] = json!(name);
    }
    Ok(deployment)
}

/// A run under that policy, as the operator would create it.
///
/// # Errors
/// If the example cannot be read.
pub fn run() -> Result<Value> {
    let plan = "{}";
    Ok(json!({
        "apiVersion": "lethe.dev/v1alpha1", "kind": "UnlearnRun", "metadata": {"name": "digits-00000000"},
        "spec": {
            "model": MODEL, "type": "Forget", "plan": plan, "planDigest": Digest::of(plan),
            "policy": policy()?["spec"],
        },
    }))
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
