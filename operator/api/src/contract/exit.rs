//! Exit codes of a trainer pod. The operator's Jobs act on them (`podFailurePolicy`).

/// The outcome is in the termination message, and its record in the store.
pub const DONE: i32 = 0;
/// The plan cannot be carried out: unknown field, contradiction, value out of range. Retrying is useless.
pub const BAD_PLAN: i32 = 64;
/// An artifact is missing, truncated, foreign, or does not match its digest. Retrying is useless.
pub const BAD_ARTIFACT: i32 = 65;
/// A defect of the trainer itself, or a training that diverged. Counts against the backoff limit.
pub const INTERNAL: i32 = 70;
/// Interrupted after a checkpoint (SIGTERM), or the store did not answer: try again.
pub const TRY_AGAIN: i32 = 75;
/// The pod's surroundings are wrong: device asked for but absent, store not writable. Retrying is useless.
pub const BAD_CONFIGURATION: i32 = 78;

/// The codes that fail a Job at once.
pub const FATAL: [i32; 3] = [BAD_PLAN, BAD_ARTIFACT, BAD_CONFIGURATION];
