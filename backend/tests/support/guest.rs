// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A well-behaved guest: the SDK's device, and a loop over its rings that can also send chains and indirect descriptors.

use std::collections::VecDeque;
use std::path::PathBuf;

use cnf::{Device, DeviceConfig, Endpoint, QueuePair};
use virtqueue::{Buffer, Completion, full_fence};

use super::until;

/// Bytes of the virtio-net header: VERSION_1 is always negotiated.
const HEADER: u32 = 12;
/// Completions taken at a time.
const BURST: usize = 64;

/// How the descriptors of a sent frame are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One descriptor.
    One,
    /// The header in one, the frame in up to three more.
    Chain,
    /// The same, in an indirect table.
    Indirect,
}

/// A guest with its rings.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) endpoint: Endpoint,
    device: Option<Device>,
    pub(crate) pairs: Vec<Pair>,
}

/// One queue pair; all receive buffers are always posted.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) queues: QueuePair,
    idle: VecDeque<u32>,
    parts: Vec<Completion>,
    parts_due: usize,
}

/// What the tests begin with: packed, in order, 256 entries.
pub(crate) fn guest_config(socket: PathBuf) -> DeviceConfig {
    DeviceConfig::new(socket)
}

impl Guest {
    /// Attaches with the default configuration.
    #[track_caller]
    pub(crate) fn attach(socket: PathBuf) -> Self {
        Self::attach_with(guest_config(socket))
    }

    #[track_caller]
    pub(crate) fn attach_with(config: DeviceConfig) -> Self {
        let endpoint = Endpoint::open(config).expect("endpoint");
        let device = endpoint.attach().expect("attach");
        Self::of(endpoint, device)
    }

    fn of(endpoint: Endpoint, mut device: Device) -> Self {
        let pairs = device.take_pairs().into_iter().map(Pair::new).collect();
        Self { endpoint, device: Some(device), pairs }
    }

    pub(crate) fn device(&mut self) -> &mut Device {
        self.device.as_mut().expect("attached")
    }

    /// Attaches to a backend that came back, in the order of the endpoint's configuration: virtio-user's resets the
    /// rings, QEMU's goes on with them.
    #[track_caller]
    pub(crate) fn reattach(mut self) -> Self {
        let device = self.device.take().expect("attached");
        until("the old connection ends", || (!device.is_connected()).then_some(()));
        match self.endpoint.config().order {
            vhost_user::Order::VirtioUser => {
                let device = self.endpoint.reattach(device, Vec::new()).expect("reattach");
                Self::of(self.endpoint, device)
            }
            vhost_user::Order::Qemu => {
                let (kept, states): (Vec<_>, Vec<_>) =
                    self.pairs.into_iter().map(|pair| (pair.queues, (pair.idle, pair.parts, pair.parts_due))).unzip();
                let mut device = self.endpoint.reattach(device, kept).expect("reattach");
                let pairs = device
                    .take_pairs()
                    .into_iter()
                    .zip(states)
                    .map(|(queues, (idle, parts, parts_due))| Pair { queues, idle, parts, parts_due });
                let pairs = pairs.collect();
                Self { endpoint: self.endpoint, device: Some(device), pairs }
            }
        }
    }

    /// Sends on pair 0 and waits until the ring took all.
    #[track_caller]
    pub(crate) fn send(&mut self, frames: &[Vec<u8>]) {
        self.pairs[0].send(frames);
    }

    /// Waits for `count` frames on pair 0.
    #[track_caller]
    pub(crate) fn receive(&mut self, count: usize) -> Vec<Vec<u8>> {
        self.pairs[0].receive(count)
    }

    /// What is there on pair 0 now.
    pub(crate) fn poll(&mut self) -> Vec<Vec<u8>> {
        self.pairs[0].poll()
    }
}

impl Pair {
    fn new(queues: QueuePair) -> Self {
        let idle = (0..queues.tx_buffers.count()).collect();
        let mut pair = Self { queues, idle, parts: Vec::new(), parts_due: 0 };
        let all: Vec<u32> = (0..pair.queues.rx_buffers.count()).collect();
        pair.post(&all);
        pair
    }

    /// Gives receive buffers to the device.
    pub(crate) fn post(&mut self, tokens: &[u32]) {
        let rx = &self.queues.rx_buffers;
        let buffers: Vec<Buffer> = tokens.iter().map(|&token| rx.buffer(token, rx.stride())).collect();
        assert_eq!(self.queues.rx.post_burst(&buffers, tokens, true), tokens.len(), "room for every receive buffer");
        self.queues.rx.publish();
        full_fence();
        if self.queues.rx.should_kick() {
            self.queues.rx_bells.kick.ring().expect("kick");
        }
    }

    /// Sends what there is room for; returns how many.
    pub(crate) fn offer(&mut self, frames: &[Vec<u8>], shape: Shape) -> usize {
        self.reclaim();
        let mut sent = 0;
        for frame in frames {
            let needed = if shape == Shape::Chain { 4 } else { 1 };
            if self.queues.tx.free() < needed {
                break;
            }
            let Some(token) = self.idle.pop_front() else { break };
            self.post_frame(token, frame, shape);
            sent += 1;
        }
        if sent > 0 {
            self.queues.tx.publish();
            full_fence();
            if self.queues.tx.should_kick() {
                self.queues.tx_bells.kick.ring().expect("kick");
            }
        }
        sent
    }

