// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What passed a wire in a span of time, decoded by `tools/aggdump.py` and added up by who sent it.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{STATIONS, Wire};

/// What passed a wire.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Who sent frames of the type of aggregates, by MAC address.
    pub senders: BTreeMap<String, Sender>,
    /// Plain frames, by source and destination.
    pub plain: BTreeMap<(String, String), u64>,
    /// Frames that could not be decoded, and damage in others, by cause.
    pub causes: BTreeMap<String, u64>,
}

/// What somebody sent in aggregates.
#[derive(Clone, Debug, Default)]
pub struct Sender {
    /// Aggregates.
    pub aggregates: u64,
    /// The stages that they say they are of, and how many do.
    pub stages: BTreeMap<u64, u64>,
    /// Numbers that are missing between them.
    pub missing: u64,
    /// Bytes of the longest.
    pub longest: u64,
    /// Their groups, in order.
    pub groups: Vec<Group>,
    /// Frames that negotiate, by message and receiver.
    pub control: BTreeMap<(String, String), u64>,
    last: Option<u64>,
}

/// The header of a group, and what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Who put it together.
    pub origin: u64,
    /// Who takes it apart, 0 for the other end of the link.
    pub destination: u64,
    /// Its bytes.
    pub length: u64,
    /// Its packets, in order.
    pub packets: Vec<Inside>,
}

/// A packet in a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inside {
    /// Source address.
    pub from: String,
    /// Destination address.
    pub to: String,
    /// Its bytes.
    pub length: u64,
}

/// Which way something goes on a wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the ToR.
    Up,
    /// From the ToR.
    Down,
}

/// Frames that go one way, and the packets in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Plain frames.
    pub plain: u64,
    /// Aggregates.
    pub aggregates: u64,
    /// Packets in those.
    pub packets: u64,
}

impl Count {
    /// Frames of both sorts.
    pub fn frames(self) -> u64 {
        self.plain + self.aggregates
    }

    /// Packets, each for itself or in an aggregate.
    pub fn all(self) -> u64 {
        self.plain + self.packets
    }
}

impl Ledger {
    /// Adds up what the decoder printed, frame by frame, of what passed in a span (seconds since 1970).
    pub(super) fn new(frames: &[Value], span: RangeInclusive<f64>) -> Result<Self> {
        let mut ledger = Self::default();
        for frame in frames.iter().filter(|frame| frame["time"].as_f64().is_some_and(|time| span.contains(&time))) {
            ledger.add(frame).with_context(|| frame.to_string())?;
        }
        Ok(ledger)
    }

    /// What somebody sent in aggregates, or nothing.
    pub fn sender(&self, mac: &str) -> Sender {
        self.senders.get(mac).cloned().unwrap_or_default()
    }

    /// What went one way on this wire, but for frames that negotiate and what the ends of the wire say themselves.
    pub fn count(&self, wire: &Wire, way: Way) -> Count {
        let here = |mac: &str| STATIONS.iter().position(|station| station.mac == mac);
        let plain = self.plain.iter().filter(|((from, _), _)| {
            here(from).is_some_and(|station| wire.stations.contains(&station) == (way == Way::Up))
        });
        let sender = self.sender(wire.sender(way));
        Count { plain: plain.map(|(_, frames)| frames).sum(), aggregates: sender.aggregates, packets: sender.packets() }
    }

    /// Packets from one station to another, plain or in aggregates.
    pub fn between(&self, from: &str, to: &str) -> u64 {
        let plain = self.plain.get(&(from.to_owned(), to.to_owned())).copied().unwrap_or(0);
        let inside = self.senders.values().flat_map(|sender| &sender.groups).flat_map(|group| &group.packets);
        plain + inside.filter(|packet| packet.from == from && packet.to == to).count() as u64
    }

    fn add(&mut self, frame: &Value) -> Result<()> {
        let text = |of: &Value| of.as_str().map(str::to_owned).context("a text");
        let number = |of: &Value| of.as_u64().context("a number");
        let (from, to) = (text(&frame["from"])?, text(&frame["to"])?);
        if frame["encapsulation"].is_null() {
            *self.plain.entry((from, to)).or_default() += 1;
            return Ok(());
        }
        if let Some(cause) = frame["error"].as_str() {
            *self.causes.entry(cause.to_owned()).or_default() += 1;
            return Ok(());
        }
        let sender = self.senders.entry(from).or_default();
        if frame["control"] == true {
            *sender.control.entry((text(&frame["said"]["message"])?, to)).or_default() += 1;
            return Ok(());
        }
        sender.aggregates += 1;
        sender.longest = sender.longest.max(number(&frame["length"])?);
        *sender.stages.entry(number(&frame["stage"])?).or_default() += 1;
        let sequence = number(&frame["sequence"])?;
        sender.missing += sender.last.map_or(0, |last| sequence.wrapping_sub(last + 1) % 65536);
        sender.last = Some(sequence);
        for item in frame["items"].as_array().context("items")? {
            if let group @ Value::Object(_) = &item["group"] {
                sender.groups.push(Group {
                    origin: number(&group["origin"])?,
                    destination: number(&group["destination"])?,
                    length: number(&group["length"])?,
                    packets: Vec::new(),
                });
            } else if let packet @ Value::Object(_) = &item["packet"] {
                let (from, to) = (text(&packet["from"])?, text(&packet["to"])?);
                let packet = Inside { from, to, length: number(&packet["length"])? };
                sender.groups.last_mut().context("a group")?.packets.push(packet);
            } else {
                let cause = item["damaged"].as_str().unwrap_or("tlv");
                *self.causes.entry(cause.to_owned()).or_default() += 1;
            }
        }
        Ok(())
    }
}

impl Sender {
    /// Packets in its aggregates.
    pub fn packets(&self) -> u64 {
        self.groups.iter().map(|group| group.packets.len() as u64).sum()
    }

    /// Its groups that are addressed to a node.
    pub fn groups_to(&self, node: u16) -> Vec<&Group> {
        self.groups.iter().filter(|group| group.destination == u64::from(node)).collect()
    }
}
