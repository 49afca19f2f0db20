// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! All that can be wrong with a frame.

use std::fmt;

/// Declares the causes once, so that the enum, the labels and the list cannot drift apart.
macro_rules! causes {
    ($($(#[doc = $doc:literal])+ $variant:ident => $label:literal,)+) => {
        /// Why a frame, a group or a packet was not taken. The list is exhaustive: it is also the set of metric labels.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Cause {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Cause {
            /// Every cause, in the order of [`Cause::index`].
            pub const ALL: [Self; [$($label),+].len()] = [$(Self::$variant),+];

            /// The cause as a metric label, in `snake_case`.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$variant => $label,)+
                }
            }
        }
    };
}

causes! {
    /// Extensions of a sub-frame are shorter than its flags say. Costs the packet.
    BadExtension => "bad_extension",
    /// Offload metadata that contradicts its packet. Costs the packet.
    BadOffload => "bad_offload",
    /// A control frame whose message or TLVs make no sense. Costs the frame.
    ControlMalformed => "control_malformed",
    /// The frame is longer than what it lies in, than what was granted, or shorter than its header. Costs the frame.
    FrameLength => "frame_length",
    /// A flag of the common header that a reader must know. Costs the frame.
    FrameFlag => "frame_flag",
    /// The check word over all headers is wrong. Costs the frame.
    HeaderCheck => "header_check",
    /// A group's CRC is wrong. Costs the group.
    GroupCrc => "group_crc",
    /// A flag of a group header that a reader must know. Costs the group.
    GroupFlag => "group_flag",
    /// A group's header, TLVs and template are together longer than the group. Costs the group.
    GroupHeader => "group_header",
    /// A group's length is no multiple of four, less than its header or reaches beyond the frame. Costs the rest of the frame.
    GroupLength => "group_length",
    /// A packet shorter than an Ethernet header. Costs the packet.
    Runt => "runt",
    /// A sub-frame reaches beyond its group, or its group holds fewer than it says. Costs the rest of the group.
    SubframeLength => "subframe_length",
    /// Bytes behind the last packet of a group, or behind the last group, that are more than padding. Costs nothing.
    Surplus => "surplus",
    /// A TLV that a reader must know, and that is not known or not allowed here. Costs the group.
    TlvCritical => "tlv_critical",
    /// TLVs that do not fill their area, or one that is not what its type says. Costs the group.
    TlvMalformed => "tlv_malformed",
    /// A TLV that is not known or not allowed here was taken out. Costs the TLV.
    TlvRemoved => "tlv_removed",
    /// More bytes of TLVs in a group than are taken. Costs the group.
    TlvTooLong => "tlv_too_long",
    /// More groups in a frame than are taken. Costs the groups beyond.
    TooManyGroups => "too_many_groups",
    /// More packets in a frame than are taken. Costs the groups in which they are.
    TooManyPackets => "too_many_packets",
    /// What the frame lies in ended early. Costs the rest of the frame.
    Unreadable => "unreadable",
    /// A version that is not spoken here. Costs the frame.
    Version => "version",
}

impl Cause {
    /// Number of causes: the size of a table with a counter for each.
    pub const COUNT: usize = Self::ALL.len();

    /// Position in [`Cause::ALL`], below [`Cause::COUNT`].
    #[inline]
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

impl std::error::Error for Cause {}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn causes_are_numbered_as_listed() {
        for (i, cause) in Cause::ALL.into_iter().enumerate() {
            assert_eq!(cause.index(), i);
        }
    }

    #[test]
    fn labels_are_unique_snake_case() {
        let labels: HashSet<_> = Cause::ALL.iter().map(|c| c.label()).collect();
        assert_eq!(labels.len(), Cause::COUNT);
        for label in labels {
            assert!(label.bytes().all(|b| b == b'_' || b.is_ascii_lowercase()), "{label}");
        }
    }
}
