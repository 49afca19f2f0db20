// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Segmentation in software.
//!
//! A guest that negotiated HOST_TSO sends frames of up to 64 KiB and leaves the cutting to others. A
//! destination that did not negotiate GUEST_TSO gets what the guest's own TCP would have sent:
//! segments that are complete in every field. The work is that of a network card:
//!
//! | field | first | between | last |
//! |---|---|---|---|
//! | IPv4 total length, IPv6 payload length | own | own | own |
//! | IPv4 identification | as given | +1 each | +1 each |
//! | TCP sequence number | as given | + payload before | + payload before |
//! | CWR | as given | off | off |
//! | FIN, PSH | off | off | as given |
//! | UDP length | own | own | own |
//! | IPv4, TCP and UDP checksums | whole | whole | whole |
//!
//! UDP is cut into datagrams of equal size (UDP segmentation offload, not fragmentation).
//!
//! The headers are found by reading them; the sender's `header_len` is not believed. They may contain
//! VLAN tags, IPv4 options, IPv6 extension headers and TCP options.
//!
//! **Tunnels.** A kernel tunnel hands out frames with the tunnel's headers on, of which the unfinished
//! checksum is the inner packet's. Each segment then gets its own outer lengths, IPv4 identification and
//! checksums too; an outer UDP checksum of 0 stays 0.

mod layout;
mod tunnel;
mod unfinished;

use crate::{
    Checksum, DropCause, EtherType, GsoKind, Offload, Segmentation,
    checksum::{Sum, checksum},
    parse::transport::{TCP, UDP},
};

use self::layout::{IpVersion, Layout, Outer, Shim, Transport};
pub(crate) use self::unfinished::is_of_header;

/// Least payload per segment. What remains of the least sending MSS that Linux uses (48) when all
/// TCP options are in use (40); below it a frame would only be a way to multiply packets.
const MIN_SIZE: u16 = 8;

const FIN_PSH: u8 = 0x09;
const CWR: u8 = 0x80;

/// The segments of one oversized frame, one at a time, each into a buffer of the caller's. May be
/// put aside between any two segments, for instance when the destination has no more buffers.
#[derive(Clone, Debug)]
pub struct Segmenter<'a> {
    headers: &'a [u8],
    payload: &'a [u8],
    layout: Layout,
    /// Pseudo-header without the length.
    pseudo: Sum,
    size: usize,
    /// Payload bytes handed out.
    sent: usize,
    /// Segments handed out.
    index: usize,
}

/// Why a frame cannot be segmented, or a segment not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// The buffer is shorter than the segment.
    #[error("a segment of {need} bytes does not fit into a buffer of {have}")]
    BufferTooSmall {
        /// Length of the segment.
        need: usize,
        /// Length of the buffer.
        have: usize,
    },
    /// The frame is an IP fragment, whose payload is not a transport segment's.
    #[error("an IP fragment cannot be segmented")]
    Fragment,
    /// A header's own length field contradicts its format.
    #[error("a header at byte {at} claims an impossible length of {len} bytes")]
    HeaderLength {
        /// Where the header starts.
        at: usize,
        /// The length it claims.
        len: usize,
    },
    /// A segment would be longer than its IP header can say.
    #[error("segments of {size} bytes of payload exceed an IP packet")]
    SizeTooBig {
        /// Payload per segment.
        size: u16,
    },
    /// Segments would carry next to nothing.
    #[error("segments of {size} bytes of payload, where {MIN_SIZE} are the least")]
    SizeTooSmall {
        /// Payload per segment.
        size: u16,
    },
    /// An IPv6 routing header with segments left: the transport checksum is over an address not yet in
    /// the destination field.
    #[error("a source-routed packet cannot be segmented")]
    SourceRouted,
    /// There are more IPv6 extension headers than are looked at.
    #[error("more than {max} IPv6 extension headers")]
    TooManyExtensions {
        /// How many are looked at.
        max: usize,
    },
    /// The frame ends within a header, or before the end its IP header claims.
    #[error("{need} bytes are needed, but the frame has {have}")]
    Truncated {
        /// Where the frame would have to end at least.
        need: usize,
        /// Where it ends.
        have: usize,
    },
    /// The checksum to be finished lies in a packet inside a tunnel that is not understood.
    #[error("the tunnel header at byte {at} is not understood")]
    UnknownTunnel {
        /// Where the header starts.
        at: usize,
    },
    /// The offload metadata asks for no segmentation.
    #[error("no segmentation is asked for")]
    Unasked,
    /// Not what the offload metadata says it is.
    #[error("EtherType {ether_type} where {kind:?} was announced")]
    WrongEtherType {
        /// What was found.
        ether_type: EtherType,
        /// What was announced.
        kind: GsoKind,
    },
    /// The IP packet does not carry what was announced.
    #[error("IP protocol {protocol}, which was not announced")]
    WrongProtocol {
        /// What was found.
        protocol: u8,
    },
    /// The checksum to be finished is not that of the packet in the tunnel.
    #[error("the checksum starts at byte {start}, but the inner transport header at {l4}")]
    WrongStart {
        /// Where it starts.
        start: usize,
        /// Where the header starts.
        l4: usize,
    },
    /// The IP header has the wrong version.
    #[error("IP version {version} where {kind:?} was announced")]
    WrongVersion {
        /// What was found.
        version: u8,
        /// What was announced.
        kind: GsoKind,
    },
}

