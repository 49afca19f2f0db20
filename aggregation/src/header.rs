// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The headers of a frame and of a group.
//!
//! ```text
//!   0               1               2               3
//!  +-------+-------+---------------+-------------------------------+
//!  |ver 1  | words |C|L|K|R| (ign.)| length of the frame           |
//!  +-------+-------+---------------+-------------------------------+
//!  | groups        | stage         | sequence number               |
//!  +---------------+---------------+-------------------------------+
//!  | K only: CRC-32C of this header and of all group headers       |
//!  +---------------------------------------------------------------+
//!
//!  +-------------------------------+-------------------------------+
//!  | length of the group           | packets                       |
//!  +-------------------------------+-------------------------------+
//!  | origin                        | destination                   |
//!  +-+-+-+-+-+-----+---------------+-------------------------------+
//!  |U|E|R|ign|class| header words  | words of TLVs                 |
//!  +-+-+-+-+-+-----+---------------+-------------------------------+
//! ```

use crate::Cause;
use crate::wire::{self, GROUP_HEADER, HEADER, HEADER_CHECKED, frame_flag, group_flag};

/// What the common header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// A control frame: it has no groups, and [`negotiation`](crate::negotiation) reads it.
    pub control: bool,
    /// Whether there is a check word over all headers.
    pub checked: bool,
    /// Bytes of this header.
    pub header_len: usize,
    /// Bytes of the whole frame, header included.
    pub len: usize,
    /// Number of groups.
    pub groups: u8,
    /// Who put it together: 1 a CNF, 2 a node, 3 a top-of-rack node. For statistics only.
    pub stage: u8,
    /// Number of the frame from its sender on this link.
    pub sequence: u16,
}

impl Header {
    /// Reads the first eight bytes.
    ///
    /// # Errors
    /// [`Cause::Version`], [`Cause::FrameFlag`], [`Cause::FrameLength`].
    #[inline]
    pub fn parse(bytes: &[u8; HEADER]) -> Result<Self, Cause> {
        let [first, flags, len0, len1, groups, stage, seq0, seq1] = *bytes;
        if first >> 4 != wire::VERSION {
            return Err(Cause::Version);
        }
        if flags & frame_flag::CRITICAL != 0 {
            return Err(Cause::FrameFlag);
        }
        let checked = flags & frame_flag::CHECKED != 0;
        let header_len = usize::from(first & 0x0f).saturating_mul(4);
        let len = usize::from(u16::from_be_bytes([len0, len1]));
        if header_len < (if checked { HEADER_CHECKED } else { HEADER }) || len < header_len {
            return Err(Cause::FrameLength);
        }
        let control = flags & frame_flag::CONTROL != 0;
        let sequence = u16::from_be_bytes([seq0, seq1]);
        Ok(Self { control, checked, header_len, len, groups, stage, sequence })
    }

    /// The first eight bytes, for a header without extensions.
    #[inline]
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HEADER] {
        let control = if self.control { frame_flag::CONTROL } else { 0 };
        let checked = if self.checked { frame_flag::CHECKED } else { 0 };
        let words = if self.checked { 3 } else { 2 };
        let [len0, len1] = u16::try_from(self.len).unwrap_or(u16::MAX).to_be_bytes();
        let [seq0, seq1] = self.sequence.to_be_bytes();
        [wire::VERSION << 4 | words, control | checked, len0, len1, self.groups, self.stage, seq0, seq1]
    }
}

/// What a group header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupHeader {
    /// Bytes of the group, this header included; a multiple of four.
    pub len: usize,
    /// Number of packets.
    pub packets: u16,
    /// Node id of who put the group together.
    pub origin: u16,
    /// Node id of who is to take it apart; 0 is the other end of the link.
    pub destination: u16,
    /// Traffic class, 0 to 7.
    pub class: u8,
    /// The sender's word that all packets are of one flow; nothing may rely on it.
    pub uniform: bool,
    /// An Ethernet template stands before the sub-frames.
    pub template: bool,
    /// A flag is set that must be known, and is not.
    pub critical: bool,
    /// Bytes of this header.
    pub header_len: usize,
    /// Bytes of TLVs behind it.
    pub tlv_len: usize,
}

