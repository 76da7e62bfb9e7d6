//! `watch`: the tree again whenever something of it changes.

use std::{collections::BTreeMap, fmt::Debug, hash::Hash, time::Duration};

use futures::{StreamExt, stream::BoxStream};
use jiff::Timestamp;
use kube::{
    Api, Resource,
    runtime::{
        WatchStreamExt,
        reflector::{self, Store},
        watcher,
    },
};
use lethe_api::v1alpha1::{
    ClusterUnlearnPolicy, ConditionType, DiffusionModel, RequestPhase, UnlearnApproval, UnlearnPolicy,
    UnlearnRequest, UnlearnRun,
};
use serde::de::DeserializeOwned;

use crate::{
    args::{ClusterArgs, Format, Watch},
    cluster::Place,
    exit::{Exit, Result, Trouble},
    term::{self, Line},
    tree::{self, Seen, View},
    write_one,
};

/// What changes at once is drawn at once.
const SETTLE: Duration = Duration::from_millis(100);
/// Times that run down are drawn anew this often.
const TICK: Duration = Duration::from_secs(1);

/// # Errors
/// If nothing can be read, or nothing of that name is there.
pub async fn run(cluster: &ClusterArgs, watch: &Watch) -> Result<Exit> {
    let place = Place::open(cluster, watch.which.all_namespaces).await?;
    // The first look says what may be read, and whether there is anything of that name.
    let first = place.see().await?;
    let name = watch.which.name.as_deref();
    tree::view(&first, name, Timestamp::now())
        .map_err(|why| Trouble::unreachable(format!("{why} in {}", place.words())))?;
    let follow = follow(Watched::new(&place, &first), name, watch.output.output);
    match watch.timeout {
        None => follow.await,
        Some(seconds) => tokio::time::timeout(Duration::from_secs(seconds), follow)
            .await
            .unwrap_or_else(|_| Err(Trouble::unreachable(format!("no answer within {seconds} s")))),
    }
}

async fn follow(mut watched: Watched, name: Option<&str>, format: Format) -> Result<Exit> {
    let (mut screen, begun) = (Screen::new(format), Timestamp::now());
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            changed = watched.changes.next() => {
                if changed.is_none() {
                    return Err(Trouble::unreachable("the API server ended every watch"));
                }
                let settled = tokio::time::sleep(SETTLE);
                tokio::pin!(settled);
                loop {
                    tokio::select! {
                        more = watched.changes.next() => if more.is_none() { break },
                        () = &mut settled => break,
                    }
                }
            }
            _ = tick.tick(), if screen.is_terminal => {}
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Fine),
        }
        let seen = watched.seen();
        let view = |now| tree::view(&seen, name, now);
        let Ok(now) = view(Timestamp::now()) else {
            if watched.is_ready() {
                return Err(Trouble::not_right(format!("{} is gone", name.unwrap_or_default())));
            }
            continue;
        };
        if !watched.is_ready() {
            continue;
        }
        match format {
            Format::Text => screen.show(&now)?,
            other => {
                if view(begun).is_ok_and(|view| screen.has_changed(view)) {
                    write_one(&now, other)?;
                }
            }
        }
        if let Some(exit) = name.and_then(|name| answer(&seen, name)) {
            return Ok(exit);
        }
    }
}

/// How it ends for a request that was asked for by name and has its answer.
fn answer(seen: &Seen, name: &str) -> Option<Exit> {
    let name = match name.split_once('/') {
        Some(("dm" | "diffusionmodel" | "diffusionmodels", _)) => return None,
        Some((_, name)) => name,
        None => name,
    };
    // A model of that name is watched for as long as somebody likes.
    if seen.models.iter().any(|model| model.metadata.name.as_deref() == Some(name)) {
        return None;
    }
    let request = seen.requests.iter().find(|request| request.metadata.name.as_deref() == Some(name))?;
    let status = request.status.as_ref()?;
    if !ConditionType::Ready.is_decided(&status.conditions) || is_asked_again(request) {
        return None;
    }
    match status.phase {
        Some(RequestPhase::Fulfilled | RequestPhase::Tried) => Some(Exit::Fine),
        _ => Some(Exit::NotRight),
    }
}

