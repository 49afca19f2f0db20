// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Captures on the wires of the ToR.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result, ensure};

use super::{Clients, Ledger, Moment, Racks, SOON, TOR, WIRES};
use crate::aggdump;
use crate::process::Process;
use crate::scenario::WorkDir;
use crate::wait::wait_until;

/// Mebibytes of the kernel's buffer for a capture: room for all that passes, else what the machine's other work keeps it from writing would be
/// missing.
const BUFFER: &str = "128";

/// Captures that are under way on all wires.
#[derive(Debug)]
pub struct Wiretap {
    captures: Vec<(PathBuf, Process)>,
}

/// What passed the wires, in their order.
#[derive(Debug)]
pub struct Tapped {
    /// All that did.
    pub ever: Vec<Ledger>,
    /// What did between two moments.
    pub between: Vec<Ledger>,
}

impl Wiretap {
    /// Begins to capture what passes the wires, both ways.
    pub fn begin(work: &WorkDir, racks: &Racks, label: &str) -> Result<Self> {
        let mut captures = Vec::new();
        for wire in WIRES {
            let name = format!("wire-{}-{label}", wire.label);
            let (file, interface) = (work.file(&format!("{name}.pcap")), format!("out{}", wire.label));
            let path = file.to_str().context("a path")?;
            let argv = ["dumpcap", "-q", "-P", "-B", BUFFER, "-i", &interface, "-w", path];
            captures.push((file.clone(), racks.spaces[TOR].spawn(work, &name, &argv)?));
        }
        for (file, _) in &captures {
            wait_until("the capture", SOON, || Ok(fs::metadata(file).is_ok_and(|file| file.len() >= 24)))?;
        }
        Ok(Self { captures })
    }

    /// Ends the captures when they hold all that passed up to a moment, and decodes them. What passed between that and a moment before
    /// is what the nodes counted in between.
    pub fn end(mut self, racks: &Racks, clients: &Clients, before: &Moment, after: &Moment) -> Result<Tapped> {
        for (file, capture) in &mut self.captures {
            // What was captured is written with some delay: what passes later comes behind it in the file.
            wait_until("the capture to be written", SOON, || {
                clients.ping(racks)?;
                Ok(last_time(&fs::read(&*file)?).is_some_and(|time| time > after.time))
            })?;
            capture.terminate()?;
            let said = capture.printed_since(0)?;
            ensure!(said.contains("/0 (pcap:0/dumpcap:0/"), "the capture has dropped frames, or does not say: {said}");
        }
        let span = before.time..=after.time;
        let decode = |file: &Path| -> Result<(Ledger, Ledger)> {
            let (frames, _) = aggdump::decode(file, &["--verify"])?;
            fs::remove_file(file)?;
            Ok((Ledger::new(&frames, 0.0..=after.time)?, Ledger::new(&frames, span.clone())?))
        };
        let ledgers = thread::scope(|scope| {
            let decoders: Vec<_> = self.captures.iter().map(|(file, _)| scope.spawn(|| decode(file))).collect();
            let joined = decoders.into_iter().map(|decoder| decoder.join().ok().context("a decoder panicked")?);
            joined.collect::<Result<Vec<_>>>()
        })?;
        let (ever, between) = ledgers.into_iter().unzip();
        Ok(Tapped { ever, between })
    }
}

/// When the last frame of a capture in the classic format passed, in seconds; what is not wholly written is left out.
fn last_time(capture: &[u8]) -> Option<f64> {
    let (mut rest, mut last) = (capture.get(24..)?, None);
    while let Some((header, behind)) = rest.split_at_checked(16) {
        let field = |at: usize| header.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
        let Some(next) = behind.get(usize::try_from(field(8)?).ok()?..) else { break };
        last = Some(f64::from(field(0)?) + f64::from(field(4)?) * 1e-6);
        rest = next;
    }
    last
}
