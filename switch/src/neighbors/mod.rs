// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The neighbours of an uplink: to whom a packet goes next, and where that one is.
//!
//! # Theory of operation
//!
//! An uplink has addresses of its own, for which [`Neighbors::receive`] answers ARP and neighbour
//! solicitations. A packet that leaves through it goes to the [next hop](Neighbors::next_hop), whose MAC
//! address [`Neighbors::resolve`] knows or asks for. Time is an argument; frames to be sent are returned.
//!
//! ```text
//!             resolve                 answer                      30 s
//!  (nothing) ─────────► Incomplete ─────────────► Reachable ─────────────► Stale ──► (idle: gone)
//!      ▲                 │ 3 asks, 1 s apart          ▲                      │ used: asked itself,
//!      │ 5 s             ▼                            └──────── answer ──────┤ up to 3 times
//!      └────────────── Failed                Incomplete ◄── no answer ───────┘
//! ```
//!
//! A stale neighbour is used while it is asked, so that one that is there sees no gap. All asks but the
//! first, and all failures, come from [`Neighbors::sweep`], which is to be called a few times a second.
//!
//! **What is believed.** An answer counts if the neighbour was asked for, and as news of one that there is
//! an entry for; nothing unasked makes an entry, except that who asks for us is going to be spoken to.
//! Another station on the same link can lie all the same: ARP has no defence against that.
//!
//! **Bounds.** Entries are limited; one that is not known, or that nobody used for a minute, gives way to a
//! new one. At most [`ASKS_PER_SECOND`] frames ask in a second, so that a guest that scans addresses does
//! not make the node flood its link; what is not asked at once is asked by a later sweep. Answers are one
//! for one.

mod link;
mod table;
#[cfg(test)]
mod tests;

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use packet::{
    MacAddr,
    neighbor::{Answer, Message, Request},
};

use self::{
    link::Link,
    table::{Due, Entry, Room, Table},
};

pub use self::table::State;

/// Most frames in a second that ask.
pub const ASKS_PER_SECOND: u32 = 256;
const SECOND_NS: u64 = 1_000_000_000;

/// What an uplink is on its link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeighborsConfig {
    /// Its MAC address.
    pub mac: MacAddr,
    /// Its addresses, each with the length of the prefix that is on the link.
    pub addresses: Vec<(IpAddr, u8)>,
    /// The IPv4 router to all that is not on the link.
    pub gateway_v4: Option<Ipv4Addr>,
    /// The IPv6 router to all that is not on the link.
    pub gateway_v6: Option<Ipv6Addr>,
    /// Most neighbours remembered.
    pub capacity: usize,
}

/// A configuration that no uplink can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NeighborsError {
    /// The MAC address is not that of one station.
    #[error("mac: {mac} is not the address of one station")]
    BadMac {
        /// What was given.
        mac: MacAddr,
    },
    /// An address is not that of one station.
    #[error("address: {address} is not the address of one station")]
    BadAddress {
        /// What was given.
        address: IpAddr,
    },
    /// A prefix is longer than its address.
    #[error("address: {address} has no prefix of {prefix} bits")]
    BadPrefix {
        /// The address.
        address: IpAddr,
        /// Length of the prefix.
        prefix: u8,
    },
    /// No prefix has the gateway.
    #[error("gateway: {gateway} is not the address of another station on the link")]
    BadGateway {
        /// What was given.
        gateway: IpAddr,
    },
}

/// Where a neighbour is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// There.
    Known(MacAddr),
    /// It is being asked for: the packet may wait, until [`Heard::learned`] or [`Swept::failed`] names it,
    /// though not for ever: one that gives way to another is named by neither.
    Unresolved {
        /// The frame to be sent now, if any.
        ask: Option<Vec<u8>>,
    },
    /// It does not answer, or cannot be asked: the packet is to be dropped.
    Failed,
}

/// What came of a frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// The frame was a message to this node: a request for an own address, an answer to one, or a claim to
    /// one. Nobody else needs to see it.
    pub ours: bool,
    /// The frame to be sent back.
    pub reply: Option<Vec<u8>>,
    /// The neighbour that is now known, or known to be somewhere else.
    pub learned: Option<IpAddr>,
}

/// What time brought about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Frames to be sent now.
    pub asks: Vec<Vec<u8>>,
    /// Neighbours that did not answer: what waits for them is to be dropped.
    pub failed: Vec<IpAddr>,
}

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NeighborsStats {
    /// Frames that asked.
    pub asked: u64,
    /// Asks put off because there were too many in their second.
    pub asks_deferred: u64,
    /// Requests answered.
    pub answered: u64,
    /// Neighbours that became known, or moved.
    pub learned: u64,
    /// Neighbours that did not answer.
    pub failed: u64,
    /// Answers about stations that nobody had asked for.
    pub unasked: u64,
    /// Messages of others that claim an own address.
    pub duplicates: u64,
    /// Neighbours that gave way to others.
    pub evicted: u64,
    /// Neighbours not remembered because none gave way.
    pub full: u64,
}

