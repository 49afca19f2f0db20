// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The front of a packet: its outer group, and VLAN tags. Whatever happens to them, it moves once.
//!
//! ```text
//!  before   | outer group | MACs | tags popped |            EtherType ...
//!  after    | outer group or new header | MACs | tags pushed | EtherType ...
//! ```
//! What lies from the EtherType, or the tags that stay, on does not move; the frame's start does.

use super::{
    Ttl,
    header::{EcnMap, Marks},
    program::put,
};
use crate::{Burst, Checksum, DropCause, Layout, Tunnel, checksum};

/// How the front changes. The bytes put on, tags and then header, are kept apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Front {
    pub(super) place: Place,
    /// Bytes of the tags popped.
    pub(super) popped: u8,
    /// Bytes of the tags pushed.
    pub(super) tags: u8,
    /// Bytes of the outer group pushed.
    pub(super) header: u8,
}

/// Where the front begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It does not change.
    Nowhere,
    /// At the outer group, if there is one.
    Kept,
    /// At the inner group: an outer group is taken off.
    Inner,
}

/// An outer group that is pushed, with everything that is known of the flow in its bytes.
#[derive(Debug)]
pub(super) struct PushedHeader {
    pub(super) ecn: EcnMap,
    pub(super) tunnel: Tunnel,
    pub(super) version: u8,
    /// Where the IP header lies.
    pub(super) ip: u8,
    pub(super) dscp: u8,
    pub(super) ttl: Ttl,
}

const MACS: usize = 12;
const IPV4: usize = 20;
const IPV6: usize = 40;

impl Front {
    /// How many bytes are put on.
    #[inline]
    pub(super) fn len(self) -> usize {
        usize::from(self.tags).saturating_add(self.header.into())
    }

    #[expect(clippy::too_many_arguments, reason = "what is the same for all packets, and what is a packet's")]
    pub(super) fn apply(
        self,
        bytes: &[u8],
        header: Option<&PushedHeader>,
        burst: &mut Burst,
        i: usize,
        layout: &Layout,
        marks: &Marks,
        flow_hash: u32,
    ) -> Result<(), DropCause> {
        let beyond = DropCause::HeaderBeyondWindow;
        let ethernet = usize::from(layout.ethernet.ok_or(beyond)?);
        let block_start = if self.place == Place::Kept { 0 } else { ethernet };
        let block_end = ethernet.saturating_add(MACS);
        let block_len = block_end.saturating_sub(block_start);
        let old_end = block_end.saturating_add(self.popped.into());
        let (tags, pushed) = bytes.split_at_checked(self.tags.into()).ok_or(beyond)?;
        let header_len = pushed.len();
        let new_end = bytes.len().saturating_add(block_len);
        let (grow, shrink) = (new_end.saturating_sub(old_end), old_end.saturating_sub(new_end));

        let unmoved = self.prepare_checksum(burst, i, ethernet, old_end)?;
        if grow > 0 {
            burst.prepend(i, grow).ok_or(DropCause::NoHeadroom)?;
        }
        let frame_len = burst.frame_len(i).saturating_sub(u32::try_from(shrink).unwrap_or(u32::MAX));
        let window = burst.window_mut(i);
        if old_end.saturating_add(grow) > window.len() {
            return Err(beyond);
        }
        let to = shrink.saturating_add(header_len);
        // All of it ends before old_end + grow: to + block + tags = old_end + grow.
        let from = block_start.saturating_add(grow);
        match window.get(from..).and_then(<[u8]>::first_chunk::<MACS>) {
            Some(macs) if block_len == MACS => {
                let macs = *macs;
                put(window, to, &macs).ok_or(beyond)?;
            }
            _ => window.copy_within(from..block_end.saturating_add(grow), to),
        }
        if !tags.is_empty() {
            put(window, to.saturating_add(block_len), tags).ok_or(beyond)?;
        }
        if let Some(header) = header {
            let front = window.get_mut(shrink..to).ok_or(beyond)?;
            front.copy_from_slice(pushed);
            header.write(front, frame_len, marks, flow_hash)?;
        }
        if shrink > 0 {
            burst.strip(i, shrink).ok_or(DropCause::BadOffload)?;
        }
        if let Some(checksum) = unmoved {
            let offload = burst.offload(i);
            burst.set_offload(i, crate::Offload { checksum, ..offload });
        }
        Ok(())
    }

