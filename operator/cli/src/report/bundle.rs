//! The support bundle: what somebody who helps needs to see, in one archive.

use std::{collections::BTreeSet, fmt::Debug, path::Path};

use flate2::{Compression, write::GzEncoder};
use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::Deployment,
    batch::v1::Job,
    core::v1::{Event, Pod},
};
use kube::{
    Api, Resource, ResourceExt,
    api::{ListParams, LogParams},
    core::NamespaceResourceScope,
};
use lethe_api::v1alpha1::labels;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    log::{self, Head},
    redact::Redaction,
    write as write_file,
};
use crate::{
    args::{Format, Report},
    cluster::{self, Place},
    exit::{Exit, Result, Trouble},
    term,
    tree::Seen,
    write_data,
};

/// Of each container's log, so many of the last lines.
const LOG_LINES: i64 = 5_000;
/// Of a log, no more bytes.
const LOG_BYTES: i64 = 4 << 20;
/// Logs of no more pods.
const MOST_PODS: usize = 60;
/// How the chart marks what is its own.
const OPERATOR: &str = "app.kubernetes.io/name=lethe";

/// What goes into an archive, and what does not.
struct Bundle {
    redaction: Redaction,
    files: Vec<(String, Vec<u8>)>,
    left_out: Vec<String>,
    log: Option<Head>,
    /// Where the operator says that it keeps one.
    kept_log: Option<String>,
}

/// Gathers, redacts and writes.
pub(super) async fn write(place: &Place, seen: &Seen, report: &Report, out: &Path) -> Result<Exit> {
    let mut redaction = Redaction::new();
    redaction.learn(&seen.requests, &seen.approvals);
    let mut bundle =
        Bundle { redaction, files: Vec::new(), left_out: seen.unread.clone(), log: None, kept_log: None };
    bundle.objects(seen)?;
    bundle.work(place).await?;
    bundle.operator(place, &report.operator_namespace).await?;
    bundle.audit_log(report).await;
    bundle.about(place, report)?;
    let archive = archive(&bundle.files, Timestamp::now())?;
    write_file(out, &archive)?;
    match report.output.output {
        Format::Text => term::write(&bundle.words(out, archive.len()))?,
        other => write_data(&bundle.data(out, archive.len()), other)?,
    }
    Ok(Exit::Fine)
}

impl Bundle {
    /// What was written, and what was not.
    fn words(&self, out: &Path, bytes: usize) -> String {
        let mut text = format!("{}: {} files, {bytes} bytes\n", out.display(), self.files.len());
        if let Some(head) = &self.log {
            text += &format!("  {}\n", head.words());
        }
        for what in &self.left_out {
            text += &format!("  left out: {what}\n");
        }
        text + "Look at it before you hand it on: labels and names of objects are in it.\n"
    }

    fn data(&self, out: &Path, bytes: usize) -> Value {
        json!({
            "archive": out.display().to_string(),
            "files": self.files.len(),
            "bytes": bytes,
            "auditLog": self.log.as_ref().map(Head::about),
            "leftOut": self.left_out,
        })
    }

    /// Lethe's own objects.
    fn objects(&mut self, seen: &Seen) -> Result<()> {
        self.all(&seen.models)?;
        self.all(&seen.requests)?;
        self.all(&seen.approvals)?;
        self.all(&seen.policies)?;
        self.all(&seen.runs)?;
        self.all(&seen.cluster_policies)
    }

    fn all<K>(&mut self, objects: &[K]) -> Result<()>
    where
        K: Resource<DynamicType = ()> + ResourceExt + Serialize,
    {
        for object in objects {
            let mut value = serde_json::to_value(object)
                .map_err(|error| Trouble::unreachable(format!("an object cannot be written: {error}")))?;
            // A list leaves out what each of its items is.
            value["apiVersion"] = K::api_version(&()).into_owned().into();
            value["kind"] = K::kind(&()).into_owned().into();
            self.redaction.object(&mut value);
            let folder = object.namespace().unwrap_or_else(|| "of-the-cluster".into());
            let file = format!("objects/{folder}/{}.{}.yaml", K::plural(&()), object.name_any());
            self.yaml(file, &value)?;
        }
        Ok(())
    }

    fn yaml(&mut self, file: String, value: &Value) -> Result<()> {
        let text = serde_saphyr::to_string(value)
            .map_err(|error| Trouble::unreachable(format!("{file} cannot be written: {error}")))?;
        self.files.push((file, text.into_bytes()));
        Ok(())
    }

    /// Jobs and pods of the runs, their logs, and what happened to them.
    async fn work(&mut self, place: &Place) -> Result<()> {
        let managed = ListParams::default().labels(&format!("{}={}", labels::MANAGED_BY, labels::MANAGER));
        let jobs: Vec<Job> = self.list(&place.api(), &managed, "Jobs").await;
        self.all(&jobs)?;
        let pods: Vec<Pod> = self.list(&place.api(), &managed, "pods").await;
        self.all(&pods)?;
        self.logs(place, &pods).await;
        let events: Vec<Event> = self.list(&place.api(), &ListParams::default(), "events").await;
        let names: BTreeSet<String> =
            jobs.iter().map(ResourceExt::name_any).chain(pods.iter().map(ResourceExt::name_any)).collect();
        let is_ours = |event: &&Event| {
            let about = &event.involved_object;
            let version = about.api_version.as_deref().unwrap_or_default();
            version.starts_with("lethe.dev/") || about.name.as_ref().is_some_and(|name| names.contains(name))
        };
        let mut shown: Vec<Value> = events.iter().filter(is_ours).map(event).collect();
        shown.iter_mut().for_each(|event| self.redaction.object(event));
        self.yaml("events.yaml".into(), &Value::Array(shown))
    }

