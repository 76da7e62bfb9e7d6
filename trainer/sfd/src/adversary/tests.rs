use super::*;
use crate::concept::{Override, Target};
use crate::testing::{largest, models, tiny};
use tch::Device;

fn concept() -> Concept {
    let targets = [
        Target { label: 1, replacement: Override::Random },
        Target { label: 2, replacement: Override::Fixed(0) },
    ];
    Concept::new(4, &targets, None).unwrap()
}

#[test]
fn a_label_that_is_only_hidden_is_found_under_another_row() {
    let models = models();
    let theta = models.baseline.generator;
    let table = Table::of(&theta).unwrap();
    // Nothing is left of label 2 but the weights.
    table.set(&theta, 2, &table.rows(&theta).get(0));
    let concept = Concept::new(4, &[Target { label: 2, replacement: Override::Fixed(0) }], None).unwrap();
    let settings = Adversary { rows: 3, steps: 100, level: 0.5, ..Adversary::default() };
    let mut search = Search::new(settings, &concept, &theta, 5).unwrap();
    let before = theta.to_bytes();
    search.look(&models.teacher, &theta, &concept, 0);
    assert!(theta.to_bytes() == before, "a search writes nothing but its rows");
    let latent = Noise::new(1, Stream::MeasureLatent).normal(0, 50, 4, Device::Cpu);
    let share = |row: i64| {
        let label = Tensor::full([50], row, (Kind::Int64, Device::Cpu));
        let images = generator::generate(&search.rows().after_those_of(&theta), &latent, &label);
        let judged = models.judge.look(&images).1.argmax(1, false).eq(2);
        judged.mean(Kind::Double).double_value(&[])
    };
    assert!(share(2) < 0.1 && share(0) < 0.1, "the label shows under its own row or its replacement's");
    let found = [4, 5, 6].map(share);
    assert!(found.iter().any(|share| *share > 0.8), "{found:?}");
}

#[test]
fn a_search_repeats_itself_and_only_when_it_is_time() {
    let teacher = Denoiser::init(&tiny(), 1, Device::Cpu).unwrap();
    let settings = Adversary { every: 4, rows: 2, steps: 2, ..Adversary::default() };
    let search = |steps: &[u64]| {
        let mut search = Search::new(settings.clone(), &concept(), &teacher, 5).unwrap();
        steps.iter().for_each(|&step| search.look(&teacher, &teacher, &concept(), step));
        search.rows
    };
    assert!(search(&[0]).equal(&search(&[0])));
    assert!(search(&[0, 1, 2, 3]).equal(&search(&[0])));
    assert!(search(&[0, 4]).equal(&search(&[4])));
    assert!(!search(&[0]).equal(&search(&[4])));
}

#[test]
fn some_samples_under_forgotten_labels_are_shown_under_rows_of_their_label() {
    let teacher = Denoiser::init(&tiny(), 1, Device::Cpu).unwrap();
    let settings = Adversary { rows: 3, share: 0.25, ..Adversary::default() };
    let search = Search::new(settings, &concept(), &teacher, 5).unwrap();
    let before: Vec<i64> = [0, 3].into_iter().chain((0..400).map(|index| 1 + index % 3 % 2)).collect();
    let mut after = before.clone();
    search.disguise(&mut after, 2, 64);
    let changed: Vec<(i64, i64)> =
        before.iter().zip(&after).filter(|(a, b)| a != b).map(|(a, b)| (*a, *b)).collect();
    assert_eq!((changed.len(), &after[..2]), (100, &before[..2]));
    assert!(changed.iter().all(|&(label, row)| (4 + 3 * (label - 1)..4 + 3 * label).contains(&row)));
    assert!((4..10).all(|row| after.contains(&row)));
}

/// The rows are asked for in psi and theta, and gradients reach the weights through them, but not the rows.
#[test]
fn under_a_row_the_weights_are_trained_and_the_row_is_not() {
    let theta = crate::testing::random_model(3);
    let settings = Adversary { rows: 1, ..Adversary::default() };
    let search = Search::new(settings, &concept(), &theta, 5).unwrap();
    let extended = search.rows().after_those_of(&theta);
    let latent = Noise::new(1, Stream::FakeLatent).normal(0, 3, 4, Device::Cpu).to_kind(Kind::Double);
    let label = Tensor::full([3], 5, (Kind::Int64, Device::Cpu));
    let images = generator::generate_trainable(&extended, &latent, &label);
    // The first row of every target is yet the model's first label's.
    let first = generator::generate(&theta, &latent, &Tensor::zeros([3], (Kind::Int64, Device::Cpu)));
    assert!(largest(&(images.clamp(-1.0, 1.0) - first)) < 1e-12);
    let loss = images.square().sum(None::<Kind>);
    let gradient = theta.params().gradient(&loss);
    assert!(largest(&gradient) > 0.0 && !search.rows.requires_grad());
    let table = search.table.rows(&theta);
    let of_table: Vec<bool> = theta
        .params()
        .named()
        .scan(0, |offset, (name, value)| {
            let len = value.numel() as i64;
            *offset += len;
            Some(name != "labels.weight" || largest(&gradient.narrow(0, *offset - len, len)) == 0.0)
        })
        .collect();
    assert!(of_table.into_iter().all(|holds| holds) && table.size()[0] == 4);
}
