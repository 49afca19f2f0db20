// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The generator: all queue pairs of all devices, driven by the thread that calls.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use backend::sys::{Clock, cycles};
use cnf::Device;
use hdrhistogram::Histogram;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::dialog::{Dialogs, Kind};
use super::flood::Flooder;
use super::flows::Side;
use super::lane::{BURST, Lane};
use super::latency::Percentiles;
use super::ledger::Ledger;
use super::options::Options;
use super::pace::Pace;
use super::pvp::as_float;

/// Before anything is measured.
const WARM_UP: Duration = Duration::from_millis(500);

/// How long a backend may take to get going, or to give back what was sent; and how often that is looked at.
const WAKING: Duration = Duration::from_secs(10);
const GLANCE: Duration = Duration::from_millis(20);

/// When nothing has moved for so long after sending stopped, what is missing is lost.
const QUIET: Duration = Duration::from_millis(500);

/// So often it is looked whether the backends are still there; a lane of which nothing arrived in that time gives up for
/// lost what is on its way.
const STALL: Duration = Duration::from_millis(200);

/// What was counted in a stretch of time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Count {
    pub(super) seconds: f64,
    pub(super) sent: u64,
    pub(super) received: u64,
    /// Packets of the flood.
    pub(super) flooded: u64,
    /// TSC cycles in all, and in rounds that found nothing to do.
    pub(super) cycles: u64,
    pub(super) idle_cycles: u64,
    /// Cycles to send a packet and receive one, in the middle: half of the packets moved in rounds that were faster.
    /// Not a mean, which would count the time this thread did not get the core.
    pub(super) cycles_per_packet: f64,
}

impl Count {
    pub(super) fn received_per_second(&self) -> f64 {
        as_float(self.received) / self.seconds
    }
}

/// Two attached devices as source and sink of each other's packets.
#[derive(Debug)]
pub(super) struct Engine {
    // Dropping a device closes its connection.
    devices: Vec<Device>,
    lanes: Vec<Lane>,
    ledger: Ledger,
    flooder: Option<Flooder>,
    /// Someone has had enough.
    interrupted: Arc<AtomicBool>,
}

