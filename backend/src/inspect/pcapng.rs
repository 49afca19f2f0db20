// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Blocks of the pcapng format (draft-ietf-opsawg-pcapng), little-endian, as far as a capture needs them.

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
const PACKET: u32 = 6;
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
/// Ethernet.
const LINK_TYPE: u16 = 1;

const OPT_END: u16 = 0;
const SHB_USER_APPLICATION: u16 = 4;
const IF_NAME: u16 = 2;
const IF_RESOLUTION: u16 = 9;
const IF_FILTER: u16 = 11;
const EPB_FLAGS: u16 = 2;
const EPB_DROP_COUNT: u16 = 4;
const ISB_END_TIME: u16 = 3;
const ISB_RECEIVED: u16 = 4;
const ISB_DROPPED: u16 = 5;
const ISB_ACCEPTED: u16 = 6;

/// Times are in units of 10 to the power of minus this, in seconds.
const NANOSECONDS: u8 = 9;

/// A captured packet, but for its bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct PacketHead {
    pub(super) interface: u32,
    /// Nanoseconds since 1970.
    pub(super) at_ns: u64,
    /// Bytes of the whole frame.
    pub(super) length: u32,
    /// Whether the node received it.
    pub(super) inward: bool,
    /// Packets of the interface that were lost since the one before.
    pub(super) lost: u32,
}

/// What was counted of an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Statistics {
    pub(super) received: u64,
    pub(super) accepted: u64,
    pub(super) dropped: u64,
}

/// The head of a file.
pub(super) fn section(out: &mut Vec<u8>) {
    block(out, SECTION, |out| {
        out.extend(BYTE_ORDER.to_le_bytes());
        out.extend(1_u16.to_le_bytes());
        out.extend(0_u16.to_le_bytes());
        // The section's length is not known.
        out.extend(u64::MAX.to_le_bytes());
        option(out, SHB_USER_APPLICATION, concat!("shunt ", env!("CARGO_PKG_VERSION")).as_bytes());
        option(out, OPT_END, &[]);
    });
}

/// An interface; they are numbered as they come.
pub(super) fn interface(out: &mut Vec<u8>, name: &str, filter: &str, snaplen: u32) {
    block(out, INTERFACE, |out| {
        out.extend(LINK_TYPE.to_le_bytes());
        out.extend([0; 2]);
        out.extend(snaplen.to_le_bytes());
        option(out, IF_NAME, name.as_bytes());
        option(out, IF_RESOLUTION, &[NANOSECONDS]);
        if !filter.is_empty() {
            // 0: the filter as it was written.
            option(out, IF_FILTER, &[&[0], filter.as_bytes()].concat());
        }
        option(out, OPT_END, &[]);
    });
}

/// A packet, of which these bytes were kept.
pub(super) fn packet(out: &mut Vec<u8>, head: PacketHead, pieces: [&[u8]; 2]) {
    block(out, PACKET, |out| {
        out.extend(head.interface.to_le_bytes());
        time(out, head.at_ns);
        let kept = pieces.iter().map(|piece| piece.len()).sum::<usize>();
        out.extend(u32::try_from(kept).unwrap_or(u32::MAX).to_le_bytes());
        out.extend(head.length.to_le_bytes());
        pieces.iter().for_each(|piece| out.extend_from_slice(piece));
        pad(out, kept);
        let direction: u32 = if head.inward { 1 } else { 2 };
        option(out, EPB_FLAGS, &direction.to_le_bytes());
        if head.lost > 0 {
            option(out, EPB_DROP_COUNT, &u64::from(head.lost).to_le_bytes());
        }
        option(out, OPT_END, &[]);
    });
}

/// What was counted of an interface so far.
pub(super) fn statistics(out: &mut Vec<u8>, interface: u32, at_ns: u64, counts: Statistics) {
    block(out, STATISTICS, |out| {
        out.extend(interface.to_le_bytes());
        time(out, at_ns);
        let mut end = Vec::with_capacity(8);
        time(&mut end, at_ns);
        option(out, ISB_END_TIME, &end);
        option(out, ISB_RECEIVED, &counts.received.to_le_bytes());
        option(out, ISB_DROPPED, &counts.dropped.to_le_bytes());
        option(out, ISB_ACCEPTED, &counts.accepted.to_le_bytes());
        option(out, OPT_END, &[]);
    });
}

