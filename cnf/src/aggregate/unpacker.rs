// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Frames that arrived: plain ones, aggregates, and what belongs to the negotiation.
//!
//! Theory of operation. An aggregate is read where it lies, each byte once: headers and the first bytes of packets by way of
//! the reader's private memory, the rest of long packets straight into the burst.

use aggregation::encapsulation::in_ethernet;
use aggregation::negotiation::MAX_CONTROL;
use aggregation::sequence::Sequence;
use aggregation::{Cause, Damage, Item, Limits, Packet as Inner, Reader};

use super::{Aggregation, extensions};
use crate::burst::Burst;
use crate::packet::Packet;
use crate::queue::QueueCounters;
use crate::received::Received;

/// Control frames of one burst that are kept for the link.
const MOST_CONTROL: usize = 8;

/// Takes frames apart.
#[derive(Debug)]
pub(crate) struct Unpacker {
    ether_type: u16,
    limits: Limits,
    reader: Reader,
    accept: bool,
    /// Only of links with one queue pair: aggregates are numbered by link.
    sequence: Option<Sequence>,
    /// For the link.
    pub(crate) control: Vec<Vec<u8>>,
    /// An aggregate came since this was looked at last.
    pub(crate) heard: bool,
}

impl Unpacker {
    pub(crate) fn new(config: &Aggregation, alone: bool) -> Self {
        let limits =
            Limits { frame: config.rx_max_bytes as usize, packets: u32::from(config.rx_max_packets), ..Limits::NONE };
        Self {
            ether_type: config.ether_type,
            limits,
            reader: Reader::default(),
            accept: false,
            sequence: alone.then(Sequence::new),
            control: Vec::with_capacity(MOST_CONTROL),
            heard: false,
        }
    }

    /// Whether aggregates are taken from now on.
    pub(crate) fn accept(&mut self, accept: bool) {
        if accept && !self.accept {
            self.sequence.iter_mut().for_each(Sequence::restart);
        }
        self.accept = accept;
    }

    /// Whether aggregates are taken.
    pub(crate) fn accepts(&self) -> bool {
        self.accept
    }

    /// Takes a frame if it is one of ours; false if it is a plain one.
    #[inline]
    pub(crate) fn take(&mut self, received: &Received<'_>, burst: &mut Burst, counters: &mut QueueCounters) -> bool {
        let mut head = [0; 18];
        let len = received.read(&mut head);
        match in_ethernet(head.get(..len).unwrap_or(&[]), self.ether_type) {
            None => false,
            Some(at) => {
                self.unpack(received, at, burst, counters);
                true
            }
        }
    }

    fn unpack(&mut self, received: &Received<'_>, at: usize, burst: &mut Burst, counters: &mut QueueCounters) {
        let header = match self.reader.begin(received, at, &self.limits) {
            Ok(header) => header,
            Err(cause) => return counters.damage(Damage { cause, packets: 0 }),
        };
        if header.control {
            if received.len() > at + MAX_CONTROL || self.control.len() == MOST_CONTROL {
                counters.control_dropped += 1;
                return;
            }
            let mut frame = vec![0; received.len()];
            received.read(&mut frame);
            self.control.push(frame);
            return;
        }
        if !self.accept {
            counters.unexpected += 1;
            return;
        }
        self.heard = true;
        counters.aggregates_received += 1;
        if let Some(sequence) = &mut self.sequence {
            sequence.take(header.sequence);
            counters.aggregates_lost = sequence.lost();
        }
        let before = burst.len();
        loop {
            self.reader.plain(usize::MAX, |packet| burst.push(Packet::new(packet)));
            match self.reader.next(received) {
                None => break,
                Some(Item::Packet(packet)) => copy(received, &packet, burst, counters),
                Some(Item::Damaged(damage)) => counters.damage(damage),
                // None is known, so none is handed out.
                Some(Item::Group(_) | Item::Tlv { .. }) => {}
            }
        }
        counters.packets_unpacked += (burst.len() - before) as u64;
    }
}

/// Copies a packet of which the reader has only the first bytes.
fn copy(received: &Received<'_>, packet: &Inner<'_>, burst: &mut Burst, counters: &mut QueueCounters) {
    let len = packet.len as usize;
    let at = burst.reserve(len);
    let place = burst.reserved(at, len);
    let (head, rest) = place.split_at_mut(packet.head.len().min(len));
    head.copy_from_slice(packet.head.get(..head.len()).unwrap_or(&[]));
    if received.read_at(packet.rest_at, rest) < rest.len() {
        return counters.damage(Damage { cause: Cause::Unreadable, packets: 1 });
    }
    burst.place(at, len, usize::MAX, extensions::from_frame(&packet.meta));
}

#[cfg(test)]
mod tests {
    use aggregation::{Checksum, Format, GroupKey, Meta as Extensions, Writer};
    use proptest::prelude::*;
    use virtqueue::{BufferPool, Completion, SharedMemory};

    use super::*;
    use crate::packet::Meta;

    const FRONT: usize = 12;

    /// Lays a frame into receive buffers and takes it.
    fn take(unpacker: &mut Unpacker, frame: &[u8], stride: u32) -> (bool, Vec<(Vec<u8>, Meta)>, QueueCounters) {
        let bytes = [&[0; FRONT], frame].concat();
        let memory = SharedMemory::create("unpacker", 1 << 18, false).unwrap();
        let count = u32::try_from(bytes.len()).unwrap().div_ceil(stride);
        let pool = BufferPool::new(memory.map(), memory.spec().guest_addr, stride, count).unwrap();
        let mut parts = Vec::new();
        for (token, piece) in (0..).zip(bytes.chunks(stride as usize)) {
            pool.write(token, 0, piece);
            parts.push(Completion { token, len: u32::try_from(piece.len()).unwrap() });
        }
        let (mut burst, mut counters) = (Burst::new(), QueueCounters::default());
        let taken = unpacker.take(&Received::new(&pool, &parts, 12), &mut burst, &mut counters);
        let packets = burst.iter().map(|packet| (packet.bytes.to_vec(), packet.meta)).collect();
        (taken, packets, counters)
    }

