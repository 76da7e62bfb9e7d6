//! Whether both programs compute the same: equal weights and batches give equal losses, step after step.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::start::{COMPARED, Net};
use super::{Bench, answer};

/// Largest difference of a loss, relative to the largest size that it has over the steps compared. Not to its size at that
/// very step: the generator's losses have either sign, and where one passes through zero any rounding is large.
const TOLERANCE: f64 = 1e-4;
const NAMES: [&str; 4] =
    ["fake score (remain)", "fake score (forget)", "generator (remain)", "generator (forget)"];

/// Trains both for some steps on the same batches and returns the largest relative difference of a loss.
///
/// # Errors
/// If a loss differs by more than rounding.
pub fn check(bench: &Bench<'_>, dir: &str, net: Net) -> Result<f64> {
    let threads = net.threads();
    let ours = losses(&bench.ours(&["parity", dir, &COMPARED.to_string()], threads)?)?;
    // On a machine that is busy, threads that spin while they wait take minutes for this.
    let mut peer = bench.peer_program(&["parity", dir], threads)?;
    let peer = losses(&answer(peer.env("OMP_WAIT_POLICY", "PASSIVE"))?)?;
    compare(&ours, &peer)
}

fn losses(answer: &Value) -> Result<Vec<[f64; 4]>> {
    serde_json::from_value(answer["losses"].clone()).context("the losses are no table")
}

fn compare(ours: &[[f64; 4]], peer: &[[f64; 4]]) -> Result<f64> {
    ensure!(ours.len() == peer.len(), "{} steps of ours, {} of the peer", ours.len(), peer.len());
    let size = |loss: usize| peer.iter().map(|step| step[loss].abs()).fold(0.0, f64::max);
    let sizes: [f64; 4] = std::array::from_fn(size);
    let mut worst = 0.0_f64;
    for (step, (ours, peer)) in ours.iter().zip(peer).enumerate() {
        for (((name, ours), peer), size) in NAMES.iter().zip(ours).zip(peer).zip(sizes) {
            let difference = (ours - peer).abs() / size;
            ensure!(
                difference <= TOLERANCE,
                "step {step}: the {name} loss is {ours} here and {peer} there: not the same algorithm"
            );
            worst = worst.max(difference);
        }
    }
    Ok(worst)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_near_zero_is_measured_by_the_size_that_it_has_elsewhere() {
        let peer = [[1.0, 1.0, 5.0, 1.0], [1.0, 1.0, 1e-6, 1.0]];
        let mut ours = peer;
        ours[1][2] = 2e-6;
        assert!(compare(&ours, &peer).unwrap() < 1e-6);
        ours[1][2] = 1e-3;
        assert!(compare(&ours, &peer).is_err());
    }

    #[test]
    fn a_loss_that_differs_or_is_not_a_number_is_named() {
        let peer = [[1.0, 2.0, 3.0, 4.0]; 3];
        assert_eq!(compare(&peer, &peer).unwrap(), 0.0);
        for wrong in [2.001, f64::NAN] {
            let mut ours = peer;
            ours[1][1] = wrong;
            let message = compare(&ours, &peer).unwrap_err().to_string();
            assert!(message.contains("step 1") && message.contains("fake score (forget)"), "{message}");
        }
    }
}
