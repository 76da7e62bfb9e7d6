//! The ecosystem tier: the operator against a real API server, and programs of others that people use with it.

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::Result;
use lethe_tests::{Server, Tier, World, scenarios};
use xtask::setup::{otelcol, prometheus, versitygw};

mod alerts;
mod audit_log;
mod browser;
mod buckets;
mod cosign;
mod dashboard;
mod drawn;
mod gitops;
mod queues;
mod traces;

/// As in the API tier, but there is more to wait for: an alert has to last, and people are told of it after a while.
struct Ecosystem(Arc<Server>);

impl Tier for Ecosystem {
    type World = World;

    const PARALLEL: usize = 6;
    const PATIENCE: Duration = Duration::from_secs(170);

    fn start() -> Result<Self> {
        // Once, before several scenarios want it at the same moment.
        prometheus::prometheus()?;
        prometheus::alertmanager()?;
        versitygw::binary()?;
        otelcol::binary()?;
        Server::start().map(|server| Self(Arc::new(server)))
    }

    async fn world(self: &Arc<Self>, name: &str) -> Result<World> {
        World::new(self.0.clone(), name).await
    }

    async fn diagnose(world: &World) -> String {
        Server::diagnose(world).await
    }
}

fn main() -> ExitCode {
    lethe_tests::scenario::main::<Ecosystem>(scenarios![
        alerts:
            a_failed_gate_rings_within_a_minute_and_falls_silent_after_the_fix,
            what_does_not_get_on_rings,
            what_cannot_be_signed_and_what_is_not_believed_rings,
            an_operator_that_hears_nothing_any_more_rings,
            an_operator_that_is_frozen_rings,
            a_thousand_requests_leave_no_series_behind;
        dashboard:
            every_question_of_the_dashboard_has_an_answer,
            the_dashboard_is_drawn_with_what_prometheus_answers,
            every_metric_is_documented_and_no_other;
        browser:
            a_page_that_cannot_be_read_is_found_out,
            the_gallery_can_be_read_on_a_phone_and_in_the_dark,
            every_report_can_be_read_on_a_phone_and_in_the_dark;
        buckets:
            what_is_put_into_a_bucket_is_what_one_gets,
            an_upload_that_was_cut_off_leaves_nothing_to_see,
            what_is_wrong_with_a_bucket_is_told_apart,
            a_bucket_that_is_away_is_waited_for,
            what_is_wrong_with_a_bucket_is_said_of_the_run_until_it_is_put_right,
            a_trainer_whose_bucket_is_away_exits_with_75_and_does_the_task_once_it_is_back,
            a_trainer_with_a_wrong_key_exits_with_78_and_is_not_tried_again,
            a_model_is_made_to_forget_in_a_bucket;
        cosign:
            what_is_signed_is_verified_by_cosign_and_nothing_else_is;
        audit_log:
            an_audit_log_in_a_bucket_has_one_history;
        traces:
            a_look_is_traced_with_what_was_asked_of_others_meanwhile,
            a_collector_that_is_away_or_silent_keeps_nobody_waiting;
        gitops:
            what_is_in_git_is_synced_and_its_health_is_that_of_the_request,
            the_health_scripts_say_what_their_tests_say,
            what_nobody_has_looked_at_is_in_progress;
        queues:
            runs_wait_for_quota_in_the_words_of_kueue_and_are_admitted_in_order,
            a_run_that_is_preempted_goes_on_and_is_done_once,
            a_trainer_that_is_preempted_goes_on_from_its_checkpoint,
            a_cluster_without_kueue_and_a_queue_that_is_missing_are_told_and_waited_for,
            while_kueue_is_down_nothing_begins_and_nothing_is_lost,
            twenty_requests_over_quota_for_four_are_all_done_and_none_twice;
    ])
}
