// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What can be wrong with a frame's headers.

use std::fmt;

use crate::DropCause;

/// Why a frame could not be parsed. Numbers are bytes, positions from the start of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The frame, or the packet around the header, ends before the header or the packet it begins does.
    #[error("{header} at {at} reaches to {need}, but what it lies in ends at {end}")]
    CutShort {
        /// Of what kind it is.
        header: Header,
        /// Where it begins.
        at: u32,
        /// Where it would end.
        need: u32,
        /// Where the packet around it ends.
        end: u32,
    },
    /// The frame has the header, but not within its private window.
    #[error("{header} at {at} reaches to {need}, but the window ends at {window}")]
    BeyondWindow {
        /// Of what kind it is.
        header: Header,
        /// Where it begins.
        at: u32,
        /// Where it ends.
        need: u32,
        /// Where the window ends.
        window: u32,
    },
    /// A length field that is too small for the header it is in.
    #[error("{header} at {at} has a length field that says {len}")]
    Length {
        /// Of what kind it is.
        header: Header,
        /// Where it begins.
        at: u32,
        /// The length it claims.
        len: u32,
    },
    /// An IP header whose version is not the one that its EtherType announces.
    #[error("{header} at {at} has version {version}")]
    Version {
        /// What was announced.
        header: Header,
        /// Where it begins.
        at: u32,
        /// What the header says.
        version: u8,
    },
    /// More IPv6 extension headers than any sender has a use for, or two fragment headers: what lies
    /// behind them is hidden rather than sent.
    #[error("one IPv6 extension header too many at {at}")]
    TooManyExtensions {
        /// Where the one too many begins.
        at: u32,
    },
}

/// A kind of header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Header {
    /// Ethernet.
    Ethernet,
    /// A VLAN tag.
    Vlan,
    /// ARP.
    Arp,
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
    /// An IPv6 extension header.
    Ipv6Extension,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP or `ICMPv6`.
    Icmp,
    /// GRE, NVGRE included.
    Gre,
    /// VXLAN.
    Vxlan,
    /// Geneve.
    Geneve,
}

impl ParseError {
    /// Under which cause the packet is dropped and counted.
    #[must_use]
    pub const fn cause(self) -> DropCause {
        match self {
            Self::CutShort { header: Header::Ethernet, at: 0, .. } => DropCause::Runt,
            Self::BeyondWindow { .. } => DropCause::HeaderBeyondWindow,
            Self::CutShort { .. } | Self::Length { .. } | Self::Version { .. } | Self::TooManyExtensions { .. } => {
                DropCause::Malformed
            }
        }
    }
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ethernet => "Ethernet",
            Self::Vlan => "VLAN tag",
            Self::Arp => "ARP",
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
            Self::Ipv6Extension => "IPv6 extension header",
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Icmp => "ICMP",
            Self::Gre => "GRE",
            Self::Vxlan => "VXLAN",
            Self::Geneve => "Geneve",
        })
    }
}
