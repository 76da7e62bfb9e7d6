//! `DiffusionModel`: observe, and ask core what to prepare, start, serve and record.

use std::{collections::BTreeSet, time::Duration};

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Service},
};
use kube::{Api, ResourceExt};
use lethe_api::{
    Digest,
    v1alpha1::{
        DiffusionModel, DiffusionModelStatus, Reason, UnlearnApprovalSpec, UnlearnPolicySpec, UnlearnRequest,
        UnlearnRun,
    },
};
use lethe_core::{ArchivedLedger, Decision, canary, evidence, model, names, rollout::PodReport, trail};
use lethe_transparency::Said;
use tokio::time::timeout;

use crate::{calls, context::Context, controller::Kind, error::Result};

/// How long a decision waits for what the store has about a bundle: what leaks is not to wait behind it.
const STORE_PATIENCE: Duration = Duration::from_secs(5);

impl Kind for DiffusionModel {
    type Status = DiffusionModelStatus;

    const CONTROLLER: &'static str = "model";
    const MANAGER: &'static str = "lethe-model";

    fn status(&self) -> Option<&DiffusionModelStatus> {
        self.status.as_ref()
    }

    async fn decide(object: &Self, context: &Context) -> Result<Decision<DiffusionModelStatus>> {
        let observed = observe(object, context).await?;
        Ok(model::decide(&observed, &context.installation, Timestamp::now()))
    }

    fn said(&self, after: &DiffusionModelStatus) -> Vec<Said> {
        trail::of_model(self, after)
    }
}

async fn observe(object: &DiffusionModel, context: &Context) -> Result<model::Observed> {
    let stores = &context.stores;
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let policy = stores.policy(object).await?;
    let rules = policy.as_ref().ok().map(|policy| &policy.spec);
    // Each of them asks the API server, and some ask pods: all at once, since a look takes as long as they do.
    let ((deployment, reports), canary, archived) = tokio::try_join!(
        served(context, object, &namespace),
        beside(context, object, rules),
        archived(context, &namespace, &name),
    )?;
    // After them, however long they took: what was aborted or withdrawn meanwhile must not be rolled out.
    let runs = runs(context, &namespace, object).await?;
    let requests = requests(context, &namespace, object, &runs).await?;
    let evidence = evidence(context, object, &runs, deployment.as_ref(), &canary).await;
    let names: BTreeSet<String> = requests.iter().map(ResourceExt::name_any).collect();
    let rollout = object.status.as_ref().and_then(|status| status.rollout.as_ref());
    let approvals =
        || stores.approvals_of(&namespace, |said| is_about(said, &names, rollout.map(|rollout| &rollout.to)));
    Ok(model::Observed {
        approvals: context.approvals_are_protected.then(approvals),
        model: object.clone(),
        policy,
        requests,
        runs,
        rivals: stores.rivals_of(object).iter().map(|rival| rival.as_ref().clone()).collect(),
        deployment,
        reports,
        canary,
        archived,
        unlogged: context.logbook.problem(),
        evidence,
    })
}

/// The serving target, and what its pods say where that counts.
async fn served(
    context: &Context,
    object: &DiffusionModel,
    namespace: &str,
) -> Result<(Option<Deployment>, Vec<PodReport>)> {
    let deployment = deployment(context, namespace, &object.spec.serving.target.name).await?;
    let reports = match &deployment {
        Some(target) if model::wants_reports(object) => {
            context.inquiry.reports(&context.client, object, target).await?
        }
        _ => Vec::new(),
    };
    Ok((deployment, reports))
}

/// What the store has about the bundles that may be put into service.
async fn evidence(
    context: &Context,
    object: &DiffusionModel,
    runs: &[UnlearnRun],
    target: Option<&Deployment>,
    beside: &canary::Seen,
) -> evidence::Seen {
    let Some(notary) = &context.notary else { return evidence::Seen::new() };
    let installation = &context.installation;
    let bundles = evidence::to_look_for(object, runs, target, beside, installation);
    let looks = bundles.into_iter().map(async |bundle| {
        let found = timeout(STORE_PATIENCE, notary.look(&installation.store, &bundle)).await;
        let unanswered = || evidence::Problem {
            reason: Reason::EvidenceUnavailable,
            message: format!("the store did not answer within {} s", STORE_PATIENCE.as_secs()),
        };
        (bundle, found.unwrap_or_else(|_| Err(unanswered())))
    });
    join_all(looks).await.into_iter().collect()
}

/// Whether what somebody said is about one of these requests, or about the candidate that is being rolled out: of that of a
/// base, there may be no request to name any more.
fn is_about(said: &UnlearnApprovalSpec, requests: &BTreeSet<String>, candidate: Option<&Digest>) -> bool {
    let digest = said.rollout.as_ref().map(|rollout| &rollout.digest);
    requests.contains(&said.request_ref.name) || (digest.is_some() && digest == candidate)
}

