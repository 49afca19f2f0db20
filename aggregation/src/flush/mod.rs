// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! When what has been put together is sent.
//!
//! # Theory of operation
//!
//! There is a [`Queue`] for each next hop and class. Whoever fills it asks three questions:
//!
//! * [`before`](Queue::before) a packet is appended: must what is there go first, because the packet would not fit?
//! * [`push`](Queue::push): now that it is there, must all go, because the frame is full or the packet is urgent?
//! * [`turn`](Queue::turn) at the end of a burst or of a worker's turn: does anything justify waiting?
//!
//! and after a yes sends the frame and says so by [`flushed`](Queue::flushed).
//!
//! By default nothing justifies waiting: what came together goes together (*natural batching*). With
//! [`tx_aggr_time_usecs`](Knobs::tx_aggr_time_usecs) above 0 a queue is held until its first packet is so old, but only if another
//! arrival is expected in that time. What is expected is the mean gap between the last arrivals (an exponentially weighted mean of weight
//! 1/8), packets of one turn being one arrival: eight packets at once every 100 µs promise nothing within 50 µs, although their mean
//! distance is 12 µs. When the gaps become long, packets go at once.

mod histogram;
#[cfg(test)]
mod tests;

use std::fmt;

pub use histogram::Histogram;

/// Gaps between arrivals are taken to be at most this, a millisecond, so that a queue that was idle for long learns quickly.
const LONGEST_GAP: u64 = 1_000_000;
/// Weight of a new gap: one part in 2 to the power of this.
const WEIGHT: u32 = 3;

/// What can be set, named as ethtool names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Knobs {
    /// Bytes of packets, with what each takes up in the frame, after which a frame is full.
    pub tx_aggr_max_bytes: usize,
    /// Packets after which a frame is full, at least 1.
    pub tx_aggr_max_frames: u32,
    /// Microseconds for which the first packet of a frame is held at most; 0: not at all.
    pub tx_aggr_time_usecs: u32,
}

/// Declares the triggers once, so that the enum, the labels and the list cannot drift apart.
macro_rules! triggers {
    ($($(#[doc = $doc:literal])+ $variant:ident => $label:literal,)+) => {
        /// Why a frame was sent. The list is exhaustive: it is also the set of metric labels.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Trigger {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Trigger {
            /// Every trigger, in the order of [`Trigger::index`].
            pub const ALL: [Self; [$($label),+].len()] = [$(Self::$variant),+];

            /// The trigger as a metric label, in `snake_case`.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$variant => $label,)+
                }
            }
        }
    };
}

triggers! {
    /// Its first packet was held as long as it may be.
    Age => "age",
    /// The burst, or the worker's turn, ended, and nothing justified waiting.
    Burst => "burst",
    /// No packet fits any more, or the next did not.
    Bytes => "bytes",
    /// It has as many packets as it may.
    Frames => "frames",
    /// A packet that is longer than any frame may be follows it to the same next hop.
    Larger => "larger",
    /// Something goes to the same next hop as a plain frame, or the mode changes.
    Order => "order",
    /// The destination has few buffers left, or the caller needs the space.
    Pressure => "pressure",
    /// A packet that may not wait: by its class, or because it opens or ends a TCP connection.
    Urgent => "urgent",
}

impl Trigger {
    /// Number of triggers: the size of a table with a counter for each.
    pub const COUNT: usize = Self::ALL.len();

    /// Position in [`Trigger::ALL`], below [`Trigger::COUNT`].
    #[inline]
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// What is known of what waits for one next hop in one class. Times are nanoseconds of any clock that does not go back.
#[derive(Clone, Debug)]
pub struct Queue {
    knobs: Knobs,
    /// Bytes and packets that wait.
    bytes: usize,
    frames: u32,
    /// When the first of them came.
    first_at: u64,
    /// Packets of the current turn have come.
    arrived: bool,
    /// When packets came last, and the mean gap between that and before; `None` before there was one.
    last_at: Option<u64>,
    gap: Option<u64>,
    stats: Stats,
}

/// What happened at a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Frames by what sent them, in the order of [`Trigger::ALL`].
    pub triggers: [u64; Trigger::COUNT],
    /// Packets of each frame.
    pub packets: Histogram,
    /// Nanoseconds between the arrival of a frame's first packet and its being sent.
    pub held: Histogram,
}

impl Knobs {
    /// Never holds, and fills what the receiver takes.
    #[must_use]
    pub const fn natural(max_bytes: usize, max_frames: u32) -> Self {
        Self { tx_aggr_max_bytes: max_bytes, tx_aggr_max_frames: max_frames, tx_aggr_time_usecs: 0 }
    }

    const fn hold(&self) -> u64 {
        (self.tx_aggr_time_usecs as u64).saturating_mul(1000)
    }
}

