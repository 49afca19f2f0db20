// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where a frame lies.

/// Memory that holds a frame, perhaps in pieces, and perhaps written by somebody else at any time.
///
/// Nobody keeps a reference into it: bytes are copied out, and each byte that anything is decided on is copied once.
pub trait Source {
    /// Bytes in all.
    fn len(&self) -> usize;

    /// Copies bytes from `at` on into `to` and says how many: fewer than asked for only where the source ends, or where
    /// it can no longer be read.
    fn read(&self, at: usize, to: &mut [u8]) -> usize;

    /// Whether there is nothing.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Source for [u8] {
    #[inline]
    fn len(&self) -> usize {
        <[u8]>::len(self)
    }

    #[inline]
    fn read(&self, at: usize, to: &mut [u8]) -> usize {
        let from = self.get(at..).unwrap_or_default();
        let n = from.len().min(to.len());
        if let (Some(to), Some(from)) = (to.get_mut(..n), from.get(..n)) {
            to.copy_from_slice(from);
        }
        n
    }
}

impl<const N: usize> Source for [u8; N] {
    #[inline]
    fn len(&self) -> usize {
        N
    }

    #[inline]
    fn read(&self, at: usize, to: &mut [u8]) -> usize {
        self.as_slice().read(at, to)
    }
}

impl Source for Vec<u8> {
    #[inline]
    fn len(&self) -> usize {
        self.as_slice().len()
    }

    #[inline]
    fn read(&self, at: usize, to: &mut [u8]) -> usize {
        self.as_slice().read(at, to)
    }
}

/// Private memory in pieces.
#[derive(Clone, Copy, Debug)]
pub struct Scattered<'a>(pub &'a [&'a [u8]]);

impl Source for Scattered<'_> {
    fn len(&self) -> usize {
        self.0.iter().map(|piece| piece.len()).sum()
    }

    fn read(&self, mut at: usize, to: &mut [u8]) -> usize {
        let mut done: usize = 0;
        for piece in self.0 {
            let Some(rest) = to.get_mut(done..).filter(|rest| !rest.is_empty()) else { break };
            done = done.saturating_add(piece.read(at, rest));
            at = at.saturating_sub(piece.len());
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_one_source() {
        let source = Scattered(&[&[1, 2], &[], &[3], &[4, 5, 6]]);
        assert_eq!(source.len(), 6);
        for at in 0..8 {
            for n in 0..8 {
                let mut to = vec![0; n];
                let got = source.read(at, &mut to);
                let wanted: Vec<u8> = (1..=6).skip(at).take(n).collect();
                assert_eq!(to[..got], wanted, "{n} from {at}");
            }
        }
    }
}
