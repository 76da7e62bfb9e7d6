//! A real Argo CD, which syncs from a repository on this machine: its repo server and its application controller, with a
//! Redis between them.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{self, Stdio},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use k8s_openapi::{
    api::core::v1::Namespace, apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams},
    core::GroupVersionKind,
    runtime::{
        wait::{Condition as _, conditions},
        watcher,
    },
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    task::{JoinHandle, spawn_blocking},
};
use xtask::{
    cmd,
    setup::{self, argocd},
};

use crate::{Server, operator::free_port, place::apply, rights, server::repository, wait};

/// Where Argo CD lives.
pub const NAMESPACE: &str = "argocd";

/// The service account that applies what is in Git, as an installation names it.
const ACCOUNT: &str = "argocd-application-controller";
/// Who that is to the API server.
pub const USER: &str = "system:serviceaccount:argocd:argocd-application-controller";

/// Whoever commits.
const WHO: [(&str, &str); 4] = [
    ("GIT_AUTHOR_NAME", "platform"),
    ("GIT_AUTHOR_EMAIL", "platform@example.org"),
    ("GIT_COMMITTER_NAME", "platform"),
    ("GIT_COMMITTER_EMAIL", "platform@example.org"),
];

/// A repository with one branch, `main`, and a folder in which it is checked out.
pub struct Repository {
    files: TempDir,
}

impl Repository {
    /// # Errors
    /// If git is missing.
    pub fn new() -> Result<Self> {
        let files = tempfile::tempdir().context("cannot create a directory")?;
        let new = Self { files };
        new.git(&["init", "--quiet", "--initial-branch=main"])?;
        // Others push to it, and what they push is there.
        new.git(&["config", "receive.denyCurrentBranch", "updateInstead"])?;
        Ok(new)
    }

    /// What Argo CD calls it.
    pub fn url(&self) -> String {
        format!("file://{}", self.files.path().display())
    }

    /// Writes a manifest; it counts with the next commit. JSON is YAML.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, path: &str, manifest: &Value) -> Result<()> {
        let file = self.files.path().join(path);
        fs::create_dir_all(file.parent().context("a path in a folder")?)?;
        Ok(fs::write(file, serde_json::to_string_pretty(manifest)?)?)
    }

    /// Copies a folder of this repository.
    ///
    /// # Errors
    /// If it cannot be copied.
    pub fn copy(&self, folder: &str) -> Result<()> {
        let into = self.files.path().join(folder);
        fs::create_dir_all(into.parent().context("a path in a folder")?)?;
        cmd::output(process::Command::new("cp").arg("-r").arg(repository(folder)).arg(into))?;
        Ok(())
    }

    /// # Errors
    /// If it is not there.
    pub fn remove(&self, path: &str) -> Result<()> {
        Ok(fs::remove_file(self.files.path().join(path))?)
    }

    /// Everything as it is now.
    ///
    /// # Errors
    /// If nothing changed.
    pub fn commit(&self, message: &str) -> Result<()> {
        self.git(&["add", "--all"])?;
        self.git(&["commit", "--quiet", "--message", message])
    }

    /// Runs a script of somebody's CI in a working copy of its own, with `kubectl` at hand. Returns what it said.
    ///
    /// # Errors
    /// If it fails; the message has what it said.
    pub fn run_in_a_clone(&self, script: &Path, args: &[&str], server: &Server) -> Result<String> {
        let clone = tempfile::tempdir().context("cannot create a directory")?;
        let place = clone.path().to_string_lossy();
        self.git(&["clone", "--quiet", &self.url(), &place])?;
        let kubectl = setup::kubernetes::binaries()?;
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", kubectl.display());
        let mut command = process::Command::new(script);
        command
            .args(args)
            .current_dir(clone.path())
            .envs(WHO)
            .env("PATH", path)
            .env("KUBECONFIG", server.api.kubeconfig_path());
        cmd::output(&mut command)
    }

    fn git(&self, args: &[&str]) -> Result<()> {
        let mut git = process::Command::new("git");
        git.current_dir(self.files.path()).envs(WHO).args(["-c", "commit.gpgsign=false"]).args(args);
        cmd::output(&mut git).map(|_| ())
    }
}

/// What an Application said at some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub application: String,
    /// `Synced`, `OutOfSync`, or nothing yet.
    pub sync: String,
    /// The commit that it is compared with.
    pub revision: String,
    pub health: String,
}

/// All of it. Ends when it is dropped.
pub struct ArgoCd {
    _processes: [Child; 3],
    client: Client,
    seen: Arc<Mutex<Vec<Seen>>>,
    watch: JoinHandle<()>,
    files: TempDir,
}

