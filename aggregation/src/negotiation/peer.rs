// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is known of a peer, and its timers.

use super::{Control, Grant, Offer};

/// Keepalives that may be missed.
pub(super) const MISSED: u64 = 3;
/// How long the first HELLO waits for its ACK, and how long later ones wait at most, in nanoseconds.
const FIRST_WAIT: u64 = 1_000_000_000;
const LONGEST_WAIT: u64 = 30_000_000_000;
/// How long an ACK may be on its way when the HELLOs of both sides crossed.
const CROSSING: u64 = 50_000_000;

/// A peer. That it is known means that aggregates from it are taken.
#[derive(Clone, Debug)]
pub struct Peer<A> {
    pub(super) address: A,
    pub(super) node: u16,
    pub(super) session: u32,
    /// The session before this one, and until when its frames are known to be late.
    pub(super) retired: Option<(u32, u64)>,
    pub(super) offer: Offer,
    pub(super) grant: Grant,
    pub(super) name: Vec<u8>,
    /// Our HELLO was acknowledged.
    pub(super) acked: bool,
    /// Our HELLO, while it is not acknowledged.
    pub(super) hello: Option<Backoff>,
    pub(super) ack_due: bool,
    pub(super) keepalive_at: u64,
    pub(super) heard: u64,
}

/// When something is sent next, and how long to wait after that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    pub(super) next: u64,
    wait: u64,
}

impl<A: Copy> Peer<A> {
    pub(super) fn new(
        address: A,
        control: &Control<'_>,
        offer: Offer,
        grant: Grant,
        retired: Option<(u32, u64)>,
        now: u64,
    ) -> Self {
        Self {
            address,
            node: control.node,
            session: control.session,
            retired,
            offer,
            grant,
            name: control.name.to_vec(),
            acked: false,
            hello: None,
            ack_due: false,
            keepalive_at: now.saturating_add(grant.keepalive),
            heard: now,
        }
    }

    /// Its address.
    #[must_use]
    pub const fn address(&self) -> A {
        self.address
    }

    /// Its node id.
    #[must_use]
    pub const fn node(&self) -> u16 {
        self.node
    }

    /// What it calls itself.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// What aggregates to it may be like; `None` if it may not be sent any.
    #[must_use]
    pub fn may_send(&self) -> Option<&Grant> {
        self.acked.then_some(&self.grant)
    }

    /// When it was heard last.
    #[must_use]
    pub const fn heard(&self) -> u64 {
        self.heard
    }

    pub(super) const fn silent_at(&self) -> u64 {
        self.heard.saturating_add(self.grant.keepalive.saturating_mul(MISSED))
    }

    pub(super) fn is_retired(&self, session: u32, now: u64) -> bool {
        self.retired.is_some_and(|(retired, until)| retired == session && now < until && session != self.session)
    }

    pub(super) fn timeout(&self) -> u64 {
        if self.ack_due {
            return 0;
        }
        let hello = self.hello.map_or(u64::MAX, |hello| hello.next);
        self.silent_at().min(self.keepalive_at).min(hello)
    }
}

impl Backoff {
    /// At once, and then after a second.
    pub(super) const fn new(now: u64) -> Self {
        Self { next: now, wait: FIRST_WAIT }
    }

    /// Begins anew, with what would be next; if that is not soon, the answer has been lost, or nobody was there to give it.
    pub(super) fn soon(self, now: u64) -> Self {
        Self { next: self.next.min(now.saturating_add(CROSSING)), wait: FIRST_WAIT }
    }

    /// Takes what is due now, and at least `floor` passes until the next.
    pub(super) fn take(&mut self, now: u64, floor: u64) -> bool {
        if now < self.next {
            return false;
        }
        self.next = now.saturating_add(self.wait.max(floor));
        self.wait = self.wait.saturating_mul(2).min(LONGEST_WAIT);
        true
    }

    /// Waits as long as it would have, from now on.
    pub(super) const fn wait_from(&mut self, now: u64) {
        self.next = now.saturating_add(self.wait);
    }
}

/// How often a group is greeted while there are peers.
pub(super) const SLOW: u64 = LONGEST_WAIT;
