// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How the demo ended: for newcomers in words, for programs in JSON.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use backend::stats::{PortStatus, RingLayout};
use serde::Serialize;

use super::view::grouped;

/// The outcome. The field names are a contract.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Summary {
    /// How long packets were sent.
    pub(super) seconds: f64,
    /// Packets that the node delivered.
    pub(super) forwarded: u64,
    /// Packets that arrived unchanged, once, and in order.
    pub(super) verified: u64,
    /// Packets that arrived altered, twice, or out of order.
    pub(super) corrupted: u64,
    /// Packets that were sent and did not arrive.
    pub(super) lost: u64,
    pub(super) ports: Vec<PortSummary>,
    #[serde(skip)]
    pub(super) bytes: u64,
}

/// One port, as the node counted it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct PortSummary {
    name: String,
    ring: Option<RingLayout>,
    features: Vec<String>,
    rx_packets: u64,
    tx_packets: u64,
    drops: BTreeMap<String, u64>,
}

impl From<PortStatus> for PortSummary {
    fn from(port: PortStatus) -> Self {
        let PortStatus { name, ring, features, rx_packets, tx_packets, drops, .. } = port;
        Self { name, ring, features, rx_packets, tx_packets, drops }
    }
}

impl Summary {
    /// Whether every packet arrived as it was sent.
    pub(super) fn is_good(&self) -> bool {
        self.lost == 0 && self.corrupted == 0 && self.verified > 0
    }
}

impl Display for Summary {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
        let (packets, bits) = (self.verified as f64 / self.seconds, self.bytes as f64 * 8.0 / self.seconds);
        let mark = if self.is_good() { "✔" } else { "✘" };
        writeln!(
            f,
            "\n{mark} {} packets crossed the node in {:.1} s: {:.2} million a second, {:.2} Gbit/s",
            grouped(self.verified),
            self.seconds,
            packets / 1e6,
            bits / 1e9
        )?;
        writeln!(f, "  {} lost, {} corrupted, doubled or out of order", grouped(self.lost), grouped(self.corrupted))?;
        writeln!(f, "\nWhat happened")?;
        writeln!(f, "  A Shunt node ran in this process, with one worker thread and a port for each of two CNFs.")?;
        writeln!(f, "  The CNFs attached over UNIX sockets with the vhost-user protocol, as a container with DPDK's")?;
        writeln!(f, "  virtio-user does, and shared their memory with the node:")?;
        for port in &self.ports {
            let ring = port.ring.map_or_else(|| "no".to_owned(), |ring| ring.to_string());
            writeln!(f, "    {:<6} {ring} rings ({})", port.name, port.features.join(", "))?;
        }
        writeln!(f, "  A packet's way: transmit ring of one CNF → worker → MAC-learning bridge → receive ring of the")?;
        writeln!(
            f,
            "  other. Headers were copied into the node and judged there; payload went from CNF to CNF in one"
        )?;
        writeln!(f, "  copy. Each packet carried a number and a checksum over its payload; every one was checked.")?;
        for port in self.ports.iter().filter(|port| !port.drops.is_empty()) {
            writeln!(f, "  The node dropped packets for {}: {:?}", port.name, port.drops)?;
        }
        writeln!(f, "\nTry next")?;
        writeln!(f, "  shunt bench pvp               how fast is it, with packets of 64 bytes?")?;
        writeln!(f, "  shunt run --config node.toml  a node for your own VMs and containers")?;
        writeln!(f, "  shunt --help                  everything else")
    }
}
