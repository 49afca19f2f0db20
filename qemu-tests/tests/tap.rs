// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Proof 3 (KA-1, KA-8): testpmd bridges a virtio-user port to a tap device in a network namespace, so that the kernel TCP
//! of this machine meets the kernel TCP of a QEMU guest across the node.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::guest::{Guest, GuestConfig};
use harness::netns::NetNs;
use harness::node::{Node, NodeConfig};
use harness::scenario::{self, WorkDir};
use harness::testpmd::{Ring, Testpmd, VirtioUser};
use harness::transfer::{self, hash};
use harness::wait::wait_until;

const SOON: Duration = Duration::from_secs(30);
const HOST_IP: &str = "10.9.0.100";
const MIB: u64 = 16;

/// Sends random bytes one way or the other and compares the hashes. `nc` is busybox's on both sides.
struct Wire<'a> {
    work: &'a WorkDir,
    host: &'a NetNs,
    guest: &'a mut Guest,
}

impl Wire<'_> {
    fn host_to_guest(&mut self) -> Result<()> {
        let file = self.work.file("to-guest");
        self.host.sh(&format!("dd if=/dev/urandom of={} bs=1M count={MIB} status=none", file.display()))?;
        let sent = self.host.sh(&format!("sha256sum < {}", file.display()))?;
        let receive = "rm -f /tmp/hold; mkfifo /tmp/hold; nc -l -p 5001 <>/tmp/hold | sha256sum";
        let receiving = self.guest.begin(receive)?;
        let ip = self.guest.ip();
        self.host.sh(&format!("until busybox nc {ip} 5001 < {}; do sleep 0.1; done", file.display()))?;
        let received = self.guest.finish(&receiving, transfer::LIMIT)?.text;
        ensure!(hash(&sent).is_some() && hash(&sent) == hash(&received), "sent {sent}, received {received}");
        Ok(())
    }

    fn guest_to_host(&mut self) -> Result<()> {
        let hold = self.work.file("hold");
        self.host.sh(&format!("mkfifo {}", hold.display()))?;
        let command = format!("busybox nc -l -p 5002 <>{} | sha256sum", hold.display());
        let mut receiver = self.host.spawn(self.work, "receiver", &["sh", "-c", &command])?;
        let send = format!(
            "dd if=/dev/urandom of=/tmp/sent bs=1M count={MIB} 2>/dev/null; sha256sum </tmp/sent; \
             until nc {HOST_IP} 5002 </tmp/sent; do usleep 100000; done"
        );
        let sent = self.guest.sh(&send, transfer::LIMIT)?;
        receiver.wait_exit(transfer::LIMIT)?;
        let received = fs::read_to_string(receiver.log_path())?;
        ensure!(hash(&sent).is_some() && hash(&sent) == hash(&received), "sent {sent}, received {received}");
        Ok(())
    }
}

fn kernels_talk(work: &WorkDir, ring: Ring) -> Result<()> {
    let mut node = Node::start(work, &NodeConfig::bridge(&["tap", "vm"]))?;
    let mut guest = Guest::spawn(work, &GuestConfig::new("guest", 2, &node.socket("vm"), ring))?;
    let host = NetNs::create("tap")?;
    let port = VirtioUser { ring, mrg_rxbuf: true, ..VirtioUser::new(&node.socket("tap"), 3) };
    let mut bridge = Testpmd::spawn_bridge_to_tap(work, "bridge", &host, &port, "tap0")?;
    bridge.ready()?;
    host.ip(&format!("addr add {HOST_IP}/24 dev tap0"))?;
    host.ip("link set tap0 up")?;
    bridge.start()?;
    guest.ready()?;
    node.wait_up(&["tap", "vm"])?;

    guest.ping_until_answered(HOST_IP, SOON).context("ping from the guest")?;
    wait_until("an answer to the host's ping", SOON, || {
        Ok(host.sh(&format!("busybox ping -c 1 -W 1 {}", guest.ip())).is_ok())
    })?;
    let mut wire = Wire { work, host: &host, guest: &mut guest };
    wire.host_to_guest().context("host to guest")?;
    wire.guest_to_host().context("guest to host")?;
    node.terminate()
}

#[test]
fn kernel_tcp_meets_kernel_tcp_on_packed_rings() {
    scenario::run(|work| kernels_talk(work, Ring::Packed));
}

#[test]
fn kernel_tcp_meets_kernel_tcp_on_split_rings() {
    scenario::run(|work| kernels_talk(work, Ring::Split));
}
