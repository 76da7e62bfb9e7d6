//! Command line. Every flag can be given by an environment variable instead.

use std::{net::SocketAddr, path::PathBuf};

use axum::http::{Uri, uri::Scheme};
use clap::{Parser, ValueEnum};
use k8s_openapi::api::core::v1::{EnvVar, Volume};
use lethe_core::Installation;

use crate::keeping::Keeping;

/// Name of the store's volume in trainer pods.
const VOLUME_NAME: &str = "store";

/// The Lethe operator: keeps diffusion models compliant with what they had to forget.
#[derive(Clone, Debug, Parser)]
#[command(name = "lethe-operator", version)]
pub struct Args {
    /// URI of the content-addressed store, as the operator and the trainer pods see it.
    #[arg(long, env = "LETHE_STORE", default_value = "file:///artifacts")]
    pub store: String,

    /// Volume source that holds the store, as JSON, for example
    /// {"persistentVolumeClaim":{"claimName":"lethe-store"}}. Mounted into every trainer pod.
    #[arg(long, env = "LETHE_STORE_VOLUME", value_parser = parse_volume)]
    pub store_volume: Option<Volume>,

    /// Where trainer pods mount the store's volume.
    #[arg(long, env = "LETHE_STORE_MOUNT_PATH", default_value = "/artifacts")]
    pub store_mount_path: String,

    /// A variable for every trainer pod, as NAME=VALUE, that says where a remote store is, for example
    /// AWS_ENDPOINT_URL=https://s3.example.org. The operator has it in its own environment. May be given several times.
    #[arg(long, value_parser = parse_variable)]
    pub store_env: Vec<EnvVar>,

    /// Secret with the credentials for a remote store, mounted into every trainer pod: a key for each variable, such as
    /// AWS_ACCESS_KEY_ID. It must be in the namespace of the pod.
    #[arg(long, env = "LETHE_STORE_CREDENTIALS_SECRET")]
    pub store_credentials_secret: Option<String>,

    /// ServiceAccount of every trainer pod, for a remote store that knows pods by it. Its token for the API server is not
    /// mounted.
    #[arg(long, env = "LETHE_STORE_SERVICE_ACCOUNT")]
    pub store_service_account: Option<String>,

    /// Ed25519 key in PEM (PKCS#8), as openssl genpkey -algorithm ed25519 writes it. With it, what is measured of a candidate is
    /// signed, and nothing is rolled out that has no such signature. The store must be writable then.
    #[arg(long, env = "LETHE_SIGNING_KEY", value_name = "FILE")]
    pub signing_key: Option<PathBuf>,

    /// One or more public keys in PEM whose signatures count, that of --signing-key among them. That alone if absent.
    #[arg(long, env = "LETHE_TRUSTED_KEYS", value_name = "FILE", requires = "signing_key")]
    pub trusted_keys: Option<PathBuf>,

    /// URI of the folder of the audit log, which must exist and be writable, for example file:///artifacts/log. With it, what is
    /// done and decided is written down before and after, and nothing is put into service while that is not possible.
    #[arg(long, env = "LETHE_AUDIT_LOG", value_name = "URI", requires = "signing_key")]
    pub audit_log: Option<String>,

    /// Name of the audit log, and of the key in its signatures: a URL without its scheme, such as lethe.dev/studio. It must
    /// not change as long as the log is kept.
    #[arg(long, env = "LETHE_AUDIT_LOG_ORIGIN", value_name = "NAME", default_value = "lethe.dev/log", value_parser = parse_origin)]
    pub audit_log_origin: String,

    /// After how many seconds all of the audit log is read again, to see that nothing of it was changed or taken out. 0: never.
    #[arg(long, env = "LETHE_AUDIT_LOG_CHECK_SECONDS", default_value_t = 86_400)]
    pub audit_log_check_seconds: u32,

    /// Namespaces to work in, separated by commas. All of them if empty.
    #[arg(long, env = "LETHE_WATCH_NAMESPACES", value_delimiter = ',')]
    pub watch_namespaces: Vec<String>,

    /// Address of /metrics, /healthz and /readyz.
    #[arg(long, env = "LETHE_METRICS_BIND", default_value = "0.0.0.0:8080")]
    pub metrics_bind: SocketAddr,

