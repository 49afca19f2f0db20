// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Packets between workers: a bounded single-producer single-consumer byte ring per ordered pair of workers.
//!
//! # Theory of operation
//!
//! A record is a fixed header and, for a packet, its bytes, copied once out of the source guest so that the guest's
//! descriptor completes in its own burst (decision 2). Records are contiguous: one that would wrap is preceded by a
//! padding record up to the ring's end. Order within a ring is first in, first out, so packets of one transmit queue stay
//! in order. A full ring refuses the record; the caller counts `handover_full`. The consumer sleeps like any idle worker;
//! a producer that finds its `asleep` flag set writes its eventfd, once per loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use packet::{DropCause, MacAddr, PortId};
use rtrb::{Consumer, Producer, RingBuffer};
use switch::Announcement;
use virtqueue::NetHeader;
use vmm_sys_util::eventfd::EventFd;

/// Bytes of one ring: some 1,400 full-size Ethernet frames, or 32 of the largest.
pub(crate) const RING_BYTES: usize = 2 << 20;
/// Bytes before a record's packet.
const HEADER: usize = 32;
/// Records begin at multiples of this.
const ALIGN: usize = 8;
/// The largest packet that a record carries: what a guest can send at most, with room.
pub(crate) const MAX_PACKET: usize = 68 << 10;

const KIND_PADDING: u8 = 0;
const KIND_PACKET: u8 = 1;
const KIND_LEARNED: u8 = 2;

/// What one worker tells another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Record<'a> {
    /// Take this packet on from `stage`.
    Packet { stage: Stage, ports: Ports, pair: u16, header: NetHeader, bytes: &'a [u8] },
    /// A replica of the bridge learned something.
    Learned(Announcement),
}

/// What is to be done next with a packet that is handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Delivery.
    Deliver,
    /// The policy of the port that it is for.
    Inbound,
    /// The policy of the port that it came from.
    Outbound,
}

/// Where a packet came from and where it is to go; what is not known is [`PortId::NONE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ports {
    pub(crate) ingress: PortId,
    pub(crate) egress: PortId,
}

/// Wakes a worker that may sleep.
#[derive(Debug)]
pub(crate) struct Waker {
    asleep: AtomicBool,
    event: EventFd,
}

impl Waker {
    pub(crate) fn new(event: EventFd) -> Self {
        Self { asleep: AtomicBool::new(false), event }
    }

    /// To be set before the last look for work; the caller then executes a full fence.
    pub(crate) fn set_asleep(&self, asleep: bool) {
        self.asleep.store(asleep, Ordering::Relaxed);
    }

    /// Wakes the worker if it sleeps; the caller has executed a full fence since it left the work.
    pub(crate) fn wake(&self) {
        if self.asleep.load(Ordering::Relaxed) {
            self.wake_always();
        }
    }

    /// Wakes the worker whatever it does.
    pub(crate) fn wake_always(&self) {
        // A failure means that the counter is at its limit, so that the worker will wake anyhow.
        let _ = self.event.write(1);
    }

    pub(crate) fn event(&self) -> &EventFd {
        &self.event
    }
}

/// A pair of ends.
pub(crate) fn ring(consumer: Arc<Waker>) -> (Sender, Receiver) {
    ring_of(RING_BYTES, consumer)
}

fn ring_of(bytes: usize, consumer: Arc<Waker>) -> (Sender, Receiver) {
    let (producer, consumer_end) = RingBuffer::new(bytes);
    (Sender { ring: producer, consumer, dirty: false }, Receiver { ring: consumer_end })
}

/// The producing end.
#[derive(Debug)]
pub(crate) struct Sender {
    ring: Producer<u8>,
    consumer: Arc<Waker>,
    dirty: bool,
}

impl Sender {
    /// Appends a packet of `len` bytes that `fill` writes.
    ///
    /// # Errors
    /// Why the packet must be dropped: there is no room, or it is longer than a frame may be.
    pub(crate) fn packet(
        &mut self,
        stage: Stage,
        ports: Ports,
        pair: u16,
        header: NetHeader,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> usize,
    ) -> Result<(), DropCause> {
        if len > MAX_PACKET {
            return Err(DropCause::TooBig);
        }
        let appended = self.append(KIND_PACKET, len, |record| {
            let Some((head, body)) = record.split_at_mut_checked(HEADER) else { return false };
            put(head, 22, &[stage as u8]);
            put(head, 8, &ports.egress.0.to_le_bytes());
            put(head, 24, &ports.ingress.0.to_le_bytes());
            put(head, 10, &pair.to_le_bytes());
            put(head, 12, &[header.flags, header.gso_type]);
            put(head, 14, &header.hdr_len.to_le_bytes());
            put(head, 16, &header.gso_size.to_le_bytes());
            put(head, 18, &header.csum_start.to_le_bytes());
            put(head, 20, &header.csum_offset.to_le_bytes());
            body.get_mut(..len).is_some_and(|body| fill(body) == len)
        });
        if appended { Ok(()) } else { Err(DropCause::HandoverFull) }
    }

