// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! DPDK's vhost library, two ports wired back to back by testpmd: the floor that every switch pays.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::command::program;

const START_LIMIT: Duration = Duration::from_secs(20);

/// A running testpmd; dropping it kills it.
pub(super) struct Peer(Child);

impl Peer {
    /// Starts it on core 0 and waits for its sockets.
    pub(super) fn start(sockets: &[PathBuf; 2]) -> Result<Self> {
        let mut command = program("dpdk-testpmd");
        command.args(["--lcores", "0@0,1@0", "-m", "256", "--no-pci", "--no-telemetry", "--in-memory"]);
        command.args(["--single-file-segments"]);
        for (i, socket) in sockets.iter().enumerate() {
            command.args(["--vdev", &format!("net_vhost{i},iface={}", socket.display())]);
        }
        command.args(["--", "--forward-mode=io", "--auto-start", "--total-num-mbufs=16384", "--record-core-cycles"]);
        command.args(["--txd=1024", "--rxd=1024"]);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut peer = Self(child.context("cannot start dpdk-testpmd")?);
        let all: Vec<&Path> = sockets.iter().map(PathBuf::as_path).collect();
        wait_for_files(&mut peer.0, &all)?;
        Ok(peer)
    }

    /// Stops it and returns its busy cycles per packet.
    pub(super) fn finish(mut self) -> Result<Option<f64>> {
        let child = &mut self.0;
        child.stdin.take().context("no input")?.write_all(b"\n")?; // it stops at a newline
        let mut said = String::new();
        child.stdout.take().context("no output")?.read_to_string(&mut said)?;
        child.wait()?;
        Ok(cycles(&said))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until all files are there or the child has died.
pub(super) fn wait_for_files(child: &mut Child, files: &[&Path]) -> Result<()> {
    let start = Instant::now();
    while !files.iter().all(|f| f.exists()) {
        if let Some(status) = child.try_wait()? {
            bail!("the peer ended with {status}");
        }
        if start.elapsed() > START_LIMIT {
            bail!("the peer made no {files:?} within {START_LIMIT:?}");
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn cycles(said: &str) -> Option<f64> {
    said.rsplit_once("CPU cycles/packet=")?.1.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peers_own_count_is_read() {
        assert_eq!(cycles("  CPU cycles/packet=83.25 (total cycles=1 / total RX packets=2) at 2596 MHz"), Some(83.25));
        assert_eq!(cycles("Bye..."), None);
    }
}
