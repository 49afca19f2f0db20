// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Two guests on one thread: each sends on all connections in turn, and checks what it hears.
//!
//! A side has at most [`WINDOW`] frames on their way, fewer than the other side has buffers for, so that whatever is lost is
//! lost to policy. Frames are numbered for each direction, and one worker keeps their order: a number that is left out is a
//! loss. Beside that, a probe is sent in every turn while one is wanted.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use virtqueue::{Buffer, Completion, full_fence};

use crate::policy::{CLIENT, PROBE, ends, probe_port};
use crate::support::Guest;

pub(crate) const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];
pub(crate) const SLICE: Duration = Duration::from_millis(50);
const WINDOW: u64 = 192;
const BURST: usize = 64;
/// Bytes of a frame, and of the virtio-net header in front of it.
const FRAME: usize = 60;
const FRAME_LEN: u32 = 60;
const HEADER: u32 = 12;
/// Where the number of a frame stands.
const NUMBER_AT: u32 = HEADER + 14 + 20 + 8;
/// And which connection it is of.
const CONNECTION_AT: u32 = NUMBER_AT + 8;
const IS_PROBE: u64 = u64::MAX;
/// Connections are taken in an order without pattern: this has no factor in common with their number.
const STRIDE: u32 = 7919;

/// What the guests' thread and the one that measures tell each other.
pub(crate) struct Talk {
    begin: Instant,
    stop: AtomicBool,
    /// The generation whose probe is wanted, and one.
    wanted: AtomicU32,
    /// When it arrived, in nanoseconds from the beginning; 0: not yet.
    arrived_ns: AtomicU64,
    pub(crate) delivered: AtomicU64,
    pub(crate) lost: AtomicU64,
    /// Probes sent, and of them those that arrived.
    pub(crate) probes: [AtomicU64; 2],
    /// What was delivered in each slice, with the end of the slice.
    slices: Mutex<Vec<(Duration, u64)>>,
}

impl Talk {
    pub(crate) fn new() -> Self {
        Self {
            begin: Instant::now(),
            stop: AtomicBool::new(false),
            wanted: AtomicU32::new(0),
            arrived_ns: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            probes: [AtomicU64::new(0), AtomicU64::new(0)],
            slices: Mutex::default(),
        }
    }

    pub(crate) fn now(&self) -> Duration {
        self.begin.elapsed()
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    /// Sends the probe of a generation from now on, until it arrives.
    pub(crate) fn want(&self, generation: u32) {
        self.arrived_ns.store(0, Relaxed);
        self.wanted.store(generation + 1, Relaxed);
    }

    /// When the probe arrived.
    pub(crate) fn arrived(&self) -> Option<Duration> {
        let at = self.arrived_ns.load(Relaxed);
        (at != 0).then(|| Duration::from_nanos(at))
    }

    /// The slices so far.
    pub(crate) fn slices(&self) -> Vec<(Duration, u64)> {
        self.slices.lock().expect("no panic").clone()
    }
}

/// Both guests, and their frames.
pub(crate) struct Traffic {
    sides: [Side; 2],
    connections: u32,
}

struct Side {
    guest: Guest,
    frames: Vec<[u8; FRAME]>,
    free: Vec<u32>,
    sent: u64,
    /// Number of the next frame that is to come, of the other side.
    due: u64,
    lost: u64,
    next: u32,
}

impl Traffic {
    pub(crate) fn new(guests: [Guest; 2], connections: u32) -> Self {
        assert!(!connections.is_multiple_of(STRIDE));
        let mut from = 0;
        let sides = guests.map(|guest| {
            let frames = (0..connections).map(|connection| talk(from, connection)).collect();
            from += 1;
            let free = (0..guest.pairs[0].queues.tx_buffers.count()).collect();
            Side { guest, frames, free, sent: 0, due: 0, lost: 0, next: 0 }
        });
        Self { sides, connections }
    }

    /// Opens all connections, some thousand at a time, because nobody has confirmed those yet.
    pub(crate) fn open(&mut self, talk: &Talk) {
        let all = self.connections;
        for until in (0..all).step_by(4096).map(|from| (from + 4096).min(all)) {
            for me in [0, 1] {
                while self.sides[me].sent < u64::from(until) || self.sides[1 - me].due < u64::from(until) {
                    let most = u64::from(until) - self.sides[me].sent;
                    self.say(me, most, talk);
                    self.hear(talk);
                }
            }
        }
    }

    /// Talks until it is told to stop; then waits for what is on its way.
    pub(crate) fn run(&mut self, talk: &Talk) {
        let (mut slice_end, mut counted) = (talk.now() + SLICE, 0);
        while !talk.stop.load(Relaxed) {
            for me in [0, 1] {
                self.say(me, u64::MAX, talk);
            }
            self.hear(talk);
            let now = talk.now();
            if now >= slice_end {
                let delivered = talk.delivered.load(Relaxed);
                talk.slices.lock().expect("no panic").push((now, delivered - counted));
                (slice_end, counted) = (now + SLICE, delivered);
            }
        }
        let begin = Instant::now();
        while self.sides.iter().any(|side| (side.free.len() as u64) < WINDOW) || begin.elapsed() < SLICE {
            self.sides.iter_mut().for_each(Side::reclaim);
            self.hear(talk);
        }
        let missing: u64 = [0, 1].map(|me| self.sides[me].sent - self.sides[1 - me].due).iter().sum();
        talk.lost.fetch_add(missing, Relaxed);
    }

