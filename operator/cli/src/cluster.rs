//! The cluster: whom to ask, and reading what concerns us.

use std::fmt::Debug;

use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::{
    Api, Client, Config, Resource,
    api::{ListParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::{ClusterResourceScope, NamespaceResourceScope},
};
use lethe_api::v1alpha1::{
    ClusterUnlearnPolicy, DiffusionModel, UnlearnApproval, UnlearnPolicy, UnlearnRequest, UnlearnRun,
};
use serde::de::DeserializeOwned;

use crate::{
    args::ClusterArgs,
    exit::{Result, Trouble},
    refusal,
    tree::Seen,
};

/// So many objects come with one answer of the API server.
const PAGE: u32 = 500;

/// A cluster, and a namespace of it or all.
#[derive(Clone)]
pub struct Place {
    pub client: Client,
    /// None for all of them.
    pub namespace: Option<String>,
}

impl Place {
    /// # Errors
    /// If there is no kubeconfig that can be used.
    pub async fn open(args: &ClusterArgs, all_namespaces: bool) -> Result<Self> {
        let config = config(args).await?;
        let namespace = args.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config)
            .map_err(|error| Trouble::unreachable(format!("the kubeconfig cannot be used: {error}")))?;
        Ok(Self { client, namespace: (!all_namespaces).then_some(namespace) })
    }

    /// The one namespace; that of the command line or the context.
    pub fn one(&self) -> &str {
        self.namespace.as_deref().unwrap_or("default")
    }

    /// For sentences.
    pub fn words(&self) -> String {
        match &self.namespace {
            Some(name) => format!("namespace {name}"),
            None => "any namespace".into(),
        }
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        match &self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    pub fn of_cluster<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = ClusterResourceScope>,
    {
        Api::all(self.client.clone())
    }

    /// Everything that a tree is made of. Models and requests must be readable; of the rest it is noted what is not.
    ///
    /// # Errors
    /// If models or requests cannot be listed.
    pub async fn see(&self) -> Result<Seen> {
        let mut seen = Seen::default();
        let role = Some("lethe-view");
        let failed = |what: &str, error: &kube::Error| refusal::of(&format!("list {what}"), role, error);
        seen.models = list(&self.api::<DiffusionModel>()).await.map_err(|e| failed("models", &e))?;
        seen.requests = list(&self.api::<UnlearnRequest>()).await.map_err(|e| failed("requests", &e))?;
        seen.runs = self.note(&mut seen.unread, "runs", &self.api::<UnlearnRun>()).await?;
        seen.approvals = self.note(&mut seen.unread, "approvals", &self.api::<UnlearnApproval>()).await?;
        seen.policies = self.note(&mut seen.unread, "policies", &self.api::<UnlearnPolicy>()).await?;
        let names_cluster = seen
            .models
            .iter()
            .any(|model| model.spec.policy_ref.kind == lethe_api::v1alpha1::PolicyKind::ClusterUnlearnPolicy);
        if names_cluster {
            let all = self.of_cluster::<ClusterUnlearnPolicy>();
            seen.cluster_policies = self.note(&mut seen.unread, "policies of the cluster", &all).await?;
        }
        Ok(seen)
    }

    /// A list that one may lack the right to read: that is noted.
    async fn note<K>(&self, unread: &mut Vec<String>, what: &str, api: &Api<K>) -> Result<Vec<K>>
    where
        K: Clone + Debug + DeserializeOwned,
    {
        match list(api).await {
            Ok(found) => Ok(found),
            Err(kube::Error::Api(status)) if status.code == 403 => {
                unread.push(format!("you may not read {what}: what they say is not shown"));
                Ok(vec![])
            }
            Err(error) => Err(refusal::of(&format!("list {what}"), None, &error)),
        }
    }

    /// Who the API server takes us for.
    ///
    /// # Errors
    /// If it does not say.
    pub async fn whoami(&self) -> Result<String> {
        let reviews: Api<SelfSubjectReview> = Api::all(self.client.clone());
        let asked = reviews.create(&PostParams::default(), &SelfSubjectReview::default()).await;
        let review = asked.map_err(|error| refusal::of("ask who you are", None, &error))?;
        let user = review.status.and_then(|status| status.user_info).and_then(|user| user.username);
        user.ok_or_else(|| Trouble::unreachable("the API server does not say who you are"))
    }

    /// A request of the namespace.
    ///
    /// # Errors
    /// If it is not there, or may not be read.
    pub async fn request(&self, name: &str) -> Result<UnlearnRequest> {
        let name = name.strip_prefix("ulr/").unwrap_or(name);
        let got = self.api::<UnlearnRequest>().get(name).await;
        got.map_err(|error| refusal::of(&format!("read request {name}"), Some("lethe-view"), &error))
    }
}

/// As kubectl finds it; within a pod that has no kubeconfig, its service account.
async fn config(args: &ClusterArgs) -> Result<Config> {
    let unusable = |error: &dyn std::fmt::Display| {
        Trouble::unreachable(format!("no kubeconfig that can be used: {error}; try --kubeconfig"))
    };
    let options = KubeConfigOptions { context: args.context.clone(), ..KubeConfigOptions::default() };
    let config = match &args.kubeconfig {
        Some(path) => {
            let read = Kubeconfig::read_from(path).map_err(|error| unusable(&error))?;
            Config::from_custom_kubeconfig(read, &options).await.map_err(|error| unusable(&error))?
        }
        None if args.context.is_some() => {
            Config::from_kubeconfig(&options).await.map_err(|error| unusable(&error))?
        }
        None => Config::infer().await.map_err(|error| unusable(&error))?,
    };
    Ok(config)
}

/// All objects, page by page.
///
/// # Errors
/// If the API server refuses.
pub async fn list<K>(api: &Api<K>) -> kube::Result<Vec<K>>
where
    K: Clone + Debug + DeserializeOwned,
{
    list_with(api, &ListParams::default()).await
}

/// All objects that are asked for, page by page.
///
/// # Errors
/// If the API server refuses.
pub async fn list_with<K>(api: &Api<K>, asked: &ListParams) -> kube::Result<Vec<K>>
where
    K: Clone + Debug + DeserializeOwned,
{
    let mut all = Vec::new();
    let mut params = asked.clone().limit(PAGE);
    loop {
        let page = api.list(&params).await?;
        all.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(all),
        }
    }
}
