// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Reading headers from a window that may have less of them than the packet.

use super::{Header, ParseError};

/// What can be read of a packet. All positions are from the start of the frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet<'a> {
    /// Never longer than `end`, so that one comparison tells whether a header is there.
    window: &'a [u8],
    /// Where the packet ends.
    end: usize,
}

impl<'a> Packet<'a> {
    #[inline]
    pub(super) fn new(window: &'a [u8], frame_len: u32) -> Self {
        // Positions are reported in 16 bits.
        let window = window.get(..usize::from(u16::MAX)).unwrap_or(window);
        let end = usize::try_from(frame_len).unwrap_or(usize::MAX);
        Self { window, end: usize::MAX }.until(end)
    }

    /// The part of it before `end`.
    #[inline]
    pub(super) fn until(self, end: usize) -> Self {
        Self { window: self.window.get(..end).unwrap_or(self.window), end: self.end.min(end) }
    }

    /// Where it ends.
    #[inline]
    pub(super) const fn end(self) -> usize {
        self.end
    }

    /// The `N` bytes from `at` on.
    #[inline]
    pub(super) fn header<const N: usize>(self, at: usize, header: Header) -> Result<&'a [u8; N], ParseError> {
        match self.window.get(at..).and_then(<[u8]>::first_chunk) {
            Some(bytes) => Ok(bytes),
            None => Err(self.missing(at, N, header)),
        }
    }

    /// Where a header of `len` bytes ends that begins at `at`, if it is there as a whole.
    #[inline]
    pub(super) fn skip(self, at: usize, len: usize, header: Header) -> Result<usize, ParseError> {
        let end = at.saturating_add(len);
        if end <= self.window.len() { Ok(end) } else { Err(self.missing(at, len, header)) }
    }

    /// Where a packet of `len` bytes ends that begins at `at` with a header of this kind. Its payload
    /// need not be in the window.
    #[inline]
    pub(super) fn contains(self, at: usize, len: usize, header: Header) -> Result<usize, ParseError> {
        let end = at.saturating_add(len);
        if end <= self.end { Ok(end) } else { Err(self.missing(at, len, header)) }
    }

    #[cold]
    #[inline(never)]
    fn missing(self, at: usize, len: usize, header: Header) -> ParseError {
        let need = at.saturating_add(len);
        if need > self.end {
            ParseError::CutShort { header, at: wide(at), need: wide(need), end: wide(self.end) }
        } else {
            ParseError::BeyondWindow { header, at: wide(at), need: wide(need), window: wide(self.window.len()) }
        }
    }
}

/// A length field that is too small.
#[cold]
#[inline(never)]
pub(super) fn impossible(header: Header, at: usize, len: usize) -> ParseError {
    ParseError::Length { header, at: wide(at), len: wide(len) }
}

/// A position in the window.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "windows are at most 65535 bytes long")]
pub(super) const fn offset(at: usize) -> u16 {
    at as u16
}

/// A position or length in the frame.
#[inline]
pub(super) fn wide(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}
