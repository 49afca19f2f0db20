// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Frames as values, as bytes and in words: `tcp 10.0.0.1:1000 > 192.0.2.1:80 S seq=1 ttl=9`.
//!
//! What is not said is as usual: no VLAN tags, TTL 64, class 0, the MAC addresses of the VM and its gateway.

use core::net::{IpAddr, SocketAddr};
use std::collections::BTreeMap;

use packet::{Field, Fragment, MacAddr, Tunnel};
use switch::model::Direction;

use crate::wire;

pub(crate) const VM: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
pub(crate) const GATEWAY: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xfe]);

/// A frame with headers that policy can see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) outer: Option<Outer>,
    pub(crate) destination_mac: MacAddr,
    pub(crate) source_mac: MacAddr,
    /// Tag control information, outermost first.
    pub(crate) vlans: Vec<u16>,
    pub(crate) body: Body,
}

/// A tunnel around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outer {
    pub(crate) tunnel: Tunnel,
    pub(crate) key: u32,
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) source_port: u16,
    pub(crate) class: u8,
    pub(crate) ttl: u8,
    /// Whether the UDP checksum is computed, or 0.
    pub(crate) checksum: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    Ip { source: IpAddr, destination: IpAddr, class: u8, ttl: u8, payload: Payload },
    Arp { sender: IpAddr, target: IpAddr },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Payload {
    Tcp {
        ports: [u16; 2],
        flags: u8,
        seq: u32,
        ack: u32,
        len: usize,
    },
    Udp {
        ports: [u16; 2],
        len: usize,
    },
    Echo {
        reply: bool,
        id: u16,
        len: usize,
    },
    Other {
        protocol: u8,
        len: usize,
    },
    /// An ICMP error of this type, and what it quotes from the IP header on.
    Error {
        kind: u8,
        quote: Vec<u8>,
    },
}

impl Frame {
    /// A frame with the usual MAC addresses of its direction.
    pub(crate) fn new(direction: Direction, body: Body) -> Self {
        let (source_mac, destination_mac) = usual_macs(direction);
        Self { outer: None, destination_mac, source_mac, vlans: Vec::new(), body }
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = [self.destination_mac.0, self.source_mac.0].concat();
        for tag in &self.vlans {
            bytes.extend([0x81, 0]);
            bytes.extend(tag.to_be_bytes());
        }
        match &self.body {
            Body::Ip { source, destination, class, ttl, payload } => {
                let (protocol, payload) = payload.to_bytes(source.is_ipv4());
                bytes.extend(ip(*source, *destination, *class, *ttl, protocol, payload.len()));
                bytes.extend(payload);
            }
            Body::Arp { sender, target } => {
                bytes.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
                bytes.extend(self.source_mac.0);
                bytes.extend(wire::octets(*sender));
                bytes.extend([0; 6]);
                bytes.extend(wire::octets(*target));
            }
        }
        if let Some(outer) = &self.outer {
            bytes.splice(0..0, outer.before(&bytes));
        }
        wire::mend(&mut bytes);
        bytes
    }

