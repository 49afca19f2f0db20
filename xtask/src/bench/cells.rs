// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How a set of rules divides the flows of `shunt bench pvp` among itself.
//!
//! Theory of operation. The generator's flows fill evenly a square of server addresses and client ports
//! (`cli/src/bench/flows.rs`). A set of R rules cuts it into P prefixes times R / P ranges of ports: every flow is in one
//! cell, so exactly one rule of each set is for it, and as many flows meet each rule. Sets of one policy have different P,
//! for else all layers would say the same. Neighbouring cells stand far apart in the set, so the place of the rule that
//! matches is uniform, whatever the flows.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

/// The servers' addresses, a /24.
const SERVERS: u32 = u32::from_be_bytes([10, 128, 0, 0]);
const SERVER_BITS: u32 = 8;

/// The clients' ports.
const FIRST_PORT: u32 = 16_384;
const PORT_BITS: u32 = 15;
const PORTS: u32 = 1 << PORT_BITS;

/// Most prefixes of a set, where there is a choice.
const MOST_PREFIXES: u32 = 16;

/// Most rules of a set.
pub(super) const MOST: u32 = 1 << 17;

/// Whether flows can be divided among so many rules.
pub(super) fn can_be(rules: u32) -> bool {
    (1..=MOST).contains(&rules) && rules / prefixes(0, rules) <= PORTS
}

/// What one rule is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) server: Prefix,
    pub(super) client_ports: RangeInclusive<u16>,
}

/// An IPv4 prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefix {
    pub(super) address: Ipv4Addr,
    pub(super) bits: u32,
}

impl std::fmt::Display for Prefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// How ranges of ports are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// All as long as each other, give or take one.
    Even,
    /// Each is a value and a mask, as OpenFlow wants it; some are twice as long as the others.
    Masked,
}

/// The cells of set number `set`, in the order in which its rules stand.
pub(super) fn cells(set: u32, rules: u32, cut: Cut) -> Vec<Cell> {
    let prefixes = prefixes(set, rules);
    let ranges = ranges(rules / prefixes, cut);
    // Every cell comes up once: the step has no factor in common with their number.
    let (step, count) = (u64::from(step(rules)), u64::from(rules));
    let numbers = (0..count).map(|place| (place * step + u64::from(set) * 7) % count);
    let cell = |number: u64| {
        let number = u32::try_from(number).ok()?;
        let range = ranges.get((number % (rules / prefixes)) as usize)?;
        Some(Cell { server: server_prefix(number / (rules / prefixes), prefixes), client_ports: range.clone() })
    };
    numbers.filter_map(cell).collect()
}

/// A range of [`Cut::Masked`] as value and mask.
pub(super) fn masked(range: &RangeInclusive<u16>) -> (u16, u16) {
    let length = range.end() - range.start();
    (*range.start(), !length)
}

fn server_prefix(number: u32, of: u32) -> Prefix {
    let size = (1 << SERVER_BITS) / of;
    Prefix { address: Ipv4Addr::from_bits(SERVERS + number * size), bits: 32 - size.trailing_zeros() }
}

/// Powers of two that divide the number of rules, from the largest to 2, one after the other; 1 if there is none.
fn prefixes(set: u32, rules: u32) -> u32 {
    let largest = rules.trailing_zeros().min(MOST_PREFIXES.trailing_zeros());
    // So many ports there are; the rest must come from prefixes.
    let least = rules.div_ceil(PORTS).next_power_of_two().trailing_zeros().max(1);
    if largest < least { 1 } else { 1 << (largest - set % (largest - least + 1)) }
}

fn ranges(count: u32, cut: Cut) -> Vec<RangeInclusive<u16>> {
    let blocks = count.max(1).next_power_of_two();
    let bounds: Vec<u32> = match cut {
        Cut::Even => (0..=count)
            .map(|n| u32::try_from(u64::from(n) * u64::from(PORTS) / u64::from(count)).unwrap_or(PORTS))
            .collect(),
        Cut::Masked => {
            // The first ones are two blocks long.
            let double = blocks - count;
            (0..=count).map(|n| (n + n.min(double)) * (PORTS / blocks)).collect()
        }
    };
    let port = |offset: u32| u16::try_from(FIRST_PORT + offset).unwrap_or(u16::MAX);
    bounds.windows(2).map(|two| port(two[0])..=port(two[1] - 1)).collect()
}

