// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The uplinks between the nodes of a scene: how much they hold, what crosses them, and whether that is what was asked for.
//!
//! # Theory of operation
//!
//! All nodes' workers, and what the kernel does between them, share one core: whoever sends a frame through a veth pair also delivers
//! it, so what a frame costs the kernel counts, too. Workers that poll would burn each other's time, so they sleep as soon as
//! nothing is there (`interrupt`); then the core does nothing but move packets. What one worker finds, it takes to the end,
//! so frames fill up to the window of packets on their way, plain or in aggregates. The window is what fits the kernel's ring
//! at the other end, and the receiver's ring behind it, so nothing can be lost.
//!
//! A node between the two, as at the top of a rack, sends groups on whole. How many packets are in them is in the hand of who
//! says how many may be in a frame (`--group`), and how many are in a row for one station (`--run-length`).

use aggregation::wire::{GROUP_CRC, GROUP_HEADER, HEADER_CHECKED, SUBFRAME_HEADER};
use anyhow::{Context, ensure};
use backend::stats::{PortStatus, Stats};
use backend::sys::packet_ring_frames;
use serde::Serialize;

use super::super::node::Node;
use super::super::options::Options;
use super::super::pvp::as_float;
use super::UPLINKS;

/// Bytes of an Ethernet header.
const ETHERNET: u32 = 14;

/// Of so many packets that could have been in an aggregate, one may be plain: at the beginning, or when a node has to say something.
const TOLERATED: u64 = 1000;

/// The uplinks' two ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Uplinks {
    mtu: u32,
    /// Most packets of a frame, if that is bounded.
    group: Option<u16>,
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
    /// Groups that went on whole in between, and packets in them.
    spliced: Option<[u64; 2]>,
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
    /// The node between the two, if there is one.
    pub(super) tor: Option<Tor>,
}

/// What a node between two others did. The field names are a contract.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Tor {
    /// Groups that went on whole; nothing else went.
    pub(super) groups: u64,
    pub(super) packets_per_group: f64,
    /// Busy TSC cycles for each, the kernel's way to the other end included.
    pub(super) cycles_per_group: f64,
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
        Ok(Some(Self { mtu, group: options.group.filter(|_| options.aggregate) }))
    }

    /// Frames that the receiving end has room for.
    pub(super) fn frames(self) -> u64 {
        packet_ring_frames(self.mtu) as u64
    }

    /// The most frames that a CNF's frame of so many bytes and packets becomes: cut anew, with a rest, and again when the worker's turn
    /// ends amid it.
    pub(super) fn frames_of(self, bytes: u32, packets: u64) -> u64 {
        let full = self.group.map_or(0, |group| packets.div_ceil(u64::from(group.max(1))));
        2 * u64::from(bytes.div_ceil(self.mtu)).max(full) + 1
    }

    /// Bytes of the longest packet that an aggregate has room for.
    pub(super) fn longest_inside(self) -> usize {
        let room = self.mtu as usize - HEADER_CHECKED - GROUP_HEADER - GROUP_CRC - SUBFRAME_HEADER;
        room - room % 4
    }

    /// What has crossed so far.
    pub(super) fn crossed(self, node: &Node) -> anyhow::Result<Crossed> {
        let stats = node.stats()?;
        let (near, between, far) = match &*stats {
            [near, far] => (near, None, far),
            [near, between, far] => (near, Some(between), far),
            _ => anyhow::bail!("{} nodes", stats.len()),
        };
        let between = between.map(port_of).transpose()?.map(|port| &port.aggregation);
        let (near, far) = (port_of(near)?, port_of(far)?);
        Ok(Crossed {
            spliced: between.map(|between| [between.rx_groups_spliced, between.rx_packets_spliced]),
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
        cycles: &[u64],
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
        let ([sender, between @ .., receiver], packets) = (cycles, as_float(packets)) else {
            anyhow::bail!("no nodes")
        };
        let tor = match (before.spliced, after.spliced, between) {
            (Some(before), Some(after), [cycles]) => Some(Tor::between(before, after, inside, *cycles)?),
            _ => None,
        };
        Ok(Report {
            mtu: self.mtu,
            frames_per_packet: as_float(aggregates + plain) / packets,
            aggregates,
            plain,
            sender_cycles: as_float(*sender) / packets,
            receiver_cycles: as_float(*receiver) / packets,
            tor,
        })
    }
}

impl Tor {
    /// What it did in between, of `inside` packets that came to it in aggregates.
    fn between(before: [u64; 2], after: [u64; 2], inside: u64, cycles: u64) -> anyhow::Result<Self> {
        let [groups, packets] = [0, 1].map(|at| after[at] - before[at]);
        ensure!(
            groups > 0 && packets + inside / TOLERATED >= inside,
            "of {inside} packets in aggregates {packets} went on in whole groups"
        );
        let [packets_per_group, cycles_per_group] = [packets, cycles].map(|all| as_float(all) / as_float(groups));
        Ok(Self { groups, packets_per_group, cycles_per_group })
    }
}

/// The way to others; at a node between two, that to the first.
fn port_of(stats: &Stats) -> anyhow::Result<&PortStatus> {
    stats.ports.iter().find(|port| UPLINKS.first() == Some(&port.name.as_str())).context("no uplink")
}

fn mtu_of(stats: &Stats) -> anyhow::Result<u32> {
    let mtus = stats.ports.iter().filter_map(|port| port.uplink.as_ref()).map(|uplink| uplink.mtu);
    Ok(mtus.min().flatten().context("an uplink has no MTU")?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crossed(packets: u64, inside: u64, aggregates: u64) -> Crossed {
        Crossed { packets, arrived: packets, inside, aggregates, returned: 0, spliced: None }
    }

    #[test]
    fn the_path_that_was_taken_is_the_one_that_was_asked_for() {
        let uplinks = Uplinks { mtu: 1500, group: None };
        let report = |before, after, aggregate, too_long| {
            uplinks.report([before, after], aggregate, too_long, &[1, 2]).map(|report| report.frames_per_packet)
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
        let uplinks = Uplinks { mtu: 1500, group: None };
        assert_eq!(uplinks.longest_inside(), 1464);
        assert_eq!([512, 4096, 16_384].map(|bytes| uplinks.frames_of(bytes, 64)), [3, 7, 23]);
        assert_eq!(Uplinks { group: Some(4), ..uplinks }.frames_of(4096, 60), 31);
        assert_eq!([1500, 9000].map(|mtu| Uplinks { mtu, group: None }.frames()), [2048, 256]);
    }

    #[test]
    fn what_goes_by_the_top_of_a_rack_goes_whole() {
        let tor = Tor::between([1, 10], [11, 170], 160, 5000).unwrap();
        assert_eq!((tor.groups, tor.packets_per_group, tor.cycles_per_group), (10, 16.0, 500.0));
        Tor::between([1, 10], [11, 170], 170, 5000).unwrap_err();
        Tor::between([1, 10], [1, 10], 0, 5000).unwrap_err();
    }
}
