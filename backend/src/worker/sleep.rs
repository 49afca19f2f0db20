// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! When an idle worker sleeps, and what wakes it.
//!
//! Kick eventfds are watched edge-triggered and never read: each write is a new edge, no descriptor of a guest's is ever
//! waited on by a read, and a guest cannot make a read block.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use epoll::{ControlOptions, Event, Events};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use crate::config::PollMode;
use crate::sys::Clock;

/// How long an adaptive worker polls without finding work before it sleeps: longer than the gaps inside a busy guest's
/// traffic, short against a scheduler's time slice.
const ADAPTIVE_SPIN: Duration = Duration::from_micros(100);
/// How often a sleeping worker looks at rings whose driver asked to be polled.
const POLLED_RING_INTERVAL_MS: i32 = 1;

/// The worker's way to sleep.
#[derive(Debug)]
pub(crate) struct Sleeper {
    epoll: OwnedEpoll,
    spin_ticks: Option<u64>,
    idle_since: Option<u64>,
    /// Rings without a kick eventfd.
    polled_rings: usize,
    /// A timer for sleeps that are no whole number of milliseconds, once there was one. It is watched, and never read.
    alarm: Option<OwnedFd>,
}

impl Sleeper {
    pub(crate) fn new(mode: PollMode, clock: Clock) -> io::Result<Self> {
        let spin_ticks = match mode {
            PollMode::Busy => None,
            PollMode::Adaptive => Some(clock.to_ticks(ADAPTIVE_SPIN)),
            PollMode::Interrupt => Some(0),
        };
        Ok(Self { epoll: OwnedEpoll::new()?, spin_ticks, idle_since: None, polled_rings: 0, alarm: None })
    }

    /// Watches an eventfd of ours or a guest's.
    pub(crate) fn watch(&self, fd: &impl AsRawFd) -> io::Result<()> {
        let events = Event::new(Events::EPOLLIN | Events::EPOLLET, 0);
        epoll::ctl(self.epoll.0, ControlOptions::EPOLL_CTL_ADD, fd.as_raw_fd(), events)
    }

    /// Watches a ring's kick; without one the ring is looked at on a timer.
    pub(crate) fn watch_ring(&mut self, kick: Option<&OwnedFd>) {
        match kick {
            Some(fd) => {
                if let Err(error) = self.watch(fd) {
                    // Not an eventfd, or one that is watched already: the ring is served all the same.
                    log::warn!("a kick eventfd cannot be watched ({error}); its ring is polled");
                    self.polled_rings += 1;
                }
            }
            None => self.polled_rings += 1,
        }
    }

    pub(crate) fn unwatch_ring(&mut self, kick: Option<&OwnedFd>) {
        let watched = kick.is_some_and(|fd| self.unwatch(fd).is_ok());
        if !watched {
            self.polled_rings = self.polled_rings.saturating_sub(1);
        }
    }

    pub(crate) fn unwatch(&self, fd: &impl AsRawFd) -> io::Result<()> {
        let none = Event::new(Events::empty(), 0);
        epoll::ctl(self.epoll.0, ControlOptions::EPOLL_CTL_DEL, fd.as_raw_fd(), none)
    }

    pub(crate) fn busy(&mut self) {
        self.idle_since = None;
    }

    /// Whether a worker that found nothing at `now` has been idle for long enough to sleep.
    pub(crate) fn should_sleep(&mut self, now: u64) -> bool {
        let Some(spin) = self.spin_ticks else { return false };
        now.wrapping_sub(*self.idle_since.get_or_insert(now)) >= spin
    }

    /// Sleeps until something happens, or for as long as `limit`.
    pub(crate) fn sleep(&mut self, limit: Option<Duration>) {
        if let Some(limit) = limit
            && limit.subsec_nanos() % 1_000_000 != 0
        {
            // epoll counts in milliseconds.
            self.set_alarm(limit);
        }
        let millis = limit.map(|limit| limit.as_nanos().div_ceil(1_000_000));
        let limit = millis.map_or(-1, |millis| i32::try_from(millis).unwrap_or(i32::MAX));
        let timeout = match (self.polled_rings, limit) {
            (0, limit) => limit,
            (_, 0) => 0,
            (_, _) => POLLED_RING_INTERVAL_MS,
        };
        let mut events = [Event::new(Events::empty(), 0); 8];
        // An interrupted wait is a wake-up like any other.
        let _ = epoll::wait(self.epoll.0, timeout, &mut events);
        if self.polled_rings == 0 {
            self.idle_since = None;
        }
    }
}

impl Sleeper {
    /// Lets a sleep end after `time`, to the microsecond. If that cannot be had it ends a millisecond later.
    #[cold]
    fn set_alarm(&mut self, time: Duration) {
        if self.alarm.is_none() {
            let made = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK);
            self.alarm = made.ok().filter(|alarm| self.watch(alarm).is_ok());
        }
        let Some(alarm) = &self.alarm else { return };
        let once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let Ok(it_value) = Timespec::try_from(time) else { return };
        let _ = timerfd_settime(alarm, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: once, it_value });
    }
}

#[derive(Debug)]
struct OwnedEpoll(RawFd);

impl OwnedEpoll {
    fn new() -> io::Result<Self> {
        Ok(Self(epoll::create(true)?))
    }
}

impl Drop for OwnedEpoll {
    fn drop(&mut self) {
        // Nothing can be done about a failing close.
        let _ = epoll::close(self.0);
    }
}
