//! Who vouches for what was measured. In this version nobody signs anything, and that is said: a digest tells that bytes are
//! what was named, not who named them.

use super::Notes;

/// What is known of signatures on a run's plan, record and verdict.
pub(super) fn check(notes: &mut Notes<'_>) {
    notes.not_checked(
        "signatures",
        "this version signs nothing: whoever could write to the store and to the API server could have written all of it",
    );
}
