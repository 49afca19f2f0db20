// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a side can take, and what two sides have in common.

use crate::{Format, Limits, wire};

/// What a side can take, and is ready to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The lowest and the highest version.
    pub versions: (u8, u8),
    /// Encapsulations: 1 Ethernet, 2 UDP.
    pub encapsulations: u8,
    /// A wish: groups begin at multiples of 2 to the power of this, counted from the first. At least 2; senders may ignore what is above.
    pub align_log2: u8,
    /// Bytes of a frame.
    pub max_bytes: u32,
    /// Packets of a frame.
    pub max_packets: u16,
    /// What may be used in frames.
    pub features: Features,
    /// Milliseconds between KEEPALIVEs.
    pub keepalive_ms: u16,
}

/// What may be used in frames, as a set of bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features(pub u16);

impl Features {
    /// Ethernet templates.
    pub const TEMPLATE: Self = Self(0x01);
    /// Unfinished checksums.
    pub const CHECKSUM: Self = Self(0x02);
    /// Packets to be segmented.
    pub const GSO: Self = Self(0x04);
    /// Flow ids.
    pub const FLOW: Self = Self(0x08);
    /// Check words over headers: every frame has one.
    pub const CHECK: Self = Self(0x10);
    /// CRCs of groups: every group has one.
    pub const GROUP_CRC: Self = Self(0x20);

    /// Whether all of these are in it.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These, but for others.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// What two sides have in common: what each may send to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The version spoken.
    pub version: u8,
    /// Encapsulations that both know.
    pub encapsulations: u8,
    /// The greater of both wishes.
    pub align_log2: u8,
    /// Bytes of a frame.
    pub max_bytes: usize,
    /// Packets of a frame.
    pub max_packets: u16,
    /// What may be used in frames.
    pub features: Features,
    /// Nanoseconds between KEEPALIVEs.
    pub keepalive: u64,
}

impl Offer {
    /// What both can take. `None` if they have no version or no encapsulation in common, or if no packet would fit.
    #[must_use]
    pub fn grant(&self, other: &Self) -> Option<Grant> {
        let version = self.versions.1.min(other.versions.1);
        if version < self.versions.0.max(other.versions.0) {
            return None;
        }
        let encapsulations = self.encapsulations & other.encapsulations;
        let max_bytes = usize::try_from(self.max_bytes.min(other.max_bytes)).unwrap_or(usize::MAX).min(wire::MAX_FRAME);
        let max_packets = self.max_packets.min(other.max_packets);
        let least = wire::HEADER_CHECKED
            .saturating_add(wire::GROUP_HEADER)
            .saturating_add(wire::GROUP_CRC)
            .saturating_add(wire::SUBFRAME_HEADER)
            .saturating_add(wire::TEMPLATE);
        if encapsulations == 0 || max_bytes < least || max_packets == 0 {
            return None;
        }
        let keepalive = u64::from(self.keepalive_ms.min(other.keepalive_ms).max(SHORTEST_KEEPALIVE_MS));
        Some(Grant {
            version,
            encapsulations,
            align_log2: self.align_log2.max(other.align_log2),
            max_bytes,
            max_packets,
            features: Features(self.features.0 & other.features.0),
            keepalive: keepalive.saturating_mul(1_000_000),
        })
    }

    /// The offer as it is in a frame.
    pub(super) fn parse(bytes: &[u8; 16]) -> Option<Self> {
        let [min, max, encapsulations, align_log2, b0, b1, b2, b3, p0, p1, f0, f1, k0, k1, _, _] = *bytes;
        let offer = Self {
            versions: (min, max),
            encapsulations,
            align_log2,
            max_bytes: u32::from_be_bytes([b0, b1, b2, b3]),
            max_packets: u16::from_be_bytes([p0, p1]),
            features: Features(u16::from_be_bytes([f0, f1])),
            keepalive_ms: u16::from_be_bytes([k0, k1]),
        };
        (min <= max).then_some(offer)
    }

