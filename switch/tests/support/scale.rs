// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A port at the size that is promised (VF-33), its life in phases: used small by a test and whole by an example.
//!
//! # Theory of operation
//!
//! Layer `acl` has one group of many rules, of which each connection meets one of its own place; layer `net` has many
//! groups, each for another network, so that a connection searches one of them; both remember. The other layers have one
//! group of 200 rules each and remember nothing.
//!
//! Connection `n` is TCP from the guest to the server of network `n mod groups`, from a port that it shares with none
//! there. Every phase says what it expects of the counters, and gives back what its calls cost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use packet::{Burst, MAX_BURST, Offload, PortId, Verdict};
use switch::Name;
use switch::compile::{Snapshot, commit};
use switch::condition::{Condition, Conditions, IpVersion, Subject, Value};
use switch::engine::{Engine, EngineConfig, PortReport};
use switch::model::Direction::{self, In, Out};
use switch::model::{Default, Edit, Group, PortPolicy, Rule};

use super::crowd::assert_passed;
use super::policy::{allow, group, layer, name, stateful, transaction};
use super::{ACK, Calls, End, Packet, SYN, Watch};

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) layers: u32,
    /// Groups of layer `net`.
    pub(crate) groups: u32,
    /// Rules of the group of layer `acl`.
    pub(crate) rules: u32,
    pub(crate) connections: u32,
    /// Connections that are opened at a time.
    pub(crate) chunk: u32,
}

/// One port of an engine, and its policy.
pub(crate) struct Large {
    pub(crate) size: Size,
    pub(crate) engine: Engine,
    pub(crate) port: PortId,
    pub(crate) now: u64,
    pub(crate) seen: PortReport,
    policy: PortPolicy,
    snapshot: Arc<Snapshot>,
    burst: Box<Burst>,
    room: Vec<u8>,
    random: u64,
}

const GUEST: [u8; 4] = [10, 0, 0, 1];
/// Seconds that connections live.
pub(crate) const IDLE_S: u32 = 3600;

impl Large {
    /// The engine, and the policy; the times of its compilation and of the first call with it.
    pub(crate) fn new(size: Size, config: EngineConfig, port: PortId) -> (Self, Duration, Duration) {
        let begin = Instant::now();
        let transaction = transaction(edits(size));
        let next = commit(&PortPolicy::empty(), &Snapshot::empty(), &transaction, 7);
        let (policy, snapshot) = next.expect("a transaction");
        let (compiled, snapshot) = (begin.elapsed(), Arc::new(snapshot));
        let mut engine = Engine::new(config);
        let watch = Watch::start();
        engine.set_policy(port, Arc::clone(&snapshot));
        let taken = watch.elapsed();
        let large = Self {
            size,
            engine,
            port,
            now: 1_000_000_000_000,
            seen: PortReport::default(),
            policy,
            snapshot,
            burst: Burst::new(),
            room: Vec::new(),
            random: 88_172_645_463_325_252,
        };
        (large, compiled, taken)
    }

    /// The same policy for another port.
    pub(crate) fn also(&mut self, port: PortId) {
        self.engine.set_policy(port, Arc::clone(&self.snapshot));
    }

    /// Opens all connections. What the SYNs, the answers, and the acknowledgements cost.
    pub(crate) fn open(&mut self) -> [Calls; 3] {
        let mut calls = [Calls::default(); 3];
        for from in (0..self.size.connections).step_by(self.size.chunk as usize) {
            let until = self.size.connections.min(from + self.size.chunk);
            for (step, calls) in [Step::Syn, Step::SynAck, Step::Ack].into_iter().zip(&mut calls) {
                let numbers: Vec<u32> = (from..until).collect();
                self.offer(&numbers, step, calls);
            }
        }
        let n = u64::from(self.size.connections);
        let report = self.report();
        assert_eq!((report.connections, report.flows, report.stats.confirmed), (n, 2 * n, 2 * n));
        assert_eq!((report.stats.misses, report.stats.hits), (2 * n, n), "SYN and SYN-ACK are first packets");
        assert_eq!((report.stats.evicted, report.stats.evicted_small, report.stats.over_budget), (0, 0, 0));
        self.seen = report;
        calls
    }

    /// So many packets of connections in random order, in both directions. All must be hits.
    pub(crate) fn hit(&mut self, bursts: u32) -> Calls {
        let mut calls = Calls::default();
        for n in 0..bursts {
            let numbers: Vec<u32> = (0..MAX_BURST).map(|_| self.random()).collect();
            let step = if n % 2 == 0 { Step::Ack } else { Step::Data };
            self.offer(&numbers, step, &mut calls);
        }
        let report = self.report();
        let due = self.seen.stats.hits + u64::from(bursts) * MAX_BURST as u64;
        assert_eq!((report.stats.hits, report.stats.misses), (due, self.seen.stats.misses), "hits only");
        assert_eq!(report.memory, self.seen.memory);
        self.seen = report;
        calls
    }

