//! The exact upper bound on a proportion, for the live samples. Those of the gates are the operator's own: its
//! library would make xtask, which every clone compiles first, wait for a Kubernetes client. A test of `lethe-tests`
//! holds the two against each other.

/// One-sided Clopper-Pearson upper bound at 95 % confidence: the largest p under which `hits` or fewer of `n`
/// would still be seen in 5 % of all cases. 1 where nothing can be said.
///
/// Source: Clopper and Pearson (1934).
pub fn upper(hits: u64, n: u64) -> f64 {
    if hits >= n {
        return 1.0;
    }
    let (mut low, mut high) = (0.0_f64, 1.0_f64);
    // 60 halvings are below the spacing of doubles here.
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if at_most(hits, n, middle) > 0.05 { low = middle } else { high = middle }
    }
    high
}

/// As it is shown: rounded up, so that it never looks better than it is.
pub fn shown(hits: u64, n: u64) -> String {
    format!("{:.4}", (upper(hits, n) * 1e4 - 1e-9).ceil() / 1e4)
}

/// Probability of `hits` or fewer among `n`, each with probability `p` in (0, 1).
fn at_most(hits: u64, n: u64, p: f64) -> f64 {
    let (yes, no) = (p.ln(), (-p).ln_1p());
    // ln of n over k, from one k to the next: the plain numbers are too large for a double.
    let mut choices = 0.0;
    let mut sum = 0.0;
    for k in 0..=hits {
        if k > 0 {
            choices += ((n - k + 1) as f64).ln() - (k as f64).ln();
        }
        sum += (choices + k as f64 * yes + (n - k) as f64 * no).exp();
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_the_published_ones() {
        // No hit: 1 - 0.05^(1/n), in closed form.
        assert!((upper(0, 3000) - (1.0 - 0.05_f64.powf(1.0 / 3000.0))).abs() < 1e-12);
        // (hits, smallest n whose bound is at most 1 %).
        for (hits, n) in [(0, 299), (1, 473), (2, 628), (3, 773), (5, 1049)] {
            assert!(upper(hits, n) <= 0.01 && upper(hits, n - 1) > 0.01, "{hits} of {n}");
        }
        assert!(upper(8, 3000) <= 0.005 && upper(9, 3000) > 0.005);
    }

    #[test]
    fn many_hits_are_bounded_from_above_as_well() {
        let bound = upper(2990, 3000);
        assert!(bound > 2990.0 / 3000.0 && bound < 1.0, "{bound}");
        assert_eq!(upper(3000, 3000), 1.0);
        assert_eq!(upper(0, 0), 1.0);
    }

    #[test]
    fn what_is_shown_is_never_better() {
        assert_eq!(shown(2, 3000), "0.0021");
        assert_eq!(shown(3000, 3000), "1.0000");
    }
}
