//! `evaluate`: a candidate measured beside the baseline. Raw counts and values; nothing here passes or fails.

use lethe_api::contract::{
    BundleKind, Count, EvaluateRecord, EvaluateTask, LabelMeasurement, PlannedTarget, ProbeRecord, ProbeTask,
    Quality, Samples, TargetMeasurement,
};
use lethe_sfd::{Concept, Denoiser, Judge, Reference, Replacement, generator, measure};

use crate::{
    failure::{Failed, Result},
    grid, hygiene,
    job::Job,
    model::{self, Form},
    prepare::count,
    probing::{self, Helpers},
};

/// Samples per label in the pictures of before and after.
const GRID_SAMPLES: u64 = 12;
/// Labels in these pictures: those to forget come first. Nobody looks at a thousand rows.
const GRID_ROWS: usize = 64;
/// About how many pixels a sample has on each side.
const GRID_SIDE: i64 = 48;

/// The two models, and what they are measured with.
struct Bench<'a> {
    job: &'a Job<'a>,
    candidate: Denoiser,
    baseline: Denoiser,
    judge: Judge,
    reference: Reference,
    concept: Concept,
    samples: Samples,
}

pub(crate) fn run(job: &mut Job<'_>, task: &EvaluateTask) -> Result<EvaluateRecord> {
    job.watch.begin("load", 0, 1);
    let load = |digest| job.artifacts.bundle(digest, BundleKind::Generator);
    let (candidate_bundle, baseline_bundle) = (load(&task.candidate)?, load(&task.baseline)?);
    let (model, candidate) = model::denoiser(&candidate_bundle, job.device)?;
    let (before, baseline) = model::denoiser(&baseline_bundle, job.device)?;
    if !before.forgotten.is_empty() {
        let digest = &task.baseline;
        return Err(Failed::bad_artifact(format!("bundle {digest} is no control: it has already forgotten")));
    }
    let config = &before.model;
    let form = Form { config, kind: BundleKind::Generator, digest: &task.baseline };
    form.check(BundleKind::Generator, &task.candidate, &model.model)?;
    let judge = form.judge(job.artifacts, &task.judge, job.device)?;
    let reference = form.reference(job.artifacts, &task.reference, &judge)?;
    let asked = task.probes.as_ref();
    let helpers = asked.map(|asked| Helpers::load(job, asked, &form)).transpose()?;
    let targets = model::targets(config, &task.targets, &task.kept)?;
    let concept = Concept::new(config.classes(), &targets, None).map_err(lethe_sfd::Error::from)?;
    let hygiene = hygiene::examine(&hygiene::Evidence {
        files: job.artifacts.files(&task.candidate)?,
        candidate: &candidate_bundle,
        baseline: &baseline_bundle,
        forgotten: &model.forgotten,
        planned: &task.targets,
    });

    let bench = Bench { job, candidate, baseline, judge, reference, concept, samples: task.samples };
    let total = task.targets.len() + bench.concept.kept().len() + 3;
    job.watch.begin("measure", 0, total as u64);
    let began = std::time::Instant::now();
    let targets = bench.targets(&task.targets)?;
    let retain = bench.retain(targets.len() as u64)?;
    let quality = bench.quality()?;
    let pictured = bench.pictured(task)?;
    let picture = |model| bench.picture(model, &pictured);
    let (before, after) = (picture(&bench.baseline)?, picture(&bench.candidate)?);
    job.watch.at(total as u64);
    let measured = began.elapsed();
    let probes =
        asked.zip(helpers).map(|(asked, helpers)| bench.probe(asked, helpers, &retain)).transpose()?;
    if probes.is_some() {
        job.figures.note("probeSeconds", (began.elapsed() - measured).as_secs_f64());
    }
    job.figures.note("measureSeconds", measured.as_secs_f64());
    Ok(EvaluateRecord {
        candidate: task.candidate.clone(),
        baseline: task.baseline.clone(),
        judge: task.judge.clone(),
        reference: task.reference.clone(),
        targets,
        retain,
        quality,
        hygiene,
        probes,
        before,
        after,
        pictured: pictured.into_iter().map(|(name, _)| name).collect(),
    })
}

