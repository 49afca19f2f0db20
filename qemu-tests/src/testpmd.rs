// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! DPDK's testpmd with one virtio-user port (or with vhost ports, as a backend), driven through its prompt.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::control::Count;
use crate::netns::NetNs;
use crate::process::Process;
use crate::scenario::WorkDir;

const PROMPT: &str = "testpmd> ";
/// How long testpmd may take from its start to its first prompt; in server role this includes the wait for the node.
const START_LIMIT: Duration = Duration::from_secs(40);
/// How long one command may take. `port start` allocates and talks to the backend, so this is generous.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);

/// The ring layout that a front end asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ring {
    /// Descriptor table, available ring, used ring.
    Split,
    /// One ring of descriptors.
    Packed,
}

/// What a virtio-user port is asked to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtioUser {
    /// Path of the vhost-user socket.
    pub socket: PathBuf,
    /// The port's MAC address.
    pub mac: String,
    /// The MAC address that `txonly` frames and first bursts are sent to.
    pub peer_mac: String,
    /// The ring layout.
    pub ring: Ring,
    /// `VIRTIO_NET_F_MRG_RXBUF`.
    pub mrg_rxbuf: bool,
    /// `VIRTIO_F_IN_ORDER`.
    pub in_order: bool,
    /// DPDK's vector path; its use is asserted from the log.
    pub vectorized: bool,
    /// Descriptors per ring.
    pub queue_size: u16,
    /// Queue pairs.
    pub pairs: u16,
    /// testpmd makes the socket and waits for the node to connect.
    pub server: bool,
    /// Guest memory from hugepages (else from ordinary pages, `--no-huge`).
    pub hugepages: bool,
    /// The processor that forwards.
    pub cpu: u32,
}

impl VirtioUser {
    /// The plainest port there is; tests change what they are about.
    pub fn new(socket: &Path, number: u8) -> Self {
        Self {
            socket: socket.to_owned(),
            mac: mac(number),
            peer_mac: mac(number ^ 1),
            ring: Ring::Packed,
            mrg_rxbuf: false,
            in_order: true,
            vectorized: false,
            queue_size: 256,
            pairs: 1,
            server: false,
            hugepages: false,
            cpu: 1,
        }
    }

    fn vdev(&self, index: usize) -> String {
        let flag = u8::from;
        format!(
            "net_virtio_user{index},path={},mac={},queues={},cq={},queue_size={},packed_vq={},mrg_rxbuf={},in_order={},vectorized={}{}",
            self.socket.display(),
            self.mac,
            self.pairs,
            flag(self.pairs > 1), // the control queue exists to set the number of pairs
            self.queue_size,
            flag(self.ring == Ring::Packed),
            flag(self.mrg_rxbuf),
            flag(self.in_order),
            flag(self.vectorized),
            if self.server { ",server=1" } else { "" },
        )
    }
}

impl Ring {
    /// The layout as the node names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Split => "split",
            Self::Packed => "packed",
        }
    }
}

/// How much memory a testpmd gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Size {
    Usual,
    Small,
}

/// The arguments of one testpmd that has all of `ports`; the first decides about memory and queues.
fn arguments(ports: &[&VirtioUser], size: Size, mode: &str) -> Vec<String> {
    let Some(first) = ports.first() else { return Vec::new() };
    let mut args = vec!["--force-max-simd-bitwidth=512".to_owned(), "--log-level=pmd.net.virtio.*:debug".to_owned()];
    let memory = if first.hugepages { "--single-file-segments" } else { "--no-huge" };
    let (mib, buffers) = match size {
        Size::Usual => ("128", "--total-num-mbufs=16384"),
        Size::Small => ("32", "--total-num-mbufs=2048"),
    };
    args.extend(["-m", mib, memory].map(str::to_owned));
    for (index, port) in ports.iter().enumerate() {
        args.extend(["--vdev".to_owned(), port.vdev(index)]);
    }
    args.extend(["--", "-i", buffers, "--nb-cores=1"].map(str::to_owned));
    args.extend([format!("--rxq={}", first.pairs), format!("--txq={}", first.pairs), format!("--forward-mode={mode}")]);
    args.extend(ports.iter().enumerate().map(|(index, port)| format!("--eth-peer={index},{}", port.peer_mac)));
    args
}

/// The MAC address of guest `number` in these tests.
pub fn mac(number: u8) -> String {
    format!("52:54:00:00:00:{number:02x}")
}

/// What one port counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortCounts {
    /// Frames received.
    pub rx: u64,
    /// Frames sent.
    pub tx: u64,
}

impl std::ops::Sub for PortCounts {
    type Output = Self;

    fn sub(self, base: Self) -> Self {
        Self { rx: self.rx - base.rx, tx: self.tx - base.tx }
    }
}

/// A running testpmd with a prompt.
#[derive(Debug)]
pub struct Testpmd {
    process: Process,
    started: u64,
}

impl Testpmd {
    /// Starts a guest with these virtio-user ports; `mode` is its forwarding mode. Does not wait: call
    /// [`ready`](Self::ready), so that several can start at once.
    pub fn spawn(work: &WorkDir, name: &str, ports: &[&VirtioUser], mode: &str) -> Result<Self> {
        let cpu = ports.first().map_or(0, |port| port.cpu);
        Self::spawn_with(work, name, &[], cpu, &arguments(ports, Size::Usual, mode))
    }

    /// As [`spawn`](Self::spawn), with one port and little memory: starts in half the time.
    pub fn spawn_small(work: &WorkDir, name: &str, port: &VirtioUser, mode: &str) -> Result<Self> {
        Self::spawn_with(work, name, &[], port.cpu, &arguments(&[port], Size::Small, mode))
    }

