// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Packets that wait until their next hop has said where it is (decision 2).
//!
//! They are whole copies, in a line for each next hop, so that they leave in the order in which they came. A line, the
//! packets and their bytes are bounded; what waits for too long is dropped.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use packet::Offload;

/// Most packets that wait for one next hop.
const MAX_PER_HOP: usize = 64;
/// Most packets, and most bytes of them, that wait in one uplink's park.
const MAX_PACKETS: usize = 1024;
const MAX_BYTES: usize = 1 << 20;
/// How long a packet waits.
const PATIENCE_NS: u64 = 1_000_000_000;

/// The park of one uplink.
#[derive(Debug, Default)]
pub(super) struct HopPark {
    lines: HashMap<IpAddr, VecDeque<Waiting>>,
    packets: usize,
    bytes: usize,
}

/// A packet that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    /// All of it; it needs no cutting.
    pub(super) bytes: Box<[u8]>,
    pub(super) offload: Offload,
    since_ns: u64,
}

impl HopPark {
    /// HopParks a packet of `len` bytes that `fill` writes. `false`: there is no room.
    pub(super) fn put(
        &mut self,
        hop: IpAddr,
        len: usize,
        offload: Offload,
        now_ns: u64,
        fill: impl FnOnce(&mut [u8]),
    ) -> bool {
        let line = self.lines.get(&hop).map_or(0, VecDeque::len);
        if line >= MAX_PER_HOP || self.packets >= MAX_PACKETS || self.bytes + len > MAX_BYTES {
            return false;
        }
        let mut bytes = vec![0; len].into_boxed_slice();
        fill(&mut bytes);
        self.packets += 1;
        self.bytes += len;
        self.lines.entry(hop).or_default().push_back(Waiting { bytes, offload, since_ns: now_ns });
        true
    }

    /// Takes all that waits for a next hop, first come first.
    pub(super) fn take(&mut self, hop: IpAddr) -> VecDeque<Waiting> {
        let line = self.lines.remove(&hop).unwrap_or_default();
        self.packets -= line.len();
        self.bytes -= line.iter().map(|waiting| waiting.bytes.len()).sum::<usize>();
        line
    }

    /// Takes what has waited for too long.
    pub(super) fn expire(&mut self, now_ns: u64) -> Vec<Waiting> {
        let mut expired = Vec::new();
        self.lines.retain(|_, line| {
            while line.front().is_some_and(|first| now_ns.saturating_sub(first.since_ns) >= PATIENCE_NS) {
                expired.extend(line.pop_front());
            }
            !line.is_empty()
        });
        self.packets -= expired.len();
        self.bytes -= expired.iter().map(|waiting| waiting.bytes.len()).sum::<usize>();
        expired
    }

    /// How many packets wait.
    pub(super) fn len(&self) -> usize {
        self.packets
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hop(n: u8) -> IpAddr {
        [10, 0, 0, n].into()
    }

    fn put(park: &mut HopPark, n: u8, len: usize, mark: u8, now: u64) -> bool {
        park.put(hop(n), len, Offload::NONE, now, |bytes| bytes.fill(mark))
    }

    fn marks(line: &VecDeque<Waiting>) -> Vec<u8> {
        line.iter().map(|waiting| waiting.bytes[0]).collect()
    }

    #[test]
    fn lines_packets_and_bytes_are_bounded() {
        let mut park = HopPark::default();
        assert!((0..MAX_PER_HOP).all(|_| put(&mut park, 1, 60, 0, 0)));
        assert!(!put(&mut park, 1, 60, 0, 0), "the line is full");
        assert!(put(&mut park, 2, MAX_BYTES - 60 * MAX_PER_HOP, 0, 0));
        assert!(!put(&mut park, 3, 60, 0, 0), "all bytes are taken");
        assert_eq!(park.take(hop(2)).len(), 1);
        for n in 2..=16 {
            assert!((0..MAX_PER_HOP).all(|_| put(&mut park, n, 60, 0, 0)));
        }
        assert!(!put(&mut park, 17, 60, 0, 0), "there are too many packets");
        assert_eq!((park.len(), park.bytes), (MAX_PACKETS, MAX_PACKETS * 60));
    }

    proptest! {
        #[test]
        fn what_waits_is_what_came_and_neither_left_nor_expired(
            steps in prop::collection::vec((0u8..4, 0u8..4, 1usize..40_000, 0u64..500_000_000), 1..200),
        ) {
            let (mut park, mut now) = (HopPark::default(), 0);
            let mut model: Vec<(u8, u8, usize, u64)> = Vec::new();
            for (mark, (what, n, len, pass)) in steps.into_iter().enumerate() {
                now += pass;
                let mark = mark.to_le_bytes()[0];
                match what {
                    0 => {
                        let expected: Vec<u8> = model.iter().filter(|w| w.0 == n).map(|w| w.1).collect();
                        prop_assert_eq!(marks(&park.take(hop(n))), expected);
                        model.retain(|w| w.0 != n);
                    }
                    1 => {
                        let before = model.len();
                        model.retain(|w| now - w.3 < PATIENCE_NS);
                        prop_assert_eq!(park.expire(now).len(), before - model.len());
                    }
                    _ => {
                        let bytes: usize = model.iter().map(|w| w.2).sum();
                        let line = model.iter().filter(|w| w.0 == n).count();
                        let room = line < MAX_PER_HOP && model.len() < MAX_PACKETS && bytes + len <= MAX_BYTES;
                        prop_assert_eq!(put(&mut park, n, len, mark, now), room);
                        if room {
                            model.push((n, mark, len, now));
                        }
                    }
                }
                prop_assert_eq!(park.len(), model.len());
                prop_assert_eq!(park.bytes, model.iter().map(|w| w.2).sum::<usize>());
            }
        }
    }
}
