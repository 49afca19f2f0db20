// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a run found, for people and for programs.

use std::fmt::{self, Display, Formatter};

use serde::Serialize;

use super::latency::Percentiles;

/// One measured run. The field names are a contract.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// `packed` or `split`, as negotiated.
    pub(super) ring: &'static str,
    /// Bytes of a frame.
    pub(super) size: u32,
    /// Five-tuples, each of them used in both directions.
    pub(super) flows: u32,
    /// TCP, not UDP.
    pub(super) tcp: bool,
    /// Flows that were opened, in both directions, before anything was measured; with TCP by a handshake. And the seconds
    /// that took.
    pub(super) opened: u32,
    pub(super) opening_s: f64,
    /// Connections that were closed by FIN afterwards.
    pub(super) closed: u32,
    /// In what shape frames were to arrive, and how many were looked at, all of which did.
    pub(super) expect: &'static str,
    pub(super) inspected: u64,
    /// Seconds measured.
    pub(super) seconds: f64,
    /// Packets per second received and sent, both directions summed.
    pub(super) rx_pps: f64,
    pub(super) tx_pps: f64,
    /// Packets that were sent after the warm-up and had not come back when nothing moved any more.
    pub(super) lost: u64,
    /// What the third port sent, if there was one.
    pub(super) flood: Option<Flooded>,
    /// Busy TSC cycles of the node for each packet it forwarded; none for a peer, which keeps its own account.
    pub(super) cycles_per_packet: Option<f64>,
    pub(super) latency_ns: Percentiles,
    /// Gbit/s received, frames only.
    pub(super) rx_gbps: f64,
    /// Packets per second offered: `null` when as many as go.
    pub(super) rate: Option<f64>,
    /// What went before the rate was reduced to a share of it.
    pub(super) capacity_pps: Option<f64>,
    /// Packets that came late or twice.
    pub(super) reordered: u64,
    /// Frames received that the generator had not sent.
    pub(super) aliens: u64,
    /// Kicks the backend asked for.
    pub(super) kicks: u64,
    /// TSC cycles the generator takes to send a packet and receive one, and the share of time in which it had nothing
    /// to do: near zero, the generator is the bottleneck.
    pub(super) generator_cycles: f64,
    pub(super) generator_idle: f64,
    /// TSC cycles in a second.
    pub(super) tsc_hz: u64,
    pub(super) queue_pairs: u16,
    pub(super) queue_size: u16,
    pub(super) features: Vec<&'static str>,
}

/// What a third port sent.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Flooded {
    /// `known`, or a sort of flood.
    pub(super) sort: &'static str,
    /// Packets per second.
    pub(super) pps: f64,
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Percentiles { p50, p99, p999 } = self.latency_ns;
        writeln!(
            f,
            "{} rings of {}, {} pair(s), {} B, {} {} flow(s) both ways, {:.1} s",
            self.ring,
            self.queue_size,
            self.queue_pairs,
            self.size,
            self.flows,
            if self.tcp { "TCP" } else { "UDP" },
            self.seconds
        )?;
        writeln!(f, "  features    {}", self.features.join(" "))?;
        let opened = if self.tcp { "handshakes" } else { "opened    " };
        write!(f, "  {opened}  {:>9} in {:.3} s", self.opened, self.opening_s)?;
        if self.closed > 0 {
            write!(f, ", {} closed", self.closed)?;
        }
        writeln!(f)?;
        writeln!(f, "  received    {:>9.3} Mpps  {:>8.3} Gbit/s", self.rx_pps / 1e6, self.rx_gbps)?;
        writeln!(f, "  sent        {:>9.3} Mpps", self.tx_pps / 1e6)?;
        if let Some(capacity) = self.capacity_pps {
            writeln!(f, "  unthrottled {:>9.3} Mpps", capacity / 1e6)?;
        }
        writeln!(f, "  lost        {:>9}  {} looked at, all {}", self.lost, self.inspected, self.expect)?;
        if let Some(Flooded { sort, pps }) = self.flood {
            writeln!(f, "  third port  {:>9.3} Mpps of {sort}", pps / 1e6)?;
        }
        match self.cycles_per_packet {
            Some(cycles) => writeln!(f, "  node        {cycles:>9.1} cycles per packet")?,
            None => writeln!(f, "  node        not ours: ask it for its cycles")?,
        }
        writeln!(
            f,
            "  generator   {:>9.1} cycles per packet, idle {:.0} % of the time",
            self.generator_cycles,
            self.generator_idle * 100.0
        )?;
        write!(f, "  latency     p50 {} us, p99 {} us, p99.9 {} us", us(p50), us(p99), us(p999))
    }
}

/// Nanoseconds as microseconds.
fn us(nanoseconds: u64) -> String {
    format!("{}.{:01}", nanoseconds / 1000, nanoseconds % 1000 / 100)
}