    pub(super) fn to_bytes(self) -> [u8; 16] {
        let [b0, b1, b2, b3] = self.max_bytes.to_be_bytes();
        let [p0, p1] = self.max_packets.to_be_bytes();
        let [f0, f1] = self.features.0.to_be_bytes();
        let [k0, k1] = self.keepalive_ms.to_be_bytes();
        let (min, max) = self.versions;
        [min, max, self.encapsulations, self.align_log2, b0, b1, b2, b3, p0, p1, f0, f1, k0, k1, 0, 0]
    }
}

impl Grant {
    /// What frames to the peer may be like, written at this stage.
    #[must_use]
    pub const fn format(&self, stage: u8) -> Format {
        Format {
            max_bytes: self.max_bytes,
            max_packets: self.max_packets as u32,
            stage,
            check: self.features.has(Features::CHECK),
            group_crc: self.features.has(Features::GROUP_CRC),
            template: self.features.has(Features::TEMPLATE),
        }
    }

    /// What is taken from the peer: what it may send, and no TLVs. Check words are compared if they were agreed on, so they should not be
    /// offered on memory links.
    #[must_use]
    pub const fn limits(&self) -> Limits {
        let check_required = self.features.has(Features::CHECK);
        Limits {
            frame: self.max_bytes,
            packets: self.max_packets as u32,
            verify: check_required || self.features.has(Features::GROUP_CRC),
            check_required,
            ..Limits::NONE
        }
    }
}

/// A peer cannot make us send KEEPALIVEs more often than this.
const SHORTEST_KEEPALIVE_MS: u16 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    const A: Offer = Offer {
        versions: (1, 3),
        encapsulations: 1,
        align_log2: 2,
        max_bytes: 9000,
        max_packets: 100,
        features: Features(0x3f),
        keepalive_ms: 1000,
    };

    #[test]
    fn decision_27_a_grant_is_the_least_of_both() {
        let b = Offer {
            versions: (0, 2),
            encapsulations: 3,
            align_log2: 6,
            max_bytes: u32::MAX,
            max_packets: 200,
            features: Features(0x11),
            keepalive_ms: 3,
        };
        let wanted = Grant {
            version: 2,
            encapsulations: 1,
            align_log2: 6,
            max_bytes: 9000,
            max_packets: 100,
            features: Features::TEMPLATE.with(Features::CHECK),
            keepalive: 10_000_000,
        };
        assert_eq!(A.grant(&b), Some(wanted));
        assert_eq!(b.grant(&A), Some(wanted), "both sides find the same");
        assert_eq!(b.grant(&b).map(|grant| grant.max_bytes), Some(65_535));
    }

    #[test]
    fn decision_27_frames_are_written_and_taken_as_granted() {
        for features in [Features::default(), Features::CHECK, Features::GROUP_CRC, Features::TEMPLATE] {
            let grant = Offer { features, ..A }.grant(&A).unwrap();
            let format = grant.format(2);
            assert_eq!((format.max_bytes, format.max_packets, format.stage), (9000, 100, 2));
            let found = (format.check, format.group_crc, format.template);
            let has = |other| features == other;
            assert_eq!(found, (has(Features::CHECK), has(Features::GROUP_CRC), has(Features::TEMPLATE)));
            let limits = grant.limits();
            assert_eq!((limits.frame, limits.packets), (9000, 100));
            assert_eq!(limits.check_required, format.check);
            assert_eq!(limits.verify, format.check || format.group_crc);
        }
    }

    #[test]
    fn nothing_in_common_is_no_grant() {
        assert_eq!(A.grant(&Offer { versions: (4, 5), ..A }), None);
        assert_eq!(A.grant(&Offer { encapsulations: 2, ..A }), None);
        assert_eq!(A.grant(&Offer { max_packets: 0, ..A }), None);
        assert_eq!(A.grant(&Offer { max_bytes: 51, ..A }), None);
        assert!(A.grant(&Offer { max_bytes: 52, ..A }).is_some());
    }
}
