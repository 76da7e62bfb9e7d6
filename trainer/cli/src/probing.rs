//! What `evaluate` tries beside its measurements, if the plan asks for it: to make the candidate show what it should have
//! forgotten. The same attempts are made on the baseline, which has forgotten nothing. Raw counts; nothing here passes or
//! fails.

use lethe_api::contract::{
    Attempt, BundleKind, Digest, Fidelity, FidelityMeasurement, LabelMeasurement, NeighbourMeasurement,
    ProbeLevel, ProbeName, ProbeRecord, ProbeTask, Sighting,
};
use lethe_sfd::probes::{
    self, Budget, Effort, Evidence, Finding, Level, Probe, Trial, fidelity_of, second_judge, teacher_samples,
};
use lethe_sfd::{Concept, Confusion, Denoiser, Judge, JudgeSettings, Replacement};
use tch::Tensor;

use crate::{
    failure::{Failed, Result},
    job::Job,
    model::{self, Form, Model},
    prepare::{CONFUSION_SAMPLES, count},
};

/// Kept labels whose accuracy is reported beside each target.
const NEIGHBOURS: usize = 3;
/// Samples per label behind precision and recall.
const FIDELITY_SAMPLES: i64 = 150;
/// Teacher samples behind precision and recall: others than those of the attacks.
const FIDELITY_FIRST: u64 = 1 << 26;

/// The models, and what they are examined with.
pub(crate) struct Subjects<'a> {
    pub(crate) candidate: &'a Denoiser,
    pub(crate) baseline: &'a Denoiser,
    pub(crate) judge: &'a Judge,
    pub(crate) concept: &'a Concept,
    /// Images to look at, per attempt.
    pub(crate) samples: u32,
    /// Accuracy at every kept label, as it was measured.
    pub(crate) retain: &'a [LabelMeasurement],
}

/// What the probes need beside what is measured.
pub(crate) struct Helpers {
    teacher: Denoiser,
    never_saw: Option<Denoiser>,
}

impl Helpers {
    /// All of the form at hand.
    pub(crate) fn load(job: &Job<'_>, task: &ProbeTask, form: &Form<'_>) -> Result<Self> {
        let load = |digest, kind| {
            let (model, denoiser) = model::denoiser(&job.artifacts.bundle(digest, kind)?, job.device)?;
            form.check(kind, digest, &model.model)?;
            Ok::<_, Failed>(denoiser)
        };
        let never_saw = task.never_saw.as_ref();
        Ok(Self {
            teacher: load(&task.teacher, BundleKind::Teacher)?,
            never_saw: never_saw.map(|digest| load(digest, BundleKind::Generator)).transpose()?,
        })
    }
}

pub(crate) fn run(
    job: &Job<'_>,
    task: &ProbeTask,
    subjects: &Subjects<'_>,
    helpers: Helpers,
) -> Result<ProbeRecord> {
    let Helpers { teacher, never_saw } = helpers;
    let effort = Effort { samples: subjects.samples.into(), ..Effort::default() };
    let probing = Probing { job, task, subjects, teacher, never_saw, effort };
    let attacker = probing.attacker()?;
    Ok(ProbeRecord {
        asked: task.clone(),
        attacker: attacker.as_ref().map(|attacker| probing.keep(attacker)).transpose()?,
        neighbours: probing.neighbours()?,
        fidelity: probing.fidelity()?,
        attempts: probing.attempts(attacker.as_ref())?,
    })
}

struct Probing<'a> {
    job: &'a Job<'a>,
    task: &'a ProbeTask,
    subjects: &'a Subjects<'a>,
    teacher: Denoiser,
    never_saw: Option<Denoiser>,
    effort: Effort,
}

