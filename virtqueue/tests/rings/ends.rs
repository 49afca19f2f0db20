// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The two ends of a pipeline: a driver that sends numbered frames in chains of every shape, and a
//! driver that checks what arrives.

use virtqueue::{Buffer, Completion, DriverQueue, QueueFeatures, RingBase};

use crate::model::{Guest, Setup};

pub(crate) const HEADER: u32 = 12;
const TABLE: u64 = 64;

/// Shapes depend on the size, so that the memory for the largest rings stays small.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) size: u16,
    /// Longest frame, and bytes of each slot of memory.
    pub(crate) longest: u32,
    pub(crate) slot: u64,
}

impl Shape {
    pub(crate) fn of(size: u16) -> Self {
        if size > 1000 { Self { size, longest: 200, slot: 256 } } else { Self { size, longest: 1500, slot: 2048 } }
    }

    pub(crate) fn setup(&self, features: QueueFeatures, base: RingBase) -> Setup {
        Setup::new(self.size, features, base, u64::from(self.size) * (self.slot + TABLE))
    }

    fn place(&self, setup: &Setup, token: u32) -> (u64, u64) {
        let tables = setup.data + u64::from(self.size) * self.slot;
        (setup.data + u64::from(token) * self.slot, tables + u64::from(token) * TABLE)
    }
}

/// Frame `sequence`: eight bytes of number, then a pattern; of every length.
pub(crate) fn frame(shape: &Shape, sequence: u64) -> Vec<u8> {
    let spread = u64::from(shape.longest) - 8;
    let len = 8 + sequence.wrapping_mul(2_654_435_761) % spread;
    let mut bytes = sequence.to_le_bytes().to_vec();
    bytes.extend((8..len).map(|i| (i.wrapping_mul(7) ^ sequence).to_le_bytes()[0]));
    bytes
}

#[derive(Debug)]
pub(crate) struct Sender {
    pub(crate) setup: Setup,
    pub(crate) queue: DriverQueue,
    guest: Guest,
    shape: Shape,
    free: Vec<u32>,
    pub(crate) next: u64,
}

impl Sender {
    pub(crate) fn new(shape: Shape, setup: Setup) -> Self {
        let queue = DriverQueue::new(setup.config, setup.memory.map()).unwrap();
        let (guest, free) = (setup.guest(), (0..u32::from(shape.size)).collect());
        Self { setup, queue, guest, shape, free, next: 0 }
    }

    /// Takes back what was sent and posts frames up to number `until`. Says whether it did either.
    pub(crate) fn work(&mut self, until: u64) -> bool {
        let mut out = [Completion::default(); 32];
        let done = self.queue.complete(&mut out).unwrap();
        for completion in &out[..done] {
            assert_eq!(completion.len, 0);
            self.free.push(completion.token);
        }
        let before = self.next;
        while self.next < until && self.post() {
            self.next += 1;
        }
        self.queue.publish();
        done > 0 || self.next > before
    }

    pub(crate) fn all_back(&self) -> bool {
        self.queue.free() == self.shape.size && self.free.len() == usize::from(self.shape.size)
    }

    fn post(&mut self) -> bool {
        let Some(&token) = self.free.last() else { return false };
        let (data, table) = self.shape.place(&self.setup, token);
        let bytes = frame(&self.shape, self.next);
        let len = HEADER + u32::try_from(bytes.len()).unwrap();
        let piece = |from: u32, to: u32| Buffer { addr: data + u64::from(from), len: to - from };
        let ring_size = self.shape.size;
        let posted = match self.next % 5 {
            // The header on its own, and one with the frame cut anywhere.
            1 if ring_size >= 2 => self.queue.post(&[piece(0, HEADER), piece(HEADER, len)], &[], token).is_ok(),
            2 if ring_size >= 3 => {
                let cut = HEADER - 5;
                self.queue.post(&[piece(0, cut), piece(cut, cut + 9), piece(cut + 9, len)], &[], token).is_ok()
            }
            3 if self.setup.config.features.indirect && ring_size >= 3 => {
                let pieces = [piece(0, 1), piece(1, HEADER + 8), piece(HEADER + 8, len)];
                let pieces = if len == HEADER + 8 { &pieces[..2] } else { &pieces[..] };
                self.queue.post_indirect(table, pieces, &[], token).is_ok()
            }
            _ => self.queue.post_burst(&[piece(0, len)], &[token], false) == 1,
        };
        if posted {
            self.free.pop();
            self.guest.set_bytes(data, &[0; HEADER as usize]);
            self.guest.set_bytes(data + u64::from(HEADER), &bytes);
        }
        posted
    }
}

