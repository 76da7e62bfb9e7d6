//! `membership`: images that were to be forgotten, beside others of the same kind that no model was taught with. Are they told
//! apart by how the candidate denoises them, and by how the baseline does? Decides nothing.

use std::path::Path;

use lethe_api::contract::{BundleKind, Device as Wanted, Digest, exit};
use lethe_sfd::{Denoiser, probes};
use serde::Serialize;
use tch::Tensor;

use crate::{
    artifacts::Artifacts,
    cli::MembershipArgs,
    failure::{Failed, Result, caught},
    images, model, runtime,
};

/// What is printed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    /// The noise level at which the models were asked.
    sigma: f64,
    /// Of the two files of images, as they lay there.
    members: Digest,
    others: Digest,
    candidate: Told,
    /// Before anything was forgotten.
    baseline: Told,
}

/// How well one model tells the two groups apart.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    digest: Digest,
    /// 0.5 is guessing, 1 is knowing.
    auc: f64,
    /// Members recognised while at most 1 % of the others are taken for members.
    true_positives: u64,
    members: u64,
    others: u64,
}

/// Images of a model's size, the labels under which it is asked, and the digest of their file.
type Group = (Tensor, Tensor, Digest);

pub(crate) fn main(args: &MembershipArgs) -> i32 {
    match caught(|| measure(args)).and_then(|report| tell(&report)) {
        Ok(()) => exit::DONE,
        Err(failed) => failed.tell(),
    }
}

fn measure(args: &MembershipArgs) -> Result<Report> {
    let sigma = args.sigma;
    if !(sigma.is_finite() && sigma > 0.0) {
        return Err(Failed::bad_configuration(format!("--sigma is {sigma}: it must be a positive number")));
    }
    let device = runtime::init(args.threads.unwrap_or_else(runtime::all_threads), Wanted::Cpu)?;
    let artifacts = Artifacts::open(&args.store)?;
    let load = |digest: &Digest| {
        let (model, denoiser) = model::denoiser(&artifacts.bundle(digest, BundleKind::Generator)?, device)?;
        Ok::<_, Failed>((model.model, denoiser))
    };
    let (config, candidate) = load(&args.candidate)?;
    let (before, baseline) = load(&args.baseline)?;
    if config != before {
        let (candidate, baseline) = (args.candidate.short(), args.baseline.short());
        return Err(Failed::bad_artifact(format!(
            "bundles {candidate} and {baseline} are of two models: name a candidate and the baseline that it came from"
        )));
    }
    let read = |path: &Path| images::of(path, &config);
    let (members, others) = (read(&args.members)?, read(&args.others)?);
    let told = |model: &Denoiser, digest: &Digest| tells_apart(model, digest, &members, &others, sigma);
    Ok(Report {
        sigma,
        members: members.2.clone(),
        others: others.2.clone(),
        candidate: told(&candidate, &args.candidate)?,
        baseline: told(&baseline, &args.baseline)?,
    })
}

fn tells_apart(
    model: &Denoiser,
    digest: &Digest,
    members: &Group,
    others: &Group,
    sigma: f64,
) -> Result<Told> {
    let found = probes::membership(model, (&members.0, &members.1), (&others.0, &others.1), sigma)?;
    let probes::Membership { auc, true_positives, members, others } = found;
    Ok(Told { digest: digest.clone(), auc, true_positives, members, others })
}

fn tell(report: &Report) -> Result<()> {
    let json = serde_json::to_string(report).map_err(|e| Failed::internal(format!("the report: {e}")))?;
    println!("{json}");
    Ok(())
}
