// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Forwards between two ends as they are: two links, or a link and a tap device behind which the kernel's network stack
//! sits. `l2fwd /run/shunt/cnf0.sock tap:tap0`

#![forbid(unsafe_code)]

mod support;

use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd};

use clap::Parser;
use cnf::{Burst, Link, MAX_BURST, Packet, Queue, wait_any};
use support::{Idle, LinkOptions, SLEEP, Stop, tend};
use tappers::{Interface, Tap};

/// The longest frame that is taken from a tap.
const LONGEST: usize = 1 << 16;

/// Forwards between two ends, each SOCKET, server:SOCKET or tap:NAME
#[derive(Debug, Parser)]
struct Args {
    /// One end
    left: String,
    /// The other end
    right: String,
    #[command(flatten)]
    links: LinkOptions,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let stop = Stop::on_signals()?;
    let mut left = End::open(&args.left, &args.links)?;
    let mut right = End::open(&args.right, &args.links)?;
    let (mut burst, mut idle) = (Burst::new(), Idle::new(args.links.busy));
    while !stop.is_set() {
        left.tend();
        right.tend();
        let mut moved = 0;
        // Pair i of one side is wired to pair i of the other.
        for pair in 0..left.pairs().max(right.pairs()) {
            moved += forward(&mut left, &mut right, pair, &mut burst)?;
            moved += forward(&mut right, &mut left, pair, &mut burst)?;
        }
        if idle.after(moved) {
            sleep(&mut left, &mut right);
        }
    }
    for end in [left, right] {
        println!("{}", end.close());
    }
    Ok(())
}

fn forward(from: &mut End, to: &mut End, pair: usize, burst: &mut Burst) -> anyhow::Result<usize> {
    let count = from.receive(pair, burst)?;
    if count > 0 {
        to.send(pair, burst)?;
    }
    Ok(count)
}

fn sleep(left: &mut End, right: &mut End) {
    let (mut queues, mut taps) = (Vec::new(), Vec::<BorrowedFd<'_>>::new());
    for end in [left, right] {
        match &mut end.kind {
            Kind::Link { queues: its, .. } => queues.extend(its.iter_mut()),
            Kind::Tap { tap, .. } => {
                let tap: &Tap = tap;
                taps.push(tap.as_fd());
            }
        }
    }
    wait_any(&mut queues, &taps, SLEEP);
}

/// One side of the forwarder.
struct End {
    name: String,
    kind: Kind,
    received: u64,
    sent: u64,
    /// There was no room for them.
    lost: u64,
}

enum Kind {
    Link { link: Box<Link>, queues: Vec<Queue>, quiet: bool },
    Tap { tap: Tap, frame: Vec<u8> },
}

impl End {
    fn open(name: &str, options: &LinkOptions) -> anyhow::Result<Self> {
        let kind = match name.strip_prefix("tap:") {
            Some(interface) => {
                let mut tap = Tap::new_named(Interface::new(interface)?)?;
                tap.set_nonblocking(true)?;
                tap.set_up()?;
                Kind::Tap { tap, frame: vec![0; LONGEST] }
            }
            None => {
                let (link, queues) = options.open(name)?;
                Kind::Link { link: Box::new(link), queues, quiet: false }
            }
        };
        Ok(Self { name: name.to_owned(), kind, received: 0, sent: 0, lost: 0 })
    }

    fn pairs(&self) -> usize {
        match &self.kind {
            Kind::Link { queues, .. } => queues.len(),
            Kind::Tap { .. } => 1,
        }
    }

    fn tend(&mut self) {
        if let Kind::Link { link, quiet, .. } = &mut self.kind {
            tend(&self.name, link, quiet);
        }
    }

    fn receive(&mut self, pair: usize, burst: &mut Burst) -> anyhow::Result<usize> {
        match &mut self.kind {
            Kind::Link { queues, .. } => match queues.get_mut(pair) {
                Some(queue) => _ = queue.receive(burst),
                None => burst.clear(),
            },
            Kind::Tap { tap, frame } => {
                burst.clear();
                while burst.len() < MAX_BURST {
                    match tap.recv(frame) {
                        Ok(len) => burst.push(Packet::new(&frame[..len])),
                        Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                        Err(error) => return Err(error.into()),
                    }
                }
            }
        }
        self.received += burst.len() as u64;
        Ok(burst.len())
    }

    fn send(&mut self, pair: usize, burst: &Burst) -> anyhow::Result<()> {
        let sent = match &mut self.kind {
            Kind::Link { queues, .. } => {
                let last = queues.len() - 1;
                queues[pair.min(last)].send_burst(burst, 0)
            }
            Kind::Tap { tap, .. } => {
                let mut sent = 0;
                for packet in burst.iter() {
                    match tap.send(packet.bytes) {
                        Ok(_) => sent += 1,
                        // The interface is full, down, or does not like the frame.
                        Err(error) if matches!(error.raw_os_error(), Some(EAGAIN | EIO | EINVAL | ENOBUFS)) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                sent
            }
        };
        self.sent += sent as u64;
        self.lost += (burst.len() - sent) as u64;
        Ok(())
    }

    /// Ends it, and says what it has done.
    fn close(self) -> String {
        let Self { name, received, sent, lost, kind } = self;
        let mut summary = format!("{name}: {received} received, {sent} sent, {lost} lost");
        if let Kind::Link { link, queues, .. } = kind {
            let packed: u64 = queues.iter().map(|queue| queue.counters().packets_packed).sum();
            summary.push_str(&format!(", {packed} in aggregates"));
            link.close(queues, SLEEP);
        }
        summary
    }
}

const EIO: i32 = 5;
const EAGAIN: i32 = 11;
const EINVAL: i32 = 22;
const ENOBUFS: i32 = 105;
