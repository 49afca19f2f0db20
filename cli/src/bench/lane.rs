// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One queue pair as source and sink: the loop that has to outrun every backend.
//!
//! Theory of operation. Frames are built once. To send one is to write its stamp and a descriptor; to receive one is to
//! read its stamp and to post the buffer again. Descriptors are posted in whole cache lines of four, because a device
//! that finds a line half written has to come back for the rest. Sent buffers are asked for only when the ring runs
//! short, for then they come back in bulk. Whether the device wants to be kicked is looked at once per step.
//!
//! What costs time besides instructions is lines that the device touched last. Stamps of the next burst are therefore
//! asked for while this one is written; for the same reason frames are sent in no order of their addresses, else the
//! machine's own prefetcher runs ahead, and a line that it has fetched for reading is slow to write.
//!
//! No more packets are on their way than the other side has receive buffers, so a device that drops what it cannot
//! deliver and one that lets it wait are asked the same question: how much goes through?

use anyhow::Context;
use cnf::QueuePair;
use virtqueue::{Completion, full_fence};

use super::cycle::{Cycle, Order, post_receive};
use super::latency::Latency;
use super::stamp::{self, Account, SAMPLE, STAMP_AT};

/// Packets handled at once.
pub(super) const BURST: usize = 64;

/// Descriptors in a cache line.
const LINE: usize = 4;

/// Where the virtio-net header says how many buffers a frame spans, as part of eight aligned bytes.
const NUM_BUFFERS_AT: u32 = 8;
const NUM_BUFFERS_SHIFT: u32 = 16;

/// What all lanes enter their packets in.
#[derive(Debug)]
pub(super) struct Ledger {
    /// By source.
    pub(super) accounts: Vec<Account>,
    pub(super) latency: Latency,
    /// Frames that are none of ours, as announcements of a bridge are.
    pub(super) aliens: u64,
}

/// One queue pair.
#[derive(Debug)]
pub(super) struct Lane {
    pair: QueuePair,
    source: u8,
    mergeable: bool,
    tx: Cycle,
    rx: Cycle,
    /// Used buffers, as the ring reports them.
    done: Box<[Completion; BURST]>,
    /// The source that was heard last.
    heard: u8,
    /// Buffers that still belong to the frame received last.
    rest_of_frame: u64,
    /// Packets that may be on their way, and the number before which all of them are given up for lost.
    window: u64,
    given_up: u64,
    /// How far the other side had come when that was last looked at.
    seen: u64,
    /// Packets sent.
    pub(super) sent: u64,
    /// Kicks the device asked for.
    pub(super) kicks: u64,
}

impl Lane {
    /// Takes over a pair whose transmit buffers hold frames of `frame` bytes, header included; posts its receive
    /// buffers.
    pub(super) fn new(mut pair: QueuePair, source: u8, frame: u32) -> anyhow::Result<Self> {
        pair.rx.set_calls(false);
        pair.tx.set_calls(false);
        let buffers = u64::from(pair.rx_buffers.count()).saturating_sub(LINE as u64);
        let parts = u64::from(frame.div_ceil(pair.rx_buffers.stride()));
        let mut lane = Self {
            source,
            mergeable: pair.rx.config().features.mrg_rxbuf,
            tx: Cycle::new(&pair.tx_buffers, frame, Order::Shuffled),
            rx: Cycle::new(&pair.rx_buffers, pair.rx_buffers.stride(), Order::Ascending),
            done: Box::new([Completion::default(); BURST]),
            heard: source,
            rest_of_frame: 0,
            window: (buffers / parts).max(1),
            given_up: 0,
            seen: 0,
            sent: 0,
            kicks: 0,
            pair,
        };
        post_receive(&mut lane.pair, &mut lane.rx, 1);
        lane.publish()?;
        Ok(lane)
    }

    /// How many packets may be sent without more being on their way than can be received.
    #[inline(always)]
    pub(super) fn allowance(&self, ledger: &Ledger) -> usize {
        let on_their_way = self.sent - self.arrived(ledger).max(self.given_up);
        usize::try_from(self.window.saturating_sub(on_their_way)).unwrap_or(0)
    }

    /// Gives up if nothing has arrived since this was called last.
    pub(super) fn give_up_if_stalled(&mut self, ledger: &Ledger) {
        let arrived = self.arrived(ledger);
        if arrived == self.seen && self.allowance(ledger) == 0 {
            self.give_up();
        }
        self.seen = arrived;
    }

    #[inline(always)]
    fn arrived(&self, ledger: &Ledger) -> u64 {
        ledger.accounts.get(usize::from(self.source)).map_or(0, |account| account.due)
    }

    /// Expects nothing more of what is on its way.
    pub(super) fn give_up(&mut self) {
        self.given_up = self.sent;
    }

    /// Receives what is there and sends at most `most` packets; says how many of each.
    #[inline]
    pub(super) fn step(&mut self, most: usize, ledger: &mut Ledger, now: u64) -> anyhow::Result<(usize, usize)> {
        let received = self.receive(ledger)?;
        let sent = self.send(most, &mut ledger.latency, now)?;
        if received + sent > 0 {
            self.publish()?;
        }
        Ok((received, sent))
    }

