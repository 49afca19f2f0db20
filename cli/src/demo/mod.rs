// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `shunt demo`: a whole node in this process, and two CNFs that prove that packets cross it unharmed.
//!
//! | module | job |
//! |---|---|
//! | `station` | one CNF: sends, receives, verifies |
//! | `frame` | frames that prove themselves |
//! | `view` | what is shown meanwhile |
//! | `screen` | where it is shown |
//! | `summary` | how it ended |

mod frame;
mod screen;
mod station;
mod summary;
mod view;

use std::num::NonZero;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use backend::config::PollMode;
use cnf::{Device, DeviceConfig, Endpoint, Port};
use signal_hook::consts::{SIGINT, SIGTERM};

use self::frame::Station;
use self::screen::Screen;
use self::station::{Counters, Runner};
use self::summary::{PortSummary, Summary};
use self::view::{CnfView, View};
use crate::embedded::{EmbeddedNode, Shape};
use crate::output::print;

/// The two CNFs, and the last byte of their addresses.
const CNFS: [(&str, Station); 2] = [("cnf-a", 1), ("cnf-b", 2)];

/// How often it is looked whether the demo is over.
const TICK: Duration = Duration::from_millis(20);

/// Runs a node and two CNFs in this process, and proves that packets cross unharmed
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Seconds to send
    #[arg(long, default_value_t = 5.0, value_name = "N")]
    seconds: f64,
    /// Print one line of JSON at the end, and nothing else
    #[arg(long)]
    json: bool,
}

/// Runs the demo; an error if a packet was lost or corrupted.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    ensure!(args.seconds > 0.0 && args.seconds <= 86_400.0, "--seconds: not between 0 and a day");
    let length = Duration::from_secs_f64(args.seconds);
    let mut screen = Screen::new(args.json);
    let node = EmbeddedNode::start(&Shape {
        ports: &CNFS.map(|(name, _)| name),
        queues: 1,
        wires: &[],
        poll: PollMode::Adaptive,
        cpu: None,
        id: NonZero::<u16>::MIN,
        uplinks: &[],
        tor: false,
    })?;
    screen.say("Shunt demo: a node with two CNFs attached over vhost-user sockets\n\n")?;
    screen.say("  cnf-a ◀══ packed rings ══▶ worker w0, MAC bridge ◀══ packed rings ══▶ cnf-b\n\n")?;

    let mut devices = node.sockets().iter().map(|socket| attach(socket)).collect::<anyhow::Result<Vec<_>>>()?;
    node.wait_until_up()?;
    let mut ports = Vec::new();
    for device in &mut devices {
        let pair = device.take_pairs().pop().context("no queue pair")?;
        ports.push(Port::new(pair)?);
    }
    let counters = [Counters::default(), Counters::default()];
    let elapsed = exchange(ports, &counters, length, &mut screen)?;

    let summary = summarize(&node, &counters, elapsed)?;
    if args.json {
        print(&format!("{}\n", serde_json::to_string(&summary)?))?;
    } else {
        print(&summary.to_string())?;
    }
    if !summary.is_good() {
        bail!("of {} packets {} were lost and {} corrupted", summary.forwarded, summary.lost, summary.corrupted);
    }
    Ok(())
}

fn attach(socket: &Path) -> anyhow::Result<Device> {
    Ok(Endpoint::open(DeviceConfig::new(socket))?.attach()?)
}

/// Lets both CNFs send for so long, or until interrupted, and says how long that was.
fn exchange(
    ports: Vec<Port>,
    counters: &[Counters; 2],
    length: Duration,
    screen: &mut Screen,
) -> anyhow::Result<Duration> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted)).context("cannot listen for signals")?;
    }
    let stop = AtomicBool::new(false);
    let [(_, a), (_, b)] = CNFS;
    let [first, second] = counters;
    thread::scope(|scope| {
        let sides = [(a, b, first, second), (b, a, second, first)];
        let threads: Vec<_> = ports
            .into_iter()
            .zip(sides)
            .map(|(port, (me, peer, mine, theirs))| {
                let runner = Runner::new(port, me, peer, mine, theirs);
                let stop = &stop;
                thread::Builder::new().name(format!("cnf-{me}")).spawn_scoped(scope, move || runner.run(stop))
            })
            .collect::<Result<_, _>>()?;
        let start = Instant::now();
        let shown = watch(counters, start, length, &interrupted, &threads, screen);
        stop.store(true, Relaxed);
        let elapsed = start.elapsed();
        for thread in threads {
            match thread.join() {
                Ok(result) => result.context("a CNF failed")?,
                Err(_) => bail!("a CNF panicked"),
            }
        }
        shown.map(|()| elapsed)
    })
}

/// Shows progress until time is up.
fn watch<T>(
    counters: &[Counters; 2],
    start: Instant,
    length: Duration,
    interrupted: &AtomicBool,
    threads: &[thread::ScopedJoinHandle<'_, T>],
    screen: &mut Screen,
) -> anyhow::Result<()> {
    let mut last = (start, 0, 0);
    loop {
        let elapsed = start.elapsed();
        let over = elapsed >= length || interrupted.load(Relaxed) || threads.iter().any(|thread| thread.is_finished());
        if screen.is_due() || over {
            let cnfs = cnf_views(counters);
            let packets: u64 = cnfs.iter().map(|cnf| cnf.verified).sum();
            let bytes: u64 = cnfs.iter().map(|cnf| cnf.bytes).sum();
            let since = last.0.elapsed().as_secs_f64().max(1e-3);
            #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
            let rate = |now: u64, before: u64| (now - before) as f64 / since;
            let (packets_per_second, bits_per_second) = (rate(packets, last.1), 8.0 * rate(bytes, last.2));
            screen.show(&View { cnfs, elapsed, length, packets_per_second, bits_per_second })?;
            last = (Instant::now(), packets, bytes);
        }
        if over {
            return Ok(());
        }
        thread::sleep(TICK.min(length - elapsed));
    }
}

fn cnf_views(counters: &[Counters; 2]) -> [CnfView; 2] {
    let [(a, _), (b, _)] = CNFS;
    let [first, second] = counters;
    [(a, first), (b, second)].map(|(name, counters)| CnfView {
        name,
        sent: counters.sent.load(Relaxed),
        verified: counters.verified.load(Relaxed),
        corrupted: counters.corrupted.load(Relaxed),
        bytes: counters.bytes.load(Relaxed),
    })
}

fn summarize(node: &EmbeddedNode, counters: &[Counters; 2], elapsed: Duration) -> anyhow::Result<Summary> {
    let stats = node.stats()?;
    let [first, second] = counters;
    let sum = |count: fn(&CnfView) -> u64| cnf_views(counters).iter().map(count).sum();
    Ok(Summary {
        seconds: elapsed.as_secs_f64(),
        forwarded: stats.ports.iter().map(|port| port.tx_packets).sum(),
        verified: sum(|cnf| cnf.verified),
        corrupted: sum(|cnf| cnf.corrupted),
        lost: first.lost(second) + second.lost(first),
        ports: stats.ports.into_iter().map(PortSummary::from).collect(),
        bytes: sum(|cnf| cnf.bytes),
    })
}
