// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One queue pair as source and sink: the loop that has to outrun every backend.
//!
//! Theory of operation. Frames are built once. To send one is to write its stamp and a descriptor; to receive one is to
//! read its stamp and to post the buffer again. Descriptors are posted in whole cache lines of four, because a device
//! that finds a line half written has to come back for the rest. Sent buffers are asked for only when the ring runs
//! short, for then they come back in bulk. Whether the device wants to be kicked is looked at once per step.
//!
//! What costs time is not instructions but lines that the device touched last: descriptors, and first lines of frames.
//! They are asked for ahead, those of the next burst while this one is written.
//!
//! No more packets are on their way than the other side has receive buffers, so a device that drops what it cannot
//! deliver and one that lets it wait are asked the same question: how much goes through?

use anyhow::Context;
use cnf::QueuePair;
use virtqueue::{Buffer, Completion, full_fence};

use super::latency::Latency;
use super::stamp::{self, Account, STAMP_AT};

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
    /// What to post for each transmit buffer, and for each receive buffer.
    tx_posts: Box<[Buffer]>,
    rx_posts: Box<[Buffer]>,
    /// Transmit buffers that are ours, oldest first: `idle` of them from `head` on, round the line.
    line: Box<[u32]>,
    head: usize,
    idle: usize,
    /// Receive buffers that wait until they fill a line of descriptors.
    waiting: Waiting,
    /// Buffers that still belong to the frame received last.
    rest_of_frame: u64,
    /// Packets that may be on their way, and the number before which all of them are given up for lost.
    window: u64,
    given_up: u64,
    /// Packets sent.
    pub(super) sent: u64,
    /// Kicks the device asked for.
    pub(super) kicks: u64,
}

/// Received buffers on their way back into the ring.
#[derive(Debug)]
struct Waiting {
    posts: [Buffer; BURST + LINE],
    tokens: [u32; BURST + LINE],
    count: usize,
}

impl Lane {
    /// Takes over a pair whose transmit buffers hold frames of `frame` bytes, header included; posts its receive
    /// buffers.
    pub(super) fn new(mut pair: QueuePair, source: u8, frame: u32) -> anyhow::Result<Self> {
        let buffers = u64::from(pair.rx_buffers.count()).saturating_sub(LINE as u64);
        let parts = u64::from(frame.div_ceil(pair.rx_buffers.stride()));
        let (tx, rx) = (&pair.tx_buffers, &pair.rx_buffers);
        let line: Box<[u32]> = (0..tx.count()).collect();
        let tx_posts = line.iter().map(|&token| tx.buffer(token, frame)).collect();
        let tokens: Vec<u32> = (0..rx.count()).collect();
        let rx_posts: Box<[Buffer]> = tokens.iter().map(|&token| rx.buffer(token, rx.stride())).collect();
        pair.rx.set_calls(false);
        pair.tx.set_calls(false);
        pair.rx.post_burst(&rx_posts, &tokens, true);
        let mergeable = pair.rx.config().features.mrg_rxbuf;
        let mut lane = Self {
            source,
            mergeable,
            tx_posts,
            rx_posts,
            head: 0,
            idle: line.len(),
            line,
            waiting: Waiting { posts: [Buffer::default(); BURST + LINE], tokens: [0; BURST + LINE], count: 0 },
            rest_of_frame: 0,
            window: (buffers / parts).max(1),
            given_up: 0,
            sent: 0,
            kicks: 0,
            pair,
        };
        lane.publish()?;
        Ok(lane)
    }

    /// How many packets may be sent without more being on their way than can be received.
    #[inline(always)]
    pub(super) fn allowance(&self, ledger: &Ledger) -> usize {
        let due = ledger.accounts.get(usize::from(self.source)).map_or(0, |account| account.due);
        let on_their_way = self.sent - due.max(self.given_up);
        usize::try_from(self.window.saturating_sub(on_their_way)).unwrap_or(0)
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
        let mut done = [Completion::default(); BURST];
        let count = self.pair.rx.complete(&mut done).context("receive ring")?;
        let done = done.get(..count).unwrap_or(&[]);
        for completion in done {
            self.pair.rx_buffers.prefetch_read(completion.token);
        }
        let mut frames = 0;
        for completion in done {
            let token = completion.token;
            if self.rest_of_frame > 0 {
                self.rest_of_frame -= 1;
            } else {
                frames += 1;
                match stamp::read(self.pair.rx_buffers.read_u64(token, STAMP_AT)) {
                    Some((source, sequence)) => {
                        if let Some(account) = ledger.accounts.get_mut(usize::from(source)) {
                            account.enter(sequence);
                        }
                        ledger.latency.arrive(source, sequence);
                    }
                    None => ledger.aliens += 1,
                }
                if self.mergeable {
                    let header = self.pair.rx_buffers.read_u64(token, NUM_BUFFERS_AT);
                    self.rest_of_frame = (header >> NUM_BUFFERS_SHIFT & 0xffff).saturating_sub(1);
                }
            }
            self.waiting.push(token, &self.rx_posts);
        }
        self.waiting.post(&mut self.pair);
        Ok(frames)
    }

