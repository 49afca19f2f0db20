// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Fragments.

use std::ops::Range;

use packet::{Field, Fragment};

use super::change::{mend, sum};
use super::fields::{address_place, field};
use super::{Group, ICMP, ICMPV6, Ip, TCP, UDP, half, read, word};

/// Makes the transport checksum of a first fragment follow what has changed: of its datagram only a part is here.
pub(crate) fn follow_first(before: &[u8], bytes: &mut [u8]) {
    let (Ok(was), Ok(is)) = (read(before), read(bytes)) else { return };
    let (Some(old), Some(new)) = (&was.inner.ip, &is.inner.ip) else { return };
    if new.fragment != Fragment::First || old.fragment != Fragment::First {
        return;
    }
    let (offset, pseudo) = match new.protocol {
        TCP => (16, true),
        UDP => (6, true),
        ICMP if new.version == 4 => (2, false),
        ICMPV6 if new.version == 6 => (2, true),
        _ => return,
    };
    let covered = |bytes: &[u8], group: &Group, ip: &Ip| {
        let (addresses, len) = address_place(ip.version, group.network, 0);
        let pseudo = if pseudo { sum(&bytes[addresses..addresses + 2 * len], 0).into() } else { 0 };
        // Ports, or the identifier.
        let ports = if matches!(ip.protocol, TCP | UDP) { 0 } else { 4 };
        pseudo + i64::from(sum(&bytes[ip.transport + ports..ip.transport + ports + 4], 0))
    };
    let changed = covered(before, &was.inner, old) - covered(bytes, &is.inner, new);
    let at = new.transport + offset;
    if changed == 0 || new.protocol == UDP && bytes[at..at + 2] == [0, 0] {
        return;
    }
    let sum = (i64::from(half(bytes, at).unwrap()) + changed).rem_euclid(0xffff);
    let sum = if sum == 0 && matches!(new.protocol, TCP | UDP) { 0xffff } else { sum };
    bytes[at..at + 2].copy_from_slice(&u16::try_from(sum).unwrap().to_be_bytes());
    mend(bytes);
}

/// What a fragment is a part of, and which part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// Tunnel, addresses, protocol, identification.
    pub(crate) datagram: [u128; 7],
    pub(crate) is_first: bool,
    pub(crate) is_last: bool,
    /// The bytes of the datagram that it has.
    pub(crate) bytes: Range<usize>,
}

/// Whether the inner packet is a fragment, and of what.
pub(crate) fn part(bytes: &[u8]) -> Option<Part> {
    let view = read(bytes).ok()?;
    let ip = view.inner.ip.as_ref().filter(|ip| ip.fragment != Fragment::Whole)?;
    let at = view.inner.network;
    let (id, offset, more, start) = if ip.version == 4 {
        let field = half(bytes, at + 6).unwrap();
        let start = at + usize::from(bytes[at] & 15) * 4;
        (half(bytes, at + 4).unwrap().into(), usize::from(field & 0x1fff) * 8, field & 0x2000 != 0, start)
    } else {
        // The fragment header is the only one here.
        let header = at + 40;
        let field = half(bytes, header + 2).unwrap();
        (word(bytes, header + 4).unwrap(), usize::from(field & 0xfff8), field & 1 != 0, header + 8)
    };
    let value = |of| field(bytes, of);
    Some(Part {
        datagram: [
            value(Field::Tunnel),
            value(Field::TunnelKey),
            value(Field::IpVersion),
            value(Field::IpSrc),
            value(Field::IpDst),
            value(Field::IpProto),
            id.into(),
        ],
        is_first: ip.fragment == Fragment::First,
        is_last: !more,
        bytes: offset..offset + (ip.end - start),
    })
}

/// Cuts a packet without tunnel into fragments of its IP payload.
pub(crate) fn cut(bytes: &[u8], id: u16, pieces: &[Range<usize>]) -> Option<Vec<Vec<u8>>> {
    let view = read(bytes).ok().filter(|view| view.outer.is_none())?;
    let ip = view.inner.ip?;
    let (at, payload) = (view.inner.network, &bytes[ip.transport..ip.end]);
    let piece = |range: &Range<usize>| {
        let end = range.end.min(payload.len());
        let more = end < payload.len();
        let start = range.start;
        let part = payload.get(start..end).filter(|part| !part.is_empty())?;
        let mut piece = bytes[..ip.transport].to_vec();
        let offset = u16::try_from(start).unwrap();
        if ip.version == 4 {
            let len = u16::try_from(20 + part.len()).unwrap();
            let more_flag = u16::from(more) << 13;
            let field = (offset / 8) | more_flag;
            for (place, value) in [(2, len), (4, id), (6, field)] {
                piece[at + place..at + place + 2].copy_from_slice(&value.to_be_bytes());
            }
        } else {
            let len = u16::try_from(8 + part.len()).unwrap();
            piece[at + 4..at + 6].copy_from_slice(&len.to_be_bytes());
            piece[at + 6] = 44;
            piece.extend([ip.protocol, 0]);
            piece.extend((offset | u16::from(more)).to_be_bytes());
            piece.extend(u32::from(id).to_be_bytes());
        }
        piece.extend(part);
        mend(&mut piece);
        Some(piece)
    };
    pieces.iter().map(piece).collect()
}
