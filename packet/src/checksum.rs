// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The Internet checksum (RFC 1071): whole, streamed, incremental (RFC 1624), and finishing what a
//! sender left unfinished.

use crate::{Checksum, OffloadError};

/// A running ones' complement sum over any number of pieces of any length.
///
/// ```
/// use packet::checksum::{Sum, checksum};
/// let data = [0x45, 0x00, 0x12, 0x34, 0x56];
/// let mut sum = Sum::new();
/// sum.add(&data[..3]);
/// sum.add(&data[3..]);
/// assert_eq!(sum.checksum(), checksum(&data));
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    /// Sum of little-endian words, folded to 16 bits; it is byte-swapped once, at the end (RFC 1071
    /// 2B).
    words: u16,
    /// An odd number of bytes was added: the next byte is the second of its word.
    odd: bool,
}

impl Sum {
    /// Nothing added yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { words: 0, odd: false }
    }

    /// Adds bytes that follow those added before.
    #[inline]
    pub fn add(&mut self, bytes: &[u8]) {
        let piece = sum_words(bytes);
        // A piece that starts in the middle of a word has all its bytes in the other half.
        let piece = if self.odd { piece.swap_bytes() } else { piece };
        self.words = add_ones_complement(self.words, piece);
        self.odd ^= bytes.len() & 1 == 1;
    }

    /// Adds a 16-bit value, as if its two bytes in network order had been added apart from the
    /// stream: pseudo-header fields.
    #[inline]
    pub const fn add_value(&mut self, value: u16) {
        self.words = add_ones_complement(self.words, value.to_be());
    }

    /// Adds what the change of one byte adds to a sum over bytes, of which it is that at `offset`.
    #[inline]
    pub(crate) const fn add_change(&mut self, offset: usize, old: u8, new: u8) {
        let shift = if offset & 1 == 0 { 8 } else { 0 };
        self.add_value(!((old as u16) << shift));
        self.add_value((new as u16) << shift);
    }

    /// The sum as it is kept in an unfinished checksum field: not complemented.
    #[inline]
    #[must_use]
    pub const fn partial(self) -> u16 {
        u16::from_be(self.words)
    }

    /// The checksum: the complement of the sum.
    #[inline]
    #[must_use]
    pub const fn checksum(self) -> u16 {
        !self.partial()
    }

    /// The checksum as TCP and UDP send it: never 0, which to UDP means that there is none. The
    /// other representation of zero, 0xffff, is as good to every receiver.
    #[inline]
    #[must_use]
    pub const fn transport_checksum(self) -> u16 {
        match self.checksum() {
            0 => 0xffff,
            other => other,
        }
    }
}

/// The checksum of `bytes`; 0 if they contain a correct one.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = Sum::new();
    sum.add(bytes);
    sum.checksum()
}

/// The checksum after a 16-bit word of what it covers changed from `old` to `new` (RFC 1624,
/// equation 3, which is right also where RFC 1141 is not: at zero).
#[inline]
#[must_use]
pub const fn update(checksum: u16, old: u16, new: u16) -> u16 {
    !add_ones_complement(add_ones_complement(!checksum, !old), new)
}

/// The checksum after the sum of what it covers grew by two numbers.
#[inline]
pub(crate) const fn grown(checksum: u16, a: u16, b: u16) -> u16 {
    let sum = (!checksum as u32).wrapping_add(a as u32).wrapping_add(b as u32);
    // 18 bits, then 17, then 16.
    let sum = (sum & 0xffff).wrapping_add(sum >> 16);
    !(sum.wrapping_add(sum >> 16) as u16)
}

/// [`update`] for an aligned 32-bit field, an IPv4 address or a sequence number.
#[inline]
#[must_use]
pub const fn update_u32(checksum: u16, old: u32, new: u32) -> u16 {
    let [a, b, c, d] = old.to_be_bytes();
    let [e, f, g, h] = new.to_be_bytes();
    let high = update(checksum, u16::from_be_bytes([a, b]), u16::from_be_bytes([e, f]));
    update(high, u16::from_be_bytes([c, d]), u16::from_be_bytes([g, h]))
}

