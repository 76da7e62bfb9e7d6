//! How far a trainer pod is. For people only: an answer that does not come is no error.

use std::{
    collections::HashMap,
    sync::Mutex,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Pod;
use lethe_api::contract::Progress;
use lethe_core::POLL;

use crate::probe::Prober;

/// Answers are remembered this long after they were last of use.
const FORGET_AFTER: Duration = Duration::from_secs(60);

/// Asks a pod at most once per [`POLL`]. Writing the answer into a status wakes the controller again: without
/// this it would write as fast as the trainer trains.
#[derive(Debug, Default)]
pub struct ProgressReader {
    prober: Prober,
    /// By the uid of the pod.
    answers: Mutex<HashMap<String, (Instant, Option<Progress>)>>,
}

impl ProgressReader {
    pub fn new(prober: Prober) -> Self {
        Self { prober, answers: Mutex::default() }
    }

    /// What the pod that is running among `pods` says, if there is one and it answers.
    pub async fn read(&self, pods: &[Pod]) -> Option<Progress> {
        let pod = pods.iter().find(|pod| is_running(pod))?;
        let uid = pod.metadata.uid.clone()?;
        if let Some(recent) = self.recent(&uid) {
            return recent;
        }
        let answer = self.prober.get(pod, Progress::PORT, "/progress", Progress::MAX_BYTES).await;
        let answer =
            answer.inspect_err(|error| tracing::debug!(%error, "a trainer pod tells no progress")).ok();
        self.remember(uid, answer.clone());
        answer
    }

    fn recent(&self, uid: &str) -> Option<Option<Progress>> {
        let answers = self.answers.lock().ok()?;
        let (asked, answer) = answers.get(uid)?;
        // A little less than the poll, so that a poll that is due always asks.
        (asked.elapsed() < POLL.mul_f32(0.9)).then(|| answer.clone())
    }

    fn remember(&self, uid: String, answer: Option<Progress>) {
        if let Ok(mut answers) = self.answers.lock() {
            answers.retain(|_, (asked, _)| asked.elapsed() < FORGET_AFTER);
            answers.insert(uid, (Instant::now(), answer));
        }
    }
}

fn is_running(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    phase == Some("Running") && pod.metadata.deletion_timestamp.is_none()
}