    /// Namespace of the lease that decides which replica acts.
    #[arg(long, env = "LETHE_LEASE_NAMESPACE", default_value = "lethe-system")]
    pub lease_namespace: String,

    /// Name of that lease.
    #[arg(long, env = "LETHE_LEASE_NAME", default_value = "lethe-operator")]
    pub lease_name: String,

    /// Who this replica is in the lease: never the same for two living processes. Usually the pod's name.
    #[arg(long, env = "LETHE_IDENTITY", default_value_t = default_identity())]
    pub identity: String,

    /// How many objects of a kind are worked on at once, in each watched scope.
    #[arg(long, env = "LETHE_CONCURRENCY", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub concurrency: u16,

    /// After how many seconds the API server ends every watch, which is then opened again. Shorter than the time after
    /// which a load balancer drops an idle connection without a word. A watch of which nothing was heard three times
    /// as long is dead, and /healthz says so.
    #[arg(long, env = "LETHE_WATCH_SECONDS", default_value_t = 200, value_parser = clap::value_parser!(u32).range(5..=3_600))]
    pub watch_seconds: u32,

    /// How many bytes of memory this process may have, of which metrics tell. The chart gives it the limit of its container.
    #[arg(long, env = "LETHE_MEMORY_LIMIT", value_name = "BYTES")]
    pub memory_limit: Option<u64>,

    /// Read the Workloads of Kueue, if the cluster has it, to say why a Job waits in its queue. The Jobs wait in any case.
    #[arg(long, env = "LETHE_KUEUE")]
    pub kueue: bool,

    /// Say that the API server lets nobody create an UnlearnApproval or an UnlearnRequest in another's name, as the
    /// chart's admission policies do. Without it no approval counts.
    #[arg(long, env = "LETHE_APPROVALS_ARE_PROTECTED")]
    pub approvals_are_protected: bool,

    #[arg(long, env = "LETHE_LOG_FORMAT", value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,

    #[command(flatten)]
    pub traces: Traces,
}

/// Where traces go, if anywhere.
#[derive(Clone, Debug, clap::Args)]
pub struct Traces {
    /// URL of a collector that takes traces by OTLP over HTTP, for example http://otel-collector.observability:4318. No trace is
    /// made without.
    #[arg(long, env = "LETHE_TRACE_ENDPOINT", value_name = "URL", value_parser = parse_collector)]
    pub trace_endpoint: Option<String>,

    /// How many of all looks at objects are traced: 1 for all of them, 0.01 for one in a hundred.
    #[arg(long, env = "LETHE_TRACE_RATIO", value_name = "SHARE", default_value_t = 1.0, value_parser = parse_share)]
    pub trace_ratio: f64,
}

impl Traces {
    /// A variable that is empty names none.
    pub fn collector(&self) -> Option<&str> {
        self.trace_endpoint.as_deref().filter(|url| !url.is_empty())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Json,
    Text,
}

impl Args {
    /// What is added to every trainer pod.
    pub fn installation(&self) -> Installation {
        let volume = self.store_volume.clone();
        Installation {
            store: self.store.clone(),
            store_volume: volume.map(|volume| (volume, self.store_mount_path.clone())),
            store_env: self.store_env.clone(),
            store_credentials: self.store_credentials_secret.clone(),
            store_account: self.store_service_account.clone(),
            signs: self.signing_key.is_some(),
        }
    }

    /// Why trainer pods would not find a store on a volume, if they would not.
    pub fn store_is_out_of_reach(&self) -> Option<String> {
        let path = self.store.strip_prefix("file://")?;
        let mount = self.store_mount_path.trim_end_matches('/');
        if self.store_volume.is_none() {
            return Some(format!("--store is {}, but there is no --store-volume to mount", self.store));
        }
        let below = path.strip_prefix(mount).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        (!below).then(|| format!("--store is {}, but the volume is mounted at {mount}", self.store))
    }

    /// Where and how the audit log is kept, if it is.
    pub fn keeping(&self) -> Option<Keeping> {
        let (uri, key) = (self.audit_log.clone()?, self.signing_key.clone()?);
        let (origin, trusted) = (self.audit_log_origin.clone(), self.trusted_keys.clone());
        Some(Keeping { uri, origin, key, trusted, replica: self.identity.clone() })
    }

