//! Plays the kubelet for serving pods: they "run", each with a loopback address of its own, at which a server
//! answers as the serving contract asks. Where there are kubelets, it plays the servers alone.

use std::{
    collections::{BTreeMap, HashMap},
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, TcpListener},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use axum::{Json, Router, extract::State, routing::get};
use futures::{
    StreamExt,
    stream::{BoxStream, select},
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
    runtime::watcher,
};
use lethe_api::{
    Digest,
    v1alpha1::{BUNDLE_ANNOTATION, labels},
};
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinHandle};

/// How long a server waits for its address to be free.
const ROOM: Duration = Duration::from_secs(30);

/// How serving pods behave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conduct {
    /// A pod with a bundle becomes ready and reports it; one without does not.
    Honest,
    /// No new pod becomes ready. Those that are ready stay so.
    Stuck,
    /// Every pod is ready and reports this digest, whatever it was told to serve.
    Reports(Digest),
}

/// Who writes the statuses of pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statuses {
    /// The stand-ins themselves: no pod is bound to a node.
    Own,
    /// Kubelets, which learn from annotations ([`hint`]) what containers do that nobody runs.
    Kubelets,
}

/// What stand-ins for containers say to kubelets, in annotations of the pod.
pub mod hint {
    /// `True`, once a readiness probe would succeed.
    pub const READY: &str = "bench.lethe.dev/ready";
    /// With which the container has ended.
    pub const EXIT_CODE: &str = "bench.lethe.dev/exit-code";
    /// What it has left as its termination message.
    pub const MESSAGE: &str = "bench.lethe.dev/message";
}

/// The stand-in. Ends when it is dropped.
pub struct Kubelet {
    conduct: watch::Sender<Conduct>,
    port: u16,
    task: JoinHandle<()>,
}

