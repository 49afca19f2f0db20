// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Who talks: two QEMU guests, two kernels behind CNFs of the SDK that forward, and a kernel that is nobody's. Each talks with all others at
//! once, by `src/bin/courier.rs`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::{A, B, Racks, SOON, silence};
use crate::cnf::{example, examples};
use crate::guest::{Guest, GuestConfig};
use crate::netns::NetNs;
use crate::process::Process;
use crate::scenario::WorkDir;
use crate::testpmd::Ring;
use crate::transfer;
use crate::wait::wait_until;

/// What a station is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Station {
    /// For people.
    pub name: &'static str,
    /// Its IP address.
    pub ip: &'static str,
    /// Its MAC address.
    pub mac: &'static str,
}

/// The guests at A and B, the kernels behind CNFs at A and B, and the kernel that is nobody's.
pub const STATIONS: [Station; 5] = [
    Station { name: "guest-a", ip: "10.9.0.1", mac: "52:54:00:00:00:01" },
    Station { name: "guest-b", ip: "10.9.0.2", mac: "52:54:00:00:00:02" },
    Station { name: "cnf-a", ip: "10.9.0.11", mac: "02:00:00:00:01:0a" },
    Station { name: "cnf-b", ip: "10.9.0.12", mac: "02:00:00:00:01:0b" },
    Station { name: "unaware", ip: "10.9.0.13", mac: "02:00:00:00:01:0c" },
];

/// The processor of those whose packets the kernel queues by processor: a process that moves from one to another would
/// overtake itself.
const CPU: &str = "1";

/// The clients at work.
#[derive(Debug)]
pub struct Clients {
    courier: PathBuf,
    guests: [Guest; 2],
    forwarders: [Process; 2],
    kernels: [NetNs; 2],
    rounds: usize,
}

/// What a station saw of another's datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrivals {
    /// Those that arrived, repeated ones included.
    pub arrived: u64,
    /// Those that were overtaken, or came twice.
    pub disordered: u64,
    /// Those that were sent, repeated ones included, when the last came.
    pub sent: u64,
}

impl Clients {
    /// Starts guests and forwarders at the racks' nodes, which must be running, and waits until they are there. `courier` is the program.
    pub fn start(work: &WorkDir, racks: &Racks, courier: &Path) -> Result<Self> {
        let mut guests = Vec::new();
        for (at, (host, name)) in [(A, "guest-a"), (B, "guest-b")].into_iter().enumerate() {
            let (number, ring) = (u8::try_from(at)? + 1, if host == A { Ring::Packed } else { Ring::Split });
            let config = GuestConfig::new(name, number, &racks.nodes[host].socket("vm"), ring);
            guests.push(Guest::spawn(work, &config.reconnecting().with_program(courier))?);
        }
        let kernels = [NetNs::create("cnf-a")?, NetNs::create("cnf-b")?];
        let mut forwarders = Vec::new();
        for ((host, kernel), station) in [A, B].into_iter().zip(&kernels).zip(&STATIONS[2..]) {
            silence(kernel)?;
            let socket = racks.nodes[host].socket("cnf").display().to_string();
            let argv = example("l2fwd", &["tap:cnf0", &socket, "--aggregate"])?;
            let argv = [kernel.command(&["taskset", "-c", CPU]), argv].concat();
            forwarders.push(Process::spawn(work, station.name, &argv)?);
            wait_until("the tap device", SOON, || Ok(kernel.ip("link show cnf0").is_ok()))?;
            kernel.ip(&format!("link set cnf0 address {}", station.mac))?;
            kernel.ip(&format!("addr add {}/24 dev cnf0", station.ip))?;
        }
        guests.iter_mut().try_for_each(Guest::ready)?;
        Ok(Self {
            courier: courier.to_owned(),
            guests: guests.try_into().ok().context("two guests")?,
            forwarders: forwarders.try_into().ok().context("two forwarders")?,
            kernels,
            rounds: 0,
        })
    }

    /// Brings the SDK's examples up to date, which takes longer than a node would wait.
    pub fn prepare() -> Result<()> {
        examples().map(drop)
    }

