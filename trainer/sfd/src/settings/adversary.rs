//! Settings of the adversary within a forgetting.

use super::{MOST_BATCH, steps};
use crate::config::{fraction, positive, within};
use crate::error::Result;
use serde::{Deserialize, Serialize};

/// Looks for condition rows that bring a forgotten label back; what is found is then forgotten too. Needs no images: the
/// teacher says what an image looks like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Adversary {
    /// Steps between two searches.
    pub every: u64,
    /// Rows that are sought for each forgotten label. The first starts from its own row, the others anywhere.
    pub rows: i64,
    /// Adam steps of a search.
    pub steps: u64,
    /// Images per row and step.
    pub batch: i64,
    pub learning_rate: f64,
    /// Noise level at which the teacher looks at an image.
    pub level: f64,
    /// Part of the samples under forgotten labels that are shown under a row that was found instead.
    pub share: f64,
}

impl Default for Adversary {
    fn default() -> Self {
        Self { every: 20, rows: 4, steps: 20, batch: 16, learning_rate: 5e-2, level: 1.0, share: 0.125 }
    }
}

impl Adversary {
    pub(super) fn validate(&self) -> Result<()> {
        steps("forget.adversary.every", self.every)?;
        within("forget.adversary.rows", self.rows, 1, MOST_BATCH)?;
        steps("forget.adversary.steps", self.steps)?;
        within("forget.adversary.batch", self.batch, 1, MOST_BATCH)?;
        positive("forget.adversary.learningRate", self.learning_rate)?;
        positive("forget.adversary.level", self.level)?;
        fraction("forget.adversary.share", self.share, 0.0, 1.0 + f64::EPSILON)
    }
}
