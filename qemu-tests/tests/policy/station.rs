// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Two QEMU guests with a node between them: one on a port with policy, the *tenant*, and one at the far end of the uplink, the
//! *station*, whose kernel has the tunnels and VLANs that the machine's own may lack. Neither knows the other's MAC address.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use harness::capture;
use harness::guest::{Guest, GuestConfig};
use harness::netns::NetNs;
use harness::node::{Node, NodeConfig, PortConfig, UplinkConfig};
use harness::scenario::WorkDir;
use harness::testpmd::{Ring, mac};
use harness::transfer::Transfer;

/// How long a command in a guest may take.
pub(crate) const SOON: Duration = Duration::from_secs(30);
const TENANT: u8 = 2;
const STATION: u8 = 3;
pub(crate) const STATION_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, STATION];
/// Addresses of the tenant, and of the station once it has a device that leads there.
pub(crate) const TENANT_IP: &str = "10.9.0.2";
pub(crate) const STATION_IP: &str = "10.9.0.3";
/// MiB of random bytes that are sent each way.
const MIB: u64 = 8;

/// The node and both guests.
pub(crate) struct Guests {
    pub(crate) node: Node,
    pub(crate) tenant: Guest,
    pub(crate) station: Guest,
    capture: PathBuf,
    _near: NetNs,
}

impl Guests {
    /// Starts all. `vm` and `uplink` are further lines of the ports' tables. The station has no IP address yet; its device is
    /// `eth0`, and `mtu` that of the link to it.
    pub(crate) fn start(work: &WorkDir, vm: &str, uplink: &str, mtu: u16) -> Result<Self> {
        let near = NetNs::create("near")?;
        // Nobody shall speak but whom a test lets.
        near.sh("echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6")?;
        near.ip("tuntap add dev up0 mode tap vnet_hdr")?;
        near.ip(&format!("link set up0 mtu {mtu} up"))?;
        let config = GuestConfig::on_tap("station", STATION, "up0");
        let capture = config.capture(work);
        let mut station = Guest::spawn_in(work, &config, &near)?;
        let vm = PortConfig { extra: format!("mac = \"{}\"\n{vm}", mac(TENANT)), ..PortConfig::new("vm") };
        let up = UplinkConfig { extra: uplink.to_owned(), ..UplinkConfig::new("up", "af-packet", "up0") };
        let node = NodeConfig { ports: vec![vm], uplinks: vec![up], ..NodeConfig::default() };
        let node = Node::start_in(work, &node, &near)?;
        let mut tenant = Guest::spawn(work, &GuestConfig::new("tenant", TENANT, &node.socket("vm"), Ring::Packed))?;
        station.ready()?;
        tenant.ready()?;
        station.load_overlays()?;
        node.wait_up(&["vm", "up"])?;
        let mut guests = Self { node, tenant, station, capture, _near: near };
        guests.on_station("addr flush dev eth0")?;
        Ok(guests)
    }

    /// Runs `ip ARGS` at the station.
    pub(crate) fn on_station(&mut self, args: &str) -> Result<String> {
        self.station.sh(&format!("/sbin/ip {args}"), SOON)
    }

    /// They find each other by ARP across what is between them, and then talk TCP, both ways; what arrives must be what was sent.
    /// `device` is the station's. Nothing may be dropped meanwhile but what a guest has no room for.
    pub(crate) fn talk(&mut self, device: &str) -> Result<()> {
        let before = self.lost()?;
        self.find_each_other(device)?;
        let Self { tenant, station, .. } = self;
        Transfer::begin(tenant, station, MIB)?.finish(tenant, station)?;
        Transfer::begin(station, tenant, MIB)?.finish(station, tenant)?;
        let lost = self.lost()?;
        ensure!(lost == before, "before, {before:?} were dropped, now {lost:?}");
        Ok(())
    }

    /// Neither knows the other, and each asks for the other's MAC address.
    fn find_each_other(&mut self, device: &str) -> Result<()> {
        self.station.ping_until_answered(TENANT_IP, SOON)?;
        let known = self.on_station(&format!("neigh show dev {device}"))?;
        ensure!(known.contains(&format!("{TENANT_IP} lladdr {}", mac(TENANT))), "the station knows {known}");
        self.tenant.sh("/sbin/ip neigh flush dev eth0", SOON)?;
        self.tenant.ping_until_answered(STATION_IP, SOON)?;
        let own = self.station.sh(&format!("cat /sys/class/net/{device}/address"), SOON)?;
        let known = self.tenant.sh("/sbin/ip neigh show dev eth0", SOON)?;
        ensure!(known.contains(&format!("{STATION_IP} lladdr {}", own.trim())), "the tenant knows {known}");
        Ok(())
    }

    /// The station's frames on the wire so far.
    pub(crate) fn frames(&self) -> Result<Vec<Vec<u8>>> {
        capture::frames(&self.capture, STATION_MAC)
    }

    /// What was dropped, by port and cause. No port may have had an error.
    fn lost(&self) -> Result<Vec<(String, String, u64)>> {
        let mut lost = Vec::new();
        for port in self.node.stats()?.ports {
            ensure!(port.errors.values().all(|n| *n == 0), "errors: {port:?}");
            let drops = port.drops.into_iter().filter(|(cause, n)| *n > 0 && cause != "no_buffers");
            lost.extend(drops.map(|(cause, n)| (port.name.clone(), cause, n)));
        }
        Ok(lost)
    }
}
