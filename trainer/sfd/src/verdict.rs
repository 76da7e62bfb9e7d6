//! Overrides that the judge chooses, sample by sample.

use crate::concept::{Choice, Concept};
use crate::judge::Judge;
use crate::noise::{Noise, Stream};
use tch::{Kind, Tensor, no_grad};

/// Which samples of a batch the judge is asked about, and all that is random about its answers.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// Samples for which the judge chooses: [B]
    judged: Tensor,
    /// Those of them for which it draws: [B]
    sampled: Tensor,
    /// Uniform in (0, 1): [B, 1]
    uniform: Tensor,
    /// One for labels that may be chosen, zero for the forgotten ones: [B, classes]
    kept: Tensor,
}

impl Verdict {
    /// For the samples `first..` that show these labels, on the CPU; `None` if the judge chooses for no label.
    pub(crate) fn draw(
        concept: &Concept,
        shown: &[i64],
        seed: u64,
        first: u64,
        classes: i64,
    ) -> Option<Self> {
        if !concept.is_judged() {
            return None;
        }
        let choices: Vec<Option<Choice>> = shown.iter().map(|&label| concept.choice(label)).collect();
        let mask = |holds: fn(&Option<Choice>) -> bool| {
            Tensor::from_slice(&choices.iter().map(holds).collect::<Vec<bool>>())
        };
        let kept: Vec<f64> =
            (0..classes).map(|label| f64::from(u8::from(concept.kept().contains(&label)))).collect();
        let uniform = Noise::new(seed, Stream::JudgedLabel).uniform(first, shown.len() as i64);
        Some(Self {
            judged: mask(Option::is_some),
            sampled: mask(|choice| *choice == Some(Choice::Sampled)),
            uniform: Tensor::from_slice(&uniform).view([-1, 1]),
            kept: Tensor::from_slice(&kept).expand([shown.len() as i64, -1], false),
        })
    }

    /// The same with each tensor changed; all are [B, ..].
    pub(crate) fn map(&self, of: impl Fn(&Tensor) -> Tensor) -> Self {
        let Self { judged, sampled, uniform, kept } = self;
        Self { judged: of(judged), sampled: of(sampled), uniform: of(uniform), kept: of(kept) }
    }

    /// What each sample is taught: the judge's choice where it has one, `otherwise` elsewhere.
    ///
    /// # Shapes
    /// denoised: [B, pixels]; otherwise: [B] -> [B]
    pub(crate) fn teach(&self, judge: &Judge, denoised: &Tensor, otherwise: &Tensor) -> Tensor {
        no_grad(|| {
            let (_, probability) = judge.look(&denoised.detach().to_kind(Kind::Float));
            let probability = probability.to_kind(Kind::Double) * &self.kept;
            let likeliest = probability.argmax(1, false);
            let drawn = inverse_cdf(&probability, &self.uniform);
            let chosen = drawn.where_self(&self.sampled, &likeliest);
            chosen.where_self(&self.judged, otherwise)
        })
    }
}

/// The label at which the cumulated probability first exceeds the share `uniform` of the total; a label without
/// probability is never it.
///
/// # Shapes
/// probability: [B, classes]; uniform: [B, 1] -> [B]
fn inverse_cdf(probability: &Tensor, uniform: &Tensor) -> Tensor {
    let cumulated = probability.cumsum(1, Kind::Double);
    let total = cumulated.narrow(1, -1, 1);
    cumulated.le_tensor(&(uniform * total)).sum_dim_intlist(1, false, Kind::Int64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::concept::{Override, Target};
    use crate::{Device, JudgeSettings, testing};

    const N: usize = 400;

    fn concept(choice: Choice) -> Concept {
        let targets = [
            Target { label: 1, replacement: Override::Classifier(choice) },
            Target { label: 2, replacement: Override::Fixed(3) },
        ];
        Concept::new(4, &targets, None).unwrap()
    }

    /// A judge of four labels that has learnt next to nothing, so that it is never sure.
    fn unsure() -> Judge {
        let teacher = crate::Denoiser::init(&testing::tiny(), 1, Device::Cpu).unwrap();
        let settings = JudgeSettings {
            samples_per_label: 4,
            steps: 1,
            batch: 4,
            hidden: 8,
            features: 4,
            ..JudgeSettings::default()
        };
        Judge::train(&teacher, &settings, 4, 1, &|| false).unwrap()
    }

    fn taught(choice: Choice, image: &Tensor) -> Vec<i64> {
        let shown: Vec<i64> = (0..N as i64).map(|index| index % 4).collect();
        let verdict = Verdict::draw(&concept(choice), &shown, 5, 0, 4).unwrap();
        let otherwise = Tensor::from_slice(&vec![3_i64; N]);
        Vec::try_from(verdict.teach(&unsure(), &image.expand([N as i64, 4], false), &otherwise)).unwrap()
    }

    #[test]
    fn the_judge_chooses_only_kept_labels_and_only_where_it_is_asked() {
        let image = Tensor::from_slice(&[0.9_f32, -0.5, -0.5, -0.5]).view([1, 4]);
        let (_, probability) = unsure().look(&image);
        let probability = Vec::<f32>::try_from(probability.view([-1])).unwrap();
        let likeliest = if probability[0] > probability[3] { 0 } else { 3 };
        for (index, &label) in taught(Choice::Likeliest, &image).iter().enumerate() {
            assert_eq!(label, if index % 4 == 1 { likeliest } else { 3 });
        }
        let drawn: Vec<i64> = taught(Choice::Sampled, &image).into_iter().skip(1).step_by(4).collect();
        assert!(drawn.iter().all(|label| [0, 3].contains(label)), "{drawn:?}");
        let share = drawn.iter().filter(|&&label| label == 0).count() as f32 / drawn.len() as f32;
        let expected = probability[0] / (probability[0] + probability[3]);
        assert!((share - expected).abs() < 0.2, "{share} of the samples, expected {expected}");
        assert!(share > 0.0 && share < 1.0);
    }

    #[test]
    fn a_label_without_probability_is_never_drawn() {
        let probability = Tensor::from_slice(&[0.0, 0.5, 0.0, 0.2, 0.0]).view([1, 5]).expand([3, 5], false);
        let uniform = Tensor::from_slice(&[1e-12, 0.714, 1.0 - 1e-10]).view([3, 1]);
        assert_eq!(Vec::<i64>::try_from(inverse_cdf(&probability, &uniform)).unwrap(), [1, 1, 3]);
    }

    #[test]
    fn without_a_label_to_choose_for_nothing_is_drawn() {
        let target = Target { label: 1, replacement: Override::Random };
        let concept = Concept::new(4, &[target], None).unwrap();
        assert!(Verdict::draw(&concept, &[0, 1], 5, 0, 4).is_none());
    }
}