/// A neighbour, to be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbor {
    /// Its address.
    pub ip: IpAddr,
    /// Where it is, if that is known.
    pub mac: Option<MacAddr>,
    /// What is known of it.
    pub state: State,
}

/// The neighbours of one uplink.
///
/// ```
/// use packet::MacAddr;
/// use switch::neighbors::{Neighbors, NeighborsConfig, Resolution};
/// let config = NeighborsConfig {
///     mac: MacAddr([2, 0, 0, 0, 0, 1]),
///     addresses: vec![("192.0.2.1".parse()?, 24)],
///     gateway_v4: Some([192, 0, 2, 254].into()),
///     ..NeighborsConfig::default()
/// };
/// let mut neighbors = Neighbors::new(&config)?;
/// let hop = neighbors.next_hop("198.51.100.7".parse()?).ok_or("no way")?;
/// assert_eq!(hop.to_string(), "192.0.2.254");
/// assert!(matches!(neighbors.resolve(hop, 0), Resolution::Unresolved { ask: Some(_) }));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Neighbors {
    link: Link,
    table: Table,
    budget: Budget,
    stats: NeighborsStats,
    version: u64,
}

/// Asks left in a second.
#[derive(Clone, Copy, Debug)]
struct Budget {
    second: u64,
    left: u32,
}

impl Default for NeighborsConfig {
    fn default() -> Self {
        Self { mac: MacAddr::ZERO, addresses: Vec::new(), gateway_v4: None, gateway_v6: None, capacity: 4096 }
    }
}

impl Neighbors {
    /// An uplink that knows nobody.
    ///
    /// # Errors
    /// If the configuration contradicts itself.
    pub fn new(config: &NeighborsConfig) -> Result<Self, NeighborsError> {
        Ok(Self {
            link: Link::new(config)?,
            table: Table::new(config.capacity),
            budget: Budget { second: 0, left: ASKS_PER_SECOND },
            stats: NeighborsStats::default(),
            version: 0,
        })
    }

    /// To whom a packet for `destination` is sent: itself if it is on the link, else the gateway. `None` if
    /// there is no way, if it is an own address, or not that of one station.
    #[must_use]
    pub fn next_hop(&self, destination: IpAddr) -> Option<IpAddr> {
        self.link.next_hop(destination)
    }

    /// The own address to speak to `destination` from.
    #[must_use]
    pub fn source_for(&self, destination: IpAddr) -> Option<IpAddr> {
        self.link.source_for(destination)
    }

    /// The own MAC address.
    #[must_use]
    pub const fn mac(&self) -> MacAddr {
        self.link.mac()
    }

    /// The own addresses with the lengths of their prefixes, the longest first.
    #[must_use]
    pub fn addresses(&self) -> &[(IpAddr, u8)] {
        self.link.addresses()
    }

    /// Whether this is an own address.
    #[must_use]
    pub fn is_own(&self, address: IpAddr) -> bool {
        self.link.is_own(address)
    }

    /// Where the next hop `ip` is, or what is to be done to find out.
    pub fn resolve(&mut self, ip: IpAddr, now: u64) -> Resolution {
        if let Some(entry) = self.table.get_mut(ip) {
            if let Some(mac) = entry.look_up(now) {
                return Resolution::Known(mac);
            }
            match entry.state {
                State::Failed if now >= entry.due => *entry = Entry::incomplete(ip, now),
                State::Failed => return Resolution::Failed,
                _ => return Resolution::Unresolved { ask: None },
            }
        } else {
            if !self.link.is_neighbor(ip) {
                return Resolution::Failed;
            }
            let room = self.table.insert(Entry::incomplete(ip, now), now);
            if !self.account(room) {
                return Resolution::Failed;
            }
        }
        Resolution::Unresolved { ask: self.ask(ip, now) }
    }

    /// Takes in a frame that came through the uplink, of which `window` is at least the first 86 bytes.
    pub fn receive(&mut self, window: &[u8], now: u64) -> Heard {
        match Message::parse(window) {
            Some(Message::Request(request)) => self.request(&request, now),
            Some(Message::Answer(answer)) => self.answer(&answer, now),
            None => Heard::default(),
        }
    }

