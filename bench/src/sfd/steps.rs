//! Iterations per second, in pairs of blocks: one thing, the other, and again.

use anyhow::{Context, Result};
use serde_json::Value;

use super::row::{Row, median};
use super::start::Net;
use super::worker::Worker;
use super::{Bench, parity};

/// Bytes of a weight, a gradient, or a value of the optimiser.
const BYTES: f64 = 4.0;
/// What a step cannot do without: three networks, and a second moment for each of the two that learn.
const BUFFERS: f64 = 5.0;

/// Ours beside the peer, for one network and every number of threads, and the memory that both took.
///
/// # Errors
/// If a program fails, or the two disagree about a loss.
pub fn beside_the_peer(bench: &Bench<'_>, name: &str, net: Net) -> Result<Vec<Row>> {
    let dir = bench.start(net)?;
    let difference = parity::check(bench, &dir, net)?;
    println!("{name}: losses agree to {difference:.1e}");
    let mut rows = Vec::new();
    for &threads in &bench.args.threads {
        let ours = Worker::start(&mut bench.our_program(&["steps", &dir, "1"], threads)?)?;
        let peer = Worker::start(&mut bench.peer_program(&["steps", &dir], threads)?)?;
        let pairs = bench.pairs(name, net, [ours, peer])?;
        let mut row = per_step(name, &pairs, net, threads)?;
        row.floor = Some(1e3 * number(&bench.ours(&["floor", net.word()], threads)?, "seconds")?);
        row.what = format!("losses agree to {difference:.0e}");
        rows.push(row);
        if threads == 1 {
            rows.push(memory(&pairs, net)?);
        }
    }
    Ok(rows)
}

/// Five targets beside one.
///
/// # Errors
/// If a program fails.
pub fn five_targets(bench: &Bench<'_>) -> Result<Row> {
    let (name, net, threads) = ("five-targets", Net::LargeMlp, 1);
    let dir = bench.start(net)?;
    let of = |targets| Worker::start(&mut bench.our_program(&["steps", &dir, targets], threads)?);
    let pairs = bench.pairs(name, net, [of("5")?, of("1")?])?;
    let mut row = per_step(name, &pairs, net, threads)?;
    row.what = "a step that forgets five labels beside one".to_owned();
    Ok(row)
}

fn per_step(name: &str, pairs: &[[Value; 2]], net: Net, threads: u8) -> Result<Row> {
    // What a single thread works does not depend on who else uses the machine.
    let (field, unit) = match threads {
        1 => ("processorSeconds", "CPU ms/step"),
        _ => ("seconds", "ms/step"),
    };
    let cost = |answer: &Value| Ok(1e3 * number(answer, field)? / net.steps().1 as f64);
    let ours = pairs.iter().map(|[ours, _]| cost(ours)).collect::<Result<Vec<f64>>>()?;
    let peer = pairs.iter().map(|[_, peer]| cost(peer)).collect::<Result<Vec<f64>>>()?;
    Ok(Row::of_pairs(name, ours, peer, unit, threads))
}

fn memory(pairs: &[[Value; 2]], net: Net) -> Result<Row> {
    let peak = |answer: &Value| Ok(number(answer, "peakBytes")? / 1e6);
    let ours = pairs.iter().map(|[ours, _]| peak(ours)).collect::<Result<Vec<f64>>>()?;
    let peer = pairs.iter().map(|[_, peer]| peak(peer)).collect::<Result<Vec<f64>>>()?;
    let weights = pairs.iter().map(|[ours, _]| number(ours, "weights")).collect::<Result<Vec<f64>>>()?;
    let name =
        if net == Net::LargeMlp { "peak-memory".to_owned() } else { format!("peak-memory-{}", net.word()) };
    let mut row = Row::of_pairs(&name, ours, peer, "MB", 1);
    row.floor = Some(BUFFERS * BYTES * median(weights) / 1e6);
    row.what = "of the process, libraries included".to_owned();
    Ok(row)
}

/// A number in an answer.
///
/// # Errors
/// If it is not there.
pub fn number(answer: &Value, field: &str) -> Result<f64> {
    answer[field].as_f64().with_context(|| format!("no {field} in {answer}"))
}