    /// What the bytes say; `None` if that is more than a `Frame` can.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let view = wire::read(bytes).ok()?;
        let mac = |field| {
            let [.., a, b, c, d, e, f] = wire::field(bytes, field).to_be_bytes();
            MacAddr([a, b, c, d, e, f])
        };
        let outer = match &view.outer {
            None => None,
            Some((group, shim)) => {
                let udp = shim.tunnel != Tunnel::Nvgre;
                let [source, destination] = [0, 1].map(|which| address(bytes, group, which).unwrap());
                Some(Outer {
                    tunnel: shim.tunnel,
                    key: u32::try_from(wire::field(bytes, Field::TunnelKey)).unwrap(),
                    source,
                    destination,
                    source_port: if udp { wire::half(bytes, shim.at).unwrap() } else { bytes[shim.key + 3].into() },
                    class: wire::class(bytes, group),
                    ttl: wire::ttl(bytes, group),
                    checksum: udp && wire::half(bytes, shim.at + 6).unwrap() != 0,
                })
            }
        };
        let inner = &view.inner;
        let vlans = inner.tags.iter().map(|at| wire::half(bytes, at + 2).unwrap()).collect();
        let body = match &inner.ip {
            Some(ip) => Body::Ip {
                source: address(bytes, inner, 0)?,
                destination: address(bytes, inner, 1)?,
                class: wire::class(bytes, inner),
                ttl: wire::ttl(bytes, inner),
                payload: Payload::from_bytes(bytes, ip)?,
            },
            None if wire::arp(bytes, inner) => {
                let end = |field| IpAddr::from(u32::try_from(wire::field(bytes, field)).unwrap().to_be_bytes());
                Body::Arp { sender: end(Field::IpSrc), target: end(Field::IpDst) }
            }
            None => return None,
        };
        Some(Self { outer, destination_mac: mac(Field::EthDst), source_mac: mac(Field::EthSrc), vlans, body })
    }

    /// The frame that answers it, as far as headers go: all ends change places.
    pub(crate) fn answer(&self) -> Self {
        let mut answer = self.clone();
        std::mem::swap(&mut answer.source_mac, &mut answer.destination_mac);
        match &mut answer.body {
            Body::Arp { sender, target } => std::mem::swap(sender, target),
            Body::Ip { source, destination, payload, .. } => {
                std::mem::swap(source, destination);
                match payload {
                    Payload::Tcp { ports, .. } | Payload::Udp { ports, .. } => ports.reverse(),
                    Payload::Echo { reply, .. } => *reply = !*reply,
                    Payload::Other { .. } | Payload::Error { .. } => {}
                }
            }
        }
        if let Some(outer) = &mut answer.outer {
            std::mem::swap(&mut outer.source, &mut outer.destination);
        }
        answer
    }

    /// Who speaks to whom, and everything else by name.
    pub(crate) fn in_words(&self, direction: Direction) -> (String, BTreeMap<&'static str, String>) {
        let mut rest = BTreeMap::new();
        let mut base = String::new();
        if let Some(outer) = &self.outer {
            let kind = format!("{:?}", outer.tunnel).to_lowercase();
            base = format!("{kind} {} {} > {} / ", outer.key, outer.source, outer.destination);
            rest.insert("outer_dscp", (outer.class >> 2).to_string());
            rest.insert("outer_ttl", outer.ttl.to_string());
        }
        match &self.body {
            Body::Arp { sender, target } => base += &format!("arp {sender} > {target}"),
            Body::Ip { source, destination, class, ttl, payload } => {
                rest.insert("ttl", ttl.to_string());
                rest.insert("dscp", (class >> 2).to_string());
                rest.insert("ecn", (class & 3).to_string());
                base += &payload.in_words(*source, *destination, &mut rest);
            }
        }
        let vlans: Vec<_> = self.vlans.iter().map(u16::to_string).collect();
        rest.insert("vlan", vlans.join(","));
        if (self.source_mac, self.destination_mac) != usual_macs(direction) {
            rest.insert("mac", format!("{}>{}", self.source_mac, self.destination_mac));
        }
        (base, rest)
    }

    /// The reverse of [`Frame::in_words`].
    pub(crate) fn parse(direction: Direction, text: &str) -> Self {
        let (text, about) = match text.split_once(" about ") {
            Some((text, about)) => (text, Some(Self::parse(direction.reversed(), about))),
            None => (text, None),
        };
        let (outer, inner) = match text.split_once(" / ") {
            Some((outer, inner)) => (Some(Outer::parse(outer)), inner),
            None => (None, text),
        };
        let words: Vec<&str> = inner.split_whitespace().collect();
        let [kind, from, ">", to, more @ ..] = &*words else { panic!("{text:?} is no frame") };
        let mut rest: BTreeMap<&str, &str> = more.iter().filter_map(|word| word.split_once('=')).collect();
        let flags = more.iter().find(|word| !word.contains('=')).copied().unwrap_or("A");
        let mut number = |key: &str, usual: u64| rest.remove(key).map_or(usual, |text| text.parse().expect(text));
        let short = |number: u64| u16::try_from(number).unwrap();
        let octet = |number: u64| u8::try_from(number).unwrap();
        let class = octet(number("dscp", 0) << 2 | number("ecn", 0));
        let ttl = octet(number("ttl", 64));
        let len = usize::try_from(number("len", 4)).unwrap();
        let ends = || [from, to].map(|end| end.parse::<SocketAddr>().expect(end));
        let hosts = || [from, to].map(|end| end.parse::<IpAddr>().expect(end));
        let ip = |[source, destination]: [IpAddr; 2], payload| Body::Ip { source, destination, class, ttl, payload };
        let ported = |ends: [SocketAddr; 2], payload| ip(ends.map(|end| end.ip()), payload);
        let body = match *kind {
            "tcp" => {
                let [seq, ack] = ["seq", "ack"].map(|key| u32::try_from(number(key, 0)).unwrap());
                let ports = ends().map(|end| end.port());
                ported(ends(), Payload::Tcp { ports, flags: flags_of(flags), seq, ack, len })
            }
            "udp" => ported(ends(), Payload::Udp { ports: ends().map(|end| end.port()), len }),
            "ping" | "pong" => ip(hosts(), Payload::Echo { reply: *kind == "pong", id: short(number("id", 0)), len }),
            "unreachable" => {
                let [kind, quoted] = [if hosts()[0].is_ipv4() { 3 } else { 1 }, number("quoted", 1500)];
                let mut quote = about.expect("what it is about").to_bytes().split_off(14);
                quote.truncate(usize::try_from(quoted).unwrap());
                ip(hosts(), Payload::Error { kind: u8::try_from(kind).unwrap(), quote })
            }
            "arp" => {
                let [sender, target] = hosts();
                Body::Arp { sender, target }
            }
            "sctp" => ip(hosts(), Payload::Other { protocol: 132, len }),
            other => panic!("{other:?} is no kind of frame"),
        };
        let vlans =
            rest.remove("vlan").map_or_else(Vec::new, |all| all.split(',').map(|tag| tag.parse().unwrap()).collect());
        let mut frame = Self { outer, vlans, ..Self::new(direction, body) };
        if let Some(macs) = rest.remove("mac") {
            let (source, destination) = macs.split_once('>').unwrap();
            (frame.source_mac, frame.destination_mac) = (source.parse().unwrap(), destination.parse().unwrap());
        }
        assert!(rest.is_empty(), "{text:?}: {rest:?} is not known");
        frame
    }
}

