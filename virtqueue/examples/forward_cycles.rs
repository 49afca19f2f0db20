// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What forwarding costs: TSC cycles per packet of a device on one core between two guests whose
//! drivers share another, all in one process and memory.
//!
//! ```text
//! cargo run --release -p shunt-virtqueue --example forward_cycles -- ring=packed in_order=1 frame=60
//! ```
//!
//! Keys and defaults: `ring=packed in_order=1 mergeable=0 event_idx=0 size=256 frame=60 offset=52
//! seconds=2 burst=64 threads=1 copied=0
//! journal=0`. `offset` is where in a cache line a buffer begins; 52 puts the
//! frame on a line of its own, as DPDK does. `copied=1` takes the way of frames that are looked at:
//! the first 256 bytes through private memory. `threads=0` runs both sides in turn on one core, for
//! counting instructions: `valgrind --tool=callgrind --toggle-collect='*Device::turn*'`.
//!
//! Prints percentiles over short windows, because other work on the machine comes and goes. On a
//! busy one run it under `nice -n -20`.

use std::error::Error;
use std::hint::spin_loop;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rustix::thread::{CpuSet, sched_setaffinity};
use virtqueue::{
    Buffer, BufferPool, Completion, Delivered, DriverQueue, JournalFile, MAX_BURST, NetHeader, QueueConfig,
    QueueFeatures, RingAddresses, RingBase, RingKind, RxQueue, SharedMemory, Tail, TxQueue, forward, full_fence,
};

/// Bytes from one buffer to the next: an odd number of cache lines, so that the first lines of
/// buffers fall into different sets of the cache.
const STRIDE: u32 = 37 * 64;
/// Bytes posted of a buffer that receives.
const ROOM: u32 = 2048;

