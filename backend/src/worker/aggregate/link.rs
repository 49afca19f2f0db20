// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A guest that speaks aggregates: what was agreed with it, and what is put together for it.
//!
//! # Theory of operation
//!
//! A link belongs to one queue pair, and stands at its receive queue. It comes to be with the first frame that negotiates and
//! goes when nothing is agreed any more, or with the queue: then all is as if nobody had ever spoken.
//!
//! Packets are copied behind each other into the link's own buffer, first in, first out, in groups of one class each. The
//! frame goes to the guest when it is full, when a packet comes that is to go plain, and, unless the port allows packets to be held
//! (`hold.rs`), at the latest when the worker's turn ends: what is there together goes together, and nothing waits for what is
//! not. A frame of one packet goes as that packet. What is open when the queue goes, or the guest stops taking aggregates, is
//! sent before (decision 28).

use aggregation::negotiation::{self, Announce, Config, Down, Event, Features, Grant, MAX_CONTROL, Offer};
use aggregation::{Cause, Format, GroupKey, Limits, Meta, Sequence, TlvSet, Trigger, Writer, wire};
use packet::{Burst, DropCause, EthernetHeader, Run, WINDOW};
use virtqueue::{Delivered, NetHeader, Tail};

use super::super::payload::Payload;
use super::super::slots::RxSlot;
use super::super::watch;
use super::append::{Stopped, append, class_of};
use super::guard::ETHER_TYPE;
use super::hold::{Hold, format_of};
use crate::config::{Aggregation, NodeConfig};
use crate::counters::{PeerEvent, PortCounters};
use crate::inspect::Tap;

/// Addresses on a link that has two ends: the node's and the guest's.
const NODE: [u8; 6] = [0x02, 0x53, 0x48, 0x55, 0x4e, 0x54];
const GUEST: [u8; 6] = [0x02, 0x53, 0x48, 0x55, 0x4e, 0x43];

/// What a node takes from a guest at once. It bounds how long one frame keeps a worker.
const MAX_BYTES: u16 = 16_384;
const MAX_PACKETS: u16 = 1024;
/// Bytes of TLVs of a group: all are looked at before any is taken out.
const MAX_TLV_BYTES: usize = 1024;
const KEEPALIVE_MS: u16 = 1000;

/// What a packet takes up in an aggregate, besides its own bytes, if it is alone there.
const ALONE: usize = wire::HEADER + wire::GROUP_HEADER + wire::SUBFRAME_HEADER;

/// Buffers that a guest must have posted for packets to be held for it.
const ENOUGH_BUFFERS: usize = 16;

/// A guest that speaks aggregates.
#[derive(Debug)]
pub(crate) struct Link {
    talk: negotiation::Link<()>,
    /// As what others know the node.
    node: NodeConfig,
    /// What the port's settings are.
    port: Aggregation,
    /// What is taken from the guest; `None`: nothing was agreed yet.
    pub(in crate::worker) takes: Option<Limits>,
    /// Numbers of the guest's frames.
    heard: Sequence,
    out: Option<Box<Bundle>>,
}

/// What is put together for a guest that takes it.
#[derive(Debug)]
struct Bundle {
    format: Format,
    writer: Writer,
    origin: u16,
    sequence: u16,
    hold: Hold,
    /// Bytes of the packets in the open frame.
    bytes: u64,
}

impl Link {
    /// Of a guest that nothing is agreed with yet.
    pub(in crate::worker) fn new(node: NodeConfig, port: Aggregation, session: u32, now_ns: u64) -> Self {
        let offer = Offer {
            versions: (1, 1),
            encapsulations: 1,
            align_log2: 2,
            max_bytes: MAX_BYTES.into(),
            max_packets: MAX_PACKETS,
            features: Features::TEMPLATE,
            keepalive_ms: KEEPALIVE_MS,
        };
        let announce = Announce::Never;
        let config = Config { node: node.id.get(), session, offer, name: Vec::new(), announce, max_peers: 1 };
        let talk = negotiation::Link::new(config, now_ns);
        Self { talk, node, port, takes: None, heard: Sequence::new(), out: None }
    }

