// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which flows there are, by number: five-tuples that both sides agree on, one side's being the other's reversed.
//!
//! Theory of operation. Side A is the client, side B the server, whoever sends. Flow *f* has
//!
//! | field | value |
//! |---|---|
//! | client's address | 10.0.0.1 + *f* / 32768 |
//! | client's port | 16384 + (18673 · *f*) mod 32768 |
//! | server's address | 10.128.0.0 + (193 · *f*) mod 256 |
//! | server's port | 9000 |
//!
//! Both factors are odd, so nothing occurs twice before everything has occurred, and the port gives the flow back. Divided by
//! their moduli they are the fractions of a sequence that fills a square evenly: any number of flows is spread evenly over any
//! prefixes of the server's address and ranges of the client's port. Benchmark policies (`cargo xtask bench policy`) count on
//! that and repeat these numbers. No port is one that tunnels are known by.

use std::net::Ipv4Addr;

/// Flows that can be told apart: as many as there are addresses before the server's.
pub(super) const MOST: u32 = 1 << 23;

/// The server's port.
pub(super) const SERVER_PORT: u16 = 9000;

const CLIENTS: u32 = u32::from_be_bytes([10, 0, 0, 1]);
const SERVERS: u32 = u32::from_be_bytes([10, 128, 0, 0]);
const SERVER_FACTOR: u32 = 193;
const SERVER_COUNT: u32 = 256;

const FIRST_PORT: u32 = 16_384;
const PORT_BITS: u32 = 15;
const PORTS: u32 = 1 << PORT_BITS;
const PORT_FACTOR: u32 = 18_673;
/// Its inverse modulo the number of ports.
const PORT_INVERSE: u32 = 10_257;

/// One end of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The client of every flow.
    A,
    /// The server.
    B,
}

impl Side {
    pub(super) const BOTH: [Self; 2] = [Self::A, Self::B];

    pub(super) const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    pub(super) const fn index(self) -> usize {
        match self {
            Self::A => 0,
            Self::B => 1,
        }
    }
}

/// The addresses and ports of a flow, as the client sends them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Tuple {
    pub(super) client: Ipv4Addr,
    pub(super) client_port: u16,
    pub(super) server: Ipv4Addr,
    pub(super) server_port: u16,
}

impl Tuple {
    pub(super) fn of(flow: u32) -> Self {
        let client_port = FIRST_PORT + (flow.wrapping_mul(PORT_FACTOR) & (PORTS - 1));
        Self {
            client: Ipv4Addr::from_bits(CLIENTS + (flow >> PORT_BITS)),
            client_port: u16::try_from(client_port).unwrap_or(u16::MAX),
            server: Ipv4Addr::from_bits(SERVERS + (flow.wrapping_mul(SERVER_FACTOR) & (SERVER_COUNT - 1))),
            server_port: SERVER_PORT,
        }
    }
}

/// The number of the flow with this client, if it is one.
#[inline(always)]
pub(super) fn number(client: u32, client_port: u16) -> Option<u32> {
    let port = u32::from(client_port).wrapping_sub(FIRST_PORT);
    let block = client.wrapping_sub(CLIENTS);
    if port >= PORTS || block >= MOST >> PORT_BITS {
        return None;
    }
    Some(block << PORT_BITS | port.wrapping_mul(PORT_INVERSE) & (PORTS - 1))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn flows_differ_and_are_found_again() {
        let mut seen = HashSet::new();
        for flow in (0..200_000).chain([MOST - 1]) {
            let tuple = Tuple::of(flow);
            assert!(seen.insert(tuple), "{tuple:?} is there twice");
            assert_eq!(number(tuple.client.to_bits(), tuple.client_port), Some(flow));
        }
        assert_eq!(number(CLIENTS, 16_383), None);
        assert_eq!(number(CLIENTS - 1, 16_384), None);
        assert_eq!(number(CLIENTS + 256, 16_384), None);
    }

    #[test]
    fn the_numbers_that_policies_repeat() {
        let text = |flow| {
            let Tuple { client, client_port, server, server_port } = Tuple::of(flow);
            format!("{client}:{client_port} {server}:{server_port}")
        };
        assert_eq!(text(0), "10.0.0.1:16384 10.128.0.0:9000");
        assert_eq!(text(1), "10.0.0.1:35057 10.128.0.193:9000");
        assert_eq!(text(9_999), "10.0.0.1:48415 10.128.0.79:9000");
        assert_eq!(text(70_000), "10.0.0.3:43632 10.128.0.112:9000");
    }

    #[test]
    fn any_number_of_flows_fills_prefixes_and_ranges_evenly() {
        for (flows, prefixes, ranges) in [(10_000u32, 8u32, 25u32), (10_000, 2, 100), (100_000, 8, 125), (1000, 4, 10)]
        {
            let mut cells = vec![0u32; (prefixes * ranges) as usize];
            for flow in 0..flows {
                let tuple = Tuple::of(flow);
                let host = u32::from(tuple.server.octets()[3]);
                let port = u32::from(tuple.client_port) - FIRST_PORT;
                cells[(host * prefixes / 256 * ranges + port * ranges / PORTS) as usize] += 1;
            }
            let (even, least, most) = (flows / (prefixes * ranges), cells.iter().min(), cells.iter().max());
            assert!(*least.unwrap() * 2 >= even && *most.unwrap() <= even * 2, "{flows}: {least:?} {most:?} {even}");
        }
    }
}