    fn post_frame(&mut self, token: u32, frame: &[u8], shape: Shape) {
        let pool = &self.queues.tx_buffers;
        pool.write(token, 0, &[0; HEADER as usize]);
        pool.write(token, HEADER, frame);
        let len = u32::try_from(frame.len()).expect("short");
        let whole = pool.buffer(token, HEADER + len);
        // Uneven pieces, so that no boundary falls on a round number.
        let (one, two) = (len.min(13), (len / 3).min(len.saturating_sub(13)));
        let lens = [HEADER, one, two, len - one - two];
        let mut at = whole.addr;
        let mut pieces: Vec<Buffer> = Vec::new();
        for len in lens.into_iter().filter(|len| *len > 0) {
            pieces.push(Buffer { addr: at, len });
            at += u64::from(len);
        }
        let posted = match shape {
            Shape::One => self.queues.tx.post(&[whole], &[], token),
            Shape::Chain => self.queues.tx.post(&pieces, &[], token),
            Shape::Indirect => {
                let table = self.queues.tx_tables.as_ref().expect("indirect negotiated").addr(token);
                self.queues.tx.post_indirect(table, &pieces, &[], token)
            }
        };
        posted.expect("room was checked");
    }

    #[track_caller]
    pub(crate) fn send(&mut self, frames: &[Vec<u8>]) {
        let mut sent = 0;
        until("the ring takes all frames", || {
            sent += self.offer(&frames[sent..], Shape::One);
            (sent == frames.len()).then_some(())
        });
    }

    /// Takes back what the device has transmitted.
    pub(crate) fn reclaim(&mut self) {
        let mut done = [Completion::default(); BURST];
        loop {
            let count = self.queues.tx.complete(&mut done).expect("transmit ring");
            self.idle.extend(done[..count].iter().map(|completion| completion.token));
            if count < done.len() {
                return;
            }
        }
    }

    /// Frames on their way: posted and not given back.
    pub(crate) fn in_flight(&mut self) -> usize {
        self.reclaim();
        self.queues.tx_buffers.count() as usize - self.idle.len()
    }

    /// What has arrived; its buffers are posted again.
    pub(crate) fn poll(&mut self) -> Vec<Vec<u8>> {
        let (frames, tokens) = self.take();
        if !tokens.is_empty() {
            self.post(&tokens);
        }
        frames
    }

    /// What has arrived, and its buffers, which are not posted again.
    pub(crate) fn take(&mut self) -> (Vec<Vec<u8>>, Vec<u32>) {
        let mut done = [Completion::default(); BURST];
        let (mut frames, mut tokens) = (Vec::new(), Vec::new());
        let count = self.queues.rx.complete(&mut done).expect("receive ring");
        for completion in &done[..count] {
            if self.parts.is_empty() {
                self.parts_due = self.parts_of(completion.token);
            }
            self.parts.push(*completion);
            if self.parts.len() == self.parts_due {
                let parts = std::mem::take(&mut self.parts);
                frames.push(self.assemble(&parts));
                tokens.extend(parts.iter().map(|part| part.token));
            }
        }
        (frames, tokens)
    }

    #[track_caller]
    pub(crate) fn receive(&mut self, count: usize) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        until(&format!("{count} frames"), || {
            frames.extend(self.poll());
            (frames.len() >= count).then_some(())
        });
        assert_eq!(frames.len(), count, "more frames than were due");
        frames
    }

    fn parts_of(&self, token: u32) -> usize {
        let mut header = [0; HEADER as usize];
        self.queues.rx_buffers.read(token, 0, &mut header);
        assert_eq!(header[..10], [0; 10], "no offloads were negotiated");
        let parts = u16::from_le_bytes([header[10], header[11]]);
        if self.queues.rx.config().features.mrg_rxbuf { usize::from(parts) } else { 1 }
    }

    fn assemble(&self, parts: &[Completion]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in parts {
            let at = bytes.len();
            bytes.resize(at + part.len as usize, 0);
            self.queues.rx_buffers.read(part.token, 0, &mut bytes[at..]);
        }
        bytes.drain(..HEADER as usize);
        bytes
    }
}

/// Sends `frames` from one pair to the other, at most `window` on their way, and checks that exactly these arrive, in
/// order, byte for byte.
#[track_caller]
pub(crate) fn exchange(from: &mut Pair, to: &mut Pair, frames: &[Vec<u8>], window: usize) {
    exchange_shaped(from, to, frames, window, Shape::One);
}

#[track_caller]
pub(crate) fn exchange_shaped(from: &mut Pair, to: &mut Pair, frames: &[Vec<u8>], window: usize, shape: Shape) {
    let (mut sent, mut received) = (0, 0);
    until(&format!("{} frames arrive", frames.len()), || {
        let end = frames.len().min(received + window);
        if sent < end {
            sent += from.offer(&frames[sent..end], shape);
        }
        for frame in to.poll() {
            let due = frames.get(received).expect("no more frames than were sent");
            assert!(frame == *due, "frame {received}: {} bytes arrived, {} were sent", frame.len(), due.len());
            received += 1;
        }
        (received == frames.len()).then_some(())
    });
    assert!(to.poll().is_empty(), "more frames than were sent");
}
