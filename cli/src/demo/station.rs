// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One CNF of the demo: a thread that sends frames to the other one and verifies what comes from it.
//!
//! Theory of operation. At most [`WINDOW`] packets of each direction are on their way, fewer than the other side has
//! receive buffers: whatever is lost then was lost by the node, or the rings. How far the other side has come is known
//! from its counters, since both live in this process; nothing but packets travels through the node.

use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::time::{Duration, Instant};

use cnf::{Port, PortError};

use super::frame::{self, LONGEST, Source, Station};

/// Packets on their way to the other side, at most.
const WINDOW: u64 = 192;

/// Frames sent at once.
const BURST: usize = 32;

/// So often a station looks in vain before it sleeps until it is called.
const PATIENCE: u32 = 64;

/// The longest sleep: the window may open without a call.
const SLEEP: Duration = Duration::from_micros(200);

/// Packets that have not arrived for so long are lost.
const LOST_AFTER: Duration = Duration::from_millis(500);

/// What a station has done; written by it alone, read by everyone.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) sent: AtomicU64,
    /// Intact and in turn.
    pub(super) verified: AtomicU64,
    /// Altered, doubled or out of turn.
    pub(super) corrupted: AtomicU64,
    pub(super) bytes: AtomicU64,
    /// The number that is due next.
    due: AtomicU64,
    /// Nothing more will be sent.
    finished: AtomicBool,
}

impl Counters {
    /// Packets of the other side that have neither arrived nor are on their way any more.
    pub(super) fn lost(&self, peer: &Self) -> u64 {
        peer.sent.load(Relaxed).saturating_sub(self.verified.load(Relaxed) + self.corrupted.load(Relaxed))
    }
}

/// One CNF.
#[derive(Debug)]
pub(super) struct Runner<'a> {
    port: Port,
    me: Station,
    peer: Station,
    mine: &'a Counters,
    theirs: &'a Counters,
    source: Source,
    /// Frames that were built and not sent yet: the last `waiting` of them.
    frames: Vec<Vec<u8>>,
    waiting: usize,
    buffer: Box<[u8]>,
}

impl<'a> Runner<'a> {
    pub(super) fn new(port: Port, me: Station, peer: Station, mine: &'a Counters, theirs: &'a Counters) -> Self {
        Self {
            port,
            me,
            peer,
            mine,
            theirs,
            source: Source::new(me, peer),
            frames: vec![Vec::new(); BURST],
            waiting: 0,
            buffer: vec![0; LONGEST + 1].into(),
        }
    }

    /// Sends and receives until told to stop, then receives what is still on its way.
    pub(super) fn run(mut self, stop: &AtomicBool) -> Result<(), PortError> {
        let mut idle = 0;
        let mut moved_at = Instant::now();
        loop {
            let stopping = stop.load(Relaxed);
            if stopping {
                self.mine.finished.store(true, Release);
            }
            let sent = if stopping { 0 } else { self.send()? };
            if sent + self.receive()? > 0 {
                idle = 0;
                moved_at = Instant::now();
                continue;
            }
            if stopping && (self.is_complete() || moved_at.elapsed() > LOST_AFTER) {
                return Ok(());
            }
            idle += 1;
            if idle > PATIENCE {
                self.port.wait(SLEEP);
            }
        }
    }

    /// Whether everything that was sent in either direction has arrived.
    fn is_complete(&self) -> bool {
        self.theirs.finished.load(Acquire)
            && self.mine.due.load(Relaxed) == self.theirs.sent.load(Relaxed)
            && self.theirs.due.load(Relaxed) == self.mine.sent.load(Relaxed)
    }

    fn send(&mut self) -> Result<usize, PortError> {
        if self.waiting == 0 {
            let on_their_way = self.mine.sent.load(Relaxed).saturating_sub(self.theirs.due.load(Relaxed));
            // Whole bursts: half-filled ones cost the node as much.
            if on_their_way + BURST as u64 > WINDOW {
                return Ok(0);
            }
            for frame in &mut self.frames {
                self.source.next(frame);
            }
            self.waiting = BURST;
        }
        let first = self.frames.len().saturating_sub(self.waiting);
        let mut burst: [&[u8]; BURST] = [&[]; BURST];
        for (place, frame) in burst.iter_mut().zip(self.frames.iter().skip(first)) {
            *place = frame;
        }
        let sent = self.port.send_burst(burst.get(..self.waiting).unwrap_or(&[]))?;
        self.waiting -= sent;
        self.mine.sent.fetch_add(sent as u64, Relaxed);
        Ok(sent)
    }

    fn receive(&mut self) -> Result<usize, PortError> {
        let (me, peer, buffer) = (self.me, self.peer, &mut self.buffer);
        let mut due = self.mine.due.load(Relaxed);
        let (mut verified, mut corrupted, mut bytes) = (0, 0, 0);
        let count = self.port.receive_burst(cnf::MAX_BURST, |received| {
            let len = received.read(buffer);
            bytes += len as u64;
            match buffer.get(..len).and_then(|frame| frame::verify(frame, peer, me)) {
                Some(sequence) if sequence >= due => {
                    due = sequence + 1;
                    verified += 1;
                }
                _ => corrupted += 1,
            }
        })?;
        if count > 0 {
            self.mine.verified.fetch_add(verified, Relaxed);
            self.mine.corrupted.fetch_add(corrupted, Relaxed);
            self.mine.bytes.fetch_add(bytes, Relaxed);
            self.mine.due.store(due, Relaxed);
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_neither_intact_nor_altered_is_lost() {
        let (mine, theirs) = (Counters::default(), Counters::default());
        theirs.sent.store(10, Relaxed);
        mine.verified.store(7, Relaxed);
        mine.corrupted.store(1, Relaxed);
        assert_eq!(mine.lost(&theirs), 2);
    }
}
