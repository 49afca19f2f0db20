// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Frames as values: stacks of headers that can be built, together with what a parser must find.
//!
//! The bytes have right lengths and checksums, as far as the pieces of a fragmented packet have any.

use crate::{Field, Layout, OuterLayout, Parsed, Transient, Tunnel, Ufid, ufid::VLAN_PRESENT};

/// A whole frame.
#[derive(Clone, Debug)]
pub(crate) struct Stack {
    pub(crate) outer: Option<Outer>,
    pub(crate) inner: Group,
    /// Bytes behind the inner packet that belong to no header's length.
    pub(crate) padding: usize,
}

/// A group of headers and what the last of them carries.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    /// `None` only in [`Shim::Gre`].
    pub(crate) link: Option<Link>,
    pub(crate) body: Body,
}

#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) destination: [u8; 6],
    pub(crate) source: [u8; 6],
    /// Types and contents.
    pub(crate) tags: Vec<(u16, u16)>,
}

#[derive(Clone, Debug)]
pub(crate) enum Body {
    Arp {
        operation: u8,
        sender: u32,
        target: u32,
    },
    Ip(Ip),
    /// A type or an 802.3 length, neither of the above nor a tag's.
    Other {
        ether_type: u16,
        payload: Vec<u8>,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct Ip {
    pub(crate) v6: bool,
    /// Of IPv4 the low 32 bits.
    pub(crate) source: u128,
    pub(crate) destination: u128,
    pub(crate) tos: u8,
    pub(crate) ttl: u8,
    /// Of IPv4 the low 16 bits.
    pub(crate) id: u32,
    /// Words of IPv4 options, at most ten.
    pub(crate) options: Vec<[u8; 4]>,
    /// IPv6 extension headers before and behind the fragment header: type, and length in its unit.
    pub(crate) extensions: [Vec<(u8, u8)>; 2],
    pub(crate) piece: Piece,
    pub(crate) l4: L4,
    pub(crate) payload: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Whole,
    /// IPv6 with a fragment header all the same; in IPv4 like `Whole`.
    Atomic,
    First,
    Later {
        eights: u16,
        more: bool,
    },
}

#[derive(Clone, Debug)]
pub(crate) enum L4 {
    Tcp {
        ports: [u16; 2],
        seq: u32,
        ack: u32,
        flags: u8,
        options: Vec<[u8; 4]>,
    },
    Udp {
        ports: [u16; 2],
    },
    /// ICMP or ICMPv6, as the IP version is.
    Icmp {
        kind: u8,
        code: u8,
        id: u16,
    },
    /// None of the above, and no extension header in IPv6.
    Other {
        protocol: u8,
    },
}

/// Around the inner group. The body of `group` is IP; its L4 header and payload are ignored.
#[derive(Clone, Debug)]
pub(crate) struct Outer {
    pub(crate) group: Group,
    pub(crate) shim: Shim,
    pub(crate) src_port: u16,
}

#[derive(Clone, Debug)]
pub(crate) enum Shim {
    Vxlan {
        vni: u32,
    },
    Geneve {
        vni: u32,
        options: Vec<[u8; 4]>,
    },
    Nvgre {
        subnet: u32,
        flow: u8,
        optional: [bool; 2],
    },
    /// Key, and whether there are a checksum and a sequence number.
    Gre {
        key: Option<u32>,
        optional: [bool; 2],
    },
}

/// A frame, and what [`parse`](crate::parse::parse) must say of it if all of it is in the window.
#[derive(Clone, Debug)]
pub(crate) struct Built {
    pub(crate) bytes: Vec<u8>,
    pub(crate) parsed: Parsed,
}

impl Stack {
    pub(crate) fn build(&self) -> Built {
        let mut inner = self.inner.build();
        inner.bytes.resize(inner.bytes.len() + self.padding, 0xfa);
        match &self.outer {
            None => inner,
            Some(outer) => outer.around(&inner, &self.inner),
        }
    }
}

impl Outer {
    /// Whether a parser sees that this is a tunnel.
    pub(crate) fn is_visible(&self) -> bool {
        let tags = self.group.link.as_ref().map_or(0, |link| link.tags.len());
        tags <= 1 && matches!(self.ip().piece, Piece::Whole | Piece::Atomic)
    }

    fn ip(&self) -> &Ip {
        match &self.group.body {
            Body::Ip(ip) => ip,
            _ => panic!("an outer group without IP"),
        }
    }

    fn around(&self, inner: &Built, inside: &Group) -> Built {
        let shim = self.shim.bytes(inside);
        let (l4, l4_len) = match self.shim {
            Shim::Vxlan { .. } => (L4::Udp { ports: [self.src_port, 4789] }, 8),
            Shim::Geneve { .. } => (L4::Udp { ports: [self.src_port, 6081] }, 8),
            Shim::Nvgre { .. } | Shim::Gre { .. } => (L4::Other { protocol: 47 }, 0),
        };
        let payload = [&shim[..], &inner.bytes].concat();
        let body = Body::Ip(Ip { l4, payload, ..self.ip().clone() });
        let around = Group { link: self.group.link.clone(), body }.build();
        if !self.is_visible() {
            return around;
        }
        let transport = usize::from(around.parsed.layout.end) - l4_len;
        let base = transport + l4_len + shim.len();
        let (tunnel, key) = self.shim.identity();
        let layout = OuterLayout {
            tunnel,
            vlan: around.parsed.layout.vlans == 1,
            ip: around.parsed.layout.network.unwrap(),
            transport: transport.try_into().unwrap(),
            end: base.try_into().unwrap(),
        };
        let mut ufid = inner.parsed.ufid.with(Field::Tunnel, tunnel as u128).with(Field::TunnelKey, key.into());
        for (to, from) in [
            (Field::OuterEthDst, Field::EthDst),
            (Field::OuterEthSrc, Field::EthSrc),
            (Field::OuterVlan, Field::Vlan),
            (Field::OuterIpVersion, Field::IpVersion),
            (Field::OuterIpSrc, Field::IpSrc),
            (Field::OuterIpDst, Field::IpDst),
            (Field::OuterDscp, Field::Dscp),
        ] {
            ufid.set(to, around.parsed.ufid.get(from));
        }
        let transient = Transient {
            outer_ttl: around.parsed.transient.ttl,
            outer_ecn: around.parsed.transient.ecn,
            outer_src_port: if l4_len == 0 { 0 } else { self.src_port },
            ..inner.parsed.transient
        };
        let layout = Layout { outer: Some(layout), ..shifted(inner.parsed.layout, base) };
        Built { bytes: around.bytes, parsed: Parsed { layout, ufid, transient } }
    }
}

impl Shim {
    fn identity(&self) -> (Tunnel, u32) {
        match *self {
            Self::Vxlan { vni } => (Tunnel::Vxlan, vni),
            Self::Geneve { vni, .. } => (Tunnel::Geneve, vni),
            Self::Nvgre { subnet, .. } => (Tunnel::Nvgre, subnet),
            Self::Gre { key, .. } => (Tunnel::Gre, key.unwrap_or(0)),
        }
    }

    fn bytes(&self, inside: &Group) -> Vec<u8> {
        let gre = |key: Option<u32>, [sum, seq]: [bool; 2], ether_type: u16| {
            let flags = u8::from(sum) << 7 | u8::from(key.is_some()) << 5 | u8::from(seq) << 4;
            let mut bytes = vec![flags, 0];
            bytes.extend(ether_type.to_be_bytes());
            bytes.extend(sum.then_some([0xc5; 4]).into_iter().flatten());
            bytes.extend(key.map(u32::to_be_bytes).into_iter().flatten());
            bytes.extend(seq.then_some([0x5e; 4]).into_iter().flatten());
            bytes
        };
        let in_udp = |first: [u8; 4], vni: u32| [first, (vni << 8 | 0x77).to_be_bytes()].concat();
        match self {
            Self::Vxlan { vni } => in_udp([0x08, 0, 0, 0], *vni),
            Self::Geneve { vni, options } => {
                let words = u8::try_from(options.len()).unwrap();
                [in_udp([words, 0, 0x65, 0x58], *vni), options.concat()].concat()
            }
            Self::Nvgre { subnet, flow, optional } => gre(Some(subnet << 8 | u32::from(*flow)), *optional, 0x6558),
            Self::Gre { key, optional } => gre(*key, *optional, inside.body.ether_type()),
        }
    }
}

impl Group {
    fn build(&self) -> Built {
        let mut bytes = Vec::new();
        let ether_type = self.body.ether_type();
        let known = if ether_type < 0x600 { 0 } else { ether_type };
        let mut ufid = Ufid::ZERO.with(Field::EtherType, known.into());
        let mut layout = Layout::default();
        if let Some(link) = &self.link {
            layout.ethernet = Some(0);
            bytes.extend(link.destination);
            bytes.extend(link.source);
            for (tag_type, contents) in &link.tags {
                bytes.extend(tag_type.to_be_bytes());
                bytes.extend(contents.to_be_bytes());
            }
            bytes.extend(ether_type.to_be_bytes());
            let number = |mac: [u8; 6]| mac.into_iter().fold(0, |sum, octet| sum << 8 | u128::from(octet));
            ufid.set(Field::EthDst, number(link.destination));
            ufid.set(Field::EthSrc, number(link.source));
            layout.vlans = link.tags.len().min(2).try_into().unwrap();
            for (field, (_, contents)) in [Field::Vlan, Field::SecondVlan].into_iter().zip(&link.tags) {
                ufid.set(field, (contents & !VLAN_PRESENT | VLAN_PRESENT).into());
            }
            if let Some((third, _)) = link.tags.get(2) {
                layout.end = 14 + 2 * 4;
                bytes.extend(self.body.bytes().bytes);
                let ufid = ufid.with(Field::EtherType, (*third).into());
                return Built { bytes, parsed: Parsed { layout, ufid, ..Parsed::default() } };
            }
        }
        let start = bytes.len();
        let body = self.body.bytes();
        bytes.extend(&body.bytes);
        for field in Field::ALL {
            if body.parsed.ufid.get(field) != 0 {
                ufid.set(field, body.parsed.ufid.get(field));
            }
        }
        let (ethernet, vlans) = (layout.ethernet, layout.vlans);
        let layout = Layout { ethernet, vlans, ..shifted(body.parsed.layout, start) };
        Built { bytes, parsed: Parsed { layout, ufid, transient: body.parsed.transient } }
    }
}

impl Body {
    pub(crate) fn ether_type(&self) -> u16 {
        match self {
            Self::Arp { .. } => 0x0806,
            Self::Ip(ip) if ip.v6 => 0x86dd,
            Self::Ip(_) => 0x0800,
            Self::Other { ether_type, .. } => *ether_type,
        }
    }

    fn bytes(&self) -> Built {
        match self {
            Self::Ip(ip) => super::stack_ip::build(ip),
            Self::Other { payload, .. } => Built { bytes: payload.clone(), parsed: Parsed::default() },
            Self::Arp { operation, sender, target } => {
                let mut bytes = vec![0, 1, 8, 0, 6, 4, 0, *operation];
                bytes.extend([0xa5; 6]);
                bytes.extend(sender.to_be_bytes());
                bytes.extend([0xa7; 6]);
                bytes.extend(target.to_be_bytes());
                let ufid = Ufid::ZERO
                    .with(Field::IpProto, (*operation).into())
                    .with(Field::IpSrc, (*sender).into())
                    .with(Field::IpDst, (*target).into());
                let layout = Layout { network: Some(0), end: 28, ..Layout::default() };
                Built { bytes, parsed: Parsed { layout, ufid, ..Parsed::default() } }
            }
        }
    }
}

/// The same layout further back.
fn shifted(layout: Layout, base: usize) -> Layout {
    let base = u16::try_from(base).unwrap();
    let shift = |at: Option<u16>| at.map(|at| at + base);
    Layout {
        ethernet: shift(layout.ethernet),
        network: shift(layout.network),
        transport: shift(layout.transport),
        fragment_header: shift(layout.fragment_header),
        end: layout.end + base,
        ..layout
    }
}