impl Kubelet {
    /// Looks after the pods whose `app.kubernetes.io/name` is `app`, and after those beside a serving target.
    ///
    /// # Errors
    /// If there is no free port.
    pub fn start(pods: Api<Pod>, app: &str, statuses: Statuses) -> Result<Self> {
        // The same port at every address, as serving.port is one for all pods.
        let port = TcpListener::bind(("127.0.0.1", 0)).and_then(|one| one.local_addr());
        let port = port.context("no free port on the loopback interface")?.port();
        let (conduct, receiver) = watch::channel(Conduct::Honest);
        let watch = |labels: &str| watcher(pods.clone(), watcher::Config::default().labels(labels));
        let events = select(watch(&format!("app.kubernetes.io/name={app}")), watch(labels::CANARY)).boxed();
        let node = Node { pods, port, statuses, servers: HashMap::new(), known: HashMap::new() };
        let task = tokio::spawn(node.run(events, receiver));
        Ok(Self { conduct, port, task })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn set(&self, conduct: Conduct) {
        self.conduct.send_replace(conduct);
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Node {
    pods: Api<Pod>,
    port: u16,
    statuses: Statuses,
    servers: HashMap<String, Server>,
    known: HashMap<String, Pod>,
}

struct Server {
    address: IpAddr,
    reported: watch::Sender<Option<String>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Node {
    async fn run(
        mut self,
        mut events: BoxStream<'static, watcher::Result<watcher::Event<Pod>>>,
        mut conduct: watch::Receiver<Conduct>,
    ) {
        loop {
            let pods = tokio::select! {
                event = events.next() => match event {
                    Some(Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod))) => vec![pod],
                    Some(Ok(watcher::Event::Delete(pod))) => {
                        self.known.remove(&pod.name_any());
                        self.servers.remove(&pod.name_any());
                        continue;
                    }
                    Some(_) => continue,
                    None => return,
                },
                changed = conduct.changed() => match changed {
                    Ok(()) => self.known.values().cloned().collect(),
                    Err(_) => return,
                },
            };
            let conduct = conduct.borrow().clone();
            for pod in pods {
                if let Err(error) = self.look_after(&pod, &conduct).await {
                    eprintln!("the kubelet's stand-in cannot run pod {}: {error:#}", pod.name_any());
                }
                self.known.insert(pod.name_any(), pod);
            }
        }
    }

    async fn look_after(&mut self, pod: &Pod, conduct: &Conduct) -> Result<()> {
        if pod.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let bundle = pod.annotations().get(BUNDLE_ANNOTATION).cloned();
        let was_ready = is_ready(pod);
        let (ready, reported) = match conduct {
            Conduct::Honest => (bundle.is_some(), bundle),
            Conduct::Stuck => (was_ready, bundle),
            Conduct::Reports(digest) => (true, Some(digest.to_string())),
        };
        let name = pod.name_any();
        let given = address(pod);
        if !self.servers.contains_key(&name) {
            let Some(address) = given.or_else(|| (self.statuses == Statuses::Own).then(next_address)) else {
                return Ok(()); // Not bound to a node yet, or nothing runs there.
            };
            self.make_room_at(address).await;
            self.servers.insert(name.clone(), Server::start(address, self.port).await?);
        }
        let server = &self.servers[&name];
        server.reported.send_replace(reported);
        if ready == was_ready && given.is_some() {
            return Ok(());
        }
        if self.statuses == Statuses::Kubelets {
            return if ready { tell(&self.pods, &name, &[(hint::READY, "True")]).await } else { Ok(()) };
        }
        let container = pod.spec.as_ref().and_then(|spec| spec.containers.first());
        let container = container.context("the pod has no container")?.name.clone();
        patch(&self.pods, &name, running(&container, server.address, ready)).await
    }

    /// Ends the server of a pod that is gone: another one has its address now.
    async fn make_room_at(&mut self, address: IpAddr) {
        let gone = self.servers.extract_if(|_, server| server.address == address);
        for mut server in gone.map(|(_, server)| server).collect::<Vec<_>>() {
            server.task.abort();
            // It listens until it has ended.
            let _ = (&mut server.task).await;
        }
    }
}

impl Server {
    async fn start(address: IpAddr, port: u16) -> Result<Self> {
        let deadline = Instant::now() + ROOM;
        let listener = loop {
            match tokio::net::TcpListener::bind((address, port)).await {
                // It was the address of a pod of another application, of whose end that one's stand-in has not heard.
                Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                listener => {
                    break listener.with_context(|| format!("cannot listen on {address}:{port}"))?;
                }
            }
        };
        let (reported, receiver) = watch::channel(None);
        let router = Router::new().route("/v2/models/{name}", get(metadata)).with_state(receiver);
        let task = tokio::spawn(async move {
            // Ends only with the task.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { address, reported, task })
    }
}

/// The part of the Open Inference Protocol that the operator reads.
async fn metadata(State(reported): State<watch::Receiver<Option<String>>>) -> Json<Value> {
    let digest = reported.borrow().clone();
    Json(json!({"name": "digits", "versions": ["1"], "platform": "stand-in", "digest": digest}))
}

/// A loopback address that no other pod of this process has.
pub fn next_address() -> IpAddr {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let [high, low] = NEXT.fetch_add(1, Ordering::SeqCst).to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(127, 77, high, low))
}

/// The status of a pod whose container runs.
pub fn running(container: &str, address: IpAddr, ready: bool) -> Value {
    let now = Timestamp::now();
    let ready_status = if ready { "True" } else { "False" };
    json!({
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "startTime": now,
        "conditions": [
            {"type": "Ready", "status": ready_status, "lastTransitionTime": now},
            {"type": "ContainersReady", "status": ready_status, "lastTransitionTime": now},
        ],
        "containerStatuses": [{
            "name": container, "ready": ready, "started": true, "restartCount": 0, "image": "stand-in", "imageID": "",
            "state": {"running": {"startedAt": now}},
        }],
    })
}

/// Writes a pod's status. A pod that is gone needs none.
///
/// # Errors
/// If the API server refuses.
pub async fn patch(pods: &Api<Pod>, name: &str, status: Value) -> Result<()> {
    let patch = Patch::Strategic(json!({"status": status}));
    match pods.patch_status(name, &PatchParams::default(), &patch).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(|_| ()).context("cannot write the pod's status"),
    }
}

/// Tells a kubelet what it cannot see. One of a pod that is gone need not know.
///
/// # Errors
/// If the API server refuses.
pub async fn tell(pods: &Api<Pod>, name: &str, hints: &[(&str, &str)]) -> Result<()> {
    let annotations: BTreeMap<_, _> = hints.iter().copied().collect();
    let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
    match pods.patch_metadata(name, &PatchParams::default(), &patch).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(|_| ()).context("cannot annotate the pod"),
    }
}

fn address(pod: &Pod) -> Option<IpAddr> {
    pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}
