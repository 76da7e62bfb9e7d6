//! Nodes that do not exist: kwok is their kubelet, and a real scheduler binds pods to them.
//!
//! kwok writes every status of a pod and of a node, and renews the leases. It runs nothing: what a trainer leaves is left by
//! [`Player`](super::play::Player), and a server's answers are given by [`Kubelet`](crate::kubelet::Kubelet). These two say
//! in annotations ([`hint`](crate::kubelet::hint)) what a kubelet would see of the containers.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, anyhow};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use kube::{Api, api::PostParams};
use serde_json::{Value, json};
use tokio::time::sleep;
use xtask::cluster::{apiserver::Process, config::flag};

use super::{
    AT_ONCE,
    measure::{memory, processor_time},
};
use crate::{Server, World, wait};

/// What kwok is told.
const RULES: &str = include_str!("kwok.yaml");
/// Of every node.
const GPUS: usize = 8;
/// Where pods have their addresses, and servers listen at them.
const PODS: &str = "127.77.0.1/16";
/// The claim that the operator was told of (`operator.rs`), as every pod mounts it.
const CLAIM: &str = "lethe-store";

/// The scheduler and kwok. Both end when this is dropped.
pub struct Nodes {
    processes: [Process; 2],
}

impl Nodes {
    /// Starts both, with nothing for them to do yet.
    ///
    /// # Errors
    /// If one of them does not start.
    pub fn start(server: &Server, kwok: &Path, scheduler_args: &[String]) -> Result<Self> {
        let scheduler = server.api.start_scheduler(scheduler_args)?;
        let file = |name: &str| server.api.dir().join(name);
        let (rules, kubeconfig) = (file("kwok.yaml"), file("kwok.kubeconfig"));
        fs::write(&rules, RULES).context("cannot write what kwok is told")?;
        // As an administrator, who is no service account: the audit log has nothing of what it does.
        fs::write(&kubeconfig, server.api.kubeconfig_for("kwok", Some("system:masters"))?)?;
        let args = [
            flag("config", rules.to_string_lossy()),
            flag("kubeconfig", kubeconfig.to_string_lossy()),
            "--manage-all-nodes".into(),
            flag("cidr", PODS),
            flag("node-ip", "127.0.0.1"),
        ];
        let kwok = server.api.start_beside("kwok", kwok, &args)?;
        Ok(Self { processes: [scheduler, kwok] })
    }

    /// Comes back when one of them has ended: it has no memory then.
    pub async fn ended(&self) -> anyhow::Error {
        loop {
            for process in &self.processes {
                if memory(process.id()).is_err() {
                    return anyhow!("{} has ended; its last lines:\n{}", process.name(), process.log_tail());
                }
            }
            sleep(Duration::from_secs(2)).await;
        }
    }

    /// Processor time that each of them has had, and its memory in MiB, by name.
    ///
    /// # Errors
    /// If one of them has ended.
    pub fn need(&self) -> Result<Vec<(&'static str, Duration, f64)>> {
        let of = |process: &Process| {
            let id = process.id();
            Ok((process.name(), processor_time(id)?, memory(id)?.now))
        };
        self.processes.iter().map(of).collect()
    }
}

/// Creates so many nodes and the volume that the pods of `world` mount. Returns once all of it is ready.
///
/// # Errors
/// If something is refused, or does not get ready.
pub async fn create(world: &World, count: usize) -> Result<()> {
    let nodes: Api<Node> = Api::all(world.client.clone());
    let created = (0..count).map(async |index| {
        let node = serde_json::from_value(node(index))?;
        nodes.create(&PostParams::default(), &node).await.context("a node is refused")
    });
    stream::iter(created).buffer_unordered(AT_ONCE).try_collect::<Vec<_>>().await?;
    let [volume, claim] = store(&world.store_folder().display().to_string(), &world.namespace);
    let volumes: Api<PersistentVolume> = Api::all(world.client.clone());
    volumes.create(&PostParams::default(), &serde_json::from_value(volume)?).await?;
    let claims = world.api::<PersistentVolumeClaim>();
    claims.create(&PostParams::default(), &serde_json::from_value(claim)?).await?;
    let bound = |claim: &PersistentVolumeClaim| {
        claim.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Bound"))
    };
    wait::until(&claims, CLAIM, "it is bound", bound).await?;
    for index in 0..count {
        wait::until(&nodes, &name(index), "pods may be bound to it", is_open).await?;
    }
    eprintln!("{count} nodes with {GPUS} GPUs each are ready");
    Ok(())
}

