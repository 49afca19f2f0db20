// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One packet, both ways.

use cnf::{Checksum, GsoKind, Meta, Offload, Packet, Segmentation};

use crate::error::Failure;
use crate::pointer::slice;

/// `flow` says what the switch calls the packet's flow.
pub const SHUNT_CNF_FLOW: u32 = 0x01;
/// The checksum is unfinished: it is to be summed from `csum_start` to the end of the packet, and stored `csum_offset` bytes
/// behind that.
pub const SHUNT_CNF_CSUM_UNFINISHED: u32 = 0x02;
/// Somebody verified the checksum.
pub const SHUNT_CNF_CSUM_VERIFIED: u32 = 0x04;
/// The packet is to be cut: the fields `gso_…` say how. Only with SHUNT_CNF_CSUM_UNFINISHED.
pub const SHUNT_CNF_GSO: u32 = 0x08;
/// All flags that there are.
const FLAGS: u32 = 0x0f;

/// `gso_kind`: TCP over IPv4.
pub const SHUNT_CNF_GSO_TCPV4: u8 = 1;
/// `gso_kind`: TCP over IPv6.
pub const SHUNT_CNF_GSO_TCPV6: u8 = 2;
/// `gso_kind`: UDP over either.
pub const SHUNT_CNF_GSO_UDP: u8 = 3;
/// `gso_flags`: CWR is for the first segment only.
pub const SHUNT_CNF_GSO_ECN: u8 = 0x80;

/// A packet: an Ethernet frame from its destination address on, without its check sequence, and what is known of it. What
/// arrives with a packet and is not taken off leaves with it. A program that makes packets zeroes all but data and length.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct shunt_cnf_packet {
    /// The first byte. Of a received packet: in the queue's memory until its next shunt_cnf_receive, and may be written.
    pub data: *mut u8,
    /// Bytes.
    pub length: u32,
    /// SHUNT_CNF_FLOW and so on.
    pub flags: u32,
    /// What the switch calls the flow, to be given back as it came.
    pub flow: u32,
    /// Where the sum begins.
    pub csum_start: u16,
    /// Where the checksum is, counted from there.
    pub csum_offset: u16,
    /// SHUNT_CNF_GSO_TCPV4 and so on.
    pub gso_kind: u8,
    /// SHUNT_CNF_GSO_ECN or 0.
    pub gso_flags: u8,
    /// Bytes of payload of each segment.
    pub gso_size: u16,
    /// Bytes of all headers, as the sender believes.
    pub gso_header_length: u16,
    /// Zero.
    pub reserved0: u16,
    /// Zero.
    pub reserved: [u64; 2],
}

impl shunt_cnf_packet {
    /// For C, with its bytes at `data`.
    pub(crate) fn new(data: *mut u8, length: usize, meta: Meta) -> Self {
        let mut packet = Self {
            data,
            length: u32::try_from(length).unwrap_or(u32::MAX),
            flags: 0,
            flow: 0,
            csum_start: 0,
            csum_offset: 0,
            gso_kind: 0,
            gso_flags: 0,
            gso_size: 0,
            gso_header_length: 0,
            reserved0: 0,
            reserved: [0; 2],
        };
        if let Some(flow) = meta.flow {
            (packet.flags, packet.flow) = (SHUNT_CNF_FLOW, flow);
        }
        match meta.offload.checksum {
            Checksum::Unknown => {}
            Checksum::Verified => packet.flags |= SHUNT_CNF_CSUM_VERIFIED,
            Checksum::Unfinished { start, offset } => {
                packet.flags |= SHUNT_CNF_CSUM_UNFINISHED;
                (packet.csum_start, packet.csum_offset) = (start, offset);
            }
        }
        if let Some(Segmentation { kind, ecn, size, header_len }) = meta.offload.segmentation {
            packet.flags |= SHUNT_CNF_GSO;
            packet.gso_kind = match kind {
                GsoKind::TcpV4 => SHUNT_CNF_GSO_TCPV4,
                GsoKind::TcpV6 => SHUNT_CNF_GSO_TCPV6,
                GsoKind::Udp => SHUNT_CNF_GSO_UDP,
            };
            packet.gso_flags = if ecn { SHUNT_CNF_GSO_ECN } else { 0 };
            (packet.gso_size, packet.gso_header_length) = (size, header_len);
        }
        packet
    }

