// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Random conversations: who speaks to whom, in which order, with what TCP flags. The frames of the other end
//! are answers to what the switch made of the first end's.

use std::fmt;

use packet::Tunnel;
use proptest::prelude::*;
use proptest::sample::select;
use switch::model::{Direction, Edit};

use crate::frame::{Body, Frame, Outer, Payload};
use crate::policies::{CLIENT_PORTS, SERVICES, beginning, change, local, remote, v4};

/// All that happens at a port.
#[derive(Clone)]
pub(crate) struct Story {
    pub(crate) policy: Vec<Edit>,
    pub(crate) conversations: Vec<Conversation>,
    pub(crate) steps: Vec<Step>,
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// The next move of a conversation, by number.
    Move(usize),
    /// So many of the driver's steps of time pass.
    Wait(u32),
    Change(Vec<Edit>),
}

/// Two ends that speak with each other.
#[derive(Clone, Debug)]
pub(crate) struct Conversation {
    /// That of the end that speaks first.
    pub(crate) direction: Direction,
    /// What it says first.
    pub(crate) frame: Frame,
    /// What is said in turn, again and again.
    pub(crate) moves: Vec<Move>,
    /// Where numbers of TCP begin.
    pub(crate) numbers: [u32; 2],
}

/// One packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Move {
    /// 0 is the end that speaks first.
    pub(crate) side: usize,
    pub(crate) flags: u8,
    pub(crate) len: usize,
    /// What is added to the honest sequence number.
    pub(crate) ahead: i32,
    /// It is an ICMP error instead, about what this end got last: who sends it, and how much is quoted.
    pub(crate) error: Option<(Complainer, usize)>,
    /// It comes in fragments, these; of UDP and what has no sequence numbers only.
    pub(crate) pieces: &'static [std::ops::Range<usize>],
}

/// Ways to cut a datagram of up to 40 bytes, with bytes that come late, twice, or never.
pub(crate) const PIECES: [&[std::ops::Range<usize>]; 8] = [
    &[0..16, 16..100],
    &[0..16, 16..24, 24..100],
    &[0..8, 16..100, 8..16],
    &[8..100, 0..8, 8..100],
    &[0..16, 16..24, 16..24, 24..100],
    &[0..16, 8..100, 16..100],
    &[0..8, 0..8, 8..100],
    &[0..16, 24..100, 16..32],
];

/// Who sends an ICMP error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Complainer {
    End,
    Router,
}

/// A line for each thing, whatever is asked for: it is read by people.
impl fmt::Debug for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f)?;
        self.policy.iter().try_for_each(|edit| print_edit(f, edit))?;
        for (number, about) in self.conversations.iter().enumerate() {
            let (words, rest) = about.frame.in_words(about.direction);
            write!(f, "{number}: {:?} {words} {rest:?} {:?}:", about.direction, about.numbers)?;
            for Move { side, flags, len, ahead, error, pieces } in &about.moves {
                let error = error.map_or_else(String::new, |error| format!("!{error:?}"));
                write!(f, " {side}/{flags:#x}+{len}{ahead:+}{error}{}", if pieces.is_empty() { "" } else { "~" })?;
            }
            writeln!(f)?;
        }
        for (at, step) in self.steps.iter().enumerate() {
            match step {
                Step::Move(number) => writeln!(f, "{at}: move {}", number % self.conversations.len())?,
                Step::Wait(ticks) => writeln!(f, "{at}: wait {ticks} ticks")?,
                Step::Change(edits) => {
                    writeln!(f, "{at}: change")?;
                    edits.iter().try_for_each(|edit| print_edit(f, edit))?;
                }
            }
        }
        Ok(())
    }
}

fn print_edit(f: &mut fmt::Formatter<'_>, edit: &Edit) -> fmt::Result {
    let Edit::PutGroup { layer, group } = edit else { return writeln!(f, "    {}", brief(edit)) };
    writeln!(f, "    {layer}: group {} {} when {} lpm {:?}", group.name, group.order, brief(&group.when), group.lpm)?;
    for rule in &group.rules {
        let terminating = if rule.terminating { " terminating" } else { "" };
        let (conditions, action) = (brief(&rule.conditions), brief(&rule.action));
        writeln!(
            f,
            "      {} {} {:?} {conditions} -> {action}{terminating}",
            rule.name, rule.priority, rule.direction
        )?;
    }
    Ok(())
}

/// Debug output on one line, without what always is the same.
fn brief(value: &impl fmt::Debug) -> String {
    let text = format!("{value:?}");
    let text = text.split("Map(Mappings").next().unwrap().to_owned();
    ["Conditions", "Condition ", "subject: ", "values: ", "Name"].iter().fold(text, |text, word| text.replace(word, ""))
}

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

pub(crate) fn story(steps: usize) -> impl Strategy<Value = Story> {
    let step = prop_oneof![
        30 => (0usize..8).prop_map(Step::Move),
        2 => select(vec![1u32, 3, 12, 30, 50, 80, 130, 200]).prop_map(Step::Wait),
        2 => change().prop_map(Step::Change),
    ];
    (beginning(), prop::collection::vec(conversation(), 1..=6), prop::collection::vec(step, 1..steps))
        .prop_map(|(policy, conversations, steps)| Story { policy, conversations, steps })
}