impl Drop for ArgoCd {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl ArgoCd {
    /// With what its installation brings, but its web pages and its users.
    ///
    /// # Errors
    /// If a program cannot be had, or the API server refuses what it needs.
    pub async fn start(server: &Server) -> Result<Self> {
        let programs = spawn_blocking(|| {
            Ok::<_, anyhow::Error>((argocd::binary()?, argocd::redis()?, argocd::custom_resources()?))
        });
        let (program, redis, crds) = programs.await??;
        install(server, &crds).await?;
        let files = tempfile::tempdir().context("cannot create a directory")?;
        let (cache, repositories) = (free_port()?, free_port()?);
        let kubeconfig = rights::kubeconfig_of(server, NAMESPACE, ACCOUNT).await?;
        let kubeconfig = rights::write(&kubeconfig, files.path(), "kubeconfig")?;
        let stand = Stand { program, kubeconfig, folder: files.path(), server };
        let redis = stand.spawn(
            "redis",
            redis,
            &["--bind", "127.0.0.1", "--port", &cache.to_string(), "--save", "", "--appendonly", "no"],
        )?;
        let cache = format!("--redis=127.0.0.1:{cache}");
        let repo_server = stand.component(
            "repo-server",
            &[
                &cache,
                "--address=127.0.0.1",
                &format!("--port={repositories}"),
                "--metrics-address=127.0.0.1",
                &format!("--metrics-port={}", free_port()?),
                "--disable-tls",
            ],
        )?;
        let controller = stand.component(
            "application-controller",
            &[
                &cache,
                &format!("--repo-server=127.0.0.1:{repositories}"),
                "--repo-server-plaintext",
                &format!("--metrics-port={}", free_port()?),
                "--namespace",
                NAMESPACE,
                "--persist-resource-health",
            ],
        )?;
        let client = server.client.clone();
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let watch = tokio::spawn(note(applications(&client), seen.clone()));
        Ok(Self { _processes: [redis, repo_server, controller], client, seen, watch, files })
    }

    /// The Application as soon as it `is` as described by `what`.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn until(&self, name: &str, what: &str, is: impl Fn(&Value) -> bool) -> Result<Value> {
        let all = applications(&self.client);
        let ask = async || Ok(all.get(name).await?.data);
        let found = wait::until_answer(&format!("{name}: {what}"), ask, |data: &Value| is(data)).await;
        found.with_context(|| self.logs())
    }

    /// The Application as soon as it is synced, and of this health.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn is(&self, name: &str, health: &str) -> Result<Value> {
        let what = format!("it is Synced and {health}");
        self.until(name, &what, |data| {
            data["status"]["sync"]["status"] == "Synced" && data["status"]["health"]["status"] == health
        })
        .await
    }

    /// Looks at the repository now, as `argocd app get --refresh` does, and returns once it has looked.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn refresh(&self, name: &str) -> Result<()> {
        let asked = json!({"metadata": {"annotations": {"argocd.argoproj.io/refresh": "normal"}}});
        let all = applications(&self.client);
        all.patch(name, &PatchParams::default(), &Patch::Merge(asked)).await?;
        let ask = async || Ok(all.get(name).await?.annotations().contains_key("argocd.argoproj.io/refresh"));
        wait::until_answer(&format!("{name} was looked at"), ask, |asked| !asked).await?;
        Ok(())
    }

    /// Syncs now, as `argocd app sync` does, and returns once it has ended well.
    ///
    /// # Errors
    /// If it does not.
    pub async fn sync(&self, name: &str) -> Result<()> {
        let all = applications(&self.client);
        let now = all.get(name).await?.data;
        // Two may end within a second.
        let last = |data: &Value| data["status"]["history"].as_array().and_then(|all| all.last().cloned());
        let before = last(&now);
        let options = &now["spec"]["syncPolicy"]["syncOptions"];
        let operation =
            json!({"operation": {"sync": {"syncOptions": options}, "initiatedBy": {"username": "platform"}}});
        all.patch(name, &PatchParams::default(), &Patch::Merge(operation)).await?;
        let done = self.until(name, "the sync is over", |data| {
            data["operation"].is_null()
                && data["status"]["operationState"]["phase"] != "Running"
                && last(data) != before
        });
        let state = done.await?["status"]["operationState"].take();
        ensure!(state["phase"] == "Succeeded", "the sync of {name}: {state}");
        Ok(())
    }

    /// # Errors
    /// If the API server does not answer.
    pub async fn has(&self, name: &str) -> Result<bool> {
        Ok(applications(&self.client).get_opt(name).await?.is_some())
    }

    /// Everything that an Application has applied, as it is now.
    ///
    /// # Errors
    /// If something of it is not there.
    pub async fn objects(&self, name: &str) -> Result<Vec<DynamicObject>> {
        let data = applications(&self.client).get(name).await?.data;
        let mut objects = Vec::new();
        for one in data["status"]["resources"].as_array().into_iter().flatten() {
            let text = |key: &str| one[key].as_str().unwrap_or_default();
            let kind = GroupVersionKind::gvk(text("group"), text("version"), text("kind"));
            let resource = ApiResource::from_gvk(&kind);
            let api = match one["namespace"].as_str() {
                Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
                None => Api::<DynamicObject>::all_with(self.client.clone(), &resource),
            };
            objects.push(api.get(text("name")).await.with_context(|| format!("{name} has applied {one}"))?);
        }
        Ok(objects)
    }

    /// What an Application said, in order.
    pub fn seen(&self, application: &str) -> Vec<Seen> {
        let all = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter(|seen| seen.application == application).cloned().collect()
    }

    fn logs(&self) -> String {
        let log = |name| cmd::tail(&self.files.path().join(format!("{name}.log")));
        format!(
            "--- repo-server\n{}\n--- application-controller\n{}",
            log("repo-server"),
            log("application-controller")
        )
    }
}

