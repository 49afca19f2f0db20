// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a rule does with a packet (VF-8), as its controller says it. How each is carried out stands in
//! `crate::action`, a file each.

use core::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use packet::transpose::{TransposeError, Transposition};
use packet::{DropCause, MacAddr, Tunnel};

use crate::Name;
use crate::condition::REGISTERS;

/// Most back ends or next hops that one rule chooses among: choosing is linear in them.
pub const MAX_CHOICES: usize = 256;

/// What a rule does with a packet. Whatever does not drop it lets it go on to the next layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Lets it go on.
    Allow {
        /// Whether its connection is remembered, so that the reverse direction is let through by the
        /// connection and not by rules.
        stateful: Option<Stateful>,
    },
    /// Sends it to one of several back ends, the same for all packets of a connection (Ananta): its
    /// destination becomes the back end, and answers come from the address that was asked.
    Balance(Balance),
    /// Drops it.
    Block {
        /// Under which cause it is counted.
        cause: DropCause,
    },
    /// Counts it: for rules that bill. Rules of all kinds count what they are applied to; this one does
    /// nothing else.
    Count,
    /// Takes its tunnel off.
    Decap,
    /// Marks it with a differentiated services code point, 0 to 63.
    Dscp(u8),
    /// Sends it to one of several routers, the same for all packets of a flow: its destination MAC address
    /// becomes the router's.
    Ecmp(Vec<MacAddr>),
    /// Puts it into a tunnel.
    Encap(Encap),
    /// Sends it back to the port it came from, or to another one, whatever its addresses say. Outbound only.
    Hairpin {
        /// The port; `None`: that it came from.
        to: Option<Name>,
    },
    /// Translates its addresses, for all packets of a connection and back for its answers.
    Nat(Nat),
    /// Writes a metadata register, for the layers behind to match.
    SetRegister {
        /// Which of the eight.
        register: u8,
        /// The new value.
        value: u32,
    },
    /// Changes headers as the controller says (VF-9, VF-16). Packets without those headers are dropped.
    Transpose {
        /// What is changed.
        transposition: Arc<Transposition>,
    },
}

/// How long a connection is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stateful {
    /// Seconds without a packet after which it is forgotten.
    pub idle_s: NonZeroU32,
}

/// New addresses for a connection. At least one of both ends changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nat {
    /// What the initiator seems to be.
    pub source: Option<Source>,
    /// What the responder really is.
    pub destination: Option<Endpoint>,
    /// How long the translation is remembered.
    pub stateful: Stateful,
}

/// What the initiator of a connection seems to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// This address, and this port if there is one; else the port stays.
    Fixed(Endpoint),
    /// An address and port of a range list, such that no two connections to one destination have the same.
    Ranges(Name),
}

/// An address, and perhaps a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The address.
    pub address: IpAddr,
    /// The port; `None`: as it is.
    pub port: Option<u16>,
}

/// Back ends for new connections, chosen by rendezvous hashing: one that comes or goes moves only the
/// connections that are its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balance {
    /// Where connections go; at least one, at most [`MAX_CHOICES`].
    pub backends: Vec<Endpoint>,
    /// How long a connection stays where it is.
    pub stateful: Stateful,
}

/// A tunnel to put packets into. Outer MAC addresses are the uplink's business: they are found when the
/// packet leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encap {
    /// VXLAN, NVGRE or Geneve.
    pub tunnel: Tunnel,
    /// Network identifier, 24 bits. What a mapping says goes first.
    pub vni: Option<u32>,
    /// The outer source address.
    pub source: IpAddr,
    /// The outer destination address.
    pub destination: Destination,
}

/// The far end of a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// One of these, the same for all packets of a flow (ECMP where there are several); at most
    /// [`MAX_CHOICES`].
    Among(Vec<IpAddr>),
    /// What a mapping says about the packet's own destination address (CA → PA). A miss is told to the
    /// controller, and the packet waits.
    Mapped(Name),
}

