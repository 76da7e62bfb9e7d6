//! The node tier: the whole loop on a real node, with real images, the real charts and the real trainer.

use std::process::ExitCode;

use lethe_tests::{node::Node, scenarios};

mod artifacts;
mod chaos;
mod deaths;
mod whole_loop;

fn main() -> ExitCode {
    lethe_tests::scenario::main::<Node>(scenarios![
        artifacts:
            a_base_that_is_not_what_it_should_be_is_named,
            a_store_that_cannot_be_written_is_named,
            a_store_that_is_full_is_named;
        whole_loop:
            the_examples_pass_as_they_stand,
            what_is_claimed_is_signed_and_in_the_log_and_whoever_has_the_store_can_verify_it,
            a_request_whose_gates_cannot_pass_changes_nothing_served,
            a_second_request_keeps_the_first_forgotten;
        deaths:
            an_operator_that_is_killed_at_every_stage_comes_to_the_same_end,
            a_trainer_that_is_killed_goes_on_and_makes_the_same;
        chaos:
            ten_requests_end_right_under_twenty_blows;
    ])
}
