// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A scene: two CNFs that send and two that receive, on one node, with or without aggregates. With `--sockets` it is
//! somebody else's node, which is to forward by MAC address, or between the first and third port and the second and fourth.
//!
//! Every flow is opened by an exchange of packets before anything is measured, and every packet that arrives is compared with
//! what was sent, byte by byte, and counted in its flow: a run proves that all arrived, once and in order.
//!
//! | module | job |
//! |---|---|
//! | `traffic` | flows, frames, the account of what arrives |
//! | `bundle` | packets put together |
//! | `member` | a CNF's end of its rings |
//! | `talk` | what it agrees on with the node |
//! | `opening` | the first packets of all flows |
//! | `source` | a CNF that sends |
//! | `uplink` | what crosses between two nodes |
//! | `report` | what is printed |

mod bundle;
mod member;
mod opening;
mod report;
mod source;
mod talk;
mod traffic;
mod uplink;

use std::iter::once;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use backend::sys::{Clock, cycles};
use cnf::{Device, Endpoint};

use self::member::Member;
use self::report::Report;
use self::source::{Item, Source};
use self::talk::Talk;
use self::traffic::{Account, Flow, SINKS};
pub(super) use self::traffic::{IMIX_LONGEST, SOURCES};
use self::uplink::Uplinks;
use super::node::Node;
use super::options::{Options, Percent};
use super::pace::Pace;
use super::pvp::{as_float, pin};
use crate::output;

/// Before anything is measured; and how long to look for what goes, before a share of it is measured.
const WARM_UP: Duration = Duration::from_millis(300);
const SURVEY: Duration = Duration::from_millis(500);

/// How long agreeing on aggregates may take.
const AGREEING: Duration = Duration::from_secs(10);

/// When nothing has moved for so long after sending stopped, what is missing is lost.
const QUIET: Duration = Duration::from_millis(300);

/// The state that every CNF's port has in front of the bridge.
pub(super) const PORTS: [&str; SOURCES + SINKS] = ["a", "b", "c", "d"];

/// The ports of each node to others, where there are more.
pub(super) const UPLINKS: [&str; 2] = ["up", "down"];

/// Policy of a bridged scene: one stateful layer at every CNF's port.
pub(super) fn policy(ports: &[&str]) -> String {
    let mut text = "controller = \"scene\"\n".to_owned();
    for port in ports {
        text += &format!("[[layer]]\nport = \"{port}\"\nname = \"acl\"\norder = 0\ndefault = \"block\"\n");
        text += "[[layer.group]]\nname = \"all\"\norder = 0\n";
        for direction in ["out", "in"] {
            text += &format!("[[layer.group.rule]]\nname = \"{direction}\"\npriority = 1\ndir = \"{direction}\"\n");
            text += "action = { type = \"allow\", stateful = true, idle_s = 240 }\n";
        }
    }
    text
}

/// Runs what the options say, and prints what it found.
pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let report = measure(options)?;
    let text = if options.json { serde_json::to_string(&report)? } else { report.to_string() };
    output::print(&format!("{text}\n"))
}

fn measure(options: &Options) -> anyhow::Result<Report> {
    let node = Node::new(options)?;
    pin(options.cpu);
    let sockets = node.sockets().unwrap_or_else(|| options.sockets.clone());
    let endpoints: Vec<Endpoint> =
        sockets.iter().map(|socket| Endpoint::open(options.device(socket.clone()))).collect::<Result<_, _>>()?;
    let devices: Vec<Device> = endpoints.iter().map(Endpoint::attach).collect::<Result<_, _>>()?;
    node.wait_until_up()?;
    let uplinks = Uplinks::of(&node, options)?;
    let mut scene = Scene::new(devices, options, uplinks)?;
    scene.agree()?;
    scene.open_with(|| uplinks.filter(|_| options.aggregate).map_or(Ok(true), |uplinks| uplinks.are_agreed(&node)))?;
    scene.load(options, uplinks, options.rate.is_some())?;

    let mut rate = options.rate;
    let mut capacity = None;
    scene.run(rate, WARM_UP)?;
    if let Some(Percent(share)) = options.load {
        let all = scene.run(None, SURVEY)?.per_second();
        (rate, capacity) = (Some(all * share), Some(all));
        scene.drain()?;
        scene.load(options, uplinks, true)?;
        scene.run(rate, WARM_UP)?;
    }
    scene.drain()?;
    let crossed = uplinks.map(|uplinks| uplinks.crossed(&node)).transpose()?;
    let before = node.work()?;
    scene.account.restart();
    let count = scene.run(rate, options.duration())?;
    let after = node.work()?;
    scene.drain()?;
    scene.check()?;

    let work = before.zip(after);
    let uplink = match uplinks.zip(crossed) {
        Some((uplinks, before)) => {
            let crossed = [before, uplinks.crossed(&node)?];
            let (before, after) = work.as_ref().context("what the nodes have done")?;
            Some(uplinks.report(
                crossed,
                options.aggregate,
                scene.account.too_long,
                &after.busy_cycles_since(before),
            )?)
        }
        None => None,
    };
    Ok(Report {
        scene: options.scene.unwrap_or_default().name(),
        aggregate: options.aggregate,
        run_length: options.run_length,
        size: scene.mean_size(),
        imix: options.imix,
        flows: options.flows,
        seconds: count.seconds,
        rx_pps: count.per_second().round(),
        verified: scene.account.received,
        lost: 0,
        cycles_per_packet: work.and_then(|(before, after)| after.cycles_per_packet_since(&before)),
        sent_frames_per_packet: as_float(count.sent_frames) / as_float(count.sent.max(1)),
        received_frames_per_packet: as_float(count.received_frames) / as_float(count.received.max(1)),
        uplink,
        latency_ns: scene.account.latency(),
        rate,
        capacity_pps: capacity,
        generator_idle: as_float(count.idle_cycles) / as_float(count.cycles.max(1)),
        tsc_hz: Clock::get().hertz(),
    })
}

