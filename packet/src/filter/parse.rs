// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A text becomes a tree.
//!
//! ```text
//! expression = term { ( "and" | "&&" | "or" | "||" ) term }      equal precedence, from left to right, as pcap-filter(7) has it
//! term       = ( "not" | "!" ) term | "(" expression ")" | primitive
//! ```

use core::net::IpAddr;

use super::{End, Filter, FilterError, MAX_DEPTH, MAX_PRIMITIVES, MAX_TEXT, Node, Primitive};
use crate::{EtherType, MacAddr};

pub(super) const ICMP: u8 = 1;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
const ICMP6: u8 = 58;
const SCTP: u8 = 132;

const PRIMITIVE: &str = "a primitive (host, net, port, ether, proto, tcp, udp, arp, vlan, vni, ..), \"not\" or \"(\"";

/// Parses a whole text.
pub(super) fn parse(text: &str) -> Result<Node, FilterError> {
    if text.len() > MAX_TEXT {
        return Err(FilterError::TooLong { len: text.len() });
    }
    let mut parser = Parser { text, at: 0, primitives: 0 };
    let node = parser.expression(0)?;
    if parser.peek().is_empty() { Ok(node) } else { Err(parser.unexpected("\"and\", \"or\" or the end")) }
}

/// What is left of a text.
struct Parser<'a> {
    text: &'a str,
    at: usize,
    primitives: usize,
}

impl<'a> Parser<'a> {
    fn expression(&mut self, depth: usize) -> Result<Node, FilterError> {
        let mut node = self.term(depth)?;
        loop {
            node = match self.peek() {
                "and" | "&&" => {
                    self.next();
                    let right = self.term(depth)?;
                    match node {
                        Node::All(mut nodes) => {
                            nodes.push(right);
                            Node::All(nodes)
                        }
                        left => Node::All(vec![left, right]),
                    }
                }
                "or" | "||" => {
                    self.next();
                    let right = self.term(depth)?;
                    match node {
                        Node::Any(mut nodes) => {
                            nodes.push(right);
                            Node::Any(nodes)
                        }
                        left => Node::Any(vec![left, right]),
                    }
                }
                _ => return Ok(node),
            };
        }
    }

    fn term(&mut self, depth: usize) -> Result<Node, FilterError> {
        if depth >= MAX_DEPTH {
            return Err(FilterError::TooDeep);
        }
        let inner = depth.saturating_add(1);
        match self.peek() {
            "not" | "!" => {
                self.next();
                Ok(Node::Not(Box::new(self.term(inner)?)))
            }
            "(" => {
                self.next();
                let node = self.expression(inner)?;
                self.expect(")", "\")\"")?;
                Ok(node)
            }
            _ => {
                self.primitives = self.primitives.saturating_add(1);
                if self.primitives > MAX_PRIMITIVES {
                    return Err(FilterError::TooMany);
                }
                self.primitive()
            }
        }
    }

    fn primitive(&mut self) -> Result<Node, FilterError> {
        let is = |primitive| Ok(Node::Is(primitive));
        let ether_type = |ether_type: EtherType| is(Primitive::EtherType(ether_type.0));
        let word = self.peek();
        match word {
            "src" | "dst" | "host" | "net" | "port" | "portrange" => self.directed(None).map(Node::Is),
            _ => {
                if !matches!(word, "ether" | "ip" | "ip6" | "arp" | "rarp" | "icmp" | "icmp6" | "tcp" | "udp" | "sctp")
                    && !matches!(word, "proto" | "vlan" | "vni" | "less" | "greater")
                {
                    return Err(self.unexpected(PRIMITIVE));
                }
                self.next();
                match word {
                    "ether" => self.ether().map(Node::Is),
                    "ip" | "ip6" if self.peek() == "proto" => {
                        self.next();
                        is(Primitive::Protocol(Some(if word == "ip" { 4 } else { 6 }), self.protocol()?))
                    }
                    "ip" => ether_type(EtherType::IPV4),
                    "ip6" => ether_type(EtherType::IPV6),
                    "arp" => ether_type(EtherType::ARP),
                    "rarp" => ether_type(EtherType::RARP),
                    "icmp" => is(Primitive::Protocol(Some(4), ICMP)),
                    "icmp6" => is(Primitive::Protocol(Some(6), ICMP6)),
                    "sctp" => is(Primitive::Protocol(None, SCTP)),
                    "tcp" | "udp" => {
                        let protocol = if word == "tcp" { TCP } else { UDP };
                        match self.peek() {
                            "src" | "dst" | "port" | "portrange" => self.directed(Some(protocol)).map(Node::Is),
                            _ => is(Primitive::Protocol(None, protocol)),
                        }
                    }
                    "proto" => is(Primitive::Protocol(None, self.protocol()?)),
                    "vlan" => {
                        let id = if starts_number(self.peek()) { Some(self.number(0xfff)?) } else { None };
                        is(Primitive::Vlan(id.and_then(|id| u16::try_from(id).ok())))
                    }
                    "vni" => is(Primitive::Vni(self.number(u32::MAX)?)),
                    "less" => is(Primitive::Shorter(self.number(u32::MAX)?)),
                    _ => is(Primitive::Longer(self.number(u32::MAX)?)),
                }
            }
        }
    }

