// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A QEMU guest migrates to another QEMU, which is at another port of the node, while a kernel's TCP connection with it carries
//! data both ways. The connection survives, and not a byte of it is lost or changed, though half of what the guest is told
//! arrives in memory that was copied before.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::guest::{Guest, GuestConfig};
use harness::netns::NetNs;
use harness::node::{Node, NodeConfig, UplinkConfig};
use harness::process::{Process, run};
use harness::scenario::{self, WorkDir};
use harness::testpmd::Ring;
use harness::wait::{wait_for, wait_until};

const SOON: Duration = Duration::from_secs(30);
const LIMIT: Duration = Duration::from_secs(120);
/// Bytes on their way at a time.
const WINDOW: usize = 256 << 10;

/// A connection to a guest that sends back what it gets.
struct Echo {
    input: Option<File>,
    sent: Vec<u8>,
    received: PathBuf,
    random: u64,
    client: Process,
}

impl Echo {
    /// Connects from a kernel.
    fn open(work: &WorkDir, ns: &NetNs, ip: &str) -> Result<Self> {
        let [input, received] = ["input", "received"].map(|what| work.file(what));
        run(&["mkfifo".as_ref(), input.as_os_str()])?;
        let talk = format!("exec busybox nc {ip} 5001 <{} >{}", input.display(), received.display());
        let client = ns.spawn(work, "client", &["sh", "-c", &talk])?;
        let input = Some(File::options().write(true).open(&input)?);
        Ok(Self { input, sent: Vec::new(), received, random: 0x9e37_79b9_7f4a_7c15, client })
    }

    fn returned(&self) -> usize {
        fs::metadata(&self.received).map_or(0, |data| usize::try_from(data.len()).unwrap_or(usize::MAX))
    }

    /// Sends as much as may be on its way.
    fn pump(&mut self) -> Result<()> {
        ensure!(self.client.is_running(), "the connection ended after {} bytes", self.returned());
        let start = self.sent.len();
        while self.sent.len() < self.returned() + WINDOW {
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            self.sent.extend_from_slice(&self.random.to_le_bytes());
        }
        let input = self.input.as_mut().context("it is open")?;
        Ok(input.write_all(&self.sent[start..])?)
    }

    /// Pumps until `more` bytes more have come back.
    fn exchange(&mut self, more: usize) -> Result<()> {
        let goal = self.returned() + more;
        wait_for(&format!("{more} bytes to come back"), LIMIT, || {
            self.pump()?;
            Ok((self.returned() >= goal).then_some(()))
        })
    }

    /// Waits until everything has come back, and compares.
    fn finish(mut self) -> Result<()> {
        drop(self.input.take());
        wait_until("the rest to come back", LIMIT, || Ok(self.returned() >= self.sent.len()))?;
        let received = fs::read(&self.received)?;
        let same = received.iter().zip(&self.sent).take_while(|(a, b)| a == b).count();
        ensure!(received == self.sent, "sent {}, returned {}, equal up to {same}", self.sent.len(), received.len());
        Ok(())
    }
}

fn migrates(work: &WorkDir, ring: Ring) -> Result<()> {
    let ns = NetNs::create("near")?;
    ns.sh("echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6")?;
    let uplinks = vec![UplinkConfig::new("up", "tap", "tap0")];
    let mut node = Node::start_in(work, &NodeConfig { uplinks, ..NodeConfig::bridge(&["from", "to"]) }, &ns)?;
    ns.ip("addr add 10.9.0.100/24 dev tap0")?;
    ns.ip("link set tap0 up")?;
    let mut guest = Guest::spawn(work, &GuestConfig::new("before", 2, &node.socket("from"), ring))?;
    guest.ready()?;
    node.wait_up(&["from", "up"])?;
    guest.sh("(nc -l -p 5001 -e cat </dev/null >/dev/null 2>&1 &)", SOON)?;
    let listens = || -> Result<bool> { Ok(guest.sh("netstat -ltn", SOON)?.contains(":5001 ")) };
    wait_until("the guest to listen", SOON, listens)?;

    let mut echo = Echo::open(work, &ns, &guest.ip())?;
    echo.exchange(2 << 20).context("before")?;
    let waiting = Guest::spawn(work, &GuestConfig::new("after", 2, &node.socket("to"), ring).waiting())?;
    wait_until("the other QEMU at its port", SOON, || Ok(node.port("to")?.state == "connected"))?;
    let (before, moved) = (node.port("from")?, echo.returned());
    ensure!(before.ring.as_deref() == Some(ring.name()), "another ring than {ring:?}: {before:?}");
    let mut left_behind = guest.migrate(work, waiting, || echo.pump())?;
    ensure!(echo.returned() > moved, "nothing moved meanwhile");
    let during = node.port("from")?.tx_packets - before.tx_packets;
    ensure!(during > 0, "the guest received nothing while it migrated");

    echo.exchange(4 << 20).context("after")?;
    let source = node.port("from")?;
    ensure!(source.state == "connected" && source.queue_pairs == 0, "it still runs there: {source:?}");
    echo.exchange(1 << 20).context("and on")?;
    let (source, quiet, target) = (node.port("from")?, source, node.port("to")?);
    ensure!(
        (source.rx_packets, source.tx_packets) == (quiet.rx_packets, quiet.tx_packets),
        "where it came from is not quiet: {quiet:?}, {source:?}"
    );
    ensure!(target.state == "up" && target.rx_packets > 0 && target.tx_packets > 0, "{target:?}");
    ensure!(target.ring.as_deref() == Some(ring.name()), "another ring than {ring:?}: {target:?}");
    ensure!(left_behind.is_running(), "the source died");
    left_behind.kill()?;
    wait_until("its port to be free", SOON, || Ok(node.port("from")?.state == "listening"))?;
    echo.exchange(1 << 20).context("alone")?;
    let lines = guest.sh("grep -c . /proc/net/arp", SOON)?;
    ensure!(!lines.trim().is_empty(), "its shell came along");
    echo.finish()?;
    for port in node.stats()?.ports {
        ensure!(port.errors.values().all(|&n| n == 0), "errors: {port:?}");
    }
    node.terminate()
}

#[test]
fn a_guest_on_packed_rings_migrates() {
    scenario::run(|work| migrates(work, Ring::Packed));
}

/// The other format, where everything is tested.
#[test]
fn a_guest_on_split_rings_migrates() {
    if scenario::full() {
        scenario::run(|work| migrates(work, Ring::Split));
    }
}
