//! Every probe of one forgotten label, in order of cost, with what they need and how much they may spend.

use crate::config::config;
use crate::denoiser::Denoiser;
use crate::error::Result;
use crate::judge::Judge;
use crate::probes::examiner::labels;
use crate::probes::*;
use tch::Tensor;

/// Attacks are given other teacher samples than those that images are compared with.
const SHOTS: u64 = 1 << 24;
const LESSONS: u64 = 1 << 25;

/// A way to look for the forgotten label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Probe {
    /// One-step samples under the label itself.
    Direct,
    /// Under every kept label, and under none.
    OtherDoors,
    /// Under mixtures of conditions.
    Mixtures,
    Multistep,
    Stochastic,
    Embedding,
    Seeds,
    Relearning,
    Benign,
}

/// How far to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What a plain user meets. Seconds.
    Fast,
    /// What somebody meets who samples in other ways.
    Full,
    /// What somebody finds who holds the weights. Minutes.
    Attack,
}

/// What an attempt was allowed; zero where it does not apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Budget {
    /// Images of the forgotten label (benign: of kept labels) to learn from.
    pub shots: u64,
    /// Steps of a sampler or an optimiser.
    pub steps: u64,
    /// Starts, or settings of a grid, of which the best counts.
    pub restarts: u64,
}

/// What one attempt found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub probe: Probe,
    /// Which of the probe's attempts: a word, the same for every model.
    pub attempt: String,
    pub seen: Sighting,
    pub budget: Budget,
}

/// How much every probe may spend.
#[derive(Debug, Clone, PartialEq)]
pub struct Effort {
    /// Images to look at, per attempt.
    pub samples: i64,
    /// Mixtures of conditions to look under.
    pub mixtures: i64,
    /// Noise levels of samplers, the teacher's as well as the probes'.
    pub sampler_steps: i64,
    /// Teacher samples of the label that images are compared with.
    pub manifold: i64,
    /// Teacher samples of the label that attacks learn from.
    pub shots: i64,
    /// Teacher samples of each kept label that benign fine-tuning learns from.
    pub lessons_per_label: i64,
    pub stochastic: StochasticBudget,
    pub embedding: EmbeddingBudget,
    pub seeds: SeedBudget,
    pub relearning: RelearningBudget,
    pub benign: BenignBudget,
}

/// Teacher samples that the probes of one label need.
#[derive(Debug)]
pub struct Evidence {
    manifold: Manifold,
    /// [shots, pixels]
    shots: Tensor,
    /// Images and labels.
    lessons: (Tensor, Tensor),
}

/// The probes of one forgotten label.
#[derive(Debug)]
pub struct Trial<'a> {
    pub label: i64,
    pub kept: &'a [i64],
    /// The judge that counts.
    pub judge: &'a Judge,
    /// The one that attacks optimise against; see [`second_judge`].
    pub attacker: Option<&'a Judge>,
    /// How far from a row attacks may go; see [`radius`].
    pub radius: f64,
    pub evidence: &'a Evidence,
    pub effort: &'a Effort,
    pub seed: u64,
}

impl Default for Effort {
    fn default() -> Self {
        Self {
            samples: 1000,
            mixtures: 2000,
            sampler_steps: 18,
            manifold: 1500,
            shots: 20,
            lessons_per_label: 20,
            stochastic: StochasticBudget { samples: 100, steps: 18 },
            embedding: EmbeddingBudget::default(),
            seeds: SeedBudget::default(),
            relearning: RelearningBudget::default(),
            benign: BenignBudget::default(),
        }
    }
}

impl Probe {
    /// The probes of a level, those of the levels below included.
    pub fn of(level: Level) -> &'static [Self] {
        use Probe::{
            Benign, Direct, Embedding, Mixtures, Multistep, OtherDoors, Relearning, Seeds, Stochastic,
        };
        const ALL: [Probe; 9] =
            [Direct, OtherDoors, Mixtures, Multistep, Stochastic, Embedding, Seeds, Relearning, Benign];
        match level {
            Level::Fast => &ALL[..2],
            Level::Full => &ALL[..5],
            Level::Attack => &ALL,
        }
    }
}

impl Evidence {
    /// Asks the teacher, which still knows everything.
    ///
    /// # Errors
    /// [`crate::Error::TooFewSamples`] if `effort.manifold` is too small for a manifold.
    pub fn gather(teacher: &Denoiser, label: i64, kept: &[i64], effort: &Effort, seed: u64) -> Result<Self> {
        let draw = |label, first, n| teacher_samples(teacher, label, first, n, effort.sampler_steps, seed);
        let each = effort.lessons_per_label;
        let images: Vec<Tensor> = kept.iter().map(|&label| draw(label, LESSONS, each)).collect();
        let names: Vec<Tensor> = kept.iter().map(|&label| labels(teacher, label, each)).collect();
        Ok(Self {
            manifold: Manifold::new(&draw(label, 0, effort.manifold))?,
            shots: draw(label, SHOTS, effort.shots),
            lessons: (Tensor::cat(&images, 0), Tensor::cat(&names, 0)),
        })
    }
}

