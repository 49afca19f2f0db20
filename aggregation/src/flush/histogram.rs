// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How often numbers of which size occurred.

/// Number of buckets.
const BUCKETS: usize = 32;

/// Counts of numbers by their length in bits: bucket 0 is for 0, bucket *i* for numbers from 2^(i-1) to 2^i - 1, the last for all beyond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    buckets: [u64; BUCKETS],
    sum: u64,
}

impl Histogram {
    /// Number of buckets.
    pub const BUCKETS: usize = BUCKETS;

    /// The bucket in which a number is counted, below [`Histogram::BUCKETS`].
    #[inline]
    #[must_use]
    pub fn bucket(value: u64) -> usize {
        let bits = usize::try_from(u64::BITS.saturating_sub(value.leading_zeros())).unwrap_or(BUCKETS);
        bits.min(BUCKETS - 1)
    }

    /// Counts a number.
    #[inline]
    pub fn add(&mut self, value: u64) {
        if let Some(count) = self.buckets.get_mut(Self::bucket(value)) {
            *count = count.wrapping_add(1);
        }
        self.sum = self.sum.wrapping_add(value);
    }

    /// Adds what another one counted.
    pub fn merge(&mut self, other: &Self) {
        for (to, from) in self.buckets.iter_mut().zip(&other.buckets) {
            *to = to.wrapping_add(*from);
        }
        self.sum = self.sum.wrapping_add(other.sum);
    }

    /// The counts.
    #[must_use]
    pub const fn buckets(&self) -> &[u64; BUCKETS] {
        &self.buckets
    }

    /// The largest number that is counted in bucket `i`; `None` for the last, which has no bound.
    #[must_use]
    pub fn bound(i: usize) -> Option<u64> {
        let bits = u32::try_from(i).ok().filter(|_| i < BUCKETS - 1)?;
        Some(1_u64.checked_shl(bits)?.saturating_sub(1))
    }

    /// How many numbers were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().fold(0, |sum, count| sum.wrapping_add(*count))
    }

    /// The sum of all numbers.
    #[must_use]
    pub const fn sum(&self) -> u64 {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_is_within_the_bounds_of_its_bucket() {
        for value in (0..70).map(|i: u32| 1_u64.checked_shl(i).unwrap_or(u64::MAX)).flat_map(|v| [v - 1, v]) {
            let mut histogram = Histogram::default();
            histogram.add(value);
            let i = histogram.buckets().iter().position(|count| *count == 1).unwrap();
            assert!(Histogram::bound(i).is_none_or(|bound| value <= bound), "{value} in {i}");
            assert!(i == 0 || Histogram::bound(i - 1).is_some_and(|bound| value > bound), "{value} in {i}");
            assert_eq!((histogram.count(), histogram.sum()), (1, value));
        }
    }

    #[test]
    fn merged_is_as_if_counted_in_one() {
        let (mut a, mut b, mut all) = (Histogram::default(), Histogram::default(), Histogram::default());
        for value in 0..100 {
            let part = if value % 3 == 0 { &mut a } else { &mut b };
            part.add(value);
            all.add(value);
        }
        a.merge(&b);
        assert_eq!(a, all);
    }
}
