//! What the controllers see of the cluster: caches, and what is asked of the API server, of pods and of the store.

use kube::{Resource, ResourceExt};
use lethe_api::{
    Digest,
    contract::Statement,
    v1alpha1::{
        DiffusionModel, PolicyKind, PolicyRef, Reason, RequestRef, UnlearnApproval, UnlearnRequest,
        UnlearnRun,
    },
};
use lethe_core::{
    asked, canary, duplicates, evidence,
    kueue::Queueing,
    model, names,
    policy::{NoPolicy, Policy},
    request,
    rollout::PodReport,
    run::{self, RecordProblem},
    stall,
    told::Told,
};

use crate::{
    cluster::{Beside, Cluster, Work, replicas},
    world::{Cache, World},
};

impl World {
    pub fn observe_model(&self, object: &DiffusionModel) -> model::Observed {
        let name = object.name_any();
        let cached = self.cached(Cache::Runs).runs.values();
        let mut runs: Vec<_> = cached.filter(|run| run.spec.model == name).cloned().collect();
        // The absence of runs that are at work is confirmed by the API server.
        for named in object.status.iter().flat_map(model::named_runs) {
            if runs.iter().all(|run| run.name_any() != *named) {
                runs.extend(self.cluster.runs.get(named).cloned());
            }
        }
        let active = object.status.as_ref().and_then(|status| status.active_run.as_ref());
        let cached = self.cached(Cache::Requests).requests.values();
        let mut requests: Vec<_> = cached.filter(|r| r.spec.model_ref.name == name).cloned().collect();
        // So is that of the requests that it works for.
        let active = runs.iter().find(|run| Some(&run.name_any()) == active);
        for reference in active.iter().flat_map(|run| &run.spec.requests) {
            // Before a roll-out they are asked for anew.
            if active.is_some_and(|run| model::may_roll_out(object, run)) {
                requests.retain(|request| request.name_any() != reference.name);
                let live = self.cluster.requests.get(&reference.name);
                requests.extend(live.filter(|live| live.uid().as_ref() == Some(&reference.uid)).cloned());
                continue;
            }
            if requests.iter().all(|request| request.uid().as_ref() != Some(&reference.uid)) {
                requests.extend(self.find_request(reference));
            }
        }
        let archived = self.cluster.config_maps.get(&names::ledger_archive(&name));
        let rivals = self.cached(Cache::Models).models.values();
        let is_rival = |rival: &&DiffusionModel| {
            rival.name_any() != name && rival.spec.serving.target == object.spec.serving.target
        };
        let deployment =
            self.cluster.deployment.clone().filter(|d| d.name_any() == object.spec.serving.target.name);
        let served = match &self.lie {
            Some(lie) => lie.clone(),
            None => self.cluster.serving.clone().ok_or_else(|| "it serves nothing".into()),
        };
        let report = |pod: &str| PodReport { pod: pod.into(), digest: served.clone() };
        let canary = self.beside(object);
        let runs_pods = deployment.as_ref().is_some_and(|deployment| replicas(deployment) > 0);
        let asks = model::wants_reports(object) && runs_pods;
        let named = evidence::to_look_for(object, &runs, deployment.as_ref(), &canary, &self.installation);
        let evidence = named.into_iter().map(|bundle| (bundle.clone(), self.evidence_of(&bundle))).collect();
        model::Observed {
            model: object.clone(),
            policy: self.policy_of(object),
            evidence,
            requests,
            approvals: self.approvals(),
            runs,
            rivals: rivals.filter(is_rival).cloned().collect(),
            deployment,
            canary,
            reports: if asks { vec![report("digits-a"), report("digits-b")] } else { vec![] },
            archived: archived.map(model::read_archive).transpose(),
            unlogged: self.unlogged.clone(),
        }
    }

    fn beside(&self, model: &DiffusionModel) -> canary::Seen {
        let policy = self.policy_of(model).ok();
        let wanted = canary::to_look_for(model, policy.as_ref().map(|policy| &policy.spec));
        let Some(wanted) = wanted else { return canary::Seen::default() };
        let found = self.cluster.canary.as_ref().filter(|found| found.deployment.name_any() == wanted);
        let service = self.cluster.service.clone().filter(|service| service.name_any() == wanted);
        canary::Seen { service, ..found.map(Beside::seen).unwrap_or_default() }
    }

    pub fn observe_request(&self, object: &UnlearnRequest) -> request::Observed {
        let name = &object.spec.model_ref.name;
        let aborts = asked::abort(object).is_some() && !request::is_over(object);
        let model = match aborts {
            true => self.cluster.models.get(name).cloned(),
            false => self.find(Cache::Models, |c| c.models.get(name)),
        };
        let policy = model.as_ref().map_or(Err(NoPolicy::NotFound), |model| self.policy_of(model));
        let runs = self.cached(Cache::Runs).runs.values().filter(|run| run.spec.model == *name);
        let mut runs: Vec<_> = runs.cloned().collect();
        let active = model.as_ref().and_then(|model| model.status.as_ref()?.active_run.clone());
        if let Some(active) = active.filter(|_| aborts) {
            runs.retain(|run| run.name_any() != active);
            runs.extend(self.cluster.runs.get(&active).cloned());
        }
        let others = self.cached(Cache::Requests).requests.values();
        let is_like = |other: &&UnlearnRequest| {
            other.spec.model_ref.name == *name && duplicates::may_cover(object, other)
        };
        request::Observed {
            others: others.filter(is_like).cloned().collect(),
            request: object.clone(),
            model: model.as_ref().map(|model| Told::to(object, model)),
            policy,
            runs,
            approvals: self.approvals(),
        }
    }

