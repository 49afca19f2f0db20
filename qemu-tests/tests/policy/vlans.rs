// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! VF-8: policy puts a port into a VLAN, or into one inside another (802.1ad), and the VLAN devices of a guest's kernel are at the
//! other end.

use anyhow::{Context, Result, ensure};
use harness::scenario::{self, WorkDir};

use crate::station::{Guests, STATION_IP, STATION_MAC};

/// More frames than this carry what is sent to the station.
const SEGMENTS: usize = 5000;
/// The station's frames must be longer than a link takes: its kernel leaves them to the device to cut, tag and all.
const OVERSIZED: u64 = 100;

/// What the tenant sends is tagged, and what is for it comes with the same tags. Other frames do not pass.
fn document(group: &str, push: &str, matches: &str, pop: u8) -> String {
    format!(
        r#"
controller = "vlan"

[[layer]]
port = "vm"
name = "vlan"
order = 10
default = "block"

[[layer.group]]
name = "{group}"

[[layer.group.rule]]
name = "push"
dir = "out"
match = {{ vlan = "none" }}
action = {{ type = "transpose", vlan = {{ push = {push} }} }}

[[layer.group.rule]]
name = "pop"
dir = "in"
match = {matches}
action = {{ type = "transpose", vlan = {{ pop = {pop} }} }}
"#
    )
}

/// Moves the station's address to `device`, on which it then talks with the tenant. All frames on the wire must have `ours`
/// behind their addresses if they come from the tenant, and `theirs` if they come from the station.
fn talk(guests: &mut Guests, group: &str, device: &str, ours: &[u8], theirs: &[u8]) -> Result<()> {
    let seen = guests.frames()?.len();
    guests.on_station(&format!("link set {device} up"))?;
    guests.on_station(&format!("addr add {STATION_IP}/24 dev {device}"))?;
    guests.talk(device)?;
    let frames = guests.frames()?;
    ensure!(frames.len() - seen > SEGMENTS, "{} frames were seen", frames.len() - seen);
    for frame in frames.iter().skip(seen) {
        let tags = if frame[6..12] == STATION_MAC { theirs } else { ours };
        ensure!(frame[12..].starts_with(tags), "not with the tags {tags:02x?}: {:02x?}", &frame[..32.min(frame.len())]);
    }
    for rule in ["push", "pop"] {
        let count = guests.node.counted(&format!("vm/vlan/{group}/{rule}"))?;
        ensure!(count.bytes > 8 << 20, "{group}/{rule} counted {count:?}");
    }
    guests.on_station(&format!("link set {device} down")).map(drop)
}

fn one_tag(work: &WorkDir, guests: &mut Guests) -> Result<()> {
    guests.on_station("link add link eth0 name v100 type vlan id 100")?;
    guests.node.apply(work, &document("one", "{ id = 100, priority = 3 }", "{ vlan = 100 }", 1))?;
    let before = guests.node.port("up")?.uplink()?.clone();
    talk(guests, "one", "v100", &[0x81, 0, 0x60, 100], &[0x81, 0, 0, 100])?;
    let up = guests.node.port("up")?.uplink()?.clone();
    let oversized = up.rx_oversized - before.rx_oversized;
    ensure!(oversized > OVERSIZED && up.segments - before.segments > oversized, "the frames came cut: {up:?}");
    Ok(())
}

fn two_tags(work: &WorkDir, guests: &mut Guests) -> Result<()> {
    guests.on_station("link add link eth0 name s200 type vlan proto 802.1ad id 200")?;
    guests.on_station("link set s200 up")?;
    guests.on_station("link add link s200 name c30 type vlan id 30")?;
    let push = "[{ id = 30 }, { id = 200, tpid = \"service\" }]";
    guests.node.apply(work, &document("two", push, "{ vlan = 200, second_vlan = 30 }", 2))?;
    let tags = [0x88, 0xa8, 0, 200, 0x81, 0, 0, 30];
    talk(guests, "two", "c30", &tags, &tags)
}

#[test]
fn vlans_of_a_guests_kernel_are_at_the_other_end() {
    scenario::run(|work| {
        // Both tags around what fits an Ethernet link.
        let mut guests = Guests::start(work, "", "", 1504)?;
        one_tag(work, &mut guests).context("802.1Q")?;
        two_tags(work, &mut guests).context("802.1ad")?;
        guests.node.terminate()
    });
}