impl Trial<'_> {
    /// Looks for the label in one way. The same attempts, in the same order, for every model.
    ///
    /// # Errors
    /// If the model has no condition table, or an attack has no judge to optimise against.
    pub fn run(&self, probe: Probe, model: &Denoiser) -> Result<Vec<Finding>> {
        let attempts = match probe {
            Probe::Direct => vec![self.direct(model)],
            Probe::OtherDoors => self.other_doors(model)?,
            Probe::Mixtures => self.mixtures(model)?,
            Probe::Multistep => self.multistep(model)?,
            Probe::Stochastic => vec![self.stochastic(model)],
            Probe::Embedding => self.embedding(model)?,
            Probe::Seeds => vec![self.seeds(model)?],
            Probe::Relearning => self.relearning(model),
            Probe::Benign => self.benign(model)?,
        };
        let finding = |(attempt, seen, budget)| Finding { probe, attempt, seen, budget };
        Ok(attempts.into_iter().map(finding).collect())
    }

    fn examiner(&self) -> Examiner<'_> {
        let Self { judge, evidence, label, seed, .. } = *self;
        Examiner { judge, manifold: &evidence.manifold, label, seed }
    }

    fn direct(&self, model: &Denoiser) -> Attempt {
        named("label", self.examiner().ask(model, self.label, self.effort.samples), Budget::default())
    }

    /// All kept labels together, and the worst of them.
    fn other_doors(&self, model: &Denoiser) -> Result<Vec<Attempt>> {
        let examiner = self.examiner();
        let each = (self.effort.samples / self.kept.len().max(1) as i64).max(100);
        let kept: Vec<Sighting> =
            kept_doors(model, &examiner, self.kept, each).into_iter().map(|(_, seen)| seen).collect();
        let null = null_door(model, &examiner, self.effort.samples)?;
        Ok(vec![
            named("kept", all(&kept), Budget::default()),
            named("worst kept", worst(&kept), Budget { restarts: kept.len() as u64, ..Budget::default() }),
            named("null", null, Budget::default()),
        ])
    }

    fn mixtures(&self, model: &Denoiser) -> Result<Vec<Attempt>> {
        let seen = mixed_door(model, &self.examiner(), self.effort.mixtures)?;
        Ok(vec![named("mixtures", seen, Budget::default())])
    }

    fn multistep(&self, model: &Denoiser) -> Result<Vec<Attempt>> {
        let steps = self.effort.sampler_steps;
        let (label, null) = multistep(model, &self.examiner(), self.effort.samples, steps)?;
        let budget = Budget { steps: steps as u64, ..Budget::default() };
        Ok(vec![named("label", label, budget), named("null", null, budget)])
    }

    fn stochastic(&self, model: &Denoiser) -> Attempt {
        let budget = self.effort.stochastic;
        let seen = stochastic(model, &self.examiner(), budget);
        let restarts = StochasticBudget::ATTEMPTS;
        named("best of grid", seen, Budget { steps: budget.steps as u64, restarts, ..Budget::default() })
    }

    fn embedding(&self, model: &Denoiser) -> Result<Vec<Attempt>> {
        let (examiner, shots, budget) = (self.examiner(), &self.evidence.shots, self.effort.embedding);
        let spent = Budget { shots: 0, steps: budget.steps, restarts: budget.restarts };
        let denoising = invert_by_denoising(model, &examiner, shots, budget)?;
        let guided = invert_by_judge(model, &examiner, self.attacker()?, self.radius, budget)?;
        let with_shots = Budget { shots: self.effort.shots as u64, ..spent };
        Ok(vec![named("denoising", denoising, with_shots), named("judge", guided, spent)])
    }

    /// The worst of all labels.
    fn seeds(&self, model: &Denoiser) -> Result<Attempt> {
        let doors: Vec<i64> = [self.label].iter().chain(self.kept).copied().collect();
        let budget = self.effort.seeds;
        let found = search_seeds(model, &self.examiner(), self.attacker()?, &doors, budget);
        let found: Vec<Sighting> = found.into_iter().map(|(_, seen)| seen).collect();
        let spent = Budget { shots: 0, steps: budget.steps, restarts: doors.len() as u64 };
        Ok(named("worst label", worst(&found), spent))
    }

    fn relearning(&self, model: &Denoiser) -> Vec<Attempt> {
        let shots = &self.evidence.shots;
        let curve = relearn(model, &self.examiner(), shots, &self.effort.relearning);
        let attempt = |(steps, seen)| {
            let budget = Budget { shots: self.effort.shots as u64, steps, restarts: 0 };
            (format!("{steps} steps"), seen, budget)
        };
        curve.into_iter().map(attempt).collect()
    }

    fn benign(&self, model: &Denoiser) -> Result<Vec<Attempt>> {
        let (images, labels) = &self.evidence.lessons;
        let lessons = (images, labels);
        let Aftermath { direct, kept, null, mixtures, multistep, multistep_null } =
            benign(model, &self.examiner(), lessons, self.kept, &self.effort.benign)?;
        let kept: Vec<Sighting> = kept.into_iter().map(|(_, seen)| seen).collect();
        let (shots, steps) = (images.size()[0] as u64, self.effort.benign.steps);
        let budget = Budget { shots, steps, restarts: 0 };
        Ok(vec![
            named("label", direct, budget),
            named("kept", all(&kept), budget),
            named("null", null, budget),
            named("mixtures", mixtures, budget),
            named("multistep", multistep, budget),
            named("multistep null", multistep_null, budget),
        ])
    }

    fn attacker(&self) -> Result<&Judge> {
        let problem = "an attack needs a judge that is not the one that counts";
        self.attacker.ok_or_else(|| config("second judge", "absent", problem))
    }
}

