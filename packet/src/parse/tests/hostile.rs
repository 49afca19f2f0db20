// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Frames that were cut, mutated, or never made sense.

use proptest::{collection::vec, prelude::*, sample::Index};

use super::{parse_whole, strategy::stack};
use crate::{
    DropCause, Field, Ufid,
    parse::{ParseError, Parsed, parse},
};

/// What holds of anything that a parser says.
fn check(parsed: &Parsed, window: &[u8]) {
    let layout = parsed.layout;
    let mut last = 0;
    let outer = layout.outer.map_or([None; 3], |outer| [Some(outer.ip), Some(outer.transport), Some(outer.end)]);
    let inner = [layout.ethernet, layout.network, layout.fragment_header, layout.transport, Some(layout.end)];
    for at in outer.into_iter().chain(inner).flatten() {
        assert!(at >= last, "{layout:?}");
        last = at;
    }
    assert!(usize::from(last) <= window.len(), "{layout:?} in {}", window.len());
    assert!(layout.vlans <= 2);
    assert_eq!(layout.outer.is_some(), parsed.ufid.get(Field::Tunnel) != 0);
    assert_eq!(parsed.ufid.reversed().reversed(), parsed.ufid);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// A frame that ends early either lacks nothing but payload without a length, or is refused.
    #[test]
    fn a_cut_frame_is_refused_or_the_same(stack in stack()) {
        let built = stack.build();
        for len in 0..built.bytes.len() {
            match parse_whole(&built.bytes[..len]) {
                Ok(parsed) => prop_assert_eq!(parsed, built.parsed),
                Err(error @ ParseError::CutShort { at, need, end, .. }) => {
                    prop_assert!(at <= end && end < need);
                    prop_assert_eq!(end, u32::try_from(len).unwrap());
                    prop_assert_eq!(error.cause() == DropCause::Runt, len < 14);
                }
                Err(error) => prop_assert!(false, "{error} at {len}"),
            }
        }
    }

    /// A window that ends early hides headers, but never changes what is seen.
    #[test]
    fn a_cut_window_hides_or_changes_nothing(stack in stack(), beyond in 0_u32..2000) {
        let built = stack.build();
        let frame_len = u32::try_from(built.bytes.len()).unwrap() + beyond;
        for len in 0..built.bytes.len() {
            match parse(&built.bytes[..len], frame_len) {
                Ok(parsed) => prop_assert_eq!(parsed, built.parsed),
                Err(ParseError::BeyondWindow { at, need, window, .. }) => {
                    prop_assert_eq!(window, u32::try_from(len).unwrap());
                    prop_assert!(at <= window && window < need && need <= frame_len);
                    prop_assert!(need <= built.parsed.layout.end.into());
                }
                Err(error) => prop_assert!(false, "{error} at {len}"),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5000))]

    #[test]
    fn mutated_frames_are_parsed_or_refused(
        stack in stack(),
        edits in vec((any::<Index>(), any::<u8>()), 1..8),
        cut in any::<Index>(),
    ) {
        let mut bytes = stack.build().bytes;
        for (at, value) in edits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(parsed) = parse_whole(&bytes) {
            check(&parsed, &bytes);
        }
        let window = &bytes[..cut.index(bytes.len() + 1)];
        let frame_len = u32::try_from(bytes.len()).unwrap();
        match (parse(window, frame_len), parse_whole(&bytes)) {
            (Err(ParseError::BeyondWindow { .. }), _) => {}
            (part, whole) => prop_assert_eq!(part, whole),
        }
    }

    #[test]
    fn random_bytes_are_parsed_or_refused(bytes in vec(any::<u8>(), 0..300), frame_len: u32) {
        for len in [frame_len, u32::try_from(bytes.len()).unwrap(), frame_len % 300, u32::MAX] {
            if let Ok(parsed) = parse(&bytes, len) {
                check(&parsed, &bytes);
            }
        }
    }

    #[test]
    fn reversing_twice_is_nothing(words: [u64; crate::ufid::WORDS], small in any::<bool>()) {
        // Small numbers meet the cases that are told apart.
        let ufid = Ufid::from_words(if small { words.map(|word| word & 0x0006_0f3f_0fff_ffff) } else { words });
        prop_assert_eq!(ufid.reversed().reversed(), ufid);
    }
}

#[test]
fn windows_of_any_length_are_read() {
    let mut bytes = vec![0; 200_000];
    bytes[12..14].copy_from_slice(&[8, 0]);
    for first in 0..=255 {
        bytes[14] = first;
        for frame_len in [0, 13, 14, 33, 34, 65_535, 200_000, u32::MAX] {
            let result = parse(&bytes, frame_len);
            assert!(result.is_err(), "a length of 0 is none");
        }
    }
}