fn usual_macs(direction: Direction) -> (MacAddr, MacAddr) {
    match direction {
        Direction::Out => (VM, GATEWAY),
        Direction::In => (GATEWAY, VM),
    }
}

fn address(bytes: &[u8], group: &wire::Group, which: usize) -> Option<IpAddr> {
    let (at, len) = wire::place_of_address(group, which)?;
    Some(match len {
        4 => IpAddr::from(<[u8; 4]>::try_from(&bytes[at..at + 4]).unwrap()),
        _ => IpAddr::from(<[u8; 16]>::try_from(&bytes[at..at + 16]).unwrap()),
    })
}

fn ip(source: IpAddr, destination: IpAddr, class: u8, ttl: u8, protocol: u8, len: usize) -> Vec<u8> {
    let mut header = if source.is_ipv4() {
        let [high, low] = u16::try_from(20 + len).unwrap().to_be_bytes();
        vec![8, 0, 0x45, class, high, low, 0x12, 0x34, 0, 0, ttl, protocol, 0, 0]
    } else {
        let [high, low] = u16::try_from(len).unwrap().to_be_bytes();
        vec![0x86, 0xdd, 0x60 | class >> 4, class << 4, 0, 0, high, low, protocol, ttl]
    };
    header.extend(wire::octets(source));
    header.extend(wire::octets(destination));
    header
}

fn filler(len: usize) -> impl Iterator<Item = u8> {
    (0..len).map(|at| u8::try_from(at % 251).unwrap() ^ 0xa5)
}

