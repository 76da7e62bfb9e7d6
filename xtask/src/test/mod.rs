//! `cargo xtask test`: every check and every test, by tier, from the quickest to the one that starts a cluster.

mod checks;
mod count;
mod dependencies;
mod fuzz;
mod links;
mod mutants;
mod named;
mod tidy;

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use self::count::Counts;
use crate::cargo::{self, Build};
use crate::{host, image, progress, setup};

/// Check, and test every tier
///
/// Installs or builds what is missing first. A tier that this machine cannot run is skipped with the reason;
/// with CI=true in the environment a skip is a failure. Tiers:
///   checks   format, lints, licences, links, named tests, generated files, charts
///   unit     pure decisions and libraries, and a minute of fuzzing what reads others' bytes
///   trainer  the science and the trainer's program, on libtorch
///   api      the operator against a real API server; its deaths after each single write (`one_death`) only where they are named
///   ecosystem  the operator with what people have around it: Prometheus with Alertmanager, an OpenTelemetry Collector, an S3
///              server, Chromium, Argo CD, Kueue; what takes minutes of them only if this tier is asked for
///   node     the whole loop on a real node, with real images (needs root)
///   mutants  known mistakes, made one at a time in a copy of the code that decides: the model checker finds each
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Only this tier; may be given several times
    #[arg(long = "tier", value_enum)]
    tiers: Vec<Tier>,
    /// Only tests whose name contains this (not for `checks`)
    filter: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Tier {
    Checks,
    Unit,
    Trainer,
    Api,
    Ecosystem,
    Node,
    Mutants,
}

const ALL: [Tier; 7] =
    [Tier::Checks, Tier::Unit, Tier::Trainer, Tier::Api, Tier::Ecosystem, Tier::Node, Tier::Mutants];

/// What became of a tier.
struct Report {
    tier: Tier,
    counts: Counts,
    time: Duration,
    /// Why it failed or was skipped.
    trouble: Option<String>,
    skipped: bool,
}

/// # Errors
/// If the machine cannot be set up at all. Failed tests are in the exit code.
pub fn run(args: &Args) -> Result<ExitCode> {
    setup::build_packages()?;
    setup::golang::check()?;
    let chosen = ALL.into_iter().filter(|tier| args.tiers.is_empty() || args.tiers.contains(tier));
    let run = |tier| run_tier(tier, args.filter.as_deref(), args.tiers.contains(&tier));
    let reports: Vec<Report> = chosen.map(run).collect();
    summarize(&reports)
}

fn run_tier(tier: Tier, filter: Option<&str>, is_asked_for: bool) -> Report {
    eprintln!("\n== tier {} ==", tier.name());
    let start = Instant::now();
    if let Err(reason) = tier.can_run() {
        progress::skip(&format!("tier {}", tier.name()), &reason);
        return Report {
            tier,
            counts: Counts::default(),
            time: start.elapsed(),
            trouble: Some(reason),
            skipped: true,
        };
    }
    let result = match tier {
        Tier::Checks => checks::run(),
        Tier::Unit => unit(filter),
        Tier::Trainer => trainer(filter),
        Tier::Api => api(filter),
        Tier::Ecosystem => ecosystem(filter, is_asked_for),
        Tier::Node => node(filter),
        Tier::Mutants => mutants::run(filter),
    };
    let (counts, trouble) = match result {
        Ok(counts) if counts.failed > 0 => (counts, Some(format!("{} failed", counts.failed))),
        // A filter may leave a tier without tests; without one, a tier that ran nothing tested nothing.
        Ok(counts) if counts.passed == 0 && filter.is_none() => (counts, Some("no test ran".into())),
        Ok(counts) => (counts, None),
        Err(error) => {
            eprintln!("error: {error:#}");
            (Counts { passed: 0, failed: 1 }, Some(format!("{error:#}")))
        }
    };
    Report { tier, counts, time: start.elapsed(), trouble, skipped: false }
}

impl Tier {
    fn name(self) -> &'static str {
        match self {
            Tier::Checks => "checks",
            Tier::Unit => "unit",
            Tier::Trainer => "trainer",
            Tier::Api => "api",
            Tier::Ecosystem => "ecosystem",
            Tier::Node => "node",
            Tier::Mutants => "mutants",
        }
    }

    fn can_run(self) -> Result<(), String> {
        match self {
            Tier::Node => host::can_run_nodes(),
            Tier::Api | Tier::Ecosystem if !cfg!(target_os = "linux") => {
                Err("the API server is built for Linux".into())
            }
            _ => Ok(()),
        }
    }
}

fn unit(filter: Option<&str>) -> Result<Counts> {
    let mut command = cargo::command(&Build::default())?;
    command.args(["test", "--locked", "--no-fail-fast", "--workspace"]);
    for linked_or_slow in ["lethe-sfd", "lethe-trainer", "lethe-bench", "lethe-tests"] {
        command.args(["--exclude", linked_or_slow]);
    }
    Ok(counted(command, filter)? + fuzz::run(filter)?)
}

