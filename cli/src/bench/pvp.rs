// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One run: attach, open the flows, warm up, measure, drain, report.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use backend::sys::Clock;
use cnf::{Device, Endpoint};
use rustix::thread::{CpuSet, sched_setaffinity};
use vhost_user::features;
use virtqueue::RingKind;

use super::engine::{Count, Engine};
use super::flood::Flooder;
use super::node::Node;
use super::options::{Options, Percent};
use super::report::{Flooded, Report};
use crate::output;

/// How long to look for what goes, before a share of it is measured.
const SURVEY: Duration = Duration::from_secs(1);

/// Runs what the options say, and prints what it found.
pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let report = measure(options)?;
    let text = if options.json { serde_json::to_string(&report)? } else { report.to_string() };
    output::print(&format!("{text}\n"))
}

fn measure(options: &Options) -> anyhow::Result<Report> {
    let node = Node::new(options)?;
    // After the node's threads were made, which would inherit it.
    pin(options.cpu);
    let mut devices = attach(options, &node.sockets().unwrap_or_else(|| options.sockets.clone()))?;
    node.wait_until_up()?;
    let (bits, ring) = devices.first().map(|one| (one.features(), one.queue_features())).context("no device")?;
    let third = options.flood.and_then(|sort| Some((sort, devices.pop()?)));
    let mut engine = Engine::new(devices, options)?;
    let opening_s = engine.open(options)?;
    engine.wake_up()?;
    if let Some((sort, device)) = third {
        engine.flood(Flooder::new(device, sort)?);
    }

    let (rate, capacity) = match options.load {
        None => (options.rate, None),
        Some(Percent(share)) => {
            engine.warm_up(None)?;
            let capacity = engine.run(None, SURVEY)?.received_per_second();
            (Some(capacity * share), Some(capacity))
        }
    };
    engine.warm_up(rate)?;
    // A backend that still starts its rings loses packets; that is not what is measured.
    engine.drain()?;
    let (lost_before, stalls_before) = (engine.missing(), engine.stalls());
    let before = node.work()?;
    let count = engine.run(rate, options.duration())?;
    let after = node.work()?;
    let latency_ns = engine.latency();
    engine.drain()?;
    let lost = engine.missing().saturating_sub(lost_before);
    // After a stall, more is sent than there are buffers for.
    ensure!(
        lost == 0 || engine.stalls() > stalls_before,
        "{lost} of {} packets did not arrive, though none was sent without room for it at the other end",
        count.sent
    );
    if options.fin {
        engine.close(options)?;
    }
    engine.check_frames()?;

    let Count { sent, flooded, seconds, .. } = count;
    let rx_pps = count.received_per_second();
    Ok(Report {
        ring: match ring.kind {
            RingKind::Packed => "packed",
            RingKind::Split => "split",
        },
        size: options.size,
        flows: options.flows,
        tcp: options.tcp,
        opened: options.flows,
        opening_s,
        closed: if options.fin { options.flows } else { 0 },
        expect: options.expect.name(),
        inspected: engine.inspected(),
        seconds,
        rx_pps: rx_pps.round(),
        tx_pps: (as_float(sent) / seconds).round(),
        lost,
        flood: options.flood.map(|sort| Flooded { sort: sort.name(), pps: (as_float(flooded) / seconds).round() }),
        cycles_per_packet: before.zip(after).and_then(|(before, after)| after.cycles_per_packet_since(&before)),
        latency_ns,
        rx_gbps: rx_pps * f64::from(options.size) * 8.0 / 1e9,
        rate,
        capacity_pps: capacity,
        reordered: engine.reordered(),
        aliens: engine.aliens(),
        kicks: engine.kicks(),
        generator_cycles: count.cycles_per_packet,
        generator_idle: as_float(count.idle_cycles) / as_float(count.cycles.max(1)),
        tsc_hz: Clock::get().hertz(),
        queue_pairs: options.pairs,
        queue_size: options.queue_size,
        features: features::names(bits),
    })
}

/// Attaches to every socket. All are listened on before any is waited for: a backend may connect in any order.
fn attach(options: &Options, sockets: &[PathBuf]) -> anyhow::Result<Vec<Device>> {
    let endpoints: Vec<Endpoint> =
        sockets.iter().map(|socket| Endpoint::open(options.device(socket.clone()))).collect::<Result<_, _>>()?;
    Ok(endpoints.iter().map(Endpoint::attach).collect::<Result<_, _>>()?)
}

/// Keeps this thread on one core, if there is such a core.
pub(super) fn pin(cpu: u16) {
    let mut set = CpuSet::new();
    set.set(usize::from(cpu));
    if let Err(error) = sched_setaffinity(None, &set) {
        log::warn!("the generator is not pinned to core {cpu}: {error}");
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of packets stay far below 2^53")]
pub(super) fn as_float(count: u64) -> f64 {
    count as f64
}