fn main() -> ExitCode {
    match Options::parse().and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("forward_cycles: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What is measured.
struct Options {
    features: QueueFeatures,
    size: u16,
    frame: u32,
    offset: u32,
    seconds: f64,
    burst: usize,
    threads: bool,
    copied: bool,
    journal: bool,
}

impl Options {
    fn parse() -> Result<Self, Box<dyn Error>> {
        let mut options = Self {
            features: QueueFeatures { in_order: true, ..QueueFeatures::from_bits(1 << 32 | 1 << 34) },
            size: 256,
            frame: 60,
            offset: 52,
            seconds: 2.0,
            burst: 64,
            threads: true,
            copied: false,
            journal: false,
        };
        for argument in std::env::args().skip(1) {
            let (key, value) = argument.split_once('=').ok_or("arguments are key=value")?;
            match key {
                "ring" => options.features.kind = if value == "split" { RingKind::Split } else { RingKind::Packed },
                "in_order" => options.features.in_order = value == "1",
                "mergeable" => options.features.mrg_rxbuf = value == "1",
                "event_idx" => options.features.event_idx = value == "1",
                "size" => options.size = value.parse()?,
                "frame" => options.frame = value.parse()?,
                "offset" => options.offset = value.parse()?,
                "seconds" => options.seconds = value.parse()?,
                "burst" => options.burst = value.parse()?,
                "copied" => options.copied = value == "1",
                "journal" => options.journal = value == "1",
                "threads" => options.threads = value == "1",
                _ => return Err(format!("unknown key {key}").into()),
            }
        }
        if options.offset + 12 + options.frame > STRIDE || options.offset > STRIDE - ROOM {
            return Err(format!("a frame of {} bytes at {} does not fit", options.frame, options.offset).into());
        }
        Ok(options)
    }
}

/// One direction of one guest: a ring and its buffers.
struct Side {
    driver: DriverQueue,
    pool: BufferPool,
    tokens: Vec<u32>,
    buffers: Vec<Buffer>,
    free: Vec<u32>,
    done: Vec<Completion>,
}

impl Side {
    fn new(options: &Options, writable: bool) -> Result<(Self, QueueConfig, SharedMemory), Box<dyn Error>> {
        let kind = options.features.kind;
        let layout = DriverQueue::ring_bytes(kind, options.size);
        let data = layout.total.next_multiple_of(4096);
        let count = u32::from(options.size);
        let memory = SharedMemory::create("forward", data + u64::from(count * STRIDE), false)?;
        let start = memory.spec().guest_addr;
        let addresses =
            RingAddresses { desc: start + layout.desc, driver: start + layout.driver, device: start + layout.device };
        let config =
            QueueConfig { size: options.size, features: options.features, addresses, base: RingBase::initial(kind) };
        let mut driver = DriverQueue::new(config, memory.map())?;
        driver.set_calls(false);
        let pool = BufferPool::new(memory.map(), start + data, STRIDE, count)?;
        let header = u32::from(options.features.header_len);
        let len = if writable { ROOM } else { header + options.frame };
        let buffers =
            (0..count).map(|i| Buffer { addr: pool.addr(i) + u64::from(options.offset), len }).collect::<Vec<_>>();
        for i in 0..count {
            pool.write(i, 0, &vec![0x5a; STRIDE as usize]);
        }
        let done = vec![Completion::default(); options.burst];
        Ok((Self { driver, pool, tokens: Vec::new(), buffers, free: shuffled(count), done }, config, memory))
    }

    /// Takes back what was used and posts it again, touching the first line of each frame.
    fn turn(&mut self, writable: bool, at: u32, sequence: &mut u64) -> u64 {
        let done = self.driver.complete(&mut self.done).unwrap_or_else(|error| panic!("{error}"));
        for completion in &self.done[..done] {
            if writable {
                *sequence ^= self.pool.read_u64(completion.token, at);
            }
            self.free.push(completion.token);
        }
        self.tokens.clear();
        let count = self.free.len().min(self.done.len());
        self.tokens.extend(self.free.drain(self.free.len() - count..));
        if !writable {
            for token in &self.tokens {
                *sequence += 1;
                self.pool.write_u64(*token, at, *sequence);
            }
        }
        let mut posts = [Buffer::default(); 256];
        for (post, token) in posts.iter_mut().zip(&self.tokens) {
            *post = self.buffers[*token as usize];
        }
        let posted = self.driver.post_burst(&posts[..count], &self.tokens, writable);
        assert_eq!(posted, count);
        self.driver.publish();
        done as u64
    }
}

/// Numbers below `count` in no order that a cache could guess, as buffers of a busy pool are.
fn shuffled(count: u32) -> Vec<u32> {
    let mut all: Vec<_> = (0..count).collect();
    all.sort_by_key(|i| (u64::from(*i) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    all
}

/// Both drivers: what each guest sends and receives.
struct Drivers {
    sides: [(Side, bool); 4],
    at: u32,
    sequence: u64,
}

impl Drivers {
    fn turn(&mut self) {
        for (side, writable) in &mut self.sides {
            side.turn(*writable, self.at, &mut self.sequence);
        }
    }
}

/// The device: two queue pairs wired back to back.
struct Device {
    pairs: [(TxQueue, RxQueue); 2],
    burst: usize,
    windows: Option<Box<[[u8; 256]; MAX_BURST]>>,
}

impl Device {
    #[inline(never)]
    fn turn(&mut self) -> u32 {
        let mut frames = 0;
        for (tx, rx) in &mut self.pairs {
            frames += match &mut self.windows {
                Some(windows) => by_hand(tx, rx, self.burst, windows),
                None => forward(tx, rx, self.burst).unwrap_or_else(|error| panic!("{error}")).frames,
            };
            rx.publish();
            tx.publish();
        }
        if frames > 0 {
            full_fence();
            for (tx, rx) in &mut self.pairs {
                let notify = rx.should_notify() | tx.should_notify();
                assert!(!notify, "the drivers poll");
            }
        }
        frames
    }
}

/// What a bridge does: reads the heads of a burst into windows, would judge them, and delivers.
fn by_hand(tx: &mut TxQueue, rx: &mut RxQueue, burst: usize, windows: &mut [[u8; 256]; MAX_BURST]) -> u32 {
    let held = tx.harvest(burst).unwrap_or_else(|error| panic!("{error}"));
    if held == 0 {
        return 0;
    }
    rx.prefetch(held + MAX_BURST).unwrap_or_else(|error| panic!("{error}"));
    for (i, window) in windows.iter_mut().enumerate().take(held) {
        tx.read(i, 0, &mut window[..(tx.frame_len(i) as usize).min(256)]);
    }
    let mut done = 0;
    for (i, window) in windows.iter().enumerate().take(held) {
        let len = (tx.frame_len(i) as usize).min(256);
        let tail = Tail::Frame { queue: tx, index: i, offset: 256 };
        let tail = if tx.frame_len(i) > 256 { tail } else { Tail::None };
        match rx.deliver(&NetHeader::default(), &window[..len], tail).unwrap_or_else(|error| panic!("{error}")) {
            Delivered::Ok => done += 1,
            _ => break,
        }
    }
    tx.release(done as usize);
    done
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let mut memories = Vec::new();
    let mut side = |writable| -> Result<(Side, QueueConfig, Arc<virtqueue::MemoryMap>), Box<dyn Error>> {
        let (side, config, memory) = Side::new(options, writable)?;
        let map = memory.map();
        memories.push(memory);
        Ok((side, config, map))
    };
    let path = std::path::Path::new("/dev/shm/forward_cycles");
    let journal = options.journal.then(|| JournalFile::open(path, 4)).transpose()?;
    let journal = |i| journal.as_ref().and_then(|file| file.queue(i));
    let (a_tx, b_rx, b_tx, a_rx) = (side(false)?, side(true)?, side(false)?, side(true)?);
    let mut device = Device {
        pairs: [
            (TxQueue::new(a_tx.1, a_tx.2, journal(0))?, RxQueue::new(b_rx.1, b_rx.2, journal(1))?),
            (TxQueue::new(b_tx.1, b_tx.2, journal(2))?, RxQueue::new(a_rx.1, a_rx.2, journal(3))?),
        ],
        burst: options.burst,
        windows: options.copied.then(|| Box::new([[0; 256]; MAX_BURST])),
    };
    for (tx, rx) in &mut device.pairs {
        tx.set_kicks(false);
        rx.set_kicks(false);
    }
    let mut drivers = Drivers {
        sides: [(a_tx.0, false), (b_rx.0, true), (b_tx.0, false), (a_rx.0, true)],
        at: options.offset + u32::from(options.features.header_len),
        sequence: 0,
    };
    if !options.threads {
        let mut frames = 0;
        for _ in 0..5000 {
            drivers.turn();
            frames += device.turn();
        }
        println!("{frames} packets");
        return Ok(());
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pin(1);
            while !stop.load(Ordering::Relaxed) {
                drivers.turn();
            }
        });
        pin(0);
        measure(&mut device, options.seconds);
        stop.store(true, Ordering::Relaxed);
    });
    Ok(())
}

fn measure(device: &mut Device, seconds: f64) {
    let begin = Instant::now();
    let mut windows = Vec::new();
    let mut total = 0_u64;
    while begin.elapsed().as_secs_f64() < seconds {
        let (mut busy, mut frames, mut bursts) = (0_u64, 0_u64, 0_u64);
        while bursts < WINDOW {
            let start = cycles();
            let count = device.turn();
            if count > 0 {
                busy += cycles() - start;
                frames += u64::from(count);
                bursts += 1;
            } else {
                spin_loop();
            }
        }
        windows.push((busy as f64 / frames as f64, frames as f64 / bursts as f64));
        total += frames;
    }
    windows.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mpps = total as f64 / begin.elapsed().as_secs_f64() / 1e6;
    for percent in [1, 10, 25, 50] {
        let (cycles, frames) = windows[windows.len() * percent / 100];
        print!("{percent} %: {cycles:.1} ({frames:.0})   ");
    }
    println!("cycles per packet (packets per turn); {mpps:.2} Mpps");
}

/// Turns per window: below a millisecond, so that most windows see no other work on their core.
const WINDOW: u64 = 64;

fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    if let Err(error) = sched_setaffinity(None, &set) {
        eprintln!("forward_cycles: cannot pin to CPU {cpu}: {error}");
    }
}

#[cfg(target_arch = "x86_64")]
fn cycles() -> u64 {
    // SAFETY: RDTSC has no preconditions.
    unsafe { std::arch::x86_64::_rdtsc() }
}

#[cfg(not(target_arch = "x86_64"))]
fn cycles() -> u64 {
    use std::sync::OnceLock;
    static START: OnceLock<Instant> = OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(0)
}
