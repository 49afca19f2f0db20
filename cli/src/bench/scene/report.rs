// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a scene found, for people and for programs.

use std::fmt::{self, Display, Formatter};

use serde::Serialize;

use super::super::latency::Percentiles;
use super::uplink;

/// One measured run. The field names are a contract.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    /// `bridge`, `crossconnect` or `uplink`.
    pub(super) scene: &'static str,
    /// Whether CNFs and node speak aggregates.
    pub(super) aggregate: bool,
    /// Packets of a flow that are sent one behind the other.
    pub(super) run_length: u32,
    /// Bytes of a packet, in the mean; and whether there are different sizes.
    pub(super) size: f64,
    pub(super) imix: bool,
    /// Five-tuples, all sources together.
    pub(super) flows: u32,
    /// Seconds measured.
    pub(super) seconds: f64,
    /// Packets per second that arrived.
    pub(super) rx_pps: f64,
    /// Packets that were compared whole, since the beginning: all that arrived.
    pub(super) verified: u64,
    /// Always 0: a packet that is lost fails the run.
    pub(super) lost: u64,
    /// Busy TSC cycles of the node for each packet that it forwarded; of both, where there are two.
    pub(super) cycles_per_packet: Option<f64>,
    /// Frames that crossed the rings for each packet: transmit rings of the sources, receive rings of the sinks.
    pub(super) sent_frames_per_packet: f64,
    pub(super) received_frames_per_packet: f64,
    /// What crossed between two nodes, where there are two.
    pub(super) uplink: Option<uplink::Report>,
    pub(super) latency_ns: Percentiles,
    /// Packets per second offered: `null` when as many as go.
    pub(super) rate: Option<f64>,
    /// What went before the rate was reduced to a share of it.
    pub(super) capacity_pps: Option<f64>,
    /// The share of time in which the generator had nothing to do: near zero, it is the bottleneck.
    pub(super) generator_idle: f64,
    /// TSC cycles in a second.
    pub(super) tsc_hz: u64,
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Percentiles { p50, p99, p999 } = self.latency_ns;
        writeln!(
            f,
            "{}, {}, {} flow(s) in runs of {}, {:.0} B, {:.1} s",
            self.scene,
            if self.aggregate { "aggregates" } else { "plain frames" },
            self.flows,
            self.run_length,
            self.size,
            self.seconds
        )?;
        writeln!(f, "  received    {:>9.3} Mpps, {} compared, none lost", self.rx_pps / 1e6, self.verified)?;
        if let Some(capacity) = self.capacity_pps {
            writeln!(f, "  unthrottled {:>9.3} Mpps", capacity / 1e6)?;
        }
        if let Some(cycles) = self.cycles_per_packet {
            writeln!(f, "  node        {cycles:>9.1} cycles per packet")?;
        }
        writeln!(
            f,
            "  frames      {:>9.3} sent and {:.3} received for each packet",
            self.sent_frames_per_packet, self.received_frames_per_packet
        )?;
        if let Some(uplink) = &self.uplink {
            let uplink::Report { mtu, frames_per_packet, aggregates, plain, sender_cycles, receiver_cycles, tor } =
                uplink;
            writeln!(
                f,
                "  uplink      {frames_per_packet:>9.4} frames for each packet ({aggregates} aggregates, {plain} plain), MTU {mtu}"
            )?;
            writeln!(f, "              {sender_cycles:>9.1} and {receiver_cycles:.1} cycles at the two nodes")?;
            if let Some(uplink::Tor { groups, packets_per_group, cycles_per_group }) = tor {
                writeln!(
                    f,
                    "  spliced     {groups} groups of {packets_per_group:.1} packets, {cycles_per_group:.0} cycles each"
                )?;
            }
        }
        writeln!(f, "  generator   idle {:.0} % of the time", self.generator_idle * 100.0)?;
        write!(f, "  latency     p50 {p50} ns, p99 {p99} ns, p99.9 {p999} ns")
    }
}