    /// Everybody sends everybody so many bytes over TCP and so many datagrams. All must arrive as it was sent; what is returned is how
    /// datagrams arrived, by the places of sender and receiver among the stations.
    pub fn talk(
        &mut self,
        work: &WorkDir,
        racks: &Racks,
        bytes: usize,
        datagrams: u32,
    ) -> Result<BTreeMap<(usize, usize), Arrivals>> {
        self.rounds += 1;
        let round = self.rounds;
        let command = |at: usize, directory: &str| {
            let peers = STATIONS.iter().enumerate().filter(|(other, _)| *other != at);
            let peers = peers.map(|(_, peer)| peer.ip).collect::<Vec<_>>().join(" ");
            let courier = self.courier.display();
            format!("{courier} {directory} {} {bytes} {datagrams} {peers}", STATIONS[at].ip)
        };
        let mut couriers = Vec::new();
        for (at, space) in [(2, &self.kernels[0]), (3, &self.kernels[1]), (4, &racks.unaware)] {
            let name = format!("{}-{round}", STATIONS[at].name);
            let directory = work.file(&name).display().to_string();
            let command = format!("exec taskset -c {CPU} {}", command(at, &directory));
            couriers.push((directory, space, space.spawn(work, &name, &["sh", "-c", &command])?));
        }
        for (at, guest) in self.guests.iter_mut().enumerate() {
            guest.sh(&format!("({} >/tmp/{round}.log 2>&1 &)", command(at, &format!("/tmp/{round}"))), SOON)?;
        }
        // Those here first, whose errors are seen at once.
        let done = |text: &str| text.contains("done\n").then(|| text.to_owned());
        let mut said = BTreeMap::new();
        for (at, (directory, space, courier)) in couriers.iter_mut().enumerate() {
            let text = courier.wait_printed(courier.born(), "that all has arrived", transfer::LIMIT, done)?;
            said.insert(at + 2, text + &space.sh(&format!("cd {directory}; sha256sum *; rm -r {directory}"))?);
        }
        for (at, guest) in self.guests.iter_mut().enumerate() {
            let ended = format!("grep -q -e ^done -e ^Error -e panicked /tmp/{round}.log");
            let wait = format!("until {ended}; do usleep 50000; done; cat /tmp/{round}.log");
            let text = guest.sh(&wait, transfer::LIMIT)?;
            ensure!(text.contains("done\n"), "{}: {text}", STATIONS[at].name);
            let sums = guest.sh(&format!("cd /tmp/{round}; sha256sum *"), SOON)?;
            said.insert(at, text + &sums);
        }
        // Only now is everybody's last acknowledgement known to have arrived.
        for guest in &mut self.guests {
            guest.sh(&format!("killall courier; rm -r /tmp/{round}"), SOON)?;
        }
        compare(&said)
    }

    /// Lets the kernel that is nobody's ping all others until there are answers.
    pub fn ping(&self, racks: &Racks) -> Result<()> {
        for station in &STATIONS[..4] {
            let ping = format!("busybox ping -c 1 -W 1 {}", station.ip);
            wait_until("an answer to a ping", SOON, || Ok(racks.unaware.sh(&ping).is_ok()))?;
        }
        Ok(())
    }

    /// Ends the forwarders, which must end well. The packets that each has put together.
    pub fn end(mut self) -> Result<[u64; 2]> {
        let mut packed = [0; 2];
        for (packed, forwarder) in packed.iter_mut().zip(&mut self.forwarders) {
            ensure!(forwarder.terminate()?.success(), "{} ended badly", forwarder.name());
            let text = forwarder.printed_since(0)?;
            let before = text.rsplit_once(" in aggregates").with_context(|| text.clone())?.0;
            *packed = before.rsplit(' ').next().unwrap_or_default().parse()?;
        }
        Ok(packed)
    }
}

/// Compares the hashes of what was sent with those of what arrived.
fn compare(said: &BTreeMap<usize, String>) -> Result<BTreeMap<(usize, usize), Arrivals>> {
    let sum = |at: usize, file: &str| {
        let line = said.get(&at).and_then(|text| text.lines().find(|line| line.ends_with(&format!(" {file}"))));
        line.and_then(transfer::hash)
            .with_context(|| format!("no {file} at {}: {:?}", STATIONS[at].name, said.get(&at)))
    };
    let mut arrivals = BTreeMap::new();
    for (from, sender) in STATIONS.iter().enumerate() {
        for (to, receiver) in STATIONS.iter().enumerate().filter(|(to, _)| *to != from) {
            for protocol in ["tcp", "udp"] {
                let sent = sum(from, &format!("{protocol}-to-{}", receiver.ip))?;
                let arrived = sum(to, &format!("{protocol}-from-{}", sender.ip))?;
                let pair = (sender.name, receiver.name);
                ensure!(sent == arrived, "{protocol} {pair:?}: sent {sent}, arrived {arrived}");
            }
            let lines = said.get(&to).map(|text| text.lines()).into_iter().flatten();
            let line = lines.map(str::trim).find(|line| line.starts_with(&format!("udp-from {} ", sender.ip)));
            let words: Vec<_> = line.context("no line of datagrams")?.split(' ').collect();
            let word = |at: usize| -> Result<u64> { Ok(words.get(at).context("a word")?.parse()?) };
            arrivals.insert((from, to), Arrivals { arrived: word(3)?, disordered: word(5)?, sent: word(7)? });
        }
    }
    Ok(arrivals)
}
