// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Bursts of frames in and out of one queue pair: what a CNF's main loop calls.
//!
//! Theory of operation. All receive buffers are posted from the start; a received frame is shown to the caller, then
//! its buffers go back to the ring, all of a burst at once. Transmit buffers wait in a first-in first-out line and
//! come back to it as the device completes them, which is looked at only when the ring runs short. A frame that is sent
//! is *claimed* a buffer, filled, and *staged*; staged frames are posted together, and shown to the device when they are
//! *pushed*. After a burst there is one full fence and one look at whether the device wants to be kicked.

use std::io;
use std::time::Duration;

use virtqueue::{Buffer, Completion, QueueFeatures, RingError, full_fence};

use crate::{EventFd, QueuePair, Received};

/// Frames handled at once, at most.
pub const MAX_BURST: usize = 64;

/// A received frame may span at most this many buffers: a 64 KiB frame in buffers of 1 KiB.
const MAX_PARTS: usize = 68;

/// Why a port stopped, or a frame was refused.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The frame does not fit into a transmit buffer. Nothing of the burst was sent.
    #[error("a frame of {bytes} bytes does not fit a transmit buffer, which takes {room}")]
    FrameTooLong {
        /// Bytes of the frame.
        bytes: usize,
        /// Bytes a transmit buffer has for it.
        room: usize,
    },
    /// A doorbell could not be rung.
    #[error("cannot kick the device: {0}")]
    Kick(#[from] io::Error),
    /// The device spoiled a ring; the port is of no more use until the device is attached anew.
    #[error("the device broke a ring: {0}")]
    Ring(#[from] RingError),
    /// The device says that a frame spans more buffers than a frame can.
    #[error("the device spread a frame over {parts} buffers, {most} at most are sane")]
    TooManyParts {
        /// Buffers it claims.
        parts: u16,
        /// Most that are believed.
        most: usize,
    },
}

/// What a port has done, since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortCounters {
    /// Frames the device took, or has waiting in the ring.
    pub sent: u64,
    /// Frames received.
    pub received: u64,
    /// Kicks the device asked for.
    pub kicks: u64,
}

/// One queue pair that sends and receives frames.
#[derive(Debug)]
pub struct Port {
    pair: QueuePair,
    features: QueueFeatures,
    /// Transmit buffers that are ours, oldest first from `head`; a ring as long as there are buffers.
    line: Vec<u32>,
    head: usize,
    idle: usize,
    /// Buffers at the head of the line that are filled and not posted yet.
    staged: usize,
    lengths: [u32; MAX_BURST],
    /// Something was posted that the device has not been shown.
    unshown: bool,
    /// Receive buffers of a frame that is not complete yet.
    parts: Vec<Completion>,
    parts_due: usize,
    counters: PortCounters,
}

impl Port {
    /// Takes over a pair: posts all its receive buffers and switches calls off.
    ///
    /// # Errors
    /// Those of a kick.
    pub fn new(mut pair: QueuePair) -> Result<Self, PortError> {
        let features = pair.rx.config().features;
        let rx = &pair.rx_buffers;
        let tokens: Vec<u32> = (0..rx.count()).collect();
        let buffers: Vec<Buffer> = tokens.iter().map(|&token| rx.buffer(token, rx.stride())).collect();
        pair.rx.post_burst(&buffers, &tokens, true);
        pair.rx.publish();
        pair.rx.set_calls(false);
        pair.tx.set_calls(false);
        let line: Vec<u32> = (0..pair.tx_buffers.count()).collect();
        let mut port = Self {
            features,
            idle: line.len(),
            line,
            head: 0,
            staged: 0,
            lengths: [0; MAX_BURST],
            unshown: false,
            parts: Vec::with_capacity(MAX_PARTS),
            parts_due: 0,
            counters: PortCounters::default(),
            pair,
        };
        port.kick()?;
        Ok(port)
    }

    /// The features of its rings.
    #[must_use]
    pub fn features(&self) -> QueueFeatures {
        self.features
    }

    /// What it has done so far.
    #[must_use]
    pub fn counters(&self) -> PortCounters {
        self.counters
    }

    /// The same, and begins anew.
    pub(crate) fn take_counters(&mut self) -> PortCounters {
        std::mem::take(&mut self.counters)
    }

    /// The longest frame it can send.
    #[must_use]
    pub fn longest_frame(&self) -> usize {
        self.pair.tx_buffers.stride() as usize - usize::from(self.features.header_len)
    }

