// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Packets of a group.

use super::{Damage, Found, HEAD, Phase, Reader};
use crate::wire::{ETHERNET, SUBFRAME_HEADER, TEMPLATE, padded};
use crate::{Cause, Meta, Source};

/// A sub-frame's header that says anything but a length. Reserved flags say nothing, but are not to be passed on: plain packets may be
/// put into another frame as they lie.
const NOT_PLAIN: u32 = 0xffff;
/// From this length on it is cheaper to skip what lies beyond a packet's head than to read through it.
const LONG: usize = 1024;
/// Bytes from the start of what the template overwrites to the first byte of a packet.
const FRONT: usize = TEMPLATE + SUBFRAME_HEADER;

impl Reader {
    /// Takes a plain packet that is wholly in the look-ahead: where it is there, its template in front, and its length.
    #[inline]
    pub(super) fn step(&mut self) -> Option<(usize, usize)> {
        let left = self.left.checked_sub(1)?;
        // TEMPLATE bytes have passed at any place where a packet can begin.
        let pos = self.ahead.pos;
        let from = pos.wrapping_sub(TEMPLATE);
        let window = self.ahead.bytes_mut(from, self.stop);
        let (front, body) = window.split_first_chunk_mut::<FRONT>()?;
        let [.., b0, b1, b2, b3] = *front;
        let word = u32::from_be_bytes([b0, b1, b2, b3]);
        let len = usize::from(u16::from_be_bytes([b0, b1]));
        // Too short wraps around and is too long; a template alone is no packet.
        let least = if self.prefix == 0 { ETHERNET } else { 1 };
        let span = HEAD.wrapping_sub(self.prefix).wrapping_sub(least);
        let stored = padded(len);
        if word & NOT_PLAIN != 0 || len.wrapping_sub(least) > span || stored > body.len() {
            return None;
        }
        let first = pos.wrapping_add(SUBFRAME_HEADER);
        self.left = left;
        if self.prefix != 0
            && let Some(before) = front.last_chunk_mut::<ETHERNET>()
        {
            *before = self.template;
        }
        self.ahead.pos = first.wrapping_add(stored);
        Some((first.wrapping_sub(self.prefix), len.wrapping_add(self.prefix)))
    }

    /// Takes a packet that is longer than its head, and otherwise plain, if its head is in the look-ahead: where that is there, and the
    /// packet's length.
    #[inline]
    pub(super) fn step_long(&mut self) -> Option<(usize, usize)> {
        let left = self.left.checked_sub(1)?;
        let pos = self.ahead.pos;
        let (&[b0, b1, b2, b3], body) = self.ahead.bytes(pos, self.stop).split_first_chunk::<SUBFRAME_HEADER>()?;
        let len = usize::from(u16::from_be_bytes([b0, b1]));
        let head = HEAD.wrapping_sub(self.prefix);
        // Offsets in the source are those of a frame of at most 65,535 bytes in something that has a length.
        let end = self.ahead.at().saturating_add(SUBFRAME_HEADER.wrapping_add(padded(len)));
        let plain = u32::from_be_bytes([b0, b1, b2, b3]) & NOT_PLAIN == 0;
        if !plain || len <= head || head > body.len() || end > self.group_end {
            return None;
        }
        let first = pos.wrapping_add(SUBFRAME_HEADER);
        let from = first.wrapping_sub(self.prefix);
        if self.prefix != 0 {
            self.ahead.bytes_mut(from, first).copy_from_slice(&self.template);
        }
        self.left = left;
        if len > LONG {
            self.ahead.expect_long();
        }
        self.ahead.seek(end);
        self.bound();
        Some((from, len.wrapping_add(self.prefix)))
    }

    /// Hands up to `most` plain packets that are wholly in the look-ahead to `each`, and says how many. 0 means that something
    /// else comes, or that more has to be read: [`next`](Self::next) knows. Their bytes are private and may be edited.
    #[inline]
    pub fn plain(&mut self, most: usize, mut each: impl FnMut(&mut [u8])) -> usize {
        let mut n = 0;
        while n < most {
            let Some((from, len)) = self.step() else { break };
            each(self.ahead.bytes_mut(from, from.wrapping_add(len)));
            n = n.wrapping_add(1);
        }
        n
    }