    /// Whether nothing is agreed, and nothing is left to say.
    pub(in crate::worker) fn is_idle(&self) -> bool {
        self.talk.timeout().is_none()
    }

    /// Whether the guest takes aggregates.
    #[inline]
    pub(in crate::worker) fn sends(&self) -> bool {
        self.out.is_some()
    }

    /// A valid aggregate came from the guest.
    pub(in crate::worker) fn heard(&mut self, sequence: u16, counters: Option<&PortCounters>, now_ns: u64) {
        self.talk.heard((), now_ns);
        let lost = self.heard.take(sequence);
        if let Some(counters) = counters.filter(|_| lost > 0) {
            counters.rx_lost.add(lost);
        }
    }
}

impl Bundle {
    fn new(grant: &Grant, node: NodeConfig, port: &Aggregation) -> Self {
        let format = format_of(grant, node.stage(), port);
        let mut writer = Writer::new(format.max_bytes, EthernetHeader::LEN);
        writer.begin(&format);
        let hold = Hold::new(&format, port);
        Self { format, writer, origin: node.id.get(), sequence: 0, hold, bytes: 0 }
    }

    #[inline]
    fn is_open(&self) -> bool {
        !self.writer.is_empty()
    }

    /// Appends packets of a burst, one bit each, and takes them out of `packets` as long as all goes well.
    #[inline]
    fn push_all(&mut self, burst: &Burst, payload: Payload<'_>, packets: &mut u64) -> Stopped {
        let key = GroupKey { origin: self.origin, destination: 0, class: 0 };
        let (stopped, bytes) =
            append((&mut self.writer, &mut self.hold), key, (burst, payload), packets, |_, _, _| true);
        self.bytes += bytes;
        stopped
    }

    /// Why there is no room for a packet.
    fn refusal(&self, len: usize) -> Trigger {
        if ALONE + wire::padded(len) > self.format.max_bytes {
            Trigger::Larger
        } else if self.writer.packets() >= self.format.max_packets {
            Trigger::Frames
        } else {
            Trigger::Bytes
        }
    }

    /// Ends the open frame: its bytes as the guest is to get them, how many packets are in it, and their bytes.
    fn finish(&mut self) -> (&[u8], u32, u64) {
        let (packets, bytes) = (self.writer.packets(), std::mem::take(&mut self.bytes));
        if packets == 1 && self.writer.single().is_some() {
            return (self.writer.single().unwrap_or_default(), 1, bytes);
        }
        self.sequence = self.sequence.wrapping_add(1);
        let frame = self.writer.finish_with_room(self.sequence);
        if let Some(header) = frame.first_chunk_mut() {
            *header = ethernet();
        }
        (frame, packets, bytes)
    }
}

/// The header of frames to a guest.
fn ethernet() -> [u8; EthernetHeader::LEN] {
    let ([g0, g1, g2, g3, g4, g5], [n0, n1, n2, n3, n4, n5]) = (GUEST, NODE);
    let [high, low] = ETHER_TYPE.0.to_be_bytes();
    [g0, g1, g2, g3, g4, g5, n0, n1, n2, n3, n4, n5, high, low]
}

/// Takes a control frame of a guest, and answers.
///
/// # Errors
/// Why it was not understood.
pub(in crate::worker) fn negotiate(slot: &mut RxSlot, bytes: &[u8], now_ns: u64) -> Result<(), Cause> {
    let Some(link) = &mut slot.link else { return Ok(()) };
    let mut events = Vec::new();
    let understood = link.talk.handle((), bytes, now_ns, |event| events.push(event));
    if let Some(counters) = slot.common.counters().filter(|_| understood.is_ok()) {
        counters.rx_control.add(1);
    }
    events.into_iter().for_each(|event| follow(slot, event));
    speak(slot, now_ns);
    understood.map(drop)
}

