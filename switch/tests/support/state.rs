// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The whole state of a port, and what may change in it.
//!
//! # Theory of operation
//!
//! A test that looks at one counter does not see the others move. Here everything that an engine says about a port is one
//! map of names to numbers: the report, what every rule, default and layer counted, the flows that are listed, events. A
//! test says how it expects that map to change, and every other change is a failure.
//!
//! Changes are written as words: `hits+1`, `flows-2`; of rules `layer/group/rule+1`, which means so many packets and as many
//! times the frame's length, or `layer/group/rule+1:60` where the bytes are others; `layer/default` and `layer/entry` are
//! counted like rules.
//!
//! What a table takes is not known here: it may change only with a packet that makes something begin or end.

use std::collections::BTreeMap;
use std::fmt::Write;

use switch::compile::Snapshot;
use switch::engine::{Engine, Event, PortReport, ShardStats};

use super::PORT;

/// Everything that can be seen of a port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Whole {
    numbers: BTreeMap<String, u64>,
    memory: u64,
    /// What flows have counted and not told.
    untold: bool,
}

impl Whole {
    pub(crate) fn of(engine: &mut Engine, snapshot: &Snapshot) -> Self {
        let mut whole = Self::default();
        whole.report(engine.report(PORT).expect("a port with policy"));
        whole.totals(snapshot);
        whole.listed(engine);
        for event in engine.take_events() {
            let name = match event {
                Event::Miss { .. } => "miss_events",
                Event::NatExhausted { .. } => "nat_events",
            };
            *whole.numbers.entry(name.to_owned()).or_default() += 1;
        }
        whole.put("lost_events", engine.lost_events());
        whole.put("engine_flows", engine.flows() as u64);
        whole
    }

    /// In which way the step to `after` was not the one that is expected; empty: in none. Where rules are not told at once,
    /// they may know less, and never more.
    pub(crate) fn moved(&self, after: &Self, changes: &str, frame_len: u64, told: bool) -> String {
        let mut wrong = String::new();
        let expected = self.with(changes, frame_len);
        let names: std::collections::BTreeSet<&String> = expected.keys().chain(after.numbers.keys()).collect();
        for name in names {
            let number = |map: &BTreeMap<String, u64>| map.get(name).copied().unwrap_or(0);
            let (before, due, is) = (number(&self.numbers), number(&expected), number(&after.numbers));
            let right = if name.contains('/') && !told { is <= due } else { is == due };
            if !right {
                let _ = writeln!(wrong, "{name}: was {before}, is {is}, should be {due}");
            }
        }
        if told && after.untold {
            wrong += "flows have counted what their rules do not know\n";
        }
        let grows = ["flows", "connections", "paths", "datagrams", "replanned", "not_cached", "icmp_errors"];
        let may = changes.split_whitespace().any(|change| grows.contains(&split(change).0));
        if self.memory != after.memory && !may {
            let _ = writeln!(wrong, "memory: was {}, is {}", self.memory, after.memory);
        }
        wrong
    }

    /// Is what it was expected to become: what rules are to be told of later is due.
    pub(crate) fn become_with(&mut self, after: Self, changes: &str, frame_len: u64, told: bool) {
        let due = self.with(changes, frame_len);
        *self = after;
        if !told {
            for (name, number) in due.into_iter().filter(|(name, _)| name.contains('/')) {
                self.numbers.insert(name, number);
            }
        }
        // Events were taken.
        self.numbers.retain(|name, _| !name.ends_with("_events") || name == "lost_events");
    }

    /// Rules that there are no more are not spoken of any more.
    pub(crate) fn forget_all_but(&mut self, snapshot: &Snapshot) {
        let mut known = Self::default();
        known.totals(snapshot);
        self.numbers.retain(|name, _| !name.contains('/') || known.numbers.contains_key(name));
    }

    fn with(&self, changes: &str, frame_len: u64) -> BTreeMap<String, u64> {
        let mut numbers = self.numbers.clone();
        let mut change = |name: String, by: i64| {
            let number = numbers.entry(name).or_default();
            *number = number.checked_add_signed(by).expect("nothing is below zero");
        };
        for word in changes.split_whitespace() {
            let (name, by, bytes) = split(word);
            if name.contains('/') {
                let len = i64::try_from(frame_len).expect("a length");
                change(format!("{name} packets"), by);
                change(format!("{name} bytes"), bytes.unwrap_or(by * len));
            } else {
                change(name.to_owned(), by);
                if name == "flows" {
                    change("engine_flows".to_owned(), by);
                }
            }
        }
        numbers
    }