    /// Up to `most` plain packets that lie one behind the other in the look-ahead, with their sub-frame headers, as
    /// [`Writer::push_run`](crate::Writer::push_run) takes them. `None` if something else comes, if the group has a template, or
    /// if more has to be read: [`next`](Self::next) knows.
    pub fn run(&mut self, most: usize) -> Option<Run<'_>> {
        if self.prefix != 0 {
            return None;
        }
        let from = self.ahead.pos;
        let mut packets = 0_u16;
        while usize::from(packets) < most && self.step().is_some() {
            packets = packets.saturating_add(1);
        }
        let bytes = self.ahead.bytes(from, self.ahead.pos);
        (packets > 0).then_some(Run { bytes, packets })
    }

    /// Whether a plain packet comes next, without a template, that [`run`](Self::run) would take.
    #[must_use]
    pub fn may_run(&self) -> bool {
        let header = self.ahead.bytes(self.ahead.pos, self.stop).first_chunk::<SUBFRAME_HEADER>();
        let word = header.map_or(u32::MAX, |header| u32::from_be_bytes(*header));
        self.left > 0 && self.prefix == 0 && word & NOT_PLAIN == 0 && (word >> 16) as usize <= HEAD
    }

    /// The next packet of the group, whatever it is like; `None` behind the last.
    pub(super) fn packet<S: Source + ?Sized>(&mut self, source: &S) -> Option<Found> {
        let mut runts = 0_u32;
        while self.left > 0 {
            match self.subframe(source) {
                Ok(None) => runts = runts.saturating_add(1),
                Ok(Some(_)) | Err(_) if runts > 0 => break,
                Ok(Some(found)) => {
                    let found = self.take(source, found);
                    self.bound();
                    return Some(found);
                }
                Err(cause) => {
                    let lost = u32::from(self.left);
                    self.left = 0;
                    self.phase = if cause == Cause::Unreadable { Phase::Done } else { Phase::Between };
                    return Some(Found::Damaged(Damage::of(cause, lost)));
                }
            }
        }
        self.bound();
        if runts > 0 {
            return Some(Found::Damaged(Damage::of(Cause::Runt, runts)));
        }
        let surplus = self.group_end.saturating_sub(self.ahead.at()) >= super::groups::PADDING;
        self.phase = Phase::Between;
        surplus.then_some(Found::Damaged(Damage::of(Cause::Surplus, 0)))
    }

    /// Reads a sub-frame's header and stays there; a packet too short to be one is passed, and is `None`.
    fn subframe<S: Source + ?Sized>(&mut self, source: &S) -> Result<Option<Subframe>, Cause> {
        let at = self.ahead.at();
        let room = self.group_end.saturating_sub(at);
        if room < SUBFRAME_HEADER {
            return Err(Cause::SubframeLength);
        }
        let bytes = self.ahead.need(source, SUBFRAME_HEADER).ok_or(Cause::Unreadable)?;
        let Some(&[len0, len1, flags, words]) = bytes.first_chunk::<SUBFRAME_HEADER>() else {
            return Err(Cause::Unreadable);
        };
        let (len, ext) = (usize::from(u16::from_be_bytes([len0, len1])), usize::from(words).saturating_mul(4));
        let total = SUBFRAME_HEADER.saturating_add(ext).saturating_add(padded(len));
        if total > room {
            return Err(Cause::SubframeLength);
        }
        let found = Subframe { at, flags, ext, len, end: at.saturating_add(total) };
        if len == 0 || len.saturating_add(self.prefix) < ETHERNET {
            self.pass(&found);
            return Ok(None);
        }
        Ok(Some(found))
    }

    /// Takes the packet at which the look-ahead stands.
    fn take<S: Source + ?Sized>(&mut self, source: &S, found: Subframe) -> Found {
        let whole = found.len.saturating_add(self.prefix);
        let len = u32::try_from(whole).unwrap_or(u32::MAX);
        let known = found.ext.min(Meta::MAX_LEN);
        let meta = match self.ahead.need(source, SUBFRAME_HEADER.saturating_add(known)) {
            Some(bytes) => Meta::parse(found.flags, bytes.get(SUBFRAME_HEADER..).unwrap_or_default(), len),
            None => Err(Cause::Unreadable),
        };
        let meta = match meta {
            Ok(meta) => meta,
            Err(cause) => return self.lose(&found, cause),
        };
        let first = found.at.saturating_add(SUBFRAME_HEADER).saturating_add(found.ext);
        self.ahead.seek(first);
        let head = found.len.min(HEAD.saturating_sub(self.prefix));
        if self.ahead.need(source, head).is_none() {
            return self.lose(&found, Cause::Unreadable);
        }
        let (to, from) = (self.ahead.pos.saturating_add(head), self.ahead.pos.saturating_sub(self.prefix));
        if self.prefix > 0 {
            self.ahead.bytes_mut(from, self.ahead.pos).copy_from_slice(&self.template);
        }
        if found.len > LONG {
            self.ahead.expect_long();
        }
        self.pass(&found);
        Found::Packet { from, to, len, rest_at: first.saturating_add(head), meta }
    }

    /// Goes behind a sub-frame.
    fn pass(&mut self, found: &Subframe) {
        self.ahead.seek(found.end);
        self.left = self.left.saturating_sub(1);
    }

    fn lose(&mut self, found: &Subframe, cause: Cause) -> Found {
        let mut lost = 1;
        if cause == Cause::Unreadable {
            lost = u32::from(self.left);
            self.left = 0;
            self.phase = Phase::Done;
        } else {
            self.pass(found);
        }
        Found::Damaged(Damage::of(cause, lost))
    }
}

/// What a sub-frame's header says, by offsets in the source.
#[derive(Clone, Copy, Debug)]
struct Subframe {
    at: usize,
    flags: u8,
    ext: usize,
    len: usize,
    end: usize,
}

/// Plain packets one behind the other, with their sub-frame headers and padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run<'a> {
    bytes: &'a [u8],
    packets: u16,
}

impl<'a> Run<'a> {
    /// All bytes.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Number of packets, at least one.
    #[must_use]
    pub const fn packets(&self) -> u16 {
        self.packets
    }

    /// The packets.
    #[must_use]
    pub const fn iter(&self) -> RunPackets<'a> {
        RunPackets(self.bytes)
    }
}

impl<'a> IntoIterator for &Run<'a> {
    type Item = &'a [u8];
    type IntoIter = RunPackets<'a>;

    fn into_iter(self) -> RunPackets<'a> {
        self.iter()
    }
}

/// The packets of a [`Run`].
#[derive(Clone, Debug)]
pub struct RunPackets<'a>(&'a [u8]);

impl RunPackets<'_> {
    /// Bytes of the run that are behind the packets handed out so far.
    #[must_use]
    pub const fn bytes_left(&self) -> usize {
        self.0.len()
    }
}

impl<'a> Iterator for RunPackets<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let ([len0, len1, _, _], rest) = self.0.split_first_chunk::<SUBFRAME_HEADER>()?;
        let len = usize::from(u16::from_be_bytes([*len0, *len1]));
        self.0 = rest.get(padded(len)..)?;
        rest.get(..len)
    }
}
