// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The MAC-learning bridge (IEEE 802.1D, clause 7).
//!
//! # Theory of operation
//!
//! A frame's source address is learnt at the port it came from; its destination is looked up, and
//! the frame goes where that address was last seen, or to all ports if that is not known. A station
//! that has been silent for the ageing time is forgotten.
//!
//! **Replicas.** Every worker has a bridge of its own and asks no other. What one learns, or sees
//! move, it *announces*; the workers carry announcements to each other's [`Bridge::learn_remote`].
//! A station in use is announced again in every quarter of the ageing time, so that no replica
//! forgets it. Whoever saw a station last is right: a claim that is older than what a replica has
//! seen itself is answered with a new announcement. A bridge learns nothing that it cannot announce:
//! while the outbox is full, the next frame of the same station tries again, so replicas disagree
//! for no longer than announcements travel.
//!
//! **Bounds.** The table holds a fixed number of stations, and each port may add a limited share of
//! them, because a guest invents as many source addresses as it likes. A station that finds no room
//! takes the place of one silent for half the ageing time, else it is not learnt (and traffic to it
//! floods). Moves are exempt from a port's share since they take no room; that a guest can claim
//! another's address is the nature of learning, and ends with ports that have fixed addresses.
//!
//! **Fixed addresses.** A port may have one address, known from configuration: [`Bridge::fix`]. It is in every
//! replica from the start, never ages, never moves, and nothing is learnt at its port. That frames from the
//! port have that source is for [`admit()`] to see to, before anything changes their addresses.
//!
//! **Speed.** Frames of a burst mostly share their addresses, so the last source and the last
//! destination are remembered *within* one burst: such a frame costs two loads and two compares, and
//! no memory outside the burst. Nothing is remembered across bursts, hence nothing can be stale.

mod admit;
mod outbox;
mod ports;
mod stats;
mod table;

pub use self::{admit::admit, outbox::Announcement, stats::BridgeStats, table::Entry};

use packet::{Burst, DropCause, EthernetHeader, MacAddr, PortId, Verdict};

use self::{
    outbox::Outbox,
    ports::Ports,
    table::{Insertion, MacTable, Slot},
};

/// A source that is refreshed more often than this is written only once, in nanoseconds.
const REFRESH_NS: u64 = 1_000_000;
/// Every station in use is announced once in this part of the ageing time.
const ANNOUNCEMENTS_PER_AGEING: u64 = 4;
/// A station silent for this part of the ageing time gives way when there is no room.
const REPLACEABLE_PART: u64 = 2;

/// How a [`Bridge`] is built. The default suits a node with some hundred stations per port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BridgeConfig {
    /// Most stations in the table; 1 to 16 Mi, others are clamped. 20 bytes of memory each, or more
    /// because tables grow by powers of two.
    pub capacity: u32,
    /// Most stations a port may *add* to the table.
    pub port_limit: u32,
    /// How long a silent station is remembered, in nanoseconds.
    pub ageing_ns: u64,
    /// Most announcements that wait to be taken; 0 if there is no other replica.
    pub outbox: usize,
    /// Random and secret, so that guests cannot choose addresses that collide.
    pub seed: u64,
}

impl Default for BridgeConfig {
    fn default() -> Self {
        Self { capacity: 16_384, port_limit: 4_096, ageing_ns: 300_000_000_000, outbox: 256, seed: 0 }
    }
}

/// One worker's replica of the MAC-learning bridge.
///
/// ```
/// use packet::{Burst, Offload, PortId, Verdict};
/// use switch::{Bridge, BridgeConfig};
///
/// let mut bridge = Bridge::new(BridgeConfig::default());
/// let mut burst = Burst::new();
/// let mut send = |from, destination, source| {
///     burst.clear();
///     let window = burst.push(PortId(from), 60, Offload::NONE, 0).unwrap();
///     window.fill(0);
///     window[..6].copy_from_slice(&[2, 0, 0, 0, 0, destination]);
///     window[6..12].copy_from_slice(&[2, 0, 0, 0, 0, source]);
///     bridge.process(&mut burst, 0);
///     burst.verdict(0)
/// };
/// assert_eq!(send(7, 0xb, 0xa), Verdict::Flood);
/// assert_eq!(send(8, 0xa, 0xb), Verdict::Forward(PortId(7)));
/// ```
#[derive(Debug)]
pub struct Bridge {
    table: MacTable,
    ports: Ports,
    outbox: Outbox,
    stats: BridgeStats,
    capacity: u32,
    port_limit: u32,
    ageing_ns: u64,
    announce_ns: u64,
}

