// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whose turn it is: a worker's time is shared by its ports, not its bursts (decision 17).
//!
//! # Theory of operation
//!
//! A burst of packets that nobody knows costs ten times what one of known flows costs, so ports that are served in turn are
//! not served alike. Each port therefore has a clock that runs while its packets are worked on. A port whose clock is ahead
//! of the slowest by more than a quantum sits turns out until the others have caught up, or have nothing more to send: what
//! nobody else wants it may have. A port that begins to send starts with the slowest, so that silence earns nothing.

use packet::PortId;

/// How much time each port has had.
#[derive(Debug)]
pub(super) struct Shares {
    /// Ticks, by port.
    clocks: Vec<u64>,
    quantum: u64,
    /// The slowest clock of those that had packets in the last turn.
    slowest: u64,
    /// The same of this turn, so far.
    next_slowest: u64,
    /// When the work began that has not been put to anybody's account yet.
    since: u64,
}

impl Shares {
    /// Clocks may differ by `quantum` ticks.
    pub(super) const fn new(quantum: u64) -> Self {
        Self { clocks: Vec::new(), quantum, slowest: 0, next_slowest: u64::MAX, since: 0 }
    }

    /// All ports are asked whether they have packets, from now on.
    #[inline]
    pub(super) const fn begin_turn(&mut self, now: u64) {
        if self.next_slowest != u64::MAX {
            self.slowest = self.next_slowest;
        }
        self.next_slowest = u64::MAX;
        self.since = now;
    }

    /// Whether the port may have a burst. One that may not counts as one that has packets.
    #[inline]
    pub(super) fn may_have(&mut self, port: PortId) -> bool {
        let clock = self.clocks.get(port.index()).copied().unwrap_or(0);
        let may = clock <= self.slowest.saturating_add(self.quantum);
        if !may {
            self.next_slowest = self.next_slowest.min(clock);
        }
        may
    }

    /// The port had packets, on which was worked until now.
    #[inline]
    pub(super) fn charge(&mut self, port: PortId, now: u64) {
        let at = port.index();
        if self.clocks.len() <= at {
            self.clocks.resize(at + 1, 0);
        }
        let Some(clock) = self.clocks.get_mut(at) else { return };
        *clock = (*clock).max(self.slowest).saturating_add(now.saturating_sub(self.since));
        self.next_slowest = self.next_slowest.min(*clock);
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUANTUM: u64 = 1000;

    /// Ports whose bursts take so long, as many turns as fit into a time; each has packets while `wants` says so. Returns
    /// the time that each had.
    fn run<const N: usize>(costs: [u64; N], wants: impl Fn(usize, u64) -> bool) -> [u64; N] {
        let (mut shares, mut now, mut had) = (Shares::new(QUANTUM), 5_000_000, [0; N]);
        let begin = now;
        while now < begin + 1_000_000 {
            shares.begin_turn(now);
            let before = now;
            for (i, cost) in costs.into_iter().enumerate() {
                let port = PortId(u16::try_from(i).unwrap());
                if wants(i, now - begin) && shares.may_have(port) {
                    now += cost;
                    had[i] += cost;
                    shares.charge(port, now);
                }
            }
            // An empty turn takes time, too.
            now += u64::from(now == before);
        }
        had
    }

    fn about(had: u64, share: u64) -> bool {
        had.abs_diff(share) < share / 50 + 2 * QUANTUM
    }

    #[test]
    fn time_is_shared_whatever_a_burst_costs() {
        let [a, b, c] = run([50, 500, 120], |_, _| true);
        assert!([a, b, c].into_iter().all(|had| about(had, 333_333)), "{a} {b} {c}");
    }

    #[test]
    fn what_nobody_else_wants_one_may_have() {
        let [a, b] = run([50, 500], |port, _| port == 1);
        assert!(a == 0 && about(b, 1_000_000), "{b}");
        // One that wants little gets it.
        let [a, b] = run([50, 500], |port, now| port == 1 || now % 10_000 < 600);
        assert!((4_000..=12_000).contains(&a) && about(a + b, 1_000_000), "{a} {b}");
    }

    #[test]
    fn silence_earns_nothing() {
        let [a, b] = run([50, 500], |port, now| port == 1 || now > 500_000);
        assert!(about(a, 250_000) && about(b, 750_000), "{a} {b}");
    }
}
