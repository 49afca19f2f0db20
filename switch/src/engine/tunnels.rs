// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Tunnels make packets longer than links carry (decision 22): TCP is told to send less, and who sends too much anyway
//! is told how much fits.
//!
//! A SYN says how much its sender takes. One that goes into a tunnel is lowered to what fits there, for the far end; one
//! that comes out of a tunnel to what fits into the same tunnel around the guest's answers, because the far end may
//! not know of it. If the answers go another way they are a little shorter than they had to be.
//!
//! Nothing is cut into fragments: what does not fit is dropped and counted, be it allowed to be fragmented or not. The
//! error seems to come from the packet's destination, because the switch has no address of its own.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use packet::{Burst, DropCause, Field, Layout, Parsed, Verdict};

use super::budget::Budget;
use super::shard::{Now, Packet};
use super::treatment::{Change, Fate};
use crate::model::Direction;

/// ICMP errors for one port in a second.
const ERRORS_PER_SECOND: u32 = 100;
/// Most ICMP errors that wait to be taken.
pub(super) const MAX_REPLIES: usize = 64;
pub(super) const SYN: u8 = 2;
const TCP: u128 = 6;
/// Headers of IPv4 and TCP, and of IPv6 and TCP, without options.
const HEADERS: [u32; 2] = [40, 60];

/// What a shard has to know and to say about tunnels.
#[derive(Debug)]
pub(super) struct Tunnels {
    /// The longest IP packet that the link under the tunnels carries.
    pub(super) mtu: Option<u32>,
    /// Frames for the guest.
    pub(super) replies: Vec<Vec<u8>>,
    budget: Budget,
    pub(super) stats: TunnelStats,
}

/// What came of the size of packets that are put into tunnels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TunnelStats {
    /// Packets that were too long.
    pub too_big: u64,
    /// Of those, told to the sender.
    pub told: u64,
    /// TCP SYNs whose maximum segment size was lowered.
    pub mss_lowered: u64,
}

impl Tunnels {
    pub(super) fn new(mtu: Option<u32>) -> Self {
        let budget = Budget::new(ERRORS_PER_SECOND);
        Self { mtu, replies: Vec::new(), budget, stats: TunnelStats::default() }
    }

    /// Whether a frame of a flow fits, once it is in its tunnel.
    #[inline]
    pub(super) fn fits(&self, change: &Change, layout: &Layout, len: u32) -> bool {
        let Some(mtu) = self.mtu else { return true };
        let overhead = change.overhead(layout);
        overhead.is_none_or(|overhead| i64::from(len) + i64::from(overhead) <= i64::from(mtu))
    }

    /// Does to a packet what is done to its flow's, if it fits into the tunnel that it may be put into.
    #[inline]
    pub(super) fn carry(&mut self, fate: Fate, change: &Change, burst: &mut Burst, packet: &Packet<'_>, now: &Now<'_>) {
        if change.pushes() && !self.admit(change, burst, packet, now) {
            return;
        }
        let Packet { at, len, layout, hash, segment } = *packet;
        let passes = change.apply(fate, burst, at, layout, hash);
        let tunnelled_syn = layout.outer.is_some() && segment.flags & SYN != 0;
        if passes && tunnelled_syn && now.direction == Direction::In {
            self.make_answers_fit(burst, at, layout, len);
        }
    }

    /// Sees to it that a packet that is about to be put into a tunnel fits. `false`: it does not, and is dropped.
    #[cold]
    fn admit(&mut self, change: &Change, burst: &mut Burst, packet: &Packet<'_>, now: &Now<'_>) -> bool {
        let Packet { at, layout, segment, .. } = *packet;
        let Some(mtu) = self.mtu else { return true };
        let Some(overhead) = change.overhead(layout) else { return true };
        let network = layout.network.unwrap_or(layout.end);
        let inner = i64::from(mtu) - i64::from(overhead) - i64::from(network);
        let inner = u32::try_from(inner).unwrap_or(0);
        if segment.flags & SYN != 0
            && let Some(parsed) = parse(burst, at)
        {
            self.lower_mss(burst, at, &parsed, inner);
        }
        if self.fits(change, layout, link_len(burst, at, layout)) {
            return true;
        }
        self.stats.too_big += 1;
        if now.direction == Direction::Out && self.replies.len() < MAX_REPLIES {
            self.tell(burst, at, inner, now.ns);
        }
        burst.set_verdict(at, Verdict::Drop(DropCause::LinkMtu));
        false
    }

    /// Lowers what a SYN announces that was in a tunnel: `before` is how it was laid out, `len` how long it was.
    #[cold]
    fn make_answers_fit(&mut self, burst: &mut Burst, at: usize, before: &Layout, len: u32) {
        let (Some(mtu), Some(outer)) = (self.mtu, before.outer) else { return };
        let Some(parsed) = parse(burst, at).filter(|parsed| parsed.layout.outer.is_none()) else { return };
        let Some(network) = parsed.layout.network else { return };
        let link = u32::from(outer.ip);
        let tunnel = len.saturating_sub(burst.frame_len(at)).saturating_sub(link);
        let inner = mtu.saturating_sub(tunnel).saturating_sub(network.into());
        self.lower_mss(burst, at, &parsed, inner);
    }

    /// Lowers what a SYN announces to what fits into IP packets of `inner` bytes.
    fn lower_mss(&mut self, burst: &mut Burst, at: usize, parsed: &Parsed, inner: u32) {
        if parsed.ufid.get(Field::IpProto) != TCP {
            return;
        }
        let [v4, v6] = HEADERS;
        let headers = if parsed.ufid.get(Field::IpVersion) == 6 { v6 } else { v4 };
        let most = u16::try_from(inner.saturating_sub(headers)).unwrap_or(u16::MAX);
        let checksum = burst.offload(at).checksum;
        let lowered = packet::mss::clamp_mss(burst.window_mut(at), parsed, most, checksum);
        self.stats.mss_lowered += u64::from(lowered);
    }

    fn tell(&mut self, burst: &Burst, at: usize, inner: u32, now_ns: u64) {
        let Some(parsed) = parse(burst, at) else { return };
        let bits = parsed.ufid.get(Field::IpDst);
        let source = match parsed.ufid.get(Field::IpVersion) {
            6 => IpAddr::V6(Ipv6Addr::from_bits(bits)),
            _ => IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(bits).unwrap_or(0))),
        };
        let mtu = u16::try_from(inner).unwrap_or(u16::MAX);
        let Some(reply) = packet::icmp::too_big(burst.window(at), &parsed, mtu, source) else { return };
        if self.budget.take(now_ns, ERRORS_PER_SECOND) {
            self.stats.told += 1;
            self.replies.push(reply);
        }
    }
}

fn parse(burst: &Burst, at: usize) -> Option<Parsed> {
    packet::parse::parse(burst.window(at), burst.frame_len(at)).ok()
}

/// How long a frame is on the link: of one that is still to be cut, the longest segment.
fn link_len(burst: &Burst, at: usize, layout: &Layout) -> u32 {
    let len = burst.frame_len(at);
    let Some(segmentation) = burst.offload(at).segmentation else { return len };
    let Some(transport) = layout.transport else { return len };
    let header = match segmentation.kind {
        packet::GsoKind::Udp => 8,
        packet::GsoKind::TcpV4 | packet::GsoKind::TcpV6 => {
            let offset = burst.window(at).get(usize::from(transport) + 12).copied().unwrap_or(0);
            u32::from(offset >> 4) * 4
        }
    };
    len.min(u32::from(transport) + header + u32::from(segmentation.size))
}

#[cfg(test)]
mod tests;
