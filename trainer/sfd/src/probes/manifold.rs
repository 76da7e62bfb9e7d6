//! Where samples of a distribution lie, estimated from some of them: the union of balls around each, as wide as the
//! distance to its third nearest neighbour (Kynkaanniemi et al., "Improved precision and recall", arXiv 1904.06991).

use crate::error::{Error, Result};
use tch::{Kind, Tensor, no_grad};

/// Neighbours that a ball reaches, as in the paper.
const NEIGHBOURS: i64 = 3;
/// Points compared at once, to bound memory.
const CHUNK: i64 = 512;
/// `cdist` without matrix products: they lose the small distances that matter here.
const EXACT: i64 = 2;

#[derive(Debug)]
pub struct Manifold {
    /// [N, dimensions]
    points: Tensor,
    /// [N]
    radius: Tensor,
}

impl Manifold {
    /// # Shapes
    /// points: [N, dimensions], images or features
    ///
    /// # Errors
    /// [`Error::TooFewSamples`] if there are not more points than neighbours.
    pub fn new(points: &Tensor) -> Result<Self> {
        let given = points.size()[0];
        if given <= NEIGHBOURS {
            return Err(Error::TooFewSamples { what: "a manifold", least: NEIGHBOURS + 1, given });
        }
        let points = points.detach().copy();
        let radii = points.split(CHUNK, 0).into_iter().map(|part| {
            // The nearest of all points is the point itself.
            distances(&part, &points).kthvalue(NEIGHBOURS + 1, 1, false).0
        });
        let radius = no_grad(|| Tensor::cat(&radii.collect::<Vec<_>>(), 0));
        Ok(Self { points, radius })
    }

    /// Which of some other points lie in at least one ball.
    ///
    /// # Shapes
    /// points: `[B, dimensions]` -> `[B]` of bool
    pub fn contains(&self, points: &Tensor) -> Tensor {
        let parts = points
            .split(CHUNK, 0)
            .into_iter()
            .map(|part| distances(&part, &self.points).le_tensor(&self.radius).any_dim(1, false));
        no_grad(|| Tensor::cat(&parts.collect::<Vec<_>>(), 0))
    }

    /// How many of some other points lie in at least one ball.
    pub(super) fn count(&self, points: &Tensor) -> u64 {
        self.contains(points).sum(Kind::Int64).int64_value(&[]) as u64
    }
}

fn distances(from: &Tensor, to: &Tensor) -> Tensor {
    no_grad(|| Tensor::cdist(from, to, 2.0, EXACT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(points: &[f32]) -> Tensor {
        Tensor::from_slice(points).view([-1, 1])
    }

    fn inside(manifold: &Manifold, points: &[f32]) -> Vec<bool> {
        let contained = manifold.contains(&line(points));
        (0..points.len() as i64).map(|index| contained.int64_value(&[index]) == 1).collect()
    }

    #[test]
    fn a_ball_reaches_the_third_nearest_neighbour() {
        let manifold = Manifold::new(&line(&[0.0, 1.0, 2.0, 4.0])).unwrap();
        assert_eq!(manifold.radius.size(), [4]);
        let radii: Vec<f32> = Vec::try_from(&manifold.radius).unwrap();
        assert_eq!(radii, [4.0, 3.0, 2.0, 4.0]);
        // From -4 (4 left of 0) to 8 (4 right of 4).
        assert_eq!(inside(&manifold, &[-4.1, -4.0, 3.0, 8.0, 8.1]), [false, true, true, true, false]);
    }

    #[test]
    fn points_that_are_there_several_times_have_small_balls() {
        let manifold = Manifold::new(&line(&[5.0, 5.0, 5.0, 5.0, 9.0])).unwrap();
        assert_eq!(inside(&manifold, &[5.0, 5.1, 13.0, 13.1]), [true, true, true, false]);
        let alone = Manifold::new(&line(&[5.0; 4])).unwrap();
        assert_eq!(inside(&alone, &[5.0, 5.001]), [true, false]);
    }

    #[test]
    fn long_lists_are_compared_in_parts() {
        let points: Vec<f32> = (0..1300).map(|index| index as f32).collect();
        let manifold = Manifold::new(&line(&points)).unwrap();
        let others: Vec<f32> = (0..1300).map(|index| index as f32 + 0.5).collect();
        assert_eq!(manifold.count(&line(&others)), 1300);
        assert_eq!(manifold.count(&line(&[-3.5, 1302.5])), 0);
    }

    #[test]
    fn three_points_are_too_few_and_a_number_that_is_none_is_never_inside() {
        assert!(Manifold::new(&line(&[1.0, 2.0, 3.0])).is_err());
        let manifold = Manifold::new(&line(&[1.0, 2.0, 3.0, 4.0])).unwrap();
        assert_eq!(inside(&manifold, &[f32::NAN, f32::INFINITY]), [false, false]);
    }
}
