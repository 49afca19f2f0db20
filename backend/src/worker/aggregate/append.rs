// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Packets of a burst, one behind the other into the frame that is put together for a guest or a peer.

use aggregation::{GroupKey, Meta, Writer};
use packet::Burst;

use super::guard::is_aggregate;
use super::hold::Hold;
use crate::worker::payload::Payload;

/// Why it has come to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stopped {
    Done,
    /// The next one finds no room.
    NoRoom,
    /// The receiver would take the next one for one of the node's frames.
    Refused,
    /// The next one is not like those before.
    Other,
}

/// Appends finished packets, one bit each, and takes them out of `packets` as long as all goes well and `is_alike` says of the next one's first
/// bytes and length that it is like those before. The key's class is each packet's own. Returns the bytes of those that were appended.
#[inline(always)]
pub(super) fn append(
    (writer, hold): (&mut Writer, &mut Hold),
    mut key: GroupKey,
    (burst, payload): (&Burst, Payload<'_>),
    packets: &mut u64,
    is_alike: impl Fn(usize, &[u8], usize) -> bool,
) -> (Stopped, u64) {
    let mut bytes = 0;
    while *packets != 0 {
        let i = packets.trailing_zeros() as usize;
        let (head, rest) = burst.pieces(i);
        let rest = rest as usize;
        if !is_alike(i, head, head.len() + rest) {
            return (Stopped::Other, bytes);
        }
        let Some(class) = class_of(head) else { return (Stopped::Refused, bytes) };
        key.class = class;
        let tail = |room: &mut [u8]| payload.fill(burst.handle(i), room);
        if !writer.push(key, head, rest, tail, &Meta::NONE) {
            return (Stopped::NoRoom, bytes);
        }
        hold.note(head, class);
        bytes += (head.len() + rest) as u64;
        *packets &= *packets - 1;
    }
    (Stopped::Done, bytes)
}

/// The class of a packet: the top three bits of its DSCP (decision 24). `None`: it says that it is an aggregate, which only the node's own
/// are to a guest.
#[inline]
pub(in crate::worker) fn class_of(head: &[u8]) -> Option<u8> {
    match head {
        [_, _, _, _, _, _, _, _, _, _, _, _, 8, 0, _, tos, ..] => Some(tos >> 5),
        [_, _, _, _, _, _, _, _, _, _, _, _, 0x86, 0xdd, first, _, ..] => Some(first >> 1 & 7),
        _ => other_class(head),
    }
}

#[cold]
fn other_class(head: &[u8]) -> Option<u8> {
    (!is_aggregate(head)).then_some(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_class_is_the_top_of_the_code_point() {
        let frame = |kind: u16, first: u16| [&[2; 12][..], &kind.to_be_bytes(), &first.to_be_bytes()].concat();
        for class in 0..8_u8 {
            assert_eq!(class_of(&frame(0x0800, 0x451f | u16::from(class) << 5)), Some(class));
            assert_eq!(class_of(&frame(0x86dd, 0x6000 | u16::from(class) << 9 | 0x1ff)), Some(class));
        }
        assert_eq!(class_of(&frame(0x0806, 0xffff)), Some(0));
        assert_eq!(class_of(&[0; 15]), Some(0));
        // Decision 26.
        assert_eq!(class_of(&frame(0x88b5, 0x0100)), None);
    }
}