    /// `[src|dst] host|net|port|portrange VALUE`, of which a protocol before it leaves ports only.
    fn directed(&mut self, protocol: Option<u8>) -> Result<Primitive, FilterError> {
        let end = self.end();
        let wanted =
            if protocol.is_some() { "\"port\" or \"portrange\"" } else { "\"host\", \"net\", \"port\" or an address" };
        match self.peek() {
            "port" => {
                self.next();
                let port = self.port()?;
                Ok(Primitive::Ports(end, protocol, port, port))
            }
            "portrange" => {
                self.next();
                self.port_range(end, protocol)
            }
            "host" if protocol.is_none() => {
                self.next();
                self.host(end)
            }
            "net" if protocol.is_none() => {
                self.next();
                self.network(end)
            }
            word if protocol.is_none() && end != End::Either && word.parse::<IpAddr>().is_ok() => self.host(end),
            _ => Err(self.unexpected(wanted)),
        }
    }

    fn ether(&mut self) -> Result<Primitive, FilterError> {
        let end = self.end();
        match self.peek() {
            "proto" if end == End::Either => {
                self.next();
                let ether_type = self.number(0xffff)?;
                Ok(Primitive::EtherType(u16::try_from(ether_type).unwrap_or(u16::MAX)))
            }
            "broadcast" if end == End::Either => {
                self.next();
                Ok(Primitive::Mac(End::Destination, MacAddr::BROADCAST))
            }
            "multicast" if end == End::Either => {
                self.next();
                Ok(Primitive::Multicast)
            }
            word => {
                if word == "host" {
                    self.next();
                } else if end == End::Either {
                    return Err(
                        self.unexpected("\"src\", \"dst\", \"host\", \"proto\", \"broadcast\" or \"multicast\"")
                    );
                }
                let mac: MacAddr = self.peek().parse().map_err(|_| self.unexpected("a MAC address"))?;
                self.next();
                Ok(Primitive::Mac(end, mac))
            }
        }
    }

    fn end(&mut self) -> End {
        let end = match self.peek() {
            "src" => End::Source,
            "dst" => End::Destination,
            _ => return End::Either,
        };
        self.next();
        end
    }

    fn host(&mut self, end: End) -> Result<Primitive, FilterError> {
        let address: IpAddr = self.peek().parse().map_err(|_| self.unexpected("an IP address"))?;
        self.next();
        let (version, address, bits) = value_of(address);
        Ok(Primitive::Network(end, version, address, mask(bits, bits)))
    }

    fn network(&mut self, end: End) -> Result<Primitive, FilterError> {
        const WANTED: &str = "a network (ADDRESS/PREFIX)";
        let (word, at) = (self.peek(), self.at);
        let (address, prefix) = word.split_once('/').ok_or_else(|| self.unexpected(WANTED))?;
        let address: IpAddr = address.parse().map_err(|_| self.unexpected(WANTED))?;
        let (version, address, bits) = value_of(address);
        let prefix = decimal(prefix).and_then(|prefix| u8::try_from(prefix).ok()).filter(|prefix| *prefix <= bits);
        let prefix = prefix.ok_or_else(|| self.unexpected(WANTED))?;
        let mask = mask(prefix, bits);
        if address & !mask != 0 {
            return Err(FilterError::HostBits { at, prefix });
        }
        self.next();
        Ok(Primitive::Network(end, version, address, mask))
    }

