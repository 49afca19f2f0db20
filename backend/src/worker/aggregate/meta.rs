// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a sender left undone, in the words of aggregates and in those of bursts.

use aggregation::{Checksum, Features, Gso, GsoKind, Meta};
use packet::Offload;

/// What travels with a packet to a peer that has agreed to these features.
pub(super) fn meta_of(offload: Offload, features: Features) -> Option<Meta> {
    let checksum = match offload.checksum {
        packet::Checksum::Unknown => Checksum::Unknown,
        packet::Checksum::Verified => Checksum::Verified,
        packet::Checksum::Unfinished { start, offset } if features.has(Features::CHECKSUM) => {
            Checksum::Unfinished { start, offset }
        }
        packet::Checksum::Unfinished { .. } => return None,
    };
    let gso = match offload.segmentation {
        None => None,
        Some(cut) if features.has(Features::GSO) => Some(Gso {
            kind: match cut.kind {
                packet::GsoKind::TcpV4 => GsoKind::TcpV4,
                packet::GsoKind::TcpV6 => GsoKind::TcpV6,
                packet::GsoKind::Udp => GsoKind::Udp,
            },
            ecn: cut.ecn,
            size: cut.size,
            header_len: cut.header_len,
        }),
        Some(_) => return None,
    };
    Some(Meta { checksum, gso, flow: None })
}

/// What travelled with a packet.
pub(crate) fn offload_of(meta: &Meta) -> Offload {
    Offload {
        checksum: match meta.checksum {
            Checksum::Unknown => packet::Checksum::Unknown,
            Checksum::Verified => packet::Checksum::Verified,
            Checksum::Unfinished { start, offset } => packet::Checksum::Unfinished { start, offset },
        },
        segmentation: meta.gso.map(|gso| packet::Segmentation {
            kind: match gso.kind {
                GsoKind::TcpV4 => packet::GsoKind::TcpV4,
                GsoKind::TcpV6 => packet::GsoKind::TcpV6,
                GsoKind::Udp => packet::GsoKind::Udp,
            },
            ecn: gso.ecn,
            size: gso.size,
            header_len: gso.header_len,
        }),
    }
}

#[cfg(test)]
mod tests {
    use packet::Segmentation;

    use super::*;

    #[test]
    fn what_was_granted_comes_back_as_it_was() {
        let all = Features::CHECKSUM.with(Features::GSO);
        let unfinished = packet::Checksum::Unfinished { start: 34, offset: 16 };
        let kinds = [packet::GsoKind::TcpV4, packet::GsoKind::TcpV6, packet::GsoKind::Udp];
        let cuts = kinds.map(|kind| Some(Segmentation { kind, ecn: true, size: 1400, header_len: 54 }));
        let oversized = cuts.map(|segmentation| Offload { checksum: unfinished, segmentation });
        let plain = [packet::Checksum::Unknown, packet::Checksum::Verified, unfinished];
        let plain = plain.map(|checksum| Offload { checksum, segmentation: None });
        for offload in oversized.into_iter().chain(plain) {
            assert_eq!(meta_of(offload, all).map(|meta| offload_of(&meta)), Some(offload));
            let without_gso = meta_of(offload, Features::CHECKSUM).is_none();
            assert_eq!(without_gso, offload.segmentation.is_some());
            assert_eq!(meta_of(offload, Features::GSO).is_none(), offload.checksum == unfinished);
        }
    }
}
