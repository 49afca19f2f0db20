// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What many pairs of runs come to.

use super::generator::Outcome;

/// Pairs of runs, ours and theirs.
#[derive(Debug, Default)]
pub(super) struct Series(Vec<(Outcome, Outcome)>);

impl Series {
    pub(super) fn add(&mut self, ours: Outcome, theirs: Outcome) {
        self.0.push((ours, theirs));
    }

    /// The median of the ratios within pairs.
    pub(super) fn ratio(&self) -> f64 {
        median(self.0.iter().map(|(a, b)| a.pps / b.pps).collect())
    }

    /// The best run of each side, in packets per second.
    pub(super) fn best(&self) -> (f64, f64) {
        let best = |pps: &mut dyn Iterator<Item = f64>| pps.fold(0.0, f64::max);
        (best(&mut self.0.iter().map(|p| p.0.pps)), best(&mut self.0.iter().map(|p| p.1.pps)))
    }

    /// The fewest busy cycles per packet of each side, where it tells them.
    pub(super) fn least_cycles(&self) -> (Option<f64>, Option<f64>) {
        let least = |cycles: &mut dyn Iterator<Item = f64>| cycles.reduce(f64::min);
        (least(&mut self.0.iter().filter_map(|p| p.0.cycles)), least(&mut self.0.iter().filter_map(|p| p.1.cycles)))
    }
}

/// A figure that may be missing.
pub(super) fn shown(figure: Option<f64>) -> String {
    figure.map_or_else(|| "-".to_owned(), |f| format!("{f:.0}"))
}

/// The middle one of an odd number of values, the mean of the middle two of an even number, 0 of none.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.get(middle) {
        None => 0.0,
        Some(high) if values.len() % 2 == 1 => *high,
        Some(high) => f64::midpoint(values[middle - 1], *high),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(pps: f64, cycles: Option<f64>) -> Outcome {
        Outcome { pps, cycles }
    }

    #[test]
    fn the_ratio_is_that_of_pairs_not_of_medians() {
        let mut series = Series::default();
        series.add(outcome(20.0, Some(90.0)), outcome(10.0, None));
        series.add(outcome(4.0, Some(95.0)), outcome(2.0, None)); // a slow minute for both
        series.add(outcome(30.0, None), outcome(10.0, None));
        assert!((series.ratio() - 2.0).abs() < 1e-9);
        assert_eq!(series.least_cycles(), (Some(90.0), None));
        assert_eq!((shown(Some(89.6)), shown(None)), ("90".to_owned(), "-".to_owned()));
    }

    #[test]
    fn the_median_of_an_even_number_is_between() {
        assert!((median(vec![4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
        assert!(median(Vec::new()).abs() < 1e-9);
    }
}
