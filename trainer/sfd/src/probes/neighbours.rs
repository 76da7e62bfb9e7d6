//! Neighbours: the kept labels that are most like the forgotten one are the first to be harmed.

use crate::measure::Confusion;

/// At most `count` of `kept`, those that the judge confuses most with `label` in samples of a model that has forgotten
/// nothing, the most confused first. Compare the accuracy at each with that model's.
pub fn neighbours(confusion: &Confusion, label: i64, kept: &[i64], count: usize) -> Vec<i64> {
    let probability = |asked: i64, seen: i64| confusion.rows()[asked as usize].probability[seen as usize];
    let alike = |other: i64| probability(label, other) + probability(other, label);
    let mut kept = kept.to_vec();
    kept.sort_by(|&a, &b| alike(b).total_cmp(&alike(a)));
    kept.truncate(count);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Census;

    #[test]
    fn the_most_confused_come_first_in_either_direction() {
        let row = |label: i64, probability: [f64; 4]| Census {
            label,
            predicted: vec![0; 4],
            probability: probability.to_vec(),
        };
        let confusion = Confusion::from_rows(vec![
            row(0, [0.90, 0.02, 0.05, 0.03]),
            row(1, [0.09, 0.91, 0.0, 0.0]),
            row(2, [0.01, 0.0, 0.99, 0.0]),
            row(3, [0.0, 0.0, 0.0, 1.0]),
        ]);
        assert_eq!(neighbours(&confusion, 0, &[1, 2, 3], 2), [1, 2]);
        assert_eq!(neighbours(&confusion, 0, &[3, 2], 5), [2, 3]);
    }
}
