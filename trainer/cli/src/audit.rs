//! `audit`: what a live server shows of everything that is forgotten. Raw counts; nothing here passes or fails.

use std::{
    thread,
    time::{Duration, Instant},
};

use lethe_api::contract::{AuditMeasurement, AuditRecord, AuditTask, BundleKind, Count, Failure};
use lethe_sfd::{Denoiser, Judge, ModelConfig, measure};

use crate::{
    failure::{Failed, Result},
    job::Job,
    live::{self, Order, Server},
    model::{self, Form},
    prepare::count,
};

/// Samples of the baseline at each forgotten label: enough to see that the judge recognises it.
const MOST_CONTROLS: u32 = 300;
/// Live samples over all kept labels.
const KEPT_SAMPLES: u64 = 600;
/// How long a server that does not answer, or serves something else, is asked again: after a roll-out the network takes
/// a moment to know of the new pods.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_secs(1);

/// A live server, and what its samples are looked at with.
struct Bench<'a> {
    job: &'a Job<'a>,
    task: &'a AuditTask,
    server: Server<'a>,
    baseline: Denoiser,
    judge: Judge,
    config: ModelConfig,
}

pub(crate) fn run(job: &mut Job<'_>, task: &AuditTask) -> Result<AuditRecord> {
    job.watch.begin("load", 0, 1);
    let bundle = job.artifacts.bundle(&task.baseline, BundleKind::Generator)?;
    let (before, baseline) = model::denoiser(&bundle, job.device)?;
    if !before.forgotten.is_empty() {
        let digest = &task.baseline;
        return Err(Failed::bad_artifact(format!("bundle {digest} is no control: it has already forgotten")));
    }
    let form = Form { config: &before.model, kind: BundleKind::Generator, digest: &task.baseline };
    let judge = form.judge(job.artifacts, &task.judge, job.device)?;
    model::targets(&before.model, &task.targets, &task.kept)?;
    let server = Server::new(&task.endpoint, &task.model);
    Bench { job, task, server, baseline, judge, config: before.model }.measure()
}

impl Bench<'_> {
    fn measure(&self) -> Result<AuditRecord> {
        let Self { job, task, .. } = self;
        job.watch.begin("audit", 0, task.targets.len() as u64 + 2);
        let metadata = self.patiently(|| {
            let metadata = self.server.metadata()?;
            match metadata.digest == task.served.as_str() {
                true => Ok(metadata),
                false => Err(self.server.failed(format!("it does not serve {}", task.served))),
            }
        })?;
        let n = u64::from(task.samples);
        let unlabelled = metadata.takes_no_label().then(|| self.ask(None, n)).transpose()?;
        job.watch.at(1);
        let kept = self.kept()?;
        job.watch.at(2);
        let measure = |(step, label): (u64, &String)| {
            let index = model::label(&self.config, label)?;
            let seen = |counts: &[u64]| Count { hits: counts[index as usize], n };
            let leak = seen(&self.ask(Some(label), n)?);
            let control = i64::from(task.samples.min(MOST_CONTROLS));
            let control = measure::census(&self.baseline, &self.judge, index, control, job.plan.seed);
            job.watch.at(step);
            Ok(AuditMeasurement {
                label: label.clone(),
                leak,
                unlabelled: unlabelled.as_deref().map(seen),
                control: count(control.count(index)),
            })
        };
        let labels = task.targets.iter().map(|target| &target.label);
        let targets = (3..).zip(labels).map(measure).collect::<Result<_>>()?;
        Ok(AuditRecord {
            served: task.served.clone(),
            baseline: task.baseline.clone(),
            judge: task.judge.clone(),
            targets,
            kept,
        })
    }

    /// Live samples of every kept label.
    fn kept(&self) -> Result<Count> {
        let each = KEPT_SAMPLES.div_ceil(self.task.kept.len() as u64);
        let mut sum = Count::default();
        for label in &self.task.kept {
            let index = model::label(&self.config, label)?;
            let hits = self.ask(Some(label), each)?[index as usize];
            sum = Count { hits: sum.hits + hits, n: sum.n + each };
        }
        Ok(sum)
    }

    /// What the judge takes `n` live samples of a label, or of none, for.
    fn ask(&self, label: Option<&str>, n: u64) -> Result<Vec<u64>> {
        let pixels = self.config.image.pixels();
        let mut counts = vec![0; self.config.labels.len()];
        for part in (Order { label, first: self.job.plan.seed, n }).batches() {
            let images = self.patiently(|| self.server.draw(part, self.task.served.as_str(), pixels))?;
            counts = live::tally(counts, &self.judge, self.job.device, &images, pixels);
        }
        Ok(counts)
    }

    /// Tries again for a while what fails with a live server.
    fn patiently<T>(&self, ask: impl Fn() -> Result<T>) -> Result<T> {
        let began = Instant::now();
        loop {
            self.job.watch.check()?;
            match ask() {
                Err(failed) if failed.failure == Failure::StoreUnavailable && began.elapsed() < PATIENCE => {
                    tracing::warn!("{failed}; asking again");
                    thread::sleep(PAUSE);
                }
                other => return other,
            }
        }
    }
}
