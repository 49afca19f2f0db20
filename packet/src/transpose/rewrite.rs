// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The most common program, packed: new addresses and ports of an IPv4 packet, and nothing else.

use super::{
    ends::{Ends, Kind, TransportEdit},
    front::{Front, Place},
    header::{EcnEdit, IpEdit, KEEP_DSCP},
    program::{INLINE, Program},
};
use crate::{Burst, DropCause, Layout};

/// A [`Program`] that changes addresses and ports of IPv4 only, as translation does, in 18 bytes: a table has room for it
/// beside each flow, where nothing has to be looked for. It is unpacked to be applied, which is a few moves.
#[derive(Clone, Copy, Debug)]
pub struct Rewrite {
    addresses: [u8; 8],
    ports: [u8; 4],
    /// What changed addresses and changed ports add to sums.
    sums: [u16; 2],
    /// Where the transport checksum lies in its header; 0 if it does not change.
    field: u8,
    /// [`Ends::set`] in the low bits, then [`Kind`], then whether the IP header changes.
    what: u8,
}

const _: () = assert!(size_of::<Rewrite>() == 18);

const KIND_SHIFT: u32 = 4;
const VERSION_4: u8 = 1 << 6;

impl Rewrite {
    /// What a program does, if it is that and no more.
    #[must_use]
    pub fn of(program: &Program) -> Option<Self> {
        let Program { rest: None, ip, transport, front, reads: (0, 0), guards: (0, 0), ends, stores_len: 0, .. } =
            program
        else {
            return None;
        };
        let version = match ip.version {
            0 => 0,
            4 => VERSION_4,
            _ => return None,
        };
        if front.place != Place::Nowhere || !ip.is_only_addresses() {
            return None;
        }
        Some(Self {
            addresses: ends.addresses,
            ports: ends.ports,
            sums: [ip.addresses, transport.ports],
            field: transport.field,
            what: ends.set | code(transport.kind) << KIND_SHIFT | version,
        })
    }

    /// [`Program::apply`].
    ///
    /// # Errors
    /// Those of the program.
    #[inline]
    pub fn apply(&self, burst: &mut Burst, i: usize, layout: &Layout, flow_hash: u32) -> Result<(), DropCause> {
        self.program().apply(burst, i, layout, flow_hash)
    }

    #[inline(always)]
    const fn program(&self) -> Program {
        let [addresses, ports] = self.sums;
        let version = if self.what & VERSION_4 != 0 { 4 } else { 0 };
        Program {
            rest: None,
            ip: IpEdit { addresses, version, dscp: KEEP_DSCP, ttl: None, ecn: EcnEdit::Keep },
            transport: TransportEdit { ports, field: self.field, kind: kind(self.what >> KIND_SHIFT & 3) },
            front: Front { place: Place::Nowhere, popped: 0, tags: 0, header: 0 },
            reads: (0, 0),
            guards: (0, 0),
            ends: Ends { addresses: self.addresses, ports: self.ports, set: self.what & ((1 << KIND_SHIFT) - 1) },
            stores_len: 0,
            bytes: [0; INLINE],
        }
    }
}

const fn code(kind: Kind) -> u8 {
    match kind {
        Kind::Plain => 0,
        Kind::Pseudo => 1,
        Kind::NeverZero => 2,
        Kind::Optional => 3,
    }
}

const fn kind(code: u8) -> Kind {
    match code {
        0 => Kind::Plain,
        1 => Kind::Pseudo,
        2 => Kind::NeverZero,
        _ => Kind::Optional,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transpose::{Transposition, Value};
    use crate::{Field, Quick, Ufid};

    /// That it does the same as the program is held for all transpositions of the property tests.
    #[test]
    fn what_translates_ipv4_is_packed() {
        let flow = |version| Ufid::ZERO.with(Field::IpVersion, version).with(Field::IpProto, 6);
        let port = Transposition::default().with(Field::L4Src, Value::Number(4000));
        let both = port.then(&Transposition::default().with(Field::IpSrc, Value::Ipv4([192, 0, 2, 1].into()))).unwrap();
        let dscp = both.then(&Transposition::default().with(Field::Dscp, Value::Number(10))).unwrap();
        for (what, packed) in [(&port, true), (&both, true), (&dscp, false)] {
            let program = what.compile(&flow(4), &Quick::TCP_LAYOUT).unwrap();
            assert_eq!(Rewrite::of(&program).is_some(), packed, "{what:?}");
        }
    }
}
