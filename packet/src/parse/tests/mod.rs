// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The parser against a generator of frames, an independent parser, and nonsense.

mod cases;
mod fragments;
mod hostile;
mod oracle;
pub(crate) mod stack;
mod stack_ip;
pub(crate) mod strategy;

use std::collections::HashSet;

use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};

use self::strategy::{stack, tunnelled};
use super::{ParseError, Parsed, parse};
use crate::{DropCause, Field, WINDOW};

fn parse_whole(frame: &[u8]) -> Result<Parsed, ParseError> {
    parse(frame, u32::try_from(frame.len()).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// VF-15: one pass gives identity, places and the rest of a packet.
    #[test]
    fn what_was_built_is_found(stack in stack()) {
        let built = stack.build();
        prop_assert_eq!(parse_whole(&built.bytes), Ok(built.parsed));
    }

    #[test]
    fn tunnels_are_found(stack in tunnelled()) {
        let built = stack.build();
        prop_assert_eq!(parse_whole(&built.bytes), Ok(built.parsed));
        let is_visible = stack.outer.is_some_and(|outer| outer.is_visible());
        prop_assert_eq!(built.parsed.layout.outer.is_some(), is_visible);
        prop_assert_eq!(built.parsed.ufid.get(Field::OuterIpVersion) != 0, is_visible);
    }

    #[test]
    fn what_the_window_lacks_is_named(stack in stack()) {
        let built = stack.build();
        let frame_len = u32::try_from(built.bytes.len()).unwrap();
        let window = &built.bytes[..built.bytes.len().min(WINDOW)];
        match parse(window, frame_len) {
            Ok(parsed) => prop_assert_eq!(parsed, built.parsed),
            Err(error) => {
                prop_assert_eq!(error.cause(), DropCause::HeaderBeyondWindow);
                prop_assert!(usize::from(built.parsed.layout.end) > WINDOW);
            }
        }
    }
}

/// A generator that stopped building something would go unnoticed by all that uses it.
#[test]
fn the_generator_builds_all_there_is() {
    let mut runner = TestRunner::deterministic();
    let mut seen = HashSet::new();
    for _ in 0..2000 {
        let Parsed { layout, ufid, transient } = stack().new_tree(&mut runner).unwrap().current().build().parsed;
        for field in [Field::Tunnel, Field::Fragment, Field::IpVersion, Field::OuterIpVersion] {
            seen.insert((field.label(), ufid.get(field)));
        }
        if layout.transport.is_some() {
            seen.insert((Field::IpProto.label(), ufid.get(Field::IpProto)));
        }
        seen.insert(("vlans", layout.vlans.into()));
        seen.insert(("arp", u128::from(ufid.get(Field::EtherType) == 0x0806)));
        seen.insert(("fragment header", u128::from(layout.fragment_header.is_some())));
        seen.insert(("outer vlan", u128::from(layout.outer.is_some_and(|outer| outer.vlan))));
        seen.insert(("last fragment", u128::from(transient.fragment_offset > 0 && !transient.more_fragments)));
        seen.insert(("beyond the window", u128::from(usize::from(layout.end) > WINDOW)));
    }
    let expected: [(&str, &[u128]); 11] = [
        (Field::Tunnel.label(), &[0, 1, 2, 3, 4]),
        (Field::Fragment.label(), &[0, 1, 2]),
        (Field::IpVersion.label(), &[0, 4, 6]),
        (Field::OuterIpVersion.label(), &[0, 4, 6]),
        (Field::IpProto.label(), &[1, 6, 17, 58]),
        ("vlans", &[0, 1, 2]),
        ("arp", &[0, 1]),
        ("fragment header", &[0, 1]),
        ("outer vlan", &[0, 1]),
        ("last fragment", &[0, 1]),
        ("beyond the window", &[0, 1]),
    ];
    let expected = expected.into_iter().flat_map(|(name, values)| values.iter().map(move |value| (name, *value)));
    assert_eq!(seen, expected.collect());
}
