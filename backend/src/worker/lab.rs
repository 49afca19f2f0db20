// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A worker without a thread, whose ports are links in memory and whose time is said: for tests of what happens between uplinks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use aggregation::{Features, GroupKey, Item, Reader, Trigger};
use packet::{EthernetHeader, MacAddr, Offload, PortId};
use switch::BridgeConfig;
use switch::engine::EngineConfig;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::aggregate::{CONTROL, ETHER_TYPE, Wire, WireConfig};
use super::finish::header_of;
use super::handover::Waker;
use super::mailbox::{Command, mailbox};
use super::uplink::Uplink;
use super::{Parts, Worker};
use crate::config::{Aggregation, LinkConfig, NodeConfig, PollMode, PortKind, UplinkConfig};
use crate::counters::{PortCounters, WorkerCounters};
use crate::inspect::DropHub;
use crate::link::memory::{MemoryRx, MemoryTx, memory};
use crate::link::{LinkRx, LinkTx};
use crate::sys::{Clock, cycles};
use crate::topology::{PortEntry, Receiver, Topology, UplinkEntry};

/// A port of the node under test, and what is at its other end.
pub(super) struct Port {
    pub(super) tx: MemoryTx,
    pub(super) rx: MemoryRx,
    pub(super) counters: Arc<[PortCounters]>,
}

/// A node with one worker.
pub(super) struct Lab {
    pub(super) worker: Worker,
    pub(super) ports: Vec<Port>,
    now: u64,
}

/// A packet that came: origin and destination of its group, none if it was plain; and its bytes.
pub(super) type Came = (Option<(u16, u16)>, Vec<u8>);

/// An aware node at the other end of a port, which does nothing by itself.
pub(super) struct Peer {
    pub(super) wire: Wire,
    pub(super) port: usize,
    /// Packets that came, in order.
    pub(super) got: Vec<Came>,
    /// Aggregates that came.
    pub(super) aggregates: usize,
    /// What was used in them.
    pub(super) used: Features,
}

/// A node by its id.
pub(super) fn node(id: u16) -> NodeConfig {
    NodeConfig { id: id.try_into().expect("an id"), tor: false }
}

/// The address of a node at its uplinks.
pub(super) fn mac_of(node: u16) -> MacAddr {
    let [high, low] = node.to_be_bytes();
    MacAddr([2, 1, 0, 0, high, low])
}

/// A station's.
pub(super) fn station(n: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, n])
}

/// A packet of `len` bytes of an unknown kind, by its number.
pub(super) fn packet(to: MacAddr, from: MacAddr, number: u32, len: usize) -> Vec<u8> {
    let mut bytes = [&to.0[..], &from.0, &[0x88, 0xb6], &number.to_be_bytes()].concat();
    bytes.resize(len, 0x5a);
    bytes
}

/// An uplink as the topology has it.
fn uplink_of(wire: &WireConfig) -> UplinkEntry {
    let [local, peer] = ["192.0.2.1:1", "192.0.2.2:1"].map(|address| address.parse().expect("an address"));
    let config = UplinkConfig::new(LinkConfig::Udp { local, peer });
    UplinkEntry { mac: wire.mac, config, mtu: 65_535, takes_unfinished: false }
}

/// How a wire is made if nothing else is said.
pub(super) fn wire_config(node: u16) -> WireConfig {
    WireConfig {
        session: 7 + u32::from(node),
        mac: mac_of(node),
        longest: 65_535,
        one_peer: false,
        trusted: true,
        max_bytes: usize::MAX,
        max_packets: u32::MAX,
        time_usecs: 0,
        template: true,
    }
}

impl Lab {
    /// Node `id` with a port for each of `wires`; `None`: nobody is aware there.
    pub(super) fn new(id: u16, wires: &[Option<WireConfig>]) -> Self {
        Self::traced(id, wires, &Arc::default())
    }

