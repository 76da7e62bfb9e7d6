//! The Job of a stage and the ConfigMap that holds its plan.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        batch::v1::{
            Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement,
            PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule,
        },
        core::v1::{
            Capabilities, ConfigMap, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource,
            EnvVar, PodSecurityContext, PodSpec, PodTemplateSpec, ResourceRequirements, SeccompProfile,
            SecretVolumeSource, SecurityContext, Volume, VolumeMount,
        },
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{ObjectMeta, OwnerReference},
    },
};
use kube::{Resource, ResourceExt};
use lethe_api::{
    contract::{MADE_AGAIN, Progress, STORE_CREDENTIALS, exit},
    v1alpha1::{Stage, UnlearnRun, labels},
};

use crate::{Installation, kueue, names};

/// The container that trains and measures, in every pod that Lethe creates.
pub const CONTAINER: &str = "trainer";
/// User and group of every container (the `nonroot` of distroless images).
const NONROOT: i64 = 65532;
/// A checkpoint must fit in between SIGTERM and SIGKILL.
const GRACE_SECONDS: i64 = 60;
const PLAN_FILE: &str = "plan.json";
const PLAN_FOLDER: &str = "/etc/lethe";
/// The volume with the credentials for a remote store, and where it is mounted.
const CREDENTIALS: &str = "store-credentials";
const CREDENTIALS_FOLDER: &str = "/etc/lethe-store";

/// The ConfigMap that holds the plan of a stage, byte for byte.
pub fn config_map(run: &UnlearnRun, stage: Stage, plan: &str) -> ConfigMap {
    ConfigMap {
        metadata: metadata(run, stage),
        data: Some([(PLAN_FILE.to_owned(), plan.to_owned())].into()),
        immutable: Some(true),
        ..Default::default()
    }
}

/// The Job of a stage.
pub fn job(run: &UnlearnRun, stage: Stage, installation: &Installation) -> Job {
    let policy = &run.spec.policy.trainer;
    let queue = kueue::queue(run, stage);
    let mut metadata = metadata(run, stage);
    metadata.labels.get_or_insert_default().extend(kueue::job_labels(queue));
    Job {
        metadata,
        spec: Some(JobSpec {
            // Whoever runs the queue lets it go on. Until then it has no pod, whether or not anybody runs it.
            suspend: queue.map(|_| true),
            backoff_limit: Some(policy.backoff_limit),
            active_deadline_seconds: Some(policy.active_deadline_seconds),
            ttl_seconds_after_finished: Some(policy.ttl_seconds_after_finished),
            pod_failure_policy: Some(pod_failure_policy()),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta { labels: Some(job_labels(run, stage)), ..Default::default() }),
                spec: Some(pod(run, stage, installation)),
            },
            ..Default::default()
        }),
        status: None,
    }
}

/// Exit codes that no retry can change fail the Job at once; a pod that somebody took away does not count. One that is ended
/// since its Job was suspended has no condition that says so: only its exit code does.
fn pod_failure_policy() -> PodFailurePolicy {
    let any_of = |codes: &[i32]| PodFailurePolicyOnExitCodesRequirement {
        container_name: Some(CONTAINER.into()),
        operator: "In".into(),
        values: codes.to_vec(),
    };
    let disrupted =
        PodFailurePolicyOnPodConditionsPattern { type_: "DisruptionTarget".into(), status: "True".into() };
    PodFailurePolicy {
        rules: vec![
            PodFailurePolicyRule {
                action: "FailJob".into(),
                on_exit_codes: Some(any_of(&exit::FATAL)),
                on_pod_conditions: None,
            },
            PodFailurePolicyRule {
                action: "Ignore".into(),
                on_exit_codes: Some(any_of(&[exit::INTERRUPTED])),
                on_pod_conditions: None,
            },
            PodFailurePolicyRule {
                action: "Ignore".into(),
                on_exit_codes: None,
                on_pod_conditions: Some(vec![disrupted]),
            },
        ],
    }
}

fn pod(run: &UnlearnRun, stage: Stage, installation: &Installation) -> PodSpec {
    let policy = &run.spec.policy.trainer;
    let plan = Volume {
        name: "plan".into(),
        config_map: Some(ConfigMapVolumeSource {
            name: names::job(&run.name_any(), stage),
            ..Default::default()
        }),
        ..Default::default()
    };
    let tmp =
        Volume { name: "tmp".into(), empty_dir: Some(EmptyDirVolumeSource::default()), ..Default::default() };
    let store = installation.store_volume.as_ref().map(|(volume, _)| volume.clone());
    let credentials = installation.store_credentials.as_ref().map(|secret| Volume {
        name: CREDENTIALS.into(),
        secret: Some(SecretVolumeSource { secret_name: Some(secret.clone()), ..Default::default() }),
        ..Default::default()
    });
    PodSpec {
        restart_policy: Some("Never".into()),
        service_account_name: installation.store_account.clone(),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        node_selector: Some(policy.node_selector.clone()).filter(|map| !map.is_empty()),
        tolerations: Some(policy.tolerations.clone()).filter(|list| !list.is_empty()),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(NONROOT),
            run_as_group: Some(NONROOT),
            fs_group: Some(NONROOT),
            // Relabelling a large store at every pod's start would take minutes.
            fs_group_change_policy: Some("OnRootMismatch".into()),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".into(), localhost_profile: None }),
            ..Default::default()
        }),
        containers: vec![container(run, stage, installation)],
        volumes: Some([plan, tmp].into_iter().chain(store).chain(credentials).collect()),
        ..Default::default()
    }
}