    /// From C.
    ///
    /// # Safety
    /// `data` is NULL or readable for `length` bytes, which nobody writes while the result lives.
    pub(crate) unsafe fn as_packet(&self) -> Result<Packet<'_>, Failure> {
        // SAFETY: the caller's promise.
        let bytes = unsafe { slice(self.data.cast_const(), self.length as usize) }?;
        if self.flags == 0 {
            return Ok(Packet::new(bytes));
        }
        let has = |flag: u32| self.flags & flag != 0;
        if self.flags & !FLAGS != 0 {
            return Err(Failure::Value("unknown flags of a packet"));
        }
        let checksum = match (has(SHUNT_CNF_CSUM_UNFINISHED), has(SHUNT_CNF_CSUM_VERIFIED)) {
            (true, true) => return Err(Failure::Value("a checksum is unfinished or verified, not both")),
            (true, false) => Checksum::Unfinished { start: self.csum_start, offset: self.csum_offset },
            (false, true) => Checksum::Verified,
            (false, false) => Checksum::Unknown,
        };
        let segmentation = if has(SHUNT_CNF_GSO) { Some(self.segmentation()?) } else { None };
        let flow = has(SHUNT_CNF_FLOW).then_some(self.flow);
        Ok(Packet { bytes, meta: Meta { flow, offload: Offload { checksum, segmentation } } })
    }

    fn segmentation(&self) -> Result<Segmentation, Failure> {
        if self.flags & SHUNT_CNF_CSUM_UNFINISHED == 0 || self.gso_size == 0 {
            return Err(Failure::Value("a packet to be cut has an unfinished checksum, and segments have a size"));
        }
        let kind = match self.gso_kind {
            SHUNT_CNF_GSO_TCPV4 => GsoKind::TcpV4,
            SHUNT_CNF_GSO_TCPV6 => GsoKind::TcpV6,
            SHUNT_CNF_GSO_UDP => GsoKind::Udp,
            _ => return Err(Failure::Value("gso_kind")),
        };
        let ecn = self.gso_flags & SHUNT_CNF_GSO_ECN != 0;
        Ok(Segmentation { kind, ecn, size: self.gso_size, header_len: self.gso_header_length })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrives_leaves() {
        let unfinished = Checksum::Unfinished { start: 34, offset: 16 };
        let cut = |kind, ecn| Some(Segmentation { kind, ecn, size: 1400, header_len: 54 });
        for flow in [None, Some(0), Some(7)] {
            for (checksum, segmentation) in [
                (Checksum::Unknown, None),
                (Checksum::Verified, None),
                (unfinished, None),
                (unfinished, cut(GsoKind::TcpV4, true)),
                (unfinished, cut(GsoKind::TcpV6, false)),
                (unfinished, cut(GsoKind::Udp, false)),
            ] {
                let meta = Meta { flow, offload: Offload { checksum, segmentation } };
                let mut bytes = [7; 60];
                let packet = shunt_cnf_packet::new(bytes.as_mut_ptr(), 60, meta);
                // SAFETY: 60 bytes that nobody writes.
                let back = unsafe { packet.as_packet() }.unwrap();
                assert_eq!((back.bytes, back.meta), (&bytes[..], meta));
            }
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let mut bytes = [0; 60];
        let good = shunt_cnf_packet::new(bytes.as_mut_ptr(), 60, Meta::default());
        let gso = SHUNT_CNF_GSO | SHUNT_CNF_CSUM_UNFINISHED;
        for bad in [
            shunt_cnf_packet { flags: 0x10, ..good },
            shunt_cnf_packet { flags: SHUNT_CNF_CSUM_UNFINISHED | SHUNT_CNF_CSUM_VERIFIED, ..good },
            shunt_cnf_packet { flags: SHUNT_CNF_GSO, gso_kind: 1, gso_size: 1, ..good },
            shunt_cnf_packet { flags: gso, gso_kind: 1, gso_size: 0, ..good },
            shunt_cnf_packet { flags: gso, gso_kind: 4, gso_size: 1, ..good },
        ] {
            // SAFETY: 60 bytes that nobody writes.
            assert!(matches!(unsafe { bad.as_packet() }, Err(Failure::Value(_))), "{bad:?}");
        }
        let null = shunt_cnf_packet { data: std::ptr::null_mut(), ..good };
        // SAFETY: NULL is allowed.
        assert!(matches!(unsafe { null.as_packet() }, Err(Failure::Null)));
    }
}
