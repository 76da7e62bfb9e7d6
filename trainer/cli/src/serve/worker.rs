//! The one thread that draws. libtorch's tensors may move between threads but not be shared by them, so
//! requests queue up for it.

use std::thread;

use lethe_sfd::{Denoiser, generator};
use tokio::sync::{mpsc, oneshot};

use super::metrics::Metrics;
use crate::failure::{Failed, Result, caught};

/// Requests that may wait. With more, a client is told to come back, which is better than a long silence.
const QUEUE: usize = 64;

/// Images that pass through the network at once, always exactly as many. Matrix products of another size may be
/// summed in another order, and an image must not depend, not even in its last bit, on what else is asked for.
const BLOCK: usize = 64;

/// Pixel values of each image, channel by channel and row by row.
pub(super) type Images = Vec<Vec<f32>>;

#[derive(Clone, Debug)]
pub(super) struct Queue(mpsc::Sender<Work>);

#[derive(Debug)]
struct Work {
    /// A label's index and a seed for every image.
    requests: Vec<(i64, u64)>,
    reply: oneshot::Sender<Images>,
}

/// Why nothing was drawn.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("{QUEUE} requests are waiting already; try again")]
    Full,
    #[error("the model could not draw this; see the server's log")]
    Failed,
}

pub(super) fn start(model: Denoiser, metrics: Metrics) -> Result<Queue> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let thread = thread::Builder::new().name("model".into()).spawn(move || work(&model, receiver, &metrics));
    thread.map_err(|error| Failed::bad_configuration(format!("cannot start the model's thread: {error}")))?;
    Ok(Queue(sender))
}

impl Queue {
    /// Draws one image for each (label, seed). Image i does not depend on the others.
    pub(super) async fn draw(&self, requests: Vec<(i64, u64)>) -> Result<Images, Refusal> {
        let (reply, answer) = oneshot::channel();
        match self.0.try_send(Work { requests, reply }) {
            Ok(()) => answer.await.map_err(|_| Refusal::Failed),
            Err(mpsc::error::TrySendError::Full(_)) => Err(Refusal::Full),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Refusal::Failed),
        }
    }
}

fn work(model: &Denoiser, mut queue: mpsc::Receiver<Work>, metrics: &Metrics) {
    while let Some(Work { requests, reply }) = queue.blocking_recv() {
        // Whoever asked may have gone while the request waited.
        if reply.is_closed() {
            continue;
        }
        match caught(|| draw(model, &requests)) {
            Ok(images) => {
                metrics.images.inc_by(images.len() as u64);
                // Gone by now: nobody to tell.
                let _ = reply.send(images);
            }
            Err(failed) => tracing::error!("{failed}"),
        }
    }
}

fn draw(model: &Denoiser, requests: &[(i64, u64)]) -> Result<Images> {
    let block = |requests: &[(i64, u64)]| {
        let mut padded = requests.to_vec();
        padded.resize(BLOCK, (0, 0));
        let mut images = generator::serve(model, &padded)?;
        images.truncate(requests.len());
        Ok(images)
    };
    Ok(requests.chunks(BLOCK).map(block).collect::<Result<Vec<_>>>()?.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_queue_turns_a_client_away_at_once() {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let queue = Queue(sender);
        let ask = || {
            let queue = queue.clone();
            tokio::spawn(async move { queue.draw(vec![(0, 0)]).await })
        };
        let waiting: Vec<_> = (0..QUEUE).map(|_| ask()).collect();
        assert!(matches!(ask().await.unwrap(), Err(Refusal::Full)));
        drop(receiver);
        for client in waiting {
            assert!(
                matches!(client.await.unwrap(), Err(Refusal::Failed)),
                "a model that died leaves nobody waiting"
            );
        }
    }
}