/// The runs of the model. The active one, and the one that audits a roll-out, are there even if they were created a
/// moment ago and the cache does not have them yet: two runs must not work on one lineage.
async fn runs(context: &Context, namespace: &str, object: &DiffusionModel) -> Result<Vec<UnlearnRun>> {
    let stores = &context.stores;
    let mut runs = stores.runs_of(namespace, &object.name_any());
    for active in object.status.iter().flat_map(model::named_runs) {
        if runs.iter().all(|run| run.name_any() != *active) {
            let found = stores.find(&stores.runs, namespace, active).await?;
            runs.extend(found.map(|run| run.open()));
        }
    }
    Ok(runs)
}

/// The requests for the model. Those of the active run are there even if the cache does not have them yet: they
/// must not be taken for withdrawn. Before a roll-out they are asked for anew: it must not begin for one that was aborted.
async fn requests(
    context: &Context,
    namespace: &str,
    object: &DiffusionModel,
    runs: &[UnlearnRun],
) -> Result<Vec<UnlearnRequest>> {
    let stores = &context.stores;
    let mut requests = stores.requests_of(namespace, &object.name_any());
    let active = object.status.as_ref().and_then(|status| status.active_run.as_ref());
    let active = runs.iter().find(|run| Some(&run.name_any()) == active);
    let anew = active.is_some_and(|run| model::may_roll_out(object, run));
    for reference in active.iter().flat_map(|run| &run.spec.requests) {
        if anew {
            requests.retain(|request| request.name_any() != reference.name);
        }
        if requests.iter().all(|request| request.uid().as_ref() != Some(&reference.uid)) {
            let live = stores.confirm(&stores.requests, namespace, &reference.name).await?;
            requests.extend(live.map(|request| request.open()));
        }
    }
    Ok(requests)
}

/// The serving target, as it is now: what is served is not decided from a cache.
async fn deployment(context: &Context, namespace: &str, name: &str) -> Result<Option<Deployment>> {
    let deployments: Api<Deployment> = Api::namespaced(context.client.clone(), namespace);
    calls::read(format!("read Deployment {namespace}/{name}"), deployments.get_opt(name)).await
}

/// What there is beside the serving target, as it is now.
async fn beside(
    context: &Context,
    object: &DiffusionModel,
    policy: Option<&UnlearnPolicySpec>,
) -> Result<canary::Seen> {
    let Some(name) = canary::to_look_for(object, policy) else { return Ok(canary::Seen::default()) };
    let namespace = &object.namespace().unwrap_or_default();
    let deployment = deployment(context, namespace, &name).await?;
    let services: Api<Service> = Api::namespaced(context.client.clone(), namespace);
    let service = calls::read(format!("read Service {namespace}/{name}"), services.get_opt(&name)).await?;
    let rollout = object.status.as_ref().and_then(|status| status.rollout.as_ref());
    let may_have_pods = rollout.is_some_and(|rollout| rollout.canary.is_some());
    let reports = match may_have_pods {
        true => context.inquiry.reports_beside(&context.client, object).await?,
        false => Vec::new(),
    };
    Ok(canary::Seen { deployment, service, reports })
}

/// The ledger of an earlier model of the same name, or why it cannot be read.
async fn archived(
    context: &Context,
    namespace: &str,
    model: &str,
) -> Result<std::result::Result<Option<ArchivedLedger>, String>> {
    let maps: Api<ConfigMap> = Api::namespaced(context.client.clone(), namespace);
    let name = names::ledger_archive(model);
    let map = calls::read(format!("read ConfigMap {namespace}/{name}"), maps.get_opt(&name)).await?;
    Ok(map.as_ref().map(model::read_archive).transpose())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(request: &str, candidate: Option<&str>) -> UnlearnApprovalSpec {
        let rollout = candidate.map(|it| json!({"digest": Digest::of(it), "step": 1}));
        serde_json::from_value(json!({
            "requestRef": {"name": request, "uid": "u"}, "approver": "ada", "decision": "Approve",
            "reason": "as agreed", "rollout": rollout,
        }))
        .unwrap()
    }

    #[test]
    fn what_people_said_counts_for_the_models_requests_and_its_candidate_and_nothing_else() {
        let requests = BTreeSet::from(["forget-three".to_owned()]);
        let candidate = Digest::of("candidate");
        let counts = |said: &UnlearnApprovalSpec| is_about(said, &requests, Some(&candidate));
        assert!(counts(&said("forget-three", None)));
        assert!(counts(&said("forget-three", Some("an earlier candidate"))), "core looks at what it is of");
        assert!(counts(&said("", Some("candidate"))), "of a base's candidate nobody can name a request");
        assert!(!counts(&said("of-another-model", None)));
        assert!(!counts(&said("of-another-model", Some("another candidate"))));
        // Nothing is being rolled out: nobody can mean it.
        assert!(!is_about(&said("", None), &requests, None));
        assert!(!is_about(&said("", Some("candidate")), &requests, None));
    }
}
