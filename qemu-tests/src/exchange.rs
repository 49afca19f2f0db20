// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Two testpmd guests exchange traffic through a backend, and everybody's counts are compared.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::scenario::WorkDir;
use crate::testpmd::{PortCounts, Testpmd, VirtioUser};
use crate::wait::{wait_settled, wait_until};

/// How long traffic may take to flow, or to come to rest.
const LIMIT: Duration = Duration::from_secs(20);
/// Traffic that has not moved for this long has come to rest.
const QUIET: Duration = Duration::from_millis(60);
/// Bursts of 32 frames that a circulating exchange begins with: fewer frames than any ring here holds.
const SEED_BURSTS: u32 = 4;

/// Who makes the frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// Both guests send as fast as they can and discard what they receive (`flowgen`). The backend is overrun, and must
    /// account for each frame that it could not deliver. All frames have the same addresses: for cross-connects.
    Generated,
    /// A fixed number of frames goes round and round, addressed properly (`macswap`): for bridges.
    Circulating,
    /// The left guest sends as fast as it can (`txonly`, which makes frames of several buffers when asked to), the right
    /// one receives. The backend is overrun.
    OneWay,
}

impl Traffic {
    /// The forwarding modes of the left and of the right guest.
    fn modes(self) -> (&'static str, &'static str) {
        match self {
            Self::Generated => ("flowgen", "flowgen"),
            Self::Circulating => ("macswap", "macswap"),
            Self::OneWay => ("txonly", "rxonly"),
        }
    }
}

/// The two guests, by where their ports are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The guest at the backend's first port.
    Left,
    /// The guest at its second.
    Right,
}

/// What a backend counts, from its own point of view: `rx` came from the guest, `tx` was delivered to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendCounts {
    /// The port of the left guest.
    pub left: PortCounts,
    /// The port of the right guest.
    pub right: PortCounts,
    /// Frames that were received and not delivered, as far as the backend says.
    pub dropped: Option<u64>,
}

/// A backend with two ports that counts.
pub trait Backend {
    /// Its counts now.
    fn counts(&mut self) -> Result<BackendCounts>;
}

/// Two guests that exchange traffic.
#[derive(Debug)]
pub struct Exchange {
    traffic: Traffic,
    left: Testpmd,
    right: Testpmd,
    base: Counts,
}

impl Exchange {
    /// Starts both guests and waits for both prompts. Nothing flows yet.
    pub fn begin(work: &WorkDir, traffic: Traffic, left: &VirtioUser, right: &VirtioUser) -> Result<Self> {
        let modes = traffic.modes();
        let mut guests = Self {
            traffic,
            left: Testpmd::spawn(work, "left", &[left], modes.0)?,
            right: Testpmd::spawn(work, "right", &[right], modes.1)?,
            base: Counts::default(),
        };
        guests.left.ready()?;
        guests.right.ready()?;
        Ok(guests)
    }

    /// One of the guests.
    pub fn guest(&mut self, side: Side) -> &mut Testpmd {
        match side {
            Side::Left => &mut self.left,
            Side::Right => &mut self.right,
        }
    }

    /// Lets both guests forward, without waiting for anything to arrive.
    pub fn start(&mut self) -> Result<()> {
        self.right.start()?;
        self.start_one(Side::Left)
    }

    /// Waits until each guest that is sent to has received `frames` more frames.
    pub fn flows(&mut self, frames: u64) -> Result<()> {
        let before = self.received()?;
        let left_frames = if self.traffic == Traffic::OneWay { 0 } else { frames };
        wait_until(&format!("{frames} frames to arrive"), LIMIT, || {
            let now = self.received()?;
            Ok(now.0 >= before.0 + left_frames && now.1 >= before.1 + frames)
        })
    }

    /// Stops and starts the port of one guest while the other goes on sending, and waits until traffic flows both ways again.
    pub fn restart_port(&mut self, side: Side, frames: u64) -> Result<()> {
        self.guest(side).stop()?;
        self.guest(side).restart_port()?;
        self.start_one(side)?; // what was circulating may have been lost
        self.flows(frames)
    }