/// Lets time pass at a guest's link; one at which nothing is agreed goes.
pub(in crate::worker) fn tick(slot: &mut RxSlot, now_ns: u64) {
    let Some(link) = &mut slot.link else { return };
    let mut events = Vec::new();
    link.talk.tick(now_ns, |event| events.push(event));
    events.into_iter().for_each(|event| follow(slot, event));
    speak(slot, now_ns);
    if slot.link.as_ref().is_some_and(|link| link.is_idle()) {
        slot.link = None;
    }
}

fn follow(slot: &mut RxSlot, event: Event<()>) {
    let id = slot.common.id;
    // What was put together under an agreement is sent under it.
    flush(slot, Trigger::Order);
    if let (Some(event), Some(counters)) = (counted(&event), slot.common.counters()) {
        counters.peer(event);
    }
    let Some(link) = &mut slot.link else { return };
    // A guest can make these happen as often as it likes: they are counted for the operator, and told in detail only to who asks.
    match event {
        Event::Accept { node, .. } => {
            log::debug!("{id:?}: aggregates are taken from CNF {node}");
            link.takes = Some(Limits {
                frame: MAX_BYTES.into(),
                groups: u8::MAX,
                packets: MAX_PACKETS.into(),
                tlv_bytes: MAX_TLV_BYTES,
                tlvs: TlvSet::NONE,
                foreign_tlvs: false,
                verify: false,
                check_required: false,
            });
            link.heard.restart();
        }
        Event::Up { node, grant, .. } => {
            log::debug!("{id:?}: CNF {node} takes aggregates of {} bytes", grant.max_bytes);
            link.out = Some(Box::new(Bundle::new(&grant, link.node, &link.port)));
        }
        Event::Down { node, why, .. } => {
            log::debug!("{id:?}: no more aggregates with CNF {node}: {why:?}");
            (link.takes, link.out) = (None, None);
        }
        Event::Refused { node, reason, .. } => log::debug!("{id:?}: CNF {node} is refused: {reason:?}"),
        Event::RefusedBy { node, reason, .. } => log::debug!("{id:?}: CNF {node} refuses: {reason:?}"),
    }
}

/// As what an event is counted.
pub(super) fn counted<A>(event: &Event<A>) -> Option<PeerEvent> {
    Some(match event {
        Event::Accept { .. } => return None,
        Event::Up { .. } => PeerEvent::Up,
        Event::Down { why: Down::Bye(_), .. } => PeerEvent::Bye,
        Event::Down { why: Down::Silent, .. } => PeerEvent::Silent,
        Event::Down { why: Down::Restarted, .. } => PeerEvent::Restarted,
        Event::Down { why: Down::Closed, .. } => PeerEvent::Closed,
        Event::Refused { .. } => PeerEvent::Refused,
        Event::RefusedBy { .. } => PeerEvent::RefusedBy,
    })
}

/// Sends the control frames that are due.
fn speak(slot: &mut RxSlot, now_ns: u64) {
    let mut frame = [0; EthernetHeader::LEN + MAX_CONTROL];
    let (header, body) = frame.split_at_mut(EthernetHeader::LEN);
    header.copy_from_slice(&ethernet());
    while let Some(((), len)) = slot.link.as_mut().and_then(|link| link.talk.poll_transmit(now_ns, body)) {
        let body = body.get(..len).unwrap_or_default();
        if deliver(slot, header, Tail::Bytes(body), 0, 0)
            && let Some(counters) = slot.common.counters()
        {
            counters.tx_control.add(1);
        }
    }
}

