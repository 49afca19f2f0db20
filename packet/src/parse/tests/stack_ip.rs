// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The IP part of a [`Stack`](super::stack::Stack).

use super::stack::{Built, Ip, L4, Piece};
use crate::{Field, Fragment, Layout, Parsed, Transient, Ufid, checksum::Sum};

/// What a transport header contributes.
struct Transport {
    bytes: Vec<u8>,
    /// Where its checksum is.
    sum_at: usize,
    protocol: u8,
    fields: [u16; 2],
    /// How much of it a parser understands.
    understood: usize,
}

pub(super) fn build(ip: &Ip) -> Built {
    let later = matches!(ip.piece, Piece::Later { .. });
    let transport = transport(ip);
    let mut l4 = transport.bytes.clone();
    l4.extend(&ip.payload);
    if matches!(ip.piece, Piece::Whole | Piece::Atomic) && transport.understood > 0 {
        let sum = sum(ip, transport.protocol, &l4).to_be_bytes();
        l4[transport.sum_at..][..2].copy_from_slice(&sum);
    }
    if later {
        l4.clone_from(&ip.payload);
    }
    let (mut bytes, protocol, fragment_header) =
        if ip.v6 { v6(ip, transport.protocol, l4.len()) } else { v4(ip, transport.protocol, l4.len()) };
    let at = u16::try_from(bytes.len()).unwrap();
    bytes.extend(&l4);

    let is_known = transport.understood > 0 && !later;
    let fields = if is_known { transport.fields } else { [0; 2] };
    let mask = if ip.v6 { u128::MAX } else { 0xffff_ffff };
    let ufid = Ufid::ZERO
        .with(Field::IpVersion, if ip.v6 { 6 } else { 4 })
        .with(Field::IpSrc, ip.source & mask)
        .with(Field::IpDst, ip.destination & mask)
        .with(Field::IpProto, protocol.into())
        .with(Field::Dscp, (ip.tos >> 2).into())
        .with(Field::Fragment, kind(ip.piece) as u128)
        .with(Field::L4Src, fields[0].into())
        .with(Field::L4Dst, fields[1].into());
    let layout = Layout {
        network: Some(0),
        transport: is_known.then_some(at),
        fragment_header,
        end: if is_known { at + u16::try_from(transport.understood).unwrap() } else { at },
        ..Layout::default()
    };
    let (tcp_flags, tcp_seq, tcp_ack) = match ip.l4 {
        L4::Tcp { flags, seq, ack, .. } if !later => (flags, seq, ack),
        _ => (0, 0, 0),
    };
    let transient = Transient {
        ttl: ip.ttl,
        ecn: ip.tos & 3,
        tcp_flags,
        tcp_seq,
        tcp_ack,
        more_fragments: matches!(ip.piece, Piece::First | Piece::Later { more: true, .. }),
        fragment_offset: if let Piece::Later { eights, .. } = ip.piece { eights * 8 } else { 0 },
        ip_id: match (ip.v6, fragment_header) {
            (false, _) => ip.id & 0xffff,
            (true, None) => 0,
            (true, Some(_)) => ip.id,
        },
        ip_len: bytes.len().try_into().unwrap(),
        l4_payload_len: ip.payload.len().try_into().unwrap(),
        ..Transient::default()
    };
    Built { bytes, parsed: Parsed { layout, ufid, transient } }
}

fn transport(ip: &Ip) -> Transport {
    let mut bytes = Vec::new();
    match &ip.l4 {
        L4::Tcp { ports, seq, ack, flags, options } => {
            bytes.extend(ports.map(u16::to_be_bytes).concat());
            bytes.extend([*seq, *ack].map(u32::to_be_bytes).concat());
            bytes.extend([u8::try_from(5 + options.len()).unwrap() << 4, *flags, 0x11, 0x22, 0, 0, 0, 0]);
            bytes.extend(options.concat());
            Transport { bytes, sum_at: 16, protocol: 6, fields: *ports, understood: 20 }
        }
        L4::Udp { ports } => {
            let rest = if ip.piece == Piece::First { 800 } else { 0 };
            let len = u16::try_from(8 + ip.payload.len() + rest).unwrap();
            bytes.extend([ports[0], ports[1], len, 0].map(u16::to_be_bytes).concat());
            Transport { bytes, sum_at: 6, protocol: 17, fields: *ports, understood: 8 }
        }
        L4::Icmp { kind, code, id } => {
            bytes.extend([*kind, *code, 0, 0]);
            bytes.extend(id.to_be_bytes());
            bytes.extend([0x51, 0x52]);
            let is_echo = if ip.v6 { matches!(kind, 128 | 129) } else { matches!(kind, 0 | 8) };
            let fields = [if is_echo { *id } else { 0 }, u16::from_be_bytes([*kind, *code])];
            let protocol = if ip.v6 { 58 } else { 1 };
            Transport { bytes, sum_at: 2, protocol, fields, understood: 8 }
        }
        L4::Other { protocol } => Transport { bytes, sum_at: 0, protocol: *protocol, fields: [0; 2], understood: 0 },
    }
}

