// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The backend under test as far as it is ours: a node in this process, or one that answers on a control socket.

use std::num::NonZero;
use std::path::PathBuf;
use std::slice::from_ref;
use std::sync::Arc;

use anyhow::Context;
use backend::config::{InterfaceName, PollMode};
use backend::policy::PolicyStore;
use backend::stats::Stats;
use switch::document::Document;
use switch::model::Controller;

use super::flood;
use super::options::{Options, Poll};
use super::pvp::as_float;
use super::scene;
use crate::client::{Client, Control};
use crate::embedded::{EmbeddedNode, Shape, Uplink};

/// The backend under test.
#[derive(Debug)]
pub(super) enum Node {
    /// Runs in this process: one, or two with an uplink between them, or with the top of a rack between these.
    Embedded(Vec<EmbeddedNode>),
    /// Runs elsewhere, and answers.
    Answering(Client),
    /// Anything that speaks vhost-user.
    Stranger,
}

impl Node {
    /// The one that the options ask for. One of our own is started, and is ready for the first packet but for the front ends:
    /// what it is to know besides its ports, it is told here.
    pub(super) fn new(options: &Options) -> anyhow::Result<Self> {
        if options.sockets.is_empty() {
            if let Some(interfaces) = options.interfaces() {
                return Ok(Self::Embedded(start_linked(options, interfaces)?));
            }
            let node = start(options)?;
            let policies = PolicyStore::new(Arc::new(node.handle().clone()));
            if let Some(file) = &options.policy {
                let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
                apply(&text, &policies).with_context(|| file.display().to_string())?;
            }
            if options.flood.is_some() {
                apply(flood::POLICY, &policies)?;
            }
            if options.is_bridged_scene() {
                apply(&scene::policy(&scene::PORTS), &policies)?;
            }
            return Ok(Self::Embedded(vec![node]));
        }
        match &options.control {
            Some(socket) => Ok(Self::Answering(Client::new(&Control::at(socket.clone()))?)),
            None => Ok(Self::Stranger),
        }
    }

    /// Where its ports listen, if it is our own.
    pub(super) fn sockets(&self) -> Option<Vec<PathBuf>> {
        match self {
            Self::Embedded(nodes) => Some(nodes.iter().flat_map(EmbeddedNode::sockets).cloned().collect()),
            Self::Answering(_) | Self::Stranger => None,
        }
    }

    /// Waits until its rings run, if that can be known.
    pub(super) fn wait_until_up(&self) -> anyhow::Result<()> {
        match self {
            Self::Embedded(nodes) => nodes.iter().try_for_each(EmbeddedNode::wait_until_up),
            Self::Answering(_) | Self::Stranger => Ok(()),
        }
    }

    /// What its workers have done so far, if that can be known.
    pub(super) fn work(&self) -> anyhow::Result<Option<Work>> {
        Ok(match self {
            Self::Embedded(_) => Some(Work(self.stats()?.iter().map(Done::of).collect())),
            // Workers are not to count flows while they are measured.
            Self::Answering(client) => Some(Work(vec![Done::of(&client.get("/stats?policies=false")?)])),
            Self::Stranger => None,
        })
    }

    /// What our own nodes count, in the order of their ports.
    pub(super) fn stats(&self) -> anyhow::Result<Vec<Stats>> {
        match self {
            Self::Embedded(nodes) => nodes.iter().map(EmbeddedNode::stats).collect(),
            Self::Answering(_) | Self::Stranger => Ok(Vec::new()),
        }
    }
}

fn start(options: &Options) -> anyhow::Result<EmbeddedNode> {
    EmbeddedNode::start(&Shape {
        ports: match (options.is_scene(), options.flood) {
            (true, _) => &scene::PORTS,
            (false, Some(_)) => &["a", "b", "c"],
            (false, None) => &["a", "b"],
        },
        queues: options.pairs,
        wires: match (options.is_scene(), options.bridge || options.is_bridged_scene()) {
            (_, true) => &[],
            (true, false) => &[["a", "c"], ["b", "d"]],
            (false, false) => &[["a", "b"]],
        },
        poll: poll_mode(options.poll()),
        cpu: Some(options.node_cpu.into()),
        id: NonZero::<u16>::MIN,
        uplinks: &[],
        tor: false,
    })
}

