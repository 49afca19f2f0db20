// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! VF-8, VF-13: the node's encapsulation and decapsulation, and a kernel's VXLAN device at the far end. The map from inner to
//! outer addresses is filled beforehand, or by an agent that hears of misses.

use anyhow::{Result, ensure};
use harness::scenario::{self, WorkDir};
use harness::stream::Stream;
use harness::wait::wait_until;

use crate::{Both, SOON, missed};

const MIB: usize = 1 << 20;
const INNER_FAR: &str = "10.77.0.2";
const INNER_GUEST: &str = "10.77.0.1";
const FAR_MAC: &str = "02:00:00:00:07:02";

/// What the guest sends, be it IPv4 or ARP, goes to where the map says that its destination is.
fn document(entries: &str) -> String {
    format!(
        r#"
controller = "vnet"

[[resource]]
port = "vm"
name = "directory"
type = "map"
entries = {{ {entries} }}

[[layer]]
port = "vm"
name = "vnet"
order = 10
default = "block"

[[layer.group]]
name = "overlay"

[[layer.group.rule]]
name = "encap"
dir = "out"
action = {{ type = "encap", tunnel = "vxlan", vni = 77, source = "192.0.2.1", map = "directory" }}

[[layer.group.rule]]
name = "decap"
dir = "in"
match = {{ tunnel = "vxlan", tunnel_key = 77 }}
action = {{ type = "decap" }}
"#
    )
}

/// The two stacks, and the far end's VXLAN device.
fn start(work: &WorkDir, entries: &str) -> Result<Both> {
    let both = Both::start(work, INNER_GUEST, "192.0.2.2", "vni = 77", "address = \"192.0.2.1/24\"")?;
    both.far.ip(&format!(
        "link add vx address {FAR_MAC} type vxlan id 77 local 192.0.2.2 remote 192.0.2.1 dstport 4789 nolearning dev far0"
    ))?;
    both.far.ip(&format!("addr add {INNER_FAR}/24 dev vx"))?;
    both.far.ip("link set vx up")?;
    both.far.ip("addr add 10.77.0.3/24 dev vx")?;
    both.node.apply(work, &document(entries))?;
    Ok(both)
}

/// So that nobody has to ask by ARP.
fn introduce(both: &Both) -> Result<()> {
    both.far.ip(&format!("neigh add {INNER_GUEST} lladdr {} dev vx", crate::GUEST_MAC))?;
    for address in [INNER_FAR, "10.77.0.3", "10.77.0.4"] {
        both.guest.ip(&format!("neigh add {address} lladdr {FAR_MAC} dev tap0"))?;
    }
    Ok(())
}

#[test]
fn a_kernel_vxlan_device_is_at_the_other_end() {
    scenario::run(|work| {
        let mut both = start(work, &format!("{INNER_FAR:?} = {{ address = \"192.0.2.2\" }}"))?;
        wait_until("an answer to the guest's ping", SOON, || {
            Ok(both.guest.sh(&format!("busybox ping -c 1 -W 1 {INNER_FAR}")).is_ok())
        })?;
        both.far.ip("neigh flush dev vx")?;
        both.far.sh(&format!("busybox ping -c 1 -W 5 {INNER_GUEST}"))?;
        // Both had to ask across the tunnel.
        for (ns, device, ip, mac) in
            [(&both.guest, "tap0", INNER_FAR, FAR_MAC), (&both.far, "vx", INNER_GUEST, crate::GUEST_MAC)]
        {
            let known = ns.ip(&format!("neigh show {ip} dev {device}"))?;
            ensure!(known.contains(&format!("lladdr {mac}")), "{ip} is {known}");
        }

        let before = both.node.port("up")?.uplink()?.clone();
        let (hits, misses) = (both.node.flows("vm", "hits")?, both.node.flows("vm", "misses")?);
        let mut stream = Stream::open(work, "in", &both.far, &both.guest, (INNER_GUEST, 5001), 5001)?;
        stream.push(16 * MIB)?;
        stream.finish()?;
        let up = both.node.port("up")?.uplink()?.clone();
        let oversized = up.rx_oversized - before.rx_oversized;
        // 16 MiB are 12,000 segments: most of them came in frames of many.
        ensure!(oversized > 100 && up.segments - before.segments > 8 * oversized, "the frames came cut: {up:?}");
        // Frames of many segments are one hit each.
        let hits = both.node.flows("vm", "hits")? - hits;
        let misses = both.node.flows("vm", "misses")? - misses;
        ensure!(hits > 500 && misses < 16, "{hits} packets found their flow, {misses} did not");
        ensure!(both.node.counted("vm/vnet/overlay/decap")?.bytes > 16 << 20);

        let mut stream = Stream::open(work, "out", &both.guest, &both.far, (INNER_FAR, 5002), 5002)?;
        stream.push(16 * MIB)?;
        stream.finish()?;
        ensure!(both.node.counted("vm/vnet/overlay/encap")?.bytes > 16 << 20);
        both.nothing_went_wrong()?;
        both.node.terminate()
    });
}

