//! `cargo xtask demo`: the whole loop, real in every part, told while it happens.

mod diagnosis;
mod follow;
mod gates;
mod interrupt;
mod jobs;
mod kubectl;
pub mod live;
pub mod report;
mod scenes;
mod site;
pub mod story;
mod summary;
pub mod timeline;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, ensure};
use lethe_gates::binomial;

use self::kubectl::Kubectl;
use self::live::Judged;
use self::site::Site;
use self::story::Story;
use self::summary::Summary;
use self::timeline::Timeline;
use crate::image::Built;
use crate::{cache, host, image, progress, setup};

// What the chapters and their stages are called.
const SETUP: &str = "Set up this machine";
const IMAGES: &str = "Build the images";
const CLUSTER: &str = "A Kubernetes cluster";
const CHARTS: &str = "Install the charts";
const TEACH: &str = "Teach the base model";
const PREPARING: &str = "Put the model under Lethe, and serve its baseline";
const PREPARE: &str = "prepare: distil, judge, reference";
const BASELINE: &str = "serve the baseline";
const SAMPLE_BEFORE: &str = "Sample what is served";
const FORGETTING: &str = "Forget the three";
const FORGET: &str = "forget";
const EVALUATE: &str = "evaluate";
const ROLLOUT: &str = "roll out";
const SAMPLE_AFTER: &str = "Sample what is served now";
const BLOCKED: &str = "Ask for what the gates cannot let through";

/// The name of the model of the examples, and of its Deployment and Service.
const MODEL: &str = "digits";
/// What the examples have where a digest belongs that is not known before.
const DIGEST_TO_FILL: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
/// What the demo promises: the policy of the example asks for the same.
const MOST_LEAK: f64 = 0.005;
const REPORT: &str = "target/demo/report.html";
/// Beside the report.
const EVALUATION: &str = "evaluation.html";
const SUMMARY: &str = "target/demo/summary.json";

/// Run the whole loop: cluster, training, gates, roll-out, and a blocked roll-out
///
/// Starts a Kubernetes cluster of its own on this machine, installs the charts, teaches a small diffusion model
/// in a pod, puts it under Lethe, asks for a digit to be forgotten, follows the request through training,
/// measurement, gates and roll-out, looks at what is served before and after, and shows a request that the gates
/// hold back. Writes target/demo/report.html, with the measurement in evaluation.html beside it, and
/// target/demo/summary.json. Everything it started is gone at the end, also after Ctrl-C.
///
/// With --context it runs the same thing on a cluster that you have, as any user, and builds only Helm here (and
/// kubectl, if there is none). The cluster needs:
///   - Kubernetes 1.32 or newer, without Lethe, and a context that may create namespaces and CRDs
///   - the images lethe/operator:dev and lethe/trainer:dev on its nodes: `cargo xtask image` writes them to
///     target/images/operator.tar and target/images/trainer.tar, and `kind load image-archive`, `minikube image
///     load` or `ctr -n k8s.io image import` takes them. The demo does not load them
///   - a default StorageClass that gives 2 Gi ReadWriteOnce, writable for group 65532. All pods share it, so they
///     have to fit onto one node (of an ordinary laptop: 2 CPUs and 4 GiB are plenty)
///   - a node with an nvidia.com/gpu to give: the training pods ask for one each, and work without using it
///     where the container sees none
///
/// It creates the namespace and everything else in it (charts, claim, Jobs, Deployment), and the CRDs. The
/// operator gets no right outside of the namespace. At the end the models, the CRDs and the namespace are deleted,
/// and with them all of it; a volume that the StorageClass provisioned goes as its reclaim policy says.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// A context of your kubeconfig: use that cluster, which must not have Lethe yet
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Leave everything running, and say how to reach it; without --context, until the next demo replaces it
    #[arg(long)]
    keep: bool,
    /// The namespace for everything; it must not exist yet
    #[arg(long, default_value = "studio")]
    namespace: String,
}

