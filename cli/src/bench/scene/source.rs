// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A CNF that sends.
//!
//! What it sends was put together once and goes round and round; to send it again is to stamp its packets and to copy
//! it into a transmit buffer.

use super::member::Member;
use super::traffic;
use backend::sys::cycles;

/// Frames that are sent at once, at most.
const BURST: usize = 32;

/// A frame as it goes out: a packet, or an aggregate of some.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) bytes: Box<[u8]>,
    /// Of each packet in it where it begins, and its flow.
    pub(super) packets: Box<[(usize, usize)]>,
}

/// A CNF that sends.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) member: Member,
    /// In the order in which they are sent, round and round.
    items: Vec<Item>,
    next: usize,
    /// How many from `next` on are stamped and not sent yet.
    stamped: usize,
    /// By flow.
    sequences: Vec<u32>,
    /// Packets sent, and frames.
    pub(super) sent: u64,
    pub(super) frames: u64,
}

impl Source {
    pub(super) fn new(member: Member, flows: usize) -> Self {
        let sequences = vec![0; flows];
        Self { member, items: Vec::new(), next: 0, stamped: 0, sequences, sent: 0, frames: 0 }
    }

    /// From now on it sends these.
    pub(super) fn load(&mut self, items: Vec<Item>) {
        // What was numbered and has not left takes its numbers back.
        for offset in 0..self.stamped {
            let unsent = self.items.get((self.next + offset) % self.items.len().max(1));
            for (_, flow) in unsent.iter().flat_map(|item| &item.packets) {
                if let Some(sequence) = self.sequences.get_mut(*flow) {
                    *sequence = sequence.wrapping_sub(1);
                }
            }
        }
        (self.items, self.next, self.stamped) = (items, 0, 0);
    }

    /// Sends frames with at most so many packets in all. Returns how many packets left.
    #[inline]
    pub(super) fn step(&mut self, most: usize) -> anyhow::Result<usize> {
        let mut packets = 0;
        let mut wanted = 0;
        while wanted < BURST.min(self.items.len()) {
            let Some(item) = self.items.get((self.next + wanted) % self.items.len()) else { break };
            packets += item.packets.len();
            if packets > most {
                break;
            }
            wanted += 1;
        }
        if wanted == 0 {
            return Ok(0);
        }
        let now = cycles();
        for offset in self.stamped..wanted {
            let at = (self.next + offset) % self.items.len();
            let Some(Item { bytes, packets }) = self.items.get_mut(at) else { break };
            for (begin, flow) in packets {
                let Some(sequence) = self.sequences.get_mut(*flow) else { break };
                traffic::stamp(bytes, *begin, *sequence, now);
                *sequence = sequence.wrapping_add(1);
            }
        }
        self.stamped = self.stamped.max(wanted);
        let mut burst: [&[u8]; BURST] = [&[]; BURST];
        for (offset, slot) in burst.iter_mut().enumerate().take(wanted) {
            *slot = self.items.get((self.next + offset) % self.items.len()).map_or(&[], |item| &item.bytes);
        }
        let posted = self.member.port.send_burst(burst.get(..wanted).unwrap_or(&[]))?;
        let left: usize = (0..posted)
            .filter_map(|offset| self.items.get((self.next + offset) % self.items.len()))
            .map(|item| item.packets.len())
            .sum();
        self.next = (self.next + posted) % self.items.len();
        self.stamped -= posted;
        self.sent += left as u64;
        self.frames += posted as u64;
        Ok(left)
    }
}
