// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The harness against a backend that is known to work, DPDK's own: what fails here is the harness or the machine, not
//! the node. (In CI before the proofs, because a proof is worth what its harness is.)

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::exchange::{Backend, BackendCounts, Exchange, Side, Traffic};
use harness::guest::{Guest, GuestConfig};
use harness::scenario::{self, WorkDir};
use harness::testpmd::{PortCounts, Ring, Testpmd, VirtioUser};
use harness::transfer::Transfer;

/// testpmd with two vhost ports wired back to back.
struct DpdkVhost {
    testpmd: Testpmd,
    sockets: [PathBuf; 2],
}

impl DpdkVhost {
    fn start(work: &WorkDir) -> Result<Self> {
        let sockets = [work.file("a.sock"), work.file("b.sock")];
        let mut args: Vec<String> = ["-m", "128", "--no-huge"].map(str::to_owned).to_vec();
        for (i, socket) in sockets.iter().enumerate() {
            args.extend(["--vdev".to_owned(), format!("net_vhost{i},iface={}", socket.display())]);
        }
        args.extend(["--", "-i", "--forward-mode=io", "--total-num-mbufs=16384"].map(str::to_owned));
        let mut testpmd = Testpmd::spawn_with(work, "backend", &[], 0, &args)?;
        testpmd.ready()?;
        testpmd.start()?;
        Ok(Self { testpmd, sockets })
    }
}

impl Backend for DpdkVhost {
    fn counts(&mut self) -> Result<BackendCounts> {
        let mut port = |number: u8| -> Result<PortCounts> { self.testpmd.counts_of(number) };
        Ok(BackendCounts { left: port(0)?, right: port(1)?, dropped: None })
    }
}

fn exchange(work: &WorkDir, traffic: Traffic, change: impl Fn(&mut VirtioUser)) -> Result<()> {
    let mut backend = DpdkVhost::start(work)?;
    let mut ports = [2, 3].map(|n| VirtioUser::new(&backend.sockets[usize::from(n) - 2], n));
    ports.iter_mut().for_each(change);
    let mut guests = Exchange::begin(work, traffic, &ports[0], &ports[1])?;
    guests.start()?;
    guests.flows(2000)?;
    guests.settle(&mut backend)?;
    guests.start()?;
    guests.flows(2000)?;
    guests.restart_port(Side::Right, 2000)?;
    guests.restart_port(Side::Left, 2000)?;
    guests.rest(&mut backend)?;
    guests.start()?;
    guests.flows(2000)?;
    guests.settle(&mut backend)
}

#[test]
fn testpmd_guests_exchange_traffic_on_packed_rings() {
    scenario::run(|work| exchange(work, Traffic::Generated, |_| ()));
}

#[test]
fn testpmd_guests_exchange_traffic_on_split_rings() {
    scenario::run(|work| {
        exchange(work, Traffic::Circulating, |port| {
            port.ring = Ring::Split;
            port.mrg_rxbuf = true;
            port.hugepages = true;
        })
    });
}

#[test]
fn qemu_guests_boot_talk_and_reboot() {
    scenario::run(|work| {
        let backend = DpdkVhost::start(work)?;
        let mut a = Guest::spawn(work, &GuestConfig::new("a", 2, &backend.sockets[0], Ring::Packed))?;
        let mut b = Guest::spawn(work, &GuestConfig::new("b", 3, &backend.sockets[1], Ring::Split))?;
        a.ready()?;
        b.ready()?;
        let limit = Duration::from_secs(20);
        let failed = a.run("echo out; exit_with() { return $1; }; exit_with 7", limit)?;
        ensure!(failed.status == 7 && failed.text == "out\n", "{failed:?}");
        a.ping_until_answered(&b.ip(), limit)?;
        Transfer::begin(&mut a, &mut b, 4)?.finish(&mut a, &mut b)?;
        b.reboot().context("reboot")?;
        a.ping_until_answered(&b.ip(), limit)
    });
}

#[test]
fn a_shell_answers_each_time() {
    scenario::run(|work| {
        let backend = DpdkVhost::start(work)?;
        let mut guest = Guest::spawn(work, &GuestConfig::new("a", 2, &backend.sockets[0], Ring::Packed))?;
        guest.ready()?;
        for i in 0..50 {
            let text = guest.sh(&format!("echo {i}"), Duration::from_secs(10))?;
            ensure!(text == format!("{i}\n"), "{text:?}");
        }
        Ok(())
    });
}