    /// The watched namespaces, each once; one `None` stands for all of them.
    pub fn scopes(&self) -> Vec<Option<String>> {
        let mut names: Vec<_> = self
            .watch_namespaces
            .iter()
            .map(|name| name.trim().to_owned())
            .filter(|n| !n.is_empty())
            .collect();
        names.sort();
        names.dedup();
        if names.is_empty() { vec![None] } else { names.into_iter().map(Some).collect() }
    }
}

/// A volume source is a volume without its name.
fn parse_volume(json: &str) -> Result<Volume, String> {
    let mut value: serde_json::Value =
        serde_json::from_str(json).map_err(|e| format!("it is not JSON: {e}"))?;
    let Some(source) = value.as_object_mut() else {
        return Err("it is not a JSON object".into());
    };
    if source.len() != 1 || source.contains_key("name") {
        return Err("it must be one volume source, for example {\"emptyDir\":{}}".into());
    }
    let kind = source.keys().next().cloned().unwrap_or_default();
    source.insert("name".into(), VOLUME_NAME.into());
    let volume: Volume = serde_json::from_value(value).map_err(|e| e.to_string())?;
    if volume == (Volume { name: VOLUME_NAME.into(), ..Volume::default() }) {
        return Err(format!("{kind:?} is not a volume source of Kubernetes"));
    }
    Ok(volume)
}

fn parse_variable(text: &str) -> Result<EnvVar, String> {
    let (name, value) = text.split_once('=').ok_or("it must be NAME=VALUE")?;
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || !name.chars().all(is_name) {
        return Err(format!("{name:?} is not the name of a variable"));
    }
    Ok(EnvVar { name: name.into(), value: Some(value.into()), value_from: None })
}

fn parse_collector(url: &str) -> Result<String, String> {
    if url.trim_end_matches('/').ends_with("/v1/traces") {
        return Err("it must be without /v1/traces, which is added to it".into());
    }
    let parsed: Option<Uri> = url.parse().ok();
    let is_http =
        |uri: &Uri| uri.scheme().is_some_and(|scheme| [Scheme::HTTP, Scheme::HTTPS].contains(scheme));
    match url.is_empty() || parsed.as_ref().is_some_and(is_http) {
        true => Ok(url.into()),
        false => Err("it must be a URL such as http://otel-collector.observability:4318".into()),
    }
}

fn parse_share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| "it is no number".to_owned())?;
    (0.0..=1.0).contains(&share).then_some(share).ok_or_else(|| "it must be from 0 to 1".into())
}

fn parse_origin(name: &str) -> Result<String, String> {
    lethe_transparency::note::check_name(name).map_err(|error| error.to_string())?;
    Ok(name.into())
}

