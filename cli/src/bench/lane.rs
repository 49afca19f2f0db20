// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One queue pair as source and sink: the loop that has to outrun every backend.
//!
//! Theory of operation. Frames are built once, each for one flow; flow *f* belongs to queue pair *f* modulo their number. To
//! send a frame is to write its stamp and a descriptor, and with TCP its numbers; to receive one is to read its stamp, with TCP
//! its numbers, and to post the buffer again. Descriptors are posted in whole cache lines of four, because a device
//! that finds a line half written has to come back for the rest. Sent buffers are asked for only when the ring runs
//! short, for then they come back in bulk. Whether the device wants to be kicked is looked at once per step.
//!
//! What costs time besides instructions is lines that the device touched last. The lines that the next burst writes are
//! therefore asked for while this one is written; for the same reason frames are sent in no order of their addresses, else the
//! machine's own prefetcher runs ahead, and a line that it has fetched for reading is slow to write.
//!
//! No more packets are on their way than the other side has receive buffers, so a device that drops what it cannot
//! deliver and one that lets it wait are asked the same question: how much goes through?
//!
//! Before anything is stamped, and after, flows are opened and closed (see `dialog`) through `say` and `hear`.

use anyhow::{Context, ensure};
use cnf::QueuePair;
use virtqueue::{Completion, full_fence};

use super::cycle::{Cycle, Order, post_receive};
use super::flows::Side;
use super::frames::{self, ADDRESSES, PORTS, SEQUENCE, Transport};
use super::ledger::{Ledger, Places};
use super::options::{HEADER, Options};
use super::stamp::{self, INSPECTED, SAMPLE};
use super::window::Window;

/// Packets handled at once.
pub(super) const BURST: usize = 64;

/// Descriptors in a cache line.
const LINE: usize = 4;

/// Where the virtio-net header says how many buffers a frame spans, as part of eight aligned bytes.
const NUM_BUFFERS_AT: u32 = 8;
const NUM_BUFFERS_SHIFT: u32 = 16;

/// Where TCP's part of a buffer is read and written.
const ADDRESSES_AT: u32 = in_buffer(ADDRESSES);
const PORTS_AT: u32 = in_buffer(PORTS);
const SEQUENCE_AT: u32 = in_buffer(SEQUENCE);

/// Longest frame that opens or closes a flow.
const LONGEST_SIGNAL: usize = 64;

/// One queue pair.
#[derive(Debug)]
pub(super) struct Lane {
    pair: QueuePair,
    source: u8,
    side: Side,
    transport: Transport,
    places: Places,
    /// Bytes of a frame, header included.
    frame: u32,
    /// The flow that each transmit buffer belongs to.
    flows: Box<[u32]>,
    mergeable: bool,
    tx: Cycle,
    rx: Cycle,
    /// Used buffers, as the ring reports them.
    done: Box<[Completion; BURST]>,
    /// The source that was heard last.
    heard: u8,
    /// Buffers that still belong to the frame received last.
    rest_of_frame: u64,
    window: Window,
    /// Packets sent.
    pub(super) sent: u64,
    /// Kicks the device asked for.
    pub(super) kicks: u64,
}

impl Lane {
    /// Takes over a pair of one side's device; posts its receive buffers.
    pub(super) fn new(mut pair: QueuePair, side: Side, source: u8, options: &Options) -> anyhow::Result<Self> {
        pair.rx.set_calls(false);
        pair.tx.set_calls(false);
        let frame = HEADER + options.size;
        let parts = u64::from(frame.div_ceil(pair.rx_buffers.stride()));
        // Not posted may be: buffers that do not fill a line, and the rest of a frame of which the first buffer was read.
        let idle = LINE as u64 + parts - 1;
        let buffers = u64::from(pair.rx_buffers.count()).saturating_sub(idle);
        let (index, pairs) = (u32::from(pair.index), u32::from(options.pairs));
        // Where there are more pairs than flows, some pairs share one.
        let first = index % options.flows;
        let own = (options.flows - first).div_ceil(pairs);
        let transport = options.transport();
        let mut lane = Self {
            source,
            side,
            transport,
            places: Places::of(transport),
            frame,
            flows: (0..pair.tx_buffers.count()).map(|token| first + token % own * pairs).collect(),
            mergeable: pair.rx.config().features.mrg_rxbuf,
            tx: Cycle::new(&pair.tx_buffers, frame, Order::Shuffled),
            rx: Cycle::new(&pair.rx_buffers, pair.rx_buffers.stride(), Order::Ascending),
            done: Box::new([Completion::default(); BURST]),
            heard: source,
            rest_of_frame: 0,
            window: Window::new(buffers / parts),
            sent: 0,
            kicks: 0,
            pair,
        };
        post_receive(&mut lane.pair, &mut lane.rx, 1);
        lane.publish()?;
        Ok(lane)
    }

