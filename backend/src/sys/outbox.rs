// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Messages that wait to be sent, one behind the other in private memory.

/// Messages, first in, first out. Their memory is had again when all are gone.
#[derive(Debug)]
pub(crate) struct Outbox {
    room: Box<[u8]>,
    /// Where each message ends.
    ends: Vec<usize>,
    most: usize,
    /// How many of them are gone.
    gone: usize,
    longest: usize,
}

impl Outbox {
    /// With room for `most` messages and `bytes` in all; none is longer than `longest`.
    pub(crate) fn new(most: usize, bytes: usize, longest: usize) -> Self {
        Self { room: vec![0; bytes].into_boxed_slice(), ends: Vec::with_capacity(most), most, gone: 0, longest }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.gone == self.ends.len()
    }

    /// Whether there is room for one more, of any length.
    pub(crate) fn has_room(&self) -> bool {
        self.ends.len() < self.most && self.used() + self.longest <= self.room.len()
    }

    /// Adds a message of `len` bytes, which `fill` writes entirely. `false`: there is no room for it now.
    pub(crate) fn push(&mut self, len: usize, fill: impl FnOnce(&mut [u8])) -> bool {
        let (begin, fits) = (self.used(), self.ends.len() < self.most);
        let Some(room) = self.room.get_mut(begin..begin + len).filter(|_| fits) else { return false };
        fill(room);
        self.ends.push(begin + len);
        true
    }

    /// The messages that wait, in order.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = &[u8]> {
        (self.gone..self.ends.len()).map(|at| {
            let begin = at.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
            let end = self.ends.get(at).copied().unwrap_or(begin);
            self.room.get(begin..end).unwrap_or_default()
        })
    }

    /// The first of them.
    pub(crate) fn first(&self) -> Option<&[u8]> {
        self.waiting().next()
    }

    /// Forgets the first `count` of them.
    pub(crate) fn forget(&mut self, count: usize) {
        self.gone = (self.gone + count).min(self.ends.len());
        if self.is_empty() {
            self.ends.clear();
            self.gone = 0;
        }
    }

    fn used(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_goes_in_comes_out_in_order(steps in vec((0..40usize, 0..4usize), 1..60)) {
            let mut outbox = Outbox::new(8, 200, 40);
            let mut oracle: std::collections::VecDeque<Vec<u8>> = std::collections::VecDeque::new();
            for (number, (len, gone)) in steps.into_iter().enumerate() {
                let message = vec![number.to_le_bytes()[0]; len];
                let room = outbox.has_room();
                let taken = outbox.push(len, |bytes| bytes.copy_from_slice(&message));
                prop_assert!(taken || !room);
                if taken {
                    oracle.push_back(message);
                }
                outbox.forget(gone);
                oracle.drain(..gone.min(oracle.len()));
                prop_assert!(outbox.waiting().eq(oracle.iter().map(Vec::as_slice)));
                prop_assert_eq!(outbox.is_empty(), oracle.is_empty());
                if oracle.is_empty() {
                    prop_assert!(outbox.has_room());
                }
            }
        }
    }
}
