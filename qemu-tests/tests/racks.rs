// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Three nodes, one of them at the top of the rack, with guests and CNFs at both hosts (`src/racks/mod.rs` has a picture): TCP and UDP between
//! all pairs, everywhere with aggregates, nowhere, and with one host that does not speak them. What was on the wires of the ToR, as another
//! decoder reads it, is what the nodes say that they sent and received.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use harness::node::AggregationStats;
use harness::racks::{
    A, Arrivals, B, Clients, Count, Group, IDS, Ledger, Moment, Racks, STAGES, STATIONS, TOR, Tapped, WIRES, Way, Wire,
    Wiretap, Wiring,
};
use harness::scenario;

/// What everybody sends everybody: bytes over TCP, and datagrams.
const BYTES: usize = 512 << 10;
const DATAGRAMS: u32 = 1000;
/// The longest frame of an Ethernet that is not jumbo.
const ETHERNET: u64 = 1514;

/// Which of A, ToR and B speak aggregates.
type Aware = [bool; 3];
const EVERYBODY: Aware = [true; 3];
const NOBODY: Aware = [false; 3];
const ALL_BUT_B: Aware = [true, true, false];

#[test]
fn ka_6_racks_over_af_packet() {
    prove(Wiring { kind: "af-packet", mtu: 9000 }, &[EVERYBODY, NOBODY, ALL_BUT_B]);
}

/// Wires that take packets as long as they get.
#[test]
fn ka_6_racks_over_wires_of_64_kib() {
    prove(Wiring { kind: "af-packet", mtu: 65_535 }, &[EVERYBODY]);
}

#[test]
fn ka_6_racks_over_af_xdp() {
    prove(Wiring { kind: "af-xdp", mtu: 3000 }, &[EVERYBODY, NOBODY, ALL_BUT_B]);
}

#[test]
fn ka_6_racks_over_udp() {
    prove(Wiring { kind: "udp", mtu: 9000 }, &[EVERYBODY]);
}

fn prove(wiring: Wiring, forms: &[Aware]) {
    scenario::run(|work| {
        Clients::prepare()?;
        let mut racks = Racks::lay(wiring)?;
        let (mut clients, mut packed) = (None, [0, 0]);
        for (number, aware) in forms.iter().enumerate() {
            racks.stop()?;
            let tap = Wiretap::begin(work, &racks, &number.to_string())?;
            racks.start(*aware)?;
            if clients.is_none() {
                clients = Some(Clients::start(work, &racks, Path::new(env!("CARGO_BIN_EXE_courier")))?);
            }
            let clients = clients.as_mut().context("clients")?;
            racks.agreed(*aware, clients)?;
            let before = racks.moment()?;
            let arrivals = clients.talk(work, &racks, BYTES, DATAGRAMS)?;
            let after = racks.moment()?;
            let Tapped { ever, between } = tap.end(&racks, clients, &before, &after)?;
            let round = Round { wiring, aware: *aware, before, after, ever, between };
            round.check(&arrivals).with_context(|| format!("{wiring:?}, aware: {aware:?}"))?;
            for (packed, host) in packed.iter_mut().zip([A, B]) {
                *packed += round.after.port(host, "cnf")?.aggregation.rx_packets;
            }
        }
        // Stage 1: what the CNFs say that they put together is what their nodes took apart.
        let said = clients.context("clients")?.end()?;
        let is_less = said.iter().zip(&packed).any(|(said, taken)| said < taken);
        ensure!(!is_less && packed.iter().all(|taken| *taken > 0), "put together {said:?}, taken apart {packed:?}");
        Ok(())
    });
}

/// A form of the racks, and what happened while everybody talked.
struct Round {
    wiring: Wiring,
    aware: Aware,
    before: Moment,
    after: Moment,
    /// What passed the wires since the nodes were started.
    ever: Vec<Ledger>,
    /// What did between the moments.
    between: Vec<Ledger>,
}

impl Round {
    fn check(&self, arrivals: &BTreeMap<(usize, usize), Arrivals>) -> Result<()> {
        // All that was sent has arrived; nothing was overtaken on its way, whether it was sent plain or not.
        for ((from, to), seen) in arrivals {
            let pair = [from, to].map(|at| STATIONS[*at].name);
            ensure!(seen.disordered == 0 && seen.arrived >= DATAGRAMS.into(), "{pair:?}: {seen:?}");
        }
        ensure!(arrivals.len() == STATIONS.len() * (STATIONS.len() - 1), "{arrivals:?}");
        self.check_health()?;
        self.check_clients()?;
        for (at, wire) in WIRES.iter().enumerate() {
            self.check_awareness(wire, &self.ever[at]).with_context(|| format!("wire {}", wire.label))?;
            for way in [Way::Up, Way::Down] {
                let place = || format!("wire {}, {way:?}", wire.label);
                self.check_counts(wire, way, &self.between[at]).with_context(place)?;
                self.check_frames(wire, way, &self.between[at]).with_context(place)?;
            }
        }
        self.check_passage()?;
        if self.splices() { self.check_splices() } else { Ok(()) }
    }

