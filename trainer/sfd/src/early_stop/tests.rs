use super::*;
use crate::concept::{Override, Target};
use crate::settings::ForgetSettings;
use crate::sfd::Forgetting;
use crate::testing::{Models, models, run, tiny};
use crate::training::Training;
use tch::Device;

/// Every look is satisfied.
fn anything() -> EarlyStop {
    EarlyStop {
        every: 3,
        least_steps: 1,
        samples_per_target: 20,
        samples_per_kept: 20,
        most_leak: 1.0,
        least_override: 0.0,
        most_accuracy_lost: 1.0,
        most_distance: 1e9,
    }
}

fn concept() -> Concept {
    Concept::new(4, &[Target { label: 2, replacement: Override::Fixed(0) }], None).unwrap()
}

fn forgetting(models: &Models, stop: EarlyStop) -> Forgetting {
    let Models { teacher, judge, baseline, reference } = models;
    let judge = Judge::from_bytes(&tiny(), &judge.to_bytes(), Device::Cpu).unwrap();
    let reference = Reference::from_bytes(&tiny(), &judge, &reference.to_bytes()).unwrap();
    let measures = Measures { judge, reference: Some(reference) };
    let settings = ForgetSettings {
        steps: 14,
        remain_batch: 5,
        forget_batch: 3,
        early_stop: Some(stop),
        ..Default::default()
    };
    Forgetting::with_measures(teacher.duplicate(), baseline.duplicate(), concept(), settings, 5, measures)
        .unwrap()
}

fn to_the_end(mut forgetting: Forgetting) -> Forgetting {
    while !forgetting.done() {
        forgetting.advance();
    }
    forgetting
}

#[test]
fn two_good_looks_in_a_row_end_a_training_that_has_run_for_long_enough() {
    let Models { judge, baseline, reference, .. } = models();
    let fresh = Denoiser::init(&tiny(), 3, Device::Cpu).unwrap();
    // The baseline keeps all that it keeps; fresh weights nothing.
    let strict = EarlyStop { most_accuracy_lost: 0.0, most_distance: 1.01, least_steps: 9, ..anything() };
    let mut watch = Watch::new(strict, &concept(), &baseline.generator, &judge, reference, 5);
    assert!(watch.best().is_none());
    let mut look = |step, model: &Denoiser| {
        watch.look(step, 100, model, &judge);
        (watch.is_satisfied(step), watch.best().map(|best| best.equal(baseline.generator.params().flat())))
    };
    assert_eq!(look(2, &baseline.generator), (false, None), "it is not time to look");
    assert_eq!(look(3, &fresh), (false, Some(false)));
    assert_eq!(look(6, &baseline.generator), (false, Some(true)));
    assert_eq!(look(9, &fresh), (false, Some(true)), "the best is kept, and the row is broken");
    assert_eq!(look(12, &baseline.generator), (false, Some(true)));
    assert_eq!(look(15, &baseline.generator), (true, Some(true)));
    assert!(!watch.is_satisfied(8), "least_steps is nine");
    assert!(watch.figures().iter().any(|&(name, ratio)| name.contains("distance") && ratio == 1.0));
    assert!(watch.figures().is_empty(), "each look is reported once");
}

/// A model that shows under each label what the given one shows under this one.
fn showing(model: &Denoiser, labels: [i64; 4]) -> Denoiser {
    let model = model.duplicate();
    let (_, table) = model.params().named().find(|(name, _)| *name == "labels.weight").unwrap();
    let rows = table.index_select(0, &Tensor::from_slice(&labels));
    no_grad(|| table.detach().copy_(&rows));
    model
}

