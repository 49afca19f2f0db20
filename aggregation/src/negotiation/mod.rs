// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Who may be sent aggregates, and of what size.
//!
//! # Theory of operation
//!
//! A [`Link`] speaks with all peers on one link: with one on a memory link or a UDP path, with several on a shared wire. It is a state machine
//! without I/O: frames come in by [`handle`](Link::handle), go out by [`poll_transmit`](Link::poll_transmit), time passes by
//! [`tick`](Link::tick), and [`timeout`](Link::timeout) says when to call next. `A` is what the caller calls an address: a MAC address, a socket
//! address, or `()`.
//!
//! Each side sends HELLO until it has an ACK for it, and answers HELLOs. So each direction is agreed on its own:
//!
//! ```text
//!                 a HELLO came: answer it,                    our HELLO was acknowledged
//!                 and begin our own
//!   ┌─────────┐ ───────────────────────► ┌──────────────────┐ ──────────────────────► ┌──────────────────────┐
//!   │ unknown │                          │ known: aggregates│                         │ up: aggregates may   │
//!   │         │                          │ from it are taken│                         │ be sent to it as well│
//!   └─────────┘                          └──────────────────┘                         └──────────────────────┘
//!     ▲  │                                        │                                      │        ▲
//!     │  └──────── an ACK came for the HELLO with which we announced ourselves ──────────┼────────┘
//!     └────────────────── BYE, another session, silence for three keepalives ────────────┘
//! ```
//!
//! A session number is drawn anew whenever a side starts. A frame with another one than before is from another incarnation, which knows nothing of
//! what was agreed, so all begins anew. Frames of the incarnation before that come late are ignored for as long as three keepalives.

mod control;
mod event;
mod offer;
mod peer;
#[cfg(test)]
mod tests;
mod transmit;

use crate::Cause;
use peer::{Backoff, MISSED};

pub use control::{Control, MAX_CONTROL, MAX_NAME, Message};
pub use event::{Announce, Config, Counters, Down, Event, Reason};
pub use offer::{Features, Grant, Offer};
pub use peer::Peer;

/// Most refusals that wait to be sent.
const REFUSALS: usize = 8;

/// One side of a link. Times are nanoseconds of any clock that does not go back.
#[derive(Debug)]
pub struct Link<A> {
    config: Config<A>,
    peers: Vec<Peer<A>>,
    announcer: Option<Backoff>,
    refusals: Vec<Refusal<A>>,
    refusal_at: u64,
    closed: bool,
    counters: Counters,
}

#[derive(Clone, Copy, Debug)]
struct Refusal<A> {
    address: A,
    session: u32,
    reason: Reason,
}

impl<A: Copy + Eq> Link<A> {
    /// A link that nobody has spoken on yet.
    #[must_use]
    pub fn new(config: Config<A>, now: u64) -> Self {
        let announcer = match config.announce {
            Announce::Never => None,
            Announce::Peer(_) | Announce::Group(_) => Some(Backoff::new(now)),
        };
        let peers = Vec::with_capacity(config.max_peers.min(64));
        let counters = Counters::default();
        Self { config, peers, announcer, refusals: Vec::new(), refusal_at: now, closed: false, counters }
    }

    /// Takes a control frame, private memory, that came from an address.
    ///
    /// # Errors
    /// Why it was not understood; then nothing changed.
    pub fn handle(
        &mut self,
        from: A,
        bytes: &[u8],
        now: u64,
        mut tell: impl FnMut(Event<A>),
    ) -> Result<Message, Cause> {
        let control = Control::parse(bytes)?;
        let message = control.message;
        if self.closed {
            return Ok(message);
        }
        if let Some(count) = self.counters.received.get_mut(message.index()) {
            *count = count.saturating_add(1);
        }
        if control.node == self.config.node && control.session == self.config.session {
            self.counters.reflected = self.counters.reflected.saturating_add(1);
            return Ok(message);
        }
        if message == Message::Bye {
            self.bye(from, &control, now, &mut tell);
            return Ok(message);
        }
        let taken = self.peers.iter().any(|peer| peer.node == control.node && peer.address != from);
        if taken || control.node == self.config.node {
            self.counters.duplicate_node = self.counters.duplicate_node.saturating_add(1);
            self.refuse(from, &control, Reason::Duplicate, &mut tell);
            return Ok(message);
        }
        match message {
            Message::Hello => self.hello(from, &control, now, &mut tell),
            Message::HelloAck => self.hello_ack(from, &control, now, &mut tell),
            Message::Keepalive | Message::Bye => self.keepalive(from, &control, now, &mut tell),
        }
        Ok(message)
    }