    /// Starts a testpmd in `host` that forwards between a virtio-user port and a tap device, which it makes there.
    pub fn spawn_bridge_to_tap(work: &WorkDir, name: &str, host: &NetNs, port: &VirtioUser, tap: &str) -> Result<Self> {
        let mut args = vec!["--vdev".to_owned(), format!("net_tap0,iface={tap}")];
        args.extend(arguments(&[port], Size::Usual, "io"));
        Self::spawn_with(work, name, &host.command(&[]), port.cpu, &args)
    }

    /// Starts a testpmd of any arguments (what follows the EAL arguments that all of them need), through the command line
    /// `prefix` if it is not empty.
    pub fn spawn_with(
        work: &WorkDir,
        name: &str,
        prefix: &[std::ffi::OsString],
        cpu: u32,
        args: &[String],
    ) -> Result<Self> {
        let lcores = format!("0@{cpu},1@{cpu}"); // the idle main thread shares a processor with the forwarding one
        let file_prefix = format!("{}-{name}", work.path().file_name().and_then(|n| n.to_str()).unwrap_or("shunt"));
        let mut argv: Vec<std::ffi::OsString> = prefix.to_vec();
        // testpmd prints through stdio, which buffers by the block where its output is no terminal
        argv.extend(
            [
                "stdbuf",
                "-oL",
                "dpdk-testpmd",
                "--lcores",
                &lcores,
                "--no-pci",
                "--no-telemetry",
                "--file-prefix",
                &file_prefix,
            ]
            .map(Into::into),
        );
        argv.extend(args.iter().map(Into::into));
        let process = Process::spawn(work, name, &argv)?;
        Ok(Self { started: process.born(), process })
    }

    /// Waits for the first prompt.
    pub fn ready(&mut self) -> Result<()> {
        self.process.wait_printed(self.started, "its prompt", START_LIMIT, |t| t.contains(PROMPT).then_some(()))
    }

    /// Types a command and returns what it printed, up to the next prompt.
    pub fn command(&mut self, line: &str) -> Result<String> {
        let mark = self.process.mark();
        self.process.type_line(line)?;
        let what = format!("its prompt after '{line}'");
        self.process.wait_printed(mark, &what, COMMAND_LIMIT, |t| t.rfind(PROMPT).map(|end| t[..end].to_owned()))
    }

    /// Starts forwarding.
    pub fn start(&mut self) -> Result<()> {
        self.command("start").map(drop)
    }

    /// Sends `bursts` bursts of 32 frames per queue, then starts forwarding.
    pub fn start_tx_first(&mut self, bursts: u32) -> Result<()> {
        self.command(&format!("start tx_first {bursts}")).map(drop)
    }

    /// Stops forwarding.
    pub fn stop(&mut self) -> Result<()> {
        self.command("stop").map(drop)
    }

    /// Chooses the forwarding mode; forwarding must be stopped.
    pub fn set_forward(&mut self, mode: &str) -> Result<()> {
        self.command(&format!("set fwd {mode}")).map(drop)
    }

    /// Lets `txonly` make frames of one buffer per length in `lengths`; forwarding must be stopped.
    pub fn set_segments(&mut self, lengths: &[u16]) -> Result<()> {
        for line in ["port stop 0", "port config 0 tx_offload multi_segs on", "port start 0"] {
            self.command(line)?;
        }
        let list: Vec<String> = lengths.iter().map(u16::to_string).collect();
        let list = list.join(",");
        self.command(&format!("set txpkts {list}"))?;
        let shown = self.command("show config txpkts")?;
        ensure!(shown.replace(' ', "").contains(&list), "segments of {list} are not shown: {shown}");
        Ok(())
    }

    /// What its port counts.
    pub fn counts(&mut self) -> Result<PortCounts> {
        self.counts_of(0)
    }

    /// What port `number` counts.
    pub fn counts_of(&mut self, number: u8) -> Result<PortCounts> {
        let text = self.command(&format!("show port stats {number}"))?;
        parse_counts(&text).with_context(|| format!("no statistics in: {text}"))
    }

    /// What its port sent, and what it received: packets and bytes.
    pub fn metered(&mut self) -> Result<[Count; 2]> {
        let text = self.command("show port stats 0")?;
        let count = |way: &str| -> Result<Count> {
            let of = |what: &str| {
                number_after(&text, &format!("{way}-{what}:")).with_context(|| format!("no {way}: {text}"))
            };
            Ok(Count { packets: of("packets")?, bytes: of("bytes")? })
        };
        Ok([count("TX")?, count("RX")?])
    }

    /// `port stop` and `port start`; forwarding must be stopped.
    pub fn restart_port(&mut self) -> Result<()> {
        let stopped = self.command("port stop 0")?;
        ensure!(stopped.contains("Stopping ports") && !stopped.contains("Please"), "port stop refused: {stopped}");
        self.command("port start 0").map(drop)
    }

    /// All that it has printed in this life.
    pub fn printed(&self) -> Result<String> {
        self.process.printed_since(self.started)
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

fn parse_counts(text: &str) -> Option<PortCounts> {
    Some(PortCounts { rx: number_after(text, "RX-packets:")?, tx: number_after(text, "TX-packets:")? })
}

fn number_after(text: &str, key: &str) -> Option<u64> {
    let rest = &text[text.find(key)? + key.len()..];
    let digits: String = rest.trim_start().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_read() {
        let text = "  RX-packets: 12          RX-missed: 0          RX-bytes:  0\n  RX-errors: 0\n  TX-packets: 814572     TX-errors: 0";
        assert_eq!(parse_counts(text), Some(PortCounts { rx: 12, tx: 814_572 }));
        assert_eq!(parse_counts("Invalid port"), None);
    }
}
