// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Sends packets of stated sizes at a stated rate to a station that sends them back, such as `echo`, and verifies what
//! comes: every byte, in order, nothing lost. `pktgen /run/shunt/cnf1.sock --sizes 60,1514 --rate 100000 --count 1000000`

#![forbid(unsafe_code)]

mod support;

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use clap::Parser;
use cnf::{Burst, MAX_BURST, Packet};
use support::{Idle, LinkOptions, Stop, tend};

/// Local experimental EtherType 2 (IEEE 802): nobody else's.
const ETHER_TYPE: [u8; 2] = [0x88, 0xb6];
/// Two addresses, the type and the packet's number.
const SHORTEST: usize = 22;
/// Nothing arrives for so long: what is missing is lost.
const LOST_AFTER: Duration = Duration::from_secs(2);

/// Sends packets and verifies what comes back
#[derive(Debug, Parser)]
struct Args {
    /// Socket of the port, or server:SOCKET to let the backend connect
    socket: String,
    /// Bytes of the frames, without check sequence; one after the other, again and again
    #[arg(long, value_delimiter = ',', default_value = "60", value_name = "BYTES,…")]
    sizes: Vec<usize>,
    /// Packets per second; as fast as they come back, if not given
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
    /// Packets to send
    #[arg(long, default_value_t = 1_000_000, value_name = "N")]
    count: u64,
    /// Packets on their way at most
    #[arg(long, default_value_t = 128, value_name = "N")]
    window: u64,
    /// Address of the station that sends them back
    #[arg(long, default_value = "02:00:00:00:00:02", value_name = "MAC")]
    to: String,
    /// Address to send from
    #[arg(long, default_value = "02:00:00:00:00:01", value_name = "MAC")]
    from: String,
    #[command(flatten)]
    links: LinkOptions,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let stop = Stop::on_signals()?;
    let (mut link, mut queues) = args.links.open(&args.socket)?;
    let addresses = (mac(&args.to)?, mac(&args.from)?);
    ensure!(args.sizes.iter().all(|size| (SHORTEST..=9000).contains(size)), "sizes are from {SHORTEST} to 9000");
    let queue = &mut queues[0];
    let mut quiet = false;
    while !queue.is_up() && !stop.is_set() {
        tend(&args.socket, &mut link, &mut quiet);
        queue.wait(Duration::from_millis(5));
    }

    let (mut burst, mut idle) = (Burst::new(), Idle::new(args.links.busy));
    let (mut frame, mut due) = (Vec::new(), Vec::new());
    let (mut sent, mut received, mut bytes) = (0u64, 0u64, 0u64);
    let start = Instant::now();
    let mut last = start;
    while received < args.count && !stop.is_set() {
        tend(&args.socket, &mut link, &mut quiet);
        let allowed = args.rate.map_or(u64::MAX, |rate| packets(start.elapsed(), rate));
        let end = args.count.min(allowed).min(received + args.window).min(sent + MAX_BURST as u64);
        let before = sent;
        while sent < end {
            build(&mut frame, addresses, sent, &args.sizes);
            if !queue.send(Packet::new(&frame)) {
                break;
            }
            sent += 1;
        }
        queue.flush();
        queue.receive(&mut burst);
        for packet in burst.iter() {
            build(&mut due, (addresses.1, addresses.0), received, &args.sizes);
            if packet.bytes.get(12..14) != Some(&ETHER_TYPE) {
                continue; // somebody else's: the node's own, or a neighbour's
            }
            ensure!(packet.bytes == due, "packet {received} came back altered, or another one in its place");
            received += 1;
            bytes += due.len() as u64;
            last = Instant::now();
        }
        ensure!(received == sent || last.elapsed() < LOST_AFTER, "{} of {sent} packets are lost", sent - received);
        if received == sent {
            last = Instant::now();
        }
        if idle.after(burst.len() + usize::from(sent > before)) {
            queue.wait(Duration::from_micros(200));
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let rate = as_float(received) / seconds;
    let bits = 8e-6 * as_float(bytes) / seconds;
    println!("{received} packets verified, {bytes} bytes, {seconds:.3} s, {rate:.0} packets/s, {bits:.1} Mbit/s");
    let counters = queue.counters();
    link.close(queues, LOST_AFTER);
    println!("{counters:?}");
    if received < args.count {
        bail!("interrupted: {received} of {} packets", args.count);
    }
    Ok(())
}

/// Packet number `number`: addresses, type, number, and bytes that follow from it.
fn build(frame: &mut Vec<u8>, (to, from): ([u8; 6], [u8; 6]), number: u64, sizes: &[usize]) {
    let place = usize::try_from(number % sizes.len() as u64).unwrap_or(0);
    frame.clear();
    frame.extend(to.into_iter().chain(from).chain(ETHER_TYPE).chain(number.to_be_bytes()));
    let mut word = number ^ 0x9e37_79b9_7f4a_7c15;
    while frame.len() < sizes[place] {
        word = (word ^ word >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let room = (sizes[place] - frame.len()).min(8);
        frame.extend_from_slice(&word.to_be_bytes()[..room]);
    }
}

/// How many are to have been sent by now.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive number of packets")]
fn packets(elapsed: Duration, rate: f64) -> u64 {
    (elapsed.as_secs_f64() * rate) as u64
}

#[expect(clippy::cast_precision_loss, reason = "for people to read")]
fn as_float(number: u64) -> f64 {
    number as f64
}

fn mac(text: &str) -> anyhow::Result<[u8; 6]> {
    let bytes: Vec<u8> = text.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>()?;
    bytes.try_into().map_err(|_| anyhow::anyhow!("{text} is no MAC address"))
}