    /// Does what is due.
    pub fn sweep(&mut self, now: u64) -> Swept {
        let Self { link, table, budget, stats, version } = self;
        let mut swept = Swept::default();
        table.retain(|entry| {
            let was_known = entry.is_known();
            let due = entry.advance(now);
            *version += u64::from(was_known && (due == Due::Remove || !entry.is_known()));
            match due {
                Due::Nothing => {}
                Due::Remove => return false,
                Due::Failed => {
                    stats.failed += 1;
                    swept.failed.push(entry.ip);
                }
                Due::Ask(to) => {
                    if budget.take(now) {
                        stats.asked += 1;
                        entry.was_asked(now);
                        swept.asks.extend(link.ask(entry.ip, to));
                    } else {
                        stats.asks_deferred += 1;
                    }
                }
            }
            true
        });
        swept
    }

    /// Frames that tell all stations on the link of the own addresses: to be sent when the uplink comes up.
    #[must_use]
    pub fn announcements(&self) -> Vec<Vec<u8>> {
        self.link.announcements()
    }

    /// Changes whenever a known neighbour moves or is forgotten: whoever keeps an answer of
    /// [`resolve`](Self::resolve) asks again then, and every few seconds for the neighbour to stay.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// What was counted.
    #[must_use]
    pub const fn stats(&self) -> NeighborsStats {
        self.stats
    }

    /// All neighbours, in no order.
    pub fn entries(&self) -> impl Iterator<Item = Neighbor> + '_ {
        let show = |e: &Entry| Neighbor { ip: e.ip, mac: e.is_known().then_some(e.mac), state: e.state };
        self.table.entries().iter().map(show)
    }

    fn request(&mut self, request: &Request, now: u64) -> Heard {
        let own = self.link.mac();
        if request.mac.unwrap_or(request.source) == own {
            return Heard::default();
        }
        if request.sender.is_some_and(|sender| self.link.is_own(sender)) {
            self.stats.duplicates += 1;
            return Heard { ours: true, ..Heard::default() };
        }
        let ours = self.link.is_own(request.target);
        let learned = match (request.sender, request.mac) {
            (Some(sender), Some(mac)) => self.hear(sender, Some(mac), false, true, now, ours),
            _ => None,
        };
        let reply = if ours { self.link.answer(request) } else { None };
        self.stats.answered += u64::from(reply.is_some());
        Heard { ours, reply, learned }
    }

    fn answer(&mut self, answer: &Answer, now: u64) -> Heard {
        if answer.mac == Some(self.link.mac()) {
            return Heard::default();
        }
        if self.link.is_own(answer.sender) {
            self.stats.duplicates += 1;
            return Heard { ours: true, ..Heard::default() };
        }
        let ours = self.link.is_own(answer.recipient);
        if self.table.get_mut(answer.sender).is_none() {
            self.stats.unasked += 1;
        }
        let learned = self.hear(answer.sender, answer.mac, ours && answer.solicited, answer.overrides, now, false);
        Heard { ours, reply: None, learned }
    }

    /// Takes in what was said about a neighbour; one that there is no entry for if `create` says so.
    fn hear(
        &mut self,
        ip: IpAddr,
        mac: Option<MacAddr>,
        solicited: bool,
        overrides: bool,
        now: u64,
        create: bool,
    ) -> Option<IpAddr> {
        let changed = match (self.table.get_mut(ip), mac) {
            (Some(entry), _) => {
                let was_known = entry.is_known();
                let changed = entry.hear(mac, solicited && entry.asked > 0, overrides, now);
                self.version += u64::from(changed && was_known);
                changed
            }
            (None, Some(mac)) if create && self.link.is_neighbor(ip) => {
                let room = self.table.insert(Entry::stale(ip, mac, now), now);
                self.account(room)
            }
            (None, _) => false,
        };
        self.stats.learned += u64::from(changed);
        changed.then_some(ip)
    }

    /// The frame that asks for an incomplete neighbour, if one may be sent now.
    fn ask(&mut self, ip: IpAddr, now: u64) -> Option<Vec<u8>> {
        let entry = self.table.get_mut(ip)?;
        if !self.budget.take(now) {
            self.stats.asks_deferred += 1;
            return None;
        }
        self.stats.asked += 1;
        entry.was_asked(now);
        self.link.ask(ip, None)
    }

    fn account(&mut self, room: Room) -> bool {
        match room {
            Room::Free => return true,
            Room::Taken { known } => {
                self.stats.evicted += 1;
                self.version += u64::from(known);
            }
            Room::None => self.stats.full += 1,
        }
        room != Room::None
    }
}

impl Budget {
    fn take(&mut self, now: u64) -> bool {
        let second = now / SECOND_NS;
        if second != self.second {
            *self = Self { second, left: ASKS_PER_SECOND };
        }
        let has = self.left > 0;
        self.left = self.left.saturating_sub(1);
        has
    }
}