/// What a queue pair of a port is called.
pub(super) fn name_of(port: &str, pair: u16) -> String {
    format!("{port}:{pair}")
}

/// A block begins with its type and length, and ends with its length again.
fn block(out: &mut Vec<u8>, kind: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let begin = out.len();
    out.extend(kind.to_le_bytes());
    out.extend([0; 4]);
    body(out);
    let length = u32::try_from(out.len() - begin + 4).unwrap_or(u32::MAX).to_le_bytes();
    if let Some(place) = out.get_mut(begin + 4..begin + 8) {
        place.copy_from_slice(&length);
    }
    out.extend(length);
}

fn option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = value.get(..usize::from(u16::MAX)).unwrap_or(value);
    out.extend(code.to_le_bytes());
    out.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_le_bytes());
    out.extend_from_slice(value);
    pad(out, value.len());
}

fn pad(out: &mut Vec<u8>, length: usize) {
    out.resize(out.len() + length.next_multiple_of(4) - length, 0);
}

/// A time: the upper half first, whatever the byte order.
fn time(out: &mut Vec<u8>, at_ns: u64) {
    let [.., h3, h2, h1, h0] = (at_ns >> 32).to_be_bytes();
    let [.., l3, l2, l1, l0] = at_ns.to_be_bytes();
    out.extend([h0, h1, h2, h3, l0, l1, l2, l3]);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Splits a file into its blocks: types and bodies.
    fn blocks(mut file: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let mut blocks = Vec::new();
        while !file.is_empty() {
            let number = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
            let length = number(4) as usize;
            assert_eq!(length % 4, 0);
            assert_eq!(number(length - 4) as usize, length, "a block says its length twice");
            blocks.push((number(0), file[8..length - 4].to_vec()));
            file = &file[length..];
        }
        blocks
    }

    #[test]
    fn blocks_are_as_the_draft_has_them() {
        let mut file = Vec::new();
        section(&mut file);
        interface(&mut file, "vm0:1", "arp", 256);
        let head = PacketHead { interface: 0, at_ns: 0x0102_0304_0506_0708, length: 1500, inward: true, lost: 0 };
        packet(&mut file, head, [&[1, 2], &[3, 4, 5]]);
        packet(&mut file, PacketHead { inward: false, lost: 7, ..head }, [&[], &[]]);
        statistics(&mut file, 0, 1, Statistics { received: 9, accepted: 8, dropped: 7 });
        let blocks = blocks(&file);
        let kinds: Vec<u32> = blocks.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [SECTION, INTERFACE, PACKET, PACKET, STATISTICS]);
        assert_eq!(blocks[0].1[..8], [0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0]);
        let named = [&[1, 0, 0, 0, 0, 1, 0, 0][..], &[2, 0, 5, 0], b"vm0:1\0\0\0", &[9, 0, 1, 0, 9, 0, 0, 0]].concat();
        assert_eq!(blocks[1].1, [&named[..], &[11, 0, 4, 0], b"\0arp", &[0; 4]].concat());
        let whole = [
            &[0, 0, 0, 0, 4, 3, 2, 1, 8, 7, 6, 5, 5, 0, 0, 0, 0xdc, 5, 0, 0][..],
            &[1, 2, 3, 4, 5, 0, 0, 0, 2, 0, 4, 0, 1, 0, 0, 0, 0, 0, 0, 0],
        ];
        assert_eq!(blocks[2].1, whole.concat());
        let lossy = [2, 0, 4, 0, 2, 0, 0, 0, 4, 0, 8, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(blocks[3].1[20..], lossy);
        assert_eq!(blocks[4].1[12..28], [3, 0, 8, 0, 0, 0, 0, 0, 1, 0, 0, 0, 4, 0, 8, 0]);
    }
}
