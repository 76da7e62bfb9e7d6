//! The optical digits, and the models that the tests and the figures are about. All settings are the defaults.

use flate2::read::GzDecoder;
use lethe_sfd::{
    Baseline, Concept, Denoiser, Device, DistilSettings, Distillation, ForgetSettings, Forgetting,
    ImageShape, Judge, JudgeSettings, MlpConfig, ModelConfig, NoiseConfig, Parametrisation, Reference,
    ReferenceSettings, TeachSettings, Teaching, Training, TrainingImages, measure,
};
use std::io::Read;
use std::time::Instant;

/// Samples behind a leak or an override figure.
pub const SAMPLES: i64 = 3000;
const DIGITS: &[u8] = include_bytes!("../../../data/optical-digits.csv.gz");

/// Everything that forgetting and measuring start from.
pub struct Prepared {
    pub teacher: Denoiser,
    pub baseline: Baseline,
    pub judge: Judge,
    pub reference: Reference,
}

impl Prepared {
    pub fn new(seed: u64) -> Self {
        let config = config();
        let teacher = timed("teach", || {
            let settings = TeachSettings::default();
            let mut teaching =
                Teaching::new(&config, images(&config), settings, seed, Device::Cpu).expect("teach");
            run(&mut teaching);
            teaching.finish().expect("the teacher is finite")
        });
        let baseline = timed("distil", || {
            let mut distillation =
                Distillation::new(teacher.duplicate(), DistilSettings::default(), seed).expect("distil");
            run(&mut distillation);
            distillation.finish().expect("the baseline is finite")
        });
        let settings = ReferenceSettings::default();
        let judge = timed("judge", || {
            Judge::train(&teacher, &JudgeSettings::default(), settings.sampler_steps, seed, &never)
                .expect("judge")
        });
        let reference = timed("reference", || {
            Reference::measure(&teacher, &judge, &settings, seed, &never).expect("reference")
        });
        Self { teacher, baseline, judge, reference }
    }
}

pub fn config() -> ModelConfig {
    ModelConfig {
        image: ImageShape { channels: 1, height: 8, width: 8 },
        labels: (0..10).map(|digit| digit.to_string()).collect(),
        noise: NoiseConfig::default(),
        parametrisation: Parametrisation::Edm,
        network: MlpConfig::default().into(),
    }
}

pub fn images(config: &ModelConfig) -> TrainingImages {
    let mut csv = String::new();
    GzDecoder::new(DIGITS).read_to_string(&mut csv).expect("the digits are gzipped text");
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for line in csv.lines() {
        let values: Vec<f32> = line.split(',').map(|value| value.parse().expect("a number")).collect();
        pixels.extend(values[..64].iter().map(|pixel| pixel / 8.0 - 1.0));
        labels.push(values[64] as i64);
    }
    TrainingImages::new(config, &pixels, &labels).expect("the digits fit the model")
}

/// Stage 2 with the default settings.
pub fn forget(prepared: &Prepared, start: Baseline, concept: Concept, seed: u64) -> Denoiser {
    forget_with(prepared, start, concept, ForgetSettings::default(), seed)
}

/// The same with others.
pub fn forget_with(
    prepared: &Prepared,
    start: Baseline,
    concept: Concept,
    settings: ForgetSettings,
    seed: u64,
) -> Denoiser {
    timed("forget", || {
        let mut forgetting =
            Forgetting::new(prepared.teacher.duplicate(), start, concept, settings, seed).expect("forget");
        run(&mut forgetting);
        forgetting.finish().expect("the candidate is finite")
    })
}

/// Mean over labels of the share that the judge recognises, 400 samples each.
pub fn kept_accuracy(model: &Denoiser, judge: &Judge, kept: &[i64], seed: u64) -> f64 {
    let share = |&label: &i64| measure::census(model, judge, label, 400, seed).count(label).share();
    kept.iter().map(share).sum::<f64>() / kept.len() as f64
}

/// Runs a training to its end.
pub fn run(training: &mut dyn Training) {
    while !training.done() {
        training.advance();
    }
    training.report().expect("the training stays finite");
}

fn never() -> bool {
    false
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    println!("{what}: {:.1} s", start.elapsed().as_secs_f64());
    result
}
