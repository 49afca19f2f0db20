// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Guests that speak of aggregates: the SDK, and one that writes its frames itself, as they should be or not.

use std::path::PathBuf;
use std::time::Instant;

use aggregation::negotiation::{self, Announce, Control, Event, Features, MAX_CONTROL, Message, Offer};
use aggregation::{Format, GroupKey, Item, Limits, Meta, Reader, Writer};
use cnf::{Aggregation, Burst, Link, LinkConfig, Queue};

use super::{Guest, guest_config, until};

/// What stands before a frame on a virtqueue.
const ETHERNET: [u8; 14] = [2, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1, 0x88, 0xb5];

/// A CNF of the SDK with one queue pair.
#[derive(Debug)]
pub(crate) struct Cnf {
    pub(crate) link: Link,
    pub(crate) queues: Vec<Queue>,
    pub(crate) told: Vec<cnf::Event>,
    burst: Burst,
}

impl Cnf {
    /// With room for frames of 16 KiB.
    #[track_caller]
    pub(crate) fn attach(socket: PathBuf) -> Self {
        Self::attach_with(socket, |_| {}, |_| {})
    }

    #[track_caller]
    pub(crate) fn attach_with(
        socket: PathBuf,
        aggregation: impl FnOnce(&mut Aggregation),
        link: impl FnOnce(&mut LinkConfig),
    ) -> Self {
        let mut wanted = Aggregation::default();
        aggregation(&mut wanted);
        let mut config = LinkConfig::new(socket).aggregate(wanted);
        (config.device.tx_buffer, config.device.rx_buffer) = (17_000, 17_000);
        link(&mut config);
        let (link, queues) = Link::attach(config).expect("attached");
        Self { link, queues, told: Vec::new(), burst: Burst::new() }
    }

    /// Does what is due, and takes what has arrived.
    pub(crate) fn poll(&mut self) -> Vec<Vec<u8>> {
        self.told.extend(self.link.tend());
        let mut packets = Vec::new();
        for queue in &mut self.queues {
            queue.receive(&mut self.burst);
            packets.extend(self.burst.iter().map(|packet| packet.bytes.to_vec()));
            queue.flush();
        }
        packets
    }

    pub(crate) fn is_aggregating(&self) -> bool {
        let last = self.told.iter().rev().find(|event| !matches!(event, cnf::Event::NotYet { .. }));
        matches!(last, Some(cnf::Event::Aggregating { .. }))
    }

    /// Waits until it may send aggregates; nothing else arrives meanwhile.
    #[track_caller]
    pub(crate) fn agree(&mut self) {
        until("both have agreed", || {
            assert_eq!(self.poll(), Vec::<Vec<u8>>::new());
            self.is_aggregating().then_some(())
        });
    }

    /// Sends what there is room for, and returns how many.
    pub(crate) fn offer(&mut self, packets: &[Vec<u8>]) -> usize {
        let [queue] = &mut self.queues[..] else { panic!("one queue") };
        let sent = packets.iter().take_while(|packet| queue.send(&packet[..])).count();
        queue.flush();
        sent
    }
}

/// A guest that writes its frames itself.
#[derive(Debug)]
pub(crate) struct Speaker {
    pub(crate) guest: Guest,
    talk: negotiation::Link<()>,
    pub(crate) may_send: bool,
    start: Instant,
    /// Aggregates received.
    pub(crate) aggregates: usize,
    /// What was damaged in them.
    pub(crate) damages: usize,
}

/// What is offered unless something else is.
pub(crate) const OFFER: Offer = Offer {
    versions: (1, 1),
    encapsulations: 1,
    align_log2: 2,
    max_bytes: 16_384,
    max_packets: 1024,
    features: Features(0),
    keepalive_ms: 1000,
};

impl Speaker {
    #[track_caller]
    pub(crate) fn attach(socket: PathBuf, node: u16, session: u32) -> Self {
        let mut config = guest_config(socket);
        // Longer than what may be sent.
        (config.tx_buffer, config.rx_buffer) = (40_000, 40_000);
        let config_of_link = negotiation::Config {
            node,
            session,
            offer: OFFER,
            name: b"speaker".to_vec(),
            announce: Announce::Peer(()),
            max_peers: 1,
        };
        let guest = Guest::attach_with(config);
        let talk = negotiation::Link::new(config_of_link, 0);
        Self { guest, talk, may_send: false, start: Instant::now(), aggregates: 0, damages: 0 }
    }

    /// Waits until the node takes aggregates, and its own greeting has been answered: the answer may still be on its way.
    #[track_caller]
    pub(crate) fn agree(&mut self) {
        until("the speaker and the node have agreed", || {
            assert_eq!(self.poll(), Vec::<Vec<u8>>::new());
            let [_, answers, ..] = self.talk.counters().sent;
            (self.may_send && answers > 0).then_some(())
        });
    }

