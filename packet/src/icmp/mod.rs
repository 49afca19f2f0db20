// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! ICMP errors (RFC 792, 4443): the packet that one quotes is found and rewritten, and "too big" is built.
//!
//! # Theory of operation
//!
//! An error belongs to the flow of the packet that it quotes, in the other direction. Whoever translates
//! addresses must translate those in the quotation too, else its receiver does not know what failed
//! (RFC 5508). [`embedded`] says what is quoted, and [`rewrite_embedded`] changes it, with three checksums:
//! the quoted IPv4 header's; the quoted transport's, as far as it is quoted; and that of the error itself,
//! which covers them all. The latter follows by differences (RFC 1624), so that nothing beyond the window
//! is needed.
//!
//! ```text
//!  | Ethernet ... | IP | ICMP 8 | IP' (options', extensions') | TCP', UDP' or ICMP' ...  cut anywhere
//!                               '------------- embedded -----------------------
//! ```

mod build;
mod rewrite;
#[cfg(test)]
mod tests;

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use self::{build::too_big, rewrite::rewrite_embedded};
use crate::{
    Field, Fragment, Parsed, Ufid,
    parse::{
        quoted,
        transport::{ECHO, ECHO_V6, ICMP, ICMPV6, TCP, UDP},
    },
};

/// Length of the header of every error.
const LEN: usize = 8;

/// What an ICMP error quotes. Offsets are from the start of the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Embedded {
    /// Source address.
    pub src: IpAddr,
    /// Destination address, of the same version.
    pub dst: IpAddr,
    /// Protocol, behind all IPv6 extension headers.
    pub proto: u8,
    /// As [`Field::L4Src`]: source port of TCP and UDP, identifier of an echo, or 0.
    pub src_port: u16,
    /// As [`Field::L4Dst`]: destination port of TCP and UDP, type and code of ICMP, or 0.
    pub dst_port: u16,
    /// Where the quoted IP header lies, which ends the header of the error.
    pub ip: u16,
    /// Where the quoted transport header lies.
    pub transport: u16,
    /// Where the quoted part of the packet ends, in the frame.
    end: usize,
    ports: Ports,
}

/// What [`rewrite_embedded`] changes; the default is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EmbeddedEdit {
    /// The new source address.
    pub src: Option<IpAddr>,
    /// The new destination address.
    pub dst: Option<IpAddr>,
    /// The new source port, or identifier of an echo.
    pub src_port: Option<u16>,
    /// The new destination port.
    pub dst_port: Option<u16>,
}

/// Which ports there are to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ports {
    None,
    Both,
    /// An identifier.
    Echo,
}

/// Whether packets of this flow are ICMP errors, which quote a packet: types 3, 4, 5, 11 and 12, of
/// `ICMPv6` 1 to 4.
#[must_use]
pub fn is_error(ufid: &Ufid) -> bool {
    match (ufid.get(Field::IpVersion), ufid.get(Field::IpProto), ufid.get(Field::L4Dst) >> 8) {
        (4, proto, kind) if proto == u128::from(ICMP) => matches!(kind, 3 | 4 | 5 | 11 | 12),
        (6, proto, kind) if proto == u128::from(ICMPV6) => matches!(kind, 1..=4),
        _ => false,
    }
}

/// What the packet quotes, if it is an ICMP error. `None` if it is none, if what it quotes is no packet of
/// its version, is a later fragment, or does not reach beyond the ports within the window.
#[must_use]
pub fn embedded(window: &[u8], parsed: &Parsed) -> Option<Embedded> {
    if !is_error(&parsed.ufid) {
        return None;
    }
    let ip = usize::from(parsed.layout.transport?).checked_add(LEN)?;
    let end = ip.checked_add(usize::try_from(parsed.transient.l4_payload_len).ok()?)?;
    let window = window.get(..end).unwrap_or(window);
    let is_v4 = parsed.ufid.get(Field::IpVersion) == 4;
    let quoted = quoted(window, ip, if is_v4 { 4 } else { 6 })?;
    if quoted.fragment == Fragment::Later {
        return None;
    }
    let header = window.get(ip..)?;
    let (src, dst) = if is_v4 { addresses_v4(header)? } else { addresses_v6(header)? };
    let (src_port, dst_port, ports) = ports(window.get(quoted.transport..)?, quoted.protocol, is_v4)?;
    Some(Embedded {
        src,
        dst,
        proto: quoted.protocol,
        src_port,
        dst_port,
        ip: u16::try_from(ip).ok()?,
        transport: u16::try_from(quoted.transport).ok()?,
        end: end.min(quoted.packet_end),
        ports,
    })
}

fn ports(transport: &[u8], proto: u8, is_v4: bool) -> Option<(u16, u16, Ports)> {
    match proto {
        TCP | UDP => {
            let [s0, s1, d0, d1] = *transport.first_chunk()?;
            Some((u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1]), Ports::Both))
        }
        ICMP if is_v4 => message(transport, ECHO),
        ICMPV6 if !is_v4 => message(transport, ECHO_V6),
        _ => Some((0, 0, Ports::None)),
    }
}

fn message(transport: &[u8], echo: [u8; 2]) -> Option<(u16, u16, Ports)> {
    let [kind, code, _, _, id0, id1, _, _] = *transport.first_chunk()?;
    let dst_port = u16::from_be_bytes([kind, code]);
    if echo.contains(&kind) {
        Some((u16::from_be_bytes([id0, id1]), dst_port, Ports::Echo))
    } else {
        Some((0, dst_port, Ports::None))
    }
}

fn addresses_v4(header: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let [.., a, b, c, d, e, f, g, h] = *header.first_chunk::<20>()?;
    Some((Ipv4Addr::new(a, b, c, d).into(), Ipv4Addr::new(e, f, g, h).into()))
}

fn addresses_v6(header: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let [_, _, _, _, _, _, _, _, addresses @ ..] = header.first_chunk::<40>()?;
    let (source, destination) = (addresses.first_chunk::<16>()?, addresses.last_chunk::<16>()?);
    Some((Ipv6Addr::from(*source).into(), Ipv6Addr::from(*destination).into()))
}
