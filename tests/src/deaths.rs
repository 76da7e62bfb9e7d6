//! An operator that dies after every write.

use anyhow::{Context, Result, ensure};
use tokio::sync::oneshot;

use crate::{
    operator::{Launch, Operator},
    proxy::Proxy,
    world::World,
};

/// More than any operator needs for one request. One that repeats itself after every death never ends.
const MOST: usize = 120;

impl World {
    /// Lives `life` with an operator that is killed whenever the API server has carried out one of its writes,
    /// before it can know that, and is then started anew. Returns what life came to, and the writes.
    ///
    /// # Errors
    /// Those of `life`, and if the operator writes without end.
    pub async fn dying<T>(&self, life: impl Future<Output = Result<T>>) -> Result<(T, Vec<String>)> {
        let launch = self.launch().await?;
        let proxy = self.proxy().await?;
        let launch = self.through(&launch, &proxy.url, "operator-0")?;
        let (done, over) = oneshot::channel();
        let life = async {
            let outcome = life.await?;
            let _ = done.send(());
            Ok(outcome)
        };
        tokio::try_join!(life, die_again_and_again(&launch, &proxy, over))
    }
}

async fn die_again_and_again(
    launch: &Launch,
    proxy: &Proxy,
    mut over: oneshot::Receiver<()>,
) -> Result<Vec<String>> {
    let mut deaths = Vec::new();
    loop {
        let mut operator = Operator::start(launch)?;
        let mut told = proxy.kill_after_next_write(operator.id()?);
        tokio::select! {
            write = told.recv() => deaths.push(write.context("the proxy ended")?),
            _ = &mut over => return Ok(deaths),
        }
        operator.ended().await?;
        ensure!(deaths.len() <= MOST, "it writes the same again and again: {deaths:#?}");
    }
}
