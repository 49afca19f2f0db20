// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Sends every packet back to the station that it came from. `echo /run/shunt/cnf0.sock`

#![forbid(unsafe_code)]

mod support;

use clap::Parser;
use cnf::{Burst, Queue, wait_any};
use support::{Idle, LinkOptions, SLEEP, Stop, tend};

/// Sends every packet back to where it came from
#[derive(Debug, Parser)]
struct Args {
    /// Socket of the port, or server:SOCKET to let the backend connect
    socket: String,
    #[command(flatten)]
    links: LinkOptions,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let stop = Stop::on_signals()?;
    let (mut link, mut queues) = args.links.open(&args.socket)?;
    let (mut burst, mut idle, mut quiet) = (Burst::new(), Idle::new(args.links.busy), false);
    let mut lost = 0;
    while !stop.is_set() {
        tend(&args.socket, &mut link, &mut quiet);
        let mut moved = 0;
        for queue in &mut queues {
            moved += queue.receive(&mut burst);
            burst.for_each(|mut packet| turn_round(packet.bytes_mut()));
            // A ring that is full stays full while we wait for it: what does not fit is lost.
            lost += burst.len() - queue.send_burst(&burst, 0);
        }
        if idle.after(moved) {
            wait_any(&mut queues.iter_mut().collect::<Vec<_>>(), &[], SLEEP);
        }
    }
    let counters: Vec<_> = queues.iter().map(Queue::counters).collect();
    link.close(queues, SLEEP);
    println!("{lost} lost, {counters:?}");
    Ok(())
}

/// Exchanges the addresses of an Ethernet frame.
fn turn_round(frame: &mut [u8]) {
    if let Some((to, from)) = frame.first_chunk_mut::<12>().map(|addresses| addresses.split_at_mut(6)) {
        to.swap_with_slice(from);
    }
}