    /// A valid aggregate came from an address: its sender lives.
    #[inline]
    pub fn heard(&mut self, from: A, now: u64) {
        if let Some(peer) = self.peers.iter_mut().find(|peer| peer.address == from) {
            peer.heard = now;
        }
    }

    /// Lets time pass: peers that were silent for three keepalives are gone.
    pub fn tick(&mut self, now: u64, mut tell: impl FnMut(Event<A>)) {
        while let Some(i) = self.peers.iter().position(|peer| now >= peer.silent_at()) {
            self.counters.silent = self.counters.silent.saturating_add(1);
            self.remove(i, Down::Silent, now, &mut tell);
        }
    }

    /// When to call [`tick`](Self::tick) and [`poll_transmit`](Self::poll_transmit) at the latest, if nothing comes before. A time that is
    /// past means now.
    #[must_use]
    pub fn timeout(&self) -> Option<u64> {
        let refusal = (!self.refusals.is_empty()).then_some(self.refusal_at);
        let announcer = self.announcer.filter(|_| self.announces()).map(|announcer| announcer.next);
        let peers = self.peers.iter().map(Peer::timeout);
        peers.chain(refusal).chain(announcer).min()
    }

    /// Says BYE to all peers and takes no more notice of what comes. What is to be sent is fetched by
    /// [`poll_transmit`](Self::poll_transmit).
    pub fn close(&mut self, mut tell: impl FnMut(Event<A>)) {
        self.closed = true;
        self.announcer = None;
        self.refusals.clear();
        for peer in self.peers.drain(..) {
            self.refusals.push(Refusal { address: peer.address, session: peer.session, reason: Reason::Closing });
            tell_down(&peer, Down::Closed, &mut tell);
        }
        self.refusal_at = 0;
    }

    /// Forgets all peers without a word, as when the other end was reset, and begins under a new session.
    pub fn reset(&mut self, session: u32, now: u64, mut tell: impl FnMut(Event<A>)) {
        for peer in self.peers.drain(..) {
            tell_down(&peer, Down::Restarted, &mut tell);
        }
        self.config.session = session;
        self.refusals.clear();
        self.closed = false;
        self.begin_anew(now);
    }

    /// Who is known at an address.
    #[must_use]
    pub fn peer(&self, address: A) -> Option<&Peer<A>> {
        self.peers.iter().find(|peer| peer.address == address)
    }

    /// All that are known.
    pub fn peers(&self) -> impl Iterator<Item = &Peer<A>> {
        self.peers.iter()
    }

