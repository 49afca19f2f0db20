// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Frames in UDP datagrams: each datagram is an aggregate frame (`docs/aggregate-frame.md`, encapsulation 2).
//!
//! # Theory of operation
//!
//! What is sent has one packet each; what is received may have many, which are taken out and held like the frames of any
//! other link. Packets are put together in one piece, because all that comes after wants them so; a frame of which not all
//! packets find room is gone on with in the next turn. Frames have a check word and their groups a CRC: a UDP checksum has
//! 16 bits, and middle boxes rewrite it.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use aggregation::reader::LOOK_AHEAD;
use aggregation::{Format, GroupKey, Item, Limits, Meta, Reader, Writer, wire};
use packet::{EthernetHeader, MacAddr};
use virtqueue::NetHeader;

use crate::config::NodeConfig;
use crate::sys::{Batch, Datagrams, Flushed, LINK_HEADER, LONG_FRAME, MAX_HELD, Outbox, Received};
use crate::worker::{header_of, offload_of};

/// Bytes of the packets that are held: many short ones, or some of the longest.
const ROOM: usize = 8 * LONG_FRAME;
/// Held packets begin at multiples of this: a cache line.
const ALIGN: usize = 64;
/// How often a turn asks the kernel for datagrams: what is damaged costs time, too.
const RECEIVES: usize = 2;
/// Most datagrams that wait to be sent, and the bytes that they have.
const MAX_WAITING: usize = 256;
const OUT_ROOM: usize = 512 << 10;

/// What a frame with one packet has besides the packet, padding included.
const FRAME_OVERHEAD: usize = wire::HEADER_CHECKED + wire::GROUP_HEADER + wire::GROUP_CRC + wire::SUBFRAME_HEADER + 3;
/// The longest payload of a datagram: in IPv4, whose length counts its own header.
const LONGEST: usize = u16::MAX as usize - 20 - 8;

/// Longest IP packet that fits a datagram with this much payload.
pub(super) fn mtu_of(payload: usize) -> usize {
    payload.min(LONGEST).saturating_sub(FRAME_OVERHEAD + LINK_HEADER)
}

/// The longest datagram on a path that takes IP packets of `mtu` bytes.
pub(super) const fn payload_of(mtu: usize) -> usize {
    mtu + FRAME_OVERHEAD + LINK_HEADER
}

/// What frames that negotiate are shown behind: they have no Ethernet header on their way, and there is one peer.
const SHOWN: [u8; EthernetHeader::LEN] = [3, 0x53, 0x48, 0x55, 0x4e, 0x54, 2, 0x53, 0x48, 0x55, 0x4e, 0x50, 0x88, 0xb5];
/// From whom they seem to be.
pub(crate) const PEER: MacAddr = MacAddr([2, 0x53, 0x48, 0x55, 0x4e, 0x50]);

/// The receiving end. Packets are held until [`UdpRx::release`].
#[derive(Debug)]
pub(crate) struct UdpRx {
    socket: Arc<Datagrams>,
    batch: Box<Batch>,
    /// The datagram of the batch that is next or being read.
    next: usize,
    reader: Box<Reader>,
    is_reading: bool,
    /// There was nothing to receive when last looked. The socket tells of the next datagram.
    drained: bool,
    room: Box<[u8]>,
    used: usize,
    held: Vec<Held>,
    faults: BTreeMap<&'static str, u64>,
    /// Whether frames that negotiate are held, too.
    shows_control: bool,
}

/// Where a held packet lies.
#[derive(Clone, Copy, Debug)]
struct Held {
    at: usize,
    len: usize,
    header: NetHeader,
}

impl UdpRx {
    pub(super) fn new(socket: Arc<Datagrams>) -> Self {
        Self {
            socket,
            batch: Box::new(Batch::new()),
            next: 0,
            reader: Box::new(Reader::new(LOOK_AHEAD)),
            is_reading: false,
            drained: false,
            room: vec![0; ROOM].into_boxed_slice(),
            used: 0,
            held: Vec::with_capacity(MAX_HELD),
            faults: BTreeMap::new(),
            shows_control: false,
        }
    }

