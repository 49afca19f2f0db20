// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The identity of the other direction of a flow.

use super::transport::{ECHO, ECHO_V6, ICMP, ICMPV6};
use crate::{EtherType, Field, Fragment, Ufid};

/// ARP request and reply.
const ARP_OPERATIONS: [u8; 2] = [1, 2];

impl Ufid {
    /// What an answer to this packet would be called: source and destination of all addresses and ports
    /// exchanged, of the outer group too. An echo request becomes its reply and the other way round,
    /// with the same identifier, likewise an ARP request; other ICMP messages have no answer and only
    /// their addresses change places. Twice is the same as never.
    ///
    /// ```
    /// use packet::{Field, Ufid};
    /// let request = Ufid::ZERO.with(Field::IpVersion, 4).with(Field::IpProto, 6).with(Field::L4Dst, 80);
    /// assert_eq!(request.reversed().get(Field::L4Src), 80);
    /// ```
    #[must_use]
    pub fn reversed(&self) -> Self {
        let mut reversed = *self;
        let mut exchange = |a, b| {
            reversed.set(a, self.get(b));
            reversed.set(b, self.get(a));
        };
        exchange(Field::EthSrc, Field::EthDst);
        exchange(Field::IpSrc, Field::IpDst);
        exchange(Field::OuterEthSrc, Field::OuterEthDst);
        exchange(Field::OuterIpSrc, Field::OuterIpDst);
        match echo(self) {
            None => exchange(Field::L4Src, Field::L4Dst),
            // There is no header in it whose type could be exchanged.
            Some(_) if self.get(Field::Fragment) == Fragment::Later as u128 => {}
            Some(types) => {
                let [code, kind, ..] = self.get(Field::L4Dst).to_le_bytes();
                let answer = u16::from_le_bytes([code, other(kind, types)]);
                reversed.set(Field::L4Dst, answer.into());
            }
        }
        if self.get(Field::EtherType) == u128::from(EtherType::ARP.0) {
            let [operation, ..] = self.get(Field::IpProto).to_le_bytes();
            reversed.set(Field::IpProto, other(operation, ARP_OPERATIONS).into());
        }
        reversed
    }
}

/// The types of an echo, if this is ICMP.
fn echo(ufid: &Ufid) -> Option<[u8; 2]> {
    let [version, ..] = ufid.get(Field::IpVersion).to_le_bytes();
    let [protocol, ..] = ufid.get(Field::IpProto).to_le_bytes();
    match (version, protocol) {
        (4, ICMP) => Some(ECHO),
        (6, ICMPV6) => Some(ECHO_V6),
        _ => None,
    }
}

/// The other of two values; any third one stays what it is.
fn other(value: u8, [a, b]: [u8; 2]) -> u8 {
    match value {
        _ if value == a => b,
        _ if value == b => a,
        _ => value,
    }
}
