//! Exit codes of a trainer pod. The operator's Jobs act on them (`podFailurePolicy`).

/// The outcome is in the termination message, and its record in the store.
pub const DONE: i32 = 0;
/// The plan cannot be carried out: unknown field, contradiction, value out of range; or the command line cannot be read.
/// Retrying is useless.
pub const BAD_PLAN: i32 = 64;
/// An artifact is missing, truncated, foreign, or does not match its digest. Retrying is useless.
pub const BAD_ARTIFACT: i32 = 65;
/// A defect of the trainer itself. Counts against the backoff limit.
pub const INTERNAL: i32 = 70;
/// Out of memory, of the machine or of the device. Counts against the backoff limit: others may have used it.
pub const OUT_OF_MEMORY: i32 = 71;
/// A loss, a gradient or a weight is not a finite number any more. Retrying is useless: the same plan does the same again.
pub const DIVERGED: i32 = 72;
/// The store did not answer: try again. Counts against the backoff limit, which spreads the tries over minutes.
pub const TRY_AGAIN: i32 = 75;
/// The pod's surroundings are wrong: device asked for but absent, store not writable. Retrying is useless.
pub const BAD_CONFIGURATION: i32 = 78;

/// Told to stop (SIGTERM), after a checkpoint; as a shell says it, 128 and the signal's number. Does not count: whoever stops a pod
/// that works has a reason of their own, and another one goes on from there.
pub const INTERRUPTED: i32 = 143;

/// The codes that fail a Job at once, in order, as Kubernetes wants them.
pub const FATAL: [i32; 4] = [BAD_PLAN, BAD_ARTIFACT, DIVERGED, BAD_CONFIGURATION];
