// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the driver remembers of a posted chain, in private memory: nothing the device could have
//! changed is ever believed.

/// A posted chain, kept under its buffer id (packed) or head (split).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Slot {
    pub(super) token: u32,
    /// Bytes the device may write.
    pub(super) writable: u32,
    /// Descriptors it takes in the ring; 0: not outstanding.
    pub(super) count: u16,
    /// Split: the descriptor after this one in its chain.
    pub(super) next: u16,
}

/// A slot for each id.
pub(super) fn slots(size: u16) -> Box<[Slot]> {
    vec![Slot::default(); usize::from(size)].into_boxed_slice()
}

/// Ids not in use, first freed, first used: a device that completes in order then meets ids, and
/// with them descriptors and slots, in ascending order, four to a line.
#[derive(Debug)]
pub(super) struct FreeIds {
    ids: Box<[u16]>,
    pub(super) first: usize,
    end: usize,
}

impl FreeIds {
    /// All ids below `size` are free.
    pub(super) fn all(size: u16) -> Self {
        Self { ids: (0..size).collect(), first: 0, end: 0 }
    }

    /// Takes an id. The caller knows that one is free, because it counts free descriptors.
    #[inline(always)]
    pub(super) fn take(&mut self) -> u16 {
        let mut first = self.first;
        let id = self.take_at(&mut first);
        self.first = first;
        id
    }

    /// As `take`, for a burst that keeps its own copy of `first`.
    #[inline(always)]
    pub(super) fn take_at(&self, first: &mut usize) -> u16 {
        let id = self.ids.get(*first).copied().unwrap_or(0);
        *first += 1;
        if *first == self.ids.len() {
            *first = 0;
        }
        id
    }

    /// Gives one back.
    #[inline(always)]
    pub(super) fn give(&mut self, id: u16) {
        if let Some(place) = self.ids.get_mut(self.end) {
            *place = id;
        }
        self.end += 1;
        if self.end == self.ids.len() {
            self.end = 0;
        }
    }
}

/// A used element that stands for several chains, on a ring that is used in order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batch {
    /// Id or head of the last chain of the batch.
    pub(super) last: u16,
    /// Bytes the device wrote into that one.
    pub(super) len: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_go_round() {
        let mut free = FreeIds::all(3);
        assert_eq!((free.take(), free.take()), (0, 1));
        free.give(1);
        assert_eq!(free.take(), 2);
        free.give(0);
        free.give(2);
        assert_eq!((free.take(), free.take(), free.take()), (1, 0, 2));
    }
}
