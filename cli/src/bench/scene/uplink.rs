// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The uplinks between two nodes of a scene: how much they hold, what crosses them, and whether that is what was asked for.
//!
//! # Theory of operation
//!
//! Both nodes' workers, and what the kernel does between them, share one core: whoever sends a frame through a veth pair also delivers
//! it, so what a frame costs the kernel counts, too. Workers that poll would burn each other's time, so they sleep as soon as
//! nothing is there (`interrupt`); then the core does nothing but move packets. What one worker finds, it takes to the end,
//! so frames fill up to the window of packets on their way, plain or in aggregates. The window is what fits the kernel's ring
//! at the other end, and the receiver's ring behind it, so nothing can be lost.

use aggregation::wire::{GROUP_CRC, GROUP_HEADER, HEADER_CHECKED, SUBFRAME_HEADER};
use anyhow::{Context, ensure};
use backend::stats::{PortStatus, Stats};
use backend::sys::packet_ring_frames;
use serde::Serialize;

use super::super::node::Node;
use super::super::options::Options;
use super::super::pvp::as_float;
use super::UPLINK;

/// Bytes of an Ethernet header.
const ETHERNET: u32 = 14;

/// Of so many packets that could have been in an aggregate, one may be plain: at the beginning, or when a node has to say something.
const TOLERATED: u64 = 1000;

/// The uplinks' two ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Uplinks {
    mtu: u32,
}

/// What has crossed them, from those that send to those that receive.
#[derive(Clone, Copy, Debug)]
pub(super) struct Crossed {
    /// Packets sent, also in aggregates, and those that arrived.
    packets: u64,
    arrived: u64,
    /// Packets sent in aggregates, and these.
    inside: u64,
    aggregates: u64,
    /// Aggregates that came back.
    returned: u64,
}

/// What crossed while it was measured.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    /// Longest IP packet on the interfaces.
    pub(super) mtu: u32,
    /// Frames with packets in them, for each packet: what nodes say to each other about aggregates does not count.
    pub(super) frames_per_packet: f64,
    /// Aggregates, and frames that were a packet.
    pub(super) aggregates: u64,
    pub(super) plain: u64,
    /// Busy TSC cycles of each packet at the node that sends, whose time the kernel's way to the other end takes, and at the
    /// one that receives.
    pub(super) sender_cycles: f64,
    pub(super) receiver_cycles: f64,
}

impl Uplinks {
    /// Looks at the uplinks that there are.
    ///
    /// # Errors
    /// What the options ask for does not fit them.
    pub(super) fn of(node: &Node, options: &Options) -> anyhow::Result<Option<Self>> {
        if options.interfaces().is_none() {
            return Ok(None);
        }
        let mtus: Vec<u32> = node.stats()?.iter().map(mtu_of).collect::<Result<_, _>>()?;
        let mtu = mtus.iter().copied().min().context("no uplink")?;
        let longest = options.longest();
        ensure!(longest <= mtu + ETHERNET, "the interfaces' MTU of {mtu} is too small for frames of {longest} bytes");
        Ok(Some(Self { mtu }))
    }

    /// Frames that the receiving end has room for.
    pub(super) fn frames(self) -> u64 {
        packet_ring_frames(self.mtu) as u64
    }

    /// The most frames that a CNF's frame of so many bytes becomes: cut anew, with a rest, and again when the worker's turn ends
    /// amid it.
    pub(super) fn frames_of(self, bytes: u32) -> u64 {
        u64::from(2 * bytes.div_ceil(self.mtu) + 1)
    }

    /// Bytes of the longest packet that an aggregate has room for.
    pub(super) fn longest_inside(self) -> usize {
        let room = self.mtu as usize - HEADER_CHECKED - GROUP_HEADER - GROUP_CRC - SUBFRAME_HEADER;
        room - room % 4
    }

    /// What has crossed so far.
    pub(super) fn crossed(self, node: &Node) -> anyhow::Result<Crossed> {
        let stats = node.stats()?;
        let [near, far] = &*stats else { anyhow::bail!("{} nodes instead of 2", stats.len()) };
        let (near, far) = (port_of(near)?, port_of(far)?);
        Ok(Crossed {
            packets: near.tx_packets,
            arrived: far.rx_packets,
            inside: near.aggregation.tx_packets,
            aggregates: near.aggregation.tx_aggregates,
            returned: far.aggregation.tx_aggregates,
        })
    }

