//! The API tier: scenarios against a real API server, without a node.

use std::process::ExitCode;

use lethe_tests::{Server, scenarios};

mod admission;
mod lies;
mod lifecycle;

fn main() -> ExitCode {
    lethe_tests::scenario::main::<Server>(scenarios![
        admission:
            every_example_is_accepted,
            a_request_that_contradicts_itself_is_refused,
            a_request_is_immutable_but_for_suspend,
            a_policy_must_ask_for_every_gate_once,
            a_model_cannot_be_what_lethe_cannot_serve,
            a_ledger_only_grows,
            a_run_is_immutable;
        lifecycle:
            a_model_is_made_to_forget,
            gates_that_do_not_pass_change_nothing,
            a_second_request_keeps_the_first_forgotten,
            a_leak_of_an_earlier_target_holds_the_second_request,
            requests_that_wait_share_a_run,
            a_suspended_request_waits_before_the_run_and_before_the_roll_out,
            a_policy_that_changes_during_a_run_does_not_change_the_run,
            nearest_is_resolved_before_the_trainer_sees_it,
            a_request_that_makes_no_sense_for_its_model_is_denied,
            nothing_is_served_before_the_first_request_if_the_model_says_so;
        lies:
            last_words_that_are_no_outcome_fail_the_run,
            records_that_cannot_be_trusted_fail_the_run,
            measurements_that_prove_nothing_hold_the_request,
            a_measurement_that_is_not_a_number_fails_the_run,
            exit_codes_are_told_apart,
            an_interrupted_trainer_is_tried_again,
            a_trainer_that_never_ends_runs_into_its_deadline,
            a_preparation_that_fails_says_how_to_go_on,
            a_judge_that_cannot_judge_is_refused;
    ])
}
