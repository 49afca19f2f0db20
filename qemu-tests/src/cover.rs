// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Covering every pair of options with few runs.
//!
//! A case is a list of levels, one per factor. Most faults that depend on options depend on one or two of them, so a set
//! of cases in which every *possible* pair of levels occurs finds nearly what the full product finds, at a twentieth of
//! its cost.

use std::collections::BTreeMap;

/// One level of each factor, as an index.
pub type Case = Vec<usize>;

/// Two levels that occur together: (factor, level) twice, the lower factor first.
type Pair = ((usize, usize), (usize, usize));

/// All combinations of `levels` (the number of levels of each factor) that `valid` accepts.
pub fn product(levels: &[usize], valid: impl Fn(&[usize]) -> bool) -> Vec<Case> {
    let mut cases: Vec<Case> = vec![Vec::new()];
    for &count in levels {
        cases =
            cases.iter().flat_map(|case| (0..count).map(move |level| [case.as_slice(), &[level]].concat())).collect();
    }
    cases.retain(|case| valid(case));
    cases
}

/// A small subset of `cases` in which every pair of levels that occurs in `cases` at all occurs `times` times, each time
/// with other levels around it (less often if `cases` has it less often). The same input gives the same subset: each step
/// takes the case with the most pairs still wanted, the earliest of equals.
pub fn pairwise(cases: &[Case], times: usize) -> Vec<Case> {
    let mut wanted: BTreeMap<Pair, usize> = BTreeMap::new();
    for pair in cases.iter().flat_map(|c| pairs(c)) {
        let count = wanted.entry(pair).or_default();
        *count = (*count + 1).min(times);
    }
    let mut left: Vec<&Case> = cases.iter().collect();
    let mut chosen = Vec::new();
    while !wanted.is_empty() {
        let gain = |case: &Case| pairs(case).filter(|p| wanted.contains_key(p)).count();
        let Some((best, _)) = left.iter().enumerate().rev().max_by_key(|(_, c)| gain(c)) else { break };
        let best = left.remove(best);
        for pair in pairs(best) {
            if let Some(count) = wanted.get_mut(&pair) {
                *count -= 1;
            }
        }
        wanted.retain(|_, count| *count > 0);
        chosen.push(best.clone());
    }
    chosen
}

fn pairs(case: &[usize]) -> impl Iterator<Item = Pair> + '_ {
    case.iter()
        .enumerate()
        .flat_map(move |(i, &a)| case.iter().enumerate().skip(i + 1).map(move |(j, &b)| ((i, a), (j, b))))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_product_respects_the_constraint() {
        assert_eq!(product(&[2, 3], |c| c != [0, 0]), vec![vec![0, 1], vec![0, 2], vec![1, 0], vec![1, 1], vec![1, 2]]);
    }

    #[test]
    fn every_possible_pair_occurs_in_far_fewer_cases() {
        let all = product(&[2, 2, 2, 3, 3, 2, 2], |c| c[0] == 1 || c[3] != 2);
        let few = pairwise(&all, 1);
        let wanted: BTreeSet<Pair> = all.iter().flat_map(|c| pairs(c)).collect();
        let got: BTreeSet<Pair> = few.iter().flat_map(|c| pairs(c)).collect();
        assert_eq!(wanted, got);
        assert!(few.len() <= 14, "{} cases of {}", few.len(), all.len());
        assert!(few.iter().all(|c| all.contains(c)));
    }

    #[test]
    fn pairs_occur_as_often_as_asked_for() {
        let all = product(&[2, 3, 2, 2], |_| true);
        let twice = pairwise(&all, 2);
        for pair in all.iter().flat_map(|c| pairs(c)) {
            assert!(twice.iter().filter(|c| pairs(c).any(|p| p == pair)).count() >= 2, "{pair:?}");
        }
        assert_eq!(twice.iter().collect::<BTreeSet<_>>().len(), twice.len(), "no case twice");
    }
}
