// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Two hosts in namespaces of their own, joined by a veth pair. At the first the client, at the second the server and the mux;
//! policy is there before the guests are, so that nothing of theirs is unaccounted for.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use harness::agent::Agent;
use harness::control::Count;
use harness::guest::{Guest, GuestConfig};
use harness::netns::NetNs;
use harness::node::{Node, NodeConfig, PortConfig, UplinkConfig};
use harness::process::Process;
use harness::scenario::WorkDir;
use harness::testpmd::{Ring, Testpmd, VirtioUser, mac};
use harness::wait::wait_until;

use crate::SOON;

/// The service's virtual address.
pub(super) const VIP: &str = "203.0.113.80";
/// The client's own address.
pub(super) const CLIENT: &str = "10.9.0.2";
/// Which nobody has.
pub(super) const NOBODY: &str = "10.9.0.9";
const SERVER: &str = "10.9.0.3";
/// The guests' numbers, which are in their addresses.
const NUMBERS: [u8; 2] = [2, 3];
/// The mux at the second host, and who would be it at the first.
pub(super) const MUX: u8 = 4;
const IDLE_MUX: u8 = 5;
const HOST_IPS: [&str; 2] = ["192.0.2.1", "192.0.2.2"];
/// The controllers, by rising orders.
const CONTROLLERS: [&str; 4] = ["metering", "acl", "loadbalancer", "vnet"];

/// All of it.
pub(super) struct Hosts {
    pub(super) nodes: [Node; 2],
    pub(super) client: Guest,
    pub(super) server: Guest,
    pub(super) mux: Testpmd,
    agents: [Agent; 4],
    /// Of each agent one stream of events from each node.
    streams: Vec<[Process; 2]>,
    _namespaces: [NetNs; 2],
    _far_work: WorkDir,
}

impl Hosts {
    pub(super) fn start(work: &WorkDir) -> Result<Self> {
        let far_work = WorkDir::create()?;
        let namespaces = [NetNs::create("host1")?, NetNs::create("host2")?];
        for ns in &namespaces {
            ns.sh("echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6")?;
        }
        namespaces[0].wire("eth0", &namespaces[1], "eth0")?;
        let agent = |at: usize| {
            let low = u32::try_from(at * 100)?;
            Agent::new(work, CONTROLLERS[at], [low, low + 99])
        };
        let agents = [agent(0)?, agent(1)?, agent(2)?, agent(3)?];
        let node = |at: usize, work: &WorkDir| Node::start_in(work, &config(at, &agents), &namespaces[at]);
        let nodes = [node(0, work)?, node(1, &far_work)?];
        for (at, node) in nodes.iter().enumerate() {
            for agent in &agents {
                agent.apply(node, &document(work, agent.name(), at)?)?;
            }
        }
        let listen = |agent: &Agent| -> Result<[Process; 2]> {
            Ok([agent.listen(work, &nodes[0], "host1")?, agent.listen(work, &nodes[1], "host2")?])
        };
        let mut streams: Vec<_> = agents.iter().map(listen).collect::<Result<_>>()?;
        for stream in streams.iter_mut().flatten() {
            // The stream's first line says that it is heard.
            stream.wait_printed(0, "its first line", SOON, |text| text.contains(":\n").then_some(()))?;
        }

        let guest = |name: &str, at: usize| {
            Guest::spawn(work, &GuestConfig::new(name, NUMBERS[at], &nodes[at].socket("vm0"), Ring::Packed))
        };
        let (mut client, mut server) = (guest("client", 0)?, guest("server", 1)?);
        client.ready()?;
        server.ready()?;
        let port = VirtioUser::new(&nodes[1].socket("mux"), MUX);
        let mut mux = Testpmd::spawn_small(work, "mux", &port, "mac")?;
        mux.ready()?;
        // What does not fit into the ring is tried again.
        mux.command("set fwd mac retry")?;
        mux.start()?;
        nodes[0].wait_up(&["vm0", "up"])?;
        nodes[1].wait_up(&["vm0", "mux", "up"])?;
        // Any address will do for a neighbour: the directory's replaces it.
        let neighbour = |address: &str| format!("arp -s {address} 52:54:00:00:00:fe");
        let neighbours = [VIP, SERVER, NOBODY].map(neighbour).join(" && ");
        client.sh(&format!("ip route add {VIP} dev eth0 && {neighbours}"), SOON)?;
        // A window that fits into every ring on the way: nothing is lost for want of buffers, which would be billed and not received.
        let window = "echo 4096 32768 65536 > /proc/sys/net/ipv4/tcp_rmem";
        let serve = "(nc -ll -p 8080 -e sha256sum >/dev/null 2>&1 &)";
        server.sh(&format!("{} && {window} && {serve}", neighbour(CLIENT)), SOON)?;
        wait_until("the service to listen", SOON, || Ok(server.sh("netstat -ltn", SOON)?.contains(":8080 ")))?;
        Ok(Self { nodes, client, server, mux, agents, streams, _namespaces: namespaces, _far_work: far_work })
    }

