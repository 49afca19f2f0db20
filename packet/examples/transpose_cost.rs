// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a compiled transposition costs: nanoseconds per packet, bytes per flow.
//!
//! ```text
//! cargo run --release -p shunt-packet --example transpose_cost
//! ```
//!
//! For instructions, one kind at a time, less those of `nothing`, by the number of packets:
//!
//! ```text
//! valgrind --tool=callgrind target/release/examples/transpose_cost nat 1000
//! ```
//!
//! Each round fills a burst anew, because what was encapsulated cannot be again; `nothing` does only that.

use std::{hint::black_box, time::Instant};

use packet::{
    Burst, DropCause, Field, MAX_BURST, MacAddr, Offload, PortId, Program, Transposition, Tunnel, WINDOW, parse,
    synth::{Template, UdpFlow},
    transpose::{Encap, Value},
};

const ROUNDS: u32 = 20_000;

type Error = Box<dyn std::error::Error>;

/// A program, the frame that it is for, and what the parser says of that.
struct Case {
    name: &'static str,
    program: Option<Program>,
    frame: Vec<u8>,
    parsed: parse::Parsed,
}

fn main() -> Result<(), Error> {
    let mut args = std::env::args().skip(1);
    let only = args.next();
    let rounds = args.next().map_or(Ok(ROUNDS), |rounds| rounds.parse())?;
    let cases = cases()?;
    let wanted = |case: &&Case| only.as_deref().is_none_or(|only| only == case.name);
    for case in cases.iter().filter(wanted) {
        // The best of some: what disturbs only adds.
        let repeats = if only.is_some() { 1 } else { 15 };
        let best = (0..repeats).map(|_| run(case, rounds)).collect::<Result<Vec<_>, _>>()?;
        let best = best.into_iter().fold(f64::INFINITY, f64::min);
        let (inline, heap) = case.program.as_ref().map_or((0, 0), |p| (size_of::<Program>(), p.heap_bytes()));
        println!("{:<12} {best:>6.1} ns   {inline:>3} bytes + {heap:>3} on the heap", case.name);
    }
    Ok(())
}

fn run(case: &Case, rounds: u32) -> Result<f64, Error> {
    let mut burst = Burst::new();
    let len = u32::try_from(case.frame.len())?;
    let window = case.frame.get(..WINDOW).unwrap_or(&case.frame);
    let start = Instant::now();
    for _ in 0..rounds {
        burst.clear();
        for i in 0..MAX_BURST {
            if let Some(to) = burst.push(PortId(0), len, Offload::NONE, 0) {
                to.copy_from_slice(window);
            }
            if let Some(program) = &case.program {
                program.apply(&mut burst, i, black_box(&case.parsed.layout), 7).map_err(DropCause::label)?;
            }
        }
        black_box(&mut burst);
    }
    let packets = f64::from(rounds) * f64::from(u32::try_from(MAX_BURST)?);
    Ok(start.elapsed().as_secs_f64() * 1e9 / packets)
}

fn cases() -> Result<Vec<Case>, Error> {
    let flow = UdpFlow {
        source: MacAddr([2, 0, 0, 0, 0, 1]),
        destination: MacAddr([2, 0, 0, 0, 0, 2]),
        source_ip: [10, 0, 0, 1].into(),
        destination_ip: [10, 0, 0, 2].into(),
        source_port: 1000,
        destination_port: 2000,
    };
    let plain = Template::new(flow, 200)?.frame().to_vec();
    let nat = || {
        Transposition::default()
            .with(Field::IpSrc, Value::Ipv4([192, 0, 2, 1].into()))
            .with(Field::L4Src, Value::Number(4000))
    };
    let end = |last: u8| (MacAddr([2, 0, 0, 0, 1, last]), [198, 51, 100, last].into());
    let encap = Encap::new(Tunnel::Vxlan, 77, end(1), end(2));
    let both = nat().then(&Transposition::push(encap.clone()))?;
    let tunnelled = encapsulated(&plain, &Transposition::push(encap))?;
    let unnat = Transposition::pop().then(
        &Transposition::default()
            .with(Field::IpDst, Value::Ipv4([192, 0, 2, 1].into()))
            .with(Field::L4Dst, Value::Number(4000)),
    )?;
    [
        ("nothing", None, &plain),
        ("nat", Some(nat()), &plain),
        ("nat_encap", Some(both), &plain),
        ("decap", Some(Transposition::pop()), &tunnelled),
        ("decap_nat", Some(unnat), &tunnelled),
    ]
    .into_iter()
    .map(|(name, ht, frame)| case(name, ht.as_ref(), frame))
    .collect()
}

fn case(name: &'static str, ht: Option<&Transposition>, frame: &[u8]) -> Result<Case, Error> {
    let window = frame.get(..WINDOW).unwrap_or(frame);
    let parsed = parse::parse(window, u32::try_from(frame.len())?)?;
    let program = ht.map(|ht| ht.compile(&parsed.ufid, &parsed.layout)).transpose()?;
    Ok(Case { name, program, frame: frame.to_vec(), parsed })
}

fn encapsulated(frame: &[u8], ht: &Transposition) -> Result<Vec<u8>, Error> {
    let mut burst = Burst::new();
    let len = u32::try_from(frame.len())?;
    burst.push(PortId(0), len, Offload::NONE, 0).ok_or("full")?.copy_from_slice(frame);
    let parsed = parse::parse(frame, len)?;
    ht.compile(&parsed.ufid, &parsed.layout)?.apply(&mut burst, 0, &parsed.layout, 7).map_err(DropCause::label)?;
    Ok(burst.window(0).to_vec())
}