fn name(index: usize) -> String {
    format!("node-{index}")
}

/// As its kubelet registers it.
fn node(index: usize) -> Value {
    let name = name(index);
    let room = json!({"cpu": "96", "memory": "768Gi", "pods": "110", "nvidia.com/gpu": GPUS.to_string()});
    json!({
        "metadata": {
            "name": name,
            "labels": {
                "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
                "nvidia.com/gpu.present": "true",
            },
        },
        "status": {"capacity": room, "allocatable": room},
    })
}

/// The volume that holds the store, and the claim that pods name: the scheduler binds no pod whose claim is not bound.
fn store(folder: &str, namespace: &str) -> [Value; 2] {
    let (modes, size) = (json!(["ReadWriteMany"]), "100Gi");
    let volume = json!({
        "metadata": {"name": CLAIM},
        "spec": {
            "capacity": {"storage": size}, "accessModes": modes, "hostPath": {"path": folder},
            "claimRef": {"namespace": namespace, "name": CLAIM},
        },
    });
    let claim = json!({
        "metadata": {"name": CLAIM},
        "spec": {
            "accessModes": modes, "storageClassName": "", "volumeName": CLAIM,
            "resources": {"requests": {"storage": size}},
        },
    });
    [volume, claim]
}

/// Ready, and the node controller has seen it.
fn is_open(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    let is_ready = conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    is_ready && taints.is_none_or(Vec::is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{examples, kubelet::hint};

    fn rules() -> Vec<Value> {
        examples::documents(RULES).unwrap()
    }

    fn stage(name: &str) -> Value {
        rules().into_iter().find(|rule| rule["metadata"]["name"] == name).unwrap()
    }

    #[test]
    fn kwok_is_told_of_the_annotations_that_the_stand_ins_write() {
        let ready = &stage("pod-gets-ready")["spec"]["selector"]["matchAnnotations"];
        assert_eq!(*ready, json!({hint::READY: "True"}));
        let ends = stage("pod-ends");
        let condition = format!(".metadata.annotations[\"{}\"]", hint::EXIT_CODE);
        let conditions = ends["spec"]["selector"]["matchExpressions"].as_array().unwrap();
        assert!(conditions.iter().any(|one| one["key"] == condition.as_str()), "{conditions:?}");
        let status = ends["spec"]["next"]["statusTemplate"].as_str().unwrap();
        for annotation in [hint::EXIT_CODE, hint::MESSAGE] {
            assert!(
                status.contains(&format!("index .metadata.annotations \"{annotation}\"")),
                "{annotation}"
            );
        }
    }

    #[test]
    fn every_rule_is_about_pods_or_nodes_and_kwok_has_its_own_of_neither() {
        let stages: Vec<_> = rules().into_iter().filter(|rule| rule["kind"] == "Stage").collect();
        let of = |kind: &str| stages.iter().filter(|s| s["spec"]["resourceRef"]["kind"] == kind).count();
        // Of a kind without rules kwok goes by its own: every Job's pod would end at once, and say nothing.
        assert_eq!((of("Node"), of("Pod"), stages.len()), (2, 4, 6));
        for stage in &stages {
            let (name, next) = (&stage["metadata"]["name"], &stage["spec"]["next"]);
            let text = next["statusTemplate"].as_str().unwrap_or_default();
            assert_eq!(text.matches("{{").count(), text.matches("}}").count(), "{name}");
            assert!(!text.is_empty() || next["delete"] == true, "{name} does nothing");
        }
    }

    #[test]
    fn a_node_is_open_once_it_is_ready_and_nothing_keeps_pods_away() {
        let mut one = node(7);
        assert_eq!(one["status"]["allocatable"]["nvidia.com/gpu"], "8");
        let open = |node: &Value| is_open(&serde_json::from_value(node.clone()).unwrap());
        assert!(!open(&one), "nobody has said that it is ready");
        one["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]);
        assert!(open(&one));
        one["spec"] = json!({"taints": [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]});
        assert!(!open(&one));
    }

    #[test]
    fn the_claim_is_the_one_that_belongs_to_the_volume() {
        let [volume, claim] = store("/store", "models");
        assert_eq!(
            volume["spec"]["claimRef"],
            json!({"namespace": "models", "name": claim["metadata"]["name"]})
        );
        assert_eq!(claim["spec"]["volumeName"], volume["metadata"]["name"]);
        assert_eq!(claim["spec"]["accessModes"], volume["spec"]["accessModes"]);
    }
}