/// What is wrong with an action.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ActionError {
    /// Nothing to choose from, or too much.
    #[error("action: {count} to choose from; 1 to {MAX_CHOICES} are possible")]
    Choices {
        /// How many were given.
        count: usize,
    },
    /// A code point of more than six bits.
    #[error("action: dscp {dscp} is not between 0 and 63")]
    Dscp {
        /// The number given.
        dscp: u8,
    },
    /// A translation of nothing.
    #[error("action: nat translates neither source nor destination")]
    EmptyNat,
    /// A packet that came from the network cannot be turned back by the VM's port.
    #[error("action: hairpin is for rules of direction out")]
    InboundHairpin,
    /// Addresses of IPv4 and IPv6 in one.
    #[error("action: {one} and {other} are not of one IP version")]
    MixedVersions {
        /// One of them.
        one: IpAddr,
        /// One of the other version.
        other: IpAddr,
    },
    /// There is no such register.
    #[error("action: there are {REGISTERS} registers, counted from 0, and no register {register}")]
    Register {
        /// The number given.
        register: u8,
    },
    /// No packet at all can undergo the transposition.
    #[error("action: {0}")]
    Transposition(#[from] TransposeError),
    /// Neither VXLAN, NVGRE nor Geneve.
    #[error("action: packets can be put into vxlan, nvgre and geneve only")]
    Tunnel,
    /// A network identifier of more than 24 bits, or none at all.
    #[error("action: vni {vni:?} is not between 0 and 16777215; only a mapping may say it instead")]
    Vni {
        /// The number given.
        vni: Option<u32>,
    },
}

impl Action {
    /// # Errors
    /// What does not hold together, by field.
    pub fn check(&self) -> Result<(), ActionError> {
        match self {
            Self::Allow { .. } | Self::Block { .. } | Self::Count | Self::Decap | Self::Hairpin { .. } => Ok(()),
            Self::Balance(balance) => {
                count(balance.backends.len())?;
                one_version(balance.backends.iter().map(|backend| backend.address))
            }
            Self::Dscp(dscp) if *dscp > 63 => Err(ActionError::Dscp { dscp: *dscp }),
            Self::Dscp(_) => Ok(()),
            Self::Ecmp(routers) => count(routers.len()),
            Self::Encap(encap) => encap.check(),
            Self::Nat(nat) => nat.check(),
            Self::SetRegister { register, .. } if usize::from(*register) >= REGISTERS => {
                Err(ActionError::Register { register: *register })
            }
            Self::SetRegister { .. } => Ok(()),
            // What composes with nothing composes with no packet's.
            Self::Transpose { transposition } => Ok(Transposition::default().then(transposition).map(drop)?),
        }
    }

    /// The resource that it needs, and of which kind that must be.
    #[must_use]
    pub const fn resource(&self) -> Option<(&Name, ResourceKind)> {
        match self {
            Self::Encap(Encap { destination: Destination::Mapped(map), .. }) => Some((map, ResourceKind::Map)),
            Self::Nat(Nat { source: Some(Source::Ranges(ranges)), .. }) => Some((ranges, ResourceKind::Range)),
            _ => None,
        }
    }
}

/// The kinds of [`Resource`](super::Resource).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResourceKind {
    /// Addresses to what is known of them.
    Map,
    /// Addresses and ports to give out.
    Range,
}

impl Nat {
    fn check(&self) -> Result<(), ActionError> {
        let source = match &self.source {
            Some(Source::Fixed(endpoint)) => Some(endpoint.address),
            Some(Source::Ranges(_)) => None,
            None if self.destination.is_none() => return Err(ActionError::EmptyNat),
            None => None,
        };
        one_version(source.into_iter().chain(self.destination.map(|endpoint| endpoint.address)))
    }
}

impl Encap {
    fn check(&self) -> Result<(), ActionError> {
        if !matches!(self.tunnel, Tunnel::Vxlan | Tunnel::Nvgre | Tunnel::Geneve) {
            return Err(ActionError::Tunnel);
        }
        let mapped = matches!(self.destination, Destination::Mapped(_));
        if self.vni.map_or(!mapped, |vni| vni >= 1 << 24) {
            return Err(ActionError::Vni { vni: self.vni });
        }
        match &self.destination {
            Destination::Mapped(_) => Ok(()),
            Destination::Among(far) => {
                count(far.len())?;
                one_version(far.iter().copied().chain([self.source]))
            }
        }
    }
}

const fn count(count: usize) -> Result<(), ActionError> {
    if count == 0 || count > MAX_CHOICES { Err(ActionError::Choices { count }) } else { Ok(()) }
}

fn one_version(mut addresses: impl Iterator<Item = IpAddr>) -> Result<(), ActionError> {
    let Some(one) = addresses.next() else { return Ok(()) };
    match addresses.find(|address| address.is_ipv4() != one.is_ipv4()) {
        Some(other) => Err(ActionError::MixedVersions { one, other }),
        None => Ok(()),
    }
}