    fn report(&mut self, report: PortReport) {
        // Limits are what was asked for.
        let PortReport { version, limits: _, flows, connections, paths, datagrams, resting, memory, stats, tunnels } =
            report;
        self.memory = memory;
        for (name, number) in [
            ("version", version),
            ("flows", flows),
            ("connections", connections),
            ("paths", paths),
            ("datagrams", datagrams),
            ("resting", resting),
            ("tunnels_too_big", tunnels.too_big),
            ("tunnels_told", tunnels.told),
            ("tunnels_mss_lowered", tunnels.mss_lowered),
        ] {
            self.put(name, number);
        }
        let ShardStats {
            hits,
            through,
            misses,
            revalidated,
            replanned,
            ended_by_policy,
            over_budget,
            not_cached,
            unparsed,
            implausible,
            expired,
            evicted_small,
            evicted,
            table_full,
            name_conflicts,
            nat_exhausted,
            icmp_errors,
            early_fragments,
            bad_fragments,
            waiting,
            confirmed,
        } = stats;
        for (name, number) in [
            ("hits", hits),
            ("through", through),
            ("misses", misses),
            ("revalidated", revalidated),
            ("replanned", replanned),
            ("ended_by_policy", ended_by_policy),
            ("over_budget", over_budget),
            ("not_cached", not_cached),
            ("unparsed", unparsed),
            ("implausible", implausible),
            ("expired", expired),
            ("evicted_small", evicted_small),
            ("evicted", evicted),
            ("table_full", table_full),
            ("name_conflicts", name_conflicts),
            ("nat_exhausted", nat_exhausted),
            ("icmp_errors", icmp_errors),
            ("early_fragments", early_fragments),
            ("bad_fragments", bad_fragments),
            ("waiting", waiting),
            ("confirmed", confirmed),
        ] {
            self.put(name, number);
        }
    }

    fn totals(&mut self, snapshot: &Snapshot) {
        for layer in snapshot.totals() {
            let mut put = |name: String, total: switch::tally::Total| {
                self.numbers.insert(format!("{name} packets"), total.packets);
                self.numbers.insert(format!("{name} bytes"), total.bytes);
            };
            put(format!("{}/default", layer.layer), layer.default);
            put(format!("{}/entry", layer.layer), layer.entries);
            for group in layer.groups {
                let mut all = switch::tally::Total::default();
                for (rule, total) in group.rules {
                    all += total;
                    put(format!("{}/{}/{rule}", layer.layer, group.group), total);
                }
                assert_eq!(all, group.all, "a group's total is that of its rules");
            }
        }
    }

    /// The flows themselves, which must agree with what is said about their number.
    fn listed(&mut self, engine: &Engine) {
        let (mut flows, mut confirmed) = (0, 0);
        let mut from = Some(0);
        while let Some(at) = from {
            from = engine.list(PORT, at, 1000, |flow| {
                flows += 1;
                confirmed += u64::from(flow.confirmed);
                self.untold |= flow.pending != (0, 0);
            });
        }
        let number = |name: &str| self.numbers.get(name).copied();
        assert_eq!(
            (Some(flows), Some(confirmed)),
            (number("flows"), number("confirmed")),
            "flows, and of them confirmed"
        );
    }

    fn put(&mut self, name: &str, number: u64) {
        self.numbers.insert(name.to_owned(), number);
    }
}

/// `name+3:180` is a name, by how much, and how many bytes.
fn split(word: &str) -> (&str, i64, Option<i64>) {
    // Names of rules have hyphens; what counts is the last sign.
    let at = word.rfind(['+', '-']).unwrap_or_else(|| panic!("{word:?} has no + or -"));
    let (name, by) = word.split_at(at);
    let (by, bytes) = by.split_once(':').map_or((by, None), |(by, bytes)| (by, Some(bytes)));
    let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("{word:?} says no number"));
    (name, number(by), bytes.map(number))
}
