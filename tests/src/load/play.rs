//! Plays the trainer for every pod that comes.

use std::{collections::HashSet, sync::Arc};

use anyhow::Result;
use futures::{StreamExt, future::BoxFuture};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    ResourceExt,
    runtime::watcher::{self, watcher},
};
use lethe_api::v1alpha1::labels;
use tokio::{
    sync::Semaphore,
    task::{JoinHandle, JoinSet},
};

use crate::{Task, World, trainer};

/// As many pods as end at once.
const AT_ONCE: usize = 16;

/// How a pod that was told what to do is ended.
pub type Work = for<'a> fn(&'a World, &'a Task) -> BoxFuture<'a, Result<()>>;

/// The stand-in. Ends when it is dropped.
pub struct Player(JoinHandle<()>);

impl Player {
    /// Every trainer pod ends as soon as it has begun, as one that did its work well.
    pub fn start(world: Arc<World>) -> Self {
        Self::with(world, |world, task| Box::pin(world.succeed(task)))
    }

    /// The same, for models that know so many labels.
    pub fn of_models_with(world: Arc<World>, labels: usize) -> Self {
        Self(tokio::spawn(play(world, move |world, task| {
            let body = trainer::honest_about(labels, &task.plan, &task.digest);
            Box::pin(world.succeed_with(task, body))
        })))
    }

    /// Every trainer pod ends by this.
    pub fn with(world: Arc<World>, work: Work) -> Self {
        Self(tokio::spawn(play(world, work)))
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn play(
    world: Arc<World>,
    work: impl for<'a> Fn(&'a World, &'a Task) -> BoxFuture<'a, Result<()>> + Clone + Send + Sync + 'static,
) {
    let mut pods = watcher(world.api::<Pod>(), watcher::Config::default().labels(labels::STAGE)).boxed();
    let mut seen = HashSet::new();
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    let mut ends = JoinSet::new();
    while let Some(event) = pods.next().await {
        let Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) = event else { continue };
        if trainer::has_ended(&pod) || !world.has_begun(&pod) || !seen.insert(pod.uid()) {
            continue;
        }
        let (world, slots, work) = (world.clone(), slots.clone(), work.clone());
        ends.spawn(async move {
            let _slot = slots.acquire().await;
            let name = pod.name_any();
            let ended = async { work(&world, &world.told(pod).await?).await };
            if let Err(error) = ended.await {
                eprintln!("pod {name} cannot be ended: {error:#}");
            }
        });
        while ends.try_join_next().is_some() {}
    }
}
