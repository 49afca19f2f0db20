// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Frames as plain structures, written out in full each time: what the oracle works on.

use core::net::IpAddr;

use crate::{Checksum, Field, Fragment, Layout, Offload, OuterLayout, Tunnel, Ufid};

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Frame {
    pub(super) outer: Option<Outer>,
    pub(super) macs: [[u8; 6]; 2],
    pub(super) tags: Vec<[u16; 2]>,
    pub(super) network: Network,
    /// Ethernet padding.
    pub(super) padding: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Outer {
    pub(super) macs: [[u8; 6]; 2],
    pub(super) vlan: Option<u16>,
    pub(super) ip: Ip,
    pub(super) tunnel: Tunnel,
    pub(super) key: u32,
    pub(super) src_port: u16,
    /// Of a UDP or GRE checksum.
    pub(super) sum: Sum,
    pub(super) geneve_options: Vec<u8>,
    pub(super) flow_id: u8,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Network {
    Other(u16, Vec<u8>),
    Ip(Ip, Transport),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ip {
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    pub(super) dscp: u8,
    pub(super) ecn: u8,
    pub(super) ttl: u8,
    /// IPv4 identification and fragment offset, or IPv6 flow label.
    pub(super) word: u32,
    /// IPv4 options, or an IPv6 destination options header without its first byte.
    pub(super) options: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Sum {
    Zero,
    Full,
    Unfinished,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Transport {
    pub(super) proto: u8,
    /// Ports, or type and code and echo identifier.
    pub(super) src: u16,
    pub(super) dst: u16,
    pub(super) sum: Sum,
    /// A later fragment of IPv4: no header at all.
    pub(super) later: bool,
    pub(super) payload: Vec<u8>,
}

/// The sum of RFC 1071, a word at a time.
fn ones(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn store(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

impl Ip {
    pub(super) fn version(&self) -> u8 {
        if self.src.is_ipv4() { 4 } else { 6 }
    }

    fn header_len(&self) -> usize {
        let fixed = if self.src.is_ipv4() { 20 } else { 40 };
        fixed + self.options.len() + usize::from(self.src.is_ipv6() && !self.options.is_empty())
    }

    /// The header before `payload`, and with it.
    fn write(&self, proto: u8, payload: &[u8]) -> Vec<u8> {
        let class = self.dscp << 2 | self.ecn;
        let mut bytes = vec![];
        if self.src.is_ipv4() {
            let len = (self.header_len() + payload.len()) as u16;
            bytes.extend([0x40 | (self.header_len() / 4) as u8, class]);
            bytes.extend(len.to_be_bytes());
            bytes.extend(self.word.to_be_bytes());
            bytes.extend([self.ttl, proto, 0, 0]);
            bytes.extend(octets(self.src));
            bytes.extend(octets(self.dst));
            bytes.extend(&self.options);
            let sum = !ones(&bytes);
            store(&mut bytes, 10, sum);
        } else {
            let len = (self.header_len() - 40 + payload.len()) as u16;
            bytes.extend((6 << 28 | u32::from(class) << 20 | self.word).to_be_bytes());
            bytes.extend(len.to_be_bytes());
            bytes.extend([if self.options.is_empty() { proto } else { 60 }, self.ttl]);
            bytes.extend(octets(self.src));
            bytes.extend(octets(self.dst));
            if !self.options.is_empty() {
                bytes.push(proto);
                bytes.extend(&self.options);
            }
        }
        bytes.extend(payload);
        bytes
    }

    fn pseudo(&self, proto: u8, len: usize) -> Vec<u8> {
        let mut bytes = [octets(self.src), octets(self.dst)].concat();
        bytes.extend([0, proto]);
        bytes.extend((len as u16).to_be_bytes());
        bytes
    }

    /// Stores the checksum at `at` of a transport header and its payload.
    fn sum(&self, proto: u8, bytes: &mut [u8], at: usize, sum: Sum) {
        store(bytes, at, 0);
        let pseudo = if proto == 1 { vec![] } else { self.pseudo(proto, bytes.len()) };
        let value = match sum {
            Sum::Zero => 0,
            Sum::Unfinished => ones(&pseudo),
            Sum::Full => match !ones(&[&pseudo[..], bytes].concat()) {
                0 if matches!(proto, 6 | 17) => 0xffff,
                sum => sum,
            },
        };
        store(bytes, at, value);
    }
}

impl Transport {
    fn write(&self, ip: &Ip) -> Vec<u8> {
        if self.later {
            return self.payload.clone();
        }
        let mut bytes = vec![];
        bytes.extend(
            if matches!(self.proto, 6 | 17) { [self.src, self.dst] } else { [self.dst, 0] }
                .map(u16::to_be_bytes)
                .as_flattened(),
        );
        let at = match self.proto {
            6 => {
                bytes.extend([1, 2, 3, 4, 5, 6, 7, 8, 0x50, 0x18, 9, 10, 0, 0, 0, 0]);
                16
            }
            17 => {
                bytes.extend(((8 + self.payload.len()) as u16).to_be_bytes());
                bytes.extend([0, 0]);
                6
            }
            1 | 58 => {
                bytes.extend(self.src.to_be_bytes());
                bytes.extend([0, 7]);
                2
            }
            _ => return self.payload.clone(),
        };
        bytes.extend(&self.payload);
        ip.sum(self.proto, &mut bytes, at, self.sum);
        bytes
    }

    pub(super) fn echo(&self) -> bool {
        matches!((self.proto, self.dst >> 8), (1, 0 | 8) | (58, 128 | 129))
    }
}

impl Frame {
    pub(super) fn bytes(&self) -> Vec<u8> {
        if let (Some(outer @ Outer { tunnel: Tunnel::Gre, .. }), Network::Ip(ip, transport)) =
            (&self.outer, &self.network)
        {
            return outer.write(ip.write(transport.proto, &transport.write(ip)));
        }
        let mut inner = self.macs.concat();
        inner.extend(self.tags.as_flattened().iter().flat_map(|word| word.to_be_bytes()));
        match &self.network {
            Network::Other(ether_type, payload) => {
                inner.extend(ether_type.to_be_bytes());
                inner.extend(payload);
            }
            Network::Ip(ip, transport) => {
                inner.extend(if ip.version() == 4 { [8, 0] } else { [0x86, 0xdd] });
                inner.extend(ip.write(transport.proto, &transport.write(ip)));
            }
        }
        inner.extend(vec![0; self.padding]);
        match &self.outer {
            Some(outer) => outer.write(inner),
            None => inner,
        }
    }

    /// Whether it is in a tunnel without an Ethernet header.
    pub(super) fn gre(&self) -> bool {
        self.outer.as_ref().is_some_and(|outer| outer.tunnel == Tunnel::Gre)
    }

    pub(super) fn layout(&self) -> Layout {
        let outer = self.outer.as_ref().map(Outer::layout);
        let begin = outer.map_or(0, |outer| outer.end);
        let ethernet = (!self.gre()).then_some(begin);
        let network = begin + ethernet.map_or(0, |_| 14 + 4 * self.tags.len() as u16);
        let mut layout = Layout { outer, ethernet, vlans: self.tags.len() as u8, end: network, ..Layout::default() };
        if let Network::Ip(ip, transport) = &self.network {
            layout.network = Some(network);
            layout.end = network + ip.header_len() as u16;
            if !transport.later && matches!(transport.proto, 1 | 6 | 17 | 58) {
                layout.transport = Some(layout.end);
                layout.end += if transport.proto == 6 { 20 } else { 8 };
            }
        }
        layout
    }

    pub(super) fn get(&self, field: Field) -> u128 {
        let mac = |mac: [u8; 6]| mac.iter().fold(0, |value, byte| value << 8 | u128::from(*byte));
        let address = |address| match address {
            IpAddr::V4(address) => address.to_bits().into(),
            IpAddr::V6(address) => address.to_bits(),
        };
        let tag = |tci: u16| u128::from(tci | 0x1000);
        let (ip, transport) = match &self.network {
            Network::Ip(ip, transport) => (Some(ip), Some(transport)),
            Network::Other(..) => (None, None),
        };
        let outer = self.outer.as_ref();
        let value = match field {
            Field::EthDst => Some(mac(self.macs[0])),
            Field::EthSrc => Some(mac(self.macs[1])),
            Field::EtherType => Some(match (&self.network, ip) {
                (Network::Other(ether_type, _), _) => (*ether_type).into(),
                (_, Some(ip)) if ip.version() == 4 => 0x800,
                _ => 0x86dd,
            }),
            Field::Vlan => self.tags.first().map(|[_, tci]| tag(*tci)),
            Field::SecondVlan => self.tags.get(1).map(|[_, tci]| tag(*tci)),
            Field::IpVersion => ip.map(|ip| ip.version().into()),
            Field::IpSrc => ip.map(|ip| address(ip.src)),
            Field::IpDst => ip.map(|ip| address(ip.dst)),
            Field::IpProto => transport.map(|transport| transport.proto.into()),
            Field::Dscp => ip.map(|ip| ip.dscp.into()),
            Field::Fragment => transport.map(|t| (if t.later { Fragment::Later } else { Fragment::Whole }) as u128),
            Field::L4Src => transport.filter(|t| !t.later).map(|transport| transport.src.into()),
            Field::L4Dst => transport.filter(|t| !t.later).map(|transport| transport.dst.into()),
            Field::Tunnel => outer.map(|outer| outer.tunnel as u128),
            Field::TunnelKey => outer.map(|outer| outer.key.into()),
            Field::OuterEthDst => outer.map(|outer| mac(outer.macs[0])),
            Field::OuterEthSrc => outer.map(|outer| mac(outer.macs[1])),
            Field::OuterVlan => outer.and_then(|outer| outer.vlan).map(tag),
            Field::OuterIpVersion => outer.map(|outer| outer.ip.version().into()),
            Field::OuterIpSrc => outer.map(|outer| address(outer.ip.src)),
            Field::OuterIpDst => outer.map(|outer| address(outer.ip.dst)),
            Field::OuterDscp => outer.map(|outer| outer.ip.dscp.into()),
        };
        value.unwrap_or(0)
    }

    pub(super) fn ufid(&self) -> Ufid {
        Field::ALL.iter().fold(Ufid::ZERO, |ufid, field| ufid.with(*field, self.get(*field)))
    }

    pub(super) fn offload(&self) -> Offload {
        let layout = self.layout();
        let mut checksum = Checksum::Unknown;
        if let (Network::Ip(_, Transport { sum: Sum::Unfinished, proto, .. }), Some(start)) =
            (&self.network, layout.transport)
        {
            checksum = Checksum::Unfinished { start, offset: if *proto == 6 { 16 } else { 6 } };
        }
        if let (Some(Outer { sum: Sum::Unfinished, .. }), Some(outer)) = (&self.outer, layout.outer) {
            checksum = Checksum::Unfinished { start: outer.transport, offset: 6 };
        }
        Offload { checksum, segmentation: None }
    }
}

impl Outer {
    fn write(&self, inner: Vec<u8>) -> Vec<u8> {
        let mut bytes = self.macs.concat();
        if let Some(tci) = self.vlan {
            bytes.extend([0x81, 0]);
            bytes.extend(tci.to_be_bytes());
        }
        bytes.extend(if self.ip.version() == 4 { [8, 0] } else { [0x86, 0xdd] });
        let key = (self.key << 8).to_be_bytes();
        let mut shim = vec![];
        if matches!(self.tunnel, Tunnel::Nvgre | Tunnel::Gre) {
            let sum = self.sum == Sum::Full;
            shim.extend([if sum { 0xa0 } else { 0x20 }, 0]);
            shim.extend(match (self.tunnel, inner[0] >> 4) {
                (Tunnel::Nvgre, _) => [0x65, 0x58],
                (_, 4) => [8, 0],
                _ => [0x86, 0xdd],
            });
            shim.extend(vec![0; if sum { 4 } else { 0 }]);
            let gre = self.tunnel == Tunnel::Gre;
            shim.extend(if gre { self.key } else { self.key << 8 | u32::from(self.flow_id) }.to_be_bytes());
            shim.extend(inner);
            if sum {
                let value = !ones(&shim);
                store(&mut shim, 4, value);
            }
            bytes.extend(self.ip.write(47, &shim));
            return bytes;
        }
        let (port, options) =
            if self.tunnel == Tunnel::Vxlan { (4789_u16, &vec![]) } else { (6081, &self.geneve_options) };
        shim.extend(
            [self.src_port, port, (16 + options.len() + inner.len()) as u16, 0].map(u16::to_be_bytes).as_flattened(),
        );
        shim.extend(if self.tunnel == Tunnel::Vxlan {
            [8, 0, 0, 0]
        } else {
            [(options.len() / 4) as u8, 0, 0x65, 0x58]
        });
        shim.extend(key);
        shim.extend(options);
        shim.extend(inner);
        self.ip.sum(17, &mut shim, 6, self.sum);
        bytes.extend(self.ip.write(17, &shim));
        bytes
    }

    fn layout(&self) -> OuterLayout {
        let ip = 14 + if self.vlan.is_some() { 4 } else { 0 };
        let transport = ip + self.ip.header_len() as u16;
        let shim = match self.tunnel {
            Tunnel::Nvgre | Tunnel::Gre if self.sum == Sum::Full => 12,
            Tunnel::Nvgre | Tunnel::Gre => 8,
            Tunnel::Vxlan => 16,
            _ => 16 + self.geneve_options.len() as u16,
        };
        OuterLayout { tunnel: self.tunnel, vlan: self.vlan.is_some(), ip, transport, end: transport + shim }
    }
}
