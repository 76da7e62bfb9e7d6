//! `cargo xtask cluster`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};

use super::{Cluster, Options, down, list};
use crate::progress;

/// Start, use and stop a real one-node Kubernetes cluster on this machine
///
/// etcd, the control plane, kubelet, kube-proxy and containerd run in private network, mount and process
/// namespaces: no ports are taken, nothing of the machine changes, and several clusters run side by side.
/// Needs Linux and root.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which cluster
    #[arg(long, global = true, default_value = "lethe")]
    name: String,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Start the cluster and wait until its node takes pods (about 5 s)
    Up {
        /// How many nvidia.com/gpu the node says it has; the scheduler counts them, pods get none
        #[arg(long, default_value_t = 8)]
        gpus: u32,
    },
    /// Stop the cluster and remove every process, mount, cgroup and file of it
    Down,
    /// Show the clusters of this user, and the node of the running one
    Status,
    /// Run a command inside the cluster's namespaces, with KUBECONFIG and kubectl ready
    Exec {
        /// The command and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Load image tars into the node; an image that is already there is left alone
    Load {
        /// OCI image layouts or `docker save` archives
        #[arg(required = true)]
        images: Vec<PathBuf>,
    },
    /// Bring an address of the cluster's network to a loopback port of this machine until Ctrl-C
    Forward {
        /// The port here; 0 takes a free one
        port: u16,
        /// The address there, such as 10.96.0.1:443
        address: std::net::SocketAddr,
    },
}

/// # Errors
/// Of the verb.
pub fn run(args: &Args) -> Result<ExitCode> {
    match &args.verb {
        Verb::Up { gpus } => up(&Options { name: args.name.clone(), gpus: *gpus })?,
        Verb::Down => progress::step(&format!("remove cluster {}", args.name), || down(&args.name))?,
        Verb::Status => return status(&args.name),
        Verb::Exec { command } => return exec(&args.name, command),
        Verb::Load { images } => load(&args.name, images)?,
        Verb::Forward { port, address } => {
            let port = Cluster::find(&args.name)?.forward(*port, *address)?;
            progress::say(format_args!(
                "127.0.0.1:{port} is {address} in cluster {}; Ctrl-C ends it",
                args.name
            ))?;
            loop {
                std::thread::park();
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn up(options: &Options) -> Result<()> {
    let cluster = Cluster::up(options)?;
    let name = &options.name;
    progress::say(format_args!("cluster {name} is up; its logs are in {}", cluster.logs().display()))?;
    progress::say(format_args!("  cargo xtask cluster --name {name} exec -- kubectl get nodes"))?;
    progress::say(format_args!("  cargo xtask cluster --name {name} down"))?;
    Ok(())
}

fn status(name: &str) -> Result<ExitCode> {
    for (name, running) in list()? {
        let state = if running { "running" } else { "not running; `down` removes what is left" };
        progress::say(format_args!("{name}: {state}"))?;
    }
    let cluster = match Cluster::find(name) {
        Ok(cluster) => cluster,
        Err(reason) => {
            progress::say(format_args!("{reason:#}"))?;
            return Ok(ExitCode::FAILURE);
        }
    };
    progress::say(cluster.kubectl(&["get", "nodes", "-o", "wide"])?)?;
    progress::say(cluster.kubectl(&["get", "pods", "--all-namespaces"])?)?;
    Ok(ExitCode::SUCCESS)
}

fn exec(name: &str, command: &[String]) -> Result<ExitCode> {
    let status = Cluster::find(name)?.exec_command(command).status().context("cannot start nsenter")?;
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Ok(ExitCode::from(code))
}

fn load(name: &str, images: &[PathBuf]) -> Result<()> {
    let cluster = Cluster::find(name)?;
    for image in images {
        let loaded = progress::step(&format!("load {}", image.display()), || cluster.load(image))?;
        if !loaded {
            progress::note(&format!("{} was already there", image.display()));
        }
    }
    Ok(())
}