    /// From now on frames that negotiate are held like packets, behind an Ethernet header of the type of aggregates.
    pub(super) fn show_control(&mut self) {
        self.shows_control = true;
    }

    /// Whether a packet may wait that is not held yet. One that comes after `false` is told by the socket.
    pub(super) fn has_frames(&self) -> bool {
        !self.drained || self.next < self.batch.len()
    }

    /// Holds packets until there are [`MAX_HELD`] or room ends, as far as there are any. Returns how many are held.
    pub(super) fn harvest(&mut self) -> usize {
        for _ in 0..=RECEIVES {
            while self.next < self.batch.len() {
                if !self.take_out() {
                    return self.held.len();
                }
            }
            self.next = 0;
            self.drained = !self.socket.receive(&mut self.batch);
            if self.batch.len() == 0 {
                break;
            }
        }
        self.held.len()
    }

    /// Held packet `i`; an empty one if there is none.
    pub(super) fn frame(&self, i: usize) -> Received<'_> {
        let Some(&Held { at, len, header }) = self.held.get(i) else { return Received::finished(&[]) };
        Received { header, ..Received::finished(self.room.get(at..at + len).unwrap_or_default()) }
    }

    /// Lets go of all held packets.
    pub(super) fn release(&mut self) {
        self.held.clear();
        self.used = 0;
    }

    /// What was wrong with datagrams since this was last asked, by cause; `refused` counts what the peer's machine said of
    /// ours.
    pub(super) fn take_faults(&mut self) -> BTreeMap<&'static str, u64> {
        let mut faults = std::mem::take(&mut self.faults);
        let refused = self.socket.take_refused();
        if refused > 0 {
            faults.insert("refused", refused);
        }
        faults
    }

    /// Takes packets out of the next datagram. `false`: there is no room for another.
    fn take_out(&mut self) -> bool {
        let Self { batch, next, reader, is_reading, room, used, held, faults, shows_control, .. } = self;
        let datagram = batch.get(*next);
        let mut fault = |label| *faults.entry(label).or_default() += 1;
        if !*is_reading {
            let limits = Limits { verify: true, ..Limits::NONE };
            match reader.begin(datagram, 0, &limits) {
                Ok(header) if header.control && *shows_control => {
                    let whole = SHOWN.len() + datagram.len();
                    let free = if held.len() < MAX_HELD { room.get_mut(*used..*used + whole) } else { None };
                    let Some((front, body)) = free.and_then(|free| free.split_at_mut_checked(SHOWN.len())) else {
                        return false;
                    };
                    front.copy_from_slice(&SHOWN);
                    body.copy_from_slice(datagram);
                    held.push(Held { at: *used, len: whole, header: NetHeader::default() });
                    *used = (*used + whole).next_multiple_of(ALIGN);
                }
                Ok(header) if header.control => fault("control_frame"),
                Ok(_) => {}
                Err(cause) => fault(cause.label()),
            }
            *is_reading = true;
        }
        while held.len() < MAX_HELD {
            let Some(free) = room.get_mut(*used..*used + LONG_FRAME) else { return false };
            let packet = match reader.next(datagram) {
                Some(Item::Packet(packet)) => packet,
                Some(Item::Damaged(damage)) => {
                    fault(damage.cause.label());
                    continue;
                }
                // TLVs are none's here: the limits allow none.
                Some(Item::Group(_) | Item::Tlv { .. }) => continue,
                None => {
                    *is_reading = false;
                    *next += 1;
                    return true;
                }
            };
            if packet.head.get(12..14) == Some(&SHOWN[12..]) {
                // It would be taken for one of those that are shown.
                fault("aggregate");
                continue;
            }
            let len = packet.len as usize;
            let rest = datagram.get(packet.rest_at..).unwrap_or_default();
            let Some((head, tail)) = free.get_mut(..len).and_then(|to| to.split_at_mut_checked(packet.head.len()))
            else {
                fault("frame_length");
                continue;
            };
            head.copy_from_slice(packet.head);
            for (to, from) in tail.iter_mut().zip(rest) {
                *to = *from;
            }
            held.push(Held { at: *used, len, header: header_of(offload_of(&packet.meta)) });
            *used = (*used + len).next_multiple_of(ALIGN);
        }
        false
    }
}

