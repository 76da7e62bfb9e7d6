//! Score Forgetting Distillation (SFD, arXiv 2409.11219) for diffusion models in EDM's form (arXiv 2206.00364) or
//! in discrete time, on libtorch.
//!
//! Three networks of one form: the teacher phi (frozen), the fake score psi and the one-step generator theta. Stage 1
//! distils the teacher into a generator; stage 2 makes it forget labels. Neither reads training data: the teacher is the
//! only source. What is deployed is the moving average of theta's weights.
//!
//! ```text
//! images   -> teach::Teaching      -> teacher
//! teacher  -> sfd::Distillation    -> baseline: generator + fake score          (stage 1)
//! teacher  -> judge::Judge, measure::Reference                                  (measures of quality)
//! teacher + baseline + targets -> sfd::Forgetting -> candidate generator        (stage 2)
//! candidate + judge + reference -> measure::{census, frechet}                   (raw counts)
//! ```
//!
//! The crate reads no files and no clock, keeps no global state, and decides nothing: callers own loops, storage and
//! thresholds. A random number is a function of (seed, stream, index), so the same inputs give the same bytes.

mod adam;
mod adversary;
pub mod concept;
mod conditions;
pub mod config;
pub mod denoiser;
mod device;
pub mod early_stop;
mod ema;
pub mod error;
mod frechet;
pub mod generator;
#[cfg(test)]
mod golden;
mod iteration;
pub mod judge;
mod layers;
pub mod loss;
pub mod measure;
mod network;
pub mod noise;
mod params;
mod preconditioning;
pub mod probes;
pub mod process;
mod product;
mod replicas;
pub mod sampler;
pub mod settings;
pub mod sfd;
pub mod sigma;
mod state;
mod step;
pub mod teach;
#[cfg(test)]
mod testing;
pub mod timesteps;
pub mod training;
mod variable;
mod verdict;
mod weights;

pub use concept::{Choice, Concept, Override, Replacement, Target};
pub use config::{
    AdmUnetConfig, Betas, DdpmUnetConfig, DiscreteConfig, ImageShape, MlpConfig, ModelConfig, NetworkConfig,
    NoiseConfig, Parametrisation, SongUnetConfig,
};
pub use denoiser::Denoiser;
pub use early_stop::{EarlyStop, Measures};
pub use error::{ConceptError, Error, Result, WeightsError};
pub use judge::Judge;
pub use measure::{Census, Confusion, Count, Reference};
pub use settings::{
    Adversary, Averaging, DistilSettings, ForgetSettings, Gradient, JudgeSettings, LabelPrior, PartShares,
    PartWeights, Precision, ReferenceSettings, Robustness, SfdOptimiser, Stages, TeachSettings,
};
pub use sfd::{Baseline, Distillation, Forgetting};
pub use tch::Device;
pub use teach::{Teaching, TrainingImages};
pub use training::{Named, Progress, Stage, Stop, Training};
