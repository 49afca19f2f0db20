// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A way to a network: what all uplinks have, and what only one kind has.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::sys::MAX_MTU;

use super::{InterfaceAddress, InterfaceName, PortKind};

/// A way to a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UplinkConfig {
    /// What the network is reached through.
    pub link: LinkConfig,
    /// The node's own addresses there: tunnels end at them, and the node answers ARP and neighbour solicitations for them.
    pub address: Vec<InterfaceAddress>,
    /// The routers to all that is not on the link: at most one for each version of IP, on the link itself.
    pub gateway: Vec<IpAddr>,
    /// Longest IP packet that is sent there; `None`: what the link itself says.
    pub mtu: Option<u16>,
}

/// What a network is reached through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkConfig {
    /// A network interface of the kernel, through a packet socket. The kernel's own stack sees the frames, too.
    AfPacket {
        /// The interface.
        interface: InterfaceName,
    },
    /// A network interface of the kernel, through an AF_XDP socket. The kernel's own stack does not see the frames.
    AfXdp(AfXdp),
    /// A tap device: the kernel's own stack, or whoever has the device, is at the other end.
    Tap {
        /// The device, which is made if it is not there.
        interface: InterfaceName,
    },
    /// Frames in UDP datagrams, to one peer.
    Udp {
        /// Where datagrams arrive.
        local: SocketAddr,
        /// Where they go to, and from where alone they are taken.
        peer: SocketAddr,
    },
}

/// An interface's queue with an AF_XDP socket on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AfXdp {
    /// The interface.
    pub interface: InterfaceName,
    /// Which of its queues.
    pub queue: u16,
    /// Where the program runs.
    pub mode: XdpMode,
    /// Whether to share memory with the device if its driver can; else frames are copied.
    pub zero_copy: bool,
}

/// Where an XDP program runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum XdpMode {
    /// In the driver if it can, else generic.
    #[default]
    Auto,
    /// In the driver.
    Native,
    /// In the kernel's receive path, for all devices: slower.
    Generic,
}

impl AfXdp {
    /// Highest number of a queue that is worth asking a device for.
    pub const MAX_QUEUE: u16 = 1023;
}

impl UplinkConfig {
    /// Most addresses of one uplink.
    pub const MAX_ADDRESSES: usize = 16;
    /// The least MTU that IPv4 allows (RFC 791), and the longest packet there is; a link may take less.
    pub const MTU: std::ops::RangeInclusive<u16> = 68..=MAX_MTU;

    /// An uplink without addresses of its own.
    pub fn new(link: LinkConfig) -> Self {
        Self { link, address: Vec::new(), gateway: Vec::new(), mtu: None }
    }
}

impl LinkConfig {
    /// What kind it is.
    pub fn kind(&self) -> PortKind {
        match self {
            Self::AfPacket { .. } => PortKind::AfPacket,
            Self::AfXdp(_) => PortKind::AfXdp,
            Self::Tap { .. } => PortKind::Tap,
            Self::Udp { .. } => PortKind::Udp,
        }
    }

    /// The key that says where it is met.
    pub(crate) fn key(&self) -> &'static str {
        if self.interface().is_some() { "interface" } else { "local" }
    }

    /// The interface that it is, if it is one.
    pub fn interface(&self) -> Option<&InterfaceName> {
        match self {
            Self::AfPacket { interface } | Self::AfXdp(AfXdp { interface, .. }) | Self::Tap { interface } => {
                Some(interface)
            }
            Self::Udp { .. } => None,
        }
    }
}

/// Where it is met: `interface eth0`, or `path 192.0.2.1:34997 > 192.0.2.2:34997`.
impl fmt::Display for LinkConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp { local, peer } => write!(f, "path {local} > {peer}"),
            Self::AfPacket { interface } | Self::AfXdp(AfXdp { interface, .. }) | Self::Tap { interface } => {
                write!(f, "interface {interface}")
            }
        }
    }
}

impl XdpMode {
    /// All modes, as they are spelled.
    pub const NAMES: &[&str] = &["auto", "native", "generic"];
    const ALL: [Self; 3] = [Self::Auto, Self::Native, Self::Generic];

    /// As it is spelled in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

impl fmt::Display for XdpMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for XdpMode {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|mode| mode.name() == text).ok_or(())
    }
}