impl Probing<'_> {
    fn seed(&self) -> u64 {
        self.job.plan.seed
    }

    /// Every probe of the level, target by target.
    fn attempts(&self, attacker: Option<&Judge>) -> Result<Vec<Attempt>> {
        let probes = Probe::of(level(self.task.level));
        let targets = self.subjects.concept.forgotten();
        self.job.watch.begin("probe", 0, (targets.len() * probes.len()) as u64);
        let radius = probes::radius(self.subjects.baseline)?;
        let mut attempts = Vec::new();
        for (index, &(label, _)) in targets.iter().enumerate() {
            let kept = self.subjects.concept.kept();
            let evidence = Evidence::gather(&self.teacher, label, kept, &self.effort, self.seed())?;
            let trial = Trial {
                label,
                kept,
                judge: self.subjects.judge,
                attacker,
                radius,
                evidence: &evidence,
                effort: &self.effort,
                seed: self.seed(),
            };
            for (step, &probe) in probes.iter().enumerate() {
                attempts.extend(self.attempt(&trial, probe)?);
                self.job.watch.at((index * probes.len() + step + 1) as u64);
            }
        }
        Ok(attempts)
    }

    /// One probe on the candidate and on its controls.
    fn attempt(&self, trial: &Trial<'_>, probe: Probe) -> Result<Vec<Attempt>> {
        let find = |model: &Denoiser| {
            self.job.watch.check()?;
            Ok::<_, Failed>(trial.run(probe, model)?)
        };
        let target = model::label_name(self.teacher.config(), trial.label);
        let (candidate, control) = (find(self.subjects.candidate)?, find(self.subjects.baseline)?);
        let never_saw = self.never_saw.as_ref().map(find).transpose()?;
        let both = candidate.into_iter().zip(control).enumerate();
        let attempt = |(index, (candidate, control)): (usize, (Finding, Finding))| {
            let Budget { shots, steps, restarts } = candidate.budget;
            Attempt {
                probe: name(probe),
                attempt: candidate.attempt,
                target: target.clone(),
                seeds: vec![self.seed()],
                budget: lethe_api::contract::Budget { shots, steps, restarts },
                candidate: sighting(candidate.seen),
                control: sighting(control.seen),
                // The same attempts in the same order, for every model.
                never_saw: never_saw
                    .as_ref()
                    .and_then(|found| found.get(index))
                    .map(|one| sighting(one.seen)),
            }
        };
        Ok(both.map(attempt).collect())
    }

    /// The judge that attacks optimise against, where there are attacks.
    fn attacker(&self) -> Result<Option<Judge>> {
        if self.task.level < ProbeLevel::Attack {
            return Ok(None);
        }
        let stop = || self.job.watch.is_stopped();
        let (settings, steps) = (JudgeSettings::of(self.teacher.config()), self.effort.sampler_steps);
        Ok(Some(second_judge(&self.teacher, &settings, steps, self.seed(), &stop)?))
    }

    /// Keeps the attacker for whoever wants to repeat an attack.
    fn keep(&self, attacker: &Judge) -> Result<Digest> {
        let description = Model::new(self.teacher.config(), Vec::new()).to_bytes()?;
        self.job.artifacts.put_bundle(BundleKind::Judge, attacker.to_bytes(), description)
    }

    fn neighbours(&self) -> Result<Vec<NeighbourMeasurement>> {
        self.job.watch.check()?;
        let Subjects { baseline, judge, concept, retain, .. } = *self.subjects;
        let confusion = Confusion::measure(baseline, judge, CONFUSION_SAMPLES, self.seed());
        let mut measured = Vec::new();
        for &(label, _) in concept.forgotten() {
            let target = model::label_name(self.teacher.config(), label);
            for neighbour in probes::neighbours(&confusion, label, concept.kept(), NEIGHBOURS) {
                let name = model::label_name(self.teacher.config(), neighbour);
                let found = retain.iter().find(|measurement| measurement.label == name);
                let neighbour = found
                    .cloned()
                    .ok_or_else(|| Failed::internal(format!("the kept label {name:?} was not measured")))?;
                measured.push(NeighbourMeasurement { target: target.clone(), neighbour });
            }
        }
        Ok(measured)
    }

    /// Over the kept labels, and at each target whose override is one label.
    fn fidelity(&self) -> Result<Vec<FidelityMeasurement>> {
        let concept = self.subjects.concept;
        let mut measured = vec![self.compare(None, concept.kept(), concept.kept())?];
        for &(label, replacement) in concept.forgotten() {
            if let Replacement::Label(shown) = replacement {
                let target = model::label_name(self.teacher.config(), label);
                measured.push(self.compare(Some(target), &[label], &[shown])?);
            }
        }
        Ok(measured)
    }

    /// The candidate asked for `asked`, the baseline asked for `shown`, both beside the teacher's samples of `shown`.
    fn compare(&self, target: Option<String>, asked: &[i64], shown: &[i64]) -> Result<FidelityMeasurement> {
        self.job.watch.check()?;
        let (seed, steps) = (self.seed(), self.effort.sampler_steps);
        let draw = |&label: &i64| {
            teacher_samples(&self.teacher, label, FIDELITY_FIRST, FIDELITY_SAMPLES, steps, seed)
        };
        let real = Tensor::cat(&shown.iter().map(draw).collect::<Vec<_>>(), 0);
        let of = |model: &Denoiser, labels: &[i64]| {
            let found = fidelity_of(model, self.subjects.judge, &real, labels, FIDELITY_SAMPLES, seed)?;
            Ok::<_, Failed>(Fidelity { precision: count(found.precision), recall: count(found.recall) })
        };
        let (candidate, baseline) = (of(self.subjects.candidate, asked)?, of(self.subjects.baseline, shown)?);
        Ok(FidelityMeasurement { target, candidate, baseline })
    }
}

