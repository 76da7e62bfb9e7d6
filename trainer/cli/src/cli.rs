//! The command line.

use std::{ffi::OsString, path::PathBuf, process};

use clap::{Args, Parser, Subcommand, ValueEnum};
use lethe_api::{
    Digest,
    contract::{Plan, ProbeLevel, ProbeTask, Progress, Task, exit},
};

use crate::failure::{Failed, Result};

/// Trains, measures and serves diffusion models that must forget.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Train a teacher from images.
    Teach(TeachArgs),
    /// From a teacher alone: the one-step baseline, the judge and the reference statistics.
    Prepare(JobArgs),
    /// Make the baseline forget every target of the plan.
    Forget(JobArgs),
    /// Measure a candidate. Decides nothing.
    Evaluate(EvaluateArgs),
    /// Ask a live server for samples of everything that is forgotten. Decides nothing.
    Audit(JobArgs),
    /// Serve one model over HTTP (Open Inference Protocol v2).
    Serve(ServeArgs),
    /// Ask a live server for samples and judge them.
    Probe(ProbeArgs),
    /// Where the forgotten images are at hand: does a candidate still tell them from others that nobody was taught with?
    /// With `teach` the only command that reads images.
    Membership(MembershipArgs),
    /// Write an artifact of the store to stdout, verified.
    Show(ShowArgs),
    /// Make a base from a checkpoint that other programs wrote. Starts the tool in Python that does it.
    #[command(disable_help_flag = true)]
    Import(ImportArgs),
    /// Write a page for people about a measurement, with verdicts if a policy is given.
    Report(ReportArgs),
}

#[derive(Debug, Args)]
pub(crate) struct TeachArgs {
    /// Gzip-compressed CSV: 64 pixels of 0 to 16 and a digit per line.
    #[arg(long)]
    pub(crate) images: PathBuf,
    /// Where the teacher's bundle goes: a folder, or the URI of one.
    #[arg(long)]
    pub(crate) out: String,
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Training steps [default: what digits need].
    #[arg(long)]
    pub(crate) steps: Option<u64>,
    /// CPU threads [default: as many as there are].
    #[arg(long)]
    pub(crate) threads: Option<u32>,
    #[arg(long, value_enum, default_value_t = DeviceArg::Auto)]
    pub(crate) device: DeviceArg,
    #[command(flatten)]
    pub(crate) devices: DevicesArg,
    /// In what the training computes. The teacher is in f32 in any case.
    #[arg(long, value_enum, default_value_t = PrecisionArg::F32)]
    pub(crate) precision: PrecisionArg,
    /// Also write the result (the JSON that is printed) to this file.
    #[arg(long)]
    pub(crate) report: Option<PathBuf>,
    /// Seconds between two checkpoints, in a folder named like `--out` and `.scratch`. The same command goes on from there.
    #[arg(long, default_value_t = 60)]
    pub(crate) checkpoint_seconds: u64,
    #[command(flatten)]
    pub(crate) termination: TerminationArgs,
}

#[derive(Debug, Args)]
pub(crate) struct JobArgs {
    /// The plan to carry out.
    #[arg(long, default_value = "/etc/lethe/plan.json")]
    pub(crate) plan: PathBuf,
    /// Port of GET /progress and GET /metrics; with 0 a free one, which the log names.
    #[arg(long, default_value_t = Progress::PORT)]
    pub(crate) port: u16,
    /// Do not listen.
    #[arg(long, conflicts_with = "port")]
    pub(crate) no_port: bool,
    /// Seconds between two checkpoints.
    #[arg(long, default_value_t = 30)]
    pub(crate) checkpoint_seconds: u64,
    #[command(flatten)]
    pub(crate) devices: DevicesArg,
    #[command(flatten)]
    pub(crate) termination: TerminationArgs,
}

#[derive(Debug, Args)]
pub(crate) struct EvaluateArgs {
    #[command(flatten)]
    pub(crate) job: JobArgs,
    #[command(flatten)]
    pub(crate) more: MoreProbes,
}