    /// The same, read from private memory by nothing but the reader.
    fn oracle(frame: &[u8], limits: &Limits) -> (Vec<(Vec<u8>, Meta)>, u64) {
        let (mut reader, mut packets, mut damages) = (Reader::default(), Vec::new(), 0);
        if reader.begin(frame, 14, limits).is_err() {
            return (packets, 1);
        }
        while let Some(item) = reader.next(frame) {
            match item {
                Item::Packet(packet) => {
                    let rest = packet.len as usize - packet.head.len();
                    let mut bytes = packet.head.to_vec();
                    if rest > 0 {
                        bytes.extend(&frame[packet.rest_at..packet.rest_at + rest]);
                    }
                    packets.push((bytes, extensions::from_frame(&packet.meta)));
                }
                Item::Damaged(_) => damages += 1,
                Item::Group(_) | Item::Tlv { .. } => {}
            }
        }
        (packets, damages)
    }

    fn frame(packets: &[(Vec<u8>, Option<u32>)], template: bool) -> Vec<u8> {
        let mut writer = Writer::new(60_000, 14);
        let format = Format { max_bytes: 60_000, max_packets: 500, stage: 2, check: false, group_crc: false, template };
        writer.begin(&format);
        for (number, (bytes, flow)) in (0u16..).zip(packets) {
            let key = GroupKey { origin: number / 9, ..GroupKey::default() };
            let meta = Extensions { checksum: Checksum::Unknown, gso: None, flow: *flow };
            assert!(writer.push(key, bytes, 0, |_| {}, &meta));
        }
        let frame = writer.finish_with_room(7);
        frame[..14].copy_from_slice(&[1, 0x80, 0xc2, 0, 0, 0xe, 2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
        frame.to_vec()
    }

    fn packets() -> impl Strategy<Value = Vec<(Vec<u8>, Option<u32>)>> {
        let bytes = prop::collection::vec(any::<u8>(), 14..700);
        prop::collection::vec((bytes, prop::option::of(any::<u32>())), 1..40)
    }

    proptest! {
        /// However the frame lies in buffers, its packets come out as they went in, and damage costs what the reader says.
        #[test]
        fn packets_come_out(
            packets in packets(),
            template in any::<bool>(),
            stride in prop_oneof![Just(64u32), Just(257), Just(1526), Just(65536)],
            damage in prop::collection::vec((14..2000usize, any::<u8>()), 0..3),
        ) {
            let mut frame = frame(&packets, template);
            for &(at, byte) in &damage {
                if let Some(place) = frame.get_mut(at) {
                    *place = byte;
                }
            }
            let config = Aggregation { rx_max_bytes: 60_000, ..Aggregation::default() };
            let mut unpacker = Unpacker::new(&config, true);
            unpacker.accept(true);
            let (taken, got, counters) = take(&mut unpacker, &frame, stride);
            prop_assert!(taken);
            if !unpacker.control.is_empty() || counters.control_dropped > 0 {
                prop_assert!(!damage.is_empty() && got.is_empty());
                return Ok(());
            }
            let (wanted, damages) = oracle(&frame, &unpacker.limits);
            prop_assert_eq!(counters.damages.iter().sum::<u64>(), damages);
            prop_assert_eq!(&got, &wanted);
            if damage.is_empty() {
                prop_assert_eq!(got.len(), packets.len());
                prop_assert_eq!((counters.aggregates_received, counters.packets_unpacked), (1, packets.len() as u64));
            }
        }
    }

    #[test]
    fn plain_frames_are_left_alone_and_strangers_are_not_believed() {
        let mut unpacker = Unpacker::new(&Aggregation::default(), true);
        for plain in [&[][..], &[0x88; 13], &[2; 60]] {
            let (taken, got, counters) = take(&mut unpacker, plain, 2048);
            assert_eq!((taken, got.len(), counters), (false, 0, QueueCounters::default()));
        }
        let frame = frame(&[(vec![5; 60], None), (vec![6; 60], None)], false);
        let (taken, got, counters) = take(&mut unpacker, &frame, 2048);
        assert_eq!((taken, got.len(), counters.unexpected, unpacker.heard), (true, 0, 1, false));
        unpacker.accept(true);
        assert_eq!(take(&mut unpacker, &frame, 2048).1.len(), 2);
        assert!(unpacker.heard);
    }

    #[test]
    fn the_negotiation_is_kept_within_bounds() {
        let mut unpacker = Unpacker::new(&Aggregation::default(), true);
        let control = |len: usize| {
            let mut frame = vec![0; 14 + len];
            frame[12..16].copy_from_slice(&[0x88, 0xb5, 0x12, 0x80]);
            frame[16..18].copy_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
            frame
        };
        let (_, _, counters) = take(&mut unpacker, &control(MAX_CONTROL + 1), 2048);
        assert_eq!((counters.control_dropped, unpacker.control.len()), (1, 0));
        for _ in 0..MOST_CONTROL + 3 {
            take(&mut unpacker, &control(40), 2048);
        }
        assert_eq!(unpacker.control, vec![control(40); MOST_CONTROL]);
    }
}
