// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The negotiation: what a link says to the other end, and hears from it.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};

use aggregation::encapsulation::in_ethernet;
use aggregation::negotiation::{Announce, Config, Event as Heard, Link, MAX_CONTROL};
use aggregation::wire::ETHERNET;

use super::{Aggregation, Terms};
use crate::link::{Event, WhyPlain};

/// Addresses of what goes to the other end of the link: placeholders, which nobody looks at who knows what the frame is. Of
/// those who do not, bridges forward nothing to such a destination (IEEE 802.1D, 7.12.6), so that nobody beyond an unaware
/// one is spoken to, and learn nothing that a station could have.
const ADDRESSES: [u8; 12] = [0x01, 0x80, 0xc2, 0, 0, 0x0e, 2, 0, 0, 0, 0, 0];

/// Events that nobody has asked for yet.
const MOST_EVENTS: usize = 16;

/// One end of the conversation.
#[derive(Debug)]
pub(crate) struct Speaker {
    config: Aggregation,
    /// `None` while no backend is there.
    link: Option<Link<()>>,
    events: VecDeque<Event>,
}

impl Speaker {
    pub(crate) fn new(config: Aggregation) -> Self {
        Self { config, link: None, events: VecDeque::new() }
    }

    /// A backend is there: begins under a new session. Receive buffers hold frames of `capacity` bytes.
    pub(crate) fn begin(&mut self, capacity: u32, now: u64) {
        self.events.clear();
        let config = Config {
            node: self.config.node,
            session: 1 | u32::from(random()) << 16 | u32::from(random()),
            offer: self.config.offer(capacity),
            name: self.config.name.clone().into_bytes(),
            announce: Announce::Peer(()),
            max_peers: 1,
        };
        self.link = Some(Link::new(config, now));
    }

    /// The backend is gone, and with it what was agreed on.
    pub(crate) fn end(&mut self) {
        self.link = None;
        self.events.clear();
    }

    /// A control frame came, with its Ethernet header.
    pub(crate) fn hear(&mut self, frame: &[u8], now: u64) {
        let Some(link) = &mut self.link else { return };
        let Some(at) = in_ethernet(frame, self.config.ether_type) else { return };
        let events = &mut self.events;
        // One that makes no sense changes nothing.
        let _ = link.handle((), frame.get(at..).unwrap_or(&[]), now, |heard| note(events, heard));
    }

    /// Aggregates came: the other end lives.
    pub(crate) fn heard(&mut self, now: u64) {
        if let Some(link) = &mut self.link {
            link.heard((), now);
        }
    }

    /// Lets time pass.
    pub(crate) fn tick(&mut self, now: u64) {
        if let Some(link) = &mut self.link {
            let events = &mut self.events;
            link.tick(now, |heard| note(events, heard));
        }
    }

    /// Says BYE, and nothing more but that.
    pub(crate) fn close(&mut self) {
        if let Some(link) = &mut self.link {
            link.close(|_| {});
        }
    }

    /// The next frame to be sent, if one is due.
    pub(crate) fn next_frame(&mut self, now: u64) -> Option<Vec<u8>> {
        let mut frame = vec![0; ETHERNET + MAX_CONTROL];
        let ((), len) = self.link.as_mut()?.poll_transmit(now, frame.get_mut(ETHERNET..)?)?;
        frame.truncate(ETHERNET + len);
        *frame.first_chunk_mut()? = ethernet(&self.config);
        Some(frame)
    }

    /// What is agreed on now.
    pub(crate) fn terms(&self) -> Terms {
        let peer = self.link.as_ref().and_then(|link| link.peer(()));
        Terms { accept: peer.is_some(), send: peer.and_then(|peer| peer.may_send().copied()) }
    }

    /// What happened, oldest first.
    pub(crate) fn event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }
}

/// The Ethernet header of a frame of ours.
pub(crate) fn ethernet(config: &Aggregation) -> [u8; ETHERNET] {
    let mut header = [0; ETHERNET];
    let bytes = ADDRESSES.into_iter().chain(config.ether_type.to_be_bytes());
    header.iter_mut().zip(bytes).for_each(|(place, byte)| *place = byte);
    header
}