impl AsRawFd for UdpRx {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// The sending end. Datagrams wait until [`UdpTx::flush`].
#[derive(Debug)]
pub(crate) struct UdpTx {
    socket: Arc<Datagrams>,
    writer: Box<Writer>,
    stage: u8,
    sequence: u16,
    outbox: Outbox,
}

impl UdpTx {
    pub(super) fn new(socket: Arc<Datagrams>) -> Self {
        let writer = Box::new(Writer::new(LONGEST, 0));
        let outbox = Outbox::new(MAX_WAITING, OUT_ROOM, LONGEST);
        Self { socket, writer, stage: NodeConfig::default().stage(), sequence: 0, outbox }
    }

    /// Says as what its frames are known.
    pub(super) fn set_stage(&mut self, stage: u8) {
        self.stage = stage;
    }

    pub(super) fn has_unsent(&self) -> bool {
        !self.outbox.is_empty()
    }

    pub(super) fn has_room(&self) -> bool {
        self.outbox.has_room()
    }

    /// Adds a datagram with a packet of `len` bytes, which `fill` writes entirely. `false`: there is no room for it.
    pub(super) fn push(&mut self, len: usize, fill: impl FnOnce(&mut [u8])) -> bool {
        let stage = self.stage;
        let format =
            Format { max_bytes: LONGEST, max_packets: 1, stage, check: true, group_crc: true, template: false };
        self.writer.begin(&format);
        if !self.writer.push(GroupKey::default(), &[], len, fill, &Meta::NONE) {
            return false;
        }
        let frame = self.writer.finish(self.sequence);
        let taken = self.outbox.push(frame.len(), |room| room.copy_from_slice(frame));
        self.sequence = self.sequence.wrapping_add(u16::from(taken));
        taken
    }

    /// Adds a datagram that is a whole frame. `false`: there is no room for it.
    pub(super) fn push_frame(&mut self, frame: &[u8]) -> bool {
        self.outbox.push(frame.len(), |room| room.copy_from_slice(frame))
    }