    /// The agent of that name.
    pub(super) fn agent(&self, name: &str) -> Result<&Agent> {
        self.agents.iter().find(|agent| agent.name() == name).with_context(|| format!("no agent {name}"))
    }

    /// The stream of events that the directory's agent has from a node.
    pub(super) fn misses(&mut self, host: usize) -> &mut Process {
        let [.., of_vnet] = self.streams.as_mut_slice() else { unreachable!("four agents") };
        &mut of_vnet[host]
    }

    /// Whether no event came to these agents.
    pub(super) fn heard_nothing(&self, agents: &[&str]) -> Result<bool> {
        let of_them = self.streams.iter().zip(&self.agents).filter(|(_, agent)| agents.contains(&agent.name()));
        let mut silent = true;
        for stream in of_them.flat_map(|(streams, _)| streams) {
            silent &= !stream.printed_since(0)?.contains("event:");
        }
        Ok(silent)
    }

    /// What a group of rules counted.
    pub(super) fn counted(&self, host: usize, group: &str) -> Result<Count> {
        let [port, layer, group] = group.split('/').collect::<Vec<_>>()[..] else {
            anyhow::bail!("{group} is no path of a group");
        };
        let path = format!("/ports/{port}/layers/{layer}/groups/{group}");
        let answer = self.agent("metering")?.done(&self.nodes[host], "GET", &path, "")?;
        let number = |key: &str| answer["count"][key].as_u64().with_context(|| format!("no {key} in {answer}"));
        Ok(Count { packets: number("packets")?, bytes: number("bytes")? })
    }

    /// Ends the nodes; no port had an error, or no room for a packet.
    pub(super) fn stop(mut self) -> Result<()> {
        for node in &mut self.nodes {
            for port in node.stats()?.ports {
                ensure!(port.errors.values().all(|&n| n == 0), "errors: {port:?}");
            }
            node.terminate()?;
        }
        Ok(())
    }
}

fn config(at: usize, agents: &[Agent]) -> NodeConfig {
    let in_network = |number: u8| format!("mac = {:?}\nvni = 5001", mac(number));
    let port = |name: &str, number: u8| PortConfig { extra: in_network(number), ..PortConfig::new(name) };
    let mux = [IDLE_MUX, MUX][at];
    let extra = format!("address = \"{}/24\"", HOST_IPS[at]);
    let up = UplinkConfig { extra, ..UplinkConfig::new("up", "af-packet", "eth0") };
    NodeConfig {
        ports: vec![port("vm0", NUMBERS[at]), port("mux", mux)],
        uplinks: vec![up],
        extra: agents.iter().map(Agent::to_toml).collect(),
        ..NodeConfig::default()
    }
}

/// The document of a controller for a host: the example's, with the host's own address.
fn document(work: &WorkDir, controller: &str, host: usize) -> Result<PathBuf> {
    let examples = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/examples/four-controllers");
    let text = fs::read_to_string(examples.join(format!("{controller}.toml")))?;
    let file = work.file(&format!("{controller}-{host}.toml"));
    fs::write(&file, text.replace(HOST_IPS[0], HOST_IPS[host]))?;
    Ok(file)
}
