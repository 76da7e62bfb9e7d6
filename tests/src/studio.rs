//! The model that the scenarios of the node tier share. It is prepared once, and every scenario makes it forget
//! something else: no scenario depends on another, but each finds what the earlier ones left.

use std::{collections::BTreeMap, ops::Deref, sync::Arc};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{Api, ResourceExt, api::ListParams};
use lethe_api::{
    Digest,
    v1alpha1::{ConditionType, DiffusionModel, RequestPhase, Stage, UnlearnRequest, UnlearnRun, labels},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    examples,
    node::{Node, STUDIO},
    place::{MODEL, Place, condition},
    wait,
};

/// Of 3,000 live samples, at most half a percent: the rate that the gate's `maxBound` bounds. The gate, which has to be sure
/// of it, allows 8. These are other samples of the same model, so a candidate that just passed may show a few more.
pub const MOST_HITS: u64 = 15;
/// What stands for a digest in `examples/`.
const DIGEST_TO_FILL: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

/// The namespace of the shared model.
pub struct Studio {
    pub node: Arc<Node>,
    place: Place,
}

impl Deref for Studio {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}

/// A line of what `lethe-trainer probe` says: how the judge sees the live server's samples of a label.
#[derive(Clone, Debug, Deserialize)]
pub struct Judged {
    pub label: String,
    /// Samples that are judged to be of this label.
    pub hits: u64,
    pub n: u64,
    pub digest: Digest,
}

impl Studio {
    pub fn new(node: Arc<Node>) -> Self {
        let place = Place { client: node.client.clone(), namespace: STUDIO.into() };
        Self { node, place }
    }

    /// Another namespace of the same cluster.
    pub fn elsewhere(&self, namespace: &str) -> Place {
        Place { client: self.client.clone(), namespace: namespace.into() }
    }