    /// Posts one frame that opens or closes a flow, at once; false if there is no room for it now.
    pub(super) fn say(&mut self, frame: &[u8]) -> anyhow::Result<bool> {
        ensure!(frame.len() <= LONGEST_SIGNAL, "a signal of {} bytes", frame.len());
        if self.tx.idle() == 0 || self.pair.tx.free() == 0 {
            self.reclaim()?;
        }
        let &[token] = self.tx.upcoming(1).1 else { return Ok(false) };
        self.pair.tx_buffers.write(token, 0, &[0; HEADER as usize]);
        self.pair.tx_buffers.write(token, HEADER, frame);
        let buffer = self.pair.tx_buffers.buffer(token, HEADER + u32::try_from(frame.len())?);
        let posted = self.pair.tx.post_burst(&[buffer], &[token], false);
        self.tx.posted(posted);
        Ok(posted > 0)
    }

    /// Gives every frame that has arrived to `with`, up to the length of those that open and close flows, and shows the
    /// device what was said.
    pub(super) fn hear(&mut self, mut with: impl FnMut(&[u8])) -> anyhow::Result<()> {
        let count = self.pair.rx.complete(&mut *self.done).context("receive ring")?;
        let done = self.done.get(..count).unwrap_or(&[]);
        for completion in done {
            let mut frame = [0; LONGEST_SIGNAL];
            let len = completion.len.min(self.pair.rx_buffers.stride()).saturating_sub(HEADER) as usize;
            if let Some(frame) = frame.get_mut(..len.min(LONGEST_SIGNAL)) {
                self.pair.rx_buffers.read(completion.token, HEADER, frame);
                with(frame);
            }
        }
        self.rx.returned(done);
        post_receive(&mut self.pair, &mut self.rx, 1);
        self.publish()
    }

    /// Whether every buffer that was sent has come back.
    pub(super) fn is_at_rest(&mut self) -> anyhow::Result<bool> {
        self.reclaim()?;
        Ok(self.tx.idle() == self.flows.len())
    }

    /// Writes the data frames into the transmit buffers, all of which are here.
    pub(super) fn load(&self) {
        for (token, &flow) in (0..).zip(&self.flows) {
            self.pair.tx_buffers.write(token, 0, &[0; HEADER as usize]);
            self.pair.tx_buffers.write(
                token,
                HEADER,
                &frames::data(self.transport, self.side, flow, self.frame - HEADER),
            );
        }
    }

    /// How many packets may be sent without more being on their way than can be received.
    #[inline(always)]
    pub(super) fn allowance(&self, ledger: &Ledger) -> usize {
        ledger.accounts.get(usize::from(self.source)).map_or(0, |account| self.window.room(self.sent, account))
    }

    /// Some time has passed: what is late is given up for lost.
    pub(super) fn look(&mut self, ledger: &Ledger) {
        if let Some(account) = ledger.accounts.get(usize::from(self.source)) {
            self.window.look(self.sent, account);
        }
    }

    /// Expects nothing more of what is on its way.
    pub(super) fn give_up(&mut self) {
        self.window.give_up(self.sent);
    }

    /// How often nothing arrived for so long that all that was on its way was given up.
    pub(super) fn stalls(&self) -> u64 {
        self.window.stalls
    }

