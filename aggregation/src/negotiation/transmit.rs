// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is to be sent.

use super::peer::SLOW;
use super::{Announce, Control, Link, Message, Refusal};

/// Least time between two refusals, in nanoseconds: strangers cannot make a link speak more often.
const REFUSAL_GAP: u64 = 10_000_000;

impl<A: Copy + Eq> Link<A> {
    /// Writes the next control frame that is due into `to`, which should have [`MAX_CONTROL`](super::MAX_CONTROL) bytes, and says where it
    /// goes and how long it is. Call again until there is none.
    pub fn poll_transmit(&mut self, now: u64, to: &mut [u8]) -> Option<(A, usize)> {
        let (address, message, peer_session, refusal) = self.next_due(now)?;
        if let Some(count) = self.counters.sent.get_mut(message.index()) {
            *count = count.saturating_add(1);
        }
        let greets = matches!(message, Message::Hello | Message::HelloAck);
        let control = Control {
            message,
            node: self.config.node,
            session: self.config.session,
            peer_session,
            offer: greets.then_some(self.config.offer),
            name: if greets { &self.config.name } else { &[] },
            reason: refusal.map(|refusal| refusal.reason),
        };
        let len = control.write(0, to);
        (len > 0).then_some((address, len))
    }

    fn next_due(&mut self, now: u64) -> Option<(A, Message, u32, Option<Refusal<A>>)> {
        if (self.closed || now >= self.refusal_at)
            && let Some(refusal) = self.refusals.pop()
        {
            self.refusal_at = now.saturating_add(REFUSAL_GAP);
            return Some((refusal.address, Message::Bye, refusal.session, Some(refusal)));
        }
        for peer in &mut self.peers {
            let message = if std::mem::take(&mut peer.ack_due) {
                Message::HelloAck
            } else if peer.hello.as_mut().is_some_and(|hello| hello.take(now, 0)) {
                Message::Hello
            } else if now >= peer.keepalive_at {
                peer.keepalive_at = now.saturating_add(peer.grant.keepalive);
                Message::Keepalive
            } else {
                continue;
            };
            return Some((peer.address, message, peer.session, None));
        }
        let floor = if self.peers.is_empty() { 0 } else { SLOW };
        let address = match self.config.announce {
            Announce::Peer(address) | Announce::Group(address) if self.announces() => address,
            _ => return None,
        };
        let due = self.announcer.as_mut().is_some_and(|announcer| announcer.take(now, floor));
        due.then_some((address, Message::Hello, 0, None))
    }

    /// Whether HELLOs go out unasked: to a peer until it is known, to a group for ever.
    pub(super) fn announces(&self) -> bool {
        match self.config.announce {
            Announce::Never => false,
            Announce::Peer(address) => self.peer(address).is_none(),
            Announce::Group(_) => true,
        }
    }
}