    /// The manifests of `examples/` as they stand, until the baseline is served.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn prepared(&self) -> Result<()> {
        self.node.prepared.get_or_try_init(async || self.prepare().await).await.map(|_| ())
    }

    async fn prepare(&self) -> Result<()> {
        for file in ["policy.yaml", "serving.yaml"] {
            for manifest in examples::read(file)? {
                self.apply(&manifest).await?;
            }
        }
        self.apply(&self.model()?).await?;
        self.model_until("it is Ready", |m| condition(m, ConditionType::Ready, "True")).await?;
        Ok(())
    }

    /// The model of `examples/`, with the digest of the base.
    ///
    /// # Errors
    /// If the example cannot be read.
    pub fn model(&self) -> Result<Value> {
        let mut model = examples::first("model.yaml")?;
        model["spec"]["base"]["digest"] = json!(self.node.base);
        Ok(model)
    }

    /// Puts the model under a policy that is as strict about what is forgotten as the one of `examples/`, but
    /// allows more of what forgetting costs: with every label that goes, the images of the others change a little,
    /// and how many went before depends on which scenarios ran.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn allow_cost(&self) -> Result<()> {
        self.prepared().await?;
        let mut policy = examples::first("policy.yaml")?;
        policy["metadata"]["name"] = json!("costly");
        may_cost_quality(&mut policy)?;
        self.apply(&policy).await?;
        self.put_under("costly").await
    }

    /// Puts the model under another policy, for the runs to come.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn put_under(&self, policy: &str) -> Result<()> {
        self.patch::<DiffusionModel>(MODEL, json!({"spec": {"policyRef": {"name": policy}}})).await?;
        let is_seen = |model: &DiffusionModel| {
            model.spec.policy_ref.name == policy
                && model.status.as_ref().is_some_and(|s| s.observed_generation == model.metadata.generation)
        };
        self.model_until("it is under that policy", is_seen).await?;
        Ok(())
    }

    /// The three is forgotten: by an earlier scenario, or now. Returns the request.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn forgotten_three(&self) -> Result<UnlearnRequest> {
        self.prepared().await?;
        self.put_under("standard").await?;
        self.apply(&examples::first("forget-three.yaml")?).await?;
        self.request_ends("forget-three", RequestPhase::Fulfilled).await
    }

    /// The request as soon as it has an answer, which has to be this one.
    ///
    /// # Errors
    /// If it is another one, or takes too long.
    pub async fn request_ends(&self, name: &str, phase: RequestPhase) -> Result<UnlearnRequest> {
        let request = wait::until(&self.api::<UnlearnRequest>(), name, "it has an answer", |r| {
            condition(r, ConditionType::Ready, "True") || condition(r, ConditionType::Ready, "False")
        })
        .await?;
        let found = request.status.as_ref().and_then(|status| status.phase);
        ensure!(found == Some(phase), "{name} is {found:?}, not {phase:?}:\n{}", wait::show(&request));
        // The lineage is free for the next one.
        self.model_until("its run is over", |m| m.status.as_ref().is_some_and(|s| s.active_run.is_none()))
            .await?;
        Ok(request)
    }

    /// What the live server says that it serves, asked through its Service.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn served(&self) -> Result<Digest> {
        let path = format!("/api/v1/namespaces/{STUDIO}/services/{MODEL}:http/proxy/v2/models/{MODEL}");
        let answer = self.node.kubectl(&["get", "--raw", &path])?;
        let metadata: Value = serde_json::from_str(&answer).context("the server's metadata is no JSON")?;
        let digest = metadata["digest"].as_str().context("the server reports no digest")?;
        Ok(digest.parse()?)
    }

    /// Samples of every label from the live server, judged: the Job of `examples/`.
    ///
    /// # Errors
    /// If the server or the judge cannot be asked.
    pub async fn probe(&self) -> Result<BTreeMap<String, Judged>> {
        let model = self.api::<DiffusionModel>().get(MODEL).await?;
        let baseline = model.status.and_then(|status| status.baseline).context("it is not prepared")?;
        let manifest =
            examples::first("probe-job.yaml")?.to_string().replace(DIGEST_TO_FILL, baseline.judge.as_str());
        let job = self.create(&serde_json::from_str(&manifest)?).await?.name_any();
        let jobs: Api<Job> = self.api();
        let over = |job: &Job| {
            let conditions = job.status.as_ref().and_then(|status| status.conditions.as_ref());
            conditions.is_some_and(|all| {
                all.iter().any(|c| ["Complete", "Failed"].contains(&&*c.type_) && c.status == "True")
            })
        };
        wait::until(&jobs, &job, "it has ended", over).await?;
        let selector = ListParams::default().labels(&format!("job-name={job}"));
        let pods = self.api::<Pod>().list(&selector).await?.items;
        let words = pods.iter().filter_map(last_words).next_back().context("the probe said nothing")?;
        let lines = words.lines().map(|line| {
            let judged: Judged = serde_json::from_str(line)?;
            Ok((judged.label.clone(), judged))
        });
        lines.collect::<serde_json::Result<_>>().with_context(|| format!("the probe said {words}"))
    }

    /// The run that works for a request, once there is one.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn run_of(&self, request: &str) -> Result<String> {
        let requests: Api<UnlearnRequest> = self.api();
        let found = wait::until(&requests, request, "a run works for it", |r| run_name(r).is_some()).await?;
        run_name(&found).context("no run works for it")
    }

    /// The pod of a stage of a run, once it runs.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn running(&self, run: &str, stage: Stage) -> Result<Pod> {
        let selector = format!("{}={run},{}={}", labels::RUN, labels::STAGE, stage.as_str());
        wait::until_any(&self.api::<Pod>(), &selector, "runs", runs).await
    }

    /// The candidate of a run, once it is trained.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn candidate(&self, run: &str) -> Result<Digest> {
        let runs: Api<UnlearnRun> = self.api();
        let trained = wait::until(&runs, run, "it has a candidate", |run| candidate(run).is_some()).await?;
        candidate(&trained).context("there is no candidate")
    }

    /// Kills the operator's pod, as a node that fails does.
    ///
    /// # Errors
    /// If there is none.
    pub async fn kill_operator(&self) -> Result<()> {
        let selector = "app.kubernetes.io/name=lethe";
        let pods = self.api::<Pod>().list(&ListParams::default().labels(selector)).await?.items;
        let pod = pods
            .iter()
            .find(|pod| pod.metadata.deletion_timestamp.is_none())
            .context("there is no operator")?;
        self.node
            .kubectl(&["delete", "pod", "-n", STUDIO, &pod.name_any(), "--grace-period=0", "--force"])
            .map(|_| ())
    }

    /// Everything that a person would look at.
    pub async fn diagnose_all(&self) -> String {
        let log = self.node.kubectl(&["logs", "-n", STUDIO, "deploy/lethe", "--tail=40"]);
        let pods = self.node.kubectl(&["get", "pods", "--all-namespaces", "-o", "wide"]);
        let text = |result: Result<String>| result.unwrap_or_else(|error| format!("{error:#}"));
        format!("{}\n--- pods\n{}\n--- the operator's log\n{}", self.diagnose().await, text(pods), text(log))
    }
}

/// Whether a pod is at work, and not about to go.
pub fn runs(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    phase == Some("Running") && pod.metadata.deletion_timestamp.is_none()
}

fn run_name(request: &UnlearnRequest) -> Option<String> {
    request.status.as_ref()?.run.as_ref().map(|run| run.name.clone())
}

fn candidate(run: &UnlearnRun) -> Option<Digest> {
    run.status.as_ref()?.candidate.clone()
}

/// The termination message of a pod that succeeded.
fn last_words(pod: &Pod) -> Option<String> {
    let container = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
    let terminated = container.state.as_ref()?.terminated.as_ref()?;
    terminated.message.clone().filter(|_| terminated.exit_code == 0)
}

/// A policy that lets a candidate be of less quality than those of the examples.
///
/// # Errors
/// If it has no such gate.
pub fn may_cost_quality(policy: &mut Value) -> Result<()> {
    let gates = policy["spec"]["gates"].as_array_mut().context("the policy has no gates")?;
    let quality = gates.iter_mut().find(|gate| gate["name"] == "retain-quality");
    quality.context("no retain-quality")?["maxRatio"] = json!("5");
    Ok(())
}
