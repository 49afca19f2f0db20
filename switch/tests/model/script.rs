// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Scenarios in words, run step by step on a switch, with the interpreter looking on.
//!
//! ```text
//! policy                                                 what follows indented, whole, is the policy from now on
//!   layer nat 20 allow
//! out udp 10.0.0.1:7 > 8.8.8.8:53                        a packet from the VM
//!   => udp 192.0.2.1:$p > 8.8.8.8:53 ttl=63              what becomes of it; what is not said stays
//! in udp 8.8.8.8:53 > 192.0.2.1:$p => udp ...            a packet to the VM; $p is what it was above
//!   => same | drop CAUSE | park | hairpin PORT ...
//! wait 30                                                seconds
//! count nat/g/snat 2 92                                  packets and bytes; also LAYER/default, LAYER/entry
//! connections 1
//! ```

use std::collections::{BTreeMap, BTreeSet};

use switch::model::{Direction, PortPolicy};

use crate::connections::SECOND;
use crate::frame::{Body, Frame, Payload};
use crate::interpreter::{Interpreter, Outcome};
use crate::switch_under_test::Switch;
use crate::text::{Wanted, name};
use crate::walk::Place;

/// Runs a scenario; where it goes wrong it says at which line.
pub(crate) fn run(title: &str, text: &str, switch: &mut dyn Switch) {
    let mut runner = Runner {
        title,
        line: String::new(),
        switch,
        judge: Interpreter::new(),
        policy: PortPolicy::empty(),
        now: 1000 * SECOND,
        variables: BTreeMap::new(),
    };
    runner.switch.set_policy(&runner.policy);
    let mut steps: Vec<(String, Vec<&str>)> = Vec::new();
    for line in text.lines().map(|line| line.split('#').next().unwrap_or("").trim_end()) {
        match steps.last_mut() {
            _ if line.trim().is_empty() => {}
            Some((_, more)) if line.starts_with(' ') => more.push(line.trim()),
            _ => steps.push((line.to_owned(), Vec::new())),
        }
    }
    for (step, more) in steps {
        runner.line.clone_from(&step);
        runner.step(&step, &more);
    }
}

struct Runner<'a> {
    title: &'a str,
    line: String,
    switch: &'a mut dyn Switch,
    judge: Interpreter,
    policy: PortPolicy,
    now: u64,
    variables: BTreeMap<String, String>,
}