/// What was counted in a stretch of time.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    seconds: f64,
    sent: u64,
    sent_frames: u64,
    received: u64,
    received_frames: u64,
    cycles: u64,
    idle_cycles: u64,
}

impl Count {
    fn per_second(&self) -> f64 {
        as_float(self.received) / self.seconds
    }
}

/// All CNFs.
struct Scene {
    flows: Vec<Flow>,
    sources: Vec<Source>,
    sinks: Vec<Member>,
    account: Account,
    /// Packets of each source that may be on their way, once it is known what is sent.
    window: u64,
}

impl Scene {
    fn new(devices: Vec<Device>, options: &Options, uplinks: Option<Uplinks>) -> anyhow::Result<Self> {
        ensure!(devices.len() == PORTS.len(), "{} devices instead of {}", devices.len(), PORTS.len());
        let sizes: &[u32] = if options.imix { &traffic::IMIX } else { &[options.size] };
        let flows = traffic::flows(options.flows, sizes, !options.is_bridged_scene());
        let (mut sources, mut sinks) = (Vec::new(), Vec::new());
        for (number, device) in (0..).zip(devices) {
            let member = Member::new(device, options.aggregate.then(|| Talk::new(number)))?;
            if usize::from(number) < SOURCES {
                sources.push(Source::new(member, flows.len()));
            } else {
                sinks.push(member);
            }
        }
        let account = Account::new(&flows, uplinks.map_or(usize::MAX, Uplinks::longest_inside))?;
        Ok(Self { flows, sources, sinks, account, window: 0 })
    }

    /// Agrees on aggregates with the node, where that is asked for.
    fn agree(&mut self) -> anyhow::Result<()> {
        let end = cycles() + Clock::get().to_ticks(AGREEING);
        while !self.members().all(|member| member.is_ready()) {
            ensure!(cycles() < end, "the node does not agree to aggregates");
            for member in self.members() {
                member.hear(|_| {})?;
                member.glance()?;
            }
        }
        Ok(())
    }

    fn members(&mut self) -> impl Iterator<Item = &mut Member> {
        self.sources.iter_mut().map(|source| &mut source.member).chain(&mut self.sinks)
    }

    /// Puts together what every source sends: runs of packets of a flow, one flow after the other. Says how many may be on their way.
    /// `alone`: each is in a frame of its own, as who sends less than it could has no other at hand and waits for none.
    fn load(&mut self, options: &Options, uplinks: Option<Uplinks>, alone: bool) -> anyhow::Result<()> {
        // All may be for one sink, and an aggregate may become two, or more on an uplink.
        let room = uplinks.map_or(u64::MAX, Uplinks::frames).min(options.queue_size.into()) / SOURCES as u64;
        self.window = u64::MAX;
        for (number, source) in self.sources.iter_mut().enumerate() {
            let own = self.flows.iter().enumerate().filter(|(_, flow)| flow.source == number);
            let packets = own.flat_map(|(at, flow)| (0..options.run_length).map(move |_| (at, &flow.frame)));
            let items: Vec<Item> = match options.aggregate {
                true if alone => {
                    packets.flat_map(|packet| bundle::bundles(once(packet), options.bundle as usize)).collect()
                }
                true => bundle::bundles(packets, options.bundle as usize),
                false => packets.map(|(at, frame)| Item { bytes: frame.clone(), packets: [(0, at)].into() }).collect(),
            };
            // The last one may be shorter; where sizes are mixed they differ, and follow each other evenly.
            let packets: usize = items.iter().map(|item| item.packets.len()).sum();
            let each = packets.div_ceil(items.len().max(1)) as u64;
            let longest = items.iter().map(|item| item.packets.len()).max().unwrap_or(0) as u64;
            let frames = match options.aggregate {
                true => room / uplinks.map_or(2, |uplinks| uplinks.frames_of(options.bundle, longest)),
                false => room,
            };
            ensure!(frames > 0, "--queue-size: too small for what a frame of {} bytes becomes", options.bundle);
            // With one flow, one of them has nothing to send.
            if longest > 0 {
                self.window = self.window.min((frames * each).max(longest));
            }
            source.load(items);
        }
        Ok(())
    }

