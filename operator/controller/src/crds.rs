//! Waiting for the custom resources. A chart or a Git repository may bring them after the operator.

use std::time::Duration;

use kube::{Client, Resource};
use lethe_api::v1alpha1::{
    ClusterUnlearnPolicy, DiffusionModel, UnlearnApproval, UnlearnPolicy, UnlearnRequest, UnlearnRun,
};
use tokio::sync::watch;

use crate::{
    calls,
    error::{Category, Result},
};

const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Returns once the API server knows all kinds. Until then, says in `unready` what is missing.
pub async fn wait(client: &Client, unready: &watch::Sender<String>) {
    loop {
        let reason = match missing(client).await {
            Ok(missing) if missing.is_empty() => return,
            Ok(missing) => format!("waiting for the CustomResourceDefinitions of {}", missing.join(", ")),
            Err(error) => format!("waiting for the API server: {error}"),
        };
        if *unready.borrow() != reason {
            tracing::warn!(reason, "not ready");
        }
        unready.send_replace(reason);
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// The resources that the API server does not serve. Everybody may ask for them.
async fn missing(client: &Client) -> Result<Vec<String>> {
    let version = DiffusionModel::api_version(&());
    let call = client.list_api_group_resources(&version);
    let served = match calls::read(format!("list the resources of {version}"), call).await {
        Ok(list) => list.resources.into_iter().map(|resource| resource.name).collect(),
        Err(error) if error.category() == Category::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    let wanted = [
        DiffusionModel::plural(&()),
        UnlearnPolicy::plural(&()),
        ClusterUnlearnPolicy::plural(&()),
        UnlearnRequest::plural(&()),
        UnlearnApproval::plural(&()),
        UnlearnRun::plural(&()),
    ];
    Ok(wanted.into_iter().map(String::from).filter(|name| !served.contains(name)).collect())
}
