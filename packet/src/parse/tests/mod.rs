// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The parser against a generator of frames, an independent parser, and nonsense.

mod cases;
mod hostile;
mod oracle;
pub(crate) mod stack;
mod stack_ip;
pub(crate) mod strategy;

use proptest::prelude::*;

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