    /// Bytes of a packet, in the mean.
    fn mean_size(&self) -> f64 {
        let bytes: usize = self.flows.iter().map(|flow| flow.frame.len()).sum();
        as_float(bytes as u64) / as_float(self.flows.len() as u64)
    }

    /// Sends and receives for so long.
    fn run(&mut self, rate: Option<f64>, length: Duration) -> anyhow::Result<Count> {
        let clock = Clock::get();
        let (length, glance) = (clock.to_ticks(length), clock.to_ticks(talk::GLANCE));
        let mut pace = Pace::new(rate.map(|pps| pps / as_float(clock.hertz())));
        let totals = |scene: &Self| {
            let sent = scene.sources.iter().fold((0, 0), |all, one| (all.0 + one.sent, all.1 + one.frames));
            (sent, (scene.account.received, scene.sinks.iter().map(|sink| sink.frames).sum::<u64>()))
        };
        let before = totals(self);
        let mut count = Count::default();
        let start = cycles();
        let (mut now, mut look) = (start, start);
        while now - start < length {
            if now >= look {
                self.glance()?;
                look = now + glance;
            }
            let moved = self.receive()? + self.send(&mut pace, now)?;
            let then = cycles();
            if moved == 0 {
                count.idle_cycles += then - now;
            }
            now = then;
        }
        let after = totals(self);
        count.sent = after.0.0 - before.0.0;
        count.sent_frames = after.0.1 - before.0.1;
        count.received = after.1.0 - before.1.0;
        count.received_frames = after.1.1 - before.1.1;
        count.cycles = now - start;
        count.seconds = as_float(count.cycles) / as_float(clock.hertz());
        Ok(count)
    }

    /// Takes what has arrived. Returns how many packets.
    #[inline]
    fn receive(&mut self) -> anyhow::Result<usize> {
        let before = self.account.received;
        for (number, sink) in self.sinks.iter_mut().enumerate() {
            sink.hear(|packet| self.account.enter(number, packet))?;
        }
        Ok(usize::try_from(self.account.received - before)?)
    }

    /// Looks after what is agreed on.
    fn glance(&mut self) -> anyhow::Result<()> {
        for source in &mut self.sources {
            source.member.hear(|_| {})?;
            source.member.glance()?;
        }
        self.sinks.iter_mut().try_for_each(Member::glance)
    }

    #[inline]
    fn send(&mut self, pace: &mut Pace, now: u64) -> anyhow::Result<usize> {
        let mut moved = 0;
        for at in 0..self.sources.len() {
            let room = usize::try_from((self.window * SOURCES as u64).saturating_sub(self.on_their_way()))?;
            let most = if pace.is_limited() { pace.allow(1, now) } else { room };
            let Some(source) = self.sources.get_mut(at) else { break };
            let sent = source.step(most.min(room))?;
            pace.spend(sent);
            moved += sent;
        }
        Ok(moved)
    }

    /// Packets that were sent and have not arrived.
    fn on_their_way(&self) -> u64 {
        let sent: u64 = self.sources.iter().map(|source| source.sent).sum();
        sent.saturating_sub(self.account.received)
    }

    /// Receives until everything has arrived.
    fn drain(&mut self) -> anyhow::Result<()> {
        let quiet = Clock::get().to_ticks(QUIET);
        let mut since = cycles();
        while self.on_their_way() > 0 {
            if self.receive()? > 0 {
                since = cycles();
            } else if cycles() - since > quiet {
                bail!("{} packets did not arrive, though none was sent without room for it", self.on_their_way());
            }
        }
        Ok(())
    }

    fn check(&self) -> anyhow::Result<()> {
        self.account.check()
    }
}