/// Repair is late: a label that is gone is not enough.
#[test]
fn a_label_that_is_gone_does_not_end_a_training_that_has_lost_what_is_kept() {
    let Models { judge, baseline, reference, .. } = models();
    let (suppressed, collapsed) =
        (showing(&baseline.generator, [0, 1, 0, 3]), showing(&baseline.generator, [0, 0, 0, 0]));
    let leak = EarlyStop { most_leak: 0.1, ..anything() };
    let satisfied = |stop: EarlyStop, model: &Denoiser| {
        let reference = Reference::from_bytes(&tiny(), &judge, &reference.to_bytes()).unwrap();
        let mut watch = Watch::new(stop, &concept(), &baseline.generator, &judge, reference, 5);
        [3, 6].iter().for_each(|&step| watch.look(step, 100, model, &judge));
        watch.is_satisfied(6)
    };
    assert!(!satisfied(leak.clone(), &baseline.generator), "the baseline shows label 2");
    assert!(!satisfied(EarlyStop { least_override: 0.9, ..anything() }, &baseline.generator));
    let all = EarlyStop { most_accuracy_lost: 0.1, most_distance: 1.5, least_override: 0.9, ..leak.clone() };
    assert!(satisfied(all, &suppressed));
    assert!(satisfied(leak.clone(), &collapsed));
    assert!(!satisfied(EarlyStop { most_accuracy_lost: 0.1, ..leak.clone() }, &collapsed));
    assert!(!satisfied(EarlyStop { most_distance: 1.5, ..leak }, &collapsed));
}

#[test]
fn a_resumed_training_ends_where_an_uninterrupted_one_does_with_the_same_bytes() {
    let models = models();
    let never = EarlyStop { most_distance: 1e-9, ..anything() };
    for (stop, end) in [(anything(), 6), (never, 14)] {
        let fresh = || forgetting(&models, stop.clone());
        let whole = to_the_end(fresh());
        let mut first = fresh();
        run(&mut first, 4);
        let mut second = fresh();
        second.resume(&first.checkpoint().unwrap()).unwrap();
        let second = to_the_end(second);
        assert_eq!((whole.step(), second.step()), (end, end));
        assert!(whole.checkpoint().unwrap() == second.checkpoint().unwrap());
        let [whole, second] = [whole, second].map(|forgetting| forgetting.finish().unwrap().to_bytes());
        assert!(whole == second);
    }
}

#[test]
fn measures_of_another_model_are_refused() {
    let models = models();
    let mut other = tiny();
    other.labels.push("e".into());
    let foreign = || Denoiser::init(&other, 1, Device::Cpu).unwrap();
    let judge = Judge::from_bytes(&tiny(), &models.judge.to_bytes(), Device::Cpu).unwrap();
    let baseline = crate::Baseline { generator: foreign(), fake_score: foreign() };
    let measures = Measures { judge, reference: None };
    let refused =
        Forgetting::with_measures(foreign(), baseline, concept(), ForgetSettings::default(), 5, measures);
    assert!(refused.unwrap_err().to_string().contains("judge is of another model"));
}

#[test]
fn what_cannot_be_looked_at_is_refused_by_name() {
    let refusal = |stop: EarlyStop| stop.validate(1_000).unwrap_err().to_string();
    let defaults = EarlyStop::default;
    defaults().validate(1_000).unwrap();
    assert!(refusal(EarlyStop { every: 0, ..defaults() }).contains("forget.earlyStop.every is 0"));
    assert!(refusal(EarlyStop { samples_per_kept: 1, ..defaults() }).contains("samplesPerKept"));
    assert!(refusal(EarlyStop { most_leak: 1.5, ..defaults() }).contains("mostLeak"));
    assert!(refusal(EarlyStop { least_override: f64::NAN, ..defaults() }).contains("leastOverride"));
    assert!(refusal(EarlyStop { most_distance: 0.0, ..defaults() }).contains("mostDistance"));
    assert!(serde_json::from_str::<EarlyStop>(r#"{"evry": 1}"#).is_err());
}

#[test]
fn the_best_candidate_is_no_start_for_another_forgetting() {
    let models = models();
    let stopped = to_the_end(forgetting(&models, anything()));
    let error = stopped.finish_with_fake_score().unwrap_err().to_string();
    assert!(error.contains("forget.earlyStop") && error.contains("no fake score"), "{error}");
}
