// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a group needs that not every receiver has granted.
//!
//! Who sends a group on as it is does not know what is in it, and who gets it has not agreed with who put it together. So before a group
//! goes to somebody with fewer features than where it came from, it is looked at: by its header for templates and CRCs, by the headers
//! of its sub-frames for what travels with packets.

use crate::wire::{GROUP_HEADER, SUBFRAME_HEADER, padded, subframe_flag};
use crate::{Features, GroupHeader};

impl Features {
    /// What travels with single packets.
    pub const OF_PACKETS: Self = Self::CHECKSUM.with(Self::GSO).with(Self::FLOW);

    /// Whether it is empty.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// What both have.
    #[must_use]
    pub const fn common(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What a group needs by what its header says. TLVs count as a CRC: it is the one that is always allowed.
    #[must_use]
    pub const fn of_header(header: &GroupHeader) -> Self {
        let template = if header.template { Self::TEMPLATE } else { Self(0) };
        let crc = if header.tlv_len > 0 { Self::GROUP_CRC } else { Self(0) };
        template.with(crc)
    }

    /// What the packets of a whole group need. It takes a look at each. `None`: the group is damaged.
    #[must_use]
    pub fn of_packets(group: &[u8]) -> Option<Self> {
        let header = GroupHeader::parse(group.first_chunk::<GROUP_HEADER>()?);
        let mut rest = group.get(header.check()?..)?;
        let mut flags = 0;
        for _ in 0..header.packets {
            let ([len0, len1, flag, words], behind) = rest.split_first_chunk::<SUBFRAME_HEADER>()?;
            flags |= flag;
            let len = padded(usize::from(u16::from_be_bytes([*len0, *len1])));
            rest = behind.get(len.saturating_add(usize::from(*words).saturating_mul(4))..)?;
        }
        let of = |flag, feature: Self| if flags & flag != 0 { feature } else { Self(0) };
        Some(
            of(subframe_flag::CHECKSUM, Self::CHECKSUM)
                .with(of(subframe_flag::GSO, Self::GSO))
                .with(of(subframe_flag::FLOW, Self::FLOW)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::HEADER;
    use crate::{Checksum, Format, GroupKey, Gso, GsoKind, Meta, Writer};

    fn group(template: bool, group_crc: bool, metas: &[Meta]) -> Vec<u8> {
        let mut writer = Writer::new(9000, 0);
        writer.begin(&Format { max_bytes: 9000, max_packets: 100, stage: 2, check: false, group_crc, template: false });
        for (n, meta) in metas.iter().enumerate() {
            assert!(writer.push(GroupKey::default(), &vec![7; 60 + n], 0, |_| {}, meta));
        }
        let mut group = writer.finish(0)[HEADER..].to_vec();
        // The bit alone: where the packets are is another matter.
        group[8] |= u8::from(template) << 6;
        group
    }

    #[test]
    fn needs_are_found_wherever_they_are() {
        let parse = |group: &[u8]| GroupHeader::parse(group.first_chunk().unwrap());
        for (template, crc) in [(false, false), (true, false), (false, true), (true, true)] {
            let header = parse(&group(template, crc, &[Meta::NONE]));
            let needs = Features::of_header(&header);
            assert_eq!((needs.has(Features::TEMPLATE), needs.has(Features::GROUP_CRC)), (template, crc));
            assert_eq!(needs.is_empty(), !template && !crc);
        }
        let checksum = Checksum::Unfinished { start: 34, offset: 6 };
        let gso = Some(Gso { kind: GsoKind::TcpV4, ecn: false, size: 100, header_len: 54 });
        let unfinished = Meta { checksum, ..Meta::NONE };
        let cases = [
            (Meta { checksum: Checksum::Verified, ..Meta::NONE }, Features::default()),
            (unfinished, Features::CHECKSUM),
            (Meta { gso, ..unfinished }, Features::CHECKSUM.with(Features::GSO)),
            (Meta { flow: Some(9), ..Meta::NONE }, Features::FLOW),
        ];
        for (meta, needs) in cases {
            for at in 0..5 {
                let mut metas = [Meta::NONE; 5];
                metas[at] = meta;
                let group = group(false, at % 2 == 0, &metas);
                assert_eq!(Features::of_packets(&group), Some(needs), "{meta:?}");
                assert_eq!(Features::of_packets(&group[..group.len() - 4]), None, "cut short");
            }
        }
        assert_eq!(Features::of_packets(&group(false, false, &[Meta::NONE; 9])), Some(Features::default()));
        assert_eq!(Features::of_packets(&[0; 11]), None);
    }
}