#[test]
fn the_directory_answers_late_wrongly_and_never() {
    scenario::run(|work| {
        let mut both = start(work, "")?;
        introduce(&both)?;
        let mut events = both.node.listen(work, "vnet")?;
        // The stream's first line says that it is heard.
        events.wait_printed(0, "its first line", SOON, |text| text.contains(":\n").then_some(()))?;
        let entry = |address: &str| format!("/ports/vm/resources/directory/entries/{address}");
        let say =
            |both: &Both, address: &str, what: &str| both.node.request("vnet", "PUT", &entry(address), what).map(drop);
        let ping = |both: &Both, name: &str, args: &str| {
            both.guest.spawn(work, name, &["sh", "-c", &format!("exec busybox ping {args}")])
        };

        // Late: what waited is answered, in its order.
        let mut late = ping(&both, "late", &format!("-c 3 -i 0.1 -W 5 {INNER_FAR}"))?;
        missed(&mut events, 0, INNER_FAR)?;
        wait_until("all three to wait", SOON, || Ok(both.node.flows("vm", "waiting")? >= 3))?;
        say(&both, INNER_FAR, r#"{ "address": "192.0.2.2" }"#)?;
        ensure!(late.wait_exit(SOON)?.success(), "{}", late.printed_since(0)?);
        let printed = late.printed_since(0)?;
        let order: Vec<_> = (0..3).map(|n| printed.find(&format!("seq={n} "))).collect();
        ensure!(order.iter().all(Option::is_some) && order.is_sorted(), "{printed}");

        // Wrongly: nobody is there, until it is corrected.
        let mark = events.mark();
        let mut wrong = ping(&both, "wrong", "-c 1 -W 1 10.77.0.3")?;
        missed(&mut events, mark, "10.77.0.3")?;
        say(&both, "10.77.0.3", r#"{ "address": "192.0.2.99" }"#)?;
        ensure!(!wrong.wait_exit(SOON)?.success(), "an answer from nowhere: {}", wrong.printed_since(0)?);
        wait_until("the drop", SOON, || Ok(both.node.port("up")?.dropped("unresolved") > 0))?;
        say(&both, "10.77.0.3", r#"{ "address": "192.0.2.2" }"#)?;
        both.guest.sh("busybox ping -c 1 -W 5 10.77.0.3")?;

        // There is no such address, for a second; then it is asked again.
        let mark = events.mark();
        let mut absent = ping(&both, "absent", "-c 1 -W 1 10.77.0.4")?;
        missed(&mut events, mark, "10.77.0.4")?;
        let before = both.node.dropped("no_mapping")?;
        say(&both, "10.77.0.4", r#"{ "unknown_s": 1 }"#)?;
        ensure!(!absent.wait_exit(SOON)?.success());
        wait_until("the drop", SOON, || Ok(both.node.dropped("no_mapping")? > before))?;
        let mark = events.mark();
        let before = both.node.dropped("unresolved")?;
        wait_until("another question", SOON, || {
            both.guest.sh("busybox ping -c 1 -W 1 10.77.0.4 || true")?;
            Ok(events.printed_since(mark)?.contains("10.77.0.4"))
        })?;
        // Never.
        wait_until("the drop", SOON, || Ok(both.node.dropped("unresolved")? > before))?;
        both.node.terminate()
    });
}
