// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `shunt capture`: what passes a port's queues, into a file.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use backend::config::Name;
use backend::inspect::{DEFAULT_SNAPLEN, MAX_SNAPLEN};
use packet::filter::Filter;

use crate::client::{Client, Control};

/// Longest block that a node writes: a packet with all about it, or a filter.
const MAX_BLOCK: usize = MAX_SNAPLEN as usize + 4096;
const INTERFACE_STATISTICS: u32 = 5;
const PACKET: u32 = 6;
/// Statistics: what did not fit.
const OPTION_DROPPED: u16 = 5;

/// Writes what passes a port's queues to a file, until SIGINT
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The port
    port: Name,
    /// Only this queue pair
    #[arg(long, value_name = "N")]
    queue: Option<u16>,
    /// What the node receives there (in: as it came, before policy), delivers there (out: after policy), or both
    #[arg(long, value_enum, default_value_t = Direction::Both)]
    direction: Direction,
    /// Only packets of which this is true, in a subset of pcap-filter(7)
    #[arg(long, value_name = "EXPR")]
    filter: Option<Filtered>,
    /// Bytes of each packet that are kept; 0: all
    #[arg(long, value_name = "BYTES", default_value_t = DEFAULT_SNAPLEN)]
    snaplen: u32,
    /// Ends after so many packets
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Ends after so long
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,
    /// File in pcapng format; -: standard output, for tcpdump -r - and the like
    #[arg(long, value_name = "FILE")]
    write: PathBuf,
    #[command(flatten)]
    control: Control,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Direction {
    In,
    Out,
    Both,
}

/// The text of a filter that the node will understand.
#[derive(Clone, Debug)]
struct Filtered(String);

impl std::str::FromStr for Filtered {
    type Err = packet::filter::FilterError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<Filter>().map(|_| Self(text.to_owned()))
    }
}

/// Captures, and says on standard error how much that was.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let client = Client::new(&args.control)?;
    let is_stdout = args.write.as_os_str() == "-";
    ensure!(
        !(is_stdout && io::stdout().is_terminal()),
        "standard output is a terminal; a capture is for a file or a pipe"
    );
    let mut file = None;
    let mut blocks = Blocks::default();
    let result = client.stream(&args.path(), |bytes| {
        if file.is_none() {
            // Not before the node has agreed: a file that is there stays as it is, if it does not.
            file = Some(open(&args.write, is_stdout)?);
        }
        if let Some(file) = &mut file {
            blocks.take(bytes, file).with_context(|| format!("cannot write {}", args.write.display()))?;
        }
        Ok(ControlFlow::Continue(()))
    });
    match result {
        Err(error) if is_stdout && is_closed(&error) => {}
        result => result?,
    }
    let Blocks { packets, lost, .. } = blocks;
    writeln!(io::stderr(), "{packets} packets captured, {lost} lost for want of room")?;
    Ok(())
}

fn open(path: &Path, is_stdout: bool) -> anyhow::Result<Box<dyn Write>> {
    if is_stdout {
        return Ok(Box::new(io::stdout().lock()));
    }
    Ok(Box::new(File::create(path).with_context(|| format!("cannot write {}", path.display()))?))
}

/// Whether who reads our output has seen enough.
fn is_closed(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe))
}

impl Args {
    fn path(&self) -> String {
        let mut path = format!("/ports/{}/capture?snaplen={}", self.port, self.snaplen);
        path += match self.direction {
            Direction::In => "&direction=in",
            Direction::Out => "&direction=out",
            Direction::Both => "",
        };
        let numbers = [("queue", self.queue.map(u64::from)), ("count", self.count), ("seconds", self.seconds)];
        for (key, number) in numbers {
            path += &number.map(|number| format!("&{key}={number}")).unwrap_or_default();
        }
        path += &self.filter.as_ref().map(|Filtered(text)| format!("&filter={}", encode(text))).unwrap_or_default();
        path
    }
}

