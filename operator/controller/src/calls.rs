//! Calls to the API server that end.

use std::{future::Future, time::Duration};

use tokio::time::timeout;

use crate::error::{Error, Result};

/// The client itself tries again for many minutes; a controller has better things to do.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Makes a call that changes nothing. `action` completes the sentence "cannot ...".
pub async fn read<T>(action: String, call: impl Future<Output = kube::Result<T>>) -> Result<T> {
    within(READ_TIMEOUT, action, call).await
}

pub async fn within<T>(
    limit: Duration,
    action: String,
    call: impl Future<Output = kube::Result<T>>,
) -> Result<T> {
    match timeout(limit, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(source)) => Err(Error::Api { action, source }),
        Err(_) => Err(Error::Timeout { action, seconds: limit.as_secs() }),
    }
}
