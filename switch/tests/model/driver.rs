// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Tells a story to a switch and to the interpreter, and compares after every burst: bytes, verdicts, all
//! counters, the number of connections.

use std::collections::VecDeque;

use switch::model::{Direction, PortPolicy};

use crate::connections::SECOND;
use crate::frame::{Body, Frame, Payload};
use crate::interpreter::{Interpreter, Outcome};
use crate::policies::{START, changed, v4};
use crate::switch_under_test::Switch;
use crate::traffic::{Complainer, Conversation, Move, Step, Story};
use crate::wire;

/// A step of time. No whole number of them comes near the end of a connection: what is compared must not hang on
/// how finely a switch reads its clock.
pub(crate) const TICK: u64 = 700 * SECOND / 1000;

/// A story ends early when more than this may have happened: it would take too long to tell.
pub(crate) const MOST_WORLDS: usize = 100;

/// What happened in a story.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Summary {
    pub(crate) packets: usize,
    pub(crate) forwarded: usize,
    /// Forwarded with other bytes.
    pub(crate) changed: usize,
    pub(crate) dropped: usize,
    pub(crate) parked: usize,
    pub(crate) hairpinned: usize,
    /// Layers passed by an entry of a connection.
    pub(crate) entries: usize,
    /// Most connections at a time.
    pub(crate) connections: usize,
    /// Most worlds at a time.
    pub(crate) worlds: usize,
    pub(crate) changes: usize,
    /// ICMP errors that were translated.
    pub(crate) errors: usize,
    /// Later fragments that were let through, and changed.
    pub(crate) fragments: usize,
}

/// # Errors
/// What the switch did that the definition does not allow.
pub(crate) fn tell(story: &Story, switch: &mut dyn Switch) -> Result<Summary, String> {
    let mut teller = Teller {
        switch,
        judge: Interpreter::new(),
        policy: PortPolicy::empty(),
        now: START,
        talks: story.conversations.iter().map(Talk::new).collect(),
        burst: Vec::new(),
        summary: Summary::default(),
        swept: true,
        log: String::new(),
    };
    teller.set_policy(changed(&PortPolicy::empty(), &story.policy));
    let mut told = Ok(());
    for (at, step) in story.steps.iter().enumerate() {
        if teller.judge.worlds().len() > MOST_WORLDS {
            break;
        }
        told = told.and_then(|()| teller.step(step).map_err(|why| format!("step {at}: {why}")));
    }
    told = told.and_then(|()| teller.flush().map_err(|why| format!("at the end: {why}")));
    match told {
        Ok(()) => Ok(teller.summary),
        Err(why) => Err(format!("{why}\n{}{}", teller.log, teller.switch.describe())),
    }
}

struct Teller<'a> {
    switch: &'a mut dyn Switch,
    judge: Interpreter,
    policy: PortPolicy,
    now: u64,
    talks: Vec<Talk>,
    /// What is to be sent: the conversation, its move, the direction and the frame.
    burst: Vec<(usize, Move, Direction, Vec<u8>)>,
    summary: Summary,
    /// Whether what is over has been looked after.
    swept: bool,
    /// What happened, in words.
    log: String,
}

/// Where a conversation stands.
pub(crate) struct Talk {
    about: Conversation,
    next: usize,
    /// What is left to say of the last move.
    queue: VecDeque<(Move, Direction, Vec<u8>)>,
    /// Identification of the last datagram that came in fragments.
    id: u16,
    /// Each end's packet as it last left the switch.
    emitted: [Option<Frame>; 2],
    /// The next number of each end, as far as the other end got its packets.
    numbers: [u32; 2],
}