    fn policy_of(&self, model: &DiffusionModel) -> Result<Policy, NoPolicy> {
        let PolicyRef { kind, name } = &model.spec.policy_ref;
        let found = match kind {
            PolicyKind::UnlearnPolicy => {
                self.find(Cache::Policies, |c| c.policies.get(name)).as_ref().map(Policy::from)
            }
            PolicyKind::ClusterUnlearnPolicy if !self.watches_all => return Err(NoPolicy::NotWatched),
            PolicyKind::ClusterUnlearnPolicy => {
                self.find(Cache::Policies, |c| c.cluster_policies.get(name)).as_ref().map(Policy::from)
            }
        };
        found.ok_or(NoPolicy::NotFound)
    }

    fn approvals(&self) -> Option<Vec<UnlearnApproval>> {
        self.protects_approvals.then(|| self.cached(Cache::Approvals).approvals.clone())
    }

    pub fn observe_run(&self, object: &UnlearnRun) -> run::Observed {
        let work = run::stage(object).and_then(|stage| {
            let name = names::job(&object.name_any(), stage);
            self.find(Cache::Jobs, |c| c.jobs.get(&name)).filter(|work| is_owned_by(&work.job, object))
        });
        let late = run::past_jobs(object).find_map(|name| {
            let known = self.cached(Cache::Jobs).jobs.get(&name);
            known.filter(|work| is_owned_by(&work.job, object) && run::works_for_nobody(&work.job)).cloned()
        });
        let work = work.or(late);
        // The pods of a finished Job are listed afresh.
        let live = |work: &Work| self.cluster.jobs.get(&work.job.name_any()).map(|work| work.pods.clone());
        let pods = match &work {
            Some(work) if work.is_finished() => live(work).unwrap_or_default(),
            Some(work) => work.pods.clone(),
            None => vec![],
        };
        let queueing = match self.cluster.has_kueue {
            true => Queueing::Asked(work.as_ref().and_then(|work| work.workload.clone()).map(Box::new)),
            false => Queueing::NotInstalled,
        };
        let job = work.map(|work| work.job);
        let stall = job.as_ref().and_then(|job| stall::find(job, &pods, self.now));
        let listed = stall.and(job.as_ref()).and_then(|job| self.cluster.jobs.get(&job.name_any()));
        let events = listed.map(|work| work.events.clone()).unwrap_or_default();
        let record =
            run::wanted_record(object, job.as_ref(), &pods, self.now).map(|wanted| self.read(&wanted));
        let requests = object.spec.requests.iter().filter_map(|reference| self.find_request(reference));
        let requests = requests.collect();
        let evidence = evidence::wanted(object, &self.installation).map(|wanted| self.sign(object, &wanted));
        run::Observed {
            run: object.clone(),
            job,
            pods,
            events,
            queueing,
            progress: None,
            record,
            requests,
            evidence,
        }
    }

    fn evidence_of(&self, bundle: &Digest) -> Result<evidence::Found, evidence::Problem> {
        let good = self.evidence.get(bundle).cloned().unwrap_or_default();
        match &self.evidence_problem {
            Some(problem) => Err(problem.clone()),
            None if !self.tampered.contains(bundle) => Ok(evidence::Found { good, bad: vec![] }),
            None => Ok(evidence::Found { good: vec![], bad: vec!["it was changed".into()] }),
        }
    }

    /// The envelope in the store: what is named is looked at, and otherwise there will be one once the status names it.
    fn sign(&self, object: &UnlearnRun, wanted: &Statement) -> Result<Digest, evidence::Problem> {
        let bundle = wanted.bundle().expect("a statement is about a bundle");
        let is_named = object.status.as_ref().is_some_and(|status| status.evidence.is_some());
        match &self.evidence_problem {
            Some(problem) => Err(problem.clone()),
            None if is_named && self.tampered.contains(&bundle) => {
                Err(evidence::Problem { reason: Reason::EvidenceRefused, message: "it was changed".into() })
            }
            None => Ok(Digest::of(wanted.to_json())),
        }
    }

    /// The very request that a run works for.
    fn find_request(&self, reference: &RequestRef) -> Option<UnlearnRequest> {
        let is_it = |request: &UnlearnRequest| request.uid().as_ref() == Some(&reference.uid);
        let known = self.cached(Cache::Requests).requests.get(&reference.name).filter(|r| is_it(r));
        known.or_else(|| self.cluster.requests.get(&reference.name).filter(|r| is_it(r))).cloned()
    }

    /// From the cache; absence is confirmed by the API server.
    fn find<T: Clone>(&self, cache: Cache, get: impl Fn(&Cluster) -> Option<&T>) -> Option<T> {
        get(self.cached(cache)).or_else(|| get(&self.cluster)).cloned()
    }

    fn read(&self, wanted: &Digest) -> Result<Vec<u8>, RecordProblem> {
        if let Some(problem) = &self.store_problem {
            return Err(problem.clone());
        }
        let missing = || RecordProblem { transient: false, message: format!("{wanted} is not in the store") };
        self.store.get(wanted).cloned().ok_or_else(missing)
    }
}

fn is_owned_by(child: &impl Resource, owner: &impl Resource) -> bool {
    let owners = child.meta().owner_references.iter().flatten();
    owners.into_iter().any(|reference| Some(&reference.uid) == owner.meta().uid.as_ref())
}
