//! An operator that dies after writes.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, Result, ensure};
use tokio::sync::oneshot;

use crate::{
    operator::{Launch, Operator},
    proxy::Proxy,
    world::World,
};

/// More than any operator needs for one request. One that repeats itself after every death never ends.
const MOST: usize = 120;

/// How often the operator of a scenario dies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dies {
    /// Whenever the API server has carried out one of its writes.
    #[default]
    Always,
    /// After this write, counted from 1, and never again.
    Once(usize),
}

/// What is to become of an operator, and the writes after which it did die.
#[derive(Debug, Default)]
pub struct Fate {
    pub dies: Dies,
    deaths: Mutex<Vec<String>>,
}

impl Fate {
    /// The writes after which it died.
    pub fn deaths(&self) -> Vec<String> {
        self.deaths.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn died(&self, after: String) {
        self.deaths.lock().unwrap_or_else(PoisonError::into_inner).push(after);
    }
}

impl World {
    /// Lives `life` with an operator that is killed after writes, before it can know that they were carried out, and
    /// is then started anew. Returns what life came to.
    ///
    /// # Errors
    /// Those of `life`, and if the operator writes without end.
    pub async fn dying<T>(&self, life: impl Future<Output = Result<T>>) -> Result<T> {
        let launch = self.launch().await?;
        let proxy = self.proxy().await?;
        let launch = self.through(&launch, &proxy.url, "operator-0")?;
        let (done, over) = oneshot::channel();
        let life = async {
            let outcome = life.await?;
            let _ = done.send(());
            Ok(outcome)
        };
        let (outcome, ()) = tokio::try_join!(life, die(&launch, &proxy, &self.fate, over))?;
        none_was_made_twice(&proxy.jobs())?;
        Ok(outcome)
    }

    /// An operator that is to die always died more often than that: else little was tried.
    ///
    /// # Errors
    /// If it did not.
    pub fn died_more_than(&self, times: usize) -> Result<()> {
        let deaths = self.fate.deaths();
        let is_enough = self.fate.dies != Dies::Always || deaths.len() > times;
        ensure!(is_enough, "it died only {} times: {deaths:#?}", deaths.len());
        Ok(())
    }
}

/// Not even a Job that was deleted in between: a GPU would work for the same twice.
fn none_was_made_twice(jobs: &[String]) -> Result<()> {
    let names: BTreeSet<_> = jobs.iter().collect();
    ensure!(!jobs.is_empty() && names.len() == jobs.len(), "these Jobs were made: {jobs:?}");
    Ok(())
}

async fn die(launch: &Launch, proxy: &Proxy, fate: &Fate, mut over: oneshot::Receiver<()>) -> Result<()> {
    let mut next = match fate.dies {
        Dies::Always => Some(1),
        Dies::Once(write) => Some(write),
    };
    loop {
        let mut operator = Operator::start(launch)?;
        let Some(write) = next else {
            // That life did not come to its end is told by whoever lives it.
            let _ = over.await;
            return Ok(());
        };
        let mut told = proxy.kill_after_write(operator.id()?, write);
        tokio::select! {
            write = told.recv() => fate.died(write.context("the proxy ended")?),
            _ = &mut over => return Ok(()),
        }
        operator.ended().await?;
        let deaths = fate.deaths();
        ensure!(deaths.len() <= MOST, "it writes the same again and again: {deaths:#?}");
        next = next.filter(|_| fate.dies == Dies::Always);
    }
}