/// Nodes with packet sockets on interfaces that are joined in pairs: at the first those that send, at the last those that receive, between
/// them, if there are four interfaces, the top of a rack.
fn start_linked(options: &Options, interfaces: &[InterfaceName]) -> anyhow::Result<Vec<EmbeddedNode>> {
    let (sources, sinks) = scene::PORTS.split_at(scene::SOURCES);
    let (first, rest) = interfaces.split_first().context("no interface")?;
    let (last, between) = rest.split_last().context("one interface")?;
    let mut nodes = Vec::new();
    let racks: &[(&[&'static str], &[InterfaceName])] = match between {
        [] => &[(sources, from_ref(first)), (sinks, from_ref(last))],
        _ => &[(sources, from_ref(first)), (&[], between), (sinks, from_ref(last))],
    };
    for (number, (ports, interfaces)) in (1..).zip(racks) {
        let uplinks = interfaces.iter().zip(scene::UPLINKS).map(|(interface, port)| Uplink {
            port,
            interface,
            aggregate: options.aggregate,
            trusted: !between.is_empty(),
            // What comes to the top of the rack is to be as it is asked for; there, frames are as full as they get.
            max_frames: options.group.filter(|_| !ports.is_empty()),
        });
        let node = EmbeddedNode::start(&Shape {
            ports,
            queues: 1,
            wires: &[],
            poll: poll_mode(options.poll()),
            cpu: Some(options.node_cpu.into()),
            id: NonZero::new(number).context("a node without a number")?,
            uplinks: &uplinks.collect::<Vec<_>>(),
            tor: ports.is_empty(),
        })?;
        if !ports.is_empty() {
            apply(&scene::policy(ports), &PolicyStore::new(Arc::new(node.handle().clone())))?;
        }
        nodes.push(node);
    }
    Ok(nodes)
}

fn poll_mode(poll: Poll) -> PollMode {
    match poll {
        Poll::Busy => PollMode::Busy,
        Poll::Adaptive => PollMode::Adaptive,
        Poll::Interrupt => PollMode::Interrupt,
    }
}

/// Puts the node's ports under the policy of a document, whoever its controller is.
fn apply(text: &str, policies: &PolicyStore) -> anyhow::Result<()> {
    let document = Document::from_toml(text)?;
    let controller = Controller { name: document.controller.clone(), order: [0, u32::MAX] };
    policies.apply(&controller, &document)?;
    Ok(())
}

/// What the workers of one node, or of each of ours, have done so far.
#[derive(Clone, Debug)]
pub(super) struct Work(Vec<Done>);

#[derive(Clone, Copy, Debug)]
struct Done {
    packets: u64,
    busy_cycles: u64,
}

impl Work {
    /// Busy cycles of each node.
    pub(super) fn busy_cycles_since(&self, before: &Self) -> Vec<u64> {
        self.0.iter().zip(&before.0).map(|(now, then)| now.busy_cycles.saturating_sub(then.busy_cycles)).collect()
    }

    /// What a packet took at all nodes that it crossed.
    pub(super) fn cycles_per_packet_since(&self, before: &Self) -> Option<f64> {
        self.0.iter().zip(&before.0).map(|(now, then)| now.cycles_per_packet_since(*then)).sum()
    }
}

impl Done {
    fn of(stats: &Stats) -> Self {
        Self {
            packets: stats.workers.iter().map(|worker| worker.packets).sum(),
            busy_cycles: stats.workers.iter().map(|worker| worker.busy_cycles).sum(),
        }
    }

    fn cycles_per_packet_since(self, before: Self) -> Option<f64> {
        let packets = self.packets.checked_sub(before.packets).filter(|&packets| packets > 0)?;
        Some(as_float(self.busy_cycles.saturating_sub(before.busy_cycles)) / as_float(packets))
    }
}
