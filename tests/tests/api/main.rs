//! The API tier: scenarios against a real API server, without a node.

use std::process::ExitCode;

use lethe_tests::{Server, scenarios};

mod admission;
mod attempts;
mod audit_log;
mod audits;
mod bases;
mod by_hand;
mod canaries;
mod charts;
mod cli;
mod collecting;
mod crash;
mod deaths;
mod deletion;
mod evidence;
mod lies;
mod lifecycle;
mod metrics;
mod one_death;
mod pages;
mod pods;
mod policies;
mod probing;
mod refusals;
mod replicas;
mod rights;
mod rollout;
mod tenants;
mod waiting;
mod weather;

fn main() -> ExitCode {
    lethe_tests::scenario::main::<Server>(scenarios![
        admission:
            every_example_is_accepted,
            a_request_that_contradicts_itself_is_refused,
            a_request_is_immutable_but_for_suspend_and_the_extension_of_its_term,
            a_policy_must_ask_for_every_gate_once,
            gates_on_probes_need_probes_and_have_limits_of_their_own,
            a_model_cannot_be_what_lethe_cannot_serve,
            a_ledger_only_grows,
            what_nobody_has_looked_at_says_so_and_nobody_brings_a_status_along,
            a_run_is_immutable;
        lifecycle:
            a_model_is_made_to_forget,
            gates_that_do_not_pass_change_nothing,
            a_pilot_is_measured_and_never_rolled_out,
            a_second_request_keeps_the_first_forgotten,
            a_leak_of_an_earlier_target_holds_the_second_request,
            requests_that_wait_share_a_run,
            a_suspended_request_waits_before_the_run_and_before_the_roll_out,
            a_policy_that_changes_during_a_run_does_not_change_the_run,
            nearest_is_resolved_before_the_trainer_sees_it,
            a_request_that_makes_no_sense_for_its_model_is_denied,
            nothing_is_served_before_the_first_request_if_the_model_says_so;
        attempts:
            a_candidate_that_fails_is_tried_again_after_a_while,
            a_word_in_an_annotation_acts_once,
            a_job_that_is_created_after_its_run_was_given_up_is_stopped,
            requests_come_together_and_one_that_fails_leaves,
            what_an_earlier_request_asks_for_has_no_run_of_its_own,
            old_runs_go_and_those_in_the_ledger_stay;
        cli:
            who_asks_sees_why_it_waits_and_who_may_agrees,
            what_was_held_is_tried_again_and_given_up_from_the_command_line,
            lint_says_what_the_api_server_says,
            a_report_holds_no_names_and_a_page_says_what_was_forgotten;
        lies:
            last_words_that_are_no_outcome_fail_the_run,
            records_that_cannot_be_trusted_fail_the_run,
            measurements_that_prove_nothing_hold_the_request,
            a_random_override_that_always_shows_one_label_is_none,
            a_measurement_that_is_not_a_number_fails_the_run,
            exit_codes_are_told_apart,
            what_a_trainer_says_becomes_no_name_no_label_and_no_path,
            a_trainer_whose_store_does_not_answer_is_tried_again,
            a_pod_that_is_evicted_costs_no_attempt,
            a_pod_that_is_told_to_stop_costs_no_attempt,
            a_trainer_that_never_ends_runs_into_its_deadline,
            a_preparation_that_fails_says_how_to_go_on,
            a_judge_that_cannot_judge_is_refused,
            what_a_trainer_says_is_one_line_that_steers_no_terminal;
        waiting:
            an_image_that_cannot_be_pulled_is_shown_and_waited_for,
            a_container_that_cannot_be_created_is_shown_and_waited_for,
            a_job_that_a_queue_takes_back_is_shown_and_waited_for,
            a_pod_that_a_quota_forbids_is_shown_and_waited_for,
            a_volume_that_cannot_be_mounted_is_shown_and_waited_for,
            a_gpu_that_never_comes_is_shown_and_not_waited_for_beyond_the_deadline,
            a_request_may_come_before_everything_that_it_needs,
            a_store_that_is_not_there_is_waited_for,
            a_store_that_hangs_is_asked_again_and_costs_nobody_else_anything,
            a_policy_that_is_deleted_holds_up_the_next_run_only,
            a_trainer_that_says_how_far_it_is_is_repeated;
        policies:
            a_model_anywhere_may_name_a_policy_of_the_cluster,
            an_operator_of_one_namespace_says_what_to_do_about_a_policy_of_the_cluster;
        probing:
            a_candidate_that_only_hides_the_label_is_held;
        evidence:
            what_was_measured_is_signed_before_it_is_rolled_out,
            a_key_that_cannot_be_read_is_said_and_nothing_is_rolled_out,
            evidence_that_somebody_changed_is_not_rolled_out,
            dying_all_the_time_it_signs_what_it_rolls_out,
            a_key_is_replaced_and_what_the_old_one_signed_is_signed_again;
        audit_log:
            what_is_done_and_decided_is_in_the_audit_log_in_order,
            what_passed_waits_for_an_audit_log_that_cannot_be_written,
            an_operator_that_dies_after_every_write_leaves_one_log_in_which_all_is_closed,
            what_was_announced_and_not_done_is_found_undone_and_done_then,
            two_operators_of_which_one_was_frozen_write_one_audit_log,
            an_auditor_verifies_the_audit_log_and_finds_what_was_changed,
            an_audit_log_that_is_changed_where_nobody_appends_is_found_by_the_operator,
            what_the_collector_removes_is_in_the_audit_log_and_stays_without_one;
        by_hand:
            openssl_finds_that_evidence_is_signed,
            openssl_finds_that_a_checkpoint_is_signed,
            a_key_is_changed_by_the_commands_of_the_page;
        collecting:
            what_nothing_refers_to_is_removed_and_a_ledger_keeps_its_own,
            bundles_that_nothing_names_and_scratch_of_what_is_over_are_removed_once_they_are_old;
        deletion:
            a_request_that_is_deleted_while_it_waits_leaves_nothing,
            a_request_that_is_deleted_in_training_stops_it,
            a_request_that_is_deleted_in_evaluation_stops_it,
            of_two_requests_in_a_run_the_other_one_is_worked_for_again,
            a_request_that_is_replaced_is_another_one,
            a_request_that_is_deleted_in_the_roll_out_is_in_the_ledger,
            a_fulfilled_request_that_is_deleted_stays_forgotten,
            a_model_that_comes_back_has_its_ledger_back,
            an_archive_that_cannot_be_read_is_not_taken_for_an_empty_one,
            a_model_whose_archive_cannot_be_read_can_be_deleted,
            a_model_that_was_lost_without_the_operator_has_its_ledger_back,
            a_model_that_comes_back_with_another_base_forgets_its_ledger_first,
            a_model_that_is_deleted_during_a_run_takes_the_run_with_it,
            a_run_that_somebody_deletes_is_planned_again;
        rollout:
            pods_that_do_not_become_available_bring_the_previous_digest_back,
            pods_that_report_another_digest_are_never_confirmed,
            a_roll_out_that_was_turned_back_is_tried_again_without_another_training,
            a_target_that_disappears_during_the_roll_out_is_not_a_success,
            a_target_without_the_container_is_never_touched,
            what_is_published_is_served_once_somebody_names_it,
            drift_is_seen_said_and_healed,
            what_others_own_in_the_deployment_is_left_alone,
            every_replica_must_serve_the_candidate;
        audits:
            a_live_server_that_leaks_is_taken_down_until_one_does_not,
            a_roll_back_of_the_deployment_is_said_of_the_requests_that_it_exposes,
            an_audit_that_is_due_and_fails_exposes_what_was_forgotten;
        bases:
            a_new_base_that_leaks_leaves_the_old_one_in_service_until_it_does_not;
        canaries:
            a_step_is_one_thing_and_belongs_to_a_canary,
            a_candidate_is_asked_unseen_gets_a_share_waits_for_a_person_and_is_served,
            a_candidate_that_leaks_unseen_is_taken_away_unseen,
            what_somebody_else_has_where_the_canary_should_be_stays,
            a_canary_that_may_not_be_deleted_does_not_keep_a_target_that_leaks_from_going_back,
            a_model_that_is_deleted_takes_its_canary_with_it,
            dying_all_the_time_it_tries_a_candidate_beside_the_target;
        crash:
            an_operator_that_dies_after_every_write_comes_to_the_same_end,
            an_operator_that_is_killed_at_every_stage_goes_on,
            a_job_whose_pod_went_before_anybody_read_it_is_made_again,
            a_job_that_vanishes_after_its_run_is_not_created_again,
            of_two_replicas_one_acts_and_hands_over_when_it_is_stopped,
            a_leader_that_was_frozen_does_not_write_when_it_wakes,
            an_api_server_that_never_answers_costs_the_leader_its_lease_and_nothing_else;
        weather:
            an_api_server_that_stumbles_costs_time_and_nothing_else,
            writes_that_are_carried_out_too_late_do_nothing_twice,
            watches_that_end_with_410_again_and_again_lose_nothing,
            an_operator_whose_watches_fall_silent_says_so_and_goes_on_when_started_again,
            what_comes_while_a_renewal_is_late_is_not_forgotten;
        deaths:
            dying_all_the_time_it_has_the_live_server_asked,
            dying_all_the_time_it_holds_what_leaks,
            dying_all_the_time_it_turns_back_a_roll_out_that_stalls,
            dying_all_the_time_it_lets_two_requests_share_a_run,
            dying_all_the_time_it_lets_go_of_what_is_deleted,
            dying_all_the_time_it_tries_again,
            dying_all_the_time_it_says_what_an_audit_on_a_schedule_exposes,
            dying_all_the_time_it_gets_another_base,
            dying_all_the_time_it_publishes_what_somebody_promotes;
        one_death:
            it_forgets_three,
            it_holds_what_leaks,
            it_turns_back_a_roll_out_that_stalls,
            it_lets_two_requests_share_a_run,
            it_lets_go_of_what_is_deleted,
            it_has_the_live_server_asked,
            it_tries_again,
            it_says_what_an_audit_exposes,
            it_gets_another_base,
            it_publishes_what_somebody_promotes,
            it_signs_what_it_rolls_out,
            it_tries_a_candidate_beside_the_target;
        refusals:
            a_namespace_that_is_deleted_goes_with_everything_in_it,
            an_operator_that_is_there_before_its_definitions_names_them_and_begins_once_they_are,
            a_right_that_was_taken_away_is_named_and_work_goes_on_once_it_is_back,
            what_may_not_be_written_keeps_no_target_from_being_set_back,
            a_model_whose_ledger_may_not_be_archived_stays_until_it_may,
            what_admission_refuses_is_told_in_its_own_words_and_tried_again,
            what_somebody_else_has_under_a_name_that_is_needed_is_not_overwritten,
            an_event_that_cannot_be_published_is_counted_and_holds_up_nothing;
        replicas:
            a_replica_that_waits_takes_over_from_a_leader_that_was_killed,
            of_two_replicas_that_reach_for_the_lease_at_once_one_gets_it,
            an_operator_that_may_not_write_the_lease_says_so_and_changes_nothing;
        charts:
            the_api_server_takes_what_the_charts_render,
            values_that_no_operator_could_work_with_are_refused,
            every_replica_has_an_identity_of_its_own,
            the_operator_tells_how_much_memory_its_container_may_have,
            alerts_fire_when_their_tests_say_so;
        rights:
            an_idle_operator_writes_nothing,
            every_right_is_used_and_none_is_missing,
            an_operator_of_all_namespaces_has_exactly_the_same_rights,
            an_operator_of_two_namespaces_works_in_both_and_in_no_other,
            nobody_asks_approves_or_decides_in_anothers_name,
            the_chart_reads_no_secrets_and_has_no_wildcards;
        tenants:
            whoever_may_only_ask_can_do_nothing_else,
            what_is_asked_for_is_no_path_and_steers_no_terminal,
            what_is_asked_for_is_not_too_large;
        pods:
            a_namespace_that_enforces_restricted_takes_every_pod,
            nothing_that_trains_measures_or_serves_has_a_token,
            where_the_store_is_a_bucket_it_and_names_are_what_pods_reach_besides,
            network_policies_choose_the_pods_that_they_are_for_and_no_others;
        pages:
            the_platform_engineers_page_does_what_it_says,
            the_privacy_engineers_page_does_what_it_says,
            the_page_for_whoever_is_paged_does_what_it_says,
            the_auditors_page_does_what_it_says;
        metrics:
            series_come_with_their_object_and_go_with_it,
            a_gate_that_fails_is_counted;
    ])
}
