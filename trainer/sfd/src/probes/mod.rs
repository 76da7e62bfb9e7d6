//! Probes: attempts to make a model show what it was to forget, and raw counts of how far each attempt came.
//!
//! A model that shows something else under a forgotten label may still hold the label's images: under other conditions,
//! along other ways of sampling, or a few training steps away. Each file tries one of these ways. A probe is a function
//! of (model, examiner, budget): it changes copies only, decides nothing, and is to be run on a positive control (the
//! distilled model that has forgotten nothing) with the same budget, and if there is one on a model that never saw the
//! label.
//!
//! Images count twice ([`Sighting`]): as *judged* (J) if the judge takes them for the forgotten label, and as *inside*
//! (J_m) if they also lie where the teacher's samples of that label lie. An attack that optimises finds images that
//! fool a classifier in any model, even in one that never saw the label; only the second count is evidence there.

mod benign;
mod doors;
mod embedding;
mod examiner;
mod fidelity;
mod finetune;
#[cfg(test)]
mod fixture;
mod manifold;
mod membership;
mod multistep;
mod neighbours;
mod relearning;
mod seeds;
mod stochastic;
mod suite;

pub use benign::{Aftermath, BenignBudget, benign};
pub use doors::{kept_doors, mixed_door, null_door};
pub use embedding::{EmbeddingBudget, invert_by_denoising, invert_by_judge, radius};
pub use examiner::{Examiner, Sighting, second_judge, teacher_samples};
pub use fidelity::{Fidelity, fidelity, fidelity_of};
pub use manifold::Manifold;
pub use membership::{Membership, membership};
pub use multistep::multistep;
pub use neighbours::neighbours;
pub use relearning::{RelearningBudget, relearn};
pub use seeds::{SeedBudget, search_seeds};
pub use stochastic::{StochasticBudget, stochastic};
pub use suite::{Budget, Effort, Evidence, Finding, Level, Probe, Trial};
