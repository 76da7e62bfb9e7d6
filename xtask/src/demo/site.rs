//! Where the demo runs: a cluster of its own, or one that somebody has. Either way it removes what it created,
//! and nothing else.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::interrupt;
use super::kubectl::run;
use super::timeline::{Timeline, typed};
use crate::cache::{self, Lock};
use crate::cluster::{self, Cluster, Options};
use crate::image::Built;
use crate::{cmd, progress, setup};

/// The demo's own cluster.
const CLUSTER: &str = "demo";
/// The Helm release of the operator, and so the name of its Deployment.
pub const RELEASE: &str = "lethe";
const CRDS_RELEASE: &str = "lethe-crds";
const CRDS: [&str; 6] = [
    "diffusionmodels.lethe.dev",
    "unlearnpolicies.lethe.dev",
    "clusterunlearnpolicies.lethe.dev",
    "unlearnrequests.lethe.dev",
    "unlearnapprovals.lethe.dev",
    "unlearnruns.lethe.dev",
];
const LOCAL_VOLUME: &str = include_str!("local-volume.yaml");

/// A cluster that answers.
pub struct Site {
    place: Place,
    helm: PathBuf,
    namespace: String,
    /// Leave everything as it is at the end.
    keep: bool,
    closed: Cell<bool>,
    /// How to take back what was done, in the order in which it was done.
    created: RefCell<Vec<Created>>,
}