impl Engine {
    /// Takes over one device for each side and posts the receive buffers.
    pub(super) fn new(mut devices: Vec<Device>, options: &Options) -> anyhow::Result<Self> {
        ensure!(devices.len() == 2, "{} devices instead of two", devices.len());
        let mut lanes = Vec::new();
        for (device, side) in devices.iter_mut().zip(Side::BOTH) {
            for pair in device.take_pairs() {
                let source = u8::try_from(lanes.len()).context("more than 256 queue pairs")?;
                lanes.push(Lane::new(pair, side, source, options)?);
            }
        }
        let ledger = Ledger::new(options, lanes.len())?;
        // An error like any other: the node's directory goes with it.
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&interrupted)).context("cannot listen for signals")?;
        }
        Ok(Self { devices, lanes, ledger, flooder: None, interrupted })
    }

    /// From now on a third port sends, too, whenever the others do.
    pub(super) fn flood(&mut self, flooder: Flooder) {
        self.flooder = Some(flooder);
    }

    /// Opens every flow, in both directions; says how many seconds that took.
    pub(super) fn open(&mut self, options: &Options) -> anyhow::Result<f64> {
        let seconds = self.talk(Kind::Opening, options)?;
        self.lanes.iter().for_each(Lane::load);
        Ok(seconds)
    }

    /// Closes every connection; says how many seconds that took.
    pub(super) fn close(&mut self, options: &Options) -> anyhow::Result<f64> {
        self.talk(Kind::Closing, options)
    }

    fn talk(&mut self, kind: Kind, options: &Options) -> anyhow::Result<f64> {
        let clock = Clock::get();
        let (start, stall) = (cycles(), clock.to_ticks(STALL));
        let mut look = start + stall;
        let mut dialogs = Dialogs::new(kind, options.transport(), options.flows, options.queue_size);
        while !dialogs.is_done() {
            let sockets: Vec<&Path> = self.devices.iter().map(Device::socket).collect();
            let sockets: &[&Path; 2] = sockets.as_slice().try_into().context("two devices")?;
            dialogs.step(&mut self.lanes, &mut self.ledger, sockets)?;
            if cycles() > look {
                self.check_devices()?;
                look = cycles() + stall;
            }
        }
        let seconds = as_float(cycles() - start) / as_float(clock.hertz());
        self.rest()?;
        Ok(seconds)
    }

    /// Waits until all that was sent has come back, and nothing has arrived for a while.
    fn rest(&mut self) -> anyhow::Result<()> {
        let clock = Clock::get();
        let (end, glance) = (cycles() + clock.to_ticks(WAKING), clock.to_ticks(GLANCE));
        let mut heard = cycles();
        loop {
            let mut at_rest = true;
            for lane in &mut self.lanes {
                lane.hear(|_| heard = cycles())?;
                at_rest &= lane.is_at_rest()?;
            }
            if at_rest && cycles() - heard > glance {
                return Ok(());
            }
            ensure!(cycles() < end, "the backend keeps buffers that were sent");
        }
    }

    /// Sends until packets of every queue arrive: backends take their time after the handshake.
    pub(super) fn wake_up(&mut self) -> anyhow::Result<()> {
        let clock = Clock::get();
        let end = cycles() + clock.to_ticks(WAKING);
        loop {
            self.run(None, GLANCE)?;
            let Some(deaf) = self.ledger.accounts.iter().position(|account| account.received == 0) else {
                return Ok(());
            };
            self.check_devices()?;
            // What was sent too early is lost; more is sent instead.
            self.lanes.iter_mut().for_each(Lane::give_up);
            if cycles() > end {
                let pairs = self.lanes.len() / self.devices.len().max(1);
                let device = self.devices.get(deaf / pairs.max(1)).context("no device")?;
                bail!("{}: what is sent here does not arrive at the other end", device.socket().display());
            }
        }
    }

    /// Sends and receives without counting.
    pub(super) fn warm_up(&mut self, rate: Option<f64>) -> anyhow::Result<()> {
        self.run(rate, WARM_UP).map(drop)
    }

    /// Sends and receives for so long.
    pub(super) fn run(&mut self, rate: Option<f64>, length: Duration) -> anyhow::Result<Count> {
        let clock = Clock::get();
        let (length, stall) = (clock.to_ticks(length), clock.to_ticks(STALL));
        let mut pace = Pace::new(rate.map(|pps| pps / as_float(clock.hertz())));
        let mut rounds = Rounds::new()?;
        let mut count = Count::default();
        let start = cycles();
        self.ledger.latency.restart(start);
        let (mut now, mut look) = (start, start + stall);
        while now - start < length {
            let (received, sent) = self.round(&mut pace, now)?;
            if let Some(flooder) = &mut self.flooder {
                count.flooded += flooder.step()? as u64;
            }
            let then = cycles();
            count.received += received as u64;
            count.sent += sent as u64;
            if received + sent > 0 {
                rounds.enter(then - now, received + sent);
            } else {
                count.idle_cycles += then - now;
            }
            if then > look {
                self.check_devices()?;
                self.lanes.iter_mut().for_each(|lane| lane.look(&self.ledger));
                look = then + stall;
            }
            now = then;
        }
        count.cycles = now - start;
        count.seconds = as_float(count.cycles) / as_float(clock.hertz());
        count.cycles_per_packet = 2.0 * rounds.median();
        Ok(count)
    }

    /// Receives until everything has arrived, or nothing more does; what is missing then is lost.
    pub(super) fn drain(&mut self) -> anyhow::Result<()> {
        let quiet = Clock::get().to_ticks(QUIET);
        let mut quiet_since = cycles();
        while self.missing() > 0 {
            let now = cycles();
            let mut received = 0;
            for lane in &mut self.lanes {
                received += lane.step(0, &mut self.ledger, now)?.0;
            }
            if received > 0 {
                quiet_since = now;
            } else if now - quiet_since > quiet {
                break;
            }
        }
        Ok(())
    }

    /// Packets that were sent and have not come back, since the beginning.
    pub(super) fn missing(&self) -> u64 {
        let sent: u64 = self.lanes.iter().map(|lane| lane.sent).sum();
        let received = self.ledger.accounts.iter().map(|account| account.received).sum();
        sent.saturating_sub(received)
    }

    pub(super) fn reordered(&self) -> u64 {
        self.ledger.accounts.iter().map(|account| account.late).sum()
    }

    pub(super) fn aliens(&self) -> u64 {
        self.ledger.aliens
    }

    pub(super) fn kicks(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.kicks).sum()
    }

    /// How often nothing arrived for so long that all that was on its way was given up for lost.
    pub(super) fn stalls(&self) -> u64 {
        self.lanes.iter().map(Lane::stalls).sum()
    }

    /// Frames that were looked at whole.
    pub(super) fn inspected(&self) -> u64 {
        self.ledger.inspector.inspected
    }

    /// Fails if a frame that was looked at had not arrived as it was to.
    pub(super) fn check_frames(&self) -> anyhow::Result<()> {
        let inspector = &self.ledger.inspector;
        match inspector.first.clone() {
            Some(changed) => {
                let share = format!(
                    "{} of {} frames looked at are not as they should be",
                    inspector.changed, inspector.inspected
                );
                Err(anyhow::Error::from(changed).context(share))
            }
            None => Ok(()),
        }
    }

    pub(super) fn latency(&self) -> Percentiles {
        self.ledger.latency.percentiles()
    }

    /// Every lane once; packets received and sent.
    #[inline]
    fn round(&mut self, pace: &mut Pace, now: u64) -> anyhow::Result<(usize, usize)> {
        let mut all = (0, 0);
        let limited = pace.is_limited();
        for lane in &mut self.lanes {
            // A rate is shared by the lanes in small pieces, else the first one would send everything.
            let most = if limited { pace.allow(1, now) } else { BURST };
            let most = most.min(lane.allowance(&self.ledger));
            let (received, sent) = lane.step(most, &mut self.ledger, now)?;
            pace.spend(sent);
            all = (all.0 + received, all.1 + sent);
        }
        Ok(all)
    }

    fn check_devices(&self) -> anyhow::Result<()> {
        ensure!(!self.interrupted.load(Relaxed), "interrupted");
        match self.devices.iter().find(|device| !device.is_connected()) {
            Some(device) => bail!("{}: the backend has closed the connection", device.socket().display()),
            None => Ok(()),
        }
    }
}

/// How long rounds took, in thousandths of a cycle for each packet that was sent or received, weighed by packets.
struct Rounds(Histogram<u64>);

impl Rounds {
    fn new() -> anyhow::Result<Self> {
        Ok(Self(Histogram::new_with_bounds(1, 10_000_000_000, 2)?))
    }

    #[inline]
    fn enter(&mut self, took: u64, packets: usize) {
        let packets = packets as u64;
        self.0.saturating_record_n((took.saturating_mul(1000) / packets).max(1), packets);
    }

    fn median(&self) -> f64 {
        as_float(self.0.value_at_quantile(0.5)) / 1000.0
    }
}
