//! One replica acts, the others wait with warm caches.
//!
//! The lease is an object of the API server, and every change of it names the resource version that it
//! replaces: of two replicas that reach for it at once, the API server refuses one. What is left is the
//! time between losing the lease and noticing. It is closed from both sides:
//!
//! - The holder counts from *before* it sent its last successful renewal, and holds nothing once
//!   [`VALID`] has passed. It asks [`Leadership::holds`] before every write, and waits for none longer
//!   than [`WRITE_TIMEOUT`].
//! - A waiting replica counts from when it *saw* the last renewal, which is later, and waits
//!   [`DURATION`], which is longer than both together.
//!
//! What this cannot rule out is a write that was sent in time and that the API server, or a webhook of it,
//! holds back for longer. For that, what is written names the version that it replaces, or has a name that
//! follows from what it is for, or is a field with one right value of the object with that uid. One write is none of
//! these: the archive of a ledger. A late one can put back an older ledger. As long as the model is there, its status
//! counts, and the next look writes the archive anew.
//!
//! Neither compares clocks of two machines. Whoever has lost the lease ends the process: what it had in
//! memory may be out of date.

use std::{future::Future, time::Duration};

use futures::{Stream, stream};
use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client, ResourceExt,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

/// How long a lease that is not renewed is respected.
pub const DURATION: Duration = Duration::from_secs(15);
/// How long the holder relies on a renewal.
pub const VALID: Duration = Duration::from_secs(10);
/// How long a write may take.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(4);
const RENEW_EVERY: Duration = Duration::from_secs(2);
/// How often a waiting replica looks: what is given back is not to lie there for long.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const CALL_TIMEOUT: Duration = Duration::from_secs(3);

const _: () = assert!(VALID.as_secs() + WRITE_TIMEOUT.as_secs() < DURATION.as_secs());
const _: () = assert!(RENEW_EVERY.as_secs() + CALL_TIMEOUT.as_secs() < VALID.as_secs());

/// Whether this replica may write. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Leadership {
    until: watch::Receiver<Option<Instant>>,
}

impl Leadership {
    pub fn holds(&self) -> bool {
        self.until.borrow().is_some_and(|until| Instant::now() < until)
    }

    /// One that is held until the other half says otherwise.
    #[cfg(test)]
    pub(crate) fn granted() -> (Self, watch::Sender<Option<Instant>>) {
        let (sender, until) = watch::channel(Some(Instant::now() + 3600 * RENEW_EVERY));
        (Self { until }, sender)
    }

    /// Whether somebody still reaches for the lease in this process.
    pub fn is_contested(&self) -> bool {
        self.until.has_changed().is_ok()
    }

    /// One item whenever the lease was acquired, and one now if it is held. A renewal that came too late is one as well: until
    /// then it was not held, and whoever looked at something did nothing.
    pub fn acquisitions(&self) -> impl Stream<Item = ()> + Send + 'static {
        stream::unfold((self.until.clone(), None::<Instant>), |(mut until, mut held)| async move {
            loop {
                let now = *until.borrow_and_update();
                let was_lost = held.is_none_or(|held| Instant::now() >= held);
                held = now;
                if now.is_some() && was_lost {
                    return Some(((), (until, held)));
                }
                until.changed().await.ok()?;
            }
        })
    }
}

/// Why a replica that held the lease does not hold it any more.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    #[error("the lease {lease} was lost to {holder}: this replica stops, another one acts")]
    Taken { lease: String, holder: String },
    #[error(
        "the lease {lease} could not be renewed for {} s ({reason}): this replica stops before another one acts",
        VALID.as_secs()
    )]
    NotRenewed { lease: String, reason: String },
}

/// Acquires and renews the lease.
pub struct Elector {
    api: Api<Lease>,
    lease: String,
    identity: String,
    until: watch::Sender<Option<Instant>>,
    /// The last renewal of another holder: its resource version, and when it was first seen.
    seen: Option<(String, Instant)>,
}

/// What one look at the lease came to.
#[derive(Debug)]
enum Term {
    HeldUntil(Instant),
    HeldBy(String),
    /// Another replica was faster.
    Contended,
}

impl Elector {
    pub fn new(client: Client, namespace: &str, lease: &str, identity: &str) -> (Self, Leadership) {
        let (until, receiver) = watch::channel(None);
        let elector = Self {
            api: Api::namespaced(client, namespace),
            lease: lease.into(),
            identity: identity.into(),
            until,
            seen: None,
        };
        (elector, Leadership { until: receiver })
    }

