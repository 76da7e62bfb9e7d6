//! The API server that all scenarios of the API tier share.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use tempfile::TempDir;
use tokio::runtime::Handle;
use xtask::{
    cache, cargo,
    cluster::apiserver::{ApiServer, Options},
    setup,
};

use crate::{Tier, World};

/// Notes every request of a service account, which is to say: of the operators under test.
const AUDIT_POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  userGroups: ["system:serviceaccounts"]
- level: None
"#;

/// etcd, API server and controller manager, with the custom resources of Lethe.
pub struct Server {
    pub api: ApiServer,
    /// The administrator.
    pub client: Client,
    /// The operator's binary.
    pub operator: PathBuf,
    pub helm: PathBuf,
    files: TempDir,
}

impl Tier for Server {
    type World = World;

    const PARALLEL: usize = 6;
    const PATIENCE: Duration = Duration::from_secs(90);

    fn start() -> Result<Self> {
        Self::start_with(Vec::new())
    }

    async fn world(self: &Arc<Self>, name: &str) -> Result<World> {
        World::new(self.clone(), name).await
    }

    async fn diagnose(world: &World) -> String {
        let log = xtask::cmd::tail(&world.operator_log());
        format!("{}\n--- the operator's log\n{log}", world.diagnose().await)
    }
}

impl Server {
    /// With further flags of the controller manager.
    ///
    /// # Errors
    /// If something does not start.
    pub fn start_with(manager_args: Vec<String>) -> Result<Self> {
        let server = Self::without_definitions(Vec::new(), manager_args)?;
        server.define(&[repository("crds")])?;
        Ok(server)
    }

    /// One that refuses to begin a watch with what there is, as some versions do: lists have to be read page by page.
    ///
    /// # Errors
    /// If something does not start.
    pub fn that_streams_no_lists() -> Result<Self> {
        let server = Self::without_definitions(vec!["--feature-gates=WatchList=false".into()], Vec::new())?;
        server.define(&[repository("crds")])?;
        Ok(server)
    }

    /// One that knows nothing of Lethe.
    ///
    /// # Errors
    /// If something does not start.
    pub fn without_definitions(further_args: Vec<String>, manager_args: Vec<String>) -> Result<Self> {
        let operator = binary("lethe-operator", "LETHE_OPERATOR_BIN")?;
        let helm = setup::helm::binary()?;
        let files = tempfile::tempdir().context("cannot create a directory")?;
        let policy = files.path().join("audit.yaml");
        fs::write(&policy, AUDIT_POLICY).context("cannot write the audit policy")?;
        let log = audit_log(files.path());
        let audit = [
            format!("--audit-policy-file={}", policy.display()),
            format!("--audit-log-path={}", log.display()),
        ];
        let api = ApiServer::start(&Options {
            controller_manager: true,
            apiserver_args: audit.into_iter().chain(further_args).collect(),
            manager_args,
        })?;
        let client = Handle::current().block_on(client(Kubeconfig::read_from(api.kubeconfig_path())?))?;
        Ok(Self { api, client, operator, helm, files })
    }

    /// Installs the custom resources in these files and folders.
    ///
    /// # Errors
    /// If the API server refuses one.
    pub fn define(&self, crds: &[PathBuf]) -> Result<()> {
        let files: Vec<_> = crds.iter().map(|path| format!("--filename={}", path.display())).collect();
        let files = || files.iter().map(String::as_str);
        self.api.kubectl(&["apply", "--server-side"].into_iter().chain(files()).collect::<Vec<_>>())?;
        let wait = ["wait", "--for=condition=Established", "--timeout=60s"];
        self.api.kubectl(&wait.into_iter().chain(files()).collect::<Vec<_>>())?;
        Ok(())
    }

    /// The binary of `kubectl lethe`.
    ///
    /// # Errors
    /// If it is not there and cannot be built.
    pub fn cli(&self) -> Result<PathBuf> {
        cli()
    }

    pub fn audit_log(&self) -> PathBuf {
        audit_log(self.files.path())
    }
}

fn audit_log(files: &Path) -> PathBuf {
    files.join("audit.log")
}

/// A client with the rights of `kubeconfig`.
///
/// # Errors
/// If the kubeconfig cannot be used.
pub async fn client(kubeconfig: Kubeconfig) -> Result<Client> {
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// A path in this repository.
pub fn repository(path: &str) -> PathBuf {
    cache::workspace().join(path)
}

/// The program `kubectl-lethe`.
///
/// # Errors
/// If it cannot be built.
pub fn cli() -> Result<PathBuf> {
    binary("kubectl-lethe", "LETHE_CLI_BIN")
}

/// The program that the test runner has built, or else one that is built now.
fn binary(package: &str, variable: &str) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Ok(path.into());
    }
    let built = cargo::build(&cargo::Build { args: &["-p", package], ..Default::default() })?;
    let program = built.into_iter().find(|(name, _)| name == package);
    Ok(program.with_context(|| format!("cargo built no {package}"))?.1)
}