impl Queue {
    /// An empty queue.
    #[must_use]
    pub fn new(knobs: Knobs) -> Self {
        Self {
            knobs,
            bytes: 0,
            frames: 0,
            first_at: 0,
            arrived: false,
            last_at: None,
            gap: None,
            stats: Stats::default(),
        }
    }

    /// Other settings from now on.
    pub const fn set_knobs(&mut self, knobs: Knobs) {
        self.knobs = knobs;
    }

    /// Whether what waits must be sent before a packet that takes up `bytes` is appended. [`Trigger::Larger`] also says that this packet is
    /// not to be appended at all, but to be sent plain, after what waits; it is then the answer of an empty queue, too.
    #[inline]
    #[must_use]
    pub const fn before(&self, bytes: usize) -> Option<Trigger> {
        if bytes > self.knobs.tx_aggr_max_bytes {
            Some(Trigger::Larger)
        } else if self.bytes.saturating_add(bytes) > self.knobs.tx_aggr_max_bytes {
            Some(Trigger::Bytes)
        } else {
            None
        }
    }

    /// Accounts for a packet that was appended, and says whether all is to be sent now. `least` is what the shortest packet would take up:
    /// a frame without room for that is full.
    #[inline]
    pub const fn push(&mut self, bytes: usize, urgent: bool, least: usize, now: u64) -> Option<Trigger> {
        if self.frames == 0 {
            self.first_at = now;
        }
        self.arrived = true;
        self.frames = self.frames.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
        if urgent {
            Some(Trigger::Urgent)
        } else if self.frames >= self.knobs.tx_aggr_max_frames {
            Some(Trigger::Frames)
        } else if self.bytes.saturating_add(least) > self.knobs.tx_aggr_max_bytes {
            Some(Trigger::Bytes)
        } else {
            None
        }
    }

    /// Accounts for packets that were appended together, by somebody who knows himself when a frame is full.
    pub const fn push_all(&mut self, packets: u32, bytes: usize, now: u64) {
        if self.frames == 0 {
            self.first_at = now;
        }
        self.arrived = true;
        self.frames = self.frames.saturating_add(packets);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// At the end of a burst or a turn: whether what waits is to be sent. If not, ask again when [`deadline`](Self::deadline) has come, at
    /// the latest.
    pub fn turn(&mut self, now: u64) -> Option<Trigger> {
        if self.arrived {
            self.learn(now);
        }
        if self.frames == 0 {
            return None;
        }
        let deadline = self.first_at.saturating_add(self.knobs.hold());
        let expected = match (self.last_at, self.gap) {
            (Some(last_at), Some(gap)) => last_at.saturating_add(gap),
            _ => u64::MAX,
        };
        if self.knobs.hold() > 0 && now >= deadline {
            Some(Trigger::Age)
        } else if self.knobs.hold() == 0 || expected > deadline {
            Some(Trigger::Burst)
        } else {
            None
        }
    }

    /// When what waits has been held as long as it may be; `None` if nothing waits.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        (self.frames > 0).then(|| self.first_at.saturating_add(self.knobs.hold()))
    }

    /// What waited was sent, for this reason; nothing waits now.
    #[inline]
    pub fn flushed(&mut self, trigger: Trigger, now: u64) {
        if self.frames == 0 {
            return;
        }
        if let Some(count) = self.stats.triggers.get_mut(trigger.index()) {
            *count = count.saturating_add(1);
        }
        self.stats.packets.add(u64::from(self.frames));
        self.stats.held.add(now.saturating_sub(self.first_at));
        self.bytes = 0;
        self.frames = 0;
    }

    /// What waited was lost, and is not counted here; nothing waits now.
    pub const fn lost(&mut self) {
        self.bytes = 0;
        self.frames = 0;
    }

    /// When the first of what waits came, or of what waited last.
    #[must_use]
    pub const fn first_at(&self) -> u64 {
        self.first_at
    }

    /// Packets that wait.
    #[inline]
    #[must_use]
    pub const fn frames(&self) -> u32 {
        self.frames
    }

    /// Bytes that wait.
    #[inline]
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing waits.
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.frames == 0
    }

    /// What happened so far.
    #[must_use]
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Takes a turn with packets into the mean gap.
    fn learn(&mut self, now: u64) {
        if let Some(last_at) = self.last_at {
            let gap = now.saturating_sub(last_at).min(LONGEST_GAP);
            self.gap = Some(match self.gap {
                // mean + (gap - mean) / 8, rounded up so that it reaches any gap that stays.
                Some(mean) if gap > mean => mean.saturating_add(gap.saturating_sub(mean).div_ceil(1 << WEIGHT)),
                Some(mean) => mean.saturating_sub(mean.saturating_sub(gap).div_ceil(1 << WEIGHT)),
                None => gap,
            });
        }
        self.last_at = Some(now);
        self.arrived = false;
    }
}