fn container(run: &UnlearnRun, stage: Stage, installation: &Installation) -> Container {
    let policy = &run.spec.policy.trainer;
    let mount = |name: &str, path: &str, read_only| VolumeMount {
        name: name.into(),
        mount_path: path.into(),
        read_only: Some(read_only),
        ..Default::default()
    };
    let store = installation.store_volume.as_ref().map(|(volume, path)| mount(&volume.name, path, false));
    let credentials =
        installation.store_credentials.as_ref().map(|_| mount(CREDENTIALS, CREDENTIALS_FOLDER, true));
    Container {
        name: CONTAINER.into(),
        image: Some(policy.image.clone()),
        image_pull_policy: Some(policy.image_pull_policy.clone()),
        args: Some(vec![stage.as_str().into(), "--plan".into(), format!("{PLAN_FOLDER}/{PLAN_FILE}")]),
        env: Some(variables(run, stage, installation)).filter(|list| !list.is_empty()),
        ports: Some(vec![ContainerPort {
            name: Some("http".into()),
            container_port: Progress::PORT.into(),
            ..Default::default()
        }]),
        resources: Some(resources(policy.resources.clone(), stage)),
        termination_message_policy: Some("File".into()),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), add: None }),
            ..Default::default()
        }),
        volume_mounts: Some(
            [mount("plan", PLAN_FOLDER, true), mount("tmp", "/tmp", false)]
                .into_iter()
                .chain(store)
                .chain(credentials)
                .collect(),
        ),
        ..Default::default()
    }
}

fn variables(run: &UnlearnRun, stage: Stage, installation: &Installation) -> Vec<EnvVar> {
    let was_lost =
        run.status.as_ref().and_then(|status| status.job(stage)).is_some_and(|job| job.lost.is_some());
    let made_again =
        was_lost.then(|| EnvVar { name: MADE_AGAIN.into(), value: Some("1".into()), value_from: None });
    store_variables(installation).into_iter().chain(made_again).collect()
}

fn store_variables(installation: &Installation) -> Vec<EnvVar> {
    let folder = installation.store_credentials.as_ref().map(|_| EnvVar {
        name: STORE_CREDENTIALS.into(),
        value: Some(CREDENTIALS_FOLDER.into()),
        value_from: None,
    });
    installation.store_env.iter().cloned().chain(folder).collect()
}

/// An audit waits for a live server: it holds nothing that others queue for, such as GPUs.
fn resources(policy: ResourceRequirements, stage: Stage) -> ResourceRequirements {
    if stage != Stage::Audit {
        return policy;
    }
    // Extended resources have a domain in their name.
    let usual = |list: Option<BTreeMap<String, Quantity>>| {
        list.map(|list| list.into_iter().filter(|(name, _)| !name.contains('/')).collect())
    };
    ResourceRequirements { claims: None, limits: usual(policy.limits), requests: usual(policy.requests) }
}

fn metadata(run: &UnlearnRun, stage: Stage) -> ObjectMeta {
    ObjectMeta {
        name: Some(names::job(&run.name_any(), stage)),
        namespace: run.namespace(),
        labels: Some(job_labels(run, stage)),
        owner_references: owner(run).map(|owner| vec![owner]),
        ..Default::default()
    }
}

fn job_labels(run: &UnlearnRun, stage: Stage) -> BTreeMap<String, String> {
    [
        ("app.kubernetes.io/name", "lethe-trainer"),
        (labels::MANAGED_BY, labels::MANAGER),
        (labels::MODEL, &run.spec.model),
        (labels::RUN, &run.name_any()),
        (labels::STAGE, stage.as_str()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect()
}

/// A controller reference to `object`. It does not block the owner's deletion, which would need a right
/// on the owner's finalizers. None for an object that the API server has not named yet.
pub fn owner<K: Resource<DynamicType = ()>>(object: &K) -> Option<OwnerReference> {
    Some(OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: object.meta().name.clone()?,
        uid: object.meta().uid.clone()?,
        controller: Some(true),
        block_owner_deletion: None,
    })
}
