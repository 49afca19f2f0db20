// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What travels with a packet: the extensions of a sub-frame.
//!
//! ```text
//!  flags 0x80   | start (16)          | offset (16)                    |
//!  flags 0x40   | kind (8) | flags (8)| segment size (16)              |
//!               | header length (16)  | 0 (16)                         |
//!  flags 0x20   | flow id (32)                                         |
//!  flags 0x10   | time stamp (64), reserved                            |
//! ```

use crate::Cause;
use crate::wire::subframe_flag as flag;

const ECN: u8 = 0x80;

/// What travels with a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// State of the transport checksum.
    pub checksum: Checksum,
    /// Set when the packet is to be cut into segments; its checksum is then unfinished.
    pub gso: Option<Gso>,
    /// The flow id that it was given by whoever switched it, opaque to others.
    pub flow: Option<u32>,
}

/// State of a packet's transport checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// Nothing is known.
    #[default]
    Unknown,
    /// Somebody verified it. Worth what the link is worth.
    Verified,
    /// To finish: sum from `start` to the end of the packet, store the complement at `start + offset`.
    Unfinished {
        /// Where summing starts, in bytes from the packet's first.
        start: u16,
        /// Where the checksum field lies, in bytes from `start`.
        offset: u16,
    },
}

/// How an oversized packet is to be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// What it carries.
    pub kind: GsoKind,
    /// CWR is for the first segment only.
    pub ecn: bool,
    /// Transport payload of each segment in bytes, not 0.
    pub size: u16,
    /// The sender's idea of the length of all headers; a hint.
    pub header_len: u16,
}

/// What an oversized packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GsoKind {
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
    /// UDP over either, to be cut into datagrams.
    Udp,
}

impl Meta {
    /// Nothing.
    pub const NONE: Self = Self { checksum: Checksum::Unknown, gso: None, flow: None };
    /// Bytes of the longest extensions that this version knows, the time stamp included.
    pub const MAX_LEN: usize = 24;

    /// Whether there is nothing to say.
    #[inline]
    #[must_use]
    pub const fn is_none(&self) -> bool {
        matches!(self.checksum, Checksum::Unknown) && self.gso.is_none() && self.flow.is_none()
    }

    /// Bytes of the extensions.
    #[inline]
    #[must_use]
    pub const fn ext_len(&self) -> usize {
        let checksum: usize = if matches!(self.checksum, Checksum::Unfinished { .. }) { 4 } else { 0 };
        let gso = if self.gso.is_some() { 8 } else { 0 };
        let flow = if self.flow.is_some() { 4 } else { 0 };
        checksum.saturating_add(gso).saturating_add(flow)
    }

    /// Reads the extensions of a packet of `len` bytes; what is behind the known ones is skipped.
    ///
    /// # Errors
    /// [`Cause::BadExtension`] if they are shorter than the flags say, [`Cause::BadOffload`] if they contradict the packet.
    pub fn parse(flags: u8, mut ext: &[u8], len: u32) -> Result<Self, Cause> {
        let mut meta = Self::NONE;
        if flags & flag::VERIFIED != 0 {
            meta.checksum = Checksum::Verified;
        }
        if flags & flag::CHECKSUM != 0 {
            let [s0, s1, o0, o1] = take(&mut ext)?;
            let (start, offset) = (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([o0, o1]));
            if u32::from(start).saturating_add(u32::from(offset)).saturating_add(2) > len {
                return Err(Cause::BadOffload);
            }
            meta.checksum = Checksum::Unfinished { start, offset };
        }
        if flags & flag::GSO != 0 {
            let [kind, bits, s0, s1, h0, h1, _, _] = take(&mut ext)?;
            let kind = match kind {
                1 => GsoKind::TcpV4,
                2 => GsoKind::TcpV6,
                3 => GsoKind::Udp,
                _ => return Err(Cause::BadOffload),
            };
            let (size, header_len) = (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([h0, h1]));
            if size == 0 || flags & flag::CHECKSUM == 0 {
                return Err(Cause::BadOffload);
            }
            meta.gso = Some(Gso { kind, ecn: bits & ECN != 0, size, header_len });
        }
        if flags & flag::FLOW != 0 {
            meta.flow = Some(u32::from_be_bytes(take(&mut ext)?));
        }
        if flags & flag::TIMESTAMP != 0 {
            let _: [u8; 8] = take(&mut ext)?;
        }
        Ok(meta)
    }

