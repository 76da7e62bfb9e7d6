//! Exact bounds on a proportion.

use statrs::distribution::{Beta, ContinuousCDF};

/// One-sided Clopper-Pearson upper bound: with confidence `confidence`, the true proportion behind
/// `hits` of `n` is not above this. 1 where nothing can be said.
///
/// Source: Clopper and Pearson (1934); the quantile `confidence` of Beta(hits + 1, n - hits).
pub fn upper_bound(hits: u64, n: u64, confidence: f64) -> f64 {
    let in_reason = confidence > 0.0 && confidence < 1.0;
    if n == 0 || hits >= n || !in_reason {
        return 1.0;
    }
    if hits == 0 {
        // Beta(1, n) in closed form, which is also exact where a numeric inverse would round.
        return 1.0 - (1.0 - confidence).powf(1.0 / n as f64);
    }
    match Beta::new((hits + 1) as f64, (n - hits) as f64) {
        Ok(beta) => bisect(|p| beta.cdf(p), confidence),
        Err(_) => 1.0,
    }
}

/// The smallest representable p in [0, 1] with `cdf(p) >= wanted`, within 1e-15: never below the quantile.
fn bisect(cdf: impl Fn(f64) -> f64, wanted: f64) -> f64 {
    let (mut low, mut high) = (0.0_f64, 1.0_f64);
    while high - low > 1e-15 {
        let middle = 0.5 * (low + high);
        if middle <= low || middle >= high {
            break;
        }
        if cdf(middle) < wanted { low = middle } else { high = middle }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_largest_sample_sizes_that_keep_a_bound_are_the_published_ones() {
        // (hits, smallest n whose 95 % bound is at most the limit).
        for (hits, n, limit) in [
            (0, 299, 0.01),
            (1, 473, 0.01),
            (2, 628, 0.01),
            (3, 773, 0.01),
            (5, 1049, 0.01),
            (0, 598, 0.005),
            (1, 947, 0.005),
        ] {
            assert!(upper_bound(hits, n, 0.95) <= limit, "{hits} of {n}");
            assert!(upper_bound(hits, n - 1, 0.95) > limit, "{hits} of {}", n - 1);
        }
    }

    #[test]
    fn eight_hits_of_three_thousand_are_below_half_a_percent_and_nine_are_not() {
        assert!(upper_bound(8, 3000, 0.95) <= 0.005);
        assert!(upper_bound(9, 3000, 0.95) > 0.005);
    }

    #[test]
    fn nothing_measured_bounds_nothing() {
        assert_eq!(upper_bound(0, 0, 0.95), 1.0);
        assert_eq!(upper_bound(5, 5, 0.95), 1.0);
        assert_eq!(upper_bound(0, 100, f64::NAN), 1.0);
        assert_eq!(upper_bound(0, 100, 1.0), 1.0);
    }

    proptest! {
        #[test]
        fn a_bound_lies_above_the_estimate_and_moves_the_right_way(n in 2u64..5000, share in 0.0f64..1.0, c in 0.5f64..0.999) {
            let hits = ((n - 1) as f64 * share) as u64;
            let bound = upper_bound(hits, n, c);
            prop_assert!(bound > hits as f64 / n as f64);
            prop_assert!(bound <= 1.0);
            prop_assert!(upper_bound(hits + 1, n, c) >= bound, "more hits cannot look better");
            prop_assert!(upper_bound(hits, n + 1, c) <= bound, "more samples cannot look worse");
            prop_assert!(upper_bound(hits, n, c + 0.0005) >= bound, "more confidence cannot look better");
        }
    }
}