#[derive(Debug)]
pub(crate) struct Receiver {
    pub(crate) setup: Setup,
    pub(crate) queue: DriverQueue,
    guest: Guest,
    shape: Shape,
    /// Length of the buffer in each slot; 0: not posted.
    posted: Vec<u32>,
    free: Vec<u32>,
    /// Bytes of a frame of which more buffers are to come, and how many.
    partial: Vec<u8>,
    missing: u16,
    turn: u64,
    pub(crate) next: u64,
    /// Every completion ever, for comparison.
    pub(crate) log: Vec<Completion>,
}

impl Receiver {
    pub(crate) fn new(shape: Shape, setup: Setup) -> Self {
        let queue = DriverQueue::new(setup.config, setup.memory.map()).unwrap();
        let guest = setup.guest();
        Self {
            setup,
            queue,
            guest,
            shape,
            posted: vec![0; usize::from(shape.size)],
            free: (0..u32::from(shape.size)).collect(),
            partial: Vec::new(),
            missing: 0,
            turn: 0,
            next: 0,
            log: Vec::new(),
        }
    }

    /// Checks what arrived and posts buffers anew. Says whether it did either.
    pub(crate) fn work(&mut self) -> bool {
        let mut out = [Completion::default(); 32];
        let done = self.queue.complete(&mut out).unwrap();
        for completion in &out[..done] {
            self.arrived(*completion);
        }
        self.log.extend(&out[..done]);
        let mut any = done > 0;
        while self.post() {
            any = true;
        }
        self.queue.publish();
        any
    }

    fn arrived(&mut self, completion: Completion) {
        let (data, _) = self.shape.place(&self.setup, completion.token);
        let capacity = std::mem::take(&mut self.posted[completion.token as usize]);
        assert!(completion.len <= capacity && completion.len > 0);
        self.free.push(completion.token);
        let bytes = self.guest.bytes(data, completion.len as usize);
        if self.missing == 0 {
            let buffers = u16::from_le_bytes([bytes[10], bytes[11]]);
            assert!(buffers >= 1 && (buffers == 1 || self.setup.config.features.mrg_rxbuf));
            self.missing = buffers;
            self.partial = bytes[HEADER as usize..].to_vec();
        } else {
            self.partial.extend(bytes);
        }
        self.missing -= 1;
        if self.missing == 0 {
            assert!(self.partial == frame(&self.shape, self.next), "frame {}", self.next);
            self.next += 1;
        } else {
            assert_eq!(completion.len, capacity, "only the last buffer may be left partly empty");
        }
    }

    fn post(&mut self) -> bool {
        let Some(&token) = self.free.last() else { return false };
        let (data, table) = self.shape.place(&self.setup, token);
        let features = &self.setup.config.features;
        let whole = HEADER + self.shape.longest;
        // Mergeable: a third, so that frames span buffers where the ring has three.
        let len = if features.mrg_rxbuf && self.shape.size >= 8 { whole / 3 } else { whole };
        let piece = |from: u32, to: u32| Buffer { addr: data + u64::from(from), len: to - from };
        let posted = match self.turn % 4 {
            1 if self.shape.size >= 8 => self.queue.post(&[], &[piece(0, 40), piece(40, len)], token).is_ok(),
            2 if features.indirect && self.shape.size >= 2 => {
                self.queue.post_indirect(table, &[], &[piece(0, HEADER), piece(HEADER, len)], token).is_ok()
            }
            _ => self.queue.post_burst(&[piece(0, len)], &[token], true) == 1,
        };
        if posted {
            self.turn += 1;
            self.free.pop();
            self.posted[token as usize] = len;
        }
        posted
    }
}