    /// Gives one of the groups of `net` a rule more, which concerns its own flows. Time of the transaction, of telling
    /// the engine, and what the first packets of each direction cost. `(replanned, revalidated)` are checked.
    pub(crate) fn change_group(&mut self) -> (Duration, Duration, [Calls; 2]) {
        let which = 7 % self.size.groups;
        let mut changed = network(self.size, which);
        changed.rules.push(plain("more", In));
        let times = self.change(vec![Edit::PutGroup { layer: name("net"), group: Arc::new(changed) }]);
        let calls = self.all_speak();
        let concerned = (0..self.size.connections).filter(|n| n % self.size.groups == which).count() as u64;
        let report = self.report();
        let stats = [self.seen.stats, report.stats];
        let [replanned, revalidated] =
            [stats[1].replanned - stats[0].replanned, stats[1].revalidated - stats[0].revalidated];
        assert_eq!(replanned, concerned, "only flows that searched the group are planned again");
        assert_eq!(revalidated, 2 * u64::from(self.size.connections) - concerned, "the others are looked at");
        self.nothing_ended(report);
        (times.0, times.1, calls)
    }

    /// Replaces the large group of `acl` by one that says the same in other words.
    pub(crate) fn change_all(&mut self) -> (Duration, Duration, [Calls; 2]) {
        let mut changed = many(self.size);
        changed.rules.push(plain("more", In));
        let times = self.change(vec![Edit::PutGroup { layer: name("acl"), group: Arc::new(changed) }]);
        let calls = self.all_speak();
        let report = self.report();
        let n = u64::from(self.size.connections);
        assert_eq!(report.stats.replanned - self.seen.stats.replanned, n, "each connection");
        self.nothing_ended(report);
        (times.0, times.1, calls)
    }

    /// All fall silent, and are looked after as a worker does: a few at a time.
    pub(crate) fn expire(&mut self, slice: usize) -> Calls {
        self.now += (u64::from(IDLE_S) + 1) * 1_000_000_000;
        let mut calls = Calls::default();
        let most = 4 * self.engine.flows() / slice + 16;
        while self.engine.flows() > 0 && (calls.count as usize) < most {
            let watch = Watch::start();
            self.engine.sweep(self.now, slice);
            calls.add(watch.elapsed());
        }
        let report = self.report();
        assert_eq!((report.connections, report.flows, report.paths, report.stats.confirmed), (0, 0, 0, 0));
        assert_eq!(report.stats.expired - self.seen.stats.expired, u64::from(self.size.connections));
        self.seen = report;
        calls
    }

    /// What all rules of the layers counted, together.
    pub(crate) fn counted(&self) -> Vec<u64> {
        let sum = |layer: &switch::compile::LayerTotals| {
            let rules: u64 = layer.groups.iter().map(|group| group.all.packets).sum();
            rules + layer.entries.packets + layer.default.packets
        };
        self.snapshot.totals().iter().map(sum).collect()
    }

    pub(crate) fn report(&self) -> PortReport {
        self.engine.report(self.port).expect("policy")
    }

    fn change(&mut self, edits: Vec<Edit>) -> (Duration, Duration) {
        let begin = Instant::now();
        let (policy, snapshot) = commit(&self.policy, &self.snapshot, &transaction(edits), 7).expect("a transaction");
        let snapshot = Arc::new(snapshot);
        let committed = begin.elapsed();
        let watch = Watch::start();
        let old = self.engine.set_policy(self.port, Arc::clone(&snapshot));
        let taken = watch.elapsed();
        drop(old);
        (self.policy, self.snapshot) = (policy, snapshot);
        (committed, taken)
    }

    /// One packet of every flow.
    fn all_speak(&mut self) -> [Calls; 2] {
        let numbers: Vec<u32> = (0..self.size.connections).collect();
        let mut calls = [Calls::default(); 2];
        for (step, calls) in [Step::Ack, Step::Data].into_iter().zip(&mut calls) {
            self.offer(&numbers, step, calls);
        }
        calls
    }

    fn nothing_ended(&mut self, report: PortReport) {
        let n = u64::from(self.size.connections);
        assert_eq!((report.connections, report.flows, report.stats.confirmed), (n, 2 * n, 2 * n));
        assert_eq!(report.stats.misses, self.seen.stats.misses, "a connection whose plan is the same never notices");
        assert_eq!(report.stats.ended_by_policy, 0);
        self.seen = report;
    }

