// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The chains a queue has harvested and not yet given back: a bounded first-in first-out list,
//! structure of arrays, allocated once.
//!
//! Almost every chain is *simple*: one descriptor that lies in one region, so one pointer and one
//! length. Everything a simple chain needs is in four lanes; the lanes that only others need keep
//! the values of a simple chain wherever nothing else is held, so the fast path neither reads nor
//! writes them. `complex` counts the others; when it is 0 a whole burst can skip asking.

use crate::mem::HostPtr;

/// Most chains a queue holds.
pub(super) const HELD: usize = 256;

/// One contiguous piece of a chain in our address space.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) ptr: HostPtr,
    pub(super) len: u32,
}

/// A column of the table, indexed by a running number of which only the low bits count.
pub(super) struct Lane<T>([T; HELD]);

impl<T: Copy> Lane<T> {
    const MASK: usize = HELD - 1;

    #[inline(always)]
    #[expect(clippy::indexing_slicing, reason = "the mask keeps the index inside")]
    pub(super) const fn get(&self, at: usize) -> T {
        self.0[at & Self::MASK]
    }

    #[inline(always)]
    #[expect(clippy::indexing_slicing, reason = "the mask keeps the index inside")]
    pub(super) const fn set(&mut self, at: usize, value: T) {
        self.0[at & Self::MASK] = value;
    }

    /// Sets four values in a row.
    #[inline(always)]
    fn set_line(&mut self, at: usize, values: [T; 4]) {
        let at = at & Self::MASK;
        if at <= HELD - 4 {
            // SAFETY: `at + 4 <= HELD`, as just checked; an array of four `T` has the alignment of
            // one.
            unsafe { self.0.as_mut_ptr().add(at).cast::<[T; 4]>().write(values) };
        } else {
            for (i, value) in values.into_iter().enumerate() {
                self.set(at + i, value);
            }
        }
    }
}

/// The list. Entries `head..tail` are filled; `tail - head <= HELD`.
pub(super) struct Held {
    pub(super) head: usize,
    pub(super) tail: usize,
    /// Filled entries that are not simple.
    pub(super) complex: usize,
    /// At least as many bytes as any chain has that came since the list was last empty.
    pub(super) longest: u32,
    /// First byte of the chain.
    pub(super) ptr: Lane<HostPtr>,
    /// Bytes in the chain, at least one header.
    pub(super) len: Lane<u32>,
    /// What the used element calls it: buffer id (packed) or head index (split).
    pub(super) id: Lane<u16>,
    /// Ring entries it occupies: descriptors (packed) or 1 (split).
    entries: Lane<u16>,
    /// Pieces in the pool, or 0: contiguous.
    pieces: Lane<u32>,
    /// Place of the first piece in the pool.
    piece_at: Lane<u32>,
    pool: Pool,
    /// Where the chain being built began in the pool.
    mark: u32,
}

impl Held {
    /// Room for [`HELD`] chains with at most `pieces` pieces altogether.
    pub(super) fn new(pieces: usize) -> Box<Self> {
        Box::new(Self {
            head: 0,
            tail: 0,
            complex: 0,
            longest: 0,
            ptr: Lane([HostPtr::DANGLING; HELD]),
            len: Lane([0; HELD]),
            id: Lane([0; HELD]),
            entries: Lane([1; HELD]),
            pieces: Lane([0; HELD]),
            piece_at: Lane([0; HELD]),
            pool: Pool::new(pieces),
            mark: 0,
        })
    }

    #[inline(always)]
    pub(super) const fn count(&self) -> usize {
        self.tail - self.head
    }

    /// Appends a simple chain. The caller has checked that there is room.
    #[inline(always)]
    pub(super) fn push(&mut self, ptr: HostPtr, len: u32, id: u16) {
        debug_assert!(self.count() < HELD);
        self.ptr.set(self.tail, ptr);
        self.len.set(self.tail, len);
        self.id.set(self.tail, id);
        self.longest = self.longest.max(len);
        self.tail += 1;
    }