    #[inline(always)]
    fn send(&mut self, most: usize, latency: &mut Latency, now: u64) -> anyhow::Result<usize> {
        // Twice as much, so that the frames of the next burst are known, too.
        if usize::from(self.pair.tx.free()).min(self.idle) < 2 * most {
            self.reclaim()?;
        }
        let mut count = most.min(self.idle).min(usize::from(self.pair.tx.free()));
        if count > LINE {
            count -= count % LINE;
        }
        if count == 0 {
            return Ok(0);
        }
        latency.depart(self.source, self.sent, count as u64, now);
        let (mut posts, mut tokens) = ([Buffer::default(); BURST], [0; BURST]);
        let (mut sequence, mut ahead) = (self.sent, self.place(count));
        let known = self.idle - count;
        for (i, (post, token)) in posts.iter_mut().zip(&mut tokens).take(count).enumerate() {
            *token = self.line.get(self.head).copied().unwrap_or(0);
            self.head = self.after(self.head);
            *post = self.tx_posts.get(*token as usize).copied().unwrap_or_default();
            self.pair.tx_buffers.write_u64(*token, STAMP_AT, stamp::stamp(self.source, sequence));
            if i < known {
                self.pair.tx_buffers.prefetch_write(self.line.get(ahead).copied().unwrap_or(0));
                ahead = self.after(ahead);
            }
            sequence += 1;
        }
        self.sent = sequence;
        self.idle -= count;
        let (posts, tokens) = (posts.get(..count).unwrap_or(&[]), tokens.get(..count).unwrap_or(&[]));
        self.pair.tx.post_burst(posts, tokens, false);
        Ok(count)
    }

    /// The place in the line after this one.
    #[inline(always)]
    fn after(&self, place: usize) -> usize {
        if place + 1 == self.line.len() { 0 } else { place + 1 }
    }

    /// The place so many after the head; fewer than there are.
    #[inline(always)]
    fn place(&self, after: usize) -> usize {
        let place = self.head + after;
        if place >= self.line.len() { place - self.line.len() } else { place }
    }

    /// Takes back what was sent.
    #[inline(always)]
    fn reclaim(&mut self) -> anyhow::Result<()> {
        let mut done = [Completion::default(); BURST];
        loop {
            let count = self.pair.tx.complete(&mut done).context("transmit ring")?;
            let mut end = self.head + self.idle;
            for completion in done.iter().take(count) {
                if end >= self.line.len() {
                    end -= self.line.len();
                }
                if let Some(place) = self.line.get_mut(end) {
                    *place = completion.token;
                }
                end += 1;
            }
            self.idle += count;
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

impl Waiting {
    #[inline(always)]
    fn push(&mut self, token: u32, posts: &[Buffer]) {
        if let (Some(post), Some(place)) = (self.posts.get_mut(self.count), self.tokens.get_mut(self.count)) {
            *post = posts.get(token as usize).copied().unwrap_or_default();
            *place = token;
            self.count += 1;
        }
    }

    /// Posts whole lines; fewer than four buffers stay.
    #[inline(always)]
    fn post(&mut self, pair: &mut QueuePair) {
        let whole = self.count - self.count % LINE;
        if let (Some(posts), Some(tokens)) = (self.posts.get(..whole), self.tokens.get(..whole)) {
            pair.rx.post_burst(posts, tokens, true);
        }
        for from in whole..self.count {
            self.posts.copy_within(from..=from, from - whole);
            self.tokens.copy_within(from..=from, from - whole);
        }
        self.count -= whole;
    }
}
