//! An HTTP server of a test's own, on the loopback interface.

use anyhow::{Context, Result};
use axum::Router;
use tokio::{net::TcpListener, task::JoinHandle};

/// It runs until it is dropped.
#[derive(Debug)]
pub struct Loopback {
    /// Without a path.
    pub url: String,
    server: JoinHandle<()>,
}

impl Loopback {
    /// # Errors
    /// If there is no free port.
    pub async fn start(router: Router) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("no free port")?;
        let url = format!("http://{}", listener.local_addr()?);
        let server = tokio::spawn(async move {
            // Ends only with the task.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { url, server })
    }
}

impl Drop for Loopback {
    fn drop(&mut self) {
        self.server.abort();
    }
}