impl Teller<'_> {
    fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Move(number) => {
                let number = number % self.talks.len();
                // What the other end does depends on what became of what this one said.
                let speaks = self.burst.iter().any(|(other, ..)| *other == number);
                if speaks && self.talks[number].queue.is_empty() {
                    self.flush()?;
                }
                let (said, direction, frame) = self.talks[number].speak();
                if self.burst.iter().any(|(_, _, way, _)| *way != direction) {
                    self.flush()?;
                }
                self.burst.push((number, said, direction, frame));
                Ok(())
            }
            Step::Wait(ticks) => {
                self.flush()?;
                for tick in 1..=*ticks {
                    self.now += TICK;
                    // Now and then a packet finds what nobody has looked after yet.
                    self.swept = tick < *ticks || ticks % 2 == 0;
                    if self.swept {
                        self.switch.sweep(self.now);
                    }
                }
                self.compare()
            }
            Step::Change(edits) => {
                self.flush()?;
                let policy = changed(&self.policy, edits);
                if policy != self.policy {
                    self.summary.changes += 1;
                    self.set_policy(policy);
                }
                Ok(())
            }
        }
    }

    fn set_policy(&mut self, policy: PortPolicy) {
        self.switch.set_policy(&policy);
        self.judge.set_policy(policy.clone());
        self.policy = policy;
    }

    /// Sends what was said, as one burst.
    fn flush(&mut self) -> Result<(), String> {
        let burst = std::mem::take(&mut self.burst);
        let Some((_, _, direction, _)) = burst.first() else { return Ok(()) };
        let frames: Vec<Vec<u8>> = burst.iter().map(|(_, _, _, frame)| frame.clone()).collect();
        let outcomes = self.switch.process_all(*direction, frames, self.now);
        assert_eq!(outcomes.len(), burst.len(), "an outcome for every packet");
        for ((number, said, direction, frame), outcome) in burst.iter().zip(&outcomes) {
            self.log += &in_words(self.now, *direction, frame, outcome);
            self.judge.judge(*direction, frame, self.now, outcome)?;
            self.talks[*number].hear(said, outcome);
            self.sum_up(frame, outcome);
        }
        self.compare()
    }

    /// Everything that can be seen besides packets.
    fn compare(&mut self) -> Result<(), String> {
        if let Some(totals) = self.switch.totals() {
            self.judge.judge_totals(&totals)?;
        }
        if !self.swept {
            return Ok(());
        }
        self.switch.sweep(self.now);
        if let Some(connections) = self.switch.connections() {
            self.judge.judge_connections(connections, self.now)?;
        }
        Ok(())
    }

    fn sum_up(&mut self, frame: &[u8], outcome: &Outcome) {
        let summary = &mut self.summary;
        let count = |counter: &mut usize, holds: bool| *counter += usize::from(holds);
        count(&mut summary.packets, true);
        count(&mut summary.forwarded, matches!(outcome, Outcome::Forwarded(_)));
        count(&mut summary.changed, matches!(outcome, Outcome::Forwarded(after) if *after != frame));
        count(&mut summary.dropped, matches!(outcome, Outcome::Dropped(_)));
        count(&mut summary.parked, matches!(outcome, Outcome::Parked));
        count(&mut summary.hairpinned, matches!(outcome, Outcome::Hairpinned(..)));
        count(
            &mut summary.errors,
            wire::is_error(frame) && matches!(outcome, Outcome::Forwarded(after) if *after != frame),
        );
        let later = wire::part(frame).is_some_and(|part| !part.is_first);
        count(&mut summary.fragments, later && matches!(outcome, Outcome::Forwarded(after) if *after != frame));
        let worlds = self.judge.worlds();
        summary.entries +=
            worlds[0].applied.iter().filter(|applied| applied.place == crate::walk::Place::Entry).count();
        summary.connections = summary.connections.max(worlds[0].connections.len());
        summary.worlds = summary.worlds.max(worlds.len());
    }
}

impl Talk {
    pub(crate) fn new(about: &Conversation) -> Self {
        Self {
            about: about.clone(),
            next: 0,
            queue: VecDeque::new(),
            id: 0,
            emitted: [None, None],
            numbers: about.numbers,
        }
    }

    /// The next packet.
    pub(crate) fn speak(&mut self) -> (Move, Direction, Vec<u8>) {
        if let Some(piece) = self.queue.pop_front() {
            return piece;
        }
        let (said, direction, frame) = self.say();
        let long = match said.pieces {
            [] => None,
            _ => Frame::from_bytes(&frame).map(|frame| lengthened(frame).to_bytes()),
        };
        // Few identifications, so that they are used again.
        self.id = (self.id + 1) % 4;
        let pieces = long.and_then(|long| wire::cut(&long, self.id, said.pieces));
        self.queue.extend(pieces.unwrap_or_else(|| vec![frame]).into_iter().map(|piece| (said, direction, piece)));
        self.queue.pop_front().expect("something is said")
    }

    /// Which way its next packet goes.
    pub(crate) fn way(&self) -> Direction {
        if let Some((_, direction, _)) = self.queue.front() {
            return *direction;
        }
        match self.about.moves[self.next % self.about.moves.len()].side {
            0 => self.about.direction,
            _ => self.about.direction.reversed(),
        }
    }