    /// Nobody found anything wrong with what others sent.
    fn check_health(&self) -> Result<()> {
        for (node, port) in self.after.ports() {
            let damages: u64 = port.aggregation.damages.values().sum();
            ensure!(damages == 0 && port.dropped("bad_offload") == 0, "node {}: {port:?}", IDS[node]);
            let is_xdp = self.wiring.kind == "af-xdp" && !["vm", "cnf"].contains(&port.name.as_str());
            let xdp = port.uplink.as_ref().and_then(|uplink| uplink.xdp.as_ref());
            ensure!(is_xdp == xdp.is_some(), "node {}: {port:?}", IDS[node]);
        }
        for ledger in &self.ever {
            ensure!(ledger.causes.is_empty(), "{:?}", ledger.causes);
        }
        Ok(())
    }

    /// KA-6, KA-8: CNFs aggregate with a node that does, guests never.
    fn check_clients(&self) -> Result<()> {
        for host in [A, B] {
            let guest = self.after.port(host, "vm")?;
            ensure!(guest.aggregation == AggregationStats::default(), "{guest:?}");
            let cnf = self.after.since(&self.before, host, "cnf")?;
            for count in [cnf.received, cnf.sent] {
                ensure!(count.frames() > 0, "{cnf:?}");
                let Count { aggregates, packets, .. } = count;
                ensure!(
                    if self.aware[host] { packets > aggregates && aggregates > 0 } else { packets == 0 },
                    "{cnf:?}"
                );
            }
        }
        Ok(())
    }

    /// KA-7, KA-8: aggregates pass a wire if both its ends have agreed on it. Who does not answer is only ever greeted.
    fn check_awareness(&self, wire: &Wire, ever: &Ledger) -> Result<()> {
        let [near, far] = [self.aware[TOR], far_end(wire).is_some_and(|host| self.aware[host])];
        for (is_aware, other_is, way) in [(near, far, Way::Down), (far, near, Way::Up)] {
            let sender = ever.sender(wire.sender(way));
            let other = wire.sender(if way == Way::Up { Way::Down } else { Way::Up });
            let answered = sender.control.contains_key(&("hello_ack".to_owned(), other.to_owned()));
            let agrees = is_aware && other_is;
            ensure!(
                (sender.aggregates > 0) == agrees && answered == agrees,
                "{way:?}: {} {:?}",
                sender.aggregates,
                sender.control
            );
            let only_greets = sender.control.keys().all(|(message, to)| message == "hello" && to != other);
            ensure!(sender.control.is_empty() != is_aware, "{way:?}: {:?}", sender.control);
            ensure!(agrees || only_greets, "{way:?}: {:?}", sender.control);
        }
        let is_known = |mac: &String| [wire.far_mac, wire.near_mac].contains(&mac.as_str());
        ensure!(ever.senders.keys().all(is_known), "{:?}", ever.senders.keys());
        Ok(())
    }

    /// KA-6: what passed a wire one way is what one end has sent, and what the other has received.
    fn check_counts(&self, wire: &Wire, way: Way, between: &Ledger) -> Result<()> {
        let passed = between.count(wire, way);
        let near = Some((TOR, wire.port));
        let far = far_end(wire).map(|host| (host, "up"));
        let (from, to) = if way == Way::Up { (far, near) } else { (near, far) };
        if let Some((node, port)) = from {
            let counted = self.after.since(&self.before, node, port)?;
            ensure!(counted.sent == passed, "passed {passed:?}, sent {counted:?}");
        }
        if let Some((node, port)) = to {
            let counted = self.after.since(&self.before, node, port)?;
            let (received, lost) = (counted.received, counted.lost);
            if self.is_udp(wire) {
                // A link to one peer takes aggregates apart before anybody counts them.
                ensure!(received.all() == passed.all() || lost > 0, "passed {passed:?}, received {counted:?}");
            } else {
                ensure!(received.frames() + lost == passed.frames(), "passed {passed:?}, received {counted:?}");
                ensure!(received == passed || lost > 0, "passed {passed:?}, received {counted:?}");
            }
        }
        Ok(())
    }

    /// KA-6: what is in aggregates says where it comes from and where it goes to, and what has put it together.
    fn check_frames(&self, wire: &Wire, way: Way, between: &Ledger) -> Result<()> {
        let sender = between.sender(wire.sender(way));
        let from = if way == Way::Up { far_end(wire) } else { Some(TOR) };
        let stage = from.map(|node| STAGES[node]);
        ensure!(sender.stages.keys().all(|said| Some(*said) == stage), "{:?}", sender.stages);
        ensure!(sender.missing == 0, "{} aggregates are missing", sender.missing);
        for group in &sender.groups {
            for packet in &group.packets {
                // Who takes a packet out of a group and passes it on on a link with one other end calls it its own.
                let is_own = way == Way::Down && !self.splices();
                let origin = if is_own { Some(IDS[TOR]) } else { self.home(&packet.from) }.context("a stranger")?;
                let destination = self.home(&packet.to).filter(|_| self.splices()).map(u64::from);
                let is_there = group.destination == 0 || Some(group.destination) == destination;
                ensure!(group.origin == u64::from(origin) && is_there, "{packet:?} in {:?}", head(group));
            }
        }
        if sender.aggregates > 0 {
            // Frames of 3000 bytes have room for one long packet, and some short ones.
            let (packets, aggregates) = (sender.packets(), sender.aggregates);
            let fewest = if self.wiring.mtu < 9000 { aggregates * 3 / 2 } else { aggregates * 2 };
            ensure!(packets > fewest, "{packets} packets in {aggregates} aggregates");
            // KA-6, jumbo frames.
            ensure!(sender.longest > ETHERNET && sender.longest <= self.wiring.mtu.into(), "{}", sender.longest);
        }
        Ok(())
    }