enum Place {
    /// With the lock that keeps a second demo from the same cluster.
    Local(Cluster, #[expect(dead_code, reason = "held, not read")] Lock),
    Context {
        name: String,
        kubectl: PathBuf,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Created {
    Definitions,
    Namespace,
    Operator,
}

impl Site {
    /// Starts the demo's own cluster. What an earlier demo left of it is removed.
    ///
    /// # Errors
    /// If this machine cannot run a cluster, or one of its components does not start.
    pub fn start_cluster(namespace: &str, keep: bool) -> Result<Self> {
        let helm = setup::helm::binary()?;
        let lock = Lock::acquire(&cache::root()?.join("demo"))?;
        if cluster::list()?.iter().any(|(name, _)| name == CLUSTER) {
            progress::step("remove the cluster of an earlier demo", || cluster::down(CLUSTER))?;
        }
        let cluster = Cluster::up(&Options { name: CLUSTER.into(), ..Options::default() })?;
        Ok(Self::new(Place::Local(cluster, lock), helm, namespace, keep))
    }

    /// Takes a cluster that is there, if it has no Lethe yet and the namespace is free.
    ///
    /// # Errors
    /// If it does not answer, or the demo would touch what it did not create.
    pub fn take(context: &str, namespace: &str, keep: bool) -> Result<Self> {
        let kubectl = match cmd::find_program("kubectl") {
            Some(found) => found,
            None => setup::kubernetes::binaries()?.join("kubectl"),
        };
        let place = Place::Context { name: context.to_owned(), kubectl };
        let site = Self::new(place, setup::helm::binary()?, namespace, keep);
        let there = "Lethe is already there, and this demo would compete with it";
        let taken = "choose a new one with --namespace: the demo deletes it at the end";
        let definitions = CRDS.iter().map(|&name| ("crd", name, there));
        for (kind, name, what) in definitions.chain([("namespace", namespace, taken)]) {
            let found = site.ask(&["get", kind, name, "--ignore-not-found", "-o", "name"])?;
            if !found.is_empty() {
                bail!("the cluster of context {context} has {found}: {what}");
            }
        }
        Ok(site)
    }

    fn new(place: Place, helm: PathBuf, namespace: &str, keep: bool) -> Self {
        let (closed, created) = (Cell::new(false), RefCell::default());
        Self { place, helm, namespace: namespace.to_owned(), keep, closed, created }
    }

    /// Whether this is the demo's own cluster, and not somebody's.
    pub fn is_local(&self) -> bool {
        matches!(self.place, Place::Local(..))
    }

    /// The cluster's Kubernetes version.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn version(&self) -> Result<String> {
        let versions: serde_json::Value = serde_json::from_str(&self.ask(&["version", "-o", "json"])?)?;
        let version = versions["serverVersion"]["gitVersion"].as_str();
        Ok(version.context("the API server does not say its version")?.to_owned())
    }

    /// Puts an image onto the node of the demo's own cluster. Nodes of somebody's cluster have it already.
    ///
    /// # Errors
    /// If the node does not take it.
    pub fn load(&self, image: &Built) -> Result<()> {
        match &self.place {
            Place::Local(cluster, _) => {
                let step = format!("load {}", image.identity.name);
                progress::step(&step, || cluster.load(&image.file)).map(|_| ())
            }
            Place::Context { .. } => Ok(()),
        }
    }

    /// A `kubectl` command.
    pub fn kubectl(&self, words: &[&str]) -> Command {
        match &self.place {
            Place::Local(cluster, _) => cluster.exec_command(&[&["kubectl"], words].concat()),
            Place::Context { name, kubectl } => {
                let mut command = Command::new(kubectl);
                command.args(["--context", name]).args(words);
                command
            }
        }
    }

    /// Creates the namespace and installs both charts; returns when the operator is ready.
    ///
    /// # Errors
    /// If Helm fails.
    pub fn install(&self) -> Result<()> {
        let namespace = self.namespace.as_str();
        // Only what was seen to be created here is taken back: what is there already is somebody's.
        typed(&format!("kubectl create namespace {namespace}"), || {
            self.ask(&["create", "namespace", namespace])
        })?;
        self.note(Created::Namespace);
        self.helm(&["install", CRDS_RELEASE, "charts/lethe-crds"], None)?;
        self.note(Created::Definitions);
        if self.is_local() {
            let applied = || run(self.kubectl(&["apply", "-f", "-"]), Some(LOCAL_VOLUME));
            typed("kubectl apply -f xtask/src/demo/local-volume.yaml", applied)?;
        }
        self.note(Created::Operator);
        let install = ["install", RELEASE, "charts/lethe", "--wait", "--timeout=3m", "--values=-"];
        self.helm(&install, Some(&self.values()))
    }

    /// What the demo sets of the chart's values.
    fn values(&self) -> String {
        let store = match self.is_local() {
            true => r#"{create: true, size: 2Gi, storageClassName: "", existingVolume: lethe-demo}"#,
            // Of the default StorageClass. Few of those of one-node clusters offer ReadWriteMany.
            false => "{create: true, size: 2Gi, accessModes: [ReadWriteOnce]}",
        };
        // In somebody's cluster the operator gets no right outside the demo's namespace.
        let watched = if self.is_local() { "" } else { &self.namespace };
        format!("image: {{tag: dev}}\nwatchNamespaces: [{watched}]\nstore: {{persistence: {store}}}\n")
    }

    fn helm(&self, words: &[&str], values: Option<&str>) -> Result<()> {
        let mut command = match &self.place {
            Place::Local(cluster, _) => cluster.exec_command(&[&self.helm]),
            Place::Context { name, .. } => {
                let mut command = Command::new(&self.helm);
                command.args(["--kube-context", name]);
                command
            }
        };
        command.args(["--namespace", &self.namespace]).args(words);
        let line = format!("helm -n {} {}", self.namespace, words.join(" "));
        typed(&line, || run(command, values)).with_context(|| format!("`{line}` failed"))?;
        Ok(())
    }

    /// How a person reaches what the demo left behind.
    pub fn doors(&self) -> String {
        let namespace = &self.namespace;
        match &self.place {
            Place::Local(..) => {
                let inside = format!("cargo xtask cluster --name {CLUSTER}");
                let gallery = self.ask(&[
                    "get",
                    "service",
                    "digits",
                    "-n",
                    namespace,
                    "-o",
                    "jsonpath={.spec.clusterIP}:{.spec.ports[0].port}",
                ]);
                let gallery = gallery.unwrap_or_else(|_| "ADDRESS:8080".into());
                format!(
                    "the cluster is left running, until the next demo replaces it:\n\
                     \x20 gallery  {inside} forward 8080 {gallery}     then http://127.0.0.1:8080/\n\
                     \x20 API      {inside} exec -- kubectl -n {namespace} get diffusionmodels,unlearnrequests -o wide\n\
                     \x20 remove   {inside} down"
                )
            }
            Place::Context { name, .. } => format!(
                "everything is left as it is:\n\
                 \x20 gallery  kubectl --context {name} -n {namespace} port-forward service/digits 8080     then http://127.0.0.1:8080/\n\
                 \x20 API      kubectl --context {name} -n {namespace} get diffusionmodels,unlearnrequests -o wide\n\
                 \x20 remove   kubectl --context {name} -n {namespace} delete diffusionmodels --all\n\
                 \x20          kubectl --context {name} delete namespace {namespace}\n\
                 \x20          kubectl --context {name} delete crd {}",
                CRDS.join(" ")
            ),
        }
    }

    /// Takes back what was created.
    ///
    /// # Errors
    /// If something does not go away.
    pub fn close(&self, timeline: &Timeline) -> Result<()> {
        if self.keep || self.closed.replace(true) {
            return Ok(());
        }
        timeline.more("");
        if interrupt::noted() {
            timeline.say("removing what was created; Ctrl-C again leaves it");
        }
        match &self.place {
            Place::Local(..) => progress::step("remove the cluster", || cluster::down(CLUSTER)),
            Place::Context { .. } => self.take_back(),
        }
    }

    /// Everything is tried, also after something that failed.
    fn take_back(&self) -> Result<()> {
        let namespace = self.namespace.as_str();
        let mut result = Ok(());
        let definitions = [&["delete", "crd"][..], &CRDS, &["--timeout=60s"]].concat();
        while let Some(created) = self.created.borrow_mut().pop() {
            let words: &[&str] = match created {
                // The operator has to see its models go: it holds their finalizer.
                Created::Operator => {
                    &["delete", "diffusionmodels,unlearnrequests", "--all", "-n", namespace, "--timeout=60s"]
                }
                Created::Definitions => &definitions,
                Created::Namespace => &["delete", "namespace", namespace, "--timeout=120s"],
            };
            let done = typed(&format!("kubectl {}", words.join(" ")), || self.ask(words)).map(|_| ());
            result = result.and(done);
        }
        result
    }

    fn note(&self, created: Created) {
        self.created.borrow_mut().push(created);
    }

    fn ask(&self, words: &[&str]) -> Result<String> {
        let said = run(self.kubectl(words), None)
            .with_context(|| format!("`kubectl {}` failed", words.join(" ")))?;
        Ok(String::from_utf8_lossy(&said).trim().to_owned())
    }
}

impl Drop for Site {
    /// However the demo ends.
    fn drop(&mut self) {
        if let Err(error) = self.close(&Timeline::start()) {
            eprintln!("error: not everything could be removed: {error:#}");
        }
    }
}