    /// Sees to an unfinished checksum of the outer group: what is taken off needs none, and what stays
    /// keeps its distance from the frame's start, which is what is returned.
    fn prepare_checksum(
        self,
        burst: &mut Burst,
        i: usize,
        ethernet: usize,
        old_end: usize,
    ) -> Result<Option<Checksum>, DropCause> {
        let offload = burst.offload(i);
        let Checksum::Unfinished { start, .. } = offload.checksum else { return Ok(None) };
        if usize::from(start) >= old_end {
            return Ok(None);
        }
        if usize::from(start) >= ethernet || self.place == Place::Inner && offload.segmentation.is_some() {
            return Err(DropCause::BadOffload);
        }
        burst.set_offload(i, crate::Offload { checksum: Checksum::Unknown, ..offload });
        Ok((self.place == Place::Kept).then_some(offload.checksum))
    }
}

impl PushedHeader {
    /// Fills in what its bytes lack, before a packet, so that the frame is `frame_len` bytes long.
    #[expect(clippy::cast_possible_truncation, reason = "low bits of the hash")]
    fn write(&self, front: &mut [u8], frame_len: u32, marks: &Marks, flow_hash: u32) -> Result<(), DropCause> {
        let beyond = DropCause::HeaderBeyondWindow;
        let at = usize::from(self.ip);
        let datagram = usize::try_from(frame_len).unwrap_or(usize::MAX).saturating_sub(at);
        let class = self.dscp << 2 | self.ecn.of(marks)?;
        let ttl = self.ttl.of(marks);
        let ip = front.get_mut(at..).ok_or(beyond)?;
        let (header_len, ip_len) =
            if self.version == 4 { (IPV4, datagram) } else { (IPV6, datagram.saturating_sub(IPV6)) };
        let ip_len = u16::try_from(ip_len).map_err(|_| DropCause::TooBig)?.to_be_bytes();
        let (ip, transport) = ip.split_at_mut_checked(header_len).ok_or(beyond)?;
        if self.version == 4 {
            let header: &mut [u8; IPV4] = ip.first_chunk_mut().ok_or(beyond)?;
            let [_, tos, len_0, len_1, _, _, _, _, time, ..] = header;
            (*tos, [*len_0, *len_1], *time) = (class, ip_len, ttl);
            let sum = checksum::checksum(header).to_be_bytes();
            let [.., check_0, check_1, _, _, _, _, _, _, _, _] = header;
            [*check_0, *check_1] = sum;
        } else {
            let header: &mut [u8; IPV6] = ip.first_chunk_mut().ok_or(beyond)?;
            let [version, label_0, label_1, label_2, len_0, len_1, _, hop_limit, ..] = header;
            let [_, high, middle, low] = flow_hash.to_be_bytes();
            (*version, *label_0, *label_1, *label_2) = (0x60 | class >> 4, class << 4 | high & 0x0f, middle, low);
            ([*len_0, *len_1], *hop_limit) = (ip_len, ttl);
        }
        match (self.tunnel, transport) {
            (Tunnel::Nvgre, [_, _, _, _, _, _, _, flow_id]) => *flow_id = flow_hash as u8,
            (_, [port_0, port_1, _, _, len_0, len_1, ..]) => {
                // 49152 to 65535 (RFC 7348, 5).
                [*port_0, *port_1] = (0xc000 | flow_hash as u16).to_be_bytes();
                let udp = u16::try_from(datagram.saturating_sub(header_len)).map_err(|_| DropCause::TooBig)?;
                [*len_0, *len_1] = udp.to_be_bytes();
            }
            _ => return Err(beyond),
        }
        Ok(())
    }
}
