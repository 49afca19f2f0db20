// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `shunt trace`: what is dropped, as it happens.

use std::ops::ControlFlow;

use anyhow::{Context, bail};
use backend::config::Name;
use backend::inspect::MAX_RATE;
use packet::{EtherType, EthernetHeader, Field, parse};
use serde::Deserialize;

use crate::client::{Client, Control};
use crate::output::print;

/// Longest line that a node writes.
const MAX_LINE: usize = 4096;

/// Shows what happens to single packets of a running node
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Shows packets that are dropped, with the port, the cause and their first bytes, until SIGINT
    Drops(Drops),
}

#[derive(Debug, clap::Args)]
struct Drops {
    /// Only those that are counted at this port
    #[arg(long, value_name = "NAME")]
    port: Option<Name>,
    /// Ends after so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Shows at most so many in a second; how many more there were is said
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_RATE)))]
    rate: u32,
    /// Print JSON, a line for each
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    control: Control,
}

/// A line of the node's answer.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Line {
    Missed { missed: u64 },
    Dropped(Dropped),
}

#[derive(Debug, Deserialize)]
struct Dropped {
    time_ns: u64,
    port: String,
    cause: String,
    packets: u32,
    length: u32,
    bytes: String,
}

/// Shows drops.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let What::Drops(args) = &args.what;
    let mut path = format!("/drops?rate={}", args.rate);
    path += &args.port.as_ref().map(|port| format!("&port={port}")).unwrap_or_default();
    path += &args.count.map(|count| format!("&count={count}")).unwrap_or_default();
    let mut open = Vec::new();
    Client::new(&args.control)?.stream(&path, |bytes| {
        open.extend_from_slice(bytes);
        let Some(end) = open.iter().rposition(|byte| *byte == b'\n') else {
            if open.len() > MAX_LINE {
                bail!("the node wrote a line of more than {MAX_LINE} bytes");
            }
            return Ok(ControlFlow::Continue(()));
        };
        let whole: Vec<u8> = open.drain(..=end).collect();
        let lines = str::from_utf8(&whole).context("the node wrote no text")?.lines().filter(|line| !line.is_empty());
        for line in lines {
            let shown = if args.json { line.to_owned() } else { show(&serde_json::from_str(line)?) };
            print(&(shown + "\n"))?;
        }
        Ok(ControlFlow::Continue(()))
    })
}

fn show(line: &Line) -> String {
    let Dropped { time_ns, port, cause, packets, length, bytes } = match line {
        Line::Missed { missed } => return format!("                and {missed} more"),
        Line::Dropped(dropped) => dropped,
    };
    let (seconds, micros) = (time_ns / 1_000_000_000, time_ns / 1000 % 1_000_000);
    let (hours, minutes) = (seconds / 3600 % 24, seconds / 60 % 60);
    let times = if *packets > 1 { format!(" {packets} packets") } else { String::new() };
    let first = about(&bytes_of(bytes), *length);
    let time = format!("{hours:02}:{minutes:02}:{:02}.{micros:06}", seconds % 60);
    format!("{time} {port} {cause}{times} {length} bytes{}{first} {bytes}", if first.is_empty() { "" } else { " " })
}

/// What the headers of a packet say, as far as they are there.
fn about(bytes: &[u8], length: u32) -> String {
    let Some(ethernet) = EthernetHeader::parse(bytes) else { return String::new() };
    let link = format!("{} > {}", ethernet.source(), ethernet.destination());
    let Ok(parsed) = parse::parse(bytes, length) else {
        return format!("{link} type {:#06x}", ethernet.ether_type().0);
    };
    let field = |field| parsed.ufid.get(field);
    let vni = if field(Field::Tunnel) == 0 { String::new() } else { format!(" vni {}", field(Field::TunnelKey)) };
    let address = |which| {
        let value = field(which);
        match u32::try_from(value) {
            Ok(value) if field(Field::IpVersion) == 4 => std::net::Ipv4Addr::from_bits(value).to_string(),
            _ => std::net::Ipv6Addr::from_bits(value).to_string(),
        }
    };
    match field(Field::IpVersion) {
        0 if field(Field::EtherType) == u128::from(EtherType::ARP.0) => format!("{link} arp"),
        0 => format!("{link} type {:#06x}", field(Field::EtherType)),
        _ => {
            let (from, to) = (address(Field::IpSrc), address(Field::IpDst));
            let ends = match field(Field::IpProto) {
                6 => format!("tcp {from} port {} > {to} port {}", field(Field::L4Src), field(Field::L4Dst)),
                17 => format!("udp {from} port {} > {to} port {}", field(Field::L4Src), field(Field::L4Dst)),
                protocol => format!("proto {protocol} {from} > {to}"),
            };
            format!("{link}{vni} {ends}")
        }
    }
}

/// Bytes of pairs of hexadecimal digits.
fn bytes_of(hex: &str) -> Vec<u8> {
    let pairs = hex.as_bytes().chunks_exact(2);
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    pairs.map_while(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drop_is_shown_with_what_its_headers_say() {
        let arp = "ffffffffffff020000000001080600010800060400010200000000010a0000010000000000000a000002";
        let line = |bytes: &str, packets: u32, length: u32| {
            let line = format!(
                r#"{{"time_ns":1764090000123456789,"port":"vm0","cause":"no_buffers","packets":{packets},"length":{length},"bytes":"{bytes}"}}"#
            );
            show(&serde_json::from_str(&line).unwrap())
        };
        let shown = format!("17:00:00.123456 vm0 no_buffers 42 bytes 02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff arp {arp}");
        assert_eq!(line(arp, 1, 42), shown);
        assert_eq!(line("0200", 7, 13), "17:00:00.123456 vm0 no_buffers 7 packets 13 bytes 0200");
        let udp = [
            "020000000002",
            "020000000001",
            "0800",
            "450000200000000040110000",
            "0a0000010a000002",
            "04d20050000c0000",
        ]
        .concat();
        let shown = line(&udp, 1, 46);
        assert!(shown.contains("udp 10.0.0.1 port 1234 > 10.0.0.2 port 80"), "{shown}");
        assert_eq!(show(&serde_json::from_str(r#"{"missed":3}"#).unwrap()).trim(), "and 3 more");
    }
}