    #[inline(always)]
    fn receive(&mut self, ledger: &mut Ledger) -> anyhow::Result<usize> {
        let count = self.pair.rx.complete(&mut *self.done).context("receive ring")?;
        if count == 0 {
            return Ok(0);
        }
        let done = self.done.get(..count).unwrap_or(&[]);
        for completion in done {
            self.pair.rx_buffers.prefetch_read(completion.token);
        }
        let frames = if self.mergeable {
            let mut frames = 0;
            for completion in done {
                if self.rest_of_frame > 0 {
                    self.rest_of_frame -= 1;
                    continue;
                }
                let header = self.pair.rx_buffers.read_u64(completion.token, NUM_BUFFERS_AT);
                self.rest_of_frame = (header >> NUM_BUFFERS_SHIFT & 0xffff).saturating_sub(1);
                enter(&self.pair, &mut self.heard, std::slice::from_ref(completion), ledger);
                frames += 1;
            }
            frames
        } else {
            enter(&self.pair, &mut self.heard, done, ledger);
            count
        };
        self.rx.returned(done);
        post_receive(&mut self.pair, &mut self.rx, LINE);
        Ok(frames)
    }

    #[inline(always)]
    fn send(&mut self, most: usize, latency: &mut Latency, now: u64) -> anyhow::Result<usize> {
        // Twice as much, so that the frames of the next burst are known, too.
        if usize::from(self.pair.tx.free()).min(self.tx.idle()) < 2 * most {
            self.reclaim()?;
        }
        let mut count = most.min(usize::from(self.pair.tx.free()));
        if count > LINE {
            count -= count % LINE;
        }
        let (posts, tokens) = self.tx.upcoming(count);
        let count = tokens.len();
        if count == 0 {
            return Ok(0);
        }
        latency.depart(self.source, self.sent, count as u64, now);
        let buffers = &self.pair.tx_buffers;
        for &token in self.tx.after(count, count) {
            buffers.prefetch_write(token);
        }
        for (&token, stamp) in tokens.iter().zip(stamp::stamp(self.source, self.sent)..) {
            buffers.write_u64(token, STAMP_AT, stamp);
        }
        self.sent += count as u64;
        let posted = self.pair.tx.post_burst(posts, tokens, false);
        self.tx.posted(posted);
        Ok(posted)
    }

    /// Takes back what was sent.
    #[inline(always)]
    fn reclaim(&mut self) -> anyhow::Result<()> {
        loop {
            let count = self.pair.tx.complete(&mut *self.done).context("transmit ring")?;
            self.tx.returned(self.done.get(..count).unwrap_or(&[]));
            if count < BURST {
                return Ok(());
            }
        }
    }

    /// Shows the device what was posted in both rings; kicks it where it asks for that.
    #[inline(always)]
    fn publish(&mut self) -> anyhow::Result<()> {
        self.pair.rx.publish();
        self.pair.tx.publish();
        full_fence();
        if self.pair.rx.should_kick() {
            self.kicks += 1;
            self.pair.rx_bells.kick.ring().context("kick")?;
        }
        if self.pair.tx.should_kick() {
            self.kicks += 1;
            self.pair.tx_bells.kick.ring().context("kick")?;
        }
        Ok(())
    }
}

/// Enters frames in the account of their source. Nearly always that is the source that was heard last, and the number
/// is the one that is due: one comparison.
#[inline(always)]
fn enter(pair: &QueuePair, heard: &mut u8, frames: &[Completion], ledger: &mut Ledger) {
    let mut due = ledger.due(*heard);
    for frame in frames {
        let stamp = pair.rx_buffers.read_u64(frame.token, STAMP_AT);
        if stamp == due && !stamp.is_multiple_of(SAMPLE) {
            due += 1;
            continue;
        }
        ledger.settle(*heard, due);
        if let Some(source) = ledger.enter(stamp) {
            *heard = source;
        }
        due = ledger.due(*heard);
    }
    ledger.settle(*heard, due);
}

impl Ledger {
    /// The stamp that is due from a source.
    #[inline(always)]
    fn due(&self, source: u8) -> u64 {
        stamp::stamp(source, self.accounts.get(usize::from(source)).map_or(0, |account| account.due))
    }

    /// Everything from a source up to this stamp has arrived in turn.
    #[inline(always)]
    fn settle(&mut self, source: u8, due: u64) {
        if let Some(account) = self.accounts.get_mut(usize::from(source)) {
            account.advance(stamp::sequence(due));
        }
    }

    /// Enters one frame with all that may be special about it; says whose it was.
    fn enter(&mut self, stamp: u64) -> Option<u8> {
        let Some((source, sequence)) = stamp::read(stamp) else {
            self.aliens += 1;
            return None;
        };
        self.accounts.get_mut(usize::from(source))?.enter(sequence);
        self.latency.arrive(source, sequence);
        Some(source)
    }
}