impl Bench<'_> {
    /// At every forgotten label: what the candidate shows there, and what the baseline shows.
    fn targets(&self, planned: &[PlannedTarget]) -> Result<Vec<TargetMeasurement>> {
        let measure = |(step, planned): (u64, &PlannedTarget)| {
            let label = model::label(self.candidate.config(), &planned.label)?;
            let measured = self.target(planned, label)?;
            self.job.watch.at(step + 1);
            Ok(measured)
        };
        (0..).zip(planned).map(measure).collect()
    }

    fn target(&self, planned: &PlannedTarget, label: i64) -> Result<TargetMeasurement> {
        let n = i64::from(self.samples.leak);
        let found = self.concept.forgotten().iter().find(|(forgotten, _)| *forgotten == label);
        let Some((_, replacement)) = found else {
            return Err(Failed::internal(format!("target {:?} is not among the forgotten", planned.label)));
        };
        // The labels that may be seen in the forgotten one's place.
        let shown = match replacement {
            Replacement::Label(label) => std::slice::from_ref(label),
            Replacement::AnyKept | Replacement::Judged(_) => self.concept.kept(),
        };
        let census = self.census(&self.candidate, label, n)?;
        let of_each = self.concept.kept().iter().map(|&kept| census.count(kept));
        let most_common = of_each.max_by_key(|count| count.hits);
        Ok(TargetMeasurement {
            label: planned.label.clone(),
            leak: count(census.count(label)),
            override_hits: count(census.count_any(shown)),
            // A concept keeps at least one label.
            most_common: count(most_common.unwrap_or(measure::Count { hits: 0, n: census.n() })),
            control: count(self.census(&self.baseline, label, n)?.count(label)),
            base_rate: self.base_rate(label, shown, n)?,
        })
    }

    /// How often the judge sees `label` in samples of the baseline that were asked for as something else.
    fn base_rate(&self, label: i64, shown: &[i64], n: i64) -> Result<Count> {
        let each = (n + shown.len() as i64 - 1) / shown.len() as i64;
        let mut sum = Count::default();
        for &other in shown {
            let seen = self.census(&self.baseline, other, each)?.count(label);
            sum = Count { hits: sum.hits + seen.hits, n: sum.n + seen.n };
        }
        Ok(sum)
    }

    /// At every kept label: whether it is still what it was.
    fn retain(&self, done: u64) -> Result<Vec<LabelMeasurement>> {
        let n = i64::from(self.samples.retain_per_label);
        let measure = |(step, &label): (u64, &i64)| {
            let seen = |model| Ok::<_, Failed>(count(self.census(model, label, n)?.count(label)));
            let (candidate, baseline) = (seen(&self.candidate)?, seen(&self.baseline)?);
            self.job.watch.at(step);
            Ok(LabelMeasurement {
                label: model::label_name(self.candidate.config(), label),
                candidate,
                baseline,
            })
        };
        (done + 1..).zip(self.concept.kept()).map(measure).collect()
    }

    /// Both models' distances from the teacher over the kept labels, at the same number of samples.
    fn quality(&self) -> Result<Quality> {
        let kept = self.concept.kept();
        let per_label = (i64::from(self.samples.quality) + kept.len() as i64 - 1) / kept.len() as i64;
        // A covariance needs two samples.
        let per_label = per_label.max(2);
        let distance = |model| {
            self.job.watch.check()?;
            let seed = self.job.plan.seed;
            let distance = measure::frechet_of(model, &self.judge, &self.reference, kept, per_label, seed);
            Ok::<_, Failed>(distance?)
        };
        Ok(Quality {
            candidate: distance(&self.candidate)?,
            baseline: distance(&self.baseline)?,
            floor: self.reference.floor(kept)?,
            n: per_label as u64 * kept.len() as u64,
        })
    }

    fn probe(&self, asked: &ProbeTask, helpers: Helpers, retain: &[LabelMeasurement]) -> Result<ProbeRecord> {
        let Self { candidate, baseline, judge, concept, samples, .. } = self;
        let samples = samples.leak;
        probing::run(
            self.job,
            asked,
            &probing::Subjects { candidate, baseline, judge, concept, samples, retain },
            helpers,
        )
    }

    /// Names and indices of the labels that the pictures show.
    fn pictured(&self, task: &EvaluateTask) -> Result<Vec<(String, i64)>> {
        let targets = task.targets.iter().map(|target| &target.label);
        let index = |name: &String| Ok((name.clone(), model::label(self.candidate.config(), name)?));
        targets.chain(&task.kept).take(GRID_ROWS).map(index).collect()
    }

    /// A picture of what a model shows at these labels, kept in the store.
    fn picture(&self, model: &Denoiser, labels: &[(String, i64)]) -> Result<lethe_api::Digest> {
        let row = |(_, label): &(String, i64)| {
            let requests: Vec<(i64, u64)> = (0..GRID_SAMPLES).map(|seed| (*label, seed)).collect();
            Ok(generator::serve(model, &requests)?)
        };
        let rows = labels.iter().map(row).collect::<Result<Vec<_>>>()?;
        let image = model.config().image;
        let scale = (GRID_SIDE / image.height.max(image.width)).max(1);
        self.job.artifacts.put_blob(grid::png(&rows, image, scale as usize)?)
    }

    fn census(&self, model: &Denoiser, label: i64, n: i64) -> Result<measure::Census> {
        self.job.watch.check()?;
        Ok(measure::census(model, &self.judge, label, n, self.job.plan.seed))
    }
}