    /// The operator's Deployment, pods and logs.
    async fn operator(&mut self, place: &Place, namespace: &str) -> Result<()> {
        let home = Place { client: place.client.clone(), namespace: Some(namespace.to_owned()) };
        let own = ListParams::default().labels(OPERATOR);
        let what = format!("the operator in namespace {namespace} (--operator-namespace)");
        let known = self.left_out.len();
        let deployments: Vec<Deployment> = self.list(&home.api(), &own, &what).await;
        if deployments.is_empty() {
            if self.left_out.len() == known {
                self.left_out.push(format!("{what}: no Deployment with the label {OPERATOR} is there"));
            }
            return Ok(());
        }
        self.kept_log = deployments.iter().find_map(kept_log);
        self.all(&deployments)?;
        let pods: Vec<Pod> = self.list(&home.api(), &own, "the operator's pods").await;
        self.all(&pods)?;
        self.logs(&home, &pods).await;
        Ok(())
    }

    /// The head of the audit log, or how to have it, where the operator says that it keeps one.
    async fn audit_log(&mut self, report: &Report) {
        match log::head(report).await {
            Ok(Some(head)) => {
                self.files.push(("audit-log.checkpoint".into(), head.note.clone()));
                self.log = Some(head);
            }
            Ok(None) => {
                let kept = self.kept_log.take();
                let why = |uri: String| {
                    format!("the head of the audit log, which the operator keeps at {uri}: give --log")
                };
                self.left_out.extend(kept.map(why));
            }
            Err(why) => self.left_out.push(why),
        }
    }

    /// A list that may not be readable: then that is said.
    async fn list<K>(&mut self, api: &Api<K>, params: &ListParams, what: &str) -> Vec<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        match cluster::list_with(api, params).await {
            Ok(found) => found,
            Err(error) => {
                let why = crate::refusal::of(&format!("read {what}"), None, &error).message;
                self.left_out.push(why);
                vec![]
            }
        }
    }

    async fn logs(&mut self, place: &Place, pods: &[Pod]) {
        if pods.len() > MOST_PODS {
            self.left_out.push(format!("logs of {} more pods", pods.len() - MOST_PODS));
        }
        for pod in pods.iter().take(MOST_PODS) {
            let (name, namespace) =
                (pod.name_any(), pod.namespace().unwrap_or_else(|| place.one().to_owned()));
            let api: Api<Pod> = Api::namespaced(place.client.clone(), &namespace);
            for container in pod.spec.iter().flat_map(|spec| &spec.containers) {
                let params = LogParams {
                    container: Some(container.name.clone()),
                    tail_lines: Some(LOG_LINES),
                    limit_bytes: Some(LOG_BYTES),
                    timestamps: true,
                    ..LogParams::default()
                };
                match api.logs(&name, &params).await {
                    Ok(log) => {
                        let file = format!("logs/{namespace}/{name}.{}.log", container.name);
                        self.files.push((file, self.redaction.text(&log).into_bytes()));
                    }
                    Err(error) => {
                        let what = format!("read the log of pod {name}");
                        self.left_out.push(crate::refusal::of(&what, None, &error).message);
                    }
                }
            }
        }
    }

    /// What this is, and what is not in it.
    fn about(&mut self, place: &Place, report: &Report) -> Result<()> {
        let redacted = [
            "values of environment variables",
            "annotations of others than Lethe, and managed fields",
            "reasons that people gave for approvals and extensions",
            "what looks like a password, a token or a key in texts and logs",
        ];
        let never =
            ["Secrets", "ConfigMaps", "the store: bundles, records, pictures", "objects of other kinds"];
        let about = json!({
            "writtenBy": format!("kubectl-lethe {}", env!("CARGO_PKG_VERSION")),
            "at": Timestamp::now().to_string(),
            "of": place.words(),
            "model": report.model,
            "standIns": format!(
                "{} people and references of data subjects have stand-ins (person-..., subject-...): the same ones in the whole \
                 bundle, others in the next one",
                self.redaction.names()
            ),
            "leftOutOfWhatIsHere": redacted,
            "neverRead": never,
            "auditLog": self.log.as_ref().map(Head::about),
            "couldNotBeRead": self.left_out,
            "stillInIt": "labels that are to be forgotten, names of objects, images, nodes",
        });
        self.yaml("about.yaml".into(), &about)
    }
}

/// The audit log that an operator was told to keep.
fn kept_log(operator: &Deployment) -> Option<String> {
    let pod = operator.spec.as_ref()?.template.spec.as_ref()?;
    let mut args = pod.containers.iter().flat_map(|container| container.args.iter().flatten());
    args.find_map(|arg| arg.strip_prefix("--audit-log=")).map(str::to_owned)
}

/// An event without what only the API server needs.
fn event(event: &Event) -> Value {
    let last = event.last_timestamp.as_ref().map(|at| at.0);
    let last = last.or_else(|| event.event_time.as_ref().map(|at| at.0));
    let about = &event.involved_object;
    json!({
        "at": last.map(|at| at.to_string()), "type": event.type_, "reason": event.reason, "message": event.message,
        "kind": about.kind, "name": about.name, "namespace": about.namespace, "count": event.count,
    })
}

fn archive(files: &[(String, Vec<u8>)], now: Timestamp) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(u64::try_from(now.as_second()).unwrap_or_default());
        tar.append_data(&mut header, format!("lethe-report/{name}"), &bytes[..])?;
    }
    Ok(tar.into_inner()?.finish()?)
}