    /// Receives what is there and sends at most `most` packets; says how many of each.
    #[inline]
    pub(super) fn step(&mut self, most: usize, ledger: &mut Ledger, now: u64) -> anyhow::Result<(usize, usize)> {
        let received = self.receive(ledger)?;
        let sent = self.send(most, ledger, now)?;
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
        if self.transport == Transport::Tcp {
            for completion in done {
                self.pair.rx_buffers.prefetch_read_at(completion.token, self.places.stamp);
            }
        }
        let mut reader = Reader { pair: &self.pair, side: self.side, places: self.places, whole: !self.mergeable };
        let frames = if self.mergeable {
            let mut frames = 0;
            for completion in done {
                if self.rest_of_frame > 0 {
                    self.rest_of_frame -= 1;
                    continue;
                }
                let header = self.pair.rx_buffers.read_u64(completion.token, NUM_BUFFERS_AT);
                self.rest_of_frame = (header >> NUM_BUFFERS_SHIFT & 0xffff).saturating_sub(1);
                reader.whole = self.rest_of_frame == 0;
                reader.enter(&mut self.heard, std::slice::from_ref(completion), ledger);
                frames += 1;
            }
            frames
        } else {
            reader.enter(&mut self.heard, done, ledger);
            count
        };
        self.rx.returned(done);
        post_receive(&mut self.pair, &mut self.rx, LINE);
        Ok(frames)
    }

    #[inline(always)]
    fn send(&mut self, most: usize, ledger: &mut Ledger, now: u64) -> anyhow::Result<usize> {
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
        ledger.latency.depart(self.source, self.sent, count as u64, now);
        let buffers = &self.pair.tx_buffers;
        let stamped = tokens.iter().zip(stamp::stamp(self.source, self.sent)..);
        if let Some(connections) = &mut ledger.connections {
            for &token in self.tx.after(count, count) {
                buffers.prefetch_write(token);
                buffers.prefetch_write_at(token, self.places.stamp);
            }
            for (&token, stamp) in stamped {
                let flow = self.flows.get(token as usize).copied().unwrap_or(0);
                let numbers = connections.send(self.side, flow);
                buffers.write_u64(token, SEQUENCE_AT, numbers);
                buffers.write_u64(token, self.places.balance, stamp::balanced(stamp, numbers));
                buffers.write_u64(token, self.places.stamp, stamp);
            }
        } else {
            for &token in self.tx.after(count, count) {
                buffers.prefetch_write(token);
            }
            for (&token, stamp) in stamped {
                buffers.write_u64(token, self.places.balance, stamp::balanced(stamp, 0));
                buffers.write_u64(token, self.places.stamp, stamp);
            }
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

/// Reads what has arrived.
struct Reader<'a> {
    pair: &'a QueuePair,
    side: Side,
    places: Places,
    /// A frame is in one buffer.
    whole: bool,
}

impl Reader<'_> {
    /// Enters frames in the account of their source. Nearly always that is the source that was heard last, and the number
    /// is the one that is due: one comparison.
    #[inline(always)]
    fn enter(&self, heard: &mut u8, frames: &[Completion], ledger: &mut Ledger) {
        let buffers = &self.pair.rx_buffers;
        if let Some(connections) = &mut ledger.connections {
            for frame in frames {
                let (addresses, ports) = (ADDRESSES_AT, PORTS_AT);
                let [addresses, ports] = [addresses, ports].map(|at| buffers.read_u64(frame.token, at));
                connections.receive(self.side, addresses, ports);
            }
        }
        let mut due = ledger.due(*heard);
        for frame in frames {
            let stamp = buffers.read_u64(frame.token, self.places.stamp);
            if stamp == due && !stamp.is_multiple_of(SAMPLE) {
                due += 1;
                continue;
            }
            ledger.settle(*heard, due);
            if let Some(source) = ledger.enter(stamp) {
                *heard = source;
                if stamp::sequence(stamp).is_multiple_of(INSPECTED) {
                    self.inspect(*frame, ledger);
                }
            }
            due = ledger.due(*heard);
        }
        ledger.settle(*heard, due);
    }

    #[cold]
    fn inspect(&self, completion: Completion, ledger: &mut Ledger) {
        let received = completion.len.min(self.pair.rx_buffers.stride()).saturating_sub(HEADER) as usize;
        let mut frame = vec![0; received];
        self.pair.rx_buffers.read(completion.token, HEADER, &mut frame);
        ledger.inspector.data(self.side, &frame, self.whole.then_some(received));
    }
}

/// Where a byte of a frame lies in its buffer.
#[expect(clippy::cast_possible_truncation, reason = "headers end far below 4 GiB")]
const fn in_buffer(at: usize) -> u32 {
    HEADER + at as u32
}
