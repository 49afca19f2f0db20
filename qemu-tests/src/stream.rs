// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One TCP connection between two namespaces (`nc` at both ends), sent through step by step, so that something can happen
//! between two steps. What arrived must be what was sent, byte by byte.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::netns::NetNs;
use crate::process::{Process, run};
use crate::scenario::WorkDir;
use crate::wait::{wait_for, wait_until};

/// How long one step may take.
const LIMIT: Duration = Duration::from_secs(90);

/// A connection.
#[derive(Debug)]
pub struct Stream {
    input: Option<File>,
    sent: Vec<u8>,
    received: PathBuf,
    random: u64,
    sender: Process,
    receiver: Process,
}

impl Stream {
    /// Listens in `to` at `listen`, and connects to `ip` and `port` from `from`. `name` is for its files.
    pub fn open(
        work: &WorkDir,
        name: &str,
        from: &NetNs,
        to: &NetNs,
        (ip, port): (&str, u16),
        listen: u16,
    ) -> Result<Self> {
        let [input, received, hold] = ["input", "received", "hold"].map(|what| work.file(&format!("{name}-{what}")));
        run(&["mkfifo".as_ref(), input.as_os_str(), hold.as_os_str()])?;
        // Its input is a pipe that never ends: nc would close the connection at the end of its input.
        let receive = format!("exec busybox nc -l -p {listen} <>{} >{}", hold.display(), received.display());
        let receiver = to.spawn(work, &format!("{name}-receiver"), &["sh", "-c", &receive])?;
        wait_until("the receiver to listen", LIMIT, || {
            Ok(to.sh("busybox netstat -ltn")?.contains(&format!(":{listen} ")))
        })?;
        let send = format!("exec busybox nc {ip} {port} <{}", input.display());
        let sender = from.spawn(work, &format!("{name}-sender"), &["sh", "-c", &send])?;
        let input = Some(File::options().write(true).open(&input)?);
        Ok(Self { input, sent: Vec::new(), received, random: u64::from(listen) | 1 << 40, sender, receiver })
    }

    /// Sends `len` more bytes, without waiting for their arrival; they must fit into a pipe and the sender's buffers.
    pub fn send(&mut self, len: usize) -> Result<()> {
        let start = self.sent.len();
        while self.sent.len() < start + len {
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            self.sent.extend_from_slice(&self.random.to_le_bytes());
        }
        self.sent.truncate(start + len);
        if let Some(input) = &mut self.input {
            input.write_all(&self.sent[start..])?;
        }
        Ok(())
    }

    /// Bytes that have arrived.
    pub fn arrived(&self) -> usize {
        fs::metadata(&self.received).map_or(0, |data| usize::try_from(data.len()).unwrap_or(usize::MAX))
    }

    /// Waits until all that was sent has arrived.
    pub fn all_arrived(&mut self) -> Result<()> {
        let mut seen = self.arrived();
        wait_for(&format!("{} bytes to arrive, of which {seen} have", self.sent.len()), LIMIT, || {
            ensure!(self.sender.is_running() && self.receiver.is_running(), "the connection ended at {seen} bytes");
            seen = self.arrived();
            Ok((seen >= self.sent.len()).then_some(()))
        })
    }

    /// Sends `len` more bytes and waits until they have arrived.
    pub fn push(&mut self, len: usize) -> Result<()> {
        self.send(len)?;
        self.all_arrived()
    }

    /// Ends it, and compares what was sent with what arrived.
    pub fn finish(mut self) -> Result<()> {
        drop(self.input.take());
        self.receiver.wait_exit(LIMIT)?;
        let received = fs::read(&self.received)?;
        let same = received.iter().zip(&self.sent).take_while(|(a, b)| a == b).count();
        ensure!(received == self.sent, "sent {}, received {}, equal up to {same}", self.sent.len(), received.len());
        Ok(())
    }
}
