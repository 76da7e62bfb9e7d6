//! `teach`: a teacher from images. It stands for the model that someone already has.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use lethe_api::contract::{BundleKind, Digest, exit};
use lethe_sfd::{
    Denoiser, Device, ReferenceSettings, Stage, TeachSettings, Teaching,
    noise::{Noise, Stream},
    sampler,
};
use lethe_store::{Bundle, folder_uri, local_folder};
use serde::Serialize;
use tch::{Kind, Tensor};

use crate::{
    artifacts::{self, Artifacts},
    cli::TeachArgs,
    failure::{Failed, Result, caught},
    images,
    model::Model,
    runtime, sidecar,
    train::{self, Run, Saving},
    watch::Watch,
};

/// Images that the sampler is timed on.
const TIMED_SAMPLES: i64 = 400;

/// What is printed, reported and left in the termination message.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    digest: String,
    uri: String,
    images: i64,
    steps: u64,
    teach_seconds: f64,
    images_per_second: f64,
}

pub(crate) fn main(args: &TeachArgs) -> i32 {
    match caught(|| teach(args)).and_then(|report| tell(args, &report)) {
        Ok(()) => exit::DONE,
        Err(failed) => {
            args.termination.write(&failed.message);
            failed.tell()
        }
    }
}

fn teach(args: &TeachArgs) -> Result<Report> {
    let watch = Watch::new("teach");
    sidecar::start(watch.clone(), None)?;
    let device = runtime::init(args.threads.unwrap_or_else(runtime::all_threads), args.device.into())?;
    let uri = if args.out.contains("://") { args.out.clone() } else { folder_uri(Path::new(&args.out))? };
    let there = artifacts::exported(&uri)?;
    if let Some(base) = &there {
        tracing::warn!(%base, out = args.out, "a base is there already: it stays, whatever is taught now");
    }
    let (config, images) = images::read(&args.images)?;
    let count = images.len();
    let mut settings = TeachSettings::default();
    settings.steps = args.steps.unwrap_or(settings.steps);
    settings.precision = runtime::precision(args.precision.into());
    let steps = settings.steps;
    let began = Instant::now();
    let mut teaching = Teaching::new(&config, images, settings, args.seed, device)?;
    teaching.share_with(&runtime::others(device, args.devices));
    let scratch = Scratch::beside(&uri)?;
    // Whether a state is one of this training is for the training to say.
    let name = Digest::of(Stage::Teach.name());
    let checkpoint = scratch.artifacts.checkpoint(&name);
    checkpoint.try_out()?;
    let curves = train::continue_from(&checkpoint, |state| teaching.resume(state))?;
    let saving = Saving { to: &checkpoint, every: Duration::from_secs(args.checkpoint_seconds) };
    Run { training: &mut teaching, curves, watch: &watch, saving }.finish(|_| Vec::new())?;
    let teacher = teaching.finish()?;
    let teach_seconds = began.elapsed().as_secs_f64();

    let description = Model::new(&config, Vec::new()).to_bytes()?;
    let bundle = Bundle::new(BundleKind::Teacher, teacher.to_bytes(), description)?;
    let is_another = there.is_some_and(|base| base != *bundle.digest());
    if !is_another {
        artifacts::export(&uri, &bundle)?;
    }
    // Not before the teacher is where it belongs: whoever dies here goes on from the last step.
    checkpoint.clear();
    scratch.remove(&name);
    if is_another {
        let out = &args.out;
        let problem = format!("{out} exists already and is another base; name a folder that does not");
        return Err(Failed::bad_configuration(problem));
    }
    let digest = bundle.digest().to_string();
    Ok(Report {
        digest,
        uri,
        images: count,
        steps,
        teach_seconds,
        images_per_second: speed(&teacher, device),
    })
}

/// Where the state of an unfinished teacher is kept: beside where the teacher is to be.
struct Scratch {
    artifacts: Artifacts,
    /// If it is a folder of this machine.
    folder: Option<PathBuf>,
}

impl Scratch {
    fn beside(uri: &str) -> Result<Self> {
        let uri = format!("{}.scratch", uri.trim_end_matches('/'));
        let folder = local_folder(&uri);
        if let Some(folder) = &folder {
            fs::create_dir_all(folder).map_err(|error| {
                Failed::bad_configuration(format!("cannot create {}: {error}", folder.display()))
            })?;
        }
        Ok(Self { artifacts: Artifacts::open(&uri)?, folder })
    }

    /// Takes the folders away in which nothing is left.
    fn remove(self, name: &Digest) {
        let Some(folder) = &self.folder else { return };
        let scratch = folder.join("scratch");
        for empty in [&scratch.join(name.hex()), &scratch, folder] {
            let _ = fs::remove_dir(empty);
        }
    }
}

/// Images per second of the teacher's own sampler.
fn speed(teacher: &Denoiser, device: Device) -> f64 {
    let pixels = teacher.config().image.pixels();
    let latent = Noise::new(0, Stream::ServeLatent).normal(0, TIMED_SAMPLES, pixels, device);
    let label = Tensor::zeros([TIMED_SAMPLES], (Kind::Int64, device));
    let began = Instant::now();
    let images = sampler::heun(teacher, &latent, &label, ReferenceSettings::default().sampler_steps);
    // Reading a number back waits for the device.
    images.sum(Kind::Double).double_value(&[]);
    TIMED_SAMPLES as f64 / began.elapsed().as_secs_f64()
}

fn tell(args: &TeachArgs, report: &Report) -> Result<()> {
    let json = serde_json::to_string(report).map_err(|e| Failed::internal(format!("the report: {e}")))?;
    println!("{json}");
    args.termination.write(&json);
    let Some(path) = &args.report else { return Ok(()) };
    let written = fs::write(path, json + "\n");
    written.map_err(|e| Failed::bad_configuration(format!("cannot write the report {}: {e}", path.display())))
}
