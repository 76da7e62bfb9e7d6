//! The models that a bench starts from, made once for each seed and kept in files for whoever comes next.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use lethe_sfd::probes::second_judge;
use lethe_sfd::{
    Baseline, Confusion, Denoiser, Device, Distillation, Judge, Reference, ReferenceSettings, Stop, Teaching,
    Training,
};
use serde::{Deserialize, Serialize};

use crate::data::Data;

/// Nobody stops a bench but by ending it.
pub const GO_ON: Stop<'_> = &|| false;
/// Samples per label behind the judge's confusion matrix.
const CONFUSION_SAMPLES: i64 = 400;

/// Where the models come from. Written to the command line of every process that works for a bench.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Studio {
    pub data: Data,
    pub seed: u64,
    /// Trainings and samples are shortened by this factor.
    pub fewer: u64,
    /// Models are trained and measured on the first GPU.
    pub cuda: bool,
    /// Directory of the models of all seeds.
    #[serde(skip)]
    pub kept: PathBuf,
}

/// What measures.
#[derive(Debug)]
pub struct Bar {
    pub judge: Judge,
    pub reference: Reference,
    pub confusion: Confusion,
}

impl Studio {
    /// Makes whatever is missing of the teacher, the baseline, the judge and what it is compared with.
    ///
    /// # Errors
    /// As the others.
    pub fn prepare(&self) -> Result<()> {
        let teacher = self.teacher()?;
        self.bar(&teacher, &self.baseline(&teacher)?)?;
        self.attacker(&teacher)?;
        Ok(())
    }

    /// # Errors
    /// If the training diverges or a file cannot be used.
    pub fn teacher(&self) -> Result<Denoiser> {
        let bytes = self.file("teacher", || Ok(self.teach(None)?.to_bytes()))?;
        self.model(&bytes)
    }

    /// # Errors
    /// If the training diverges or a file cannot be used.
    pub fn baseline(&self, teacher: &Denoiser) -> Result<Baseline> {
        // Both networks come of one training, and so lie in one file: the weights of the two, one after the other.
        let bytes = self.file("baseline", || {
            let Baseline { generator, fake_score } = self.distil(teacher.duplicate())?;
            Ok([generator.to_bytes(), fake_score.to_bytes()].concat())
        })?;
        let (generator, fake_score) = bytes.split_at(bytes.len() / 2);
        Ok(Baseline { generator: self.model(generator)?, fake_score: self.model(fake_score)? })
    }

    /// The generator distilled from a teacher that never saw an image of `label`, and how many seconds both took.
    ///
    /// # Errors
    /// If a training diverges or a file cannot be used.
    pub fn never_saw(&self, label: i64) -> Result<(Denoiser, f64)> {
        let name = format!("without-{label}");
        let bytes = self.file(&name, || Ok(self.distil(self.teach(Some(label))?)?.generator.to_bytes()))?;
        let file = self.dir().join(&name).with_extension("seconds");
        let seconds = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        Ok((
            self.model(&bytes)?,
            seconds.parse().with_context(|| format!("no number in {}", file.display()))?,
        ))
    }

    fn teach(&self, unseen: Option<i64>) -> Result<Denoiser> {
        let config = self.data.model();
        let mut settings = self.data.teaching();
        settings.steps = settings.steps.div_ceil(self.fewer);
        let images = self.data.images(&config, unseen)?;
        let mut teaching = Teaching::new(&config, images, settings, self.seed, self.device())?;
        finish(&mut teaching)?;
        Ok(teaching.finish()?)
    }

    fn distil(&self, teacher: Denoiser) -> Result<Baseline> {
        let mut settings = self.data.distilling();
        settings.steps = settings.steps.div_ceil(self.fewer);
        let mut distillation = Distillation::new(teacher, settings, self.seed)?;
        finish(&mut distillation)?;
        Ok(distillation.finish()?)
    }

    fn model(&self, bytes: &[u8]) -> Result<Denoiser> {
        Ok(Denoiser::from_bytes(&self.data.model(), bytes, self.device())?)
    }

    /// What the models of a teacher that has seen everything are measured with.
    ///
    /// # Errors
    /// If the training diverges or a file cannot be used.
    pub fn bar(&self, teacher: &Denoiser, baseline: &Baseline) -> Result<Bar> {
        let (config, drawing) = (self.data.model(), self.drawing());
        let judge = self.file("judge", || {
            Ok(Judge::train(teacher, &self.data.judging(), drawing.sampler_steps, self.seed, GO_ON)?
                .to_bytes())
        })?;
        let judge = Judge::from_bytes(&config, &judge, self.device())?;
        let reference = self.file("reference", || {
            Ok(Reference::measure(teacher, &judge, &drawing, self.seed, GO_ON)?.to_bytes())
        })?;
        let reference = Reference::from_bytes(&config, &judge, &reference)?;
        let confusion = Confusion::measure(&baseline.generator, &judge, CONFUSION_SAMPLES, self.seed);
        Ok(Bar { judge, reference, confusion })
    }

    /// The judge that attacks optimise against.
    ///
    /// # Errors
    /// If the training diverges or a file cannot be used.
    pub fn attacker(&self, teacher: &Denoiser) -> Result<Judge> {
        let steps = self.drawing().sampler_steps;
        let bytes = self.file("attacker", || {
            Ok(second_judge(teacher, &self.data.judging(), steps, self.seed, GO_ON)?.to_bytes())
        })?;
        Ok(Judge::from_bytes(&self.data.model(), &bytes, self.device())?)
    }

    pub fn device(&self) -> Device {
        if self.cuda { Device::Cuda(0) } else { Device::Cpu }
    }

    /// A number of samples, or a fraction of it for a quick look.
    pub fn samples(&self, n: i64) -> i64 {
        (n / self.fewer as i64).max(10)
    }

    pub fn drawing(&self) -> ReferenceSettings {
        ReferenceSettings::default()
    }

    fn dir(&self) -> PathBuf {
        self.kept.join(format!("{}-{}", self.data.word(), self.seed))
    }

    /// The content of a file, which is made if it is not there.
    fn file(&self, name: &str, make: impl FnOnce() -> Result<Vec<u8>>) -> Result<Vec<u8>> {
        let dir = self.dir();
        let file = dir.join(name);
        if file.exists() {
            return fs::read(&file).with_context(|| format!("cannot read {}", file.display()));
        }
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let began = Instant::now();
        let bytes = make()?;
        let seconds = began.elapsed().as_secs_f64();
        eprintln!("{}: {seconds:.0} s", file.display());
        let put = |file: PathBuf, content: &[u8]| {
            // Under another name first: a bench that is ended leaves no half file.
            let part = file.with_extension("part");
            fs::write(&part, content)
                .and_then(|()| fs::rename(&part, &file))
                .with_context(|| format!("cannot write {}", file.display()))
        };
        put(file.with_extension("seconds"), seconds.to_string().as_bytes())?;
        put(file, &bytes)?;
        Ok(bytes)
    }
}

/// Trains to the end.
///
/// # Errors
/// If the training diverges.
pub fn finish(training: &mut dyn Training) -> Result<()> {
    while !training.done() {
        training.advance();
    }
    training.report()?;
    Ok(())
}