/// The Applications of this Argo CD.
pub fn applications(client: &Client) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("argoproj.io", "v1alpha1", "Application");
    Api::namespaced_with(client.clone(), NAMESPACE, &ApiResource::from_gvk(&kind))
}

/// The health of one resource of an Application.
pub fn health<'a>(application: &'a Value, kind: &str, name: &str) -> &'a Value {
    let resources = application["status"]["resources"].as_array();
    let found = resources.into_iter().flatten().find(|one| one["kind"] == kind && one["name"] == name);
    found.map_or(&Value::Null, |one| &one["health"])
}

struct Stand<'a> {
    program: PathBuf,
    kubeconfig: PathBuf,
    folder: &'a Path,
    server: &'a Server,
}

impl Stand<'_> {
    fn component(&self, name: &str, args: &[&str]) -> Result<Child> {
        let mut command = process::Command::new(&self.program);
        command.arg(name);
        let home = self.folder.join(name);
        fs::create_dir_all(&home)?;
        let path = std::env::var("PATH").unwrap_or_default();
        let helm = self.server.helm.parent().context("Helm lies in a folder")?;
        command
            .env("PATH", format!("{}:{path}", helm.display()))
            .env("HOME", &home)
            .env("TMPDIR", &home)
            .env("KUBECONFIG", &self.kubeconfig)
            // It runs beside the cluster, with the same rights as in it.
            .env("ARGOCD_FAKE_IN_CLUSTER", "true")
            .env("ARGOCD_GPG_ENABLED", "false")
            .env("ARGOCD_RECONCILIATION_TIMEOUT", "5s")
            .env("ARGOCD_RECONCILIATION_JITTER", "0s");
        self.spawn(name, command, args)
    }

    fn spawn(&self, name: &str, command: process::Command, args: &[&str]) -> Result<Child> {
        let log = File::create(self.folder.join(format!("{name}.log")))?;
        let mut command = Command::from(command);
        command.args(args).current_dir(self.folder).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        command.kill_on_drop(true).spawn().with_context(|| format!("cannot start {name}"))
    }
}

/// What an installation of Argo CD brings: definitions, a namespace, its settings, and the project `default`.
async fn install(server: &Server, crds: &[PathBuf]) -> Result<()> {
    for file in crds {
        server.api.kubectl(&["apply", "--server-side", "-f", &file.to_string_lossy()])?;
    }
    let definitions: Api<CustomResourceDefinition> = Api::all(server.client.clone());
    for name in ["applications.argoproj.io", "appprojects.argoproj.io"] {
        let is_served =
            |one: &CustomResourceDefinition| conditions::is_crd_established().matches_object(Some(one));
        wait::until(&definitions, name, "it is served", is_served).await?;
    }
    let namespaces: Api<Namespace> = Api::all(server.client.clone());
    let namespace = json!({"metadata": {"name": NAMESPACE}});
    namespaces.create(&PostParams::default(), &serde_json::from_value(namespace)?).await?;
    let labels = json!({"app.kubernetes.io/part-of": "argocd"});
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "argocd-secret", "labels": labels},
        "stringData": {"server.secretkey": "of no server"},
    });
    let anything = json!([{"group": "*", "kind": "*"}]);
    let project = json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "AppProject", "metadata": {"name": "default"},
        "spec": {
            "sourceRepos": ["*"], "destinations": [{"namespace": "*", "server": "*"}],
            "clusterResourceWhitelist": anything,
        },
    });
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT}});
    for manifest in [secret, project, account] {
        apply(&server.client, NAMESPACE, &manifest).await?;
    }
    let group = "rbac.authorization.k8s.io";
    let binding = json!({
        "apiVersion": format!("{group}/v1"), "kind": "ClusterRoleBinding", "metadata": {"name": ACCOUNT},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": NAMESPACE}],
    });
    apply(&server.client, None, &binding).await?;
    Ok(())
}

/// Notes every change of what Applications say.
async fn note(all: Api<DynamicObject>, seen: Arc<Mutex<Vec<Seen>>>) {
    let mut events = Box::pin(watcher(all, watcher::Config::default()));
    while let Some(event) = events.next().await {
        let Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) = event else { continue };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let status = &object.data["status"];
        let now = Seen {
            application: object.name_any(),
            sync: text(&status["sync"]["status"]),
            revision: text(&status["sync"]["revision"]),
            health: text(&status["health"]["status"]),
        };
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let last = seen.iter().rev().find(|seen| seen.application == now.application);
        if last != Some(&now) {
            seen.push(now);
        }
    }
}
