//! Changing what is served.

use lethe_api::Digest;

/// What one pod of the serving target says it serves.
#[derive(Clone, Debug)]
pub struct PodReport {
    pub pod: String,
    /// The digest at `/v2/models/NAME`, or why it could not be asked.
    pub digest: Result<Digest, String>,
}
