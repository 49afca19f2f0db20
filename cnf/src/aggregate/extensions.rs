// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What travels with a packet, in the words of a frame and in ours.

use ::packet::{Checksum, GsoKind, Offload, Segmentation};
use aggregation::negotiation::Features;
use aggregation::{Checksum as FrameChecksum, Gso, GsoKind as FrameKind, Meta as Extensions};

use crate::packet::Meta;

/// As the CNF sees it.
pub(crate) fn from_frame(extensions: &Extensions) -> Meta {
    let checksum = match extensions.checksum {
        FrameChecksum::Unknown => Checksum::Unknown,
        FrameChecksum::Verified => Checksum::Verified,
        FrameChecksum::Unfinished { start, offset } => Checksum::Unfinished { start, offset },
    };
    let segmentation = extensions.gso.map(|Gso { kind, ecn, size, header_len }| {
        let kind = match kind {
            FrameKind::TcpV4 => GsoKind::TcpV4,
            FrameKind::TcpV6 => GsoKind::TcpV6,
            FrameKind::Udp => GsoKind::Udp,
        };
        Segmentation { kind, ecn, size, header_len }
    });
    Meta { flow: extensions.flow, offload: Offload { checksum, segmentation } }
}

/// As it is said to a receiver that takes `features`. `None`: it cannot take the packet unfinished.
#[inline]
pub(crate) fn to_frame(meta: &Meta, features: Features) -> Option<Extensions> {
    if *meta == Meta::default() {
        return Some(Extensions::NONE);
    }
    let Offload { checksum, segmentation } = meta.offload;
    let unfinished = matches!(checksum, Checksum::Unfinished { .. });
    if unfinished && !features.has(Features::CHECKSUM) || segmentation.is_some() && !features.has(Features::GSO) {
        return None;
    }
    let checksum = match checksum {
        Checksum::Unknown => FrameChecksum::Unknown,
        Checksum::Verified => FrameChecksum::Verified,
        Checksum::Unfinished { start, offset } => FrameChecksum::Unfinished { start, offset },
    };
    let gso = segmentation.map(|Segmentation { kind, ecn, size, header_len }| {
        let kind = match kind {
            GsoKind::TcpV4 => FrameKind::TcpV4,
            GsoKind::TcpV6 => FrameKind::TcpV6,
            GsoKind::Udp => FrameKind::Udp,
        };
        Gso { kind, ecn, size, header_len }
    });
    Some(Extensions { checksum, gso, flow: meta.flow.filter(|_| features.has(Features::FLOW)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Features = Features(u16::MAX);

    #[test]
    fn what_came_is_said_again() {
        for kind in [FrameKind::TcpV4, FrameKind::TcpV6, FrameKind::Udp] {
            for (checksum, gso) in [
                (FrameChecksum::Unknown, None),
                (FrameChecksum::Verified, None),
                (FrameChecksum::Unfinished { start: 34, offset: 16 }, None),
                (
                    FrameChecksum::Unfinished { start: 54, offset: 6 },
                    Some(Gso { kind, ecn: true, size: 1400, header_len: 62 }),
                ),
            ] {
                for flow in [None, Some(0), Some(0xdead_beef)] {
                    let extensions = Extensions { checksum, gso, flow };
                    assert_eq!(to_frame(&from_frame(&extensions), ALL), Some(extensions));
                }
            }
        }
    }

    #[test]
    fn nothing_is_said_that_is_not_understood() {
        let unfinished = Checksum::Unfinished { start: 34, offset: 16 };
        let segmentation = Segmentation { kind: GsoKind::TcpV4, ecn: false, size: 1000, header_len: 54 };
        let meta = |segmentation| Meta { flow: Some(3), offload: Offload { checksum: unfinished, segmentation } };
        assert_eq!(to_frame(&meta(None), Features::FLOW), None);
        assert_eq!(to_frame(&meta(Some(segmentation)), Features::CHECKSUM), None);
        let said = to_frame(&meta(None), Features::CHECKSUM).unwrap();
        assert_eq!(said.flow, None);
        let named = Meta { flow: Some(3), ..Meta::default() };
        assert_eq!(to_frame(&named, Features::default()), Some(Extensions::NONE));
    }
}