    /// Flags and extensions: how many bytes of the array they are.
    #[must_use]
    pub fn to_bytes(&self) -> (u8, [u8; Self::MAX_LEN], usize) {
        let (mut flags, mut ext, mut at) = (0, [0; Self::MAX_LEN], 0_usize);
        let mut put = |bytes: &[u8]| {
            let end = at.saturating_add(bytes.len());
            if let Some(to) = ext.get_mut(at..end) {
                to.copy_from_slice(bytes);
            }
            at = end;
        };
        match self.checksum {
            Checksum::Unknown => {}
            Checksum::Verified => flags |= flag::VERIFIED,
            Checksum::Unfinished { start, offset } => {
                flags |= flag::CHECKSUM;
                put(&start.to_be_bytes());
                put(&offset.to_be_bytes());
            }
        }
        if let Some(gso) = self.gso {
            flags |= flag::GSO;
            let kind = match gso.kind {
                GsoKind::TcpV4 => 1,
                GsoKind::TcpV6 => 2,
                GsoKind::Udp => 3,
            };
            put(&[kind, if gso.ecn { ECN } else { 0 }]);
            put(&gso.size.to_be_bytes());
            put(&gso.header_len.to_be_bytes());
            put(&[0, 0]);
        }
        if let Some(flow) = self.flow {
            flags |= flag::FLOW;
            put(&flow.to_be_bytes());
        }
        (flags, ext, at)
    }
}

/// The next bytes of the extensions.
fn take<const N: usize>(ext: &mut &[u8]) -> Result<[u8; N], Cause> {
    let (first, rest) = ext.split_first_chunk::<N>().ok_or(Cause::BadExtension)?;
    *ext = rest;
    Ok(*first)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_meta() -> impl Strategy<Value = Meta> {
        let kind = prop_oneof![Just(GsoKind::TcpV4), Just(GsoKind::TcpV6), Just(GsoKind::Udp)];
        let gso = (kind, any::<bool>(), 1..=u16::MAX, any::<u16>());
        let gso = gso.prop_map(|(kind, ecn, size, header_len)| Gso { kind, ecn, size, header_len });
        let unfinished = (0_u16..6, 0_u16..6).prop_map(|(start, offset)| Checksum::Unfinished { start, offset });
        let checksum = prop_oneof![
            Just((Checksum::Unknown, None)),
            Just((Checksum::Verified, None)),
            (unfinished, proptest::option::of(gso)),
        ];
        let parts = (checksum, proptest::option::of(any::<u32>()));
        parts.prop_map(|((checksum, gso), flow)| Meta { checksum, gso, flow })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(meta in any_meta(), more in proptest::collection::vec(any::<u8>(), 0..8)) {
            let (flags, ext, len) = meta.to_bytes();
            prop_assert_eq!(len, meta.ext_len());
            prop_assert_eq!(flags == 0, meta.is_none());
            let longer = [&ext[..len], &more].concat();
            prop_assert_eq!(Meta::parse(flags, &longer, 14), Ok(meta));
            if len > 0 {
                prop_assert_eq!(Meta::parse(flags, &ext[..len - 1], 14), Err(Cause::BadExtension));
            }
        }
    }

    #[test]
    fn contradictions_are_found() {
        let parse = |flags, ext: &[u8]| Meta::parse(flags, ext, 60);
        assert_eq!(parse(0x80, &[0, 34, 0, 24]).map(|meta| meta.gso), Ok(None));
        assert_eq!(parse(0x80, &[0, 34, 0, 25]), Err(Cause::BadOffload), "the field ends behind the packet");
        assert_eq!(parse(0x40, &[1, 0, 0, 9, 0, 0, 0, 0]), Err(Cause::BadOffload), "without a checksum");
        assert_eq!(parse(0xc0, &[0, 34, 0, 6, 1, 0, 0, 0, 0, 0, 0, 0]), Err(Cause::BadOffload), "segments of nothing");
        assert_eq!(parse(0xc0, &[0, 34, 0, 6, 4, 0, 0, 9, 0, 0, 0, 0]), Err(Cause::BadOffload), "an unknown kind");
        assert_eq!(parse(0x10, &[0; 7]), Err(Cause::BadExtension));
        assert_eq!(parse(0x17, &[0; 8]), Ok(Meta::NONE), "reserved flags");
    }
}
