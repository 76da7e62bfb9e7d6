//! What a controller works with.

use std::sync::Arc;

use kube::Client;
use lethe_core::Installation;

use crate::{
    evidence::Notary, herald::Herald, journal::Journal, leader::Leadership, logbook::Logbook,
    metrics::Metrics, progress::ProgressReader, serving::Inquiry, stores::Stores,
};

/// One per watched scope; everything but the stores is shared between them.
#[derive(Clone)]
pub struct Context {
    pub client: Client,
    pub leadership: Leadership,
    pub metrics: Arc<Metrics>,
    pub herald: Arc<Herald>,
    pub installation: Arc<Installation>,
    /// Whether the API server checks who creates an approval.
    pub approvals_are_protected: bool,
    /// Who signs, if anybody does.
    pub notary: Option<Arc<Notary>>,
    pub inquiry: Arc<Inquiry>,
    pub progress: Arc<ProgressReader>,
    pub journal: Arc<Journal>,
    pub logbook: Logbook,
    pub stores: Stores,
}