/// Probes beside those that the plan of an evaluation asks for.
#[derive(Debug, Args)]
pub(crate) struct MoreProbes {
    /// Also try to bring back what was forgotten, whatever the plan asks for. The result is of the plan that would have
    /// asked for it, and has that plan's digest.
    #[arg(long, value_enum, value_name = "LEVEL")]
    probes: Option<LevelArg>,
    /// Digest of the teacher, whose samples the probes need [default: what the plan says].
    #[arg(long, value_name = "DIGEST", requires = "probes")]
    teacher: Option<Digest>,
    /// Digest of a one-step model that never saw the targets, to compare with.
    #[arg(long, value_name = "DIGEST", requires = "probes")]
    never_saw: Option<Digest>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LevelArg {
    /// Under other conditions. Seconds.
    Fast,
    /// And by other ways of sampling.
    Full,
    /// And with the weights in hand. Minutes.
    Attack,
}

#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct DevicesArg {
    /// Most CUDA devices that share a training's steps [default: all that are visible].
    #[arg(long = "devices", env = "LETHE_DEVICES", value_name = "COUNT",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) most: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct TerminationArgs {
    /// Where the pod's last words go [default: /dev/termination-log, if it is there].
    #[arg(long)]
    pub(crate) termination_log: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// URI of the store that holds the bundle.
    #[arg(long, env = "LETHE_STORE")]
    pub(crate) store: String,
    /// Digest of the generator's bundle. In a pod: the annotation `lethe.dev/bundle`, through the downward API.
    #[arg(long, env = "LETHE_BUNDLE", default_value = "")]
    pub(crate) bundle: String,
    /// One or more public keys in PEM. With it, a bundle is served only if one of them has signed, in the store, that it passed
    /// every gate.
    #[arg(long, env = "LETHE_TRUSTED_KEYS", value_name = "FILE")]
    pub(crate) trusted_keys: Option<PathBuf>,
    /// The model's name in the protocol's paths.
    #[arg(long, env = "LETHE_MODEL_NAME", default_value = "model")]
    pub(crate) name: String,
    /// Port of the server; with 0 a free one, which the log names.
    #[arg(long, default_value_t = Progress::PORT)]
    pub(crate) port: u16,
    #[arg(long, value_enum, default_value_t = DeviceArg::Auto)]
    pub(crate) device: DeviceArg,
    /// CPU threads [default: as many as there are].
    #[arg(long)]
    pub(crate) threads: Option<u32>,
    #[command(flatten)]
    pub(crate) termination: TerminationArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ProbeArgs {
    /// Where the server listens, for example http://digits:8080.
    #[arg(long)]
    pub(crate) endpoint: String,
    /// The model's name at that server.
    #[arg(long, default_value = "model")]
    pub(crate) name: String,
    /// The label to ask for, and to look for in what comes. May be given several times.
    #[arg(long = "label", value_name = "LABEL", required = true)]
    pub(crate) labels: Vec<String>,
    /// Samples of each label.
    #[arg(long, default_value_t = 3000)]
    pub(crate) samples: u64,
    /// Seed of the first sample; the next one has the next seed.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// URI of the store that holds the judge.
    #[arg(long, env = "LETHE_STORE")]
    pub(crate) store: String,
    /// Digest of the judge's bundle.
    #[arg(long)]
    pub(crate) judge: Digest,
    #[arg(long)]
    pub(crate) threads: Option<u32>,
    #[command(flatten)]
    pub(crate) termination: TerminationArgs,
}

#[derive(Debug, Args)]
pub(crate) struct MembershipArgs {
    /// The images that were to be forgotten and that the teacher was taught with, in the form that `teach` reads.
    #[arg(long)]
    pub(crate) members: PathBuf,
    /// At least a hundred of the same kind that it was not taught with.
    #[arg(long)]
    pub(crate) others: PathBuf,
    /// Digest of the model that forgot.
    #[arg(long)]
    pub(crate) candidate: Digest,
    /// Digest of the model that it was before.
    #[arg(long)]
    pub(crate) baseline: Digest,
    /// Noise level, in units of the pixels' standard deviation, at which both are asked.
    #[arg(long, default_value_t = 0.5)]
    pub(crate) sigma: f64,
    /// URI of the store that holds both.
    #[arg(long, env = "LETHE_STORE")]
    pub(crate) store: String,
    #[arg(long)]
    pub(crate) threads: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// Digest of a record, a blob or a bundle.
    pub(crate) digest: Digest,
    /// Of a bundle: which of its files [default: manifest.json].
    #[arg(long)]
    pub(crate) file: Option<String>,
    /// URI of the store.
    #[arg(long, env = "LETHE_STORE", default_value = "file:///artifacts")]
    pub(crate) store: String,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The tool's own; --help says which.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) arguments: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// The measurement: digest of a record that `evaluate` has written, or a file with its bytes.
    pub(crate) record: String,
    /// Where the page goes [default: standard output].
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
    /// URI of the store.
    #[arg(long, env = "LETHE_STORE", default_value = "file:///artifacts")]
    pub(crate) store: String,
    /// Digest of the record of `forget`: its curves are drawn. Needs nothing beside it.
    #[arg(long, value_name = "DIGEST")]
    pub(crate) forget: Option<Digest>,
    /// A manifest of kind UnlearnPolicy, in YAML or JSON: judge the measurement by its gates, as the operator would. Needs
    /// --plan and --prepare beside it.
    #[arg(long, value_name = "FILE", requires_all = ["plan", "prepare"])]
    pub(crate) policy: Option<PathBuf>,
    /// The plan of the evaluation: says what had to be measured. Needs --policy and --prepare beside it, and what
    /// `evaluate` was given of --probes, --teacher and --never-saw.
    #[arg(long, value_name = "FILE", requires = "policy")]
    pub(crate) plan: Option<PathBuf>,
    /// Digest of the record of `prepare`: says how good the baseline was when it was made. Needs --policy and --plan beside it.
    #[arg(long, value_name = "DIGEST", requires = "policy")]
    pub(crate) prepare: Option<Digest>,
    #[command(flatten)]
    pub(crate) more: MoreProbes,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum DeviceArg {
    /// CUDA if a device is visible, else the CPU.
    Auto,
    Cpu,
    Cuda,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum PrecisionArg {
    F32,
    /// For GPUs with units for it.
    Bf16,
}

/// The command line. One that cannot be read ends the program, as a plan that cannot be carried out would: a pod that is
/// started with it again fails again.
pub(crate) fn read() -> Cli {
    Cli::try_parse().unwrap_or_else(|error| {
        if !error.use_stderr() {
            error.exit();
        }
        eprintln!("{}; --help says what there is", problem(&error.render().to_string()));
        process::exit(exit::BAD_PLAN)
    })
}

/// What is wrong, in one line. What follows it after an empty line is how it should be used.
fn problem(text: &str) -> String {
    let said = text.lines().skip_while(|line| !line.starts_with("error: ")).map(str::trim);
    let line = said.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    if line.is_empty() { "error: a command is missing".into() } else { line }
}

impl MoreProbes {
    /// The plan's bytes; of one that asks for the probes of the command line, if there are any.
    pub(crate) fn ask(&self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        let Some(level) = self.probes else { return Ok(bytes) };
        let mut plan = Plan::parse(&bytes)?;
        // Another task is refused later, in better words.
        let Task::Evaluate(task) = &mut plan.task else { return Ok(bytes) };
        let planned = task.probes.take();
        let (teacher, never_saw) = planned.map(|asked| (asked.teacher, asked.never_saw)).unzip();
        let Some(teacher) = self.teacher.clone().or(teacher) else {
            let problem =
                "--probes needs the teacher: the plan names none, so name its digest with --teacher";
            return Err(Failed::bad_configuration(problem));
        };
        let level = match level {
            LevelArg::Fast => ProbeLevel::Fast,
            LevelArg::Full => ProbeLevel::Full,
            LevelArg::Attack => ProbeLevel::Attack,
        };
        task.probes =
            Some(ProbeTask { level, teacher, never_saw: self.never_saw.clone().or(never_saw.flatten()) });
        Ok(plan.to_json().into_bytes())
    }
}
