// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Covering every pair of options with few runs.
//!
//! A case is a list of levels, one per factor. Most faults that depend on options depend on one or two of them, so a set
//! of cases in which every *possible* pair of levels occurs finds nearly what the full product finds, at a twentieth of
//! its cost.

use std::collections::BTreeSet;

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

/// A small subset of `cases`: `times` covers after each other, each of cases that the former did not take, and in each
/// cover every pair of levels occurs that is still there. The same input gives the same subset: each step takes the case
/// with the most pairs that its cover lacks, the first of equals in an order that differs from cover to cover.
pub fn pairwise(cases: &[Case], times: u64) -> Vec<Case> {
    let mut left: Vec<&Case> = cases.iter().collect();
    let mut chosen = Vec::new();
    for cover in 0..times {
        left.sort_by_key(|case| scattered(case, cover));
        let mut lacking: BTreeSet<Pair> = left.iter().flat_map(|c| pairs(c)).collect();
        while !lacking.is_empty() {
            let gain = |case: &Case| pairs(case).filter(|p| lacking.contains(p)).count();
            let Some((best, _)) = left.iter().enumerate().rev().max_by_key(|(_, c)| gain(c)) else { break };
            let best = left.remove(best);
            for pair in pairs(best) {
                lacking.remove(&pair);
            }
            chosen.push(best.clone());
        }
    }
    chosen
}

/// A hash, to put cases into an order in which neighbours have little in common (SplitMix64's finaliser).
fn scattered(case: &[usize], cover: u64) -> u64 {
    case.iter().fold(cover, |hash, &level| {
        let z = (hash ^ level as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb)
    })
}

fn pairs(case: &[usize]) -> impl Iterator<Item = Pair> + '_ {
    case.iter()
        .enumerate()
        .flat_map(move |(i, &a)| case.iter().enumerate().skip(i + 1).map(move |(j, &b)| ((i, a), (j, b))))
}

#[cfg(test)]
mod tests {
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