    /// Hands what waits to the kernel.
    pub(super) fn flush(&mut self) -> Flushed {
        let mut lost = 0;
        // The kernel tells of each datagram that was refused on its way, before it takes the next one: once for each that
        // was ever sent, at most.
        let mut told = 0;
        while !self.outbox.is_empty() {
            match self.socket.send(self.outbox.waiting()) {
                Ok(sent) => self.outbox.forget(sent),
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock => return if lost == 0 { Flushed::Later } else { Flushed::Lost(lost) },
                    io::ErrorKind::ConnectionRefused if told < MAX_WAITING => told += 1,
                    // No way there, or it is longer than the way takes.
                    _ => {
                        self.outbox.forget(1);
                        lost += 1;
                    }
                },
            }
        }
        if lost == 0 { Flushed::All } else { Flushed::Lost(lost) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both ends of a path, and a socket that sends to the receiving one as its peer.
    fn path() -> (UdpTx, UdpRx, Arc<Datagrams>) {
        let [a, b] = [(); 2].map(|()| std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket"));
        let [a, b] = [a, b].map(|socket| socket.local_addr().expect("its address"));
        let [near, far] = [(a, b), (b, a)].map(|(local, peer)| Datagrams::open(local, peer).expect("opened"));
        let near = Arc::new(near);
        (UdpTx::new(Arc::clone(&near)), UdpRx::new(Arc::new(far)), near)
    }

    fn packet(n: usize) -> Vec<u8> {
        (0..14 + n * 13 % 2000).map(|i| (i * 7 + n).to_le_bytes()[0]).collect()
    }

    fn received(rx: &mut UdpRx) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        while rx.has_frames() {
            let held = rx.harvest();
            all.extend((0..held).map(|i| rx.frame(i).bytes.expect("all of it").to_vec()));
            rx.release();
        }
        all
    }

    #[test]
    fn packets_arrive_one_in_a_frame() {
        let (mut tx, mut rx, _) = path();
        let sent: Vec<Vec<u8>> = (0..200).map(packet).collect();
        for packet in &sent {
            assert!(tx.has_room() && tx.push(packet.len(), |room| room.copy_from_slice(packet)));
        }
        assert!(tx.has_unsent());
        assert_eq!(tx.flush(), Flushed::All);
        assert_eq!(received(&mut rx), sent);
        assert!(rx.take_faults().is_empty() && !tx.has_unsent());
    }

    #[test]
    fn frames_of_many_packets_are_taken_apart_over_several_turns() {
        let (_, mut rx, socket) = path();
        let mut writer = Writer::new(wire::MAX_FRAME, 0);
        let mut sent = Vec::new();
        for template in [false, true] {
            let format =
                Format { max_bytes: 60_000, max_packets: 500, stage: 1, check: true, group_crc: true, template };
            writer.begin(&format);
            for n in 0..300 {
                let packet = [&packet(n)[..14], &vec![n.to_le_bytes()[0]; n % 150]].concat();
                // Some in a run with the same Ethernet header.
                let packet = [&packet[..], &[1]].concat();
                assert!(writer.push(GroupKey::default(), &packet, 0, |_| {}, &Meta::NONE));
                sent.push(packet);
            }
            let frame = writer.finish(7);
            assert_eq!(socket.send([frame].into_iter()).expect("sent"), 1);
        }
        assert_eq!(rx.harvest(), MAX_HELD);
        assert_eq!(received(&mut rx), sent);
    }

    #[test]
    fn what_is_no_frame_is_counted_and_what_follows_is_taken() {
        let (mut tx, mut rx, socket) = path();
        let packet = packet(40);
        assert!(tx.push(packet.len(), |room| room.copy_from_slice(&packet)));
        let good: Vec<u8> = tx.outbox.waiting().next().expect("a datagram").to_vec();
        let mut damaged = good.clone();
        damaged[60] ^= 1;
        let mut header = good.clone();
        header[6] ^= 1;
        let mut control = vec![0x13, 0xa0, 0, 12, 0, 2, 0, 0, 0, 0, 0, 0];
        control.resize(12, 0);
        for datagram in [&b"nonsense"[..], &[], &damaged, &header, &control, &good[..20], &good] {
            assert_eq!(socket.send([datagram].into_iter()).expect("sent"), 1);
        }
        assert_eq!(received(&mut rx), [packet]);
        let faults = rx.take_faults();
        assert_eq!(faults.get("group_crc"), Some(&1), "{faults:?}");
        assert_eq!(faults.get("header_check"), Some(&1), "{faults:?}");
        assert_eq!(faults.get("control_frame"), Some(&1), "{faults:?}");
        assert_eq!(faults.values().sum::<u64>(), 6, "{faults:?}");
    }

    #[test]
    fn a_frame_is_as_long_as_was_thought() {
        let (mut tx, ..) = path();
        for payload in [1472, 1452, 9000] {
            let packet = vec![0; mtu_of(payload) + LINK_HEADER];
            assert!(tx.push(packet.len(), |room| room.copy_from_slice(&packet)));
            let len = tx.outbox.waiting().last().expect("a datagram").len();
            assert!(len <= payload && len + 4 > payload, "{len} of {payload}");
        }
    }
}
