//! Signed evidence, where a check has it: what is signed, and what is found of it in the store.

use lethe_api::{
    Digest,
    contract::Statement,
    v1alpha1::{DiffusionModel, Reason, UnlearnRun},
};
use lethe_core::{Installation, evidence};

use crate::{
    cluster::Beside,
    decisions::{Mind, Store},
    shared::{Shared, hash_of},
    state::State,
};

impl Mind {
    /// The evidence that has to be known before a model is decided about.
    pub(crate) fn looked_at<'a>(
        &self,
        state: &'a State,
        object: &DiffusionModel,
        runs: &[&Shared<UnlearnRun>],
        canary: Option<&Shared<Beside>>,
    ) -> Vec<(Digest, Vec<&'a Digest>)> {
        if !self.signs {
            return vec![];
        }
        let runs: Vec<UnlearnRun> = runs.iter().map(|run| (***run).clone()).collect();
        let beside = canary.map(|canary| canary.seen()).unwrap_or_default();
        let target = Some(&*state.objects.deployment);
        let wanted = evidence::to_look_for(object, &runs, target, &beside, &self.installation());
        let all = |bundle: &Digest| state.audit.signed(bundle).collect();
        wanted.into_iter().map(|bundle| (bundle.clone(), all(&bundle))).collect()
    }

    pub(crate) fn found(&self, looked_at: &[(Digest, Vec<&Digest>)]) -> evidence::Seen {
        let known = |envelope: &&Digest| self.signed.known(hash_of(envelope.as_str()));
        let found = |all: &Vec<&Digest>| evidence::Found {
            good: all.iter().filter_map(known).collect(),
            bad: vec![],
        };
        looked_at.iter().map(|(bundle, all)| (bundle.clone(), Ok(found(all)))).collect()
    }

    pub(crate) fn installation(&self) -> Installation {
        Installation { store: "file:///artifacts".into(), signs: self.signs, ..Installation::default() }
    }

    /// The envelope of a statement. It counts as in the store once a status names it.
    pub(crate) fn sign(&self, statement: &Statement, store: Store) -> Result<Digest, evidence::Problem> {
        let problem = |reason| evidence::Problem { reason, message: "it cannot be kept".into() };
        match store {
            Store::Answers => {
                let envelope = Digest::of(statement.to_json());
                self.signed.keep(hash_of(envelope.as_str()), statement.predicate.clone());
                Ok(envelope)
            }
            Store::Away => Err(problem(Reason::EvidenceUnavailable)),
            Store::Lost => Err(problem(Reason::EvidenceRefused)),
        }
    }
}