/// What learning a source came to.
enum Learned {
    /// Nothing changed, and nothing will when the same source is seen again in this burst.
    Settled,
    /// The table changed, so a remembered destination may be wrong.
    Changed,
    /// Not learnt; to be tried, and counted, again.
    Refused,
}

impl Bridge {
    /// An empty bridge.
    #[must_use]
    pub fn new(config: BridgeConfig) -> Self {
        let capacity = config.capacity.clamp(1, MacTable::MAX_ENTRIES);
        let ageing_ns = config.ageing_ns.max(ANNOUNCEMENTS_PER_AGEING);
        Self {
            table: MacTable::new(capacity, config.seed),
            ports: Ports::new(),
            outbox: Outbox::new(config.outbox),
            stats: BridgeStats::default(),
            capacity,
            port_limit: config.port_limit,
            ageing_ns,
            announce_ns: ageing_ns / ANNOUNCEMENTS_PER_AGEING,
        }
    }

    /// Decides about every pending packet of a burst, and learns from it.
    ///
    /// Verdicts: [`Verdict::Forward`] to where the destination was last seen; [`Verdict::Flood`] for
    /// groups and unknown stations; [`Verdict::Drop`] of frames whose destination lies behind their
    /// own port, is link-local, or that are shorter than an Ethernet header.
    #[inline]
    pub fn process(&mut self, burst: &mut Burst, now_ns: u64) {
        let mut last = Memory::BLANK;
        for packet in burst.judge() {
            if *packet.verdict != Verdict::Pending {
                continue;
            }
            let Some(header) = EthernetHeader::parse(packet.window) else {
                *packet.verdict = Verdict::Drop(DropCause::Runt);
                continue;
            };
            let port_bits = u64::from(packet.ingress.0) << 48;
            let source = header.source_bits() | port_bits;
            let destination = header.destination_bits() | port_bits;
            if source != last.source || destination != last.destination {
                self.decide(&mut last, source, destination, now_ns);
            }
            *packet.verdict = last.verdict;
        }
    }