    /// Sends what may be on its way, `most` at most.
    fn say(&mut self, me: usize, most: u64, talk: &Talk) {
        let due = self.sides[1 - me].due;
        let side = &mut self.sides[me];
        side.reclaim();
        let room = u64::from(side.guest.pairs[0].queues.tx.free());
        // One descriptor is left for a probe.
        let may = (due + WINDOW).saturating_sub(side.sent).min(most).min(BURST as u64).min(room.saturating_sub(1));
        let (mut buffers, mut tokens, mut count) = ([Buffer { addr: 0, len: 0 }; BURST + 1], [0; BURST + 1], 0);
        let pool = &side.guest.pairs[0].queues.tx_buffers;
        let mut push = |token: u32, frame: &[u8; FRAME], number: u64| {
            pool.write(token, HEADER, frame);
            pool.write_u64(token, NUMBER_AT, number);
            buffers[count] = pool.buffer(token, HEADER + FRAME_LEN);
            tokens[count] = token;
            count += 1;
        };
        for _ in 0..may {
            let Some(token) = side.free.pop() else { break };
            push(token, &side.frames[side.next as usize], side.sent);
            side.sent += 1;
            side.next = if most == u64::MAX { side.next + STRIDE } else { side.next + 1 } % self.connections;
        }
        let wanted = talk.wanted.load(Relaxed);
        if let Some(generation) = wanted.checked_sub(1).filter(|_| me == 0 && room > 0)
            && let Some(token) = side.free.pop()
        {
            let (address, port) = PROBE;
            push(token, &frame(0, (CLIENT, port), (address, probe_port(generation)), generation), IS_PROBE);
            talk.probes[0].fetch_add(1, Relaxed);
        }
        if count == 0 {
            return;
        }
        let tx = &mut side.guest.pairs[0].queues.tx;
        assert_eq!(tx.post_burst(&buffers[..count], &tokens[..count], false), count, "a buffer has a descriptor");
        tx.publish();
        full_fence();
        if tx.should_kick() {
            side.guest.pairs[0].queues.tx_bells.kick.ring().expect("kick");
        }
    }

    fn hear(&mut self, talk: &Talk) {
        for me in [0, 1] {
            let side = &mut self.sides[me];
            let mut done = [Completion::default(); BURST];
            let pair = &mut side.guest.pairs[0];
            let count = pair.queues.rx.complete(&mut done).expect("receive ring");
            let (mut tokens, mut heard) = ([0; BURST], 0);
            for (completion, token) in done[..count].iter().zip(&mut tokens) {
                *token = completion.token;
                assert_eq!(completion.len as usize, HEADER as usize + FRAME);
                let pool = &pair.queues.rx_buffers;
                let mut connection = [0; 4];
                pool.read(*token, CONNECTION_AT, &mut connection);
                let (number, connection) = (pool.read_u64(*token, NUMBER_AT), u32::from_ne_bytes(connection));
                if number == IS_PROBE {
                    talk.probes[1].fetch_add(1, Relaxed);
                    // One that was sent before the last one arrived is late.
                    if talk.wanted.load(Relaxed) == connection + 1 {
                        talk.wanted.store(0, Relaxed);
                        let now = u64::try_from(talk.now().as_nanos()).expect("some years");
                        talk.arrived_ns.store(now, Relaxed);
                    }
                    continue;
                }
                assert!(number >= side.due, "frame {number} when {} was due", side.due);
                side.lost += number - side.due;
                talk.lost.fetch_add(number - side.due, Relaxed);
                side.due = number + 1;
                heard += 1;
            }
            talk.delivered.fetch_add(heard, Relaxed);
            if count > 0 {
                pair.post(&tokens[..count]);
            }
        }
    }
}

impl Side {
    fn reclaim(&mut self) {
        let mut done = [Completion::default(); BURST];
        let count = self.guest.pairs[0].queues.tx.complete(&mut done).expect("transmit ring");
        self.free.extend(done[..count].iter().map(|completion| completion.token));
    }
}

/// A frame of a connection, from one side to the other.
fn talk(from: usize, connection: u32) -> [u8; FRAME] {
    let (port, server) = ends(connection);
    let ends = [(CLIENT, port), (server, 80)];
    frame(from, ends[from], ends[1 - from], connection)
}

fn frame(from: usize, source: ([u8; 4], u16), destination: ([u8; 4], u16), connection: u32) -> [u8; FRAME] {
    let mut bytes = Vec::with_capacity(FRAME);
    let payload = [0; FRAME - 14 - 20 - 8];
    etherparse::PacketBuilder::ethernet2(MACS[from], MACS[1 - from])
        .ipv4(source.0, destination.0, 64)
        .udp(source.1, destination.1)
        .write(&mut bytes, &payload)
        .expect("a frame");
    // The number changes, so UDP does without its checksum (RFC 768).
    bytes[14 + 20 + 6..14 + 20 + 8].fill(0);
    let at = (CONNECTION_AT - HEADER) as usize;
    bytes[at..at + 4].copy_from_slice(&connection.to_ne_bytes());
    bytes.try_into().expect("60 bytes")
}
