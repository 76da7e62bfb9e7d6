//! What is forgotten, what is kept, and what takes a forgotten label's place.

use crate::error::ConceptError;
use crate::measure::Confusion;
use crate::noise::{Noise, Stream};
use crate::settings::LabelPrior;

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
    /// The kept label that each sample looks like to the judge, as far as the fake score can make it out.
    Classifier(Choice),
}

/// Which of the kept labels that the judge finds in a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The likeliest.
    Likeliest,
    /// Any, as likely as the judge finds it.
    Sampled,
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
    /// The judge chooses among the kept labels while the generator is trained.
    Judged(Choice),
}

/// A consistent set of targets: the whole ledger plus what is new. Its order does not matter.
#[derive(Debug, Clone, PartialEq)]
pub struct Concept {
    kept: Vec<i64>,
    /// How often a kept label or one before it is shown, from above zero to one; empty if all are shown equally often.
    cumulated: Vec<f64>,
    /// The label that asks for none, and how often it is shown in a kept label's place.
    null: Option<(i64, f64)>,
    /// Sorted by label.
    forgotten: Vec<(i64, Replacement)>,
}

/// Labels of one training batch: what the generator is asked for, and what the teacher is asked for in its place. Where
/// the judge is to choose, any kept label stands for its choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draw {
    pub shown: Vec<i64>,
    pub taught: Vec<i64>,
}

impl Concept {
    /// Nothing is forgotten.
    pub fn keep_all(classes: i64) -> Self {
        let kept = (0..classes).collect();
        Self { kept, cumulated: Vec::new(), null: None, forgotten: Vec::new() }
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
        let forgotten = resolved.collect::<Result<_, ConceptError>>()?;
        Ok(Self { forgotten, kept, cumulated: Vec::new(), null: None })
    }

    /// Shows kept labels as often as `prior` says.
    ///
    /// # Errors
    /// If it names a label that is not kept, or needs a confusion matrix that is not there.
    pub fn with_prior(self, prior: &LabelPrior, confusion: Option<&Confusion>) -> Result<Self, ConceptError> {
        let weights: Vec<f64> = match prior {
            LabelPrior::Uniform => return Ok(Self { cumulated: Vec::new(), ..self }),
            LabelPrior::Weights(weights) => {
                if let Some(&label) = weights.keys().find(|label| !self.kept.contains(label)) {
                    return Err(ConceptError::WeightOfNotKept(label));
                }
                self.kept.iter().map(|label| weights.get(label).copied().unwrap_or(1.0)).collect()
            }
            LabelPrior::Neighbours(more) => {
                let confusion = confusion.ok_or(ConceptError::NoNeighbours)?;
                let alike = |&label: &i64| {
                    let of =
                        |&(target, _): &(i64, Replacement)| confusion.likeness(target, label, &self.kept);
                    self.forgotten.iter().map(of).fold(0.0, f64::max)
                };
                self.kept.iter().map(|label| 1.0 + more * alike(label)).collect()
            }
        };
        let total: f64 = weights.iter().sum();
        let sums = weights.iter().scan(0.0, |sum, weight| {
            *sum += weight / total;
            Some(*sum)
        });
        Ok(Self { cumulated: sums.collect(), ..self })
    }

    /// Hides this share of the labels in the remain part behind `null`, the label that asks for none: the teacher is
    /// still asked for them, so that what comes without a condition is a mixture of what is kept.
    pub(crate) fn with_null(self, null: Option<i64>, share: f64) -> Self {
        Self { null: null.filter(|_| share > 0.0).map(|null| (null, share)), ..self }
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
    /// as they are, then `forget` under forgotten labels, taught their replacement. The forget part is uniform over labels, the remain part unless there is a prior.
    ///
    /// # Panics
    /// If `forget` is not zero and nothing is forgotten.
    pub fn draw(&self, seed: u64, first: u64, remain: i64, forget: i64) -> Draw {
        let labels = Noise::new(seed, Stream::Label);
        let replacements = Noise::new(seed, Stream::Replacement);
        let mut taught = self.draw_kept(&labels, first, remain);
        let mut shown = taught.clone();
        if let Some((null, share)) = self.null {
            let hidden = Noise::new(seed, Stream::NullLabel).uniform(first, remain);
            shown.iter_mut().zip(hidden).filter(|(_, u)| u < &share).for_each(|(label, _)| *label = null);
        }
        let start = first + remain as u64;
        let any = replacements.below(start, forget, self.kept.len());
        for (index, any) in labels.below(start, forget, self.forgotten.len().max(1)).into_iter().zip(any) {
            let (label, replacement) = self.forgotten[index];
            shown.push(label);
            taught.push(self.instead(replacement, any));
        }
        Draw { shown, taught }
    }

    /// A label that a replacement stands for: the `any`th kept one if it may be any.
    pub(crate) fn instead(&self, replacement: Replacement, any: usize) -> i64 {
        match replacement {
            Replacement::Label(label) => label,
            Replacement::AnyKept | Replacement::Judged(_) => self.kept[any],
        }
    }

    /// What the judge chooses by for samples under `label`, if it does.
    pub(crate) fn choice(&self, label: i64) -> Option<Choice> {
        match self.forgotten.iter().find(|(forgotten, _)| *forgotten == label) {
            Some((_, Replacement::Judged(choice))) => Some(*choice),
            _ => None,
        }
    }

    /// Whether the judge chooses for any sample.
    pub(crate) fn is_judged(&self) -> bool {
        self.forgotten.iter().any(|(_, replacement)| matches!(replacement, Replacement::Judged(_)))
    }

    fn draw_kept(&self, labels: &Noise, first: u64, n: i64) -> Vec<i64> {
        if self.cumulated.is_empty() {
            return labels
                .below(first, n, self.kept.len())
                .into_iter()
                .map(|index| self.kept[index])
                .collect();
        }
        let last = self.kept.len() - 1;
        let at = |u: f64| self.cumulated.partition_point(|&sum| sum <= u).min(last);
        labels.uniform(first, n).into_iter().map(|u| self.kept[at(u)]).collect()
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
        Override::Classifier(choice) => Ok(Replacement::Judged(choice)),
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