    /// Appends what a bridge learned. `false`: no room (the bridge says it again when it refreshes the entry).
    pub(crate) fn learned(&mut self, news: Announcement) -> bool {
        self.append(KIND_LEARNED, 0, |record| {
            put(record, 8, &news.port.0.to_le_bytes());
            put(record, 10, &news.mac.0);
            put(record, 16, &news.seen_ns.to_le_bytes());
            true
        })
    }

    /// How many announcements surely fit.
    pub(crate) fn room_for_news(&self) -> usize {
        // One of them may need padding of less than its own size.
        (self.ring.slots() / HEADER).saturating_sub(1)
    }

    /// Wakes the consumer if anything was appended since the last call; a full fence has been executed.
    pub(crate) fn notify(&mut self) {
        if std::mem::take(&mut self.dirty) {
            self.consumer.wake();
        }
    }

    fn append(&mut self, kind: u8, body: usize, fill: impl FnOnce(&mut [u8]) -> bool) -> bool {
        let size = (HEADER + body).next_multiple_of(ALIGN);
        let Some(padding) = self.padding_before(size) else { return false };
        let Ok(mut chunk) = self.ring.write_chunk(padding + size) else { return false };
        let (first, second) = chunk.as_mut_slices();
        let record = if padding == 0 {
            first
        } else {
            write_prefix(first, KIND_PADDING, padding, 0);
            second
        };
        write_prefix(record, kind, size, body);
        if !fill(record) {
            return false;
        }
        chunk.commit_all();
        self.dirty = true;
        true
    }

    /// Bytes to pad so that `size` bytes are contiguous; `None` if there is no room.
    fn padding_before(&mut self, size: usize) -> Option<usize> {
        let contiguous = self.ring.write_chunk(size).ok()?.as_mut_slices().0.len();
        if contiguous == size {
            return Some(0);
        }
        (self.ring.slots() >= contiguous + size).then_some(contiguous)
    }
}

/// The consuming end.
#[derive(Debug)]
pub(crate) struct Receiver {
    ring: Consumer<u8>,
}

impl Receiver {
    pub(crate) fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// Takes the next record and hands it to `take`; `false` if there was none.
    pub(crate) fn next(&mut self, take: impl FnOnce(Record<'_>)) -> bool {
        loop {
            let available = self.ring.slots();
            let Ok(chunk) = self.ring.read_chunk(available) else { return false };
            let (first, _) = chunk.as_slices();
            let Some((kind, size, body)) = read_prefix(first) else { return false };
            if kind == KIND_PADDING {
                chunk.commit(size);
                continue;
            }
            if let Some(record) = first.get(..size).and_then(|record| parse(kind, record, body)) {
                take(record);
            }
            chunk.commit(size);
            return true;
        }
    }
}

/// Record prefix: a word with the kind in its top byte and the record's size in bytes below, then the body's length.
fn write_prefix(record: &mut [u8], kind: u8, size: usize, body: usize) {
    let size = u32::try_from(size).unwrap_or(0) | u32::from(kind) << 24;
    put(record, 0, &size.to_le_bytes());
    put(record, 4, &u32::try_from(body).unwrap_or(0).to_le_bytes());
}

fn read_prefix(record: &[u8]) -> Option<(u8, usize, usize)> {
    let word = u32::from_le_bytes(field(record, 0)?);
    let body = u32::from_le_bytes(field(record, 4)?);
    Some(((word >> 24) as u8, (word & 0xff_ffff) as usize, body as usize))
}

fn parse(kind: u8, record: &[u8], body: usize) -> Option<Record<'_>> {
    let half = |at| Some(u16::from_le_bytes(field(record, at)?));
    match kind {
        KIND_PACKET => {
            let [flags, gso_type] = field(record, 12)?;
            let header = NetHeader {
                flags,
                gso_type,
                hdr_len: half(14)?,
                gso_size: half(16)?,
                csum_start: half(18)?,
                csum_offset: half(20)?,
            };
            let bytes = record.get(HEADER..HEADER + body)?;
            let [stage] = field(record, 22)?;
            let stage = [Stage::Deliver, Stage::Inbound, Stage::Outbound].into_iter().find(|s| *s as u8 == stage)?;
            let ports = Ports { ingress: PortId(half(24)?), egress: PortId(half(8)?) };
            Some(Record::Packet { stage, ports, pair: half(10)?, header, bytes })
        }
        KIND_LEARNED => {
            let (port, mac) = (PortId(half(8)?), MacAddr(field(record, 10)?));
            Some(Record::Learned(Announcement { mac, port, seen_ns: u64::from_le_bytes(field(record, 16)?) }))
        }
        _ => None,
    }
}