/// The transport checksum, the pseudo-header included except for ICMP over IPv4.
fn sum(ip: &Ip, protocol: u8, l4: &[u8]) -> u16 {
    let mut sum = Sum::new();
    if protocol != 1 {
        for address in [ip.source, ip.destination] {
            let bytes = address.to_be_bytes();
            sum.add(if ip.v6 { &bytes } else { &bytes[12..] });
        }
        sum.add_value(protocol.into());
        sum.add_value(l4.len().try_into().unwrap());
    }
    sum.add(l4);
    if protocol == 17 { sum.transport_checksum() } else { sum.checksum() }
}

fn v4(ip: &Ip, protocol: u8, rest: usize) -> (Vec<u8>, u8, Option<u16>) {
    let words = 5 + ip.options.len();
    let fragment = match ip.piece {
        Piece::Whole | Piece::Atomic => 0x4000,
        Piece::First => 0x2000,
        Piece::Later { eights, more } => eights | u16::from(more) << 13,
    };
    let id = u16::try_from(ip.id & 0xffff).unwrap();
    let mut bytes = vec![0x40 | u8::try_from(words).unwrap(), ip.tos];
    bytes.extend([u16::try_from(words * 4 + rest).unwrap(), id, fragment].map(u16::to_be_bytes).concat());
    bytes.extend([ip.ttl, protocol, 0, 0]);
    bytes.extend(&ip.source.to_be_bytes()[12..]);
    bytes.extend(&ip.destination.to_be_bytes()[12..]);
    bytes.extend(ip.options.concat());
    let sum = crate::checksum::checksum(&bytes).to_be_bytes();
    bytes[10..12].copy_from_slice(&sum);
    (bytes, protocol, None)
}

/// The header with its extensions, the protocol behind them, and where the fragment header is.
fn v6(ip: &Ip, protocol: u8, rest: usize) -> (Vec<u8>, u8, Option<u16>) {
    const FRAGMENT: u8 = 44;
    let [before, behind] = &ip.extensions;
    let mut chain = before.clone();
    let has_fragment_header = ip.piece != Piece::Whole;
    if has_fragment_header {
        chain.push((FRAGMENT, 0));
    }
    let mut protocol = protocol;
    if matches!(ip.piece, Piece::Later { .. }) {
        // The others are in the first fragment.
        protocol = behind.first().map_or(protocol, |(kind, _)| *kind);
    } else {
        chain.extend(behind);
    }
    let mut extensions = Vec::new();
    let mut fragment_header = None;
    for (i, (kind, len)) in chain.iter().enumerate() {
        let next = chain.get(i + 1).map_or(protocol, |(kind, _)| *kind);
        match *kind {
            FRAGMENT => {
                fragment_header = Some(u16::try_from(40 + extensions.len()).unwrap());
                let field = match ip.piece {
                    Piece::Whole | Piece::Atomic => 0,
                    Piece::First => 1,
                    Piece::Later { eights, more } => eights << 3 | u16::from(more),
                };
                extensions.extend([next, 0]);
                extensions.extend(field.to_be_bytes());
                extensions.extend(ip.id.to_be_bytes());
            }
            kind => {
                let bytes = if kind == 51 { (usize::from(*len) + 2) * 4 } else { (usize::from(*len) + 1) * 8 };
                extensions.extend([next, *len]);
                extensions.resize(extensions.len() + bytes - 2, 0);
            }
        }
    }
    let mut bytes = vec![0x60 | ip.tos >> 4, ip.tos << 4, 0xab, 0xcd];
    bytes.extend(u16::try_from(extensions.len() + rest).unwrap().to_be_bytes());
    bytes.extend([chain.first().map_or(protocol, |(kind, _)| *kind), ip.ttl]);
    bytes.extend(ip.source.to_be_bytes());
    bytes.extend(ip.destination.to_be_bytes());
    bytes.extend(extensions);
    (bytes, protocol, fragment_header)
}

fn kind(piece: Piece) -> Fragment {
    match piece {
        Piece::Whole | Piece::Atomic => Fragment::Whole,
        Piece::First => Fragment::First,
        Piece::Later { .. } => Fragment::Later,
    }
}