    fn offer(&mut self, numbers: &[u32], step: Step, calls: &mut Calls) {
        let direction = step.direction();
        for numbers in numbers.chunks(MAX_BURST) {
            self.burst.clear();
            for number in numbers {
                packet(self.size, *number, step).write(direction, &mut self.room);
                let len = u32::try_from(self.room.len()).expect("a frame");
                let window = self.burst.push(self.port, len, Offload::NONE, 0).expect("room");
                window.copy_from_slice(&self.room);
            }
            if direction == In {
                self.burst.set_pending(Verdict::Forward(self.port));
            }
            self.now += 10_000;
            self.engine.begin_burst(0);
            let watch = Watch::start();
            self.engine.process(&mut self.burst, self.port, direction, self.now);
            calls.add(watch.elapsed());
            assert_passed(&self.burst, self.port, direction);
        }
    }

    fn random(&mut self) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        u32::try_from(self.random % u64::from(self.size.connections)).expect("below connections")
    }
}

/// What the two ends say.
#[derive(Clone, Copy)]
enum Step {
    Syn,
    SynAck,
    Ack,
    /// Of the server.
    Data,
}

impl Step {
    const fn direction(self) -> Direction {
        match self {
            Self::Syn | Self::Ack => Out,
            Self::SynAck | Self::Data => In,
        }
    }
}

fn packet(size: Size, n: u32, step: Step) -> Packet {
    let (client, server) = ends(size, n);
    match step {
        Step::Syn => Packet::tcp(client, server, SYN, 1000, 0),
        Step::SynAck => Packet::tcp(server, client, SYN | ACK, 9000, 1001),
        Step::Ack => Packet::tcp(client, server, ACK, 1001, 9001),
        Step::Data => Packet::tcp(server, client, ACK, 9001, 1001),
    }
}

fn ends(size: Size, n: u32) -> (End, End) {
    let (network, port) = (n % size.groups, n / size.groups);
    ((GUEST, FIRST_PORT + u16::try_from(port).expect("a port")), (server(network), 443))
}

const FIRST_PORT: u16 = 1024;

fn server(network: u32) -> [u8; 4] {
    let [_, _, high, low] = network.to_be_bytes();
    [198, 18 + high, low, 1]
}

fn edits(size: Size) -> Vec<Edit> {
    let mut edits: Vec<Edit> = vec![
        Edit::PutLayer { name: name("acl"), order: 0, default: Default::Block },
        Edit::PutGroup { layer: name("acl"), group: Arc::new(many(size)) },
        Edit::PutLayer { name: name("net"), order: 1, default: Default::Block },
    ];
    edits.extend((0..size.groups).map(|n| Edit::PutGroup { layer: name("net"), group: Arc::new(network(size, n)) }));
    for at in 2..size.layers {
        let rules = (0..200).flat_map(|n| {
            let span = |n: u32| u128::from(n * 65_536 / 200);
            let ports =
                |field| Condition::new(Subject::Field(field), vec![Value::Range { lo: span(n), hi: span(n + 1) - 1 }]);
            [(Out, packet::Field::L4Src), (In, packet::Field::L4Dst)].map(|(direction, field)| Rule {
                conditions: Conditions::new(vec![ports(field).expect("a range")]).expect("one"),
                ..plain(&format!("r{n}-{direction:?}"), direction)
            })
        });
        edits.extend(layer(&format!("layer{at}"), at, Default::Block, rules.collect()));
    }
    edits
}

/// Rules by network and source port, so that each is met by as many connections.
fn many(size: Size) -> Group {
    let slices = size.rules.div_ceil(size.groups).max(1);
    let ports = size.connections.div_ceil(size.groups).div_ceil(slices).max(1);
    let rules = (0..size.rules).map(|n| {
        let (network, slice) = (n % size.groups, n / size.groups);
        let lo = u128::from(FIRST_PORT) + u128::from(slice * ports);
        // The last slice has what is left.
        let hi = if slice + 1 >= size.rules / size.groups { 65_535 } else { lo + u128::from(ports) - 1 };
        let [prefix, range] = [(packet::Field::IpDst, to(network)), (packet::Field::L4Src, Value::Range { lo, hi })]
            .map(|(field, value)| Condition::new(Subject::Field(field), vec![value]).expect("a condition"));
        let conditions = Conditions::new(vec![prefix, range]).expect("two");
        Rule { conditions, action: stateful(IDLE_S), ..plain(&format!("r{n}"), Out) }
    });
    group("all", rules.collect())
}

fn network(size: Size, n: u32) -> Group {
    let when = Condition::new(Subject::Field(packet::Field::IpDst), vec![to(n)]).expect("a prefix");
    let remember = Rule { action: stateful(IDLE_S), ..plain("out", Out) };
    let text = format!("n{n}");
    let _ = size;
    Group { when: Conditions::new(vec![when]).expect("one"), ..group(&text, vec![remember]) }
}

fn to(network: u32) -> Value {
    let address = u32::from_be_bytes(server(network)) & !0xff;
    Value::Prefix { version: IpVersion::V4, value: address.into(), len: 24 }
}

fn plain(text: &str, direction: Direction) -> Rule {
    let conditions = Conditions::default();
    let name: Name = name(text);
    Rule { name, priority: 1, direction, conditions, action: allow(), terminating: false }
}
