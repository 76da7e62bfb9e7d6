//! The API tier: scenarios against a real API server, without a node.

use std::process::ExitCode;

use lethe_tests::{Server, scenarios};

mod lifecycle;

fn main() -> ExitCode {
    lethe_tests::scenario::main::<Server>(scenarios![
        lifecycle: a_model_is_made_to_forget,
    ])
}