/// Another attempt was asked for, and nothing was said to that yet.
fn is_asked_again(request: &UnlearnRequest) -> bool {
    lethe_core::asked::retry(request).is_some()
}

/// Copies of everything that is shown, kept up to date.
struct Watched {
    models: Store<DiffusionModel>,
    requests: Store<UnlearnRequest>,
    runs: Option<Store<UnlearnRun>>,
    approvals: Option<Store<UnlearnApproval>>,
    policies: Option<Store<UnlearnPolicy>>,
    cluster_policies: Option<Store<ClusterUnlearnPolicy>>,
    unread: Vec<String>,
    changes: BoxStream<'static, ()>,
}

impl Watched {
    fn new(place: &Place, first: &Seen) -> Self {
        let mut streams: Vec<BoxStream<'static, ()>> = Vec::new();
        let may = |what: &str| !first.unread.iter().any(|unread| unread.contains(&format!("read {what}:")));
        let models = keep(place.api(), &mut streams);
        let requests = keep(place.api(), &mut streams);
        let runs = may("runs").then(|| keep(place.api(), &mut streams));
        let approvals = may("approvals").then(|| keep(place.api(), &mut streams));
        let policies = may("policies").then(|| keep(place.api(), &mut streams));
        let has_any = !first.cluster_policies.is_empty();
        let cluster_policies = has_any.then(|| keep(place.of_cluster(), &mut streams));
        let changes = futures::stream::select_all(streams).boxed();
        let unread = first.unread.clone();
        Self { models, requests, runs, approvals, policies, cluster_policies, unread, changes }
    }

    /// Whether the first list of everything has come.
    fn is_ready(&self) -> bool {
        use futures::FutureExt;
        fn has<K>(store: &Store<K>) -> bool
        where
            K: Resource<DynamicType = ()> + Clone + 'static,
        {
            store.wait_until_ready().now_or_never().is_some()
        }
        has(&self.models)
            && has(&self.requests)
            && self.runs.as_ref().is_none_or(has)
            && self.approvals.as_ref().is_none_or(has)
            && self.policies.as_ref().is_none_or(has)
            && self.cluster_policies.as_ref().is_none_or(has)
    }

    fn seen(&self) -> Seen {
        Seen {
            models: all(Some(&self.models)),
            requests: all(Some(&self.requests)),
            runs: all(self.runs.as_ref()),
            approvals: all(self.approvals.as_ref()),
            policies: all(self.policies.as_ref()),
            cluster_policies: all(self.cluster_policies.as_ref()),
            unread: self.unread.clone(),
        }
    }
}

fn all<K>(store: Option<&Store<K>>) -> Vec<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    store.into_iter().flat_map(Store::state).map(|object| (*object).clone()).collect()
}

