//! The Frechet distance between two normal distributions (Dowson and Landau, 1982), in double precision.

use tch::{Device, Kind, Tensor, no_grad};

/// First and second moments of `n` feature vectors; sums of them are moments of the union.
#[derive(Debug)]
pub(crate) struct Moments {
    pub(crate) n: i64,
    /// Sum of features: [F]
    pub(crate) sum: Tensor,
    /// Sum of outer products: [F, F]
    pub(crate) outer: Tensor,
}

impl Moments {
    /// # Shapes
    /// features: [N, F]
    pub(crate) fn of(features: &Tensor) -> Self {
        let features = no_grad(|| features.to_device(Device::Cpu).to_kind(Kind::Double));
        let sum = features.sum_dim_intlist(0, false, None::<Kind>);
        Self { n: features.size()[0], sum, outer: features.tr().matmul(&features) }
    }

    pub(crate) fn union<'a>(parts: impl IntoIterator<Item = &'a Moments>) -> Option<Self> {
        let copy = |part: &Moments| Self { n: part.n, sum: part.sum.copy(), outer: part.outer.copy() };
        parts.into_iter().map(copy).reduce(|a, b| Self {
            n: a.n + b.n,
            sum: a.sum + b.sum,
            outer: a.outer + b.outer,
        })
    }

    /// Mean [F] and unbiased covariance [F, F].
    fn normal(&self) -> (Tensor, Tensor) {
        let n = self.n as f64;
        let mean = &self.sum / n;
        let covariance = (&self.outer - mean.outer(&mean) * n) / (n - 1.0);
        (mean, covariance)
    }
}

/// |m1 - m2|^2 + tr(C1 + C2 - 2 (C1^(1/2) C2 C1^(1/2))^(1/2)). Both need more than one sample.
pub(crate) fn distance(a: &Moments, b: &Moments) -> f64 {
    let ((mean_a, cov_a), (mean_b, cov_b)) = (a.normal(), b.normal());
    let root = square_root(&cov_a);
    let cross = eigenvalues(&root.matmul(&cov_b).matmul(&root)).sqrt().sum(Kind::Double);
    let value = (mean_a - mean_b).square().sum(Kind::Double) + cov_a.trace() + cov_b.trace() - cross * 2.0;
    value.double_value(&[]).max(0.0)
}

/// The symmetric square root of a symmetric matrix without negative eigenvalues (but for rounding).
fn square_root(matrix: &Tensor) -> Tensor {
    let (values, vectors) = matrix.linalg_eigh("L");
    (&vectors * values.clamp_min(0.0).sqrt()).matmul(&vectors.tr())
}

fn eigenvalues(matrix: &Tensor) -> Tensor {
    matrix.linalg_eigvalsh("L").clamp_min(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(points: &[[f64; 2]]) -> Moments {
        Moments::of(&Tensor::from_slice2(points))
    }

    #[test]
    fn distance_of_known_normals() {
        // Axis-aligned: |m1 - m2|^2 + sum over axes of (s1 - s2)^2.
        let a = grid(&[[-1.0, -2.0], [-1.0, 2.0], [1.0, -2.0], [1.0, 2.0]]);
        let b = grid(&[[0.0, -1.0], [0.0, 1.0], [6.0, -1.0], [6.0, 1.0]]);
        let scale = (4.0_f64 / 3.0).sqrt();
        let expected = 9.0 + (scale * (3.0 - 1.0)).powi(2) + (scale * (2.0 - 1.0)).powi(2);
        assert!((distance(&a, &b) - expected).abs() < 1e-9, "{}", distance(&a, &b));
        assert!((distance(&a, &b) - distance(&b, &a)).abs() < 1e-9);
        assert!(distance(&a, &a) < 1e-9);
    }

    #[test]
    fn degenerate_features_have_a_distance() {
        let a = grid(&[[0.0, 5.0], [1.0, 5.0], [2.0, 5.0]]);
        let b = grid(&[[0.0, 6.0], [1.0, 6.0], [2.0, 6.0]]);
        assert!((distance(&a, &b) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn moments_of_a_union_are_moments_of_all() {
        let all = grid(&[[0.0, 1.0], [1.0, 3.0], [5.0, 2.0], [4.0, 0.0]]);
        let parts = [grid(&[[0.0, 1.0], [1.0, 3.0]]), grid(&[[5.0, 2.0], [4.0, 0.0]])];
        let union = Moments::union(&parts).unwrap();
        assert_eq!(union.n, 4);
        assert!(distance(&all, &union) < 1e-9);
    }
}