impl GroupHeader {
    /// Reads a header. Whether its lengths make sense is said by [`check`](Self::check).
    #[inline]
    #[must_use]
    pub fn parse(bytes: &[u8; GROUP_HEADER]) -> Self {
        let [len0, len1, n0, n1, from0, from1, to0, to1, flags, words, tlv0, tlv1] = *bytes;
        Self {
            len: usize::from(u16::from_be_bytes([len0, len1])),
            packets: u16::from_be_bytes([n0, n1]),
            origin: u16::from_be_bytes([from0, from1]),
            destination: u16::from_be_bytes([to0, to1]),
            class: flags & group_flag::CLASS,
            uniform: flags & group_flag::UNIFORM != 0,
            template: flags & group_flag::TEMPLATE != 0,
            critical: flags & group_flag::CRITICAL != 0,
            header_len: usize::from(words).saturating_mul(4),
            tlv_len: usize::from(u16::from_be_bytes([tlv0, tlv1])).saturating_mul(4),
        }
    }

    /// The header's bytes, without extensions.
    #[inline]
    #[must_use]
    pub fn to_bytes(&self) -> [u8; GROUP_HEADER] {
        let [len0, len1] = u16::try_from(self.len).unwrap_or(u16::MAX).to_be_bytes();
        let [n0, n1] = self.packets.to_be_bytes();
        let [from0, from1] = self.origin.to_be_bytes();
        let [to0, to1] = self.destination.to_be_bytes();
        let uniform = if self.uniform { group_flag::UNIFORM } else { 0 };
        let template = if self.template { group_flag::TEMPLATE } else { 0 };
        let critical = if self.critical { group_flag::CRITICAL } else { 0 };
        let flags = uniform | template | critical | self.class & group_flag::CLASS;
        let words = u8::try_from(self.header_len >> 2).unwrap_or(u8::MAX);
        let [tlv0, tlv1] = u16::try_from(self.tlv_len >> 2).unwrap_or(u16::MAX).to_be_bytes();
        [len0, len1, n0, n1, from0, from1, to0, to1, flags, words, tlv0, tlv1]
    }

    /// Whether the group's end can be found, `room` being what is left of the frame.
    #[inline]
    #[must_use]
    pub const fn has_end(&self, room: usize) -> bool {
        self.len >= GROUP_HEADER && self.len & 3 == 0 && self.len <= room
    }

    /// Bytes before the first sub-frame: header, TLVs and template. `None` if the group is shorter.
    #[inline]
    #[must_use]
    pub fn check(&self) -> Option<usize> {
        let template = if self.template { wire::TEMPLATE } else { 0 };
        let front = self.header_len.saturating_add(self.tlv_len).saturating_add(template);
        (self.header_len >= GROUP_HEADER && front <= self.len).then_some(front)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_what_they_are_read_from() {
        let bytes = [0x13, 0x20, 0x01, 0x02, 3, 2, 0xab, 0xcd];
        let header = Header::parse(&bytes).unwrap();
        let wanted =
            Header { control: false, checked: true, header_len: 12, len: 258, groups: 3, stage: 2, sequence: 0xabcd };
        assert_eq!(header, wanted);
        assert_eq!(header.to_bytes(), bytes);
        let bytes = [1, 4, 0, 2, 0, 7, 0, 9, 0xc5, 3, 0, 1];
        let group = GroupHeader::parse(&bytes);
        assert_eq!((group.len, group.packets, group.origin, group.destination), (260, 2, 7, 9));
        assert!(group.uniform && group.template && !group.critical);
        assert_eq!((group.class, group.header_len, group.tlv_len, group.check()), (5, 12, 4, Some(32)));
        assert_eq!(group.to_bytes(), bytes);
    }

    #[test]
    fn impossible_headers_are_refused() {
        let parse = |first, flags, len: u8| Header::parse(&[first, flags, 0, len, 0, 0, 0, 0]).err();
        assert_eq!(parse(0x12, 0x0f, 8), None);
        assert_eq!(parse(0x22, 0, 8), Some(Cause::Version));
        assert_eq!(parse(0x02, 0, 8), Some(Cause::Version));
        assert_eq!(parse(0x12, 0x40, 8), Some(Cause::FrameFlag));
        assert_eq!(parse(0x12, 0x10, 8), Some(Cause::FrameFlag));
        assert_eq!(parse(0x11, 0, 8), Some(Cause::FrameLength));
        assert_eq!(parse(0x12, 0x20, 12), Some(Cause::FrameLength));
        assert_eq!(parse(0x12, 0, 7), Some(Cause::FrameLength));
        assert_eq!(parse(0x13, 0, 12), None, "a longer header is skipped");
    }
}