fn keep<K>(api: Api<K>, streams: &mut Vec<BoxStream<'static, ()>>) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    K::DynamicType: Eq + Hash + Clone,
{
    let (store, writer) = reflector::store();
    let watched = watcher(api, watcher::Config::default()).default_backoff().reflect(writer);
    streams.push(watched.map(|_| ()).boxed());
    store
}

/// A terminal that is drawn anew, or lines that tell what changed.
struct Screen {
    is_terminal: bool,
    /// So many lines were drawn.
    drawn: usize,
    /// What was last said of each object, where there is no terminal.
    said: BTreeMap<String, String>,
    /// What programs were told last, as of when it began.
    told: Option<View>,
}

impl Screen {
    fn new(format: Format) -> Self {
        let is_terminal = format == Format::Text && term::is_terminal();
        Self { is_terminal, drawn: 0, said: BTreeMap::new(), told: None }
    }

    fn show(&mut self, view: &View) -> Result<()> {
        if self.is_terminal {
            return self.draw(&tree::draw(view));
        }
        let now = Timestamp::now().strftime("%H:%M:%S");
        let mut text = String::new();
        for (key, line) in news(view) {
            if self.said.get(&key) != Some(&line) {
                text += &format!("{now}  {line}\n");
                self.said.insert(key, line);
            }
        }
        if !text.is_empty() {
            term::write(&text)?;
        }
        Ok(())
    }

    /// Whether it is another one than before. What is shown runs down by the second: this has to be as of one and the same moment.
    fn has_changed(&mut self, view: View) -> bool {
        let has_changed = self.told.as_ref() != Some(&view);
        self.told = Some(view);
        has_changed
    }

    fn draw(&mut self, lines: &[Line]) -> Result<()> {
        let (columns, most) = term::size();
        let most = most.saturating_sub(1).max(1);
        let colour = term::wants_colour();
        let rows: Vec<Line> = lines.iter().flat_map(|line| line.rows(columns)).collect();
        let shown = rows.len().min(most);
        let mut text = String::new();
        if self.drawn > 0 {
            text += &format!("\u{1b}[{}A\r\u{1b}[J", self.drawn);
        }
        for (index, row) in rows.iter().take(shown).enumerate() {
            let is_cut = index + 1 == shown && rows.len() > shown;
            text += &match is_cut {
                true => format!("\u{2026} {} more lines", rows.len() - shown + 1),
                false => row.render(colour),
            };
            text.push('\n');
        }
        self.drawn = shown;
        Ok(term::write(&text)?)
    }
}

/// One line for each object: it is written again when it changes.
fn news(view: &View) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let requests = view.models.iter().flat_map(|model| &model.requests).chain(&view.orphans);
    for request in requests {
        let phase = request.phase.map_or_else(|| "new".into(), |phase| format!("{phase:?}"));
        let progress = request.run.as_ref().and_then(|run| run.progress.as_ref());
        let progress = progress.map(|at| {
            // A line for every tenth: a log is not a terminal.
            format!("  {} {} %", at.stage, 100 * at.step.min(at.total) / at.total.max(1) / 10 * 10)
        });
        let gates = request.gate_summary.as_ref().map(|gates| format!("  {gates} gates"));
        let why = request.why.as_ref().map(|why| format!("  {why}"));
        let line = format!(
            "{}/{}  {phase}{}{}{}",
            request.namespace,
            request.name,
            gates.unwrap_or_default(),
            progress.unwrap_or_default(),
            why.unwrap_or_default()
        );
        all.push((format!("ulr/{}/{}", request.namespace, request.name), line));
    }
    for model in &view.models {
        let phase = model.phase.as_deref().unwrap_or("new");
        let why = model.why.as_ref().map(|why| format!("  {why}")).unwrap_or_default();
        let line = format!("{}/{}  {phase}{why}", model.namespace, model.name);
        all.push((format!("dm/{}/{}", model.namespace, model.name), line));
    }
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn programs_are_told_of_what_changes_and_not_of_time_that_runs_down() {
        let model = json!({
            "apiVersion": "lethe.dev/v1alpha1", "kind": "DiffusionModel",
            "metadata": {"name": "digits", "namespace": "studio"},
            "spec": {
                "base": {"uri": "file:///base", "digest": lethe_api::Digest::of("base")},
                "policyRef": {"name": "standard"},
                "serving": {
                    "target": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "digits"},
                    "container": "server",
                },
            },
            "status": {"phase": "Ready", "served": {
                "digest": lethe_api::Digest::of("served"), "short": "0123456789ab", "since": "2026-11-27T08:00:00Z",
            }},
        });
        let mut seen = Seen { models: vec![serde_json::from_value(model).unwrap()], ..Seen::default() };
        let begun = "2026-11-27T09:00:00Z".parse().unwrap();
        let later = "2026-11-27T10:00:00Z".parse().unwrap();
        let view = |seen: &Seen, now| tree::view(seen, None, now).unwrap();
        assert_ne!(view(&seen, begun), view(&seen, later), "time is in it");
        let mut screen = Screen::new(Format::Json);
        assert!(screen.has_changed(view(&seen, begun)));
        assert!(!screen.has_changed(view(&seen, begun)));
        seen.models[0].status.as_mut().unwrap().forgotten = Some(2);
        assert!(screen.has_changed(view(&seen, begun)));
    }
}
