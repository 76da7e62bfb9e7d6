//! What is done to a node on purpose, in an order that a seed decides, and who asks the live server all the time.

use std::{
    fmt::{self, Display, Formatter},
    fs::{self, File},
    io::Write,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use jiff::{SignedDuration, Timestamp};
use lethe_api::{Digest, v1alpha1::LedgerEntry};
use serde_json::{Value, json};

/// How often the server is asked, and how long it may take to answer.
const ASK_EVERY: Duration = Duration::from_millis(250);
const PATIENCE: Duration = Duration::from_secs(2);
/// A server that is not seen for longer than this could have served anything.
const LONGEST_GAP: SignedDuration = SignedDuration::from_secs(30);
/// A ledger's times are whole seconds.
const ROUNDING: SignedDuration = SignedDuration::from_secs(1);

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// The operator's pod is killed.
    Operator,
    /// A pod that works for a run is killed.
    Trainer,
    /// The kubelet is killed; the node starts it again.
    Kubelet,
    /// The API server answers nobody for half a minute.
    ApiServer,
}

impl Blow {
    /// Twenty, in an order that a seed decides.
    pub fn twenty(random: &mut fastrand::Rng) -> Vec<Self> {
        let counts = [(Self::Operator, 7), (Self::Trainer, 5), (Self::Kubelet, 5), (Self::ApiServer, 3)];
        let mut all: Vec<_> = counts.into_iter().flat_map(|(blow, n)| vec![blow; n]).collect();
        random.shuffle(&mut all);
        all
    }
}

/// What the live server said that it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sight {
    pub at: Timestamp,
    pub digest: Digest,
}

/// Asks the live server all the time, past the API server.
pub struct Sampler {
    stop: Arc<AtomicBool>,
    sights: mpsc::Receiver<Sight>,
    asking: JoinHandle<Result<()>>,
}

impl Sampler {
    /// Starts to ask at a loopback address. Each answer, and that there was none, is a line of JSON in `log` as soon as it is
    /// known: what was served can be read there whatever becomes of the test.
    ///
    /// # Errors
    /// If `log` cannot be written.
    pub fn start(address: SocketAddr, model: &str, log: &Path) -> Result<Self> {
        fs::create_dir_all(log.parent().context("a log has a folder")?)?;
        let mut log = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let (stop, url) = (Arc::new(AtomicBool::new(false)), format!("http://{address}/v2/models/{model}"));
        let (send, sights) = mpsc::channel();
        let is_over = stop.clone();
        let asking = thread::spawn(move || {
            // A connection of its own for each question: one that is kept stays with an old pod.
            let config = ureq::Agent::config_builder().timeout_global(Some(PATIENCE));
            let agent: ureq::Agent = config.max_idle_connections(0).build().into();
            while !is_over.load(Ordering::Relaxed) {
                let (digest, at) = (ask(&agent, &url), Timestamp::now());
                writeln!(log, "{}", json!({"at": at, "digest": digest}))?;
                if let Some(digest) = digest {
                    let _ = send.send(Sight { at, digest });
                }
                thread::sleep(ASK_EVERY);
            }
            Ok(())
        });
        Ok(Self { stop, sights, asking })
    }

    /// Everything that was seen, once `last` is what is served.
    ///
    /// # Errors
    /// If the asking ended before, that does not come, or nothing was seen for long: who sees nothing sees nothing wrong.
    pub fn stop(self, last: &Digest) -> Result<Vec<Sight>> {
        let mut sights = Vec::new();
        // What has waited here since the beginning comes first.
        sights.extend(self.sights.try_iter());
        while sights.last().is_none_or(|sight: &Sight| sight.digest != *last) {
            let next = self.sights.recv_timeout(PATIENCE * 10);
            sights.push(next.with_context(|| format!("nobody saw that {last} is served"))?);
        }
        self.stop.store(true, Ordering::Relaxed);
        self.asking.join().map_err(|_| anyhow!("the sampler panicked"))??;
        sights.extend(self.sights.try_iter());
        let gaps = sights.windows(2).map(|pair| pair[1].at.duration_since(pair[0].at));
        let longest = gaps.max().unwrap_or_default();
        ensure!(longest <= LONGEST_GAP, "for {longest:#} nobody saw what is served");
        Ok(sights)
    }
}

/// A server that does not answer says nothing wrong.
fn ask(agent: &ureq::Agent, url: &str) -> Option<Digest> {
    let answer = agent.get(url).call().ok()?.into_body().read_to_string().ok()?;
    let metadata: Value = serde_json::from_str(&answer).ok()?;
    metadata["digest"].as_str()?.parse().ok()
}

