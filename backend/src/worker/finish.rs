// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a sender left undone, done in software: checksums completed, oversized frames cut.
//!
//! Frames that were left unfinished come from uplinks. A guest negotiates no offloads, so what goes to it must be complete;
//! an uplink takes a checksum that is not, but no frame longer than its link does.

use packet::checksum::{begin, store};
use packet::{Burst, Checksum, DropCause, Offload, SegmentError, Segmenter};
use virtqueue::NetHeader;

use super::payload::Payload;

/// VIRTIO_NET_HDR_F_NEEDS_CSUM and VIRTIO_NET_HDR_F_DATA_VALID (virtio 1.3, 5.1.6).
const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;
/// VIRTIO_NET_HDR_GSO_*.
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// Longest frame that is cut.
const LONGEST: usize = 68 << 10;
/// Bytes of payload summed at a time.
const CHUNK: usize = 1024;

/// Reads a virtio-net header, whose offsets are moved by `shift` bytes, of a frame of `frame_len` bytes.
pub(super) fn offload_of(header: NetHeader, shift: u16, frame_len: u32) -> Result<Offload, DropCause> {
    let checksum = if header.flags & NEEDS_CSUM != 0 {
        let start = header.csum_start.checked_add(shift).ok_or(DropCause::BadOffload)?;
        Checksum::Unfinished { start, offset: header.csum_offset }
    } else if header.flags & DATA_VALID != 0 {
        Checksum::Verified
    } else {
        Checksum::Unknown
    };
    let kind = match header.gso_type & !GSO_ECN {
        GSO_NONE => None,
        GSO_TCPV4 => Some(packet::GsoKind::TcpV4),
        GSO_TCPV6 => Some(packet::GsoKind::TcpV6),
        GSO_UDP_L4 => Some(packet::GsoKind::Udp),
        _ => return Err(DropCause::Unsegmentable),
    };
    let segmentation = kind.map(|kind| packet::Segmentation {
        kind,
        ecn: header.gso_type & GSO_ECN != 0,
        size: header.gso_size,
        header_len: header.hdr_len.saturating_add(shift),
    });
    let offload = Offload { checksum, segmentation };
    offload.check(frame_len).map_err(|_| DropCause::BadOffload)?;
    Ok(offload)
}

/// The virtio-net header that says the same as `offload`.
pub(crate) fn header_of(offload: Offload) -> NetHeader {
    let mut header = NetHeader::default();
    match offload.checksum {
        Checksum::Unfinished { start, offset } => {
            (header.flags, header.csum_start, header.csum_offset) = (NEEDS_CSUM, start, offset);
        }
        Checksum::Verified => header.flags = DATA_VALID,
        Checksum::Unknown => {}
    }
    if let Some(packet::Segmentation { kind, ecn, size, header_len }) = offload.segmentation {
        let kind = match kind {
            packet::GsoKind::TcpV4 => GSO_TCPV4,
            packet::GsoKind::TcpV6 => GSO_TCPV6,
            packet::GsoKind::Udp => GSO_UDP_L4,
        };
        header.gso_type = kind | if ecn { GSO_ECN } else { 0 };
        (header.gso_size, header.hdr_len) = (size, header_len);
    }
    header
}

/// The packets that a frame of `len` bytes may become: the sender says into how small pieces it is to be cut.
#[inline]
pub(super) fn pieces(offload: Offload, len: usize) -> usize {
    offload.segmentation.map_or(1, |cut| len.div_ceil(usize::from(cut.size).max(1)))
}

/// What a burst counts for: packets, with those that oversized ones may become. `offloads`: there may be such.
#[inline]
pub(super) fn work_of(burst: &Burst, offloads: bool) -> usize {
    if !offloads {
        return burst.len();
    }
    (0..burst.len()).map(|i| pieces(burst.offload(i), burst.frame_len(i) as usize)).sum()
}

/// Completes the checksum of packet `i`, which is not to be cut.
pub(super) fn complete_checksum(burst: &mut Burst, payload: Payload<'_>, i: usize) -> Result<(), DropCause> {
    let state = burst.offload(i).checksum;
    let begun = begin(burst.window(i), state).map_err(|_| DropCause::BadOffload)?;
    let Some(mut sum) = begun else { return Ok(()) };
    let (handle, len) = (burst.handle(i), burst.payload_len(i));
    let (mut chunk, mut at) = ([0; CHUNK], 0);
    while at < len {
        let wanted = CHUNK.min((len - at) as usize);
        let room = chunk.get_mut(..wanted).unwrap_or_default();
        let read = payload.read(handle, at, room);
        if read < wanted {
            return Err(DropCause::Malformed);
        }
        sum.add(room);
        // At most CHUNK.
        at += u32::try_from(read).unwrap_or(u32::MAX);
    }
    store(burst.window_mut(i), state, sum).map_err(|_| DropCause::BadOffload)?;
    burst.set_offload(i, Offload { checksum: Checksum::Verified, segmentation: None });
    Ok(())
}

/// Room in which frames are put together and cut.
#[derive(Debug, Default)]
pub(super) struct Cutter {
    frame: Vec<u8>,
    segment: Vec<u8>,
}

