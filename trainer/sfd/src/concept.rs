//! What is forgotten, what is kept, and what takes a forgotten label's place.

use crate::error::ConceptError;
use crate::measure::Confusion;
use crate::noise::{Noise, Stream};

#[cfg(test)]
mod tests;

/// What the generator is to show under a forgotten label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Override {
    /// This label's images.
    Fixed(i64),
    /// The kept label that the judge finds most like the forgotten one.
    Nearest,
    /// Images of all kept labels, drawn anew for each sample.
    Random,
}

/// One label to forget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    pub label: i64,
    pub replacement: Override,
}

/// An override after `Nearest` was looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replacement {
    Label(i64),
    AnyKept,
}

/// A consistent set of targets: the whole ledger plus what is new. Its order does not matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Concept {
    kept: Vec<i64>,
    /// Sorted by label.
    forgotten: Vec<(i64, Replacement)>,
}

/// Labels of one training batch: what the generator is asked for, and what the teacher is asked for in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draw {
    pub shown: Vec<i64>,
    pub taught: Vec<i64>,
}

impl Concept {
    /// Nothing is forgotten.
    pub fn keep_all(classes: i64) -> Self {
        Self { kept: (0..classes).collect(), forgotten: Vec::new() }
    }

    /// Checks the targets against each other and resolves `Nearest` by the judge's confusion matrix of the baseline.
    ///
    /// # Errors
    /// See [`ConceptError`].
    pub fn new(
        classes: i64,
        targets: &[Target],
        confusion: Option<&Confusion>,
    ) -> Result<Self, ConceptError> {
        let mut targets = targets.to_vec();
        targets.sort_by_key(|target| target.label);
        for (index, target) in targets.iter().enumerate() {
            known(target.label, classes)?;
            if index > 0 && targets[index - 1].label == target.label {
                return Err(ConceptError::Duplicate(target.label));
            }
        }
        let is_forgotten = |label: i64| targets.iter().any(|target| target.label == label);
        let kept: Vec<i64> = (0..classes).filter(|&label| !is_forgotten(label)).collect();
        if kept.is_empty() {
            return Err(ConceptError::NothingKept);
        }
        let resolved = targets.iter().map(|target| {
            let replacement = resolve(*target, classes, &kept, confusion)?;
            Ok((target.label, replacement))
        });
        Ok(Self { forgotten: resolved.collect::<Result<_, ConceptError>>()?, kept })
    }

    /// Labels that stay, in ascending order.
    pub fn kept(&self) -> &[i64] {
        &self.kept
    }

    /// Labels that go, in ascending order, and what takes their place.
    pub fn forgotten(&self) -> &[(i64, Replacement)] {
        &self.forgotten
    }

    /// Labels for the samples `first..first + remain + forget` of a training: first `remain` under kept labels, taught
    /// as they are, then `forget` under forgotten labels, taught their replacement. Uniform over labels in both parts.
    ///
    /// # Panics
    /// If `forget` is not zero and nothing is forgotten.
    pub fn draw(&self, seed: u64, first: u64, remain: i64, forget: i64) -> Draw {
        let labels = Noise::new(seed, Stream::Label);
        let replacements = Noise::new(seed, Stream::Replacement);
        let kept = labels.below(first, remain, self.kept.len()).into_iter().map(|index| self.kept[index]);
        let mut shown: Vec<i64> = kept.collect();
        let mut taught = shown.clone();
        let start = first + remain as u64;
        let any = replacements.below(start, forget, self.kept.len());
        for (index, any) in labels.below(start, forget, self.forgotten.len().max(1)).into_iter().zip(any) {
            let (label, replacement) = self.forgotten[index];
            shown.push(label);
            taught.push(match replacement {
                Replacement::Label(label) => label,
                Replacement::AnyKept => self.kept[any],
            });
        }
        Draw { shown, taught }
    }
}

fn resolve(
    target: Target,
    classes: i64,
    kept: &[i64],
    confusion: Option<&Confusion>,
) -> Result<Replacement, ConceptError> {
    match target.replacement {
        Override::Random => Ok(Replacement::AnyKept),
        Override::Fixed(replacement) => {
            known(replacement, classes)?;
            if !kept.contains(&replacement) {
                return Err(ConceptError::OverrideForgotten { target: target.label, replacement });
            }
            Ok(Replacement::Label(replacement))
        }
        Override::Nearest => {
            let confusion = confusion.ok_or(ConceptError::NoConfusion(target.label))?;
            if confusion.classes() as i64 != classes {
                let (given, expected) = (confusion.classes(), classes as usize);
                return Err(ConceptError::ConfusionSize { given, expected });
            }
            Ok(Replacement::Label(confusion.nearest(target.label, kept)))
        }
    }
}

fn known(label: i64, classes: i64) -> Result<(), ConceptError> {
    if (0..classes).contains(&label) {
        return Ok(());
    }
    Err(ConceptError::UnknownLabel { label, last: classes - 1 })
}