fn put(record: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(slot) = record.get_mut(at..at + bytes.len()) {
        slot.copy_from_slice(bytes);
    }
}

fn field<const N: usize>(record: &[u8], at: usize) -> Option<[u8; N]> {
    record.get(at..at + N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pair() -> (Sender, Receiver) {
        pair_of(RING_BYTES)
    }

    fn pair_of(bytes: usize) -> (Sender, Receiver) {
        let event = EventFd::new(vmm_sys_util::eventfd::EFD_NONBLOCK).expect("eventfd");
        ring_of(bytes, Arc::new(Waker::new(event)))
    }

    fn send(sender: &mut Sender, bytes: &[u8]) -> Result<(), DropCause> {
        let header = NetHeader { gso_size: 7, ..NetHeader::default() };
        sender.packet(Stage::Inbound, Ports { ingress: PortId(2), egress: PortId(3) }, 1, header, bytes.len(), |room| {
            room.copy_from_slice(bytes);
            bytes.len()
        })
    }

    fn receive(receiver: &mut Receiver) -> Option<Vec<u8>> {
        let mut out = None;
        receiver.next(|record| match record {
            Record::Packet { stage, ports, pair, header, bytes } => {
                assert_eq!((stage, pair, header.gso_size), (Stage::Inbound, 1, 7));
                assert_eq!(ports, Ports { ingress: PortId(2), egress: PortId(3) });
                out = Some(bytes.to_vec());
            }
            other @ Record::Learned(_) => panic!("{other:?}"),
        });
        out
    }

    #[test]
    fn a_full_ring_refuses_and_loses_nothing() {
        let (mut sender, mut receiver) = pair();
        let mut sent = 0u32;
        while send(&mut sender, &[sent.to_le_bytes()[0]; 1500]) == Ok(()) {
            sent += 1;
        }
        assert!(sent > 1_000);
        for n in 0..sent {
            assert_eq!(receive(&mut receiver), Some(vec![n.to_le_bytes()[0]; 1500]));
        }
        assert_eq!(receive(&mut receiver), None);
        assert_eq!(send(&mut sender, b"room again"), Ok(()));
    }

    #[test]
    fn what_was_learned_arrives() {
        let (mut sender, mut receiver) = pair();
        let news = Announcement { mac: MacAddr([2, 2, 3, 4, 5, 6]), port: PortId(9), seen_ns: 1 << 40 };
        assert!(sender.learned(news));
        let mut seen = false;
        assert!(receiver.next(|record| {
            assert_eq!(record, Record::Learned(news));
            seen = true;
        }));
        assert!(seen);
    }

    #[test]
    fn an_oversize_packet_is_refused() {
        assert_eq!(send(&mut pair().0, &vec![0; MAX_PACKET + 1]), Err(DropCause::TooBig));
    }

    proptest! {
        #[test]
        fn records_come_out_as_they_went_in(sizes in prop::collection::vec(0usize..1_500, 1..200), burst in 1usize..40) {
            let (mut sender, mut receiver) = pair_of(16 << 10);
            let mut expected = std::collections::VecDeque::new();
            for (n, &size) in sizes.iter().enumerate() {
                let bytes = vec![n.to_le_bytes()[0]; size];
                if send(&mut sender, &bytes).is_ok() {
                    expected.push_back(bytes);
                }
                if n % burst == 0 {
                    while let Some(bytes) = expected.pop_front() {
                        prop_assert_eq!(receive(&mut receiver), Some(bytes));
                    }
                }
            }
            while let Some(bytes) = expected.pop_front() {
                prop_assert_eq!(receive(&mut receiver), Some(bytes));
            }
            prop_assert_eq!(receive(&mut receiver), None);
        }
    }
}