/// The host's name (in a pod: the pod's name), or else something that no other process has.
fn default_identity() -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "lethe".into());
    format!("{host}-{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(flags: &[&str]) -> Result<Args, String> {
        let all = std::iter::once("lethe-operator").chain(flags.iter().copied());
        Args::try_parse_from(all).map_err(|e| e.to_string())
    }

    #[test]
    fn a_claim_becomes_a_volume_of_every_trainer_pod() {
        let claim = r#"--store-volume={"persistentVolumeClaim":{"claimName":"bundles"}}"#;
        let installation = parse(&[claim, "--store-mount-path=/data"]).unwrap().installation();
        let (volume, path) = installation.store_volume.unwrap();
        assert_eq!(volume.persistent_volume_claim.unwrap().claim_name, "bundles");
        assert_eq!((volume.name.as_str(), path.as_str()), ("store", "/data"));
        assert!(parse(&[]).unwrap().installation().store_volume.is_none());
    }

    #[test]
    fn a_store_that_pods_would_not_find_is_noticed() {
        let reason = |flags: &[&str]| parse(flags).unwrap().store_is_out_of_reach();
        let volume = r#"--store-volume={"emptyDir":{}}"#;
        assert_eq!(reason(&[volume]), None);
        assert_eq!(reason(&[volume, "--store=file:///artifacts/team"]), None);
        assert_eq!(reason(&["--store=s3://bucket"]), None);
        assert!(reason(&[]).unwrap().contains("no --store-volume"));
        assert!(reason(&[volume, "--store=file:///artifacts2"]).unwrap().contains("mounted at /artifacts"));
    }

    #[test]
    fn what_is_not_one_volume_source_is_refused() {
        let bad = ["", "[]", "{}", "claim", r#"{"name":"x"}"#, r#"{"persistentVolume":{"claimName":"x"}}"#];
        for json in bad {
            assert!(parse(&[&format!("--store-volume={json}")]).is_err(), "{json}");
        }
        let error = parse(&[r#"--store-volume={"persistentVolume":{}}"#]).unwrap_err();
        assert!(error.contains("\"persistentVolume\" is not a volume source"), "{error}");
    }

    #[test]
    fn a_remote_store_is_named_to_trainer_pods_by_variables() {
        let flags = ["--store-env=AWS_REGION=eu", "--store-env=AWS_ENDPOINT_URL=http://s3/?a=b"];
        let env = parse(&flags).unwrap().installation().store_env;
        let pairs: Vec<_> = env.iter().map(|v| (v.name.as_str(), v.value.as_deref().unwrap())).collect();
        assert_eq!(pairs, [("AWS_REGION", "eu"), ("AWS_ENDPOINT_URL", "http://s3/?a=b")]);
        for bad in ["AWS_REGION", "=eu", "A B=c"] {
            assert!(parse(&[&format!("--store-env={bad}")]).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_log_is_signed_under_a_name_that_a_note_may_have() {
        assert!(parse(&[]).unwrap().keeping().is_none());
        let flags = ["--signing-key=/keys/a.pem", "--audit-log=s3://bucket/log"];
        let keeping = parse(&flags).unwrap().keeping().unwrap();
        assert_eq!((keeping.uri.as_str(), keeping.origin.as_str()), ("s3://bucket/log", "lethe.dev/log"));
        assert!(parse(&["--audit-log=s3://bucket/log"]).unwrap_err().contains("--signing-key"));
        assert!(
            parse(&[flags[0], flags[1], "--audit-log-origin=a b"]).unwrap_err().contains("name of a key")
        );
    }

    #[test]
    fn who_has_no_key_signs_nothing_and_trusts_nobody() {
        assert!(!parse(&[]).unwrap().installation().signs);
        assert!(parse(&["--signing-key=/keys/a.pem"]).unwrap().installation().signs);
        assert!(parse(&["--signing-key=/a", "--trusted-keys=/b"]).unwrap().trusted_keys.is_some());
        let error = parse(&["--trusted-keys=/keys/a.pem"]).unwrap_err();
        assert!(error.contains("--signing-key"), "{error}");
    }

    #[test]
    fn traces_go_to_a_url_or_nowhere() {
        assert_eq!(parse(&[]).unwrap().traces.collector(), None);
        assert_eq!(parse(&["--trace-endpoint="]).unwrap().traces.collector(), None);
        let some = parse(&["--trace-endpoint=http://otel:4318", "--trace-ratio=0.01"]).unwrap().traces;
        assert_eq!((some.collector(), some.trace_ratio), (Some("http://otel:4318"), 0.01));
        for bad in ["otel", "otel:4318", "grpc://otel:4317", "http://"] {
            let error = parse(&[&format!("--trace-endpoint={bad}")]).unwrap_err();
            assert!(error.contains("such as http://"), "{bad}: {error}");
        }
        let error = parse(&["--trace-endpoint=http://otel:4318/v1/traces/"]).unwrap_err();
        assert!(error.contains("without /v1/traces"), "{error}");
        for bad in ["-1", "1.1", "NaN", "all"] {
            assert!(parse(&[&format!("--trace-ratio={bad}")]).is_err(), "{bad}");
        }
    }

    #[test]
    fn no_namespace_means_all_and_none_is_watched_twice() {
        assert_eq!(parse(&[]).unwrap().scopes(), [None]);
        assert_eq!(parse(&["--watch-namespaces="]).unwrap().scopes(), [None]);
        let two = parse(&["--watch-namespaces=b, a,b"]).unwrap().scopes();
        assert_eq!(two, [Some("a".to_owned()), Some("b".to_owned())]);
    }
}