    /// What came in at one wire of the ToR has gone out at another, and nothing else has.
    fn check_passage(&self) -> Result<()> {
        for (from, into) in WIRES.iter().zip(&self.between) {
            let (mut came, mut went) = (0, 0);
            for (to, out) in WIRES.iter().zip(&self.between).filter(|(to, _)| to.label != from.label) {
                for (sender, receiver) in pairs(from, to) {
                    let (came_in, gone_out) = (into.between(sender, receiver), out.between(sender, receiver));
                    ensure!(gone_out > u64::from(DATAGRAMS), "{sender} to {receiver}: {gone_out}");
                    (came, went) = (came + came_in, went + gone_out);
                }
            }
            // What the kernel left to be cut into segments is cut here, or, in aggregates, as it is left to who takes it out of them.
            let counted = self.after.since(&self.before, TOR, from.port)?;
            let expected = came - counted.oversized + counted.segments;
            let uncut = if self.aware == NOBODY { 0 } else { counted.oversized };
            let is_all = (expected..=expected + uncut).contains(&went) || went < expected && self.lost_at_tor()? > 0;
            ensure!(is_all, "from wire {}: {expected} packets came, {went} went", from.label);
        }
        Ok(())
    }

    /// KA-6: groups from host to host go through the ToR whole, in order.
    fn check_splices(&self) -> Result<()> {
        for (from, to, node) in [(A, B, IDS[B]), (B, A, IDS[A])] {
            let [from, to] = [from, to].map(|host| WIRES.iter().position(|wire| far_end(wire) == Some(host)));
            let (from, to) = (from.context("a wire")?, to.context("a wire")?);
            let (came, went) = (
                self.between[from].sender(WIRES[from].sender(Way::Up)),
                self.between[to].sender(WIRES[to].sender(Way::Down)),
            );
            let (came, went) = (came.groups_to(node), went.groups_to(node));
            let mut rest = came.iter();
            ensure!(went.iter().all(|group| rest.any(|other| other == group)), "groups to {node} are not what came");
            ensure!(went.len() == came.len() || self.lost_at_tor()? > 0, "{} came, {} went", came.len(), went.len());
            let spliced = self.after.since(&self.before, TOR, WIRES[from].port)?.spliced;
            ensure!(spliced == came.len() as u64 || self.lost_at_tor()? > 0, "{} came, {spliced} spliced", came.len());
            // Most of what goes from host to host does.
            let count = |groups: &[&Group]| groups.iter().map(|group| group.packets.len() as u64).sum::<u64>();
            let all: u64 = pairs(&WIRES[from], &WIRES[to]).map(|(a, b)| self.between[to].between(a, b)).sum();
            ensure!(2 * count(&went) > all, "{} of {all} packets to node {node} in groups", count(&went));
        }
        Ok(())
    }

    /// Whether groups are addressed from host to host. Where a link has one other end, that takes everything.
    fn splices(&self) -> bool {
        self.aware == EVERYBODY && self.wiring.kind != "udp"
    }

    fn is_udp(&self, wire: &Wire) -> bool {
        self.wiring.kind == "udp" && far_end(wire).is_some()
    }

    /// The node that a station's packets are said to come from.
    fn home(&self, mac: &str) -> Option<u16> {
        let station = STATIONS.iter().position(|station| station.mac == mac)?;
        let host = WIRES.iter().find(|wire| wire.stations.contains(&station)).and_then(far_end);
        Some(IDS[host.filter(|host| self.aware[*host]).unwrap_or(TOR)])
    }

    /// Packets and frames that the ToR has dropped.
    fn lost_at_tor(&self) -> Result<u64> {
        WIRES.iter().map(|wire| Ok(self.after.since(&self.before, TOR, wire.port)?.dropped)).sum()
    }
}

/// The node at the far end of a wire.
fn far_end(wire: &Wire) -> Option<usize> {
    match wire.label {
        "A" => Some(A),
        "B" => Some(B),
        _ => None,
    }
}

/// The addresses of stations at two wires.
fn pairs(from: &Wire, to: &Wire) -> impl Iterator<Item = (&'static str, &'static str)> {
    let (from, to) = (from.stations, to.stations);
    from.iter().flat_map(move |a| to.iter().map(move |b| (STATIONS[*a].mac, STATIONS[*b].mac)))
}

/// A group without its packets.
fn head(group: &Group) -> Group {
    Group { packets: Vec::new(), ..group.clone() }
}