    fn port_range(&mut self, end: End, protocol: Option<u8>) -> Result<Primitive, FilterError> {
        let port = |text| decimal(text).and_then(|port| u16::try_from(port).ok());
        let range = self.peek().split_once('-').and_then(|(low, high)| Some((port(low)?, port(high)?)));
        let (low, high) = range.filter(|(low, high)| low <= high).ok_or_else(|| self.unexpected("LOW-HIGH"))?;
        self.next();
        Ok(Primitive::Ports(end, protocol, low, high))
    }

    fn port(&mut self) -> Result<u16, FilterError> {
        let port = decimal(self.peek()).and_then(|port| u16::try_from(port).ok());
        let port = port.ok_or_else(|| self.unexpected("a port from 0 to 65535"))?;
        self.next();
        Ok(port)
    }

    fn protocol(&mut self) -> Result<u8, FilterError> {
        let protocol = match self.peek() {
            "icmp" => Some(ICMP),
            "icmp6" => Some(ICMP6),
            "sctp" => Some(SCTP),
            "tcp" => Some(TCP),
            "udp" => Some(UDP),
            word => decimal(word).and_then(|protocol| u8::try_from(protocol).ok()),
        };
        let protocol = protocol.ok_or_else(|| self.unexpected("an IP protocol from 0 to 255"))?;
        self.next();
        Ok(protocol)
    }

    /// A number up to `most`, decimal or behind `0x`.
    fn number(&mut self, most: u32) -> Result<u32, FilterError> {
        let word = self.peek();
        let number = match word.strip_prefix("0x") {
            Some(digits) if !digits.starts_with('+') => u32::from_str_radix(digits, 16).ok(),
            Some(_) => None,
            None => decimal(word),
        };
        let number = number.filter(|number| *number <= most).ok_or_else(|| self.unexpected("a number in range"))?;
        self.next();
        Ok(number)
    }

    fn expect(&mut self, word: &str, wanted: &'static str) -> Result<(), FilterError> {
        if self.peek() != word {
            return Err(self.unexpected(wanted));
        }
        self.next();
        Ok(())
    }

    /// The next word; nothing at the end.
    fn peek(&mut self) -> &'a str {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let word = rest.trim_start_matches(|c: char| c.is_ascii_whitespace());
        self.at = self.text.len().saturating_sub(word.len());
        word.get(..length_of_word(word)).unwrap_or_default()
    }

    fn next(&mut self) {
        let length = self.peek().len();
        self.at = self.at.saturating_add(length);
    }

    fn unexpected(&mut self, wanted: &'static str) -> FilterError {
        let found = match self.peek() {
            "" => "the end".to_owned(),
            word => format!("{word:?}"),
        };
        FilterError::Unexpected { at: self.at, found, wanted }
    }
}

/// Bytes of the word that begins a text: a sign, or all up to the next sign or space.
fn length_of_word(text: &str) -> usize {
    if text.starts_with("&&") || text.starts_with("||") {
        return 2;
    }
    let is_sign = |c: char| matches!(c, '(' | ')' | '!' | '&' | '|');
    match text.chars().next() {
        None => 0,
        Some(first) if is_sign(first) => first.len_utf8(),
        Some(_) => text.find(|c: char| c.is_ascii_whitespace() || is_sign(c)).unwrap_or(text.len()),
    }
}

fn starts_number(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_digit())
}

/// A number of digits alone.
fn decimal(text: &str) -> Option<u32> {
    if starts_number(text) { text.parse().ok() } else { None }
}

/// The version of an address, its value, and how many bits it has.
fn value_of(address: IpAddr) -> (u8, u128, u8) {
    match address {
        IpAddr::V4(address) => (4, u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (6, address.to_bits(), 128),
    }
}

/// The upper `prefix` of `bits` bits.
fn mask(prefix: u8, bits: u8) -> u128 {
    let all = u128::MAX.checked_shr(128_u32.saturating_sub(bits.into())).unwrap_or(0);
    let behind = u32::from(bits.saturating_sub(prefix));
    all & u128::MAX.checked_shl(behind).unwrap_or(0)
}

impl Filter {
    /// The tree; for tests.
    #[cfg(test)]
    pub(super) fn node(&self) -> &Node {
        &self.0
    }
}
