use super::*;
use crate::concept::{Override, Target};
use crate::config::MlpConfig;
use crate::testing::{images, run, tiny};
use crate::{Device, TeachSettings, Teaching, WeightsError};

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

fn forgetting(teacher: &Denoiser, forgotten: &[i64]) -> Result<Forgetting> {
    let settings = ForgetSettings { steps: 12, remain_batch: 5, forget_batch: 3, ..Default::default() };
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
    let mut iteration = forgetting(&teacher(), &[2]).unwrap().0;
    let bytes =
        |it: &Iteration| [&it.teacher, &it.fake_score, &it.generator, &it.average].map(Denoiser::to_bytes);
    let changed =
        |before: &[Vec<u8>; 4], after: &[Vec<u8>; 4]| [0, 1, 2, 3].map(|net| before[net] != after[net]);
    iteration.step = 1;
    let batch = Batch::draw(&iteration.teacher, &iteration.concept, iteration.plan.shape, 5, 1);

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
    let _ = training.0.generator.params().named().last().unwrap().1.shallow_clone().fill_(f64::NAN);
    for message in
        [training.checkpoint().unwrap_err().to_string(), training.report().unwrap_err().to_string()]
    {
        assert!(message.contains("step 3") && message.contains("output.bias of the generator"), "{message}");
    }
    run(&mut training, 1);
    let message = training.report().unwrap_err().to_string();
    assert!(message.contains("step 4") && message.contains("loss"), "{message}");
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
        assert!(forgetting.0.average.params().flat().equal(forgetting.0.generator.params().flat()));
        assert!(forgetting.0.fake_score.params().flat().equal(teacher.params().flat()));
        forgetting.0.generator.params().flat().copy()
    };
    let (baseline, fresh) = (start(0.0, 5), start(1.0, 5));
    assert!(baseline.equal(teacher.params().flat()));
    let between = start(0.25, 5);
    assert!(crate::testing::largest(&(between - (baseline * 0.75 + &fresh * 0.25))) < 1e-6);
    // Neither the seed's own initial weights, which the teacher may have had, nor another seed's.
    assert!(!fresh.equal(Denoiser::init(&tiny(), 5, Device::Cpu).unwrap().params().flat()));
    assert!(!fresh.equal(&start(1.0, 6)));
}
