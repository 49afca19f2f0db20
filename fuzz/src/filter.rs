// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Expressions of any text, and frames of any bytes.

use packet::filter::Filter;

/// The first two bytes say how much of the rest is text; what is left is a frame.
///
/// # Panics
/// If parsing or matching panics, or if a negation does not negate.
pub fn filter(data: &[u8]) {
    let Some((length, rest)) = data.split_first_chunk::<2>() else { return };
    let at = usize::from(u16::from_le_bytes(*length)) % (rest.len() + 1);
    let (text, frame) = rest.split_at(at);
    // Whatever is no text is made one: a node is given text.
    let text = String::from_utf8_lossy(text);
    let Ok(filter) = text.parse::<Filter>() else { return };
    let Ok(length) = u32::try_from(frame.len()) else { return };
    let matches = filter.matches(frame, length);
    if let Ok(negation) = format!("not ({text})").parse::<Filter>() {
        assert_ne!(matches, negation.matches(frame, length), "{text}");
    }
}
