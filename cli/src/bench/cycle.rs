// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Buffers that go round: posted, used, posted again.
//!
//! Theory of operation. Devices give buffers back in the order in which they were posted; some promise it, the others do
//! it nevertheless. So the buffers stand in a circle that never changes: `next` posts them, `back` follows. Posting a burst
//! then copies nothing, it is a stretch of the circle. When another buffer comes back than the one that is due, the two
//! change places.

use cnf::QueuePair;
use virtqueue::{Buffer, BufferPool, Completion};

/// A circle of buffers.
#[derive(Debug)]
pub(super) struct Cycle {
    posts: Box<[Buffer]>,
    tokens: Box<[u32]>,
    /// The buffer to be posted next, and the one that is due next.
    next: usize,
    back: usize,
    /// Buffers that are ours, from `next` on.
    idle: usize,
}

/// In which order buffers stand in the circle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// By address.
    Ascending,
    /// Without order, as the buffers of a program are that has run for a while.
    Shuffled,
}

impl Cycle {
    /// All buffers of a pool; `len` bytes of each are posted.
    pub(super) fn new(pool: &BufferPool, len: u32, order: Order) -> Self {
        let mut tokens: Box<[u32]> = (0..pool.count()).collect();
        if order == Order::Shuffled {
            shuffle(&mut tokens);
        }
        let posts: Box<[Buffer]> = tokens.iter().map(|&token| pool.buffer(token, len)).collect();
        Self { idle: posts.len(), posts, tokens, next: 0, back: 0 }
    }

    /// Buffers that can be posted.
    #[inline(always)]
    pub(super) fn idle(&self) -> usize {
        self.idle
    }

    /// The next buffers to be posted, at most `most`: what the device is told, and their tokens. A stretch ends where the
    /// circle closes, even if there are more.
    #[inline(always)]
    pub(super) fn upcoming(&self, most: usize) -> (&[Buffer], &[u32]) {
        let end = self.next + most.min(self.idle).min(self.posts.len() - self.next);
        let posts = self.posts.get(self.next..end).unwrap_or(&[]);
        (posts, self.tokens.get(self.next..end).unwrap_or(&[]))
    }

    /// The tokens after the next `skip` buffers, at most `most`, as far as they are ours.
    #[inline(always)]
    pub(super) fn after(&self, skip: usize, most: usize) -> &[u32] {
        let skip = skip.min(self.idle);
        let (start, left) = (self.next + skip, self.idle - skip);
        let start = if start >= self.tokens.len() { start - self.tokens.len() } else { start };
        let end = (start + most.min(left)).min(self.tokens.len());
        self.tokens.get(start..end).unwrap_or(&[])
    }

    /// The first `count` upcoming buffers were posted.
    #[inline(always)]
    pub(super) fn posted(&mut self, count: usize) {
        self.idle -= count;
        self.next = self.advanced(self.next, count);
    }

    /// The device has given these back.
    #[inline(always)]
    pub(super) fn returned(&mut self, done: &[Completion]) {
        let mut back = self.back;
        for completion in done {
            if self.tokens.get(back) != Some(&completion.token) {
                self.exchange(back, completion.token);
            }
            back = if back + 1 == self.tokens.len() { 0 } else { back + 1 };
        }
        self.back = back;
        self.idle += done.len();
    }

    #[inline(always)]
    fn advanced(&self, place: usize, count: usize) -> usize {
        let place = place + count;
        if place >= self.posts.len() { place - self.posts.len() } else { place }
    }

    /// Puts the buffer with this token, wherever it stands, into this place.
    #[cold]
    fn exchange(&mut self, place: usize, token: u32) {
        if let Some(other) = self.tokens.iter().position(|&standing| standing == token) {
            self.tokens.swap(place, other);
            self.posts.swap(place, other);
        }
    }
}

/// Posts up to `most` idle receive buffers, in whole lines of `line` descriptors; fewer stay for the next time.
#[inline(always)]
pub(super) fn post_receive(pair: &mut QueuePair, cycle: &mut Cycle, line: usize) {
    loop {
        let whole = cycle.idle() - cycle.idle() % line;
        let (posts, tokens) = cycle.upcoming(whole);
        let posted = pair.rx.post_burst(posts, tokens, true);
        cycle.posted(posted);
        if posted == 0 || posted == whole {
            return;
        }
    }
}

fn shuffle(tokens: &mut [u32]) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for i in (1..tokens.len()).rev() {
        // xorshift64: the same order in every run.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let other = usize::try_from(state % (i as u64 + 1)).unwrap_or(0);
        tokens.swap(i, other);
    }
}

#[cfg(test)]
mod tests {
    use virtqueue::SharedMemory;

    use super::*;

    fn cycle(count: u32, order: Order) -> (SharedMemory, Cycle) {
        let memory = SharedMemory::create("cycle", 1 << 16, false).unwrap();
        let pool = BufferPool::new(memory.map(), memory.spec().guest_addr, 64, count).unwrap();
        (memory, Cycle::new(&pool, 60, order))
    }

    fn done(tokens: &[u32]) -> Vec<Completion> {
        tokens.iter().map(|&token| Completion { token, len: 0 }).collect()
    }

    #[test]
    fn buffers_go_round_in_order() {
        let (_memory, mut cycle) = cycle(6, Order::Ascending);
        assert_eq!(cycle.upcoming(4).1, [0, 1, 2, 3]);
        assert_eq!(cycle.after(4, 4), [4, 5]);
        cycle.posted(4);
        assert_eq!(cycle.upcoming(4).1, [4, 5]);
        cycle.returned(&done(&[0, 1, 2]));
        assert_eq!((cycle.idle(), cycle.upcoming(9).1.len()), (5, 2));
        assert_eq!(cycle.after(2, 9), [0, 1, 2]);
        cycle.posted(2);
        assert_eq!(cycle.upcoming(9).1, [0, 1, 2]);
    }

    #[test]
    fn buffers_that_overtake_are_never_posted_twice() {
        let (_memory, mut cycle) = cycle(16, Order::Shuffled);
        let mut out: Vec<u32> = Vec::new();
        for round in 0..1000usize {
            let fresh = cycle.upcoming(5).1.to_vec();
            assert!(fresh.iter().all(|token| !out.contains(token)), "round {round}");
            cycle.posted(fresh.len());
            out.extend(fresh);
            // The device gives back some from anywhere.
            let mut back = Vec::new();
            for turn in 0..(round % 7).min(out.len()) {
                back.push(out.swap_remove((round * 31 + turn * 17) % out.len()));
            }
            cycle.returned(&done(&back));
            assert_eq!(cycle.idle() + out.len(), 16);
        }
    }
}