/// Puts packets of a burst together for a guest, one bit each in `packets`. Returns those that are left: the first of them has to
/// go plain, behind all that went before.
#[inline]
pub(in crate::worker) fn put_together(slot: &mut RxSlot, burst: &Burst, payload: Payload<'_>, mut packets: u64) -> u64 {
    let mut others = !packets;
    while packets != 0 {
        let Some(bundle) = slot.link.as_mut().and_then(|link| link.out.as_mut()) else { break };
        let before = bundle.writer.len();
        let stopped = bundle.push_all(burst, payload, &mut packets);
        slot.queue.prefetch_room(EthernetHeader::LEN + before, EthernetHeader::LEN + bundle.writer.len());
        let (fits_none, trigger) = match stopped {
            Stopped::Done | Stopped::Other => break,
            Stopped::Refused => {
                let i = packets.trailing_zeros() as usize;
                slot.common.drop_alike(DropCause::Aggregate, 1, burst.window(i), burst.frame_len(i) as usize);
                packets &= packets - 1;
                others |= 1 << i;
                continue;
            }
            Stopped::NoRoom => {
                let len = burst.frame_len(packets.trailing_zeros() as usize);
                (!bundle.is_open(), bundle.refusal(len as usize))
            }
        };
        flush(slot, trigger);
        if fits_none || trigger == Trigger::Larger {
            break;
        }
    }
    hurry(slot);
    if let Some(tap) = &slot.common.tap {
        watch::see_all(tap, burst, payload, !(others | packets));
    }
    packets
}

/// Puts a run together for a guest: `bytes` are its sub-frames, `first` begins its first packet.
#[inline]
pub(in crate::worker) fn put_run(slot: &mut RxSlot, first: &[u8], bytes: &[u8], run: Run) {
    let Some(bundle) = slot.link.as_mut().and_then(|link| link.out.as_mut()) else { return };
    let key = GroupKey { origin: bundle.origin, destination: 0, class: class_of(first).unwrap_or(0) };
    let before = bundle.writer.len();
    if u16::try_from(run.packets).is_ok_and(|packets| bundle.writer.push_run(key, bytes, packets)) {
        bundle.bytes += run.bytes;
        bundle.hold.note(first, key.class);
        slot.queue.prefetch_room(EthernetHeader::LEN + before, EthernetHeader::LEN + bundle.writer.len());
        if let Some(tap) = &slot.common.tap {
            see_run(tap, bytes);
        }
        return hurry(slot);
    }
    // What fits goes into this frame, the rest into the next.
    let mut rest = bytes;
    while let Some((packet, behind)) = super::runs::first_of(rest) {
        put_bytes(slot, packet);
        rest = behind;
    }
}

/// The packets of a run went out.
#[cold]
fn see_run(tap: &Tap, bytes: &[u8]) {
    let mut rest = bytes;
    while let Some((packet, behind)) = super::runs::first_of(rest) {
        tap.see_bytes(packet);
        rest = behind;
    }
}

/// Puts a packet together for a guest, or sends it, if it does not fit.
pub(in crate::worker) fn put_bytes(slot: &mut RxSlot, packet: &[u8]) {
    let (head, rest) = packet.split_at(packet.len().min(WINDOW));
    let Some(class) = class_of(head) else {
        return slot.common.drop_alike(DropCause::Aggregate, 1, head, packet.len());
    };
    while let Some(bundle) = slot.link.as_mut().and_then(|link| link.out.as_mut()) {
        let key = GroupKey { origin: bundle.origin, destination: 0, class };
        if bundle.writer.push(key, head, rest.len(), |room| room.copy_from_slice(rest), &Meta::NONE) {
            bundle.bytes += packet.len() as u64;
            bundle.hold.note(head, key.class);
            if let Some(tap) = &slot.common.tap {
                tap.see_bytes(packet);
            }
            return hurry(slot);
        }
        let (fits_none, trigger) = (!bundle.is_open(), bundle.refusal(packet.len()));
        flush(slot, trigger);
        if fits_none || trigger == Trigger::Larger {
            break;
        }
    }
    let tail = if rest.is_empty() { Tail::None } else { Tail::Bytes(rest) };
    if deliver(slot, head, tail, 1, packet.len() as u64)
        && let Some(tap) = &slot.common.tap
    {
        tap.see_bytes(packet);
    }
}

/// Sends what may not wait for the end of the turn.
#[inline]
fn hurry(slot: &mut RxSlot) {
    if slot.link.as_ref().and_then(|link| link.out.as_ref()).is_some_and(|bundle| bundle.hold.is_urgent()) {
        flush(slot, Trigger::Urgent);
    }
}

