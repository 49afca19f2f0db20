// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What two ports of a node cannot both have.

use std::fmt;
use std::net::IpAddr;

use packet::MacAddr;

use super::{Endpoint, InterfaceName, LinkConfig, PortConfig, SocketPath, UplinkConfig, Vni};

/// Something that two ports name and only one can have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// A socket.
    Socket(SocketPath),
    /// A network interface.
    Interface(InterfaceName),
    /// A path of UDP datagrams, `LOCAL > PEER`.
    Path(String),
    /// An own address: a tunnel ends at one uplink.
    Address(IpAddr),
    /// The address of what is there, in the virtual network that it is in.
    Mac(MacAddr, Option<Vni>),
}

impl Conflict {
    /// The key of `[[port]]` that says it.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Socket(_) => "socket",
            Self::Interface(_) => "interface",
            Self::Path(_) => "peer",
            Self::Address(_) => "address",
            Self::Mac(..) => "mac",
        }
    }
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(socket) => write!(f, "socket {socket}"),
            Self::Interface(interface) => write!(f, "interface {interface}"),
            Self::Path(path) => write!(f, "path {path}"),
            Self::Address(address) => write!(f, "address {address}"),
            Self::Mac(mac, None) => write!(f, "mac {mac}"),
            Self::Mac(mac, Some(vni)) => write!(f, "mac {mac} in VNI {vni}"),
        }
    }
}

impl PortConfig {
    /// What keeps this port and another from being on one node, besides their names.
    pub fn conflict(&self, other: &Self) -> Option<Conflict> {
        let mac = self.mac.filter(|mac| (Some(*mac), self.vni) == (other.mac, other.vni));
        let endpoints = match (&self.endpoint, &other.endpoint) {
            (Endpoint::VhostUser(a), Endpoint::VhostUser(b)) => {
                (a.socket == b.socket).then(|| Conflict::Socket(a.socket.clone()))
            }
            (Endpoint::Uplink(a), Endpoint::Uplink(b)) => a.conflict(b),
            _ => None,
        };
        endpoints.or_else(|| mac.map(|mac| Conflict::Mac(mac, self.vni)))
    }
}

impl UplinkConfig {
    fn conflict(&self, other: &Self) -> Option<Conflict> {
        if let Some(interface) = self.link.interface().filter(|own| other.link.interface() == Some(*own)) {
            return Some(Conflict::Interface(interface.clone()));
        }
        if let LinkConfig::Udp { local, peer } = self.link
            && self.link == other.link
        {
            return Some(Conflict::Path(format!("{local} > {peer}")));
        }
        let theirs = |address| other.address.iter().any(|own| own.address() == address);
        self.address.iter().map(|own| own.address()).find(|own| theirs(*own)).map(Conflict::Address)
    }
}
