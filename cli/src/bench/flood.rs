// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A third port that sends as much as it can, for nobody: what does that cost the other two?
//!
//! Its frames go through stateful policy of its own and are then for a station behind the same port, so that nobody
//! receives them. Sent are the same few flows again and again, which is what a port may do in peace, or flows that nobody
//! has seen. Against the first the second shows what a flood takes beyond a port's share.

use anyhow::Context;
use clap::ValueEnum;
use cnf::{Device, QueuePair};
use packet::checksum::checksum;
use virtqueue::{Completion, full_fence};

use super::cycle::Cycle;
use super::lane::BURST;
use super::options::HEADER;

/// The policy of the third port.
pub(super) const POLICY: &str = r#"
controller = "flooded"
[[layer]]
port = "c"
name = "acl"
order = 0
default = "block"
[[layer.group]]
name = "all"
order = 0
[[layer.group.rule]]
name = "out"
priority = 1
dir = "out"
action = { type = "allow", stateful = true, idle_s = 240 }
"#;

/// What the third port sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Flood {
    /// 64 flows of UDP, again and again
    Known,
    /// Datagrams, each of a new flow
    Udp,
    /// TCP SYNs, each of a new flow
    Syn,
    /// TCP segments in mid-stream, each of a new flow
    Ack,
    /// First and later fragments, each of a new datagram
    Fragment,
}

impl Flood {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Known => "known",
            Self::Udp => "udp",
            Self::Syn => "syn",
            Self::Ack => "ack",
            Self::Fragment => "fragment",
        }
    }

    /// Frame number `n`, of one of 2^28 pairs of ends.
    fn frame(self, n: u32) -> [u8; LEN] {
        const STATION: [u8; 6] = [0x02, 0x53, 0x48, 0x55, 0x4e, 2];
        const IPV4: usize = 14;
        const L4: usize = IPV4 + 20;
        let n = if self == Self::Known { n % 64 } else { n };
        let [high, a, b, c] = n.to_be_bytes();
        let mut frame = [0; LEN];
        let mut put = |at: usize, bytes: &[u8]| {
            if let Some(to) = frame.get_mut(at..at + bytes.len()) {
                to.copy_from_slice(bytes);
            }
        };
        put(0, &STATION);
        put(6, &STATION);
        put(12, &[8, 0]);
        let (protocol, l4_len) = match self {
            Self::Known | Self::Udp | Self::Fragment => (17, LEN - L4),
            Self::Syn | Self::Ack => (6, 20),
        };
        let [len_high, len_low] = u16::try_from(20 + l4_len).unwrap_or(u16::MAX).to_be_bytes();
        let fragment = match self {
            Self::Fragment if n.is_multiple_of(2) => [0x20, 0],
            Self::Fragment => [0x20, 8],
            _ => [0, 0],
        };
        let mut ip =
            [0x45, 0, len_high, len_low, b, c, fragment[0], fragment[1], 64, protocol, 0, 0, 10, 9, 8, 7, 100, a, b, c];
        let [sum_high, sum_low] = checksum(&ip).to_be_bytes();
        (ip[10], ip[11]) = (sum_high, sum_low);
        put(IPV4, &ip);
        let [port_high, port_low] = (1024 + u16::from(high)).to_be_bytes();
        put(L4, &[0x30, 0x39, port_high, port_low]);
        match self {
            Self::Known | Self::Udp | Self::Fragment => {
                let [high, low] = u16::try_from(l4_len).unwrap_or(u16::MAX).to_be_bytes();
                put(L4 + 4, &[high, low]);
            }
            // Their checksum is wrong, which is for the receiver to find, and there is none.
            Self::Syn => put(L4 + 12, &[0x50, 2]),
            Self::Ack => put(L4 + 12, &[0x50, 16]),
        }
        frame
    }
}

/// Bytes of a frame.
const LEN: usize = 60;

/// The port and how much it has sent.
#[derive(Debug)]
pub(super) struct Flooder {
    sort: Flood,
    // Dropping it closes its connection.
    _device: Device,
    pair: QueuePair,
    tx: Cycle,
    done: Box<[Completion; BURST]>,
    next: u32,
}

impl Flooder {
    /// Takes over the device of the third port.
    pub(super) fn new(mut device: Device, sort: Flood) -> anyhow::Result<Self> {
        let mut pair = device.take_pairs().into_iter().next().context("a device without queues")?;
        pair.tx.set_calls(false);
        let len = HEADER + u32::try_from(LEN)?;
        let tx = Cycle::new(&pair.tx_buffers, len, super::cycle::Order::Ascending);
        Ok(Self { sort, _device: device, pair, tx, done: Box::new([Completion::default(); BURST]), next: 0 })
    }

    /// Sends a burst, or what there is room for; says how much.
    pub(super) fn step(&mut self) -> anyhow::Result<usize> {
        let count = self.pair.tx.complete(&mut *self.done).context("transmit ring")?;
        self.tx.returned(self.done.get(..count).unwrap_or(&[]));
        let (posts, tokens) = self.tx.upcoming(BURST.min(usize::from(self.pair.tx.free())));
        if tokens.is_empty() {
            return Ok(0);
        }
        for token in tokens {
            self.pair.tx_buffers.write(*token, 0, &[0; HEADER as usize]);
            self.pair.tx_buffers.write(*token, HEADER, &self.sort.frame(self.next));
            self.next = self.next.wrapping_add(1);
        }
        let posted = self.pair.tx.post_burst(posts, tokens, false);
        self.tx.posted(posted);
        self.pair.tx.publish();
        full_fence();
        if self.pair.tx.should_kick() {
            self.pair.tx_bells.kick.ring().context("kick")?;
        }
        Ok(posted)
    }
}

#[cfg(test)]
mod tests {
    use packet::{Field, Fragment, parse};

    use super::*;

    #[test]
    fn frames_are_what_they_are_called_and_differ() {
        for sort in [Flood::Known, Flood::Udp, Flood::Syn, Flood::Ack, Flood::Fragment] {
            let parsed = |n| parse::parse(&sort.frame(n), u32::try_from(LEN).expect("short")).expect("a frame");
            let first = parsed(2);
            assert_eq!(checksum(&sort.frame(2)[14..34]), 0);
            let fragment = first.ufid.get(Field::Fragment);
            assert_eq!(fragment == Fragment::First as u128, sort == Flood::Fragment, "{sort:?}");
            assert_eq!(
                first.transient.tcp_flags,
                [0, 2, 16][usize::from(sort == Flood::Syn) + 2 * usize::from(sort == Flood::Ack)]
            );
            assert_eq!(first.ufid == parsed(66).ufid, sort == Flood::Known, "{sort:?}");
        }
    }
}
