// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Medians, and how sure they are.

/// The middle of the values.
pub(super) fn median(values: &[f64]) -> f64 {
    let values = sorted(values);
    let middle = values.len() / 2;
    let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    if values.len() % 2 == 1 { at(middle) } else { f64::midpoint(at(middle.saturating_sub(1)), at(middle)) }
}

/// Two of the values that the median of what they are drawn from lies between with at least 95 % probability, whatever its
/// distribution: each value is below it with probability 1/2, so how many are is binomial. Needs six values.
pub(super) fn interval(values: &[f64]) -> Option<(f64, f64)> {
    let values = sorted(values);
    let count = i32::try_from(values.len()).ok()?;
    let (mut chosen, mut below, mut rank) = (0.5f64.powi(count), 0.0, 0);
    loop {
        below += chosen;
        if below > 0.025 {
            break;
        }
        rank += 1;
        chosen *= f64::from(count - rank + 1) / f64::from(rank);
    }
    let low = usize::try_from(rank).ok()?.checked_sub(1)?;
    Some((*values.get(low)?, *values.get(values.len() - 1 - low)?))
}

/// The least and the largest.
pub(super) fn spread(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &value| (low.min(value), high.max(value)))
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
        assert!((median(&[9.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert_eq!(spread(&[3.0, 1.0, 2.0]), (1.0, 3.0));
    }

    /// Ranks from tables of the sign test.
    #[test]
    fn intervals_are_those_of_the_sign_test() {
        let ranks = |count: u32| interval(&(1..=count).rev().map(f64::from).collect::<Vec<_>>());
        assert_eq!(ranks(5), None);
        assert_eq!(ranks(6), Some((1.0, 6.0)));
        assert_eq!(ranks(9), Some((2.0, 8.0)));
        assert_eq!(ranks(15), Some((4.0, 12.0)));
        assert_eq!(ranks(20), Some((6.0, 15.0)));
        assert_eq!(ranks(100), Some((40.0, 61.0)));
    }
}