/// Finishes the checksum of a frame whose first bytes are `window` and whose rest are `pieces` in
/// order: sums from `start`, stores the complement at `start + offset`. Does nothing if `state` is
/// not [`Checksum::Unfinished`].
///
/// Where the payload lies in guest memory, it cannot be lent as slices: stream it through a
/// [`Sum`] that began with `window[start..]`, and give that to [`store`].
///
/// # Errors
/// If the field does not lie within `window`; nothing is written then.
pub fn complete<'a>(
    window: &mut [u8],
    pieces: impl IntoIterator<Item = &'a [u8]>,
    state: Checksum,
) -> Result<(), OffloadError> {
    let Some(mut sum) = begin(window, state)? else {
        return Ok(());
    };
    for piece in pieces {
        sum.add(piece);
    }
    store(window, state, sum)
}

/// The first half of [`complete`]: the sum over the window, to which the payload is to be added.
/// `None` if there is nothing to finish.
///
/// # Errors
/// If the field does not lie within `window`.
pub fn begin(window: &[u8], state: Checksum) -> Result<Option<Sum>, OffloadError> {
    let Checksum::Unfinished { start, offset } = state else {
        return Ok(None);
    };
    let at = usize::from(start).saturating_add(usize::from(offset));
    let beyond = OffloadError::ChecksumBeyondWindow { at, window_len: window.len() };
    if at.saturating_add(2) > window.len() {
        return Err(beyond);
    }
    let mut sum = Sum::new();
    sum.add(window.get(usize::from(start)..).ok_or(beyond)?);
    Ok(Some(sum))
}

/// The second half of [`complete`]: stores the finished sum.
///
/// # Errors
/// If the field does not lie within `window`; nothing is written then.
pub fn store(window: &mut [u8], state: Checksum, sum: Sum) -> Result<(), OffloadError> {
    let Checksum::Unfinished { start, offset } = state else {
        return Ok(());
    };
    let at = usize::from(start).saturating_add(usize::from(offset));
    let window_len = window.len();
    match window.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        Some(field) => {
            *field = sum.transport_checksum().to_be_bytes();
            Ok(())
        }
        None => Err(OffloadError::ChecksumBeyondWindow { at, window_len }),
    }
}

/// Finishes the checksum of a frame that lies in one piece: [`complete`] without payload.
///
/// # Errors
/// If the field does not lie within `frame`; nothing is written then.
pub fn complete_checksum(frame: &mut [u8], state: Checksum) -> Result<(), OffloadError> {
    complete(frame, [], state)
}

/// The folded sum of little-endian words; a last odd byte is the first of its word.
#[inline]
fn sum_words(bytes: &[u8]) -> u16 {
    let (chunks, rest) = bytes.as_chunks::<8>();
    // Halves of 32 bits: neither accumulator overflows below 2^34 bytes, and there is no carry to
    // follow, which lets the compiler use vectors.
    let (mut low, mut high) = (0u64, 0u64);
    for chunk in chunks {
        let word = u64::from_le_bytes(*chunk);
        low = low.wrapping_add(word & 0xffff_ffff);
        high = high.wrapping_add(word >> 32);
    }
    let mut last = [0; 8];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    let word = u64::from_le_bytes(last);
    low = low.wrapping_add(word & 0xffff_ffff);
    high = high.wrapping_add(word >> 32);
    fold(low.wrapping_add(high))
}

/// Adds the carries of a sum of 16-bit words back in until there are none.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the carries were folded in")]
const fn fold(mut sum: u64) -> u16 {
    sum = (sum & 0xffff_ffff).wrapping_add(sum >> 32);
    sum = (sum & 0xffff_ffff).wrapping_add(sum >> 32);
    sum = (sum & 0xffff).wrapping_add(sum >> 16);
    sum = (sum & 0xffff).wrapping_add(sum >> 16);
    sum as u16
}