    /// Appends four simple chains. The caller has checked that there is room.
    #[inline(always)]
    pub(super) fn push_line(&mut self, ptrs: [HostPtr; 4], lens: [u32; 4], ids: [u16; 4]) {
        debug_assert!(self.count() + 4 <= HELD);
        self.ptr.set_line(self.tail, ptrs);
        self.len.set_line(self.tail, lens);
        self.id.set_line(self.tail, ids);
        let [a, b, c, d] = lens;
        self.longest = self.longest.max(a).max(b).max(c).max(d);
        self.tail += 4;
    }

    /// Begins a chain piece by piece; what was begun and not finished is forgotten.
    pub(super) const fn begin(&mut self) {
        if self.complex == 0 {
            self.pool.head = 0;
            self.pool.tail = 0;
        }
        self.mark = self.pool.tail;
    }

    /// Adds a piece; false when the pool is full.
    pub(super) fn piece(&mut self, ptr: HostPtr, len: u32) -> bool {
        self.pool.push(Segment { ptr, len })
    }

    /// Whether nothing but the chain being built is in the pool: waiting would give no more room.
    pub(super) const fn pool_is_otherwise_empty(&self) -> bool {
        self.pool.head == self.mark
    }

    /// Takes back the pieces of the chain being built.
    pub(super) const fn abandon(&mut self) {
        self.pool.tail = self.mark;
    }

    /// Ends the chain being built.
    pub(super) fn finish(&mut self, len: u32, id: u16, entries: u16) {
        let pieces = self.pool.tail.wrapping_sub(self.mark);
        let first = self.pool.get(self.mark);
        let simple = pieces <= 1 && entries == 1;
        if pieces <= 1 {
            self.pool.tail = self.mark;
        }
        if !simple {
            self.complex += 1;
            self.entries.set(self.tail, entries);
            self.pieces.set(self.tail, if pieces <= 1 { 0 } else { pieces });
            self.piece_at.set(self.tail, self.mark);
        }
        let ptr = if pieces == 0 { HostPtr::DANGLING } else { first.ptr };
        self.push(ptr, len, id);
    }

    /// Ring entries of the chain at `at` (a running number in `head..tail`).
    #[inline(always)]
    pub(super) const fn entries(&self, at: usize) -> u16 {
        self.entries.get(at)
    }

    /// Whether the chain at `at` is one contiguous piece.
    #[inline(always)]
    pub(super) const fn is_contiguous(&self, at: usize) -> bool {
        self.pieces.get(at) == 0
    }

    /// The pieces of the chain at `at`, in order.
    pub(super) fn segments(&self, at: usize) -> impl Iterator<Item = Segment> + '_ {
        let count = self.pieces.get(at);
        let from = self.piece_at.get(at);
        let whole = Segment { ptr: self.ptr.get(at), len: self.len.get(at) };
        (0..count.max(1)).map(move |i| if count == 0 { whole } else { self.pool.get(from.wrapping_add(i)) })
    }

    /// Removes the first `n` simple chains; nothing complex is held.
    #[inline(always)]
    pub(super) const fn drop_simple(&mut self, n: usize) {
        debug_assert!(self.complex == 0 && n <= self.count());
        self.head += n;
        if self.head == self.tail {
            self.rewind();
        }
    }

    /// Removes the first chain.
    pub(super) const fn drop_first(&mut self) {
        let at = self.head;
        let pieces = self.pieces.get(at);
        if pieces != 0 || self.entries.get(at) != 1 {
            self.complex -= 1;
            self.pool.head = self.pool.head.wrapping_add(pieces);
            self.pieces.set(at, 0);
            self.entries.set(at, 1);
        }
        self.head += 1;
        if self.head == self.tail {
            self.rewind();
        }
    }

    /// Begins an empty list again at the front, where the lanes are in the cache.
    #[inline(always)]
    const fn rewind(&mut self) {
        self.head = 0;
        self.tail = 0;
        self.longest = 0;
    }

    /// Removes everything.
    pub(super) const fn clear(&mut self) {
        while self.head != self.tail {
            self.drop_first();
        }
        self.pool.head = 0;
        self.pool.tail = 0;
    }
}