impl Runner<'_> {
    fn step(&mut self, step: &str, more: &[&str]) {
        let (word, rest) = step.split_once(' ').unwrap_or((step, ""));
        match word {
            "policy" => {
                self.policy = Wanted::parse(more).after(&self.policy);
                self.switch.set_policy(&self.policy);
                self.judge.set_policy(self.policy.clone());
            }
            "in" | "out" => {
                let direction = if word == "in" { Direction::In } else { Direction::Out };
                let (packet, expected) = match rest.split_once("=>") {
                    Some((packet, expected)) => (packet, expected),
                    None => (rest, more.first().expect("what becomes of it").trim_start_matches("=>")),
                };
                self.packet(direction, packet.trim(), expected.trim());
            }
            "wait" => {
                for _ in 0..rest.parse::<u64>().expect("seconds") {
                    self.now += SECOND;
                    self.switch.sweep(self.now);
                }
                // Nothing is asked at the very moment at which something ends.
                self.now += SECOND / 100;
            }
            "count" => self.count(rest),
            "connections" => {
                if let Some(count) = self.switch.connections() {
                    self.same(count.to_string(), rest.to_owned(), "connections");
                }
            }
            "differ" => {
                let values: BTreeSet<String> = rest.split_whitespace().map(|word| self.substitute(word)).collect();
                self.same(values.len(), rest.split_whitespace().count(), "different ones");
            }
            _ => panic!("{}: {step:?} is no step", self.title),
        }
    }

    fn packet(&mut self, direction: Direction, packet: &str, expected: &str) {
        let frame = Frame::parse(direction, &self.substitute(packet));
        let bytes = frame.to_bytes();
        let outcome = self.switch.process(direction, bytes.clone(), self.now);
        self.now += SECOND / 1000;
        let (kind, words) = expected.split_once(' ').unwrap_or((expected, ""));
        match (kind, &outcome) {
            ("drop", Outcome::Dropped(cause)) => self.same(cause.label(), words, "cause"),
            ("park", Outcome::Parked) => {}
            ("same", Outcome::Forwarded(after)) => self.same(after, &bytes, "bytes"),
            ("hairpin", Outcome::Hairpinned(to, after)) => {
                let (port, words) = words.split_once(' ').expect("a port, or -, and a packet");
                self.same(to.clone(), (port != "-").then(|| name(port)), "port");
                self.compare(direction, &frame, after, words);
            }
            (_, Outcome::Forwarded(after)) if !matches!(kind, "drop" | "park" | "hairpin") => {
                self.compare(direction, &frame, after, expected);
            }
            _ => panic!("{}: {}: {expected:?}, not {outcome:02x?}", self.title, self.line),
        }
        if let Err(why) = self.judge.judge(direction, &bytes, self.now - SECOND / 1000, &outcome) {
            panic!("{}: {}: the interpreter says: {why}", self.title, self.line);
        }
    }

    /// Compares a packet with what is said about it.
    fn compare(&mut self, direction: Direction, came: &Frame, after: &[u8], expected: &str) {
        let found = Frame::from_bytes(after).unwrap_or_else(|| panic!("{}: {after:02x?}", self.line));
        let (base, found_rest) = found.in_words(direction);
        let mut words = expected.split_whitespace().filter(|word| !is_attribute(word));
        let pattern: Vec<&str> = words.by_ref().collect();
        self.match_pattern(&pattern.join(" "), &base);
        let (_, mut rest) = came.in_words(direction);
        for word in expected.split_whitespace().filter(|word| is_attribute(word)) {
            let (key, value) = word.split_once('=').unwrap();
            let key =
                *found_rest.keys().chain(rest.keys()).find(|known| **known == key).unwrap_or_else(|| panic!("{word}"));
            let value = self.substitute(value);
            if value == "-" {
                rest.remove(key)
            } else {
                rest.insert(key, value)
            };
        }
        let dscp = rest.get("dscp").cloned().unwrap_or_else(|| "0".to_owned());
        for (key, value) in [("outer_ttl", "64".to_owned()), ("outer_dscp", dscp)] {
            if found.outer.is_some() {
                rest.entry(key).or_insert(value);
            } else {
                rest.remove(key);
            }
        }
        self.same(&found_rest, &rest, "the rest");
        if let Body::Ip { payload: Payload::Error { quote, .. }, .. } = &found.body
            && quote.len() > 28
        {
            // Of what is quoted whole the checksums are right, too.
            let ether_type: &[u8] = if quote[0] >> 4 == 4 { &[8, 0] } else { &[0x86, 0xdd] };
            let quoted = [&[0; 12][..], ether_type, quote].concat();
            let mut mended = quoted.clone();
            crate::wire::mend(&mut mended);
            self.same(quoted, mended, "what is quoted");
        }
        // Lengths and checksums are right, and there is nothing else.
        let mut again = found.to_bytes();
        if found.outer.is_some() && came.outer.is_none() {
            assert_eq!(after[..12], [0; 12], "{}: whose outer MAC addresses are those?", self.line);
            again[..12].fill(0);
            // Fragmentation of a pushed IPv4 header is off, and its identification 0.
            if again[14] >> 4 == 4 {
                again[18..22].copy_from_slice(&[0, 0, 0x40, 0]);
            } else {
                let label = [again[15] & 0xf0 | after[15] & 15, after[16], after[17]];
                again[15..18].copy_from_slice(&label);
            }
            crate::wire::mend(&mut again);
        }
        self.same(again, after.to_vec(), "bytes");
    }

    /// `$p` is what it was before; the first time it may be any run of digits and dots.
    fn match_pattern(&mut self, pattern: &str, text: &str) {
        let mut rest = text;
        let mut parts = pattern.split('$');
        let mut literal = parts.next().unwrap_or("").to_owned();
        for part in parts {
            rest = rest.strip_prefix(&*literal).unwrap_or_else(|| panic!("{}: {pattern:?}, not {text:?}", self.line));
            let end = part.find(|letter: char| !letter.is_ascii_alphanumeric()).unwrap_or(part.len());
            let (name, after) = part.split_at(end);
            let value = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(rest.len());
            let (value, behind) = rest.split_at(value);
            let known = self.variables.entry(name.to_owned()).or_insert_with(|| value.to_owned());
            assert_eq!(known, value, "{}: {}: ${name}", self.title, self.line);
            rest = behind;
            literal = after.to_owned();
        }
        self.same(rest, &literal, "packet");
    }

    fn substitute(&self, text: &str) -> String {
        let mut text = text.to_owned();
        // Long names first: $port is not $p and more.
        for (name, value) in self.variables.iter().rev() {
            text = text.replace(&format!("${name}"), value);
        }
        text
    }

    fn count(&mut self, text: &str) {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [path, packets, bytes] = *words else { panic!("{}: count PATH PACKETS BYTES", self.line) };
        let place = match *path.split('/').collect::<Vec<_>>() {
            [layer, "default"] => (name(layer), Place::Default),
            [layer, "entry"] => (name(layer), Place::Entry),
            [layer, group, rule] => (name(layer), Place::Rule(name(group), name(rule))),
            _ => panic!("{path:?} is no place"),
        };
        let expected = (packets.parse().unwrap(), bytes.parse().unwrap());
        if let Some(totals) = self.switch.totals() {
            self.same(totals.get(&place).copied().unwrap_or_default(), expected, "packets and bytes");
            self.judge.judge_totals(&totals).unwrap_or_else(|why| panic!("{}: {why}", self.line));
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "most of what is compared is made for it")]
    fn same<T: PartialEq + std::fmt::Debug>(&self, found: T, expected: T, what: &str) {
        assert_eq!(found, expected, "{}: {}: {what} (found, expected)", self.title, self.line);
    }
}

fn is_attribute(word: &str) -> bool {
    word.contains('=')
}