impl Cutter {
    pub(super) fn new() -> Self {
        Self { frame: vec![0; LONGEST], segment: vec![0; LONGEST] }
    }

    /// Cuts packet `i` and hands each segment, which is complete, to `take`. Returns how many there were.
    pub(super) fn cut(
        &mut self,
        burst: &Burst,
        payload: Payload<'_>,
        i: usize,
        mut take: impl FnMut(&[u8]),
    ) -> Result<usize, DropCause> {
        let len = burst.frame_len(i) as usize;
        let Self { frame, segment } = self;
        let frame = frame.get_mut(..len).ok_or(DropCause::TooBig)?;
        if !gather(burst, payload, i, frame) {
            return Err(DropCause::Malformed);
        }
        let offload = burst.offload(i);
        let mut segmenter = Segmenter::new(frame, &offload).map_err(|error| error.drop_cause())?;
        let mut count = 0;
        while let Some(len) = segmenter.next_into(segment).map_err(|error: SegmentError| error.drop_cause())? {
            take(segment.get(..len).unwrap_or_default());
            count += 1;
        }
        Ok(count)
    }
}

/// Puts packet `i` together in `frame`, which has its length. `false`: its payload is shorter than was said.
pub(super) fn gather(burst: &Burst, payload: Payload<'_>, i: usize, frame: &mut [u8]) -> bool {
    let window = burst.window(i);
    let Some((head, tail)) = frame.split_at_mut_checked(window.len()) else { return false };
    head.copy_from_slice(window);
    tail.is_empty() || payload.read(burst.handle(i), 0, tail) == tail.len()
}

#[cfg(test)]
mod tests {
    use packet::checksum::checksum;
    use packet::{GsoKind, PortId, Segmentation, WINDOW};

    use super::*;

    #[test]
    fn headers_are_read_with_their_offsets_moved() {
        let header =
            NetHeader { flags: 1, gso_type: 0x84, hdr_len: 74, gso_size: 1440, csum_start: 54, csum_offset: 16 };
        let segmentation = Segmentation { kind: GsoKind::TcpV6, ecn: true, size: 1440, header_len: 78 };
        let expected =
            Offload { checksum: Checksum::Unfinished { start: 58, offset: 16 }, segmentation: Some(segmentation) };
        assert_eq!(offload_of(header, 4, 9000), Ok(expected));
        assert_eq!(offload_of(header, 4, 75), Err(DropCause::BadOffload));
        assert_eq!(offload_of(NetHeader { flags: 0, ..header }, 0, 9000), Err(DropCause::BadOffload));
        assert_eq!(offload_of(NetHeader { gso_type: 3, ..header }, 0, 9000), Err(DropCause::Unsegmentable));
        assert_eq!(offload_of(NetHeader { csum_start: u16::MAX, ..header }, 4, 70_000), Err(DropCause::BadOffload));
        assert_eq!(offload_of(NetHeader::default(), 4, 60), Ok(Offload::NONE));
        let verified = Offload { checksum: Checksum::Verified, segmentation: None };
        assert_eq!(offload_of(NetHeader { flags: 2, ..NetHeader::default() }, 0, 60), Ok(verified));
    }

    #[test]
    fn what_is_handed_on_is_read_back() {
        let unfinished = Checksum::Unfinished { start: 34, offset: 16 };
        let cut = |kind, ecn| Some(Segmentation { kind, ecn, size: 1400, header_len: 54 });
        for segmentation in [None, cut(GsoKind::TcpV4, true), cut(GsoKind::TcpV6, false), cut(GsoKind::Udp, false)] {
            let offload = Offload { checksum: unfinished, segmentation };
            assert_eq!(offload_of(header_of(offload), 0, 1000), Ok(offload));
        }
        for checksum in [Checksum::Unknown, Checksum::Verified] {
            let offload = Offload { checksum, segmentation: None };
            assert_eq!(offload_of(header_of(offload), 0, 1000), Ok(offload));
        }
        assert_eq!(header_of(Offload::NONE), NetHeader::default());
    }

    #[test]
    fn a_checksum_over_window_and_payload_is_completed() {
        for len in [60, WINDOW, WINDOW + 1, 1514, 9014] {
            let frame: Vec<u8> = (0..len).map(|n| n.to_le_bytes()[0] ^ 0x5a).collect();
            let state = Checksum::Unfinished { start: 34, offset: 6 };
            let mut burst = Burst::new();
            let offload = Offload { checksum: state, segmentation: None };
            let window = burst.push(PortId(0), u32::try_from(len).expect("short"), offload, 0).expect("room");
            let (head, tail) = frame.split_at(window.len());
            window.copy_from_slice(head);
            complete_checksum(&mut burst, Payload::Slices(&[tail]), 0).expect("completed");
            let finished = [burst.window(0), tail].concat();
            // The field held a part of the sum, so the sum over all is now that of a correct packet and that part.
            let mut expected = frame.clone();
            let sum = checksum(&frame[34..]);
            expected[40..42].copy_from_slice(&sum.to_be_bytes());
            assert_eq!(finished, expected, "{len}");
            assert!(burst.offload(0).is_finished());
        }
    }
}
