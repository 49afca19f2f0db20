// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A kernel asks for the node's own addresses, by ARP and by neighbour discovery.

use anyhow::ensure;
use harness::node::Node;
use harness::scenario;
use harness::wait::wait_until;

use crate::station::Station;
use crate::{Link, SOON, config};

const ARP: [u8; 2] = [0x08, 0x06];

#[test]
fn own_addresses_are_answered_for_and_others_are_not() {
    scenario::run(|work| {
        let link = Link::create()?;
        link.far.sh("echo 0 > /proc/sys/net/ipv6/conf/far0/disable_ipv6")?;
        link.far.ip("addr add 192.0.2.2/24 dev far0")?;
        link.far.ip("addr add 2001:db8::2/64 dev far0 nodad")?;
        let own = "address = [\"192.0.2.1/24\", \"2001:db8::1/64\"]";
        let mut node = Node::start_in(work, &config(&["vm"], own), &link.near)?;
        let mut guest = Station::attach(&node.socket("vm"))?;
        node.wait_up(&["vm", "up"])?;
        let mac = node.port("up")?.uplink()?.mac.clone().unwrap_or_default();
        ensure!(link.near.ip("link show up0")?.contains(&mac), "{mac} is not that of up0");

        for (ip, ping) in [("192.0.2.1", "busybox ping"), ("2001:db8::1", "busybox ping6")] {
            wait_until(&format!("{ip} to be known"), SOON, || {
                // The node answers who has it, and nothing else.
                link.far.sh(&format!("{ping} -c 1 -W 1 {ip} >/dev/null || true"))?;
                Ok(link.far.ip(&format!("neigh show {ip}"))?.contains(&format!("lladdr {mac}")))
            })?;
        }
        let up = node.port("up")?;
        ensure!(up.uplink()?.neighbors_answered >= 2, "{up:?}");
        // Pings of the node's addresses are for nobody else.
        ensure!(up.dropped("no_destination") > 0, "{up:?}");

        // The guest sees what is asked of others, and saw nothing of what was asked of the node.
        link.far.sh("busybox ping -c 1 -W 1 192.0.2.9 >/dev/null || true")?;
        let asked = guest.receive("a question for somebody else", |frame| frame[12..14] == ARP)?;
        ensure!(asked[38..42] == [192, 0, 2, 9], "asked for {:?}", &asked[38..42]);
        node.terminate()
    });
}