/// Text as a part of a URL.
fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// Blocks of a file on their way there. Whatever ends a capture, those that are written are whole.
#[derive(Debug, Default)]
struct Blocks {
    /// The beginning of one.
    open: Vec<u8>,
    packets: u64,
    lost: u64,
    /// What was last said of each interface.
    by_interface: Vec<u64>,
}

impl Blocks {
    fn take(&mut self, bytes: &[u8], file: &mut impl Write) -> anyhow::Result<()> {
        self.open.extend_from_slice(bytes);
        let mut whole = 0;
        while let Some(length) = self.open.get(whole + 4..).and_then(number) {
            let length = usize::try_from(length)?;
            ensure!((12..=MAX_BLOCK).contains(&length), "the node wrote a block of {length} bytes");
            let Some(block) = self.open.get(whole..whole + length) else { break };
            let kind = number(block);
            let block = block.get(8..).unwrap_or_default();
            match kind {
                Some(PACKET) => self.packets += 1,
                Some(INTERFACE_STATISTICS) => {
                    let interface = usize::from(u16::try_from(number(block).unwrap_or(0))?);
                    let dropped = dropped(block);
                    if self.by_interface.len() <= interface {
                        self.by_interface.resize(interface + 1, 0);
                    }
                    if let Some(told) = self.by_interface.get_mut(interface) {
                        *told = dropped;
                    }
                    self.lost = self.by_interface.iter().sum();
                }
                _ => {}
            }
            whole += length;
        }
        let written =
            self.open.get(..whole).map_or(Ok(()), |blocks| file.write_all(blocks)).and_then(|()| file.flush());
        self.open.drain(..whole);
        Ok(written?)
    }
}

/// The number of lost packets that a block of statistics tells of.
fn dropped(block: &[u8]) -> u64 {
    let mut options = block.get(12..).unwrap_or_default();
    while let Some(([code0, code1, length0, length1], rest)) = options.split_first_chunk::<4>() {
        let length = usize::from(u16::from_le_bytes([*length0, *length1]));
        if u16::from_le_bytes([*code0, *code1]) == OPTION_DROPPED {
            return rest.first_chunk().map_or(0, |count| u64::from_le_bytes(*count));
        }
        options = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    0
}

fn number(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(kind: u32, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 12).unwrap().to_le_bytes();
        [&kind.to_le_bytes(), &length, body, &length].concat()
    }

    #[test]
    fn whole_blocks_are_written_however_they_come() {
        let statistics = |interface: u8, lost: u8| {
            let head = [&[interface, 0, 0, 0][..], &[0; 8]].concat();
            let received = [4, 0, 8, 0, 9, 0, 0, 0, 0, 0, 0, 0];
            block(5, &[&head[..], &received, &[5, 0, 8, 0, lost, 0, 0, 0, 0, 0, 0, 0], &[0; 4]].concat())
        };
        let whole = [
            block(0x0a0d_0d0a, &[1; 16]),
            block(6, &[2; 40]),
            statistics(0, 3),
            block(6, &[3; 44]),
            statistics(1, 5),
            statistics(0, 4),
        ]
        .concat();
        let cut = [&whole[..], &block(6, &[4; 40])[..51]].concat();
        for size in 1..cut.len() {
            let (mut blocks, mut file) = (Blocks::default(), Vec::new());
            for piece in cut.chunks(size) {
                blocks.take(piece, &mut file).unwrap();
            }
            assert!(file == whole, "in pieces of {size}");
            assert_eq!((blocks.packets, blocks.lost), (2, 9));
        }
        let short = [6, 0, 0, 0, 8, 0, 0, 0];
        assert!(Blocks::default().take(&short, &mut Vec::new()).is_err(), "no block is as short");
    }

    #[test]
    fn a_filter_is_written_as_urls_have_it() {
        assert_eq!(encode("host fd00::1 && !(tcp)"), "host%20fd00::1%20%26%26%20%21%28tcp%29");
    }
}