    /// The same; a hub is told of drops.
    pub(super) fn traced(id: u16, wires: &[Option<WireConfig>], hub: &Arc<DropHub>) -> Self {
        let waker = Arc::new(Waker::new(EventFd::new(EFD_NONBLOCK).unwrap()));
        let (_, inbox) = mailbox(0, Arc::clone(&waker));
        let parts = Parts {
            index: 0,
            node: node(id),
            poll: PollMode::Busy,
            inbox,
            waker,
            inbound: Vec::new(),
            outbound: vec![None],
            counters: Arc::from([WorkerCounters::default()]),
            bridge: BridgeConfig { outbox: 0, ..BridgeConfig::default() },
            engine: EngineConfig::default(),
            events: sync_channel(1).0,
        };
        let mut worker = Worker::new(parts).unwrap();
        let mut topology = Topology::default();
        let (mut ports, mut uplinks) = (Vec::new(), Vec::new());
        for (at, wire) in (0..).zip(wires) {
            let counters: Arc<[PortCounters]> = Arc::from([PortCounters::of(PortId(at), hub)]);
            let entry = PortEntry {
                wired: false,
                receivers: vec![Receiver { worker: 0, pair: 0 }],
                home: None,
                counters: Arc::clone(&counters),
                mac: None,
                vni: None,
                uplink: wire.map(|wire| Arc::new(uplink_of(&wire))),
                aggregation: Aggregation::of(PortKind::Tap),
            };
            topology.insert(PortId(at), entry);
            let ((near_tx, far_rx), (far_tx, near_rx)) = (memory(), memory());
            let (rx, tx) = (LinkRx::Memory(near_rx), LinkTx::Memory(near_tx));
            uplinks.push(Uplink { port: PortId(at), rx, tx, mtu: 65_535, neighbors: None, wire: *wire });
            ports.push(Port { tx: far_tx, rx: far_rx, counters });
        }
        let topology = Arc::new(topology);
        assert!(worker.serve(Command::SetTopology { topology, reply: sync_channel(1).0 }));
        for uplink in uplinks {
            assert!(worker.serve(Command::AttachUplink { uplink: Box::new(uplink), reply: sync_channel(1).0 }));
        }
        Self { worker, ports, now: cycles() }
    }

    /// What a worker calls now.
    pub(super) fn now_ns(&self) -> u64 {
        Clock::get().nanos_at(self.now)
    }

    /// The same, in ticks.
    pub(super) fn now(&self) -> u64 {
        self.now
    }

    /// One turn of the worker. Returns the packets it moved.
    pub(super) fn turn(&mut self) -> usize {
        self.worker.turn(self.now)
    }

    /// Turns until there is nothing to do.
    pub(super) fn run(&mut self) {
        while self.turn() > 0 {}
    }

    /// Lets time pass, with all that is due in it.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + Clock::get().to_ticks(time);
        while self.now < end {
            self.now = end.min(self.now + Clock::get().to_ticks(super::SWEEP_INTERVAL));
            self.run();
            self.worker.sweep(self.now);
        }
    }

    /// Sends frames to a port.
    pub(super) fn send(&mut self, port: usize, frames: &[Vec<u8>]) {
        self.send_unfinished(port, frames, Offload::NONE);
    }

    /// The same, of which something is left to be done.
    pub(super) fn send_unfinished(&mut self, port: usize, frames: &[Vec<u8>], offload: Offload) {
        let port = &mut self.ports[port];
        for frame in frames {
            port.tx.push(frame.len(), header_of(offload), |room| room.copy_from_slice(frame));
        }
        port.tx.flush();
    }

    /// What the node has sent by a port that nobody has taken yet.
    pub(super) fn take(&mut self, port: usize) -> Vec<Vec<u8>> {
        self.ports[port].rx.take()
    }

    /// What a port has dropped, by cause.
    pub(super) fn drops(&self, port: usize) -> BTreeMap<String, u64> {
        let drops = self.ports[port].counters[0].drops();
        drops.filter(|(_, n)| *n > 0).map(|(cause, n)| (cause.to_owned(), n)).collect()
    }
}

