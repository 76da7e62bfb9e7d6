//! Every state that the operator can get into, within limits, keeps the invariants and comes to a good end.
//!
//! Not captured: the figures are part of the result.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Instant,
};

use lethe_model::{
    checker::{Settings, Start},
    report::{Report, check},
    scene::Scene,
    server::Guards,
};
use libtest_mimic::{Arguments, Failed, Trial};

const TRUE_GUARDS: Guards = Guards { overwrites: false };
/// All that happens within the other limits.
const ALL: Option<usize> = None;
/// The first steps of it: so many transitions, breadth first.
const SOME: Option<usize> = Some(1_500_000);
const FEW: Option<usize> = Some(500_000);
const SOME_SIGNED: Option<usize> = Some(100_000);
const SOME_PUBLISHED: Option<usize> = Some(300_000);
const SOME_WORDS: Option<usize> = Some(40_000);

const fn settings(requests: usize, disturbances: u8, start: Start, enough: Option<usize>) -> Settings {
    let (scene, words) = (Scene::Plain, 0);
    Settings { requests, disturbances, start, scene, words, guards: TRUE_GUARDS, enough }
}

/// One or two requests, and people who say so many things.
const fn heard(scene: Scene, requests: usize, words: u8, disturbances: u8, start: Start) -> Settings {
    Settings { scene, words, ..settings(requests, disturbances, start, SOME_WORDS) }
}

/// With a key: what is measured is signed before it is rolled out.
const fn signed(requests: usize, disturbances: u8, start: Start) -> Settings {
    Settings { scene: Scene::Signed, ..settings(requests, disturbances, start, SOME_SIGNED) }
}

/// Git promotes what the operator publishes.
const fn published(disturbances: u8, start: Start) -> Settings {
    Settings { scene: Scene::Published, ..settings(1, disturbances, start, SOME_PUBLISHED) }
}

/// Each with the least number of states, below which not everything was seen.
const CHECKS: [(&str, Settings, usize); 23] = [
    ("two_requests_undisturbed", settings(2, 0, Start::Ready, ALL), 50_000),
    ("the_first_steps_after_a_first_request", settings(2, 1, Start::Fulfilled, SOME), 350_000),
    ("the_first_steps_of_one_request_and_two_disturbances", settings(1, 2, Start::Ready, SOME), 350_000),
    ("the_first_steps_of_two_requests_and_one_disturbance", settings(2, 1, Start::Ready, SOME), 350_000),
    ("the_first_steps_from_scratch", settings(1, 2, Start::Scratch, SOME), 350_000),
    ("the_first_steps_while_the_live_server_is_asked", settings(1, 1, Start::Asked, SOME), 350_000),
    ("another_base_and_one_disturbance", settings(1, 1, Start::Rebased, SOME), 110_000),
    ("the_first_steps_to_another_base_while_requests_come", settings(2, 1, Start::Rebased, FEW), 120_000),
    ("the_first_steps_while_a_candidate_is_beside_the_target", settings(1, 1, Start::Beside, SOME), 350_000),
    ("one_request_and_one_disturbance", settings(1, 1, Start::Ready, ALL), 700_000),
    ("the_first_steps_while_git_promotes_what_is_published", published(1, Start::Ready), 90_000),
    ("the_first_steps_of_two_disturbances_while_git_promotes", published(2, Start::Ready), 70_000),
    ("the_first_steps_while_what_git_promoted_is_asked", published(1, Start::Asked), 70_000),
    ("the_first_steps_of_a_canary_before_git_promotes", published(1, Start::Beside), 70_000),
    ("the_first_steps_to_another_base_that_git_promotes", published(1, Start::Rebased), 90_000),
    ("the_first_steps_while_evidence_is_signed", signed(1, 1, Start::Measured), 25_000),
    ("the_first_steps_while_two_people_are_asked", heard(Scene::Approvals(2), 1, 3, 0, Start::Ready), 12_000),
    ("the_first_steps_while_somebody_is_asked", heard(Scene::Approvals(1), 1, 2, 1, Start::Ready), 12_000),
    ("the_first_steps_of_a_pilot_and_a_request", heard(Scene::Pilots, 2, 2, 1, Start::Ready), 12_000),
    ("the_first_steps_while_a_canary_waits_for_people", heard(Scene::Steps, 1, 2, 1, Start::AtStep), 12_000),
    (
        "the_first_steps_while_a_base_waits_for_people",
        heard(Scene::Steps, 1, 2, 1, Start::AtStepOfBase),
        12_000,
    ),
    ("the_first_steps_of_attempts", heard(Scene::Attempts, 1, 2, 1, Start::Ready), 12_000),
    ("the_first_steps_after_an_attempt_that_failed", heard(Scene::Attempts, 1, 2, 1, Start::Leaked), 12_000),
];

/// Another violation would be the same one, later.
static VIOLATED: AtomicBool = AtomicBool::new(false);
/// States of all checks.
static STATES: AtomicUsize = AtomicUsize::new(0);

fn main() {
    let mut arguments = Arguments::from_args();
    // Each uses both cores.
    arguments.test_threads = Some(1);
    let checks =
        CHECKS.map(|(name, settings, least)| Trial::test(name, move || holds(name, settings, least)));
    let noticed = Trial::test("a_server_that_takes_outdated_writes_is_noticed", notices_overwriting);
    let start = Instant::now();
    let conclusion = libtest_mimic::run(&arguments, checks.into_iter().chain([noticed]).collect());
    let states = STATES.load(Ordering::Relaxed);
    if states > 0 {
        println!("{states} states in {:.1} s", start.elapsed().as_secs_f64());
    }
    conclusion.exit();
}

fn holds(name: &str, settings: Settings, least: usize) -> Result<(), Failed> {
    if VIOLATED.load(Ordering::Relaxed) {
        return Err("not checked: an invariant is violated already".into());
    }
    let report = check(settings);
    show(name, &report);
    STATES.fetch_add(report.unique, Ordering::Relaxed);
    if let Some(violation) = report.violation {
        VIOLATED.store(true, Ordering::Relaxed);
        return Err(violation.into());
    }
    if !report.unseen.is_empty() {
        return Err(format!("never reached: {:?}", report.unseen).into());
    }
    if report.unique < least {
        return Err(format!("{} states are less than {least}", report.unique).into());
    }
    Ok(())
}

/// The checker sees what resource versions are for.
fn notices_overwriting() -> Result<(), Failed> {
    if VIOLATED.load(Ordering::Relaxed) {
        return Err("not checked: an invariant is violated already".into());
    }
    let report =
        check(Settings { guards: Guards { overwrites: true }, ..settings(1, 2, Start::Ready, SOME) });
    show("outdated writes", &report);
    match report.violation {
        Some(violation) => {
            println!("{}", violation.lines().next().unwrap_or_default());
            Ok(())
        }
        None => Err("nothing was violated".into()),
    }
}

fn show(name: &str, report: &Report) {
    println!(
        "{name}: {} states, {} transitions, {} steps deep, {} decisions, {:.1} s",
        report.unique,
        report.transitions,
        report.depth,
        report.decisions,
        report.time.as_secs_f64()
    );
}