impl SegmentError {
    /// What a packet that meets this error is dropped as.
    #[must_use]
    pub const fn drop_cause(&self) -> DropCause {
        match self {
            Self::BufferTooSmall { .. } => DropCause::TooBig,
            _ => DropCause::Unsegmentable,
        }
    }
}

impl<'a> Segmenter<'a> {
    /// Reads the headers of a frame that lies in one piece.
    ///
    /// # Errors
    /// If the frame is not what `offload` says, or cannot be segmented.
    pub fn new(frame: &'a [u8], offload: &Offload) -> Result<Self, SegmentError> {
        let Some(Segmentation { kind, size, .. }) = offload.segmentation else {
            return Err(SegmentError::Unasked);
        };
        if size < MIN_SIZE {
            return Err(SegmentError::SizeTooSmall { size });
        }
        let start = match offload.checksum {
            Checksum::Unfinished { start, .. } => usize::from(start),
            Checksum::Unknown | Checksum::Verified => 0,
        };
        let layout = Layout::parse(frame, kind, start)?;
        let truncated = SegmentError::Truncated { need: layout.end, have: frame.len() };
        let (headers, rest) = frame.split_at_checked(layout.payload).ok_or(truncated)?;
        let payload = rest.get(..layout.end.saturating_sub(layout.payload)).ok_or(truncated)?;
        let longest = headers.len().saturating_sub(layout.first_ip()).saturating_add(usize::from(size));
        if longest > usize::from(u16::MAX) {
            return Err(SegmentError::SizeTooBig { size });
        }
        let mut pseudo = Sum::new();
        let ip = headers.get(layout.l3..).ok_or(truncated)?;
        pseudo.add(layout.version.addresses(ip).ok_or(truncated)?);
        pseudo.add_value(u16::from(if layout.transport == Transport::Tcp { TCP } else { UDP }));
        Ok(Self { headers, payload, layout, pseudo, size: usize::from(size), sent: 0, index: 0 })
    }

    /// Number of segments still to come. A frame without payload is one segment.
    #[must_use]
    pub fn remaining(&self) -> usize {
        let all = self.payload.len().div_ceil(self.size.max(1)).max(1);
        all.saturating_sub(self.index)
    }

    /// Length of the next segment in bytes, headers included; `None` after the last.
    #[must_use]
    pub fn next_len(&self) -> Option<usize> {
        let left = self.payload.len().saturating_sub(self.sent);
        (self.remaining() > 0).then(|| self.headers.len().saturating_add(left.min(self.size)))
    }

    /// Writes the next segment to the start of `out` and returns its length; `None` after the last.
    ///
    /// # Errors
    /// [`SegmentError::BufferTooSmall`]; the segment is still to come then.
    pub fn next_into(&mut self, out: &mut [u8]) -> Result<Option<usize>, SegmentError> {
        let Some(need) = self.next_len() else {
            return Ok(None);
        };
        let too_small = SegmentError::BufferTooSmall { need, have: out.len() };
        let segment = out.get_mut(..need).ok_or(too_small)?;
        self.write(segment).ok_or(too_small)?;
        let payload_len = need.saturating_sub(self.headers.len());
        self.sent = self.sent.saturating_add(payload_len);
        self.index = self.index.saturating_add(1);
        Ok(Some(need))
    }