    /// How often what happened.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    fn hello(&mut self, from: A, control: &Control<'_>, now: u64, tell: &mut impl FnMut(Event<A>)) {
        let Some(offer) = control.offer else { return };
        // If it has just been asked by its address, that counts.
        let asked =
            self.announcer.filter(|_| self.config.announce == Announce::Peer(from) && self.peer(from).is_none());
        let Some(peer) = self.meet(from, control, &offer, now, tell) else { return };
        peer.ack_due = true;
        if !peer.acked && peer.hello.is_none() {
            peer.hello = Some(asked.map_or_else(|| Backoff::new(now), |asked| asked.soon(now)));
        }
    }

    fn hello_ack(&mut self, from: A, control: &Control<'_>, now: u64, tell: &mut impl FnMut(Event<A>)) {
        let Some(offer) = control.offer else { return };
        let asked = self.announcer.is_some() || self.peer(from).is_some_and(|peer| peer.hello.is_some());
        if control.peer_session != self.config.session || !asked && self.peer(from).is_none() {
            self.counters.stale = self.counters.stale.saturating_add(1);
            return;
        }
        let Some(peer) = self.meet(from, control, &offer, now, tell) else { return };
        peer.hello = None;
        if !peer.acked {
            peer.acked = true;
            tell(Event::Up { address: from, node: peer.node, grant: peer.grant });
        }
    }

    fn keepalive(&mut self, from: A, control: &Control<'_>, now: u64, tell: &mut impl FnMut(Event<A>)) {
        let Some(i) = self.peers.iter().position(|peer| peer.address == from) else {
            self.owe(Refusal { address: from, session: control.session, reason: Reason::NoSession });
            return;
        };
        let Some(peer) = self.peers.get_mut(i) else { return };
        if control.session == peer.session && control.node == peer.node && control.peer_session == self.config.session {
            peer.heard = now;
        } else if control.session == peer.session || peer.is_retired(control.session, now) {
            self.counters.stale = self.counters.stale.saturating_add(1);
        } else {
            // It has started anew, and what it can do now is not said here.
            self.remove(i, Down::Restarted, now, tell);
            self.owe(Refusal { address: from, session: control.session, reason: Reason::NoSession });
        }
    }

    fn bye(&mut self, from: A, control: &Control<'_>, now: u64, tell: &mut impl FnMut(Event<A>)) {
        let reason = control.reason.unwrap_or(Reason::Other(0));
        let known = self.peers.iter().position(|peer| peer.address == from);
        let peer = known.and_then(|i| self.peers.get(i));
        let ours = control.peer_session == self.config.session;
        let believed = match peer {
            Some(peer) => !peer.is_retired(control.session, now) && (ours || control.session == peer.session),
            None => ours,
        };
        if !believed {
            self.counters.stale = self.counters.stale.saturating_add(1);
            return;
        }
        let refused = !matches!(reason, Reason::Closing | Reason::NoSession);
        if refused {
            tell(Event::RefusedBy { address: from, node: control.node, reason });
        }
        if let Some(i) = known {
            let announcer = self.announcer;
            self.remove(i, Down::Bye(reason), now, tell);
            if let (true, Some(mut patient)) = (refused, announcer) {
                // Who refuses is not asked again at once.
                patient.wait_from(now);
                self.announcer = Some(patient);
            }
        }
    }

    /// The peer that a HELLO or an ACK is from, as new if it was not known or has started anew. `None` if it is refused or the frame is late.
    fn meet(
        &mut self,
        from: A,
        control: &Control<'_>,
        offer: &Offer,
        now: u64,
        tell: &mut impl FnMut(Event<A>),
    ) -> Option<&mut Peer<A>> {
        let known = self.peers.iter().position(|peer| peer.address == from);
        let mut retired = None;
        if let Some(peer) = known.and_then(|i| self.peers.get(i)) {
            if peer.is_retired(control.session, now) {
                self.counters.stale = self.counters.stale.saturating_add(1);
                return None;
            }
            let same = peer.session == control.session && peer.node == control.node && peer.offer == *offer;
            if !same && peer.session != control.session {
                retired = Some((peer.session, now.saturating_add(peer.grant.keepalive.saturating_mul(MISSED))));
            }
            if !same && let Some(i) = known {
                self.remove(i, Down::Restarted, now, tell);
            }
        }
        let Some(grant) = self.config.offer.grant(offer) else {
            self.counters.incompatible = self.counters.incompatible.saturating_add(1);
            self.refuse(from, control, Reason::Incompatible, tell);
            return None;
        };
        let i = match self.peers.iter().position(|peer| peer.address == from) {
            Some(i) => i,
            None if self.peers.len() >= self.config.max_peers => {
                self.counters.peers_full = self.counters.peers_full.saturating_add(1);
                self.refuse(from, control, Reason::Full, tell);
                return None;
            }
            None => {
                self.peers.push(Peer::new(from, control, *offer, grant, retired, now));
                tell(Event::Accept { address: from, node: control.node });
                self.peers.len().saturating_sub(1)
            }
        };
        let peer = self.peers.get_mut(i)?;
        peer.heard = now;
        Some(peer)
    }

    fn remove(&mut self, i: usize, why: Down, now: u64, tell: &mut impl FnMut(Event<A>)) {
        if i < self.peers.len() {
            let peer = self.peers.remove(i);
            tell_down(&peer, why, tell);
            self.begin_anew(now);
        }
    }

    fn begin_anew(&mut self, now: u64) {
        if !matches!(self.config.announce, Announce::Never) {
            self.announcer = Some(Backoff::new(now));
        }
    }

    fn refuse(&mut self, from: A, control: &Control<'_>, reason: Reason, tell: &mut impl FnMut(Event<A>)) {
        tell(Event::Refused { address: from, node: control.node, reason });
        self.owe(Refusal { address: from, session: control.session, reason });
    }

    fn owe(&mut self, refusal: Refusal<A>) {
        self.refusals.retain(|other| other.address != refusal.address);
        if self.refusals.len() < REFUSALS {
            self.refusals.push(refusal);
        }
    }
}

fn tell_down<A: Copy>(peer: &Peer<A>, why: Down, tell: &mut impl FnMut(Event<A>)) {
    tell(Event::Down { address: peer.address, node: peer.node, why });
}

impl Message {
    /// Position in [`Counters::received`].
    const fn index(self) -> usize {
        (self as usize).saturating_sub(1)
    }
}