#[inline]
const fn add_ones_complement(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    // With a carry the sum is at most 0xfffe.
    sum.wrapping_add(carry as u16)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// RFC 1071, section 4.1, a word at a time.
    fn oracle(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !u16::try_from(sum).unwrap()
    }

    #[test]
    fn the_example_of_rfc_1071() {
        let mut sum = Sum::new();
        sum.add(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.partial(), 0xddf2);
    }

    #[test]
    fn the_example_of_rfc_1624() {
        assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn a_field_beyond_the_window_is_refused() {
        let mut window = [1; 20];
        for (start, offset) in [(19, 0), (0, 19), (20, 0), (u16::MAX, u16::MAX), (3, 16)] {
            let state = Checksum::Unfinished { start, offset };
            let at = usize::from(start) + usize::from(offset);
            assert_eq!(
                complete_checksum(&mut window, state),
                Err(OffloadError::ChecksumBeyondWindow { at, window_len: 20 })
            );
            assert_eq!(window, [1; 20]);
        }
    }

    #[test]
    fn what_is_finished_is_left_alone() {
        let mut frame = [7; 64];
        complete_checksum(&mut frame, Checksum::Unknown).unwrap();
        complete_checksum(&mut frame, Checksum::Verified).unwrap();
        assert_eq!(frame, [7; 64]);
    }

    proptest! {
        #[test]
        fn the_sum_is_that_of_the_rfc(bytes in vec(any::<u8>(), 0..2000)) {
            prop_assert_eq!(checksum(&bytes), oracle(&bytes));
        }

        #[test]
        fn pieces_of_any_length_add_up(pieces in vec(vec(any::<u8>(), 0..40), 0..20)) {
            let mut sum = Sum::new();
            for piece in &pieces {
                sum.add(piece);
            }
            prop_assert_eq!(sum.checksum(), oracle(&pieces.concat()));
        }

        #[test]
        fn an_update_equals_a_new_sum(mut bytes in vec(any::<u8>(), 4..200), at: prop::sample::Index, new: u16) {
            let before = checksum(&bytes);
            let at = at.index(bytes.len() / 2) * 2;
            let old = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
            bytes[at..at + 2].copy_from_slice(&new.to_be_bytes());
            // All-zero data have the sum +0, which no update reaches.
            prop_assume!(bytes.iter().any(|b| *b != 0));
            prop_assert_eq!(update(before, old, new), checksum(&bytes));
        }

        #[test]
        fn a_wide_update_is_two_narrow_ones(check: u16, old: u32, new: u32) {
            let [a, b] = [old, new].map(|value| u16::try_from(value & 0xffff).unwrap());
            let mut sum = Sum::new();
            [!check, a, b].into_iter().for_each(|value| sum.add_value(value));
            prop_assert_eq!(grown(check, a, b), sum.checksum());
            let half = |value: u32, shift: u32| u16::try_from(value >> shift & 0xffff).unwrap();
            let high = update(check, half(old, 16), half(new, 16));
            prop_assert_eq!(update_u32(check, old, new), update(high, half(old, 0), half(new, 0)));
        }

        #[test]
        fn a_split_frame_is_finished_like_a_whole_one(
            frame in vec(any::<u8>(), 2..1000),
            start: prop::sample::Index,
            offset: prop::sample::Index,
            cut: prop::sample::Index,
        ) {
            let start = start.index(frame.len() - 1);
            let offset = offset.index(frame.len() - 1 - start);
            let state = Checksum::Unfinished {
                start: start.try_into().unwrap(),
                offset: offset.try_into().unwrap(),
            };
            let mut whole = frame.clone();
            complete_checksum(&mut whole, state).unwrap();
            let at = start + offset;
            let stored = u16::from_be_bytes([whole[at], whole[at + 1]]);
            let expected = oracle(&frame[start..]);
            prop_assert_eq!(stored, if expected == 0 { 0xffff } else { expected });

            let cut = at + 2 + cut.index(frame.len() - at - 1);
            let (mut window, tail) = (frame[..cut].to_vec(), &frame[cut..]);
            let middle = tail.len() / 3;
            complete(&mut window, [&tail[..middle], &tail[middle..]], state).unwrap();
            prop_assert_eq!([&window, tail].concat(), whole);
        }
    }
}
