// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! VF-8, VF-13: NVGRE and Geneve against the tunnel devices of a guest's kernel. Neighbours find each other across the tunnel, by
//! a directory's entry or because everything goes to one place. No end knows that the tunnel needs room: all devices have the MTU of
//! a link, and it is the node that sees to it that TCP's segments fit.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use harness::scenario::{self, WorkDir};
use harness::testpmd::mac;

use crate::station::{Guests, SOON, STATION_IP, TENANT_IP};

/// All 24 bits of it are different in their bytes.
const VNI: u32 = 0xab_cdef;
/// More packets than this carry what is sent each way.
const SEGMENTS: usize = 5000;
const OWN: &str = "192.0.2.1";
const FAR: &str = "192.0.2.2";

/// Everything goes into the tunnel, and what comes in it is taken out.
fn document(tunnel: &str, destination: &str) -> String {
    format!(
        r#"
controller = "vnet"

[[resource]]
port = "vm"
name = "directory"
type = "map"
entries = {{ {STATION_IP:?} = {{ address = {FAR:?} }} }}

[[layer]]
port = "vm"
name = "vnet"
order = 10
default = "block"

[[layer.group]]
name = "{tunnel}"

[[layer.group.rule]]
name = "encap"
dir = "out"
action = {{ type = "encap", tunnel = "{tunnel}", vni = {VNI}, source = {OWN:?}, {destination} }}

[[layer.group.rule]]
name = "decap"
dir = "in"
match = {{ tunnel = "{tunnel}", tunnel_key = {VNI} }}
action = {{ type = "decap" }}
"#
    )
}

/// What `rule` of the tunnel's group counted must be more than the transfers' bytes.
fn counted(guests: &Guests, tunnel: &str) -> Result<()> {
    for rule in ["encap", "decap"] {
        let count = guests.node.counted(&format!("vm/vnet/{tunnel}/{rule}"))?;
        ensure!(count.bytes > 8 << 20 && count.packets > SEGMENTS as u64, "{tunnel}/{rule} counted {count:?}");
    }
    Ok(())
}

/// A frame in NVGRE.
struct Nvgre<'a> {
    /// VSID and flow id.
    key: u32,
    inner: &'a [u8],
}

/// The frames in NVGRE that an IPv4 address sent.
fn nvgre_of(frames: &[Vec<u8>], source: [u8; 4]) -> Result<Vec<Nvgre<'_>>> {
    let mut found = Vec::new();
    for frame in frames.iter().filter(|frame| frame[12..14] == [8, 0] && frame[23] == 47 && frame[26..30] == source) {
        let (header, inner) = frame[34..].split_first_chunk::<8>().context("a frame that ends in its key")?;
        // RFC 7637, 3.2: a key and nothing else, Transparent Ethernet Bridging.
        ensure!(header[..4] == [0x20, 0, 0x65, 0x58], "not the header of NVGRE: {header:02x?}");
        found.push(Nvgre { key: u32::from_be_bytes([header[4], header[5], header[6], header[7]]), inner });
    }
    Ok(found)
}

/// The kernel has no NVGRE; its GRE devices have keys of 32 bits, of which the upper 24 are the VSID. One that takes any
/// key is needed because the lower 8 are the flow's. What it sends has those of the route.
fn nvgre(work: &WorkDir, guests: &mut Guests) -> Result<()> {
    let key = VNI << 8 | 0x5a;
    guests.on_station("link add gt type gretap external")?;
    guests.on_station("link set gt mtu 1500 up")?;
    guests.on_station(&format!("addr add {STATION_IP}/24 dev gt"))?;
    guests.on_station(&format!("route add {TENANT_IP}/32 encap ip id {key} dst {OWN} key dev gt"))?;
    guests.node.apply(work, &document("nvgre", "map = \"directory\""))?;
    guests.talk("gt")?;
    counted(guests, "nvgre")?;

    let frames = guests.frames()?;
    let is_tcp = |nvgre: &&Nvgre<'_>| nvgre.inner[12..14] == [8, 0] && nvgre.inner[23] == 6;
    let theirs = nvgre_of(&frames, [192, 0, 2, 2])?;
    let odd = theirs.iter().filter(is_tcp).filter(|nvgre| nvgre.key != key).count();
    ensure!(theirs.len() > SEGMENTS && odd == 0, "the kernel sent {odd} of {} with another key", theirs.len());
    let ours = nvgre_of(&frames, [192, 0, 2, 1])?;
    let odd = ours.iter().filter(|nvgre| nvgre.key >> 8 != VNI).count();
    ensure!(ours.len() > SEGMENTS && odd == 0, "{odd} of {} were in another network", ours.len());
    // By addresses and ports.
    let mut flows: BTreeMap<&[u8], BTreeSet<u32>> = BTreeMap::new();
    for nvgre in ours.iter().filter(is_tcp) {
        flows.entry(&nvgre.inner[26..38]).or_default().insert(nvgre.key);
    }
    ensure!(flows.values().all(|keys| keys.len() == 1), "flows with several ids: {flows:x?}");
    guests.on_station("link del gt").map(drop)
}

/// With checksums in the outer UDP header, which the node does not need. IPv6 as well: a neighbour solicitation is for a
/// group.
fn geneve(work: &WorkDir, guests: &mut Guests) -> Result<()> {
    guests.on_station(&format!("link add gn type geneve id {VNI} remote {OWN} udpcsum"))?;
    guests.on_station("link set gn mtu 1500 up")?;
    guests.on_station(&format!("addr add {STATION_IP}/24 dev gn"))?;
    guests.node.apply(work, &document("geneve", &format!("destination = {FAR:?}")))?;
    guests.talk("gn")?;
    counted(guests, "geneve")?;

    let v6 = |device: &str, address: &str| {
        format!(
            "echo 0 > /proc/sys/net/ipv6/conf/{device}/disable_ipv6 && /sbin/ip addr add {address}/64 dev {device} nodad"
        )
    };
    guests.station.sh(&v6("gn", "fd00::3"), SOON)?;
    guests.tenant.sh(&v6("eth0", "fd00::2"), SOON)?;
    guests.station.ping_until_answered("fd00::2", SOON).context("IPv6")?;
    let known = guests.on_station("neigh show dev gn")?;
    ensure!(known.contains(&format!("fd00::2 lladdr {}", mac(2))), "the station knows {known}");
    guests.tenant.sh("/sbin/ip neigh flush dev eth0", SOON)?;
    guests.tenant.ping_until_answered("fd00::3", SOON).context("IPv6")?;
    guests.on_station("link del gn").map(drop)
}

#[test]
fn tunnels_of_a_guests_kernel_are_at_the_other_end() {
    scenario::run(|work| {
        let mut guests = Guests::start(work, &format!("vni = {VNI}"), &format!("address = \"{OWN}/24\""), 1500)?;
        guests.on_station(&format!("addr add {FAR}/24 dev eth0"))?;
        nvgre(work, &mut guests).context("NVGRE")?;
        geneve(work, &mut guests).context("Geneve")?;
        guests.node.terminate()
    });
}