impl Peer {
    /// Node `node` at a port; both know each other.
    pub(super) fn join(lab: &mut Lab, port: usize, node: u16) -> Self {
        let wire = Wire::new(self::node(node), wire_config(node), lab.now_ns());
        Self::join_as(lab, port, wire)
    }

    /// The same, of a certain kind.
    pub(super) fn join_as(lab: &mut Lab, port: usize, wire: Wire) -> Self {
        let mut peer = Self { wire, port, got: Vec::new(), aggregates: 0, used: Features::default() };
        let node_mac = lab.worker.path.uplinks[port].wire.as_ref().unwrap().config.mac;
        for _ in 0..100 {
            peer.talk(lab);
            lab.pass(super::SWEEP_INTERVAL);
            let wire = lab.worker.path.uplinks[port].wire.as_ref().unwrap();
            if peer.wire.target(node_mac).is_some() && wire.target(peer.wire.config.mac).is_some() {
                peer.talk(lab);
                peer.got.clear();
                return peer;
            }
        }
        panic!("they do not agree");
    }

    /// Says what is due, and takes in what has come.
    pub(super) fn talk(&mut self, lab: &mut Lab) {
        let now_ns = lab.now_ns();
        self.wire.tick(None, now_ns);
        let mut frame = [0; CONTROL];
        while let Some(len) = self.wire.speak(now_ns, &mut frame) {
            lab.send(self.port, &[frame[..len].to_vec()]);
        }
        lab.run();
        self.receive(lab);
    }

    /// Takes in what has come.
    pub(super) fn receive(&mut self, lab: &mut Lab) {
        let now_ns = lab.now_ns();
        for frame in lab.take(self.port) {
            if frame[12..14] != ETHER_TYPE.0.to_be_bytes() {
                self.got.push((None, frame));
                continue;
            }
            let from = EthernetHeader::parse(&frame).unwrap().source();
            let mut reader = Reader::default();
            let header = reader.begin(&frame[..], EthernetHeader::LEN, &self.wire.limits()).unwrap();
            if header.control {
                self.wire.negotiate(from, &frame[EthernetHeader::LEN..], None, now_ns).unwrap();
                continue;
            }
            assert_eq!(frame[..6], self.wire.config.mac.0, "it is for this peer");
            assert!(self.wire.takes(from, header.sequence, None, now_ns));
            self.aggregates += 1;
            let mut of = (0, 0);
            while let Some(item) = reader.next(&frame[..]) {
                match item {
                    Item::Group(group) => {
                        of = (group.origin, group.destination);
                        self.used = self.used.with(Features::of_header(&group));
                    }
                    Item::Packet(packet) => {
                        if matches!(packet.meta.checksum, aggregation::Checksum::Unfinished { .. }) {
                            self.used = self.used.with(Features::CHECKSUM);
                        }
                        if packet.meta.gso.is_some() {
                            self.used = self.used.with(Features::GSO);
                        }
                        let rest = packet.len as usize - packet.head.len();
                        let rest = &frame[packet.rest_at..][..rest];
                        self.got.push((Some(of), [packet.head, rest].concat()));
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    /// Packets for a node in one aggregate, as it is sent by this peer.
    pub(super) fn frame(&mut self, lab: &Lab, destination: u16, packets: &[Vec<u8>], offload: Offload) -> Vec<u8> {
        let node_mac = lab.worker.path.uplinks[self.port].wire.as_ref().unwrap().config.mac;
        let target = self.wire.target(node_mac).unwrap();
        let key = GroupKey { origin: self.wire.node, destination, class: 0 };
        for packet in packets {
            assert!(self.wire.put(target, key, packet, 0, |_| {}, offload), "it does not fit");
        }
        let mut sent = Vec::new();
        self.wire.ship(target.peer, Trigger::Burst, |frame, _, _| {
            sent = frame.to_vec();
            None
        });
        sent
    }

    /// Sends packets for a node in one aggregate.
    pub(super) fn send(&mut self, lab: &mut Lab, destination: u16, packets: &[Vec<u8>]) {
        let frame = self.frame(lab, destination, packets, Offload::NONE);
        lab.send(self.port, &[frame]);
    }
}
