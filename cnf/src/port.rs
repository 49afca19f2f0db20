// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Bursts of frames in and out of one queue pair: what a CNF's main loop calls.
//!
//! Theory of operation. All receive buffers are posted from the start; a received frame is shown to the caller, then
//! its buffers go back to the ring, all of a burst at once. Transmit buffers wait in a first-in first-out line and
//! come back to it as the device completes them, which is looked at only when the ring runs short. After a burst there
//! is one full fence and one look at whether the device wants to be kicked.

use std::io;
use std::time::Duration;

use virtqueue::{Buffer, Completion, QueueFeatures, RingError, full_fence};

use crate::QueuePair;

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
        self.reclaim(frames.len())?;
        let header = [0; 12];
        let header = header.get(..usize::from(self.features.header_len)).unwrap_or(&header);
        let (mut buffers, mut tokens) = ([Buffer::default(); MAX_BURST], [0; MAX_BURST]);
        let most = frames.len().min(self.idle).min(usize::from(self.pair.tx.free()));
        let mut count = 0;
        for ((frame, buffer), token) in frames.iter().take(most).zip(&mut buffers).zip(&mut tokens) {
            *token = self.line.get(self.place(count)).copied().unwrap_or(0);
            self.pair.tx_buffers.write(*token, 0, header);
            self.pair.tx_buffers.write(*token, u32::from(self.features.header_len), frame);
            let len = header.len() + frame.len();
            *buffer = self.pair.tx_buffers.buffer(*token, u32::try_from(len).unwrap_or(u32::MAX));
            count += 1;
        }
        let (buffers, tokens) = (buffers.get(..count).unwrap_or(&[]), tokens.get(..count).unwrap_or(&[]));
        let posted = self.pair.tx.post_burst(buffers, tokens, false);
        self.head = self.place(posted);
        self.idle -= posted;
        self.counters.sent += posted as u64;
        if posted > 0 {
            self.pair.tx.publish();
            full_fence();
            self.kick_tx()?;
        }
        Ok(posted)
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
                take(Received { pair: &self.pair, parts: &self.parts, header_len });
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
        self.pair.rx_bells.call.take();
        let ready = self.pair.rx.set_calls(true) || self.pair.rx_bells.call.wait(limit);
        self.pair.rx.set_calls(false);
        ready
    }

    /// Gives the pair back, with its rings as they are.
    #[must_use]
    pub fn into_pair(self) -> QueuePair {
        self.pair
    }

    /// Takes back sent buffers if fewer than `wanted` can be posted.
    fn reclaim(&mut self, wanted: usize) -> Result<(), PortError> {
        let mut done = [Completion::default(); MAX_BURST];
        while self.idle.min(usize::from(self.pair.tx.free())) < wanted {
            let count = self.pair.tx.complete(&mut done)?;
            for completion in done.iter().take(count) {
                let end = self.place(self.idle);
                if let Some(place) = self.line.get_mut(end) {
                    *place = completion.token;
                }
                self.idle += 1;
            }
            if count < done.len() {
                break;
            }
        }
        Ok(())
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

/// A frame that was received, still in shared memory: copy out what is needed. The device could rewrite it at any
/// time, so there is no slice of it.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    pair: &'a QueuePair,
    parts: &'a [Completion],
    header_len: u32,
}

impl Received<'_> {
    /// Bytes of the frame, without the virtio-net header.
    #[must_use]
    pub fn len(&self) -> usize {
        let all: usize = self.parts.iter().map(|part| part.len as usize).sum();
        all.saturating_sub(self.header_len as usize)
    }

    /// Whether the device delivered no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies the frame into `buffer`, as far as it reaches, and says how many bytes that were.
    pub fn read(&self, buffer: &mut [u8]) -> usize {
        let (mut skip, mut filled) = (self.header_len, 0);
        for part in self.parts {
            let room = buffer.get_mut(filled..).unwrap_or(&mut []);
            let bytes = (part.len.saturating_sub(skip) as usize).min(room.len());
            if let Some(room) = room.get_mut(..bytes) {
                self.pair.rx_buffers.read(part.token, skip.min(part.len), room);
            }
            filled += bytes;
            skip = skip.saturating_sub(part.len);
        }
        filled
    }
}