    /// Sends frames, as many as there is room for, and says how many. Those that did not fit are to be offered again.
    ///
    /// # Errors
    /// A frame that is too long for a transmit buffer; a broken ring; those of a kick.
    pub fn send_burst(&mut self, frames: &[&[u8]]) -> Result<usize, PortError> {
        let room = self.longest_frame();
        if let Some(frame) = frames.iter().find(|frame| frame.len() > room) {
            return Err(PortError::FrameTooLong { bytes: frame.len(), room });
        }
        let mut count = 0;
        for frame in frames {
            let Some(token) = self.claim()? else { break };
            self.fill(token, 0, frame);
            self.stage(frame.len());
            count += 1;
        }
        self.push()?;
        Ok(count)
    }

    /// The buffer that the next frame is to be written into; `None` if none is free. It stays the same until it is
    /// [staged](Self::stage).
    #[inline]
    pub(crate) fn claim(&mut self) -> Result<Option<u32>, PortError> {
        if self.room() == 0 {
            self.post();
            self.reclaim()?;
            if self.room() == 0 {
                return Ok(None);
            }
        }
        Ok(self.line.get(self.place(self.staged)).copied())
    }

    /// Whether so many frames can be claimed and staged.
    pub(crate) fn has_room(&mut self, frames: usize) -> Result<bool, PortError> {
        if self.room() < frames {
            self.post();
            self.reclaim()?;
        }
        Ok(self.room() >= frames)
    }

    /// Transmit buffers in all.
    pub(crate) fn buffers(&self) -> usize {
        self.line.len().min(usize::from(self.pair.tx.config().size))
    }

    /// Writes a part of a frame into its buffer, `at` bytes from the start of the frame.
    ///
    /// # Panics
    /// If it is not inside the buffer: see [`longest_frame`](Self::longest_frame).
    #[inline]
    pub(crate) fn fill(&self, token: u32, at: u32, bytes: &[u8]) {
        self.pair.tx_buffers.write(token, u32::from(self.features.header_len) + at, bytes);
    }

    /// The frame of `len` bytes in the claimed buffer is complete.
    #[inline]
    pub(crate) fn stage(&mut self, len: usize) {
        if let Some(place) = self.lengths.get_mut(self.staged) {
            *place = u32::try_from(len).unwrap_or(u32::MAX);
        }
        self.staged += 1;
        if self.staged == MAX_BURST {
            self.post();
        }
    }

    /// Shows the device what was staged.
    #[inline]
    pub(crate) fn push(&mut self) -> Result<(), PortError> {
        self.post();
        if self.unshown {
            self.unshown = false;
            self.pair.tx.publish();
            full_fence();
            self.kick_tx()?;
        }
        Ok(())
    }

    /// Frames that were sent and that the device has not given back, as far as the ring still says.
    pub(crate) fn on_their_way(&mut self) -> usize {
        // A ring that broke has nothing more to say.
        let _ = self.reclaim();
        self.line.len() - self.idle + self.staged
    }

    /// The pair, so that it can be given new doorbells.
    pub(crate) fn pair_mut(&mut self) -> &mut QueuePair {
        &mut self.pair
    }

    /// Wakes a device that has taken over the rings as they are, whatever the one before it had asked for.
    pub(crate) fn wake_device(&self) -> Result<(), PortError> {
        self.pair.rx_bells.kick.ring()?;
        self.pair.tx_bells.kick.ring()?;
        Ok(())
    }