    /// Whether both nodes have put something together for each other.
    pub(super) fn are_agreed(self, node: &Node) -> anyhow::Result<bool> {
        let crossed = self.crossed(node)?;
        Ok(crossed.aggregates > 0 && crossed.returned > 0)
    }

    /// What crossed in between. `too_long`: so many of the packets do not fit into an aggregate.
    ///
    /// # Errors
    /// It did not cross as was asked for.
    pub(super) fn report(
        self,
        [before, after]: [Crossed; 2],
        aggregate: bool,
        too_long: u64,
        cycles: &[f64],
    ) -> anyhow::Result<Report> {
        let packets = after.packets - before.packets;
        let (inside, aggregates) = (after.inside - before.inside, after.aggregates - before.aggregates);
        let plain = packets.saturating_sub(inside);
        // The interfaces' own kernel may have something to say there, too.
        let arrived = after.arrived - before.arrived;
        ensure!(packets > 0 && arrived >= packets, "of {packets} packets sent on the uplink {arrived} arrived");
        if aggregate {
            let possible = packets.saturating_sub(too_long);
            let most = too_long + possible / TOLERATED;
            ensure!(
                plain <= most && (aggregates > 0 || possible == 0),
                "{plain} of {packets} packets were plain on the uplink, {most} may have been"
            );
        } else {
            ensure!(after.aggregates == 0 && after.returned == 0, "there were aggregates on the uplink");
        }
        let &[sender_cycles, receiver_cycles] = cycles else { anyhow::bail!("two nodes") };
        let frames_per_packet = as_float(aggregates + plain) / as_float(packets);
        Ok(Report { mtu: self.mtu, frames_per_packet, aggregates, plain, sender_cycles, receiver_cycles })
    }
}

fn port_of(stats: &Stats) -> anyhow::Result<&PortStatus> {
    stats.ports.iter().find(|port| port.name == UPLINK).context("no uplink")
}

fn mtu_of(stats: &Stats) -> anyhow::Result<u32> {
    let uplink = port_of(stats)?.uplink.as_ref();
    Ok(uplink.and_then(|uplink| uplink.mtu).context("the uplink has no MTU")?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crossed(packets: u64, inside: u64, aggregates: u64) -> Crossed {
        Crossed { packets, arrived: packets, inside, aggregates, returned: 0 }
    }

    #[test]
    fn the_path_that_was_taken_is_the_one_that_was_asked_for() {
        let uplinks = Uplinks { mtu: 1500 };
        let report = |before, after, aggregate, too_long| {
            uplinks.report([before, after], aggregate, too_long, &[1.0, 2.0]).map(|report| report.frames_per_packet)
        };
        let none = crossed(10, 0, 0);
        assert_eq!(report(none, crossed(1010, 0, 0), false, 0).unwrap(), 1.0);
        report(none, crossed(1010, 8, 1), false, 0).unwrap_err();
        report(none, none, false, 0).unwrap_err();
        report(none, Crossed { arrived: 1009, ..crossed(1010, 0, 0) }, false, 0).unwrap_err();
        assert_eq!(report(none, crossed(2010, 2000, 100), true, 0).unwrap(), 0.05);
        assert_eq!(report(none, crossed(2010, 1998, 98), true, 0).unwrap(), 0.05, "two in two thousand may be plain");
        report(none, crossed(2010, 1997, 98), true, 0).unwrap_err();
        assert_eq!(report(none, crossed(2010, 1500, 100), true, 500).unwrap(), 0.3, "those that do not fit are plain");
        report(none, crossed(2010, 0, 0), true, 500).unwrap_err();
        assert_eq!(report(none, crossed(510, 0, 0), true, 500).unwrap(), 1.0);
    }

    #[test]
    fn what_fits() {
        let uplinks = Uplinks { mtu: 1500 };
        assert_eq!(uplinks.longest_inside(), 1464);
        assert_eq!([512, 4096, 16_384].map(|bytes| uplinks.frames_of(bytes)), [3, 7, 23]);
        assert_eq!([1500, 9000].map(|mtu| Uplinks { mtu }.frames()), [2048, 256]);
    }
}
