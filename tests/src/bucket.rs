//! A real S3 server on the loopback interface, which can be killed and started again.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::PathBuf,
    process::Stdio,
};

use anyhow::{Context, Result};
use lethe_store::Store;
use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
    sync::Mutex,
};
use xtask::setup::versitygw;

use crate::{operator::free_port, wait};

/// The bucket that is there.
const BUCKET: &str = "lethe";
const ACCESS: &str = "somebody";
const SECRET: &str = "not a secret: the server is the test's own";

/// The server with one bucket. Ends when this is dropped.
pub struct Bucket {
    port: u16,
    process: Mutex<Option<Child>>,
    files: TempDir,
}

impl Bucket {
    /// # Errors
    /// If the server does not start.
    pub async fn start() -> Result<Self> {
        let files = tempfile::tempdir().context("cannot create a directory")?;
        for folder in ["data/".to_owned() + BUCKET, "sidecar".into()] {
            fs::create_dir_all(files.path().join(folder))?;
        }
        let bucket = Self { port: free_port()?, process: Mutex::default(), files };
        bucket.come_back().await?;
        Ok(bucket)
    }

    /// Starts the server, on the port and the data that it had before.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn come_back(&self) -> Result<()> {
        let binary = tokio::task::block_in_place(versitygw::binary)?;
        let log = File::options().create(true).append(true).open(self.files.path().join("log"))?;
        let child = Command::new(binary)
            .env_clear()
            .env("ROOT_ACCESS_KEY", ACCESS)
            .env("ROOT_SECRET_KEY", SECRET)
            .args(["--quiet", "--port", &format!("127.0.0.1:{}", self.port), "posix", "--sidecar"])
            .args([self.files.path().join("sidecar"), self.data()])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start versitygw")?;
        *self.process.lock().await = Some(child);
        let answers = async || Ok(TcpStream::connect(("127.0.0.1", self.port)).await.is_ok());
        wait::until_answer("the S3 server answers", answers, |answers| *answers).await?;
        Ok(())
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// If it is not running.
    pub async fn die(&self) -> Result<()> {
        let child = self.process.lock().await.take();
        child.context("the S3 server is not running")?.kill().await.context("cannot kill it")
    }

    /// Where its buckets lie.
    pub fn data(&self) -> PathBuf {
        self.files.path().join("data")
    }

    /// Where that of the tests lies.
    pub fn folder(&self) -> PathBuf {
        self.data().join(BUCKET)
    }

    pub fn uri(&self) -> String {
        format!("s3://{BUCKET}/store")
    }

    /// Where it is.
    pub fn place(&self) -> BTreeMap<String, String> {
        let endpoint = format!("http://127.0.0.1:{}", self.port);
        let pairs =
            [("AWS_ENDPOINT_URL", &*endpoint), ("AWS_ALLOW_HTTP", "true"), ("AWS_REGION", "us-east-1")];
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    /// Who may use it.
    pub fn credentials(&self) -> BTreeMap<String, String> {
        let pairs = [("AWS_ACCESS_KEY_ID", ACCESS), ("AWS_SECRET_ACCESS_KEY", SECRET)];
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    /// All of it.
    pub fn variables(&self) -> BTreeMap<String, String> {
        self.place().into_iter().chain(self.credentials()).collect()
    }

    /// # Errors
    /// If the store cannot be opened.
    pub fn store(&self) -> Result<Store> {
        Ok(Store::open_with(&self.uri(), self.variables())?)
    }

    /// The same credentials as a Secret is mounted: a file for each.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn mounted_credentials(&self) -> Result<PathBuf> {
        let folder = self.files.path().join("credentials");
        fs::create_dir_all(&folder)?;
        for (name, value) in self.credentials() {
            fs::write(folder.join(name), format!("{value}\n"))?;
        }
        Ok(folder)
    }
}
