//! `kubectl lethe`. The middle is pure: from listed objects and the time to a tree, a page or findings. What talks to a
//! cluster, reads files or writes to a terminal is in [`cluster`], [`watch`], [`say`], [`ask`], [`files`] and [`term`].

#![forbid(unsafe_code)]

pub mod args;
pub mod ask;
pub mod cluster;
pub mod complete;
pub mod compliance;
pub mod exit;
pub mod files;
pub mod lint;
pub mod refusal;
pub mod report;
pub mod say;
pub mod term;
pub mod tree;
pub mod verify;
pub mod watch;
pub mod words;
mod yaml;

use std::fmt::Display;

use clap::CommandFactory;
use jiff::Timestamp;
use serde::Serialize;

use args::{Args, Format, Verb};
use exit::{Exit, Result, Trouble};

/// Does what the command line says.
///
/// # Errors
/// If it cannot be done.
pub async fn run(args: Args) -> Result<Exit> {
    match args.verb {
        Verb::Get(get) => get_verb(&args.cluster, &get).await,
        Verb::Watch(watch) => watch::run(&args.cluster, &watch).await,
        Verb::Approve(say) => say::run(&args.cluster, &say, say::Decision::Approve).await,
        Verb::Deny(say) => say::run(&args.cluster, &say, say::Decision::Deny).await,
        Verb::Retry(ask) => ask::run(&args.cluster, &ask, ask::What::Retry).await,
        Verb::Abort(ask) => ask::run(&args.cluster, &ask, ask::What::Abort).await,
        Verb::Lint(args) => lint::run(&args),
        Verb::Report(report) => report::run(&args.cluster, &report).await,
        Verb::Verify(args) => verify::run(&args).await,
        Verb::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "kubectl-lethe", &mut script);
            // clap_complete writes the dash of the name in two ways into the script for bash, which looks for one of them only:
            // nothing behind a verb would be completed.
            let script = String::from_utf8_lossy(&script).replace("kubectl__subcmd__lethe", "kubectl__lethe");
            term::write(&script)?;
            Ok(Exit::Fine)
        }
        Verb::Complete { words } => complete::run(&args.cluster, &words).await,
    }
}

async fn get_verb(cluster: &args::ClusterArgs, get: &args::Get) -> Result<Exit> {
    let place = cluster::Place::open(cluster, get.which.all_namespaces).await?;
    let seen = place.see().await?;
    let view = tree::view(&seen, get.which.name.as_deref(), Timestamp::now())
        .map_err(|why| Trouble::unreachable(format!("{why} in {}", place.words())))?;
    match get.output.output {
        Format::Text => term::write_lines(&tree::draw(&view))?,
        other => write_data(&view, other)?,
    }
    Ok(Exit::Fine)
}

/// Writes what programs read.
///
/// # Errors
/// If nobody takes it.
pub fn write_data(value: &impl Serialize, format: Format) -> Result<()> {
    match format {
        Format::Yaml => write_text(serde_saphyr::to_string(value)),
        _ => write_text(serde_json::to_string_pretty(value).map(|text| text + "\n")),
    }
}

/// Writes one of many: a line of JSON, or a document of YAML.
///
/// # Errors
/// As [`write_data`].
pub fn write_one(value: &impl Serialize, format: Format) -> Result<()> {
    match format {
        Format::Yaml => write_text(serde_saphyr::to_string(value).map(|text| text + "---\n")),
        _ => write_text(serde_json::to_string(value).map(|text| text + "\n")),
    }
}

fn write_text(text: std::result::Result<String, impl Display>) -> Result<()> {
    let text = text.map_err(|error| Trouble::unreachable(format!("cannot be written: {error}")))?;
    Ok(term::write(&text)?)
}