    /// Waits for the lease and keeps it until `stop`, then gives it back. Ends early only with an error.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), LeaseError> {
        let mut stop = std::pin::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                step = self.step() => step?,
            }
            let pause = if self.until.borrow().is_some() { RENEW_EVERY } else { LOOK_EVERY };
            tokio::select! {
                () = &mut stop => break,
                () = sleep(pause) => {}
            }
        }
        self.release().await;
        Ok(())
    }

    async fn step(&mut self) -> Result<(), LeaseError> {
        let term = match timeout(CALL_TIMEOUT, self.reach()).await {
            Ok(Ok(term)) => term,
            Ok(Err(error)) => return self.not_renewed(error.to_string()),
            Err(_) => return self.not_renewed("the API server does not answer".into()),
        };
        let held = self.until.borrow().is_some();
        match term {
            Term::HeldUntil(until) => {
                if !held {
                    tracing::info!(lease = self.lease, identity = self.identity, "acquired the lease");
                }
                self.until.send_replace(Some(until));
                Ok(())
            }
            Term::HeldBy(holder) if held => {
                self.until.send_replace(None);
                Err(LeaseError::Taken { lease: self.lease.clone(), holder })
            }
            Term::HeldBy(holder) => {
                tracing::debug!(lease = self.lease, holder, "another replica holds the lease");
                Ok(())
            }
            Term::Contended => self.not_renewed("another replica changed it at the same time".into()),
        }
    }

    /// A failed attempt ends the term only once the last renewal is too old to rely on.
    fn not_renewed(&mut self, reason: String) -> Result<(), LeaseError> {
        let until = *self.until.borrow();
        let Some(until) = until else {
            tracing::warn!(lease = self.lease, reason, "cannot reach for the lease; will try again");
            return Ok(());
        };
        if Instant::now() < until {
            tracing::warn!(lease = self.lease, reason, "cannot renew the lease; will try again");
            return Ok(());
        }
        self.until.send_replace(None);
        Err(LeaseError::NotRenewed { lease: self.lease.clone(), reason })
    }

    async fn reach(&mut self) -> kube::Result<Term> {
        let Some(lease) = self.api.get_opt(&self.lease).await? else {
            return self.create().await;
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.clone().filter(|holder| !holder.is_empty());
        match holder {
            Some(holder) if holder != self.identity && !self.is_expired(&lease, &spec) => {
                Ok(Term::HeldBy(holder))
            }
            _ => self.take(&lease, &spec).await,
        }
    }

    /// Another holder's lease is expired if it stayed as it is for as long as it says.
    fn is_expired(&mut self, lease: &Lease, spec: &LeaseSpec) -> bool {
        let version = lease.resource_version().unwrap_or_default();
        let now = Instant::now();
        match &self.seen {
            Some((seen, since)) if *seen == version => {
                let seconds = spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok());
                now.duration_since(*since) >= seconds.map_or(DURATION, Duration::from_secs)
            }
            _ => {
                self.seen = Some((version, now));
                false
            }
        }
    }

    async fn create(&self) -> kube::Result<Term> {
        let sent = Instant::now();
        let lease = Lease {
            metadata: ObjectMeta { name: Some(self.lease.clone()), ..ObjectMeta::default() },
            spec: Some(self.spec(&LeaseSpec::default())),
        };
        let created = self.api.create(&PostParams::default(), &lease).await;
        contended_or(created.map(|_| Term::HeldUntil(sent + VALID)))
    }

    async fn take(&self, lease: &Lease, spec: &LeaseSpec) -> kube::Result<Term> {
        let sent = Instant::now();
        let patched = self.patch(lease, &self.spec(spec)).await;
        contended_or(patched.map(|_| Term::HeldUntil(sent + VALID)))
    }

    /// The patch names the version that it replaces, so it is refused if that is not the newest.
    async fn patch(&self, lease: &Lease, spec: &LeaseSpec) -> kube::Result<Lease> {
        let patch = serde_json::json!({
            "metadata": {"resourceVersion": lease.metadata.resource_version, "uid": lease.metadata.uid},
            "spec": spec,
        });
        self.api.patch(&self.lease, &PatchParams::default(), &Patch::Merge(patch)).await
    }

    fn spec(&self, before: &LeaseSpec) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let mine = before.holder_identity.as_deref() == Some(self.identity.as_str());
        let transitions = before.lease_transitions.unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: if mine { before.acquire_time.clone() } else { Some(now.clone()) },
            renew_time: Some(now),
            lease_transitions: Some(if mine { transitions } else { transitions.saturating_add(1) }),
            ..LeaseSpec::default()
        }
    }

    /// Gives the lease back, so that nobody has to wait for it to expire.
    async fn release(&self) {
        if self.until.send_replace(None).is_none() {
            return;
        }
        let release = async {
            let lease = self.api.get(&self.lease).await?;
            let spec = lease.spec.clone().unwrap_or_default();
            if spec.holder_identity.as_deref() == Some(self.identity.as_str()) {
                let free = LeaseSpec { holder_identity: Some(String::new()), ..spec };
                self.patch(&lease, &free).await?;
            }
            Ok::<_, kube::Error>(())
        };
        match timeout(CALL_TIMEOUT, release).await {
            Ok(Ok(())) => tracing::info!(lease = self.lease, "released the lease"),
            Ok(Err(error)) => {
                tracing::warn!(lease = self.lease, %error, "could not release the lease; it expires")
            }
            Err(_) => tracing::warn!(lease = self.lease, "could not release the lease in time; it expires"),
        }
    }
}

