use super::*;
use crate::concept::{Override, Target};
use crate::config::{DiscreteConfig, MlpConfig, NoiseConfig, SongUnetConfig};
use crate::iteration::Nets;
use crate::measure::{self, Reference};
use crate::noise::{Noise, Stream};
use crate::settings::{Adversary, Gradient, Precision, SfdOptimiser};
use crate::testing::{self, Models, images, run, tiny};
use crate::{
    Choice, Device, EarlyStop, Error, ImageShape, ModelConfig, NetworkConfig, TeachSettings, Teaching,
    WeightsError,
};
use tch::Kind;

mod pieces;

fn teaching() -> Teaching {
    let settings = TeachSettings { steps: 12, batch: 6, warmup_steps: 3, ..TeachSettings::default() };
    Teaching::new(&tiny(), images(), settings, 3, Device::Cpu).unwrap()
}

fn teacher() -> Denoiser {
    let mut training = teaching();
    run(&mut training, 12);
    training.finish().unwrap()
}

fn distillation(teacher: &Denoiser, seed: u64) -> Distillation {
    let settings = DistilSettings { steps: 12, batch: 6, ..DistilSettings::default() };
    Distillation::new(teacher.duplicate(), settings, seed).unwrap()
}

fn few_steps() -> ForgetSettings {
    ForgetSettings { steps: 12, remain_batch: 5, forget_batch: 3, ..Default::default() }
}

fn forgetting(teacher: &Denoiser, forgotten: &[i64]) -> Result<Forgetting> {
    forgetting_with(teacher, forgotten, few_steps())
}

fn forgetting_with(teacher: &Denoiser, forgotten: &[i64], settings: ForgetSettings) -> Result<Forgetting> {
    let targets: Vec<Target> =
        forgotten.iter().map(|&label| Target { label, replacement: Override::Random }).collect();
    let start = Baseline { generator: teacher.duplicate(), fake_score: teacher.duplicate() };
    Forgetting::new(teacher.duplicate(), start, Concept::new(4, &targets, None)?, settings, 5)
}

/// All steps at once, and then some steps, a checkpoint, a fresh training and the rest: the same state to the bit.
fn assert_resumable<T: Training>(fresh: impl Fn() -> T, resume: impl Fn(&mut T, &[u8]) -> Result<()>) {
    let mut whole = fresh();
    run(&mut whole, 12);
    let mut first = fresh();
    run(&mut first, 5);
    let saved = first.checkpoint().unwrap();
    let mut second = fresh();
    resume(&mut second, &saved).unwrap();
    assert_eq!(second.step(), 5);
    run(&mut second, 7);
    assert!(second.done());
    assert!(whole.checkpoint().unwrap() == second.checkpoint().unwrap());
    assert!(saved != whole.checkpoint().unwrap());
    assert_eq!(whole.report().unwrap(), second.report().unwrap());
}

#[test]
fn in_discrete_time_the_generators_range_is_the_models_own() {
    let noise = NoiseConfig { sigma_min: 0.01, sigma_max: 157.0, ..NoiseConfig::default() };
    let parametrisation = Parametrisation::Epsilon(DiscreteConfig::default());
    let teacher = Denoiser::init(&ModelConfig { parametrisation, noise, ..tiny() }, 1, Device::Cpu).unwrap();
    forgetting(&teacher, &[2]).unwrap();
    let optimiser = SfdOptimiser { generator_range: 0.9, ..SfdOptimiser::default() };
    let error = forgetting_with(&teacher, &[2], ForgetSettings { optimiser, ..few_steps() }).unwrap_err();
    assert!(error.to_string().contains("optimiser.generatorRange is 0.9"), "{error}");
}

#[test]
fn a_resumed_teaching_equals_an_uninterrupted_one() {
    assert_resumable(teaching, Teaching::resume);
}

#[test]
fn a_resumed_distillation_equals_an_uninterrupted_one() {
    let teacher = teacher();
    assert_resumable(|| distillation(&teacher, 5), Distillation::resume);
}

