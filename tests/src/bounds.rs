//! The demo computes its bounds by summing, the operator by inverting a distribution: two ways to one number.

use lethe_core::binomial::upper_bound;
use xtask::demo::bound;

#[test]
fn the_demo_and_the_operator_give_the_same_bounds() {
    for n in [1, 10, 299, 1000, 3000, 20_000] {
        for hits in [0, 1, 2, 8, n / 3, n - 1, n].into_iter().filter(|hits| *hits <= n) {
            let (demo, operator) = (bound::upper(hits, n), upper_bound(hits, n, 0.95));
            assert!((demo - operator).abs() < 1e-9, "{hits} of {n}: {demo} and {operator}");
        }
    }
}
