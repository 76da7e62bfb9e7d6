//! Iterations per second, in pairs of blocks: ours, peer, ours, peer.

use anyhow::{Context, Result};
use serde_json::Value;

use super::gemm;
use super::row::Row;
use super::start::Net;
use super::{Bench, parity};

/// Steps before the clock starts, and steps on the clock.
const WARM: u64 = 10;
const TIMED: u64 = 60;

/// The row of one network for every number of threads.
///
/// # Errors
/// If a program fails, or the two disagree about a loss.
pub fn measure(bench: &Bench<'_>, name: &str, net: Net) -> Result<Vec<Row>> {
    let dir = bench.work.join(net_name(net));
    let dir = dir.to_str().context("the path of the results is not UTF-8")?;
    bench.ours(&["start", net_name(net), dir], 2)?;
    let difference = parity::check(bench, dir)?;
    println!("{name}: losses agree to {difference:.1e}");
    [2, 1].into_iter().map(|threads| compare(bench, name, net, dir, threads)).collect()
}

fn compare(bench: &Bench<'_>, name: &str, net: Net, dir: &str, threads: u8) -> Result<Row> {
    let (warm, timed) = (WARM.to_string(), TIMED.to_string());
    let rate = bench.ours(&["gemm", net_name(net)], threads)?["flopPerSecond"].as_f64();
    let floor = rate.map(|rate| 1e3 * gemm::floor(&net.config(), rate));
    let (mut ours, mut peer) = (Vec::new(), Vec::new());
    for _ in 0..bench.args.pairs {
        ours.push(per_step(&bench.ours(&["steps", dir, "1", &warm, &timed], threads)?)?);
        peer.push(per_step(&bench.peer(&["steps", dir, &warm, &timed], threads)?)?);
        println!(
            "{name}, {threads} threads: ours {:.1} ms, peer {:.1} ms",
            ours[ours.len() - 1],
            peer[peer.len() - 1]
        );
    }
    let ratios: Vec<f64> = ours.iter().zip(&peer).map(|(ours, peer)| peer / ours).collect();
    let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let most = ratios.iter().copied().fold(0.0, f64::max);
    Ok(Row {
        name: name.to_owned(),
        ours: median(ours),
        peer: median(peer),
        ratio: median(ratios),
        spread: Some([least, most]),
        unit: "ms/step",
        floor,
        threads,
        what: "beside the plain loop".to_owned(),
    })
}

fn per_step(answer: &Value) -> Result<f64> {
    let seconds = answer["seconds"].as_f64().context("no seconds in the answer")?;
    Ok(1e3 * seconds / TIMED as f64)
}

/// The middle value; there is at least one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn net_name(net: Net) -> &'static str {
    match net {
        Net::Mlp => "mlp",
        Net::LargeMlp => "large-mlp",
    }
}