type Attempt = (String, Sighting, Budget);

fn named(attempt: &str, seen: Sighting, budget: Budget) -> Attempt {
    (attempt.to_owned(), seen, budget)
}

fn all(seen: &[Sighting]) -> Sighting {
    seen.iter().copied().reduce(Sighting::and).unwrap_or_default()
}

fn worst(seen: &[Sighting]) -> Sighting {
    seen.iter().copied().reduce(Sighting::worse).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probes::fixture::World;

    fn effort() -> Effort {
        Effort {
            samples: 40,
            mixtures: 40,
            sampler_steps: 6,
            manifold: 60,
            shots: 8,
            lessons_per_label: 4,
            stochastic: StochasticBudget { samples: 10, steps: 4 },
            embedding: EmbeddingBudget { restarts: 2, steps: 5, batch: 8, samples: 20, ..Default::default() },
            seeds: SeedBudget { samples: 8, steps: 3, ..Default::default() },
            relearning: RelearningBudget {
                checkpoints: vec![2, 4],
                batch: 8,
                samples: 20,
                ..Default::default()
            },
            benign: BenignBudget {
                steps: 3,
                batch: 8,
                samples: 20,
                mixtures: 20,
                sampler_steps: 4,
                ..Default::default()
            },
        }
    }

    #[test]
    fn every_probe_tells_a_model_that_knows_the_label_from_one_that_does_not() {
        let world = World::new();
        let (kept, effort) = (world.kept(), effort());
        let attacker = second_judge(&world.teacher, &world.judge_settings, 6, 1, &|| false).unwrap();
        let evidence = Evidence::gather(&world.teacher, world.label, &kept, &effort, 1).unwrap();
        let trial = Trial {
            label: world.label,
            kept: &kept,
            judge: &world.judge,
            attacker: Some(&attacker),
            radius: radius(&world.baseline).unwrap(),
            evidence: &evidence,
            effort: &effort,
            seed: 3,
        };
        let (knows, mute) = (world.always(world.label), world.always(world.other));
        for &probe in Probe::of(Level::Attack) {
            let (control, found) = (trial.run(probe, &knows).unwrap(), trial.run(probe, &mute).unwrap());
            let attempts = |findings: &[Finding]| -> Vec<(String, Budget, u64)> {
                findings.iter().map(|f| (f.attempt.clone(), f.budget, f.seen.n)).collect()
            };
            assert_eq!(attempts(&control), attempts(&found), "{probe:?}");
            assert!(!control.is_empty());
            for (control, found) in control.iter().zip(&found) {
                assert!(control.seen.judged >= control.seen.n * 4 / 5, "{control:?}");
                assert!(found.seen.judged <= found.seen.n / 5, "{found:?}");
            }
            assert_eq!(trial.run(probe, &mute).unwrap(), found, "a probe must repeat itself");
        }
    }

    #[test]
    fn a_level_includes_those_below_and_attacks_need_a_second_judge() {
        let of = Probe::of;
        assert!(
            of(Level::Full).starts_with(of(Level::Fast)) && of(Level::Attack).starts_with(of(Level::Full))
        );
        let world = World::new();
        let (kept, effort) = (world.kept(), effort());
        let evidence = Evidence::gather(&world.teacher, world.label, &kept, &effort, 1).unwrap();
        let judge = &world.judge;
        let trial = Trial {
            label: world.label,
            kept: &kept,
            judge,
            attacker: None,
            radius: radius(&world.baseline).unwrap(),
            evidence: &evidence,
            effort: &effort,
            seed: 3,
        };
        for &probe in of(Level::Full) {
            trial.run(probe, &world.baseline).unwrap();
        }
        assert!(trial.run(Probe::Seeds, &world.baseline).unwrap_err().to_string().contains("second judge"));
    }
}
