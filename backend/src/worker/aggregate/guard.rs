// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Frames that only who has negotiated may send (decision 26).
//!
//! An aware guest takes a frame of this type for one of the node's. So nobody else's may reach it, in a VLAN or not.

use packet::{Burst, DropCause, EtherType, EthernetHeader, Verdict};

/// The type of aggregates, and of what negotiates about them (IEEE's first for local experiments).
pub(in crate::worker) const ETHER_TYPE: EtherType = EtherType(0x88b5);

/// Tags that are looked behind: more have no meaning to the parser either.
const MAX_TAGS: usize = 2;

/// Drops them. The packets of the burst are as they came. Returns whether there were any.
#[inline]
pub(in crate::worker) fn refuse(burst: &mut Burst) -> bool {
    burst.may_hold_type_88() && look_closely(burst)
}

#[cold]
#[inline(never)]
fn look_closely(burst: &mut Burst) -> bool {
    let mut any = false;
    for packet in burst.judge().filter(|packet| *packet.verdict == Verdict::Pending) {
        if is_aggregate(packet.window) {
            *packet.verdict = Verdict::Drop(DropCause::Aggregate);
            any = true;
        }
    }
    any
}

/// Whether a frame that begins so is an aggregate, or negotiates.
pub(in crate::worker) fn is_aggregate(window: &[u8]) -> bool {
    let Some(header) = EthernetHeader::parse(window) else { return false };
    let mut kind = header.ether_type();
    let mut rest = window.get(EthernetHeader::LEN..).unwrap_or_default();
    for _ in 0..MAX_TAGS {
        let Some(([_, _, high, low], behind)) = rest.split_first_chunk::<4>().filter(|_| kind.is_vlan()) else { break };
        (kind, rest) = (EtherType(u16::from_be_bytes([*high, *low])), behind);
    }
    kind == ETHER_TYPE
}

#[cfg(test)]
mod tests {
    use packet::{Offload, PortId};

    use super::*;

    fn verdict(frame: &[u8]) -> Verdict {
        let mut burst = Burst::new();
        let len = u32::try_from(frame.len()).unwrap();
        burst.push(PortId(1), len, Offload::NONE, 0).unwrap().copy_from_slice(frame);
        let any = refuse(&mut burst);
        assert_eq!(any, burst.verdict(0) != Verdict::Pending);
        burst.verdict(0)
    }

    #[test]
    fn aggregates_are_refused_behind_tags_too() {
        // Decision 26.
        let tagged = |tags: &[u16], kind: u16| {
            let words = tags.iter().flat_map(|tag| [*tag, 7]).chain([kind, 0x1234]);
            [2; 12].into_iter().chain(words.flat_map(u16::to_be_bytes)).collect::<Vec<u8>>()
        };
        for tags in [&[][..], &[0x8100], &[0x88a8], &[0x88a8, 0x8100]] {
            assert_eq!(verdict(&tagged(tags, 0x88b5)), Verdict::Drop(DropCause::Aggregate), "{tags:x?}");
            for other in [0x0800, 0x88b6, 0x86dd, 0x0806] {
                assert_eq!(verdict(&tagged(tags, other)), Verdict::Pending, "{tags:x?} {other:x}");
            }
        }
        // Nothing is read beyond its end.
        let whole = tagged(&[0x88a8, 0x8100], 0x88b5);
        for len in 0..22 {
            assert_eq!(verdict(&whole[..len]), Verdict::Pending, "{len}");
        }
    }
}
