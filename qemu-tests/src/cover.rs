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

/// A small subset of `cases` in which every pair of levels occurs that occurs in `cases` at all. The same input gives the
/// same subset: each step takes the case with the most pairs not yet covered, the earliest of equals.
pub fn pairwise(cases: &[Case]) -> Vec<Case> {
    let mut missing: BTreeSet<Pair> = cases.iter().flat_map(|c| pairs(c)).collect();
    let mut chosen = Vec::new();
    while !missing.is_empty() {
        let gain = |case: &Case| pairs(case).filter(|p| missing.contains(p)).count();
        let Some(best) = cases.iter().rev().max_by_key(|c| gain(c)) else { break };
        for pair in pairs(best) {
            missing.remove(&pair);
        }
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
    use super::*;

    #[test]
    fn the_product_respects_the_constraint() {
        assert_eq!(product(&[2, 3], |c| c != [0, 0]), vec![vec![0, 1], vec![0, 2], vec![1, 0], vec![1, 1], vec![1, 2]]);
    }

    #[test]
    fn every_possible_pair_occurs_in_far_fewer_cases() {
        let all = product(&[2, 2, 2, 3, 3, 2, 2], |c| c[0] == 1 || c[3] != 2);
        let few = pairwise(&all);
        let wanted: BTreeSet<Pair> = all.iter().flat_map(|c| pairs(c)).collect();
        let got: BTreeSet<Pair> = few.iter().flat_map(|c| pairs(c)).collect();
        assert_eq!(wanted, got);
        assert!(few.len() <= 14, "{} cases of {}", few.len(), all.len());
        assert!(few.iter().all(|c| all.contains(c)));
    }
}