/// Nothing was served but what the ledger knows, and nothing older once a newer entry stood in it. `before` was served when
/// the ledger's first entry of `ledger` was yet to come.
///
/// # Errors
/// Names the first sight that should not have been.
pub fn nothing_forbidden_was_served(sights: &[Sight], before: &Digest, ledger: &[LedgerEntry]) -> Result<()> {
    let mut known = vec![before];
    for entry in ledger {
        if known.last() != Some(&&entry.digest) {
            known.push(&entry.digest);
        }
    }
    let age = |digest: &Digest| known.iter().rposition(|known| *known == digest);
    for Sight { at, digest } in sights {
        let seen =
            age(digest).with_context(|| format!("{digest} was served at {at}, and no gate passed it"))?;
        let newest = ledger.iter().rev().find(|entry| entry.at.0 + ROUNDING < *at);
        let Some(newest) = newest else { continue };
        let due = age(&newest.digest).context("a ledger knows its own digests")?;
        let (name, since) = (&newest.request.name, newest.at.0);
        ensure!(
            seen >= due,
            "{digest} was served at {at}: it is older than what fulfilled {name} at {since}"
        );
    }
    Ok(())
}

/// Nothing was served before the run that made it had passed its gates. `passed` has each candidate, and when.
///
/// # Errors
/// Names the first sight that was too early.
pub fn nothing_was_served_before_its_gates_passed(
    sights: &[Sight],
    passed: &[(Digest, Timestamp)],
) -> Result<()> {
    for Sight { at, digest } in sights {
        let passed = passed.iter().filter(|(candidate, _)| candidate == digest);
        if let Some(since) = passed.map(|(_, since)| since).min() {
            // Conditions have whole seconds, rounded down.
            ensure!(at >= since, "{digest} was served at {at}, and its gates passed at {since}");
        }
    }
    Ok(())
}

/// A few words about what was seen.
pub struct Summary<'a>(pub &'a [Sight]);

impl Display for Summary<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} answers", self.0.len())?;
        for same in self.0.chunk_by(|one, next| one.digest == next.digest) {
            write!(f, "\n  {} {} x{}", same[0].at, same[0].digest, same.len())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn entry(digest: &str, seconds: i64) -> LedgerEntry {
        serde_json::from_value(json!({
            "targets": ["3"], "override": {"strategy": "Fixed", "label": "8"}, "run": "digits-1",
            "request": {"name": digest, "uid": digest}, "digest": Digest::of(digest), "at": at(seconds),
        }))
        .unwrap()
    }

    fn judged(sights: &[(i64, &str)]) -> Result<()> {
        let sight = |&(seconds, digest): &(i64, &str)| Sight { at: at(seconds), digest: Digest::of(digest) };
        let sights: Vec<_> = sights.iter().map(sight).collect();
        let ledger = [entry("first", 10), entry("second", 20), entry("second", 20)];
        nothing_forbidden_was_served(&sights, &Digest::of("before"), &ledger)
    }

    #[test]
    fn what_the_ledger_knows_may_be_served_until_something_newer_stands_in_it() {
        judged(&[(0, "before"), (8, "first"), (9, "before"), (15, "first"), (19, "second"), (30, "second")])
            .unwrap();
        let error = judged(&[(9, "candidate")]).unwrap_err().to_string();
        assert!(error.contains("no gate passed it"), "{error}");
        let error = judged(&[(12, "before")]).unwrap_err().to_string();
        assert!(error.contains("older than what fulfilled first"), "{error}");
        assert!(judged(&[(22, "first")]).is_err());
    }

    #[test]
    fn what_is_seen_before_its_gates_passed_is_found() {
        let passed = [(Digest::of("first"), at(10))];
        let judged = |seconds, digest| {
            let sight = Sight { at: at(seconds), digest: Digest::of(digest) };
            nothing_was_served_before_its_gates_passed(&[sight], &passed)
        };
        judged(10, "first").unwrap();
        judged(1, "before").unwrap();
        let error = judged(9, "first").unwrap_err().to_string();
        assert!(error.contains("its gates passed at"), "{error}");
    }

    #[test]
    fn a_seed_gives_the_same_twenty_blows() {
        let of = |seed| Blow::twenty(&mut fastrand::Rng::with_seed(seed));
        assert_eq!((of(1).len(), of(1) == of(1)), (20, true));
        assert!((2..10).any(|seed| of(seed) != of(1)));
    }
}