/// A refused precondition means that another replica was faster.
fn contended_or(term: kube::Result<Term>) -> kube::Result<Term> {
    match term {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(Term::Contended),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_is_not_renewed_stops_being_held_by_itself() {
        let (sender, until) = watch::channel(Some(Instant::now() + VALID));
        let leadership = Leadership { until };
        assert!(leadership.holds());
        tokio::time::advance(VALID).await;
        assert!(!leadership.holds());
        sender.send_replace(Some(Instant::now() + VALID));
        assert!(leadership.holds());
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_is_an_acquisition_only_if_it_comes_too_late() {
        let (sender, until) = watch::channel(None);
        let leadership = Leadership { until };
        let mut acquisitions = Box::pin(leadership.acquisitions());
        let renew = || sender.send_replace(Some(Instant::now() + VALID));
        assert!(futures::poll!(acquisitions.next()).is_pending());
        renew();
        assert_eq!(acquisitions.next().await, Some(()));
        tokio::time::advance(RENEW_EVERY).await;
        renew();
        assert!(futures::poll!(acquisitions.next()).is_pending());
        // It was not held for a moment. Whatever came up in that moment was put aside.
        tokio::time::advance(VALID).await;
        assert!(!leadership.holds());
        renew();
        tokio::time::advance(RENEW_EVERY).await;
        renew();
        assert_eq!(acquisitions.next().await, Some(()));
        assert!(futures::poll!(acquisitions.next()).is_pending());
        drop(sender);
        assert_eq!(acquisitions.next().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn anothers_lease_ends_by_our_own_clock_whatever_the_time_in_it() {
        // The client is never used: nothing here calls the API server.
        let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        let (mut elector, _) = Elector::new(Client::try_from(config).unwrap(), "studio", "lethe", "b");
        let mut is_expired = |version: &str, renewed: &str| {
            let lease: Lease = serde_json::from_value(serde_json::json!({
                "metadata": {"name": "lethe", "resourceVersion": version},
                "spec": {
                    "holderIdentity": "a", "leaseDurationSeconds": DURATION.as_secs(), "renewTime": renewed,
                },
            }))
            .unwrap();
            elector.is_expired(&lease, lease.spec.as_ref().unwrap())
        };
        let (long_ago, far_ahead) = ("2001-01-01T00:00:00.000000Z", "2101-01-01T00:00:00.000000Z");
        let second = Duration::from_secs(1);
        assert!(!is_expired("1", long_ago), "its clock is late, and it holds the lease");
        tokio::time::advance(DURATION - second).await;
        assert!(!is_expired("1", long_ago));
        // It was renewed: the time begins anew.
        assert!(!is_expired("2", far_ahead));
        tokio::time::advance(DURATION - second).await;
        assert!(!is_expired("2", far_ahead));
        tokio::time::advance(second).await;
        assert!(is_expired("2", far_ahead), "its clock is ahead, and it renews no more");
    }
}