    /// Takes up to `max` announcements, oldest first: news for all other replicas. To be called once
    /// per worker loop, with as many as there is room for on the way to *every* other worker.
    pub fn take_announcements(&mut self, max: usize) -> impl Iterator<Item = Announcement> + '_ {
        self.outbox.take(max)
    }

    /// Applies what another replica announced. Nothing of it is announced again, except that a claim
    /// older than what this replica has seen is contradicted.
    pub fn learn_remote(&mut self, news: Announcement) {
        let Announcement { mac, port, seen_ns } = news;
        if !mac.is_unicast() || self.ports.is_retired(port) || self.ports.is_fixed(port) {
            self.stats.remote_refused += 1;
            return;
        }
        let Some(slot) = self.table.find(mac) else {
            match self.insert(mac, port, seen_ns) {
                Learned::Refused => self.stats.remote_refused += 1,
                Learned::Changed | Learned::Settled => self.stats.remote_applied += 1,
            }
            return;
        };
        let entry = self.table.entry(slot);
        if entry.is_fixed() {
            self.stats.remote_refused += 1;
            return;
        }
        if entry.port == port {
            self.table.set(slot, port, entry.seen_ns.max(seen_ns));
            self.stats.remote_applied += 1;
            return;
        }
        // On a tie the lower port wins, so that two replicas do not just swap their opinions.
        if (entry.seen_ns, port) > (seen_ns, entry.port) {
            if !self.outbox.push(entry) {
                // Said as soon as the station is seen again: now it counts as due.
                let quarter = entry.seen_ns / self.announce_ns * self.announce_ns;
                self.table.set(slot, entry.port, quarter.saturating_sub(1));
            }
            self.stats.remote_refused += 1;
            return;
        }
        self.relocate(slot, entry.port, port, seen_ns);
        self.stats.remote_applied += 1;
    }

    /// Forgets stations that have been silent for the ageing time, in the next `budget` buckets of
    /// eight. Returns how many it forgot.
    ///
    /// The whole table is [`Bridge::buckets`]; a station is used until the sweep comes by, so go
    /// through all of it several times in the ageing time.
    pub fn sweep(&mut self, now_ns: u64, budget: usize) -> usize {
        let Some(oldest) = now_ns.checked_sub(self.ageing_ns) else {
            return 0;
        };
        let ports = &mut self.ports;
        let aged = self.table.sweep(budget, oldest, |port| ports.leave(port));
        self.stats.aged += aged as u64;
        aged
    }

    /// Forgets all stations at a port, and learns none there until [`Bridge::add_port`]. One pass
    /// over the table. Returns how many it forgot.
    pub fn remove_port(&mut self, port: PortId) -> usize {
        if self.ports.retire(port) == 0 {
            return 0;
        }
        let flushed = self.table.remove_all(port);
        self.stats.flushed += flushed as u64;
        flushed
    }

    /// Gives the number of a removed port to a new one. A number used for the first time need not be
    /// added.
    pub fn add_port(&mut self, port: PortId) {
        self.ports.reinstate(port);
    }

    /// Gives a port its one address: a station that is known from now on, until the port is removed, and the only
    /// one. What was learnt of it elsewhere, or at the port, goes.
    ///
    /// Returns `false` if there is no room for it among other fixed addresses, or it is one already; it is
    /// flooded for then.
    pub fn fix(&mut self, port: PortId, mac: MacAddr) -> bool {
        if self.ports.retire(port) > 0 {
            self.stats.flushed += self.table.remove_all(port) as u64;
        }
        self.ports.reinstate(port);
        self.ports.fix(port);
        let fixed = Entry { mac, port, seen_ns: Entry::FIXED };
        if let Some(slot) = self.table.find(mac) {
            let entry = self.table.entry(slot);
            if entry.is_fixed() {
                return false;
            }
            self.relocate(slot, entry.port, port, Entry::FIXED);
            return true;
        }
        if !mac.is_unicast() {
            return false;
        }
        match self.table.insert(fixed, true, Some(Entry::FIXED - 1)) {
            Insertion::Added => {}
            Insertion::Replaced(old) => {
                self.ports.leave(old);
                self.stats.replaced += 1;
            }
            Insertion::NoRoom => return false,
        }
        self.ports.enter(port);
        true
    }

    /// Where a station is known to be, if it is.
    #[must_use]
    pub fn station(&self, mac: MacAddr) -> Option<Entry> {
        self.table.find(mac).map(|slot| self.table.entry(slot))
    }

    /// How often a replica hears of a station in use that another sees, in nanoseconds: it may know it as last seen so long ago.
    #[must_use]
    pub const fn announced_every_ns(&self) -> u64 {
        self.announce_ns
    }

    /// All stations in the table, in no order.
    pub fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        self.table.entries()
    }

    /// All stations of one of the [`buckets`](Self::buckets), which is eight at most: to look at some of many.
    pub fn bucket(&self, bucket: usize) -> impl Iterator<Item = Entry> + '_ {
        self.table.bucket(bucket)
    }

    /// Number of stations in the table.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether the table is empty.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.table.len() == 0
    }

    /// Most stations the table holds.
    #[must_use]
    pub const fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Size of the table, in the unit of [`Bridge::sweep`]'s budget.
    #[must_use]
    pub const fn buckets(&self) -> usize {
        self.table.buckets()
    }

    /// Counters since the bridge was made.
    #[must_use]
    pub const fn stats(&self) -> &BridgeStats {
        &self.stats
    }

    /// The long way of [`Bridge::process`]: learns the source and looks up the destination, as far
    /// as they differ from the last. Addresses come with their port in the high 16 bits.
    #[inline(never)]
    fn decide(&mut self, last: &mut Memory, source: u64, destination: u64, now_ns: u64) {
        // The shift leaves 16 bits.
        let ingress = PortId((source >> 48) as u16);
        if source != last.source && !self.ports.is_fixed(ingress) {
            match self.learn_local(MacAddr::from_bits(source), ingress, now_ns) {
                Learned::Settled => last.source = source,
                Learned::Changed => {
                    last.source = source;
                    last.destination = NOBODY;
                }
                Learned::Refused => last.source = NOBODY,
            }
        }
        if destination != last.destination {
            last.verdict = self.route(MacAddr::from_bits(destination), ingress);
            // Only what is forwarded is remembered: floods are counted frame by frame.
            last.destination = match last.verdict {
                Verdict::Forward(_) => destination,
                _ => NOBODY,
            };
        }
    }

    fn route(&mut self, destination: MacAddr, ingress: PortId) -> Verdict {
        if destination.is_multicast() {
            if destination.is_reserved() {
                return Verdict::Drop(DropCause::ReservedAddress);
            }
            self.stats.flooded_group += 1;
            return Verdict::Flood;
        }
        match self.table.find(destination) {
            Some(slot) => match self.table.entry(slot).port {
                port if port == ingress => Verdict::Drop(DropCause::Reflection),
                port => Verdict::Forward(port),
            },
            None => {
                self.stats.flooded_unknown += 1;
                Verdict::Flood
            }
        }
    }

    fn learn_local(&mut self, mac: MacAddr, port: PortId, now_ns: u64) -> Learned {
        if !mac.is_unicast() {
            self.stats.unlearnable += 1;
            return Learned::Refused;
        }
        let Some(slot) = self.table.find(mac) else {
            return self.learn_new(mac, port, now_ns);
        };
        let entry = self.table.entry(slot);
        if entry.is_fixed() {
            self.stats.claimed += 1;
            return Learned::Refused;
        }
        if entry.port != port {
            return self.learn_move(slot, entry, port, now_ns);
        }
        if now_ns.saturating_sub(entry.seen_ns) < REFRESH_NS {
            return Learned::Settled;
        }
        // Stations in use are announced when they are first seen in a new quarter, which needs no
        // second time stamp. One that cannot be announced is not refreshed either, so that the next
        // frame tries again.
        let due = now_ns / self.announce_ns != entry.seen_ns / self.announce_ns;
        let fresh = Entry { seen_ns: now_ns, ..entry };
        if due && !self.outbox.push(fresh) {
            self.stats.outbox_full += 1;
            return Learned::Refused;
        }
        self.table.set(slot, port, now_ns);
        self.stats.refreshed += 1;
        Learned::Settled
    }

    #[cold]
    fn learn_new(&mut self, mac: MacAddr, port: PortId, now_ns: u64) -> Learned {
        if self.ports.is_retired(port) {
            self.stats.retired_port += 1;
            return Learned::Refused;
        }
        if self.outbox.is_full() {
            self.stats.outbox_full += 1;
            return Learned::Refused;
        }
        let learned = self.insert(mac, port, now_ns);
        if let Learned::Changed = learned {
            self.stats.learned += 1;
            self.outbox.push(Entry { mac, port, seen_ns: now_ns });
        }
        learned
    }

    #[cold]
    fn learn_move(&mut self, slot: Slot, entry: Entry, port: PortId, now_ns: u64) -> Learned {
        if self.ports.is_retired(port) {
            self.stats.retired_port += 1;
            return Learned::Refused;
        }
        if !self.outbox.push(Entry { port, seen_ns: now_ns, ..entry }) {
            self.stats.outbox_full += 1;
            return Learned::Refused;
        }
        self.relocate(slot, entry.port, port, now_ns);
        self.stats.moved += 1;
        Learned::Changed
    }

    /// Adds a station that is not in the table, within the limits of table and port.
    fn insert(&mut self, mac: MacAddr, port: PortId, now_ns: u64) -> Learned {
        if self.ports.entries(port) >= self.port_limit {
            self.stats.port_full += 1;
            return Learned::Refused;
        }
        let silent_since = now_ns.checked_sub(self.ageing_ns / REPLACEABLE_PART);
        let may_grow = self.table.len() < self.capacity as usize;
        match self.table.insert(Entry { mac, port, seen_ns: now_ns }, may_grow, silent_since) {
            Insertion::Added => {}
            Insertion::Replaced(old) => {
                self.ports.leave(old);
                self.stats.replaced += 1;
            }
            Insertion::NoRoom => {
                self.stats.table_full += 1;
                return Learned::Refused;
            }
        }
        self.ports.enter(port);
        Learned::Changed
    }

    fn relocate(&mut self, slot: Slot, from: PortId, to: PortId, seen_ns: u64) {
        self.ports.leave(from);
        self.ports.enter(to);
        self.table.set(slot, to, seen_ns);
    }
}

/// What is remembered from one packet of a burst to the next. Addresses come with the port they
/// were seen from in the high 16 bits.
struct Memory {
    /// The last source, if nothing remains to be learnt from it.
    source: u64,
    /// The last destination, if `verdict` holds for all that go there.
    destination: u64,
    verdict: Verdict,
}

impl Memory {
    const BLANK: Self = Self { source: NOBODY, destination: NOBODY, verdict: Verdict::Pending };
}

/// Matches no frame: no port has this number.
const NOBODY: u64 = u64::MAX;