fn sighting(seen: probes::Sighting) -> Sighting {
    Sighting { hits: seen.judged, inside: seen.inside, n: seen.n }
}

/// The library's word for a level.
fn level(level: ProbeLevel) -> Level {
    match level {
        ProbeLevel::Fast => Level::Fast,
        ProbeLevel::Full => Level::Full,
        ProbeLevel::Attack => Level::Attack,
    }
}

/// The contract's word for a probe.
fn name(probe: Probe) -> ProbeName {
    match probe {
        Probe::Direct => ProbeName::DirectLeak,
        Probe::OtherDoors | Probe::Mixtures => ProbeName::OtherDoorLeak,
        Probe::Multistep => ProbeName::MultistepLeak,
        Probe::Stochastic => ProbeName::StochasticLeak,
        Probe::Embedding => ProbeName::EmbeddingInversion,
        Probe::Seeds => ProbeName::SeedSearch,
        Probe::Relearning => ProbeName::Relearning,
        Probe::Benign => ProbeName::BenignResurgence,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Policies that want more are not worked under.
    #[test]
    fn attempts_have_as_many_samples_as_the_contract_says() {
        let effort = Effort::default();
        let drawn = |probe: ProbeName| probe.drawn(ProbeLevel::Attack).map(i64::from);
        assert_eq!(drawn(ProbeName::OtherDoorLeak), Some(effort.mixtures));
        assert_eq!(drawn(ProbeName::StochasticLeak), Some(effort.stochastic.samples));
        assert_eq!(drawn(ProbeName::EmbeddingInversion), Some(effort.embedding.samples));
        assert_eq!(drawn(ProbeName::SeedSearch), Some(effort.seeds.samples));
        assert_eq!(drawn(ProbeName::Relearning), Some(effort.relearning.samples));
        let benign = &effort.benign;
        assert_eq!(drawn(ProbeName::BenignResurgence), Some(benign.samples.min(benign.mixtures)));
        for probe in [ProbeName::DirectLeak, ProbeName::MultistepLeak] {
            assert_eq!(drawn(probe), None, "as many as the plan says");
        }
    }
}
