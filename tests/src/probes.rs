//! What a good trainer finds where nothing is left: nothing in the candidate, everything in what has forgotten nothing.

use lethe_api::contract::{
    Attempt, Budget, Count, EvaluateTask, Fidelity, FidelityMeasurement, LabelMeasurement,
    NeighbourMeasurement, Override, ProbeName, ProbeRecord, ProbeTask, Sighting,
};

/// The probes of a task, with these measurements of the kept labels.
pub fn honest(task: &EvaluateTask, asked: &ProbeTask, kept: &[LabelMeasurement]) -> ProbeRecord {
    let (mut attempts, mut neighbours) = (vec![], vec![]);
    let good_share = Count { hits: 140, n: 150 };
    let good = Fidelity { precision: good_share, recall: good_share };
    let measured = |target| FidelityMeasurement { target, candidate: good, baseline: good };
    let mut fidelity = vec![measured(None)];
    for target in &task.targets {
        let label = &target.label;
        for probe in ProbeName::ALL.into_iter().filter(|probe| probe.level() <= asked.level) {
            let names = probe.attempts(asked.level).iter();
            attempts.extend(names.map(|name| attempt(probe, name, label, asked.never_saw.is_some())));
        }
        let near = kept.iter().take(NeighbourMeasurement::EACH).cloned();
        neighbours.extend(near.map(|neighbour| NeighbourMeasurement { target: label.clone(), neighbour }));
        if target.replacement != Override::Random {
            fidelity.push(measured(Some(label.clone())));
        }
    }
    ProbeRecord { attacker: None, asked: asked.clone(), attempts, neighbours, fidelity }
}

fn attempt(probe: ProbeName, attempt: &str, target: &str, compared: bool) -> Attempt {
    let seen = |hits, inside| Sighting { hits, inside, n: 4000 };
    Attempt {
        probe,
        attempt: attempt.into(),
        target: target.into(),
        seeds: vec![1],
        budget: Budget::least(probe, attempt),
        candidate: seen(2, 0),
        control: seen(3960, 3600),
        never_saw: compared.then(|| seen(200, 20)),
    }
}