#[test]
fn a_resumed_forgetting_equals_an_uninterrupted_one() {
    let teacher = teacher();
    assert_resumable(|| forgetting(&teacher, &[2]).unwrap(), Forgetting::resume);
}

#[test]
fn a_resumed_forgetting_that_re_enters_equals_an_uninterrupted_one() {
    let teacher = teacher();
    let fresh = || {
        let settings = ForgetSettings { reentry: PartShares { remain: 0.4, forget: 0.4 }, ..few_steps() };
        forgetting_with(&teacher, &[2], settings).unwrap()
    };
    assert_resumable(fresh, Forgetting::resume);
    let mut without = forgetting(&teacher, &[2]).unwrap();
    run(&mut without, 12);
    let mut with = fresh();
    run(&mut with, 12);
    assert!(without.finish().unwrap().to_bytes() != with.finish().unwrap().to_bytes());
}

#[test]
fn a_resumed_forgetting_with_an_adversary_equals_an_uninterrupted_one() {
    let teacher = teacher();
    let fresh = || {
        let adversary =
            Adversary { every: 3, rows: 2, steps: 2, batch: 3, share: 0.5, ..Adversary::default() };
        let settings = ForgetSettings { adversary: Some(adversary), ..few_steps() };
        forgetting_with(&teacher, &[2], settings).unwrap()
    };
    assert_resumable(fresh, Forgetting::resume);
    let finished = |mut training: Forgetting| {
        run(&mut training, 12);
        training.finish().unwrap().to_bytes()
    };
    let with = finished(fresh());
    assert!(with != finished(forgetting(&teacher, &[2]).unwrap()));
    assert_eq!(with.len(), teacher.to_bytes().len(), "nothing of the rows is left in the candidate");
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_others() {
    let teacher = teacher();
    let bytes = |seed| {
        let mut training = distillation(&teacher, seed);
        run(&mut training, 12);
        training.finish().unwrap().generator.to_bytes()
    };
    assert!(bytes(1) == bytes(1));
    assert!(bytes(1) != bytes(2));
}

#[test]
fn the_order_of_the_targets_does_not_matter() {
    let teacher = teacher();
    let bytes = |targets: &[i64]| {
        let mut training = forgetting(&teacher, targets).unwrap();
        run(&mut training, 12);
        training.finish().unwrap().to_bytes()
    };
    assert!(bytes(&[0, 2]) == bytes(&[2, 0]));
    assert!(bytes(&[0, 2]) != bytes(&[0, 1]));
}

#[test]
fn each_half_of_an_iteration_writes_one_network() {
    let mut iteration = forgetting(&teacher(), &[2]).unwrap().iteration;
    let bytes = |Iteration { nets, average, .. }: &Iteration| {
        [&nets.teacher, &nets.fake_score, &nets.generator, average].map(Denoiser::to_bytes)
    };
    let changed =
        |before: &[Vec<u8>; 4], after: &[Vec<u8>; 4]| [0, 1, 2, 3].map(|net| before[net] != after[net]);
    iteration.step = 1;
    let batch = iteration.batch();

    let before = bytes(&iteration);
    let _ = iteration.follow_generator(&batch);
    let between = bytes(&iteration);
    assert_eq!(changed(&before, &between), [false, true, false, false]);
    let _ = iteration.follow_teacher(&batch);
    assert_eq!(changed(&between, &bytes(&iteration)), [false, false, true, true]);
}

#[test]
fn another_training_refuses_the_state() {
    let teacher = teacher();
    let saved = distillation(&teacher, 5).checkpoint().unwrap();
    let refusal = |result: Result<()>| result.unwrap_err().to_string();

    let message = refusal(distillation(&teacher, 6).resume(&saved));
    assert!(message.contains("seed was 5, and is 6 now"), "{message}");
    let message = refusal(forgetting(&teacher, &[2]).unwrap().resume(&saved));
    assert!(message.contains("stage was \"distil\""), "{message}");
    let message = refusal(
        forgetting(&teacher, &[1])
            .unwrap()
            .resume(&forgetting(&teacher, &[2]).unwrap().checkpoint().unwrap()),
    );
    assert!(message.contains("targets"), "{message}");
    // The same settings of another teacher.
    let message = refusal(distillation(&Denoiser::init(&tiny(), 9, Device::Cpu).unwrap(), 5).resume(&saved));
    assert!(message.contains("input was"), "{message}");
    let truncated = distillation(&teacher, 5).resume(&saved[..saved.len() - 1]);
    assert!(
        matches!(truncated, Err(Error::Weights { source: WeightsError::Malformed(_), .. })),
        "{truncated:?}"
    );
}

#[test]
fn divergence_names_the_step_and_the_tensor() {
    let mut training = distillation(&teacher(), 5);
    run(&mut training, 3);
    let _ = training.0.nets.generator.params().named().last().unwrap().1.shallow_clone().fill_(f64::NAN);
    for message in
        [training.checkpoint().unwrap_err().to_string(), training.report().unwrap_err().to_string()]
    {
        assert!(message.contains("step 3") && message.contains("output.bias of the generator"), "{message}");
    }
    run(&mut training, 1);
    let message = training.report().unwrap_err().to_string();
    assert!(message.contains("step 4") && message.contains("loss"), "{message}");
}

/// Clipped, an infinite gradient is finite, and the weights stay so: only the norm tells.
#[test]
fn a_gradient_that_overflows_is_named_while_loss_and_weights_are_finite() {
    let found = (10..30).find_map(|exponent| {
        let mut training = distillation(&teacher(), 5);
        let weights = training.0.nets.fake_score.params();
        let output = weights.named().find(|(name, _)| *name == "output.weight").unwrap().1.shallow_clone();
        let _ = no_grad(|| output.shallow_clone().fill_(10_f64.powi(exponent)));
        run(&mut training, 1);
        training.report().err().map(|error| error.to_string()).filter(|message| message.contains("gradient"))
    });
    let message = found.expect("some weights are large enough for that");
    assert!(message.contains("step 1: the gradient of the fake score"), "{message}");
}

#[test]
fn a_finished_training_does_nothing_more() {
    let mut training = distillation(&teacher(), 5);
    run(&mut training, 12);
    let saved = training.checkpoint().unwrap();
    run(&mut training, 3);
    assert!(saved == training.checkpoint().unwrap());
}

#[test]
fn forgetting_nothing_or_a_foreign_baseline_is_refused() {
    let teacher = teacher();
    assert!(matches!(forgetting(&teacher, &[]), Err(Error::Config { field: "targets", .. })));
    let mut other = tiny();
    other.network = MlpConfig { width: 7, ..MlpConfig::default() }.into();
    let foreign = || Denoiser::init(&other, 1, Device::Cpu).unwrap();
    let concept = Concept::new(4, &[Target { label: 1, replacement: Override::Random }], None).unwrap();
    let start = Baseline { generator: teacher.duplicate(), fake_score: foreign() };
    let result = Forgetting::new(teacher, start, concept, ForgetSettings::default(), 1);
    assert!(matches!(result, Err(Error::Config { field: "fake score", .. })));
}

#[test]
fn a_hardened_forgetting_starts_between_the_baseline_and_nothing() {
    let teacher = teacher();
    let start = |fresh_weights: f64, seed: u64| {
        let settings = ForgetSettings { fresh_weights, ..Default::default() };
        let baseline = Baseline { generator: teacher.duplicate(), fake_score: teacher.duplicate() };
        let target = Target { label: 2, replacement: Override::Random };
        let concept = Concept::new(4, &[target], None).unwrap();
        let forgetting = Forgetting::new(teacher.duplicate(), baseline, concept, settings, seed).unwrap();
        assert!(
            forgetting
                .iteration
                .average
                .params()
                .flat()
                .equal(forgetting.iteration.nets.generator.params().flat())
        );
        assert!(forgetting.iteration.nets.fake_score.params().flat().equal(teacher.params().flat()));
        forgetting.iteration.nets.generator.params().flat().copy()
    };
    let (baseline, fresh) = (start(0.0, 5), start(1.0, 5));
    assert!(baseline.equal(teacher.params().flat()));
    let between = start(0.25, 5);
    assert!(crate::testing::largest(&(between - (baseline * 0.75 + &fresh * 0.25))) < 1e-6);
    // Neither the seed's own initial weights, which the teacher may have had, nor another seed's.
    assert!(!fresh.equal(Denoiser::init(&tiny(), 5, Device::Cpu).unwrap().params().flat()));
    assert!(!fresh.equal(&start(1.0, 6)));
}

#[test]
fn one_stage_starts_both_networks_from_the_teacher_and_two_from_the_baseline() {
    let (teacher, other) = (teacher(), Denoiser::init(&tiny(), 8, Device::Cpu).unwrap());
    let start = |stages| {
        let settings = ForgetSettings { stages, ..Default::default() };
        let baseline = Baseline { generator: other.duplicate(), fake_score: other.duplicate() };
        let concept = Concept::new(4, &[Target { label: 2, replacement: Override::Random }], None).unwrap();
        let it = Forgetting::new(teacher.duplicate(), baseline, concept, settings, 5).unwrap().iteration;
        [it.nets.teacher, it.nets.fake_score, it.nets.generator]
            .map(|network| network.to_bytes() == teacher.to_bytes())
    };
    assert_eq!(start(Stages::One), [true, true, true]);
    assert_eq!(start(Stages::Two), [true, false, false], "the teacher is never the fake score");
}

#[test]
fn what_needs_the_judge_says_so() {
    let teacher = teacher();
    let refusal = |settings: ForgetSettings, replacement| {
        let baseline = Baseline { generator: teacher.duplicate(), fake_score: teacher.duplicate() };
        let concept = Concept::new(4, &[Target { label: 2, replacement }], None).unwrap();
        Forgetting::new(teacher.duplicate(), baseline, concept, settings, 5).unwrap_err().to_string()
    };
    let stop = ForgetSettings { early_stop: Some(EarlyStop::default()), ..Default::default() };
    assert!(refusal(stop, Override::Random).contains("forget.earlyStop"));
    let neighbours = ForgetSettings { label_prior: LabelPrior::Neighbours(1.0), ..Default::default() };
    assert!(refusal(neighbours, Override::Random).contains("neighbours"));
    let judged = Override::Classifier(Choice::Sampled);
    assert!(refusal(ForgetSettings::default(), judged).contains("by classifier"));
}

/// The one-pixel labels with a network that has room for them.
fn roomy() -> Models {
    let network = MlpConfig { width: 24, blocks: 2, embedding: 12, frequencies: 4 }.into();
    testing::models_of(&crate::ModelConfig { network, ..tiny() })
}

const STEPS: u64 = 400;

/// Fewer and faster steps than for images of something.
fn quick() -> ForgetSettings {
    ForgetSettings {
        steps: STEPS,
        remain_batch: 32,
        forget_batch: 32,
        fake_score_learning_rate: 5e-3,
        generator_learning_rate: 2e-3,
        ..Default::default()
    }
}

/// A forgetting of label 2 of the one-pixel labels.
fn of_models(models: &Models, replacement: Override, settings: ForgetSettings) -> Forgetting {
    let concept = Concept::new(4, &[Target { label: 2, replacement }], None).unwrap();
    let Models { teacher, judge, baseline, reference } = models;
    let judge = Judge::from_bytes(teacher.config(), &judge.to_bytes(), Device::Cpu).unwrap();
    let reference = Reference::from_bytes(teacher.config(), &judge, &reference.to_bytes()).unwrap();
    let measures = Measures { judge, reference: Some(reference) };
    let start = baseline.duplicate();
    Forgetting::with_measures(teacher.duplicate(), start, concept, settings, 5, measures).unwrap()
}

/// Every form of the algorithm makes the label go and what is kept stay.
#[test]
fn every_form_forgets() {
    let models = roomy();
    let gradient = Gradient::DiffInstruct;
    let by_judge = Override::Classifier;
    let forms = [
        ("fixed", Override::Fixed(0), quick()),
        ("random", Override::Random, quick()),
        ("likeliest", by_judge(Choice::Likeliest), quick()),
        ("sampled", by_judge(Choice::Sampled), quick()),
        ("one stage", Override::Fixed(0), ForgetSettings { stages: Stages::One, ..quick() }),
        (
            "neighbours",
            Override::Fixed(0),
            ForgetSettings { label_prior: LabelPrior::Neighbours(1.0), ..quick() },
        ),
        (
            "diff-instruct",
            Override::Fixed(0),
            ForgetSettings { optimiser: SfdOptimiser { gradient, ..Default::default() }, ..quick() },
        ),
    ];
    let found = forms.map(|(name, replacement, settings)| {
        let mut forgetting = of_models(&models, replacement, settings);
        run(&mut forgetting, STEPS);
        let candidate = forgetting.finish().unwrap();
        let share =
            |asked, seen| measure::census(&candidate, &models.judge, asked, 200, 1).count(seen).share();
        let kept = [0, 1, 3].map(|label| share(label, label)).into_iter().fold(1.0, f64::min);
        (name, replacement, share(2, 2), share(2, 0), kept)
    });
    for (name, replacement, leak, instead, kept) in &found {
        assert!(*leak < 0.2 && *kept > 0.8, "{name} leaks {leak} and keeps {kept}: {found:?}");
        assert!(
            *replacement != Override::Fixed(0) || *instead > 0.8,
            "{name} shows 0 in {instead}: {found:?}"
        );
    }
}

/// A model that can be asked without a label shows, once it has forgotten, only what is kept.
#[test]
fn without_a_label_only_what_is_kept_is_shown() {
    let config = crate::ModelConfig {
        network: NetworkConfig::SongUnet(SongUnetConfig::small(8, &[1], &[])),
        ..tiny()
    };
    let models = testing::models_of(&config);
    let shown = |null_share| {
        let settings = ForgetSettings { null_share, ..quick() };
        let mut forgetting = of_models(&models, Override::Fixed(0), settings);
        let labels = forgetting.next_batch().into_iter().find(|(name, _)| *name == "shown").unwrap().1;
        let hidden = labels.eq(4).sum(None::<tch::Kind>).int64_value(&[]);
        assert_eq!(hidden > 0, null_share > 0.0, "{hidden} labels are hidden");
        run(&mut forgetting, STEPS);
        measure::census(&forgetting.finish().unwrap(), &models.judge, 4, 200, 1)
    };
    let closed = shown(0.3);
    assert!(closed.count(2).share() < 0.05, "{closed:?}");
    // Of a model this small not evenly, but not one label alone either.
    assert!([0, 1, 3].iter().all(|&label| closed.count(label).share() < 0.9), "{closed:?}");
    assert_ne!(shown(0.0).predicted, closed.predicted);
}

/// Going on from the last candidate, with everything that is to be forgotten, comes to the same as starting from the
/// baseline; with the newest target alone, the earlier one comes back.
#[test]
fn going_on_forgets_as_well_as_starting_again_if_the_whole_ledger_is_there() {
    let models = roomy();
    let forget = |start: Baseline, labels: &[i64]| {
        let targets: Vec<Target> =
            labels.iter().map(|&label| Target { label, replacement: Override::Fixed(0) }).collect();
        let concept = Concept::new(4, &targets, None).unwrap();
        let mut forgetting = Forgetting::new(models.teacher.duplicate(), start, concept, quick(), 5).unwrap();
        run(&mut forgetting, STEPS);
        forgetting.finish_with_fake_score().unwrap()
    };
    let leak = |of: &Baseline, label| {
        measure::census(&of.generator, &models.judge, label, 200, 1).count(label).share()
    };
    let first = forget(models.baseline.duplicate(), &[2]);
    assert!(leak(&first, 2) < 0.2 && leak(&first, 1) > 0.8);
    let again = forget(models.baseline.duplicate(), &[1, 2]);
    let further = forget(first.duplicate(), &[1, 2]);
    for second in [&again, &further] {
        let shares = [0, 1, 2, 3].map(|label| leak(second, label));
        assert!(shares[1] < 0.2 && shares[2] < 0.2 && shares[0] > 0.8 && shares[3] > 0.8, "{shares:?}");
    }
    assert!(leak(&forget(first, &[1]), 2) > 0.5, "without the ledger the first label comes back");
}