const FLAGS: [(char, u8); 4] = [('F', 1), ('S', 2), ('R', 4), ('A', 16)];

fn flags_of(text: &str) -> u8 {
    let flag = |letter| FLAGS.iter().find(|(known, _)| *known == letter).map_or(0, |(_, flag)| *flag);
    text.chars().map(flag).sum()
}

impl Payload {
    fn to_bytes(&self, v4: bool) -> (u8, Vec<u8>) {
        let ports = |ports: [u16; 2]| ports.map(u16::to_be_bytes).concat();
        match *self {
            Self::Tcp { ports: ends, flags, seq, ack, len } => {
                let mut bytes = ports(ends);
                bytes.extend([seq, ack].map(u32::to_be_bytes).concat());
                bytes.extend([0x50, flags, 1, 0, 0, 0, 0, 0]);
                bytes.extend(filler(len));
                (wire::TCP, bytes)
            }
            Self::Udp { ports: ends, len } => {
                let mut bytes = ports(ends);
                bytes.extend(u16::try_from(8 + len).unwrap().to_be_bytes());
                // Not 0: it is to be computed.
                bytes.extend([1, 1]);
                bytes.extend(filler(len));
                (wire::UDP, bytes)
            }
            Self::Echo { reply, id, len } => {
                let kind = match (v4, reply) {
                    (true, false) => 8,
                    (true, true) => 0,
                    (false, false) => 128,
                    (false, true) => 129,
                };
                let [high, low] = id.to_be_bytes();
                let mut bytes = vec![kind, 0, 0, 0, high, low, 0, 1];
                bytes.extend(filler(len));
                (if v4 { wire::ICMP } else { wire::ICMPV6 }, bytes)
            }
            Self::Other { protocol, len } => (protocol, filler(len).collect()),
            Self::Error { kind, ref quote } => {
                let header = [kind, 0, 0, 0, 0, 0, 0, 0];
                (if v4 { wire::ICMP } else { wire::ICMPV6 }, [&header[..], quote].concat())
            }
        }
    }

    fn from_bytes(bytes: &[u8], ip: &wire::Ip) -> Option<Self> {
        if ip.fragment != Fragment::Whole {
            return None;
        }
        let at = ip.transport;
        let half = |offset| wire::half(bytes, at + offset).unwrap();
        let ports = || [half(0), half(2)];
        Some(match ip.protocol {
            wire::TCP => {
                let wire::Segment { flags, seq, ack, len } = wire::segment(bytes)?;
                Self::Tcp { ports: ports(), flags, seq, ack, len: usize::try_from(len).unwrap() }
            }
            wire::UDP => Self::Udp { ports: ports(), len: ip.end - at - 8 },
            _ if wire::is_echo(bytes, ip) => {
                Self::Echo { reply: matches!(bytes[at], 0 | 129), id: half(4), len: ip.end - at - 8 }
            }
            _ if wire::is_icmp(ip) && wire::is_error(bytes) => {
                Self::Error { kind: bytes[at], quote: bytes[at + 8..ip.end].to_vec() }
            }
            _ if wire::is_icmp(ip) => return None,
            protocol => Self::Other { protocol, len: ip.end - at },
        })
    }

    fn in_words(&self, source: IpAddr, destination: IpAddr, rest: &mut BTreeMap<&'static str, String>) -> String {
        let ends = |ports: [u16; 2]| {
            let [from, to] = ports;
            format!("{} > {}", SocketAddr::new(source, from), SocketAddr::new(destination, to))
        };
        let (words, len) = match *self {
            Self::Tcp { ports, flags, seq, ack, len } => {
                let flags: String = FLAGS.iter().filter(|(_, flag)| flags & flag != 0).map(|(name, _)| *name).collect();
                rest.extend([("flags", flags), ("seq", seq.to_string()), ("ack", ack.to_string())]);
                (format!("tcp {}", ends(ports)), len)
            }
            Self::Udp { ports, len } => (format!("udp {}", ends(ports)), len),
            Self::Echo { reply, id, len } => {
                rest.insert("id", id.to_string());
                (format!("{} {source} > {destination}", if reply { "pong" } else { "ping" }), len)
            }
            Self::Other { protocol, len } => {
                let name = if protocol == 132 { "sctp".to_owned() } else { protocol.to_string() };
                (format!("{name} {source} > {destination}"), len)
            }
            Self::Error { ref quote, .. } => {
                rest.insert("quoted", quote.len().to_string());
                let words = format!("unreachable {source} > {destination} about ");
                return words + &quoted_in_words(quote, source);
            }
        };
        rest.insert("len", len.to_string());
        words
    }
}