/// The worker's turn ends: gives the guest what was put together, unless something justifies holding it. Returns until when it is
/// held, in nanoseconds.
#[inline]
pub(in crate::worker) fn end_turn(slot: &mut RxSlot) -> Option<u64> {
    let bundle = slot.link.as_mut()?.out.as_mut().filter(|bundle| bundle.is_open())?;
    if let Some(trigger) = bundle.hold.turn(bundle.writer.packets(), bundle.writer.len()) {
        flush(slot, trigger);
        return None;
    }
    let until = bundle.hold.deadline();
    // A ring that breaks is found when it is used.
    if slot.queue.prefetch(ENOUGH_BUFFERS).is_ok_and(|held| held < ENOUGH_BUFFERS) {
        flush(slot, Trigger::Pressure);
        return None;
    }
    until
}

/// Gives the guest what was put together.
#[inline]
pub(in crate::worker) fn flush(slot: &mut RxSlot, trigger: Trigger) {
    if slot.link.as_ref().and_then(|link| link.out.as_ref()).is_some_and(|bundle| bundle.is_open()) {
        send(slot, trigger);
    }
}

/// The queue goes: what was put together goes before, and nothing is agreed any more.
pub(in crate::worker) fn close(slot: &mut RxSlot) {
    flush(slot, Trigger::Order);
    if slot.link.take().is_some_and(|link| link.takes.is_some())
        && let Some(counters) = slot.common.counters()
    {
        counters.peer(PeerEvent::Closed);
    }
}

fn send(slot: &mut RxSlot, trigger: Trigger) {
    let Some(mut bundle) = slot.link.as_mut().and_then(|link| link.out.take()) else { return };
    let (frame, packets, bytes) = bundle.finish();
    let (head, rest) = frame.split_at(frame.len().min(WINDOW));
    let tail = if rest.is_empty() { Tail::None } else { Tail::Bytes(rest) };
    let together = packets > 1 || head.get(12..14) == Some(&ETHER_TYPE.0.to_be_bytes());
    let len = frame.len();
    let delivered = deliver(slot, head, tail, packets as usize, bytes);
    let counters = slot.common.counters().filter(|_| delivered);
    if let Some(counters) = counters.filter(|_| together) {
        counters.tx_aggregates.add(1);
        counters.tx_aggregated.add(packets.into());
    }
    bundle.hold.flushed(packets, len, trigger, counters);
    let format = bundle.format;
    bundle.writer.begin(&format);
    // The lines of the next buffer are asked for while it is filled. A ring that breaks is found when it is used.
    let _ = slot.queue.prefetch(1);
    if let Some(link) = &mut slot.link {
        link.out = Some(bundle);
    }
}

/// Gives the guest a frame with so many packets in it. `false`: it did not take it.
fn deliver(slot: &mut RxSlot, head: &[u8], tail: Tail<'_>, packets: usize, bytes: u64) -> bool {
    let length = head.len() + if let Tail::Bytes(rest) = tail { rest.len() } else { 0 };
    if !slot.common.usable() {
        let cause = if slot.common.enabled { DropCause::QueueBroken } else { DropCause::NotReady };
        slot.common.drop_alike(cause, packets, head, length);
        return false;
    }
    match slot.queue.deliver(&NetHeader::default(), head, tail) {
        Ok(Delivered::Ok) => {
            slot.queue.publish();
            slot.common.dirty = true;
            slot.count_transmitted(packets, bytes);
            return true;
        }
        Ok(Delivered::NoBuffers) => slot.common.drop_alike(DropCause::NoBuffers, packets, head, length),
        Ok(Delivered::TooBig) => slot.common.drop_alike(DropCause::TooBig, packets, head, length),
        Err(error) => {
            slot.common.fail(error);
            slot.common.drop_alike(DropCause::QueueBroken, packets, head, length);
        }
    }
    false
}