    fn say(&mut self) -> (Move, Direction, Vec<u8>) {
        let said = self.about.moves[self.next % self.about.moves.len()];
        self.next += 1;
        let first = &self.about.frame;
        let (direction, mut frame) = match said.side {
            0 => (self.about.direction, first.clone()),
            _ => (self.about.direction.reversed(), self.emitted[0].as_ref().unwrap_or(first).answer()),
        };
        if said.side == 1 {
            // What is no part of its tuple is as usual, whatever policy made of the packet that it answers.
            let usual = Frame::new(direction, frame.body.clone());
            (frame.source_mac, frame.destination_mac) = (usual.source_mac, usual.destination_mac);
            frame.vlans.clone_from(&first.vlans);
            if let Body::Ip { class, ttl, .. } = &mut frame.body {
                (*class, *ttl) = (0, 64);
            }
        }
        if let Body::Ip { payload: Payload::Tcp { flags, seq, ack, len, .. }, .. } = &mut frame.body {
            let [mine, other] = if said.side == 0 { self.numbers } else { [self.numbers[1], self.numbers[0]] };
            *flags = said.flags;
            *seq = mine.wrapping_add_signed(said.ahead);
            *ack = if said.flags & 16 == 0 { 0 } else { other };
            *len = said.len;
        }
        if let Some((complainer, quoted)) = said.error
            && let Some(about) = &self.emitted[1 - said.side]
            && let Some(error) = complain(direction, about, complainer, quoted)
        {
            return (said, direction, error.to_bytes());
        }
        (said, direction, frame.to_bytes())
    }

    /// What became of a packet.
    pub(crate) fn hear(&mut self, said: &Move, outcome: &Outcome) {
        let (Outcome::Forwarded(after) | Outcome::Hairpinned(_, after)) = outcome else { return };
        let phantoms = u32::from(said.flags & 1 != 0) + u32::from(said.flags & 2 != 0);
        if said.error.is_some() {
            return;
        }
        if said.ahead == 0 {
            let number = &mut self.numbers[said.side];
            *number = number.wrapping_add(phantoms + u32::try_from(said.len).unwrap());
        }
        if let Some(frame) = Frame::from_bytes(after) {
            self.emitted[said.side] = Some(frame);
        }
    }
}

/// The same with enough to cut.
fn lengthened(mut frame: Frame) -> Frame {
    if let Body::Ip {
        payload: Payload::Udp { len, .. } | Payload::Echo { len, .. } | Payload::Other { len, .. }, ..
    } = &mut frame.body
    {
        *len += 30;
    }
    frame
}

/// An ICMP error about a packet, in the tunnel in which that came.
fn complain(direction: Direction, about: &Frame, complainer: Complainer, quoted: usize) -> Option<Frame> {
    let Body::Ip { source, destination, .. } = about.body else { return None };
    let mut quote = Frame { outer: None, vlans: Vec::new(), ..about.clone() }.to_bytes().split_off(14);
    // Enough for the ports.
    quote.truncate(quoted.max(if source.is_ipv4() { 28 } else { 48 }));
    let router = if source.is_ipv4() { v4(198, 18, 0, 1) } else { source };
    let complainer = if complainer == Complainer::End { destination } else { router };
    let payload = Payload::Error { kind: if source.is_ipv4() { 11 } else { 3 }, quote };
    let body = Body::Ip { source: complainer, destination: source, class: 0, ttl: 64, payload };
    let outer = about.answer().outer;
    Some(Frame { outer, ..Frame::new(direction, body) })
}

/// A line about a packet.
pub(crate) fn in_words(now: u64, direction: Direction, frame: &[u8], outcome: &Outcome) -> String {
    let words = |bytes: &[u8]| match Frame::from_bytes(bytes) {
        Some(frame) => {
            let (base, mut rest) = frame.in_words(direction);
            rest.retain(|_, value| !matches!(&**value, "" | "0" | "64"));
            format!("{base} {rest:?}")
        }
        None => format!("{bytes:02x?}"),
    };
    let became = match outcome {
        Outcome::Forwarded(after) if after == frame => "same".to_owned(),
        Outcome::Forwarded(after) => words(after),
        Outcome::Hairpinned(to, after) => format!("to {to:?}: {}", words(after)),
        Outcome::Dropped(cause) => format!("dropped: {cause}"),
        Outcome::Parked => "waits".to_owned(),
    };
    format!("    {} ms {direction:?} {}\n      => {became}\n", (now - START) / 1_000_000, words(frame))
}
