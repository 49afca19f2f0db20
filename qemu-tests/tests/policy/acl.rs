// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A stateful ACL and a meter: the guest may begin connections, nobody else may; connections survive changes that do not
//! change what they meet; what is blocked is blocked; what is billed is what the guest itself counted.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::control::Count;
use harness::netns::NetNs;
use harness::node::Node;
use harness::scenario;
use harness::stream::Stream;
use harness::wait::{wait_settled, wait_until};

use crate::{Both, SOON};

const GUEST: &str = "10.9.0.100";
const FAR: &str = "10.9.0.1";
const MIB: usize = 1 << 20;
/// How long a transfer that is blocked is looked at: several retransmissions.
const STALL: Duration = Duration::from_secs(2);

const METER: &str = r#"
controller = "metering"
[[layer]]
port = "vm"
name = "meter"
order = 1
default = "allow"
[[layer.group]]
name = "all"
[[layer.group.rule]]
name = "out"
dir = "out"
action = { type = "count" }
[[layer.group.rule]]
name = "in"
dir = "in"
action = { type = "count" }
"#;

/// The guest may begin what it likes; ARP passes; `more` rules are in front.
fn acl(more: &str) -> String {
    format!(
        r#"
controller = "acl"
[[layer]]
port = "vm"
name = "acl"
order = 10
default = "block"
[[layer.group]]
name = "customer"
[[layer.group.rule]]
name = "arp-out"
dir = "out"
match = {{ ether_type = 0x0806 }}
action = {{ type = "allow" }}
[[layer.group.rule]]
name = "arp-in"
dir = "in"
match = {{ ether_type = 0x0806 }}
action = {{ type = "allow" }}
[[layer.group.rule]]
name = "begin"
dir = "out"
match = {{ ip_version = 4 }}
action = {{ type = "allow", stateful = true }}
{more}
"#
    )
}

const BLOCK: &str = r#"
[[layer.group.rule]]
name = "blocked"
priority = 9
dir = "out"
match = { ip_proto = "tcp", dst_port = 5001 }
action = { type = "block" }
terminating = true
"#;

/// Another layer of another controller, which lets pass what the test needs.
const OTHER: &str = r#"
controller = "infra"
[[layer]]
port = "vm"
name = "infra"
order = 20
default = "allow"
[[layer.group]]
name = "smtp"
[[layer.group.rule]]
name = "no-smtp"
dir = "out"
match = { ip_proto = "tcp", dst_port = 25 }
action = { type = "block" }
"#;

/// What the guest's own device counted: what it sent, and what it received.
fn device(guest: &NetNs) -> Result<[Count; 2]> {
    let read = |name: &str| -> Result<u64> {
        let text = guest.sh(&format!("cat /sys/class/net/tap0/statistics/{name}"))?;
        text.trim().parse().with_context(|| format!("{name}: {text}"))
    };
    Ok([
        Count { packets: read("tx_packets")?, bytes: read("tx_bytes")? },
        Count { packets: read("rx_packets")?, bytes: read("rx_bytes")? },
    ])
}

fn billed(node: &Node) -> Result<[Count; 2]> {
    Ok([node.counted("vm/meter/all/out")?, node.counted("vm/meter/all/in")?])
}

#[test]
fn an_acl_with_state_blocks_and_lets_answers_pass() {
    scenario::run(|work| {
        let mut both = Both::start(work, GUEST, FAR, "", "")?;
        both.node.apply(work, METER)?;
        both.node.apply(work, &acl(""))?;
        let settled = |both: &Both| {
            wait_settled("the guest's counters", Duration::from_millis(500), SOON, || {
                Ok((device(&both.guest)?, billed(&both.node)?))
            })
        };
        let (device_before, billed_before) = settled(&both)?;
        wait_until("an answer to the guest's ping", SOON, || {
            Ok(both.guest.sh(&format!("busybox ping -c 1 -W 1 {FAR}")).is_ok())
        })?;

        // From outside: nothing.
        ensure!(both.far.sh(&format!("busybox ping -c 1 -W 1 {GUEST}")).is_err(), "a ping came in");
        let blocked = both.node.dropped("policy_default")?;
        ensure!(blocked > 0, "{:?}", both.node.stats()?);

        // From inside: a transfer, which survives changes that are none to it.
        let mut stream = Stream::open(work, "tcp", &both.guest, &both.far, (FAR, 5001), 5001)?;
        stream.push(4 * MIB)?;
        both.node.apply(work, OTHER)?;
        stream.push(MIB).context("with another layer")?;
        both.node.apply(work, &acl(&BLOCK.replace("5001", "5999")))?;
        stream.push(MIB).context("with another rule")?;
        both.node.apply(work, "controller = \"infra\"\n")?;
        stream.push(MIB).context("with a layer less")?;

        // Blocked: nothing more arrives, and it is counted; not blocked any more: it goes on.
        both.node.apply(work, &acl(BLOCK))?;
        let (arrived, blocked) = (stream.arrived(), both.node.dropped("policy_block")?);
        stream.send(16 << 10)?;
        wait_until("drops", SOON, || Ok(both.node.dropped("policy_block")? > blocked + 2))?;
        both.guest.sh(&format!("busybox sleep {}", STALL.as_secs()))?;
        ensure!(stream.arrived() == arrived, "{} bytes came through", stream.arrived() - arrived);
        ensure!(both.node.counted("vm/acl/customer/blocked")?.packets > 2);
        both.node.apply(work, &acl(""))?;
        stream.all_arrived().context("after the block")?;
        stream.push(MIB)?;
        stream.finish()?;

        // Billed is what the guest counted, to the byte.
        wait_until("the bill to be what the guest counted", SOON, || {
            let (device, billed) = (device(&both.guest)?, billed(&both.node)?);
            Ok((0..2).all(|way| device[way] - device_before[way] == billed[way] - billed_before[way]))
        })
        .with_context(|| format!("{:?} and before {device_before:?} {billed_before:?}", settled(&both)))?;
        both.nothing_went_wrong()?;
        both.node.terminate()
    });
}
