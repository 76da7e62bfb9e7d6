//! Every decision of the operator, as pure functions: (what was observed, now) to
//! (status, effects, events, when to look again).
//!
//! There is no IO here, no async and no clock. The controllers observe, call one `decide` per kind,
//! and carry out what it returned: **the status first, then the effects in order**. Every effect is
//! idempotent, so an operator that dies anywhere in between is continued by its successor, which
//! observes again and decides again.
//!
//! What is observed may be old, with three exceptions. A decision about an object that has changed since
//! must be dropped whole, before its first effect. The absence of an object that is looked up by name must
//! be confirmed by the API server. And the serving target must not come from a cache.
//!
//! - [`request::decide`]: is the request acceptable, and where does it stand?
//! - [`model::decide`]: prepare, start a run, change serving, write the ledger. The one writer per lineage.
//! - [`run::decide`]: create Jobs, read their outcomes, judge the measurements.

#![forbid(unsafe_code)]

pub mod accept;
pub mod approval;
pub(crate) mod archive;
pub mod asked;
pub mod attempts;
pub(crate) mod audit;
pub(crate) mod base;
pub(crate) mod beside;
pub mod canary;
pub(crate) mod compliance;
pub mod conditions;
pub mod deadline;
pub mod duplicates;
pub mod evidence;
pub(crate) mod exposure;
pub mod findings;
pub mod forgetting;
pub mod history;
pub mod job;
pub mod job_state;
pub mod kueue;
pub mod model;
pub mod names;
mod outcome;
pub mod plans;
pub mod policy;
pub mod publish;
mod queue;
pub(crate) mod reference;
mod remedy;
pub mod request;
pub mod reuse;
pub mod rollout;
pub mod run;
pub mod schedule;
pub mod serving;
pub mod stall;
pub mod targets;
pub mod term;
pub mod told;
pub mod trail;
mod unlogged;
mod upkeep;
pub mod window;

pub use audit::asks_for_audits;

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        batch::v1::Job,
        core::v1::{ConfigMap, EnvVar, Service, Volume},
    },
    apimachinery::pkg::apis::meta::v1::Condition,
};
use lethe_api::{
    Digest,
    v1alpha1::{Audit, LedgerEntry, UnlearnRun},
};

/// What a controller is to do about one object.
#[derive(Clone, Debug)]
pub struct Decision<Status> {
    /// The whole status. Written only if it differs from the observed one.
    pub status: Status,
    /// To carry out in order, after the status was written.
    pub effects: Vec<Effect>,
    /// To publish, after the status was written.
    pub events: Vec<Event>,
    /// Look again after this long, even if nothing changes.
    pub recheck: Option<Duration>,
}

/// An external effect. Each is idempotent.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Create; "already exists" is success. Never re-applied.
    CreateRun(Box<UnlearnRun>),
    /// Create; "already exists" is success. Never re-applied.
    CreateConfigMap(Box<ConfigMap>),
    /// Create; "already exists" is success. Never re-applied: queues and admission change Jobs.
    CreateJob(Box<Job>),
    /// Delete the run's own Job in the background, or this very one; "not found" is success, and so is another one of that
    /// name.
    DeleteJob {
        name: String,
        uid: Option<String>,
    },
    /// Delete this very run in the background, and with it what it owns; "not found" is success, and so is another one of
    /// that name.
    DeleteRun {
        name: String,
        uid: String,
    },
    /// Set or remove the bundle annotation on the pod template of a Deployment, by server-side apply.
    PatchServing {
        deployment: String,
        bundle: Option<Digest>,
        change: Change,
    },
    /// Change how many pods a Deployment has.
    ScaleServing {
        deployment: String,
        replicas: i32,
    },
    /// Create; "already exists" is success. Never re-applied.
    CreateService(Box<Service>),
    /// Create; "already exists" is success. Never re-applied.
    CreateDeployment(Box<Deployment>),
    /// Say how many pods this very Deployment has, and add these labels to theirs. Refused if it has changed meanwhile.
    ShapeCanary {
        name: String,
        uid: String,
        labels: BTreeMap<String, String>,
        replicas: i32,
    },
    /// Delete this very Service; "not found" is success, and so is another one of that name.
    DeleteService {
        name: String,
        uid: String,
    },
    /// Delete this very Deployment in the background, and with it its pods; as above.
    DeleteDeployment {
        name: String,
        uid: String,
    },
    /// Write the `Promoted` condition of this very run, under a field manager of its own. Refused if another one has its name.
    MarkPromoted {
        run: String,
        uid: String,
        condition: Condition,
    },
    /// Keep the ledger of a model that is being deleted, in a ConfigMap that outlives it.
    ArchiveLedger(Box<ConfigMap>),
    /// Add the ledger of a model that is being deleted to a ConfigMap that holds another. Nothing in it is replaced.
    SetLedgerAside(Box<ConfigMap>),
    AddFinalizer,
    RemoveFinalizer,
}

