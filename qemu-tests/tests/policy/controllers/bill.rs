// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is billed. The bytes that count are those of whole frames without their checksums, as the guest's own device counts
//! them: of what it sent all, whatever became of it (dropped, blocked, sent again), and of what came for it only what it
//! was given.

use anyhow::{Context, Result, ensure};
use harness::control::Count;
use harness::guest::Guest;
use harness::wait::{wait_for, wait_until};

use super::hosts::Hosts;
use crate::SOON;

/// What the guest's own device counted since it was switched on: sent, and received.
fn device(guest: &mut Guest) -> Result<[Count; 2]> {
    let files = ["tx_packets", "tx_bytes", "rx_packets", "rx_bytes"].join(" ");
    let text = guest.sh(&format!("cd /sys/class/net/eth0/statistics; cat {files}; cd /"), SOON)?;
    let numbers: Vec<u64> = text.lines().map(str::parse).collect::<Result<_, _>>().with_context(|| text.clone())?;
    let [sent, sent_bytes, received, received_bytes] = numbers[..] else { anyhow::bail!("not four numbers: {text}") };
    Ok([Count { packets: sent, bytes: sent_bytes }, Count { packets: received, bytes: received_bytes }])
}

/// What the meter of a port counted: sent, and received.
fn billed(hosts: &Hosts, host: usize) -> Result<[Count; 2]> {
    Ok([hosts.counted(host, "vm0/metering/sent")?, hosts.counted(host, "vm0/metering/received")?])
}

pub(super) fn is_what_guests_counted(hosts: &mut Hosts) -> Result<()> {
    for host in 0..2 {
        let mut last = None;
        let equal = wait_until("the bill to be what the guest counted", SOON, || {
            let guest = if host == 0 { &mut hosts.client } else { &mut hosts.server };
            let own = device(guest)?;
            let billed = billed(hosts, host)?;
            last = Some((own, billed));
            Ok(own == billed)
        });
        equal.with_context(|| format!("host {host}, own and billed: {last:?}"))?;
        // Every packet fell under a rule.
        let port = hosts.nodes[host].request("metering", "GET", "/ports/vm0/layers/metering", "")?;
        ensure!(port["default_count"]["packets"] == 0, "{port}");
    }
    // The mux, which answers never cross: its own counts of whole frames are the bill's, either way.
    let through = wait_for("the mux's bill", SOON, || {
        let rules = ["mux/metering/through/out", "mux/metering/through/in"];
        let billed = [hosts.nodes[1].counted(rules[0])?, hosts.nodes[1].counted(rules[1])?];
        let own = hosts.mux.metered()?;
        Ok((own == billed && own[0] == own[1]).then_some(own[0]))
    })?;
    let layer = hosts.nodes[1].request("metering", "GET", "/ports/mux/layers/metering", "")?;
    ensure!(layer["default_count"]["packets"] == 0, "something else crossed the mux: {layer}");
    let translated = hosts.nodes[1].counted("vm0/vip/services/web")?;
    ensure!(translated == through, "the mux handed on {through:?}, the server's port translated {translated:?}");
    let answers = hosts.nodes[0].counted("vm0/metering/received/from-service")?;
    ensure!(answers.packets > 100, "{answers:?}");
    Ok(())
}

/// Each cause for which a packet was dropped is one that the test has brought about, at the port where it did.
pub(super) fn drops_are_those_that_were_meant(hosts: &Hosts) -> Result<()> {
    // What policy drops is counted where it came in: what is for the server's port, at the mux's.
    let meant: [&[(&str, &[&str])]; 2] = [
        &[
            // The directory never answered, or said that there is nobody; the infrastructure blocked.
            ("vm0", &["unresolved", "no_mapping", "policy_block"]),
            // The directory had said that the client is somebody else; what came for it while it was blocked.
            ("up", &["no_destination", "policy_default"]),
        ],
        &[
            // Answers of a connection that policy had ended.
            ("vm0", &["policy_block"]),
            // The customer had withdrawn the service.
            ("mux", &["policy_default"]),
        ],
    ];
    for (node, meant) in hosts.nodes.iter().zip(meant) {
        for port in node.stats()?.ports {
            let causes = meant.iter().find(|(name, _)| *name == port.name).map_or(&[][..], |(_, causes)| causes);
            let other = port.drops.iter().find(|(cause, n)| **n > 0 && !causes.contains(&cause.as_str()));
            ensure!(other.is_none(), "{other:?} of {port:?}");
        }
    }
    Ok(())
}
