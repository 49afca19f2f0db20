// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Policy changes while a connection is in use: by each controller, in each of its layers, at each port that the connection
//! crosses.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::agent::GroupPath;
use harness::wait::{wait_settled, wait_until};
use serde_json::{Value, json};

use super::hosts::{Hosts, VIP};
use super::upload::{Upload, received};
use crate::SOON;

/// Silence after which nothing more is on its way.
pub(super) const QUIET: Duration = Duration::from_millis(300);

/// What no change here may make of a packet.
const CAUSES: [&str; 5] = ["policy_block", "policy_default", "no_connection", "no_mapping", "unresolved"];

/// A controller writes its own layers, in its own band, and nothing else.
pub(super) fn nobody_touches_what_is_anothers(hosts: &Hosts) -> Result<()> {
    let [node, _] = &hosts.nodes;
    let layers = node.request("vnet", "GET", "/ports/vm0/layers", "")?["layers"].clone();
    let (acl, group) = (hosts.agent("acl")?, r#"{ "rule": [] }"#);
    for (path, body) in [
        ("/ports/vm0/layers/vnet/groups/overlay", group),
        ("/ports/vm0/layers/metering/groups/sent", group),
        ("/ports/vm0/layers/acl", r#"{ "order": 310, "default": "allow" }"#),
        ("/ports/vm0/resources/directory/entries/10.9.0.3", r#"{ "unknown_s": 1 }"#),
    ] {
        let reply = acl.ask(node, "PUT", path, &["content-type: application/json"], body)?;
        ensure!(reply.status == 403, "PUT {path}: {reply:?}");
    }
    let reply = acl.ask(node, "DELETE", "/ports/vm0", &[], "")?;
    ensure!(reply.status == 403, "DELETE: {reply:?}");
    ensure!(node.request("vnet", "GET", "/ports/vm0/layers", "")?["layers"] == layers, "something changed");
    Ok(())
}

/// Where a group is: controller, port, layer, group.
type Place = (&'static str, &'static str, &'static str, &'static str);

/// All groups that the connection meets at a guest's port, and at the mux's.
const OF_GUESTS: [Place; 6] = [
    ("metering", "vm0", "metering", "sent"),
    ("metering", "vm0", "metering", "received"),
    ("acl", "vm0", "acl", "infrastructure"),
    ("acl", "vm0", "acl", "customer"),
    ("loadbalancer", "vm0", "vip", "services"),
    ("vnet", "vm0", "vnet", "overlay"),
];
const OF_THE_MUX: [Place; 3] = [
    ("metering", "mux", "metering", "through"),
    ("loadbalancer", "mux", "mux", "services"),
    ("vnet", "mux", "vnet", "overlay"),
];

/// Rules for others' packets, before all that are there.
fn for_others() -> [Value; 2] {
    ["in", "out"].map(|way| {
        let matches = json!({ "ip_proto": "tcp", "dst_ip": "198.51.100.0/24", "dst_port": 4711 });
        json!({
            "name": format!("for-others-{way}"), "priority": 99, "dir": way, "match": matches,
            "action": { "type": "block" }, "terminating": true
        })
    })
}

/// Each change is in effect when it is answered, so what arrives afterwards has met it. The connection does not notice: no
/// packet of it is dropped, nothing of it ends.
pub(super) fn in_every_layer(hosts: &mut Hosts, upload: &Upload) -> Result<()> {
    let noticed = |hosts: &Hosts| -> Result<Vec<u64>> {
        let mut all = Vec::new();
        for (host, port) in [(0, "vm0"), (1, "vm0"), (1, "mux")] {
            all.push(hosts.nodes[host].flows(port, "ended_by_policy")?);
        }
        for node in &hosts.nodes {
            for cause in CAUSES {
                all.push(node.dropped(cause)?);
            }
        }
        Ok(all)
    };
    let before = noticed(hosts)?;
    let places = [(0, &OF_GUESTS[..]), (1, &OF_GUESTS[..]), (1, &OF_THE_MUX[..])];
    for (host, (controller, port, layer, group)) in
        places.into_iter().flat_map(|(host, of)| of.iter().map(move |p| (host, *p)))
    {
        let (agent, node) = (hosts.agent(controller)?, &hosts.nodes[host]);
        let path = GroupPath(port, layer, group);
        let replanned = replans(hosts, host, port)?;
        let edited = agent.edit_group(node, &path, |rules| rules.splice(0..0, for_others()).for_each(drop))?;
        upload.goes_on(hosts).with_context(|| format!("after {controller} changed {path:?} of host {host}"))?;
        ensure!(replans(hosts, host, port)? > replanned, "{path:?} of host {host}: no flow met the change");
        // Whoever read it before that is told that it is not what it was.
        let stale = [&*format!("if-match: {}", edited.tag)];
        let reply = agent.ask(node, "PUT", &path.url(), &stale, &edited.before.to_string())?;
        ensure!(reply.status == 412, "a stale edit of {path:?}: {reply:?}");
    }
    // Layers and resources, too.
    for (host, controller, path, body) in [
        (0, "acl", "/ports/vm0/layers/guard", r#"{ "order": 111, "default": "allow" }"#),
        (1, "loadbalancer", "/ports/vm0/layers/other", r#"{ "order": 211, "default": "allow" }"#),
        (1, "vnet", "/ports/vm0/resources/directory/entries/10.9.0.7", r#"{ "address": "192.0.2.7" }"#),
        (0, "vnet", "/ports/vm0/resources/directory/entries/10.9.0.7", r#"{ "address": "192.0.2.7" }"#),
    ] {
        hosts.agent(controller)?.done(&hosts.nodes[host], "PUT", path, body)?;
        upload.goes_on(hosts).with_context(|| format!("after PUT {path} at host {host}"))?;
    }
    ensure!(noticed(hosts)? == before, "the connection noticed: {before:?} became {:?}", noticed(hosts)?);
    Ok(())
}

fn replans(hosts: &Hosts, host: usize, port: &str) -> Result<u64> {
    hosts.nodes[host].flows(port, "replanned")
}

/// The infrastructure's block is overruled by the customer's rule behind it, unless it is terminating.
pub(super) fn only_terminating_rules_stay(hosts: &mut Hosts, upload: &Upload) -> Result<()> {
    let group = GroupPath("vm0", "acl", "infrastructure");
    let block = |terminating: bool| {
        let matches = json!({ "ip_proto": "tcp", "dst_ip": VIP, "dst_port": 80 });
        json!({
            "name": "no-service", "priority": 50, "dir": "out", "match": matches,
            "action": { "type": "block" }, "terminating": terminating
        })
    };
    let (agent, node) = (hosts.agent("acl")?, &hosts.nodes[0]);
    let before = agent.edit_group(node, &group, |rules| rules.push(block(false)))?;
    upload.goes_on(hosts).context("under a rule that a later one overrules")?;
    let (ended, blocked) = (node.flows("vm0", "ended_by_policy")?, node.dropped("policy_block")?);
    ensure!(node.counted("vm0/acl/infrastructure/no-service")?.packets == 0, "it is the last rule that counts");

    agent.edit_group(node, &group, |rules| _ = rules.pop().map(|_| rules.push(block(true))))?;
    stalls(hosts, 0, "policy_block")?;
    let node = &hosts.nodes[0];
    ensure!(node.flows("vm0", "ended_by_policy")? == ended + 1);
    let dropped = node.dropped("policy_block")? - blocked;
    let counted = node.counted("vm0/acl/infrastructure/no-service")?.packets;
    ensure!(counted >= dropped && dropped > 1, "{dropped} packets were dropped, the rule counted {counted}");

    hosts.agent("acl")?.put_back(node, &group, &before)?;
    upload.goes_on(hosts).context("after the block")
}

/// Without the customer's rule for the server's port the default blocks, at the other host.
pub(super) fn the_customer_withdraws_the_service(hosts: &mut Hosts, upload: &Upload) -> Result<()> {
    let group = GroupPath("vm0", "acl", "customer");
    let ended = hosts.nodes[1].flows("vm0", "ended_by_policy")?;
    let before = hosts.agent("acl")?.edit_group(&hosts.nodes[1], &group, |rules| {
        rules.retain(|rule| rule["name"] != "web-in");
    })?;
    stalls(hosts, 1, "policy_default")?;
    ensure!(hosts.nodes[1].flows("vm0", "ended_by_policy")? == ended + 1);
    hosts.agent("acl")?.put_back(&hosts.nodes[1], &group, &before)?;
    upload.goes_on(hosts).context("after the service came back")
}

/// Nothing reaches the server any more, while the client goes on trying.
fn stalls(hosts: &Hosts, host: usize, cause: &str) -> Result<()> {
    let arrived = wait_settled("what was on its way", QUIET, SOON, || received(hosts))?;
    let before = hosts.nodes[host].dropped(cause)?;
    wait_until("the client to try again and again", SOON, || Ok(hosts.nodes[host].dropped(cause)? > before + 1))?;
    ensure!(received(hosts)? == arrived, "{} bytes came through", received(hosts)? - arrived);
    Ok(())
}