    /// Stops all sending, lets both guests take in what is still on its way, and begins to count anew. To be called when
    /// frames may have been lost for a reason: `port start` discards what waits in the receive rings.
    pub fn rest(&mut self, backend: &mut impl Backend) -> Result<()> {
        self.left.stop()?;
        self.right.stop()?;
        self.forward(("rxonly", "rxonly"))?;
        self.left.start()?;
        self.right.start()?;
        self.base = wait_settled("the traffic to come to rest", QUIET, LIMIT, || {
            Ok(Counts { left: self.left.counts()?, right: self.right.counts()?, backend: backend.counts()? })
        })?;
        self.left.stop()?;
        self.right.stop()?;
        self.forward(self.traffic.modes())
    }

    /// Brings the traffic to rest and compares: each frame that a guest sent was received by the backend, each frame that
    /// the backend delivered was received by a guest, and what it received and did not deliver it has counted as dropped.
    /// Counted since the beginning or the last rest.
    pub fn settle(&mut self, backend: &mut impl Backend) -> Result<()> {
        let base = self.base.clone();
        self.rest(backend)?;
        self.base.since(&base).check()
    }

    fn start_one(&mut self, side: Side) -> Result<()> {
        let traffic = self.traffic;
        let guest = self.guest(side);
        match traffic {
            Traffic::Generated | Traffic::OneWay => guest.start(),
            Traffic::Circulating => guest.start_tx_first(SEED_BURSTS),
        }
    }

    fn forward(&mut self, (left, right): (&str, &str)) -> Result<()> {
        self.left.set_forward(left)?;
        self.right.set_forward(right)
    }

    fn received(&mut self) -> Result<(u64, u64)> {
        Ok((self.left.counts().context("left guest")?.rx, self.right.counts().context("right guest")?.rx))
    }
}

/// Everybody's counts at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Counts {
    left: PortCounts,
    right: PortCounts,
    backend: BackendCounts,
}

impl Counts {
    fn since(&self, base: &Self) -> Self {
        Self {
            left: self.left - base.left,
            right: self.right - base.right,
            backend: BackendCounts {
                left: self.backend.left - base.backend.left,
                right: self.backend.right - base.backend.right,
                dropped: self.backend.dropped.map(|d| d - base.backend.dropped.unwrap_or(0)),
            },
        }
    }

    fn check(&self) -> Result<()> {
        let Self { left, right, backend } = self;
        ensure!(mirror(*left) == backend.left && mirror(*right) == backend.right, "the counts differ: {self:?}");
        let undelivered = (left.tx + right.tx).checked_sub(left.rx + right.rx);
        let undelivered = undelivered.with_context(|| format!("more arrived than was sent: {self:?}"))?;
        if let Some(dropped) = backend.dropped {
            ensure!(dropped == undelivered, "{undelivered} frames are missing, {dropped} counted as dropped: {self:?}");
        }
        Ok(())
    }
}

/// What is sent on one side of a ring is received on the other.
fn mirror(c: PortCounts) -> PortCounts {
    PortCounts { rx: c.tx, tx: c.rx }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_that_nobody_accounts_for_is_an_error() {
        let counts = |right_rx: u64, dropped: u64| Counts {
            left: PortCounts { rx: 20, tx: 10 },
            right: PortCounts { rx: right_rx, tx: 20 },
            backend: BackendCounts {
                left: PortCounts { rx: 10, tx: 20 },
                right: PortCounts { rx: 20, tx: right_rx },
                dropped: Some(dropped),
            },
        };
        assert_eq!(counts(10, 0).check().map_err(|e| e.to_string()), Ok(()));
        assert_eq!(counts(9, 1).check().map_err(|e| e.to_string()), Ok(()));
        let error = counts(9, 0).check().unwrap_err().to_string();
        assert!(error.starts_with("1 frames are missing, 0 counted as dropped"), "{error}");
        assert_eq!(
            counts(9, 1).since(&counts(9, 1)),
            Counts { backend: BackendCounts { dropped: Some(0), ..Default::default() }, ..Default::default() }
        );
    }
}
