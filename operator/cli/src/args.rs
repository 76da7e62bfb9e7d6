//! Command line.

use std::path::PathBuf;

use clap::{Args as Arguments, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

/// What a model had to forget, where it stands, and what to do next
///
/// Exit codes: 0 done, or all is well; 1 something is not right (a manifest, evidence, the answer to a request);
/// 2 the command line makes no sense; 3 it could not be found out (no cluster, no such object or file, no answer in
/// time); 4 the API server refused it.
#[derive(Debug, Parser)]
#[command(name = "kubectl-lethe", bin_name = "kubectl lethe", version)]
pub struct Args {
    #[command(flatten)]
    pub cluster: ClusterArgs,
    #[command(subcommand)]
    pub verb: Verb,
}

/// Which cluster, and where in it: as for kubectl.
#[derive(Clone, Debug, Default, Arguments)]
pub struct ClusterArgs {
    /// Namespace; that of the context if absent
    #[arg(short, long, global = true, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Context of the kubeconfig; the current one if absent
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// The kubeconfig; KUBECONFIG and then ~/.kube/config if absent
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Show models, their requests, runs and gates: why they wait, and what to do next
    Get(Get),
    /// The same, live; with the name of a request it ends when that has its answer
    ///
    /// Ends with 0 if the request was Fulfilled or Tried, with 1 if it was not. With -o json a line, with -o yaml a document of
    /// what `get` writes, whenever that changes.
    Watch(Watch),
    /// Agree to a request, or with --rollout to the step at which its candidate waits
    ///
    /// Creates an UnlearnApproval in your name. It cannot be changed or taken back; a `deny` counts more than any
    /// number of these.
    Approve(Say),
    /// Say no to a request, or with --rollout to its candidate
    ///
    /// Creates an UnlearnApproval in your name. One of these denies a request for good.
    Deny(Say),
    /// Try a request again that was Held, Failed or Aborted; or do not wait for its next attempt
    Retry(Ask),
    /// Give a request up, unless its roll-out has begun
    Abort(Ask),
    /// Check evidence without a cluster: digests of everything, the verdict from the raw counts, and who signed it
    ///
    /// Reads runs and requests as `kubectl get -o yaml` exports them, and the store that they name. Ends with 1 if
    /// anything does not fit.
    Verify(Verify),
    /// Write a support bundle without secrets and names, or with --compliance a page for people who decide
    Report(Report),
    /// Check manifests without a cluster, by the rules and in the words of the API server
    Lint(Lint),
    /// Print a script that completes this command in a shell
    ///
    /// For `kubectl lethe <TAB>` kubectl asks a program `kubectl_complete-lethe`; docs/kubectl-lethe.md has it.
    Completion { shell: Shell },
    /// Names that fit at the end of a command line, for kubectl's completion
    #[command(hide = true, disable_help_flag = true)]
    Complete {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Text,
    Json,
    Yaml,
}

/// How it is written.
#[derive(Clone, Debug, Arguments)]
pub struct Output {
    /// How to write it
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Format,
}

/// Which models.
#[derive(Clone, Debug, Arguments)]
pub struct Which {
    /// A model or a request, also as dm/NAME or ulr/NAME; everything if absent
    pub name: Option<String>,
    /// Of all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
}

#[derive(Debug, Arguments)]
pub struct Get {
    #[command(flatten)]
    pub which: Which,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Arguments)]
pub struct Watch {
    #[command(flatten)]
    pub which: Which,
    /// Give up after so many seconds
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Arguments)]
pub struct Say {
    /// The request
    #[arg(value_name = "REQUEST")]
    pub request: String,
    /// Why. It is kept with the decision. No personal data
    #[arg(long)]
    pub reason: String,
    /// About the candidate beside the serving target, at the step where it waits, instead of the request
    #[arg(long)]
    pub rollout: bool,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Arguments)]
pub struct Ask {
    /// The request
    #[arg(value_name = "REQUEST")]
    pub request: String,
    /// A word of your choice: the same one never acts twice. The time if absent
    #[arg(long, value_name = "WORD")]
    pub word: Option<String>,
    /// Do not wait for what the operator says to it
    #[arg(long)]
    pub no_wait: bool,
    /// How many seconds to wait
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub timeout: u64,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Arguments)]
pub struct Verify {
    /// Files with runs, requests and models as `kubectl get -o yaml` or `-o json` writes them; `-` for standard input
    #[arg(required_unless_present = "log", value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// The store, for example file:///artifacts
    #[arg(long, env = "LETHE_STORE", value_name = "URI", required_unless_present = "log")]
    pub store: Option<String>,
    /// The audit log, for example file:///artifacts/log: that it is whole, and says of what is claimed that it was done
    #[arg(long, env = "LETHE_AUDIT_LOG", value_name = "URI", requires = "trusted_keys")]
    pub log: Option<String>,
    /// The name of the audit log
    #[arg(long, env = "LETHE_AUDIT_LOG_ORIGIN", value_name = "NAME", default_value = "lethe.dev/log")]
    pub origin: String,
    /// The checkpoint of the audit log that was seen last, which it has to continue. If it does, the one that is seen now takes
    /// its place; so keep it where nobody else can write
    #[arg(long, value_name = "FILE", requires = "log")]
    pub since: Option<PathBuf>,
    /// One or more public keys in PEM: what is claimed has to be signed by one of them
    #[arg(long, env = "LETHE_TRUSTED_KEYS", value_name = "FILE")]
    pub trusted_keys: Option<PathBuf>,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Arguments)]
pub struct Report {
    /// A model; all in the namespace if absent
    pub model: Option<String>,
    /// Of all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Write one page per model for people who decide, instead of the support bundle
    #[arg(long)]
    pub compliance: bool,
    /// The store, for what only records hold: how often the label was shown before
    #[arg(long, env = "LETHE_STORE", value_name = "URI", requires = "compliance")]
    pub store: Option<String>,
    /// The audit log, for its head: name, entries, root hash. With --store, that in the store if absent
    #[arg(long, env = "LETHE_AUDIT_LOG", value_name = "URI")]
    pub log: Option<String>,
    /// Public keys in PEM: whether one of them signed the head of the audit log
    #[arg(long, env = "LETHE_TRUSTED_KEYS", value_name = "FILE")]
    pub trusted_keys: Option<PathBuf>,
    /// Write pages from files as `kubectl get -o yaml` exports them, without a cluster; `-` for standard input
    #[arg(long, value_name = "FILE", requires = "compliance", num_args = 1..)]
    pub from: Vec<PathBuf>,
    /// Where to: a .tar.gz for the bundle, a folder for pages
    #[arg(long, value_name = "PATH")]
    pub out: Option<PathBuf>,
    /// Namespace that the operator runs in, for its Deployment and its logs
    #[arg(long, value_name = "NAME", default_value = "lethe-system")]
    pub operator_namespace: String,
    /// What is written to the terminal: of pages, with json or yaml, all that is on them
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Arguments)]
pub struct Lint {
    /// Files, folders of .yaml, .yml and .json files, or `-` for standard input
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Folders within folders as well
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// Warnings are errors
    #[arg(long)]
    pub strict: bool,
    #[command(flatten)]
    pub output: Output,
}