impl core::fmt::Debug for Held {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Held").field("count", &self.count()).field("complex", &self.complex).finish_non_exhaustive()
    }
}

/// Pieces of complex chains, first in first out, in a ring of a power of two.
struct Pool {
    ring: Box<[Segment]>,
    mask: u32,
    head: u32,
    tail: u32,
}

impl Pool {
    fn new(pieces: usize) -> Self {
        let size = pieces.clamp(2, 1 << 20).next_power_of_two();
        let empty = Segment { ptr: HostPtr::DANGLING, len: 0 };
        let mask = u32::try_from(size - 1).unwrap_or(0);
        Self { ring: vec![empty; size].into_boxed_slice(), mask, head: 0, tail: 0 }
    }

    fn push(&mut self, segment: Segment) -> bool {
        if self.tail.wrapping_sub(self.head) > self.mask {
            return false;
        }
        if let Some(slot) = self.ring.get_mut((self.tail & self.mask) as usize) {
            *slot = segment;
        }
        self.tail = self.tail.wrapping_add(1);
        true
    }

    #[expect(clippy::indexing_slicing, reason = "the mask keeps the index inside")]
    fn get(&self, at: u32) -> Segment {
        self.ring[(at & self.mask) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(n: usize) -> HostPtr {
        HostPtr::new(core::ptr::without_provenance_mut(n))
    }

    #[test]
    fn simple_and_complex_chains_leave_in_order() {
        let mut held = Held::new(4);
        for lap in 0..1000_usize {
            held.push(at(1000), 10, 1);
            held.begin();
            assert!(held.piece(at(1), 5) && held.piece(at(2), 6) && held.piece(at(3), 7));
            held.finish(18, 2, 3);
            held.begin();
            assert!(held.piece(at(9), 9));
            held.finish(9, 3, 1);
            assert_eq!((held.count(), held.complex), (3, 1), "one piece in one entry is simple");
            let second: Vec<_> = held.segments(held.head + 1).map(|s| s.ptr.as_ptr().addr()).collect();
            assert_eq!(second, [1, 2, 3], "lap {lap}");
            assert_eq!(held.entries(held.head + 1), 3);
            held.drop_first();
            held.drop_first();
            assert_eq!((held.complex, held.id.get(held.head)), (0, 3));
            held.drop_simple(1);
            assert_eq!(held.count(), 0);
        }
    }

    #[test]
    fn a_full_pool_refuses_and_recovers() {
        let mut held = Held::new(4);
        held.begin();
        assert!(held.piece(at(1), 1) && held.piece(at(2), 1) && held.piece(at(3), 1));
        held.finish(3, 0, 1);
        held.begin();
        assert!(held.piece(at(4), 1) && !held.piece(at(5), 1));
        assert!(!held.pool_is_otherwise_empty());
        held.abandon();
        held.drop_first();
        held.begin();
        assert!((0..4).all(|_| held.piece(at(4), 1)) && !held.piece(at(4), 1));
        assert!(held.pool_is_otherwise_empty());
    }

    #[test]
    fn entries_behind_a_complex_chain_are_simple_again() {
        let mut held = Held::new(8);
        held.begin();
        assert!(held.piece(at(1), 1) && held.piece(at(2), 1));
        held.finish(2, 7, 2);
        held.clear();
        for _ in 0..HELD {
            held.push(at(5), 5, 5);
        }
        assert!((0..HELD).all(|i| held.entries(i) == 1 && held.is_contiguous(i)));
    }
}