/// # Errors
/// If anything does not come out as it has to; the message says what, with the last events and log lines.
pub fn run(args: &Args) -> Result<ExitCode> {
    interrupt::watch()?;
    let root = cache::workspace();
    std::env::set_current_dir(root).with_context(|| format!("cannot go to {}", root.display()))?;
    let timeline = Timeline::start();
    let result = perform(args, &timeline);
    if interrupt::noted() {
        timeline.say("interrupted");
        return Ok(ExitCode::from(interrupt::EXIT_CODE));
    }
    result.map(|()| ExitCode::SUCCESS)
}

fn perform(args: &Args, timeline: &Timeline) -> Result<()> {
    let images = match args.context {
        Some(_) => Vec::new(),
        None => set_up(timeline)?,
    };
    let (site, version) = timeline.chapter(CLUSTER, || {
        let site = match &args.context {
            Some(context) => Site::take(context, &args.namespace, args.keep)?,
            None => Site::start_cluster(&args.namespace, args.keep)?,
        };
        let version = site.version()?;
        Ok((site, version))
    })?;
    let kubectl = Kubectl { site: &site, namespace: &args.namespace };
    let played = timeline
        .chapter(CHARTS, || {
            images.iter().try_for_each(|built| site.load(built))?;
            site.install()
        })
        .and_then(|()| scenes::play(&kubectl, timeline, version))
        .and_then(|story| finish(&story, timeline));
    let played = played.map_err(|error| explain(error, &kubectl, args.keep));
    if args.keep {
        progress::say(format_args!("\n{}", site.doors()))?;
    }
    let closed = site.close(timeline);
    if let (true, Err(error)) = (interrupt::noted(), &closed) {
        eprintln!("error: not everything could be removed: {error:#}");
    }
    played.and(closed)
}

/// What a cluster of its own needs: this machine set up, and the images.
fn set_up(timeline: &Timeline) -> Result<Vec<Built>> {
    timeline.chapter(SETUP, || {
        host::can_run_nodes().map_err(|why| anyhow!("{why}; or use a cluster: --context NAME"))?;
        setup::run(&setup::Args {})
    })?;
    timeline.chapter(IMAGES, || Ok(vec![image::operator()?, image::trainer()?]))
}

/// Writes what was found, then says whether it is what the demo promises.
fn finish(story: &Story, timeline: &Timeline) -> Result<()> {
    write(REPORT, &report::html(story, timeline, EVALUATION))?;
    write(&format!("target/demo/{EVALUATION}"), &story.evidence.page)?;
    let summary = serde_json::to_string_pretty(&Summary::of(story, timeline, REPORT))?;
    write(SUMMARY, &format!("{summary}\n"))?;
    timeline.more("");
    timeline.say(&timeline.bold(&format!("done in {}", progress::seconds(timeline.elapsed()))));
    progress::say(format_args!("report   {REPORT}\nsummary  {SUMMARY}"))?;
    let leak = &story.leak_after;
    ensure!(
        bound(leak) <= MOST_LEAK,
        "{} of {} live samples are still the forgotten label: more than the demo promises",
        leak.hits,
        leak.n
    );
    Ok(())
}

/// The share of samples that are of the label at most, with 95 % confidence.
fn bound(judged: &Judged) -> f64 {
    binomial::upper_bound(judged.hits, judged.n, 0.95)
}

fn write(path: &str, text: &str) -> Result<()> {
    let path = Path::new(path);
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Adds what a person would look at first, and what to do next.
fn explain(error: anyhow::Error, kubectl: &Kubectl<'_>, keep: bool) -> anyhow::Error {
    if interrupt::noted() {
        return error;
    }
    let next =
        if keep { "" } else { "\n`cargo xtask demo --keep` leaves the cluster as it is at this point." };
    anyhow!("{error:#}\n\n{}{next}", diagnosis::of(kubectl))
}

/// A file of `examples/`.
fn example(file: &str) -> Result<String> {
    let path = Path::new("examples").join(file);
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}
