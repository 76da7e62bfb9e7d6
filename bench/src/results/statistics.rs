//! What counts of rare hits allow to say.

/// Probability of at most `hits` in `n` trials of probability `p`.
fn at_most(hits: u64, n: u64, p: f64) -> f64 {
    if hits >= n || p <= 0.0 {
        return 1.0;
    }
    if p >= 1.0 {
        return 0.0;
    }
    let mut term = n as f64 * (1.0 - p).ln();
    let mut sum = term.exp();
    for k in 0..hits {
        term += ((n - k) as f64 / (k + 1) as f64).ln() + (p / (1.0 - p)).ln();
        sum += term.exp();
    }
    sum.min(1.0)
}

/// The largest rate that `hits` of `n` do not refute: one-sided, exact (Clopper and Pearson, 1934).
pub fn upper_bound(hits: u64, n: u64, confidence: f64) -> f64 {
    if hits >= n {
        return 1.0;
    }
    let (mut low, mut high) = (hits as f64 / n as f64, 1.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if at_most(hits, n, middle) > 1.0 - confidence { low = middle } else { high = middle }
    }
    high
}

/// How likely at least `hits` of `n` are beside `base` of as many, if both come at one rate: given their sum, each hit is
/// as likely to be on either side.
pub fn excess(hits: u64, base: u64) -> f64 {
    if hits == 0 {
        return 1.0;
    }
    1.0 - at_most(hits - 1, hits + base, 0.5)
}

/// Whether any of these probabilities is too small for chance, when `of` such tests are made together (Bonferroni).
pub fn refutes(p: f64, level: f64, of: usize) -> bool {
    p < level / of as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_the_tabulated_ones() {
        for (hits, n, bound) in
            [(0, 299, 0.01), (1, 473, 0.01), (2, 628, 0.01), (5, 1049, 0.01), (0, 598, 0.005)]
        {
            let found = upper_bound(hits, n, 0.95);
            // The table gives the least n for a round bound.
            assert!((bound - 5e-5..=bound).contains(&found), "{hits} of {n}: {found}");
        }
        assert_eq!(upper_bound(7, 7, 0.95), 1.0);
    }

    #[test]
    fn an_excess_is_a_sign_test() {
        assert_eq!(excess(0, 0), 1.0);
        // All of five: one in 32. One or more of two: three in four.
        assert!((excess(5, 0) - 1.0 / 32.0).abs() < 1e-12);
        assert!((excess(1, 1) - 0.75).abs() < 1e-12);
        assert!(refutes(excess(9, 0), 0.05, 10) && !refutes(excess(7, 0), 0.05, 10));
    }
}