/// Why what is served is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Something is to be served that was not before.
    RollOut,
    /// A roll-out did not come to its end: back to what was served before it.
    GoBack,
    /// Somebody else changed it: back to what should be served.
    SetBack,
    /// Nothing is to be served any more.
    TakeOut,
}

impl Effect {
    /// Puts something into service, or says that it is. **None of these is carried out before the audit log has its intent.** The
    /// others take out of service, put back, or work for people who wait: an audit log that cannot be written must not keep
    /// what leaks in service.
    pub fn puts_into_service(&self) -> bool {
        match self {
            Self::PatchServing { change, .. } => *change == Change::RollOut,
            Self::ScaleServing { replicas, .. } => *replicas > 0,
            Self::CreateService(_) | Self::CreateDeployment(_) | Self::ShapeCanary { .. } => true,
            Self::MarkPromoted { condition, .. } => condition.status == "True",
            Self::CreateRun(_)
            | Self::CreateConfigMap(_)
            | Self::CreateJob(_)
            | Self::DeleteJob { .. }
            | Self::DeleteRun { .. }
            | Self::DeleteService { .. }
            | Self::DeleteDeployment { .. }
            | Self::ArchiveLedger(_)
            | Self::SetLedgerAside(_)
            | Self::AddFinalizer
            | Self::RemoveFinalizer => false,
        }
    }

    /// Takes away what may be served, or changes it. One that fails is no reason to leave the others of a decision undone:
    /// a target must go back even if what is beside it may not be deleted, and the other way round.
    pub fn is_of_what_is_served(&self) -> bool {
        matches!(
            self,
            Self::PatchServing { .. }
                | Self::ScaleServing { .. }
                | Self::DeleteService { .. }
                | Self::DeleteDeployment { .. }
        )
    }
}

/// An event on the object that was decided about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub warning: bool,
    /// PascalCase, from a closed set.
    pub reason: String,
    pub note: String,
}

/// What the installation adds to every trainer pod.
#[derive(Clone, Debug, Default)]
pub struct Installation {
    /// URI of the content-addressed store, as the pods see it.
    pub store: String,
    /// The volume that holds it, and where it is mounted; none for a remote store.
    pub store_volume: Option<(Volume, String)>,
    /// Where a remote store is, as variables of its provider's tools. Nothing secret.
    pub store_env: Vec<EnvVar>,
    /// The Secret with the credentials for a remote store, in the pod's namespace: a key for each variable.
    pub store_credentials: Option<String>,
    /// The ServiceAccount whose identity a remote store knows. Its token for the API server is not mounted.
    pub store_account: Option<String>,
    /// Evidence is signed, and nothing is rolled out that it does not prove to have passed.
    pub signs: bool,
}

/// The finalizer that keeps a model until its ledger is archived.
pub const FINALIZER: &str = "lethe.dev/ledger";

/// How often a controller looks at something that sends no events (a pod's progress, a server's digest).
pub const POLL: Duration = Duration::from_secs(2);

/// The sooner of a look that is due in any case, if one is, and one at `then`.
pub(crate) fn look_at(then: Timestamp, now: Timestamp, recheck: Option<Duration>) -> Duration {
    let after = Duration::try_from(then.duration_since(now)).unwrap_or(POLL);
    recheck.map_or(after, |sooner| sooner.min(after))
}

/// A ledger beside its model, as kept in the archive ConfigMap.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ArchivedLedger {
    /// The base artifact that what honours the ledger descends from.
    pub base: Digest,
    pub entries: Vec<LedgerEntry>,
    /// What honours the ledger; absent if that is the bundle of its last entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// The run that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// How often that had changed before; of two that honour the same entries the later one counts.
    #[serde(default)]
    pub turn: u32,
    /// The audit that saw it show what it had to forget.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refuted: Option<Audit>,
}
