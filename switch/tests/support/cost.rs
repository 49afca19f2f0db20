// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What things cost: time of this thread, so that others on the machine are not counted, and memory of the process.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Time that this thread has run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watch(Duration);

/// How long calls took, all together and the longest.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Calls {
    pub(crate) count: u32,
    pub(crate) total: Duration,
    pub(crate) longest: Duration,
    /// The number of the longest.
    pub(crate) which: u32,
    /// Calls of more than 200 µs.
    pub(crate) stalls: u32,
}

impl Watch {
    pub(crate) fn start() -> Self {
        Self(now())
    }

    pub(crate) fn elapsed(self) -> Duration {
        now().saturating_sub(self.0)
    }
}

impl Calls {
    pub(crate) fn add(&mut self, time: Duration) {
        if time > self.longest {
            (self.longest, self.which) = (time, self.count);
        }
        self.stalls += u32::from(time > Duration::from_micros(200));
        self.count += 1;
        self.total += time;
    }

    /// Adds others that came after these.
    pub(crate) fn merge(&mut self, others: Self) {
        if others.longest > self.longest {
            (self.longest, self.which) = (others.longest, self.count + others.which);
        }
        self.stalls += others.stalls;
        self.count += others.count;
        self.total += others.total;
    }

    /// Nanoseconds of each of so many packets.
    pub(crate) fn each(&self, packets: u64) -> f64 {
        self.total.as_nanos() as f64 / packets as f64
    }
}

impl std::fmt::Display for Calls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { count, longest, which, stalls, .. } = self;
        write!(f, "longest call {longest:.0?} (number {which} of {count}; {stalls} over 200 µs)")
    }
}

/// Bytes of memory that the process has.
pub(crate) fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").expect("procfs");
    let pages: u64 = text.split_whitespace().nth(1).expect("a number of pages").parse().expect("a number");
    pages * rustix::param::page_size() as u64
}

fn now() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.try_into().expect("positive"), time.tv_nsec.try_into().expect("below a second"))
}