    /// Says what is due, and takes what has arrived, aggregates in their packets.
    pub(crate) fn poll(&mut self) -> Vec<Vec<u8>> {
        let now = self.now();
        let mut packets = Vec::new();
        for frame in self.guest.poll() {
            match frame.strip_prefix(&frame[..14]).filter(|_| frame[12..14] == ETHERNET[12..]) {
                None => packets.push(frame),
                Some(body) => self.take(body, &mut packets, now),
            }
        }
        let Self { talk, may_send, .. } = self;
        talk.tick(now, |event| *may_send = matches!(event, Event::Up { .. }));
        let mut body = [0; MAX_CONTROL];
        while let Some(((), len)) = self.talk.poll_transmit(now, &mut body) {
            self.guest.send(&[wrap(&body[..len])]);
        }
        packets
    }

    fn take(&mut self, body: &[u8], packets: &mut Vec<Vec<u8>>, now: u64) {
        if body[1] & 0x80 != 0 {
            let Self { talk, may_send, .. } = self;
            let mut heard = |event| match event {
                Event::Up { .. } => *may_send = true,
                Event::Down { .. } => *may_send = false,
                _ => {}
            };
            talk.handle((), body, now, &mut heard).expect("a control frame of the node");
            return;
        }
        assert!(self.may_send || self.talk.peer(()).is_some(), "an aggregate that was not agreed on");
        self.talk.heard((), now);
        self.aggregates += 1;
        for item in items(body) {
            match item {
                Ok(packet) => packets.push(packet),
                Err(_) => self.damages += 1,
            }
        }
    }

    /// Says a word that nobody asked it for.
    pub(crate) fn say(&mut self, message: Message, change: impl FnOnce(&mut Control<'_>)) {
        self.guest.send(&[control(message, change)]);
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).expect("not so long")
    }
}

/// What is in a frame: packets, or what is wrong.
pub(crate) fn items(body: &[u8]) -> Vec<Result<Vec<u8>, aggregation::Cause>> {
    let mut reader = Reader::default();
    if let Err(cause) = reader.begin(body, 0, &Limits::NONE) {
        return vec![Err(cause)];
    }
    let mut found = Vec::new();
    while let Some(item) = reader.next(body) {
        match item {
            Item::Packet(packet) => {
                let rest_at = packet.rest_at;
                let rest = packet.len as usize - packet.head.len();
                found.push(Ok([packet.head, &body[rest_at..rest_at + rest]].concat()));
            }
            Item::Damaged(damage) => found.push(Err(damage.cause)),
            Item::Group(group) => assert_eq!((group.origin, group.destination), (1, 0), "the node's own id"),
            Item::Tlv { .. } => panic!("a TLV of a node that knows none"),
        }
    }
    found
}

/// A control frame, as it goes onto a ring.
pub(crate) fn control(message: Message, change: impl FnOnce(&mut Control<'_>)) -> Vec<u8> {
    let greets = matches!(message, Message::Hello | Message::HelloAck);
    let mut control = Control {
        message,
        node: 7,
        session: 77,
        peer_session: 0,
        offer: greets.then_some(OFFER),
        name: &[],
        reason: None,
    };
    change(&mut control);
    let mut body = [0; MAX_CONTROL];
    let len = control.write(0, &mut body);
    wrap(&body[..len])
}

/// Frames of these packets, as they go onto a ring, each as full as may be.
pub(crate) fn aggregates(packets: &[Vec<u8>], max_bytes: usize, template: bool) -> Vec<Vec<u8>> {
    let format = Format { max_bytes, max_packets: 1024, stage: 1, check: false, group_crc: false, template };
    let mut writer = Writer::new(max_bytes, 0);
    let (mut frames, mut sequence) = (Vec::new(), 0);
    writer.begin(&format);
    let mut end = |writer: &mut Writer| {
        sequence += 1;
        frames.push(wrap(writer.finish(sequence)));
        writer.begin(&format);
    };
    // Ids that an untrusted guest has no business to say.
    let key = GroupKey { origin: 0xdead, destination: 0xbeef, class: 0 };
    for packet in packets {
        if !writer.push(key, packet, 0, |_| {}, &Meta::NONE) {
            end(&mut writer);
            assert!(writer.push(key, packet, 0, |_| {}, &Meta::NONE), "{} bytes", packet.len());
        }
    }
    if !writer.is_empty() {
        end(&mut writer);
    }
    frames
}

/// A frame as it goes onto a ring.
pub(crate) fn wrap(body: &[u8]) -> Vec<u8> {
    [&ETHERNET, body].concat()
}