fn conversation() -> impl Strategy<Value = Conversation> {
    let direction = select(vec![Direction::Out, Direction::Out, Direction::In]);
    let version = select(vec![4u8, 4, 4, 6]);
    (direction, version).prop_flat_map(|(direction, version)| {
        let moves = prop_oneof![3 => good_tcp(), 1 => bad_tcp()];
        let pieces = prop::option::weighted(0.25, select(&PIECES[..]));
        let errors = prop::collection::vec((any::<prop::sample::Index>(), error()), 0..3);
        (Just(direction), frame(direction, version), moves, errors, any::<[u32; 2]>(), pieces).prop_map(
            |(direction, frame, mut moves, errors, numbers, pieces)| {
                let tcp = matches!(frame.body, Body::Ip { payload: Payload::Tcp { .. }, .. });
                for said in moves.iter_mut().filter(|_| !tcp) {
                    said.pieces = pieces.unwrap_or_default();
                }
                for (at, error) in errors {
                    moves.insert(at.index(moves.len() + 1), error);
                }
                Conversation { direction, frame, moves, numbers }
            },
        )
    })
}

/// The first frame. What of it is no part of its tuple is given by the tuple, mostly.
fn frame(direction: Direction, version: u8) -> impl Strategy<Value = Frame> {
    let (mine, theirs) = match direction {
        Direction::Out => (local(version), remote(version)),
        Direction::In => (remote(version), [local(version), vec![remote(version).pop().unwrap()]].concat()),
    };
    let ports = (select(&CLIENT_PORTS[..]), select(&SERVICES[..])).prop_map(|(from, to)| [from, to]);
    let payload = (ports, 0usize..3, 0u8..10).prop_map(|(ports, len, kind)| match kind {
        0..=4 => Payload::Tcp { ports, flags: SYN, seq: 0, ack: 0, len: 0 },
        5..=7 => Payload::Udp { ports, len },
        8 => Payload::Echo { reply: false, id: ports[0], len },
        _ => Payload::Other { protocol: 132, len: len + 4 },
    });
    let ip = (select(mine), select(theirs), payload, select(vec![64u8, 64, 64, 2, 1]), 0u8..4).prop_map(
        |(source, destination, payload, ttl, ecn)| Body::Ip { source, destination, class: ecn, ttl, payload },
    );
    let arp = Just(Body::Arp { sender: v4(10, 0, 0, 1), target: v4(198, 51, 100, 1) });
    let tunnel = select(vec![Tunnel::Vxlan, Tunnel::Geneve, Tunnel::Nvgre]);
    let outer =
        (tunnel, select(vec![5u32, 6]), 0u8..4, any::<bool>()).prop_map(|(tunnel, key, class, checksum)| Outer {
            class,
            checksum: checksum && tunnel != Tunnel::Nvgre,
            source_port: if tunnel == Tunnel::Nvgre { 7 } else { 50_007 },
            ..Outer::new(tunnel, key, v4(203, 0, 113, 1), v4(203, 0, 113, 9))
        });
    let tunnelled = if direction == Direction::In { 0.2 } else { 0.02 };
    (prop_oneof![12 => ip, 1 => arp], prop::option::weighted(tunnelled, outer), 0u8..8).prop_map(
        move |(body, outer, tags)| {
            let vlans = match tags {
                0 => vec![5],
                1 => vec![5, 6],
                _ => Vec::new(),
            };
            Frame { outer, vlans, ..Frame::new(direction, body) }
        },
    )
}

fn error() -> impl Strategy<Value = Move> {
    let complainer = select(vec![Complainer::End, Complainer::Router]);
    (0usize..2, complainer, select(vec![28usize, 48, 1500]))
        .prop_map(|(side, complainer, quoted)| Move { error: Some((complainer, quoted)), ..tcp(side, ACK, 0) })
}

fn tcp(side: usize, flags: u8, len: usize) -> Move {
    Move { side, flags, len, ahead: 0, error: None, pieces: &[] }
}

/// A connection from SYN to the last ACK, with some things lost and some said twice.
fn good_tcp() -> impl Strategy<Value = Vec<Move>> {
    let data = prop::collection::vec((0usize..2, 0usize..5).prop_map(|(side, len)| tcp(side, ACK, len)), 0..4);
    let closer = 0usize..2;
    (data, closer, prop::collection::vec((any::<prop::sample::Index>(), 0u8..3), 0..3), 0usize..4).prop_map(
        |(data, closer, mishaps, skipped)| {
            let mut all = vec![tcp(0, SYN, 0), tcp(1, SYN | ACK, 0), tcp(0, ACK, 0)];
            all.extend(data);
            let other = 1 - closer;
            all.extend([tcp(closer, FIN | ACK, 0), tcp(other, ACK, 0), tcp(other, FIN | ACK, 0), tcp(closer, ACK, 0)]);
            if skipped == 0 {
                // Picked up midstream.
                all.drain(..3);
            }
            for (at, mishap) in mishaps {
                let at = at.index(all.len());
                match mishap {
                    0 => drop(all.remove(at)),
                    1 => all.insert(at, all[at]),
                    _ => all.insert(at, tcp(at % 2, RST | ACK, 0)),
                }
            }
            all
        },
    )
}

fn bad_tcp() -> impl Strategy<Value = Vec<Move>> {
    let flags = select(vec![SYN, SYN | ACK, ACK, FIN | ACK, RST, RST | ACK, 0, ACK, SYN]);
    let ahead = select(vec![0, 0, 0, -1, 1, 5000, -3, i32::MAX]);
    let any = (0usize..2, flags, 0usize..3, ahead)
        .prop_map(|(side, flags, len, ahead)| Move { ahead, ..tcp(side, flags, len) });
    prop::collection::vec(any, 2..9)
}