fn trainer(filter: Option<&str>) -> Result<Counts> {
    setup::trainer_test_packages()?;
    let libtorch = setup::libtorch::directory()?;
    let mut command = cargo::command(&Build { libtorch: Some(&libtorch), ..Build::default() })?;
    // What `lethe_sfd::process::settle` says of a program that computes; a test has no `main` that could.
    command.env("GOMP_SPINCOUNT", "2000");
    command.env(
        "GLIBC_TUNABLES",
        "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=268435456",
    );
    command.args([
        "test",
        "--locked",
        "--release",
        "--no-fail-fast",
        "-p",
        "lethe-sfd",
        "-p",
        "lethe-trainer",
        "-p",
        "lethe-bench",
    ]);
    counted(command, filter)
}

/// Argo CD, Kueue, cosign, the real trainer and the page that draws the dashboard take minutes to build, and a model in a bucket
/// minutes to teach: an hour is for everything else.
fn ecosystem(filter: Option<&str>, is_asked_for: bool) -> Result<Counts> {
    const LONG: [&str; 6] = [
        "dashboard::the_dashboard_is_drawn",
        "gitops::",
        "queues::",
        "cosign::",
        "buckets::a_model_is_made_to_forget_in_a_bucket",
        "buckets::a_trainer_",
    ];
    let mut arguments = vec!["--test", "ecosystem"];
    if !is_asked_for {
        arguments.push("--");
        arguments.extend(LONG.iter().flat_map(|long| ["--skip", *long]));
        progress::note(&format!("left to `--tier ecosystem`: {}", LONG.join(", ")));
    }
    on_an_api_server(&arguments, filter)
}

/// An operator that dies once, after each write of each scenario in turn, takes most of an hour: whoever changes what it writes
/// names it.
fn api(filter: Option<&str>) -> Result<Counts> {
    let mut arguments = vec!["--lib", "--test", "api"];
    if filter.is_none_or(|filter| !filter.contains("one_death")) {
        arguments.extend(["--", "--skip", "one_death::"]);
        progress::note("left to `--tier api one_death`: one_death::");
    }
    on_an_api_server(&arguments, filter)
}

fn on_an_api_server(targets: &[&str], filter: Option<&str>) -> Result<Counts> {
    let mut command = cargo::command(&Build::default())?;
    command.env("LETHE_OPERATOR_BIN", image::operator_program()?).env("LETHE_CLI_BIN", cli_program()?);
    command.args(["test", "--locked", "--no-fail-fast", "-p", "lethe-tests"]).args(targets);
    counted(command, filter)
}

/// `kubectl lethe`, as a person would start it.
fn cli_program() -> Result<PathBuf> {
    let args = &["--locked", "--package", "kubectl-lethe", "--bin", "kubectl-lethe"];
    let built = cargo::build(&Build { args, ..Build::default() })?;
    let program = built.into_iter().find(|(name, _)| name == "kubectl-lethe");
    Ok(program.context("cargo built no kubectl-lethe")?.1)
}

fn node(filter: Option<&str>) -> Result<Counts> {
    setup::cluster_packages()?;
    let mut command = cargo::command(&Build::default())?;
    command.args(["test", "--locked", "--no-fail-fast", "-p", "lethe-tests", "--test", "node"]);
    counted(command, filter)
}

fn counted(mut command: Command, filter: Option<&str>) -> Result<Counts> {
    command.args(filter);
    let (counts, status) = count::run(&mut command)?;
    if !status.success() && counts.failed == 0 {
        bail!("`{}` failed ({status}) before its tests could fail", crate::cmd::line(&command));
    }
    Ok(counts)
}

fn summarize(reports: &[Report]) -> Result<ExitCode> {
    let strict = std::env::var("CI").is_ok_and(|ci| ci == "true");
    println!("\ntier       passed  failed  time");
    for report in reports {
        let Counts { passed, failed } = report.counts;
        let what = match (&report.trouble, report.skipped) {
            (Some(why), true) => format!("  SKIPPED: {why}"),
            (Some(why), false) => format!("  FAILED: {}", why.lines().next().unwrap_or_default()),
            (None, _) => String::new(),
        };
        let time = progress::seconds(report.time);
        println!("{:<9}  {passed:>6}  {failed:>6}  {time:<13}{what}", report.tier.name());
    }
    let skipped = reports.iter().filter(|report| report.skipped).count();
    let unhappy =
        reports.iter().filter(|report| report.trouble.is_some() && (strict || !report.skipped)).count();
    let total = reports.iter().fold(Counts::default(), |sum, report| sum + report.counts);
    // A tier that is skipped in CI, or that ran nothing, has failed without a failed test.
    let failed = total.failed.max(unhappy);
    if skipped > 0 && strict {
        println!("a tier was skipped, which counts as a failure with CI=true");
    }
    println!("{} passed, {failed} failed", total.passed);
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