    /// Shows `take` each frame that has arrived, at most `most` buffers' worth (64 are the limit), gives the buffers
    /// back to the device and says how many frames there were.
    ///
    /// # Errors
    /// A broken ring; those of a kick.
    pub fn receive_burst(&mut self, most: usize, mut take: impl FnMut(Received<'_>)) -> Result<usize, PortError> {
        let mut done = [Completion::default(); MAX_BURST];
        let limit = most.min(MAX_BURST);
        let count = self.pair.rx.complete(done.get_mut(..limit).unwrap_or(&mut []))?;
        let done = done.get(..count).unwrap_or(&[]);
        for completion in done {
            self.pair.rx_buffers.prefetch_read(completion.token);
        }
        let mut frames = 0;
        for completion in done {
            if self.parts.is_empty() {
                self.parts_due = self.parts_of(completion.token)?;
            }
            self.parts.push(*completion);
            if self.parts.len() == self.parts_due {
                let header_len = u32::from(self.features.header_len);
                take(Received::new(&self.pair.rx_buffers, &self.parts, header_len));
                frames += 1;
                self.repost()?;
            }
        }
        self.counters.received += frames as u64;
        if frames > 0 {
            self.pair.rx.publish();
            full_fence();
            self.kick_rx()?;
        }
        Ok(frames)
    }

    /// Sleeps until the device has something for us or `limit` passes; true if it has.
    pub fn wait(&mut self, limit: Duration) -> bool {
        let ready = self.ask_for_call() || self.pair.rx_bells.call.wait(limit);
        self.spare_call();
        ready
    }

    /// Asks the device to ring when something has arrived; true if something has already, and no call may come.
    pub(crate) fn ask_for_call(&mut self) -> bool {
        self.pair.rx_bells.call.take();
        self.pair.rx.set_calls(true)
    }

    /// Asks it not to, any more; true if something has arrived.
    pub(crate) fn spare_call(&mut self) -> bool {
        self.pair.rx.set_calls(false)
    }

    /// The bell that the device rings then.
    pub(crate) fn bell(&self) -> &EventFd {
        &self.pair.rx_bells.call
    }

    /// Gives the pair back, with its rings as they are.
    #[must_use]
    pub fn into_pair(self) -> QueuePair {
        self.pair
    }

    /// Frames that can be staged without taking anything back.
    #[inline]
    fn room(&self) -> usize {
        self.idle.min(usize::from(self.pair.tx.free())).saturating_sub(self.staged)
    }

    /// Posts what is staged.
    fn post(&mut self) {
        if self.staged == 0 {
            return;
        }
        let header = [0; 12];
        let header = header.get(..usize::from(self.features.header_len)).unwrap_or(&header);
        let (mut buffers, mut tokens) = ([Buffer::default(); MAX_BURST], [0; MAX_BURST]);
        let places = buffers.iter_mut().zip(&mut tokens).zip(&self.lengths);
        for (at, ((buffer, token), &len)) in places.take(self.staged).enumerate() {
            *token = self.line.get(self.place(at)).copied().unwrap_or(0);
            self.pair.tx_buffers.write(*token, 0, header);
            *buffer = self.pair.tx_buffers.buffer(*token, u32::from(self.features.header_len) + len);
        }
        let (buffers, tokens) = (buffers.get(..self.staged).unwrap_or(&[]), tokens.get(..self.staged).unwrap_or(&[]));
        let posted = self.pair.tx.post_burst(buffers, tokens, false);
        self.head = self.place(posted);
        self.idle -= posted;
        self.staged -= posted;
        self.counters.sent += posted as u64;
        self.unshown |= posted > 0;
        // There was room for all of them when they were claimed; what is left, if a ring should lie, waits.
        self.lengths.copy_within(posted.min(MAX_BURST).., 0);
    }

    /// Takes back sent buffers.
    fn reclaim(&mut self) -> Result<(), PortError> {
        let mut done = [Completion::default(); MAX_BURST];
        loop {
            let count = self.pair.tx.complete(&mut done)?;
            for completion in done.iter().take(count) {
                let end = self.place(self.idle);
                if let Some(place) = self.line.get_mut(end) {
                    *place = completion.token;
                }
                self.idle += 1;
            }
            if count < done.len() {
                return Ok(());
            }
        }
    }

    /// Place in the line of the buffer `after` the first idle one.
    fn place(&self, after: usize) -> usize {
        (self.head + after) % self.line.len().max(1)
    }

    /// How many buffers the frame that begins in this one spans: the header's last two bytes, with MRG_RXBUF.
    fn parts_of(&self, token: u32) -> Result<usize, PortError> {
        if !self.features.mrg_rxbuf {
            return Ok(1);
        }
        let mut field = [0; 2];
        self.pair.rx_buffers.read(token, 10, &mut field);
        match u16::from_le_bytes(field) {
            parts if usize::from(parts) > MAX_PARTS => Err(PortError::TooManyParts { parts, most: MAX_PARTS }),
            parts => Ok(usize::from(parts.max(1))),
        }
    }

    fn repost(&mut self) -> Result<(), PortError> {
        let rx = &self.pair.rx_buffers;
        for part in self.parts.drain(..) {
            self.pair.rx.post_burst(&[rx.buffer(part.token, rx.stride())], &[part.token], true);
        }
        Ok(())
    }

    fn kick(&mut self) -> Result<(), PortError> {
        full_fence();
        self.kick_rx()?;
        self.kick_tx()
    }

    fn kick_tx(&mut self) -> Result<(), PortError> {
        if self.pair.tx.should_kick() {
            self.counters.kicks += 1;
            self.pair.tx_bells.kick.ring()?;
        }
        Ok(())
    }

    fn kick_rx(&mut self) -> Result<(), PortError> {
        if self.pair.rx.should_kick() {
            self.counters.kicks += 1;
            self.pair.rx_bells.kick.ring()?;
        }
        Ok(())
    }
}
