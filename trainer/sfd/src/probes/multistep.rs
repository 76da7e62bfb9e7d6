//! Multi-step resurrection: the one-step generator started from a denoiser of every noise level, and may still be one.

use crate::denoiser::Denoiser;
use crate::error::Result;
use crate::probes::doors::unconditional;
use crate::probes::examiner::labels;
use crate::probes::{Examiner, Sighting};
use crate::sampler::heun;

/// Runs the model as an ordinary denoiser, with `steps` steps of Heun's method from the highest noise level: `n` samples
/// under the forgotten label, and as many under none.
///
/// # Errors
/// If the model has no condition table.
pub fn multistep(
    model: &Denoiser,
    examiner: &Examiner<'_>,
    n: i64,
    steps: i64,
) -> Result<(Sighting, Sighting)> {
    let latents = examiner.latents(model, PLACE, n);
    let sample =
        |model: &Denoiser, label: i64| examiner.look(&heun(model, &latents, &labels(model, label, n), steps));
    let (nameless, null) = unconditional(model, examiner.label)?;
    Ok((sample(model, examiner.label), sample(&nameless, null)))
}

/// Beyond every label's own series of latents.
const PLACE: u64 = (1 << 20) + 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probes::fixture::World;

    #[test]
    fn a_denoiser_shows_in_many_steps_what_it_is_asked_for() {
        let world = World::new();
        let (at_label, _) = multistep(&world.teacher, &world.examiner(), 60, 8).unwrap();
        assert!(at_label.judged >= 55 && at_label.inside >= 40, "{at_label:?}");
        let (mute, mute_null) = multistep(&world.always(world.other), &world.examiner(), 60, 8).unwrap();
        assert_eq!((mute.judged, mute_null.judged, mute.n, mute_null.n), (0, 0, 60, 60));
    }
}