/// A random number: of a new hasher, which has random keys.
pub(crate) fn random() -> u16 {
    let [low, high, ..] = RandomState::new().hash_one(()).to_le_bytes();
    u16::from_le_bytes([low, high])
}

fn note(events: &mut VecDeque<Event>, heard: Heard<()>) {
    let event = match heard {
        Heard::Up { node, grant, .. } => Event::Aggregating { node, max_bytes: grant.max_bytes },
        Heard::Down { node, why, .. } => Event::Plain { node, why: WhyPlain::Ended(why) },
        Heard::Refused { node, reason, .. } | Heard::RefusedBy { node, reason, .. } => {
            Event::Plain { node, why: WhyPlain::Refused(reason) }
        }
        Heard::Accept { .. } => return,
    };
    if events.len() == MOST_EVENTS {
        events.pop_front();
    }
    events.push_back(event);
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Lets two ends speak until neither has anything to say.
    fn converse(a: &mut Speaker, b: &mut Speaker, now: u64) -> usize {
        let mut frames = 0;
        loop {
            let (from_a, from_b) = (a.next_frame(now), b.next_frame(now));
            if from_a.is_none() && from_b.is_none() {
                return frames;
            }
            from_a.iter().for_each(|frame| b.hear(frame, now));
            from_b.iter().for_each(|frame| a.hear(frame, now));
            frames += from_a.into_iter().chain(from_b).count();
        }
    }

    fn pair() -> (Speaker, Speaker) {
        let speaker = |node, rx_max_bytes| Aggregation { node, rx_max_bytes, ..Aggregation::default() };
        let (mut a, mut b) = (Speaker::new(speaker(1, 9000)), Speaker::new(speaker(2, 16384)));
        a.begin(20_000, 0);
        b.begin(4_000, 0);
        (a, b)
    }

    #[test]
    fn both_agree_on_the_least() {
        let (mut a, mut b) = pair();
        assert_eq!(a.terms(), Terms::default());
        assert!(converse(&mut a, &mut b, 0) >= 4);
        for speaker in [&mut a, &mut b] {
            assert!(speaker.terms().accept);
            assert_eq!(speaker.terms().send.unwrap().max_bytes, 3970);
            assert!(matches!(speaker.event(), Some(Event::Aggregating { max_bytes: 3970, .. })));
            assert!(speaker.event().is_none());
        }
    }

    #[test]
    fn silence_goodbye_and_a_new_backend_end_it() {
        let (mut a, mut b) = pair();
        converse(&mut a, &mut b, 0);
        a.event();
        a.tick(3 * SECOND);
        assert_eq!(a.terms(), Terms::default());
        assert!(matches!(a.event(), Some(Event::Plain { node: 2, .. })));
        // Whatever b still thinks: it is agreed on anew.
        converse(&mut a, &mut b, 3 * SECOND);
        converse(&mut a, &mut b, 5 * SECOND);
        assert!(a.terms().send.is_some() && b.terms().send.is_some());

        b.close();
        while let Some(frame) = b.next_frame(6 * SECOND) {
            a.hear(&frame, 6 * SECOND);
        }
        assert_eq!(a.terms(), Terms::default());
        a.end();
        assert!(a.next_frame(7 * SECOND).is_none() && a.event().is_none());
    }

    #[test]
    fn aggregates_are_signs_of_life() {
        let (mut a, mut b) = pair();
        converse(&mut a, &mut b, 0);
        for time in 1..10 {
            a.heard(time * SECOND);
            a.tick(time * SECOND + SECOND / 2);
        }
        assert!(a.terms().send.is_some());
    }

    #[test]
    fn rubbish_changes_nothing() {
        let (mut a, mut b) = pair();
        let hello = b.next_frame(0).unwrap();
        for len in 0..hello.len() {
            a.hear(&hello[..len], 0);
        }
        for at in 14..hello.len() {
            let mut damaged = hello.clone();
            damaged[at] ^= 0x10;
            a.hear(&damaged, 0);
        }
        assert_eq!(a.terms(), Terms::default());
        a.hear(&hello, 0);
        assert!(a.terms().accept);
    }
}