    /// Fills a segment that has exactly the length of the next. `None` only if it has not.
    fn write(&self, segment: &mut [u8]) -> Option<()> {
        let is_first = self.index == 0;
        let is_last = self.remaining() == 1;
        let (headers, payload) = segment.split_at_mut_checked(self.headers.len())?;
        headers.copy_from_slice(self.headers);
        let from = self.payload.get(self.sent..)?.get(..payload.len())?;
        payload.copy_from_slice(from);

        let (below, transport) = headers.split_at_mut_checked(self.layout.l4)?;
        let len = u16::try_from(transport.len().checked_add(payload.len())?).ok()?;
        self.finish_ip(self.layout.version, below.get_mut(self.layout.l3..)?, len)?;
        let mut sum = self.pseudo;
        sum.add_value(len);
        let check_at = match self.layout.transport {
            Transport::Tcp => {
                self.write_tcp(transport, is_first, is_last)?;
                16
            }
            Transport::Udp => {
                put(transport, 4, len.to_be_bytes())?;
                6
            }
        };
        put(transport, check_at, [0, 0])?;
        sum.add(transport);
        sum.add(payload);
        put(transport, check_at, sum.transport_checksum().to_be_bytes())?;
        match &self.layout.outer {
            Some(outer) => self.finish_outer(outer, segment),
            None => Some(()),
        }
    }

    fn write_tcp(&self, tcp: &mut [u8], is_first: bool, is_last: bool) -> Option<()> {
        let sequence = u32::from_be_bytes(*tcp.get(4..)?.first_chunk()?);
        // Sequence numbers wrap.
        let sequence = sequence.wrapping_add(u32::try_from(self.sent).ok()?);
        put(tcp, 4, sequence.to_be_bytes())?;
        let flags = tcp.get_mut(13)?;
        if !is_first {
            *flags &= !CWR;
        }
        if !is_last {
            *flags &= !FIN_PSH;
        }
        Some(())
    }

    /// The headers around a segment that is complete.
    fn finish_outer(&self, outer: &Outer, segment: &mut [u8]) -> Option<()> {
        let (below, carrier) = segment.split_at_mut_checked(outer.l4)?;
        let ip = below.get_mut(outer.l3..)?;
        let len = u16::try_from(carrier.len()).ok()?;
        self.finish_ip(outer.version, ip, len)?;
        match outer.shim {
            Shim::Udp => {
                put(carrier, 4, len.to_be_bytes())?;
                if carrier.get(6..8)? == [0, 0] {
                    return Some(());
                }
                put(carrier, 6, [0, 0])?;
                let mut sum = Sum::new();
                sum.add(outer.version.addresses(ip)?);
                sum.add_value(UDP.into());
                sum.add_value(len);
                sum.add(carrier);
                put(carrier, 6, sum.transport_checksum().to_be_bytes())
            }
            Shim::Gre { has_checksum: true, .. } => {
                put(carrier, 4, [0, 0])?;
                let sum = checksum(carrier);
                put(carrier, 4, sum.to_be_bytes())
            }
            Shim::Gre { has_checksum: false, .. } => Some(()),
        }
    }

    /// Lengths, and of IPv4 identification and checksum, of a header with its options or extensions before
    /// `len` bytes.
    fn finish_ip(&self, version: IpVersion, ip: &mut [u8], len: u16) -> Option<()> {
        match version {
            IpVersion::V4 => self.finish_ipv4(ip, len),
            IpVersion::V6 => {
                let extensions = u16::try_from(ip.len().checked_sub(40)?).ok()?;
                put(ip, 4, extensions.checked_add(len)?.to_be_bytes())
            }
        }
    }

    fn finish_ipv4(&self, ip: &mut [u8], len: u16) -> Option<()> {
        let total = u16::try_from(ip.len()).ok()?.checked_add(len)?;
        put(ip, 2, total.to_be_bytes())?;
        let id = u16::from_be_bytes(*ip.get(4..)?.first_chunk()?);
        // A frame has at most 65535 / MIN_SIZE segments, and identifications wrap.
        let id = id.wrapping_add(u16::try_from(self.index).ok()?);
        put(ip, 4, id.to_be_bytes())?;
        put(ip, 10, [0, 0])?;
        let sum = checksum(ip);
        put(ip, 10, sum.to_be_bytes())
    }
}

fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) -> Option<()> {
    *bytes.get_mut(at..)?.first_chunk_mut()? = value;
    Some(())
}

#[cfg(test)]
mod tests;