/// Some three fifths of the number, without a factor in common with it.
fn step(number: u32) -> u32 {
    let mut step = u32::try_from(u64::from(number) * 618 / 1000).unwrap_or(0).max(1);
    while gcd(step, number) != 1 {
        step += 1;
    }
    step
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The generator's flows: these numbers are `cli/src/bench/flows.rs`'s.
    pub(crate) fn flow(number: u32) -> (Ipv4Addr, u16) {
        let server = Ipv4Addr::from_bits(SERVERS + (number.wrapping_mul(193) & 0xff));
        (server, u16::try_from(16_384 + (number.wrapping_mul(18_673) & 0x7fff)).unwrap())
    }

    fn places(cells: &[Cell], (server, port): (Ipv4Addr, u16)) -> Vec<usize> {
        let is_in = |cell: &Cell| {
            let bits = 32 - cell.server.bits;
            server.to_bits() >> bits == cell.server.address.to_bits() >> bits && cell.client_ports.contains(&port)
        };
        cells.iter().enumerate().filter(|(_, cell)| is_in(cell)).map(|(place, _)| place).collect()
    }

    #[test]
    fn the_flows_are_the_generators() {
        assert_eq!(flow(0), (Ipv4Addr::new(10, 128, 0, 0), 16_384));
        assert_eq!(flow(1), (Ipv4Addr::new(10, 128, 0, 193), 35_057));
        assert_eq!(flow(9_999), (Ipv4Addr::new(10, 128, 0, 79), 48_415));
        assert_eq!(flow(70_000), (Ipv4Addr::new(10, 128, 0, 112), 43_632));
    }

    #[test]
    fn every_flow_is_in_one_cell_and_the_places_are_uniform() {
        for cut in [Cut::Even, Cut::Masked] {
            for rules in [1, 2, 7, 200, 256, 1000] {
                for set in [0, 1, 2, 9] {
                    let cells = cells(set, rules, cut);
                    assert_eq!(cells.len(), rules as usize);
                    let mut tenths = [0; 10];
                    let mut met = vec![false; cells.len()];
                    for number in 0..10_000 {
                        let places = places(&cells, flow(number));
                        assert_eq!(places.len(), 1, "{cut:?} {rules} {set}: flow {number} is at {places:?}");
                        tenths[places[0] * 10 / cells.len()] += 1;
                        met[places[0]] = true;
                    }
                    assert!(met.iter().all(|met| *met), "{cut:?} {rules} {set}");
                    if rules >= 200 {
                        assert!(
                            tenths.iter().all(|&flows| (800..1200).contains(&flows)),
                            "{cut:?} {rules} {set} {tenths:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn sets_of_a_policy_differ() {
        assert_eq!([0, 1, 2, 3].map(|set| prefixes(set, 200)), [8, 4, 2, 8]);
        assert_eq!([0, 1, 4].map(|set| prefixes(set, 50_000)), [16, 8, 16]);
        assert_eq!([0, 1].map(|set| prefixes(set, 7)), [1, 1]);
        let first: Vec<Cell> = [0, 3].map(|set| cells(set, 200, Cut::Even)[0].clone()).into();
        assert_ne!(first[0], first[1], "sets with the same cells have them in another order");
    }

    #[test]
    fn a_large_set_covers_all_ports() {
        for rules in [50_000, MOST] {
            let cells = cells(0, rules, Cut::Even);
            let prefix = cells[0].server;
            let ports: usize =
                cells.iter().filter(|cell| cell.server == prefix).map(|cell| cell.client_ports.len()).sum();
            assert_eq!(ports, PORTS as usize);
        }
    }

    #[test]
    fn there_are_no_more_ranges_than_ports() {
        assert_eq!(
            [0, 1, 32_767, 32_768, 40_001, 50_000, MOST, MOST + 1].map(can_be),
            [false, true, true, true, false, true, true, false]
        );
    }

    #[test]
    fn masks_are_what_they_stand_for() {
        for cell in cells(0, 200, Cut::Masked) {
            let (value, mask) = masked(&cell.client_ports);
            assert!((0..=u16::MAX).all(|port| (port & mask == value) == cell.client_ports.contains(&port)), "{cell:?}");
        }
    }
}
