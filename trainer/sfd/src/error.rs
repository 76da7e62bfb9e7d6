//! Everything that can go wrong in this crate, as data.

pub use lethe_weights::Error as WeightsError;

/// What a caller of this crate has to handle. A wrong tensor shape *inside* the crate is a bug and panics; everything
/// that a file, a plan or the training itself can cause is one of these.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A configuration or a setting is out of its range.
    #[error("{field} is {value}: {problem}")]
    Config { field: &'static str, value: String, problem: &'static str },
    /// Settings that cannot be read: at which field, and why.
    #[error("{0}")]
    Settings(String),
    /// A model was asked for a label that it does not have.
    #[error("label {label} does not exist: the model has labels 0 to {last}")]
    Label { label: i64, last: i64 },
    /// The labels to forget and their overrides contradict each other or the model.
    #[error("targets: {0}")]
    Concept(#[from] ConceptError),
    /// A file is not the safetensors file that it must be.
    #[error("{file}: {source}")]
    Weights { file: &'static str, source: WeightsError },
    /// A training state belongs to another training.
    #[error("the saved state cannot continue this training: {what} was {saved}, and is {expected} now")]
    Resume { what: &'static str, saved: String, expected: String },
    /// A loss, a gradient statistic or a weight stopped being a finite number. They are read back every so many steps, since
    /// each time waits for the device, but which step it was is known. A weight is only seen when it is read.
    #[error("training diverged at step {step}: {tensor} is not finite; lower the learning rate")]
    Diverged { step: u64, tensor: String },
    /// The caller asked to stop.
    #[error("stopped before it was done")]
    Stopped,
    /// Training images that do not fit the model.
    #[error("training images: {0}")]
    Images(String),
    /// A number that only makes sense over several samples was asked of too few.
    #[error("{what} needs at least {least} samples, and got {given}")]
    TooFewSamples { what: &'static str, least: i64, given: i64 },
}

/// Why a set of targets cannot be forgotten.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConceptError {
    #[error("label {label} does not exist: the model has labels 0 to {last}")]
    UnknownLabel { label: i64, last: i64 },
    #[error("label {0} is named twice")]
    Duplicate(i64),
    #[error("label {target} cannot be overridden by label {replacement}, which is forgotten itself")]
    OverrideForgotten { target: i64, replacement: i64 },
    #[error("every label of the model would be forgotten; at least one must be kept")]
    NothingKept,
    #[error("the nearest override of label {0} needs the judge's confusion matrix of the baseline")]
    NoConfusion(i64),
    #[error("a weight is given to label {0}, which is not kept")]
    WeightOfNotKept(i64),
    #[error("showing neighbours more often needs the judge, to find them")]
    NoNeighbours,
    #[error("the confusion matrix covers {given} labels and the model has {expected}")]
    ConfusionSize { given: usize, expected: usize },
}

pub type Result<T, E = Error> = std::result::Result<T, E>;
