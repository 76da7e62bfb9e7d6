//! The models that are compared.

use anyhow::Result;
use lethe_sfd::{
    Baseline, Concept, Confusion, Denoiser, ForgetSettings, Forgetting, Judge, Override, Robustness, Target,
};

use crate::digits::{distil, finish, teach};

/// Samples per label behind the judge's confusion matrix.
const CONFUSION_SAMPLES: i64 = 400;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contestant {
    /// The positive control.
    Distilled,
    Forgotten(Robustness),
    /// Its teacher never saw an image of the label.
    NeverSaw,
}

impl Contestant {
    pub const ALL: [Self; 5] = [
        Self::Distilled,
        Self::Forgotten(Robustness::Suppress),
        Self::Forgotten(Robustness::Harden),
        Self::Forgotten(Robustness::Scrub),
        Self::NeverSaw,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Distilled => "nothing forgotten",
            Self::Forgotten(Robustness::Suppress) => "Suppress",
            Self::Forgotten(Robustness::Harden) => "Harden",
            Self::Forgotten(Robustness::Scrub) => "Scrub",
            Self::NeverSaw => "never saw",
        }
    }
}

/// The teacher and the baseline that all but the last start from.
pub struct Studio {
    pub teacher: Denoiser,
    baseline: Baseline,
    pub label: i64,
    pub seed: u64,
    /// Trainings are shortened by this factor.
    shorter: u64,
}

impl Studio {
    pub fn new(label: i64, seed: u64, shorter: u64) -> Result<Self> {
        let teacher = teach(None, seed, shorter)?;
        let baseline = distil(&teacher, seed, shorter)?;
        Ok(Self { teacher, baseline, label, seed, shorter })
    }

    /// The generator of a contestant.
    pub fn train(&self, contestant: Contestant, judge: &Judge) -> Result<Denoiser> {
        match contestant {
            Contestant::Distilled => Ok(self.baseline.generator.duplicate()),
            Contestant::Forgotten(robustness) => self.forget(robustness, judge),
            Contestant::NeverSaw => {
                let teacher = teach(Some(self.label), self.seed, self.shorter)?;
                Ok(distil(&teacher, self.seed, self.shorter)?.generator)
            }
        }
    }

    fn forget(&self, robustness: Robustness, judge: &Judge) -> Result<Denoiser> {
        let confusion = Confusion::measure(&self.baseline.generator, judge, CONFUSION_SAMPLES, self.seed);
        let target = Target { label: self.label, replacement: Override::Nearest };
        let concept = Concept::new(10, &[target], Some(&confusion))?;
        let mut settings = ForgetSettings::of(robustness);
        settings.steps = settings.steps.div_ceil(self.shorter);
        let (teacher, start) = (self.teacher.duplicate(), self.baseline.duplicate());
        let mut forgetting = Forgetting::new(teacher, start, concept, settings, self.seed)?;
        finish(&mut forgetting)?;
        Ok(forgetting.finish()?)
    }
}