/// Who spoke to whom in what an error quotes.
fn quoted_in_words(quote: &[u8], source: IpAddr) -> String {
    let around = Body::Ip {
        source,
        destination: source,
        class: 0,
        ttl: 64,
        payload: Payload::Error { kind: if source.is_ipv4() { 3 } else { 1 }, quote: quote.to_vec() },
    };
    let Some(quoted) = wire::quoted(&Frame::new(Direction::Out, around).to_bytes()) else {
        return format!("{quote:02x?}");
    };
    let wire::Tuple { protocol, source, source_port, destination, destination_port } = quoted.tuple;
    let ends = |from: &str, to: &str| format!("{from} > {to}");
    let (from, to) = (SocketAddr::new(source, source_port), SocketAddr::new(destination, destination_port));
    match protocol {
        wire::TCP => format!("tcp {}", ends(&from.to_string(), &to.to_string())),
        wire::UDP => format!("udp {}", ends(&from.to_string(), &to.to_string())),
        _ => format!("{protocol} {}", ends(&source.to_string(), &destination.to_string())),
    }
}

impl Outer {
    pub(crate) fn new(tunnel: Tunnel, key: u32, source: IpAddr, destination: IpAddr) -> Self {
        Self { tunnel, key, source, destination, source_port: 50_000, class: 0, ttl: 64, checksum: false }
    }

    /// `vxlan 7 192.0.2.1 > 192.0.2.2`
    fn parse(text: &str) -> Self {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [kind, key, source, ">", destination] = *words else { panic!("{text:?} is no tunnel") };
        let tunnel = tunnel_of(kind);
        Self::new(tunnel, key.parse().unwrap(), source.parse().unwrap(), destination.parse().unwrap())
    }

    /// The headers before a frame.
    fn before(&self, frame: &[u8]) -> Vec<u8> {
        let [a, b, c, d] = self.key.to_be_bytes();
        let key = |last| [b, c, d, last];
        let shim = match self.tunnel {
            Tunnel::Nvgre => [[0x20, 0, 0x65, 0x58], key(self.source_port.to_be_bytes()[1])].concat(),
            Tunnel::Geneve => [[0, 0, 0x65, 0x58], key(0)].concat(),
            _ => [[8, 0, 0, 0], key(0)].concat(),
        };
        assert_eq!(a, 0, "keys have 24 bits");
        let port = if self.tunnel == Tunnel::Geneve { wire::GENEVE_PORT } else { wire::VXLAN_PORT };
        let udp_len = u16::try_from(8 + shim.len() + frame.len()).unwrap();
        let (protocol, head) = match self.tunnel {
            Tunnel::Nvgre => (wire::GRE, Vec::new()),
            _ => {
                (wire::UDP, [self.source_port, port, udp_len, u16::from(self.checksum)].map(u16::to_be_bytes).concat())
            }
        };
        let len = head.len() + shim.len() + frame.len();
        let mut bytes = [0x02, 0, 0, 0, 1, 1, 0x02, 0, 0, 0, 1, 2].to_vec();
        bytes.extend(ip(self.source, self.destination, self.class, self.ttl, protocol, len));
        bytes.extend(head);
        bytes.extend(shim);
        bytes
    }
}

pub(crate) fn tunnel_of(name: &str) -> Tunnel {
    match name {
        "vxlan" => Tunnel::Vxlan,
        "nvgre" => Tunnel::Nvgre,
        "geneve" => Tunnel::Geneve,
        other => panic!("{other:?} is no tunnel"),
    }
}
