//! `lethe-operator collect`: removes from the store what nothing refers to any more.
//!
//! What is needed is read from the cluster, generously: whatever digest stands anywhere in an object of ours, in an archived
//! ledger, in a plan or in a Deployment, and whatever the records with such a digest name in turn. **If anything of that cannot be
//! read, nothing is removed.**

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use k8s_openapi::api::{apps::v1::Deployment, core::v1::ConfigMap};
use kube::{Api, Client, Config, Resource, ResourceExt, api::ListParams, core::NamespaceResourceScope};
use lethe_api::{
    Digest,
    v1alpha1::{DiffusionModel, UnlearnApproval, UnlearnRequest, UnlearnRun, labels},
};
use lethe_core::{names, run};
use lethe_store::{Item, Kind, Store, garbage};
use lethe_transparency::Action;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Args, calls,
    clerk::{Clerk, Silent},
    error::Error,
};

/// Objects that are asked for at once.
const PAGE: u32 = 500;

#[derive(Clone, Debug, clap::Args)]
pub struct CollectArgs {
    #[command(flatten)]
    pub operator: Args,

    /// Remove what is found. Without it, it is only named.
    #[arg(long)]
    pub delete: bool,

    /// Leave alone what was written in the last so many hours. Must be longer than any run may take: what a trainer has
    /// written is named by no object before its run has ended.
    #[arg(long, default_value_t = 168, value_parser = clap::value_parser!(u32).range(1..))]
    pub older_than_hours: u32,
}

/// Why nothing more was removed.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    #[error("cannot find out how to reach the Kubernetes API: {0}; set KUBECONFIG, or run in a cluster")]
    Config(#[source] Box<kube::config::InferConfigError>),
    #[error("cannot make a Kubernetes client: {0}")]
    Client(#[source] Box<kube::Error>),
    #[error(transparent)]
    Cluster(#[from] Error),
    #[error(transparent)]
    Store(#[from] lethe_store::Error),
    #[error(transparent)]
    Silent(#[from] Silent),
    #[error(
        "there is no DiffusionModel in {0}: then everything in the store would go. If that is meant, remove it by hand"
    )]
    NoModels(String),
}

/// What is needed: by an object, or by a run that is not over.
#[derive(Default)]
struct Needed {
    models: usize,
    digests: BTreeSet<Digest>,
    /// Of these, what a ledger says: of it, the records are needed as well.
    ledger: BTreeSet<Digest>,
    plans: BTreeSet<Digest>,
}

/// Looks at the store first, and at the cluster afterwards: what came to be needed in between is not removed.
///
/// # Errors
/// If the cluster or the store cannot be read, or something cannot be removed.
pub async fn collect(args: CollectArgs) -> Result<(), CollectError> {
    let config = Config::infer().await.map_err(|e| CollectError::Config(Box::new(e)))?;
    let client = Client::try_from(config).map_err(|e| CollectError::Client(Box::new(e)))?;
    let store = Store::open(&args.operator.store)?;
    let items = store.inventory().await?;
    let mut needed = Needed::default();
    let scopes = args.operator.scopes();
    for scope in &scopes {
        needed.look(&client, scope.as_deref()).await?;
    }
    if needed.models == 0 {
        let all = scopes.into_iter().flatten().collect::<Vec<_>>().join(", ");
        return Err(CollectError::NoModels(if all.is_empty() { "any namespace".into() } else { all }));
    }
    store.add_records(&items, &needed.ledger, &mut needed.digests).await?;
    let age = Duration::from_secs(u64::from(args.older_than_hours) * 3600);
    let before = SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
    let (scratch, kept): (Vec<Item>, Vec<Item>) =
        items.into_iter().partition(|item| item.kind == Kind::Scratch);
    let all =
        garbage(&kept, &needed.digests, before).into_iter().chain(garbage(&scratch, &needed.plans, before));
    let all: Vec<&Item> = all.collect();
    if args.delete {
        let mut clerk = Clerk::new(&args.operator);
        let act = async |item: &&Item| remove(&store, item).await;
        clerk.perform(Action::Collect, &all, |item| *item, act).await?;
    } else {
        all.iter().for_each(|item| tell(item, false));
    }
    let bytes: u64 = all.iter().map(|item| item.bytes).sum();
    tracing::info!(count = all.len(), bytes, removed = args.delete, "done");
    Ok(())
}

async fn remove(store: &Store, item: &Item) -> Result<(), CollectError> {
    store.remove(item).await?;
    tell(item, true);
    Ok(())
}

fn tell(item: &Item, removed: bool) {
    tracing::info!(kind = %item.kind, digest = %item.digest, bytes = item.bytes, removed, "garbage");
}

impl Needed {
    /// Everything in a namespace, or in all of them.
    async fn look(&mut self, client: &Client, namespace: Option<&str>) -> Result<(), Error> {
        let models = list::<DiffusionModel>(client, namespace, None).await?;
        self.models += models.len();
        self.add(&models);
        self.add(&list::<UnlearnRequest>(client, namespace, None).await?);
        self.add(&list::<UnlearnApproval>(client, namespace, None).await?);
        let runs = list::<UnlearnRun>(client, namespace, None).await?;
        let at_work = runs.iter().filter(|run| run::stage(run).is_some());
        self.plans.extend(at_work.map(|run| run.spec.plan_digest.clone()));
        self.add(&runs);
        let managed = format!("{}={}", labels::MANAGED_BY, labels::MANAGER);
        let maps = list::<ConfigMap>(client, namespace, Some(&managed)).await?;
        self.add(&maps);
        let ledgers =
            models.iter().filter_map(|model| model.status.as_ref()).flat_map(|status| &status.ledger);
        self.ledger.extend(ledgers.map(|entry| entry.digest.clone()));
        let archives = maps.iter().filter(|map| names::is_ledger_archive(&map.name_any()));
        self.ledger.extend(archives.flat_map(digests_in));
        self.add(&list::<Deployment>(client, namespace, None).await?);
        Ok(())
    }

    fn add<K: Serialize>(&mut self, objects: &[K]) {
        self.digests.extend(objects.iter().flat_map(digests_in));
    }
}

fn digests_in(object: &impl Serialize) -> Vec<Digest> {
    // Objects are made of strings, numbers and lists: there is nothing in them that JSON cannot say.
    Digest::named_in(&serde_json::to_string(object).unwrap_or_default()).collect()
}

/// All objects of a kind, a page at a time.
async fn list<K>(client: &Client, namespace: Option<&str>, labels: Option<&str>) -> Result<Vec<K>, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let api: Api<K> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let mut page = ListParams { label_selector: labels.map(Into::into), ..ListParams::default() }.limit(PAGE);
    let mut all = Vec::new();
    loop {
        let what = format!("list {} in {}", K::plural(&()), namespace.unwrap_or("all namespaces"));
        let found = calls::read(what, api.list(&page)).await?;
        all.extend(found.items);
        match found.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(all),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn whatever_an_object_names_anywhere_is_needed() {
        let (served, plan) = (Digest::of(b"served"), Digest::of(b"plan"));
        let text = format!("{{\"schema\": 1, \"base\": {{\"digest\": \"{plan}\"}}}}");
        let mut needed = Needed::default();
        needed.add(&[json!({"status": {"served": {"digest": served}}, "spec": {"plan": text}})]);
        assert_eq!(needed.digests, BTreeSet::from([served, plan]));
    }
}
