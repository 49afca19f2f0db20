// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A frame, taken apart.
//!
//! # Theory of operation
//!
//! The frame lies in a [`Source`] that others may write at any time. Everything that is decided on, headers and the first
//! [`HEAD`] bytes of each packet, is copied out once, front to back, into the reader's look-ahead, and only that copy is
//! looked at and handed on. What lies beyond the head of a packet is skipped, and named by its offset in the source.
//!
//! [`Reader::begin`] looks at the common header. Then either packets are asked for, by [`Reader::next`] one after the other
//! ([`Reader::plain`] and [`Reader::run`] are its fast forms), or whole groups, by [`Reader::next_group`], some of which can be gone into by
//! [`Reader::open_group`]. A caller may stop anywhere and go on later with the same source.
//!
//! **Check words.** With [`Limits::verify`] the check word over the headers is compared in `begin`, and the copies of the group headers that
//! were checked are those that are used. The CRC of a group is compared before anything of the group is handed out. A group that fits the
//! look-ahead is checked there; of a longer one the bytes are read a second time when their turn comes. So `verify` is for sources that are
//! private to the caller: a datagram, a slot of a kernel's ring while it is ours. On memory that another guest can write there is nothing to verify.

mod groups;
mod look_ahead;
mod packets;
#[cfg(test)]
mod tests;

use crate::wire::{ETHERNET, GROUP_HEADER, HEADER, SUBFRAME_HEADER};
use crate::{Cause, GroupHeader, Header, Meta, Source, TlvSet};
use look_ahead::LookAhead;

pub use groups::Group;
pub use packets::{Run, RunPackets};

/// Bytes of a packet that are copied into private memory.
pub const HEAD: usize = 256;
/// Bytes of look-ahead by default.
pub const LOOK_AHEAD: usize = 4096;

/// What is taken from the sender of a frame.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a frame.
    pub frame: usize,
    /// Groups of a frame.
    pub groups: u8,
    /// Packets of a frame. A group with which there are more is dropped.
    pub packets: u32,
    /// Bytes of TLVs of a group, TLV headers and padding included; also limited by the look-ahead.
    pub tlv_bytes: usize,
    /// TLVs that are known and allowed here.
    pub tlvs: TlvSet,
    /// Whether *follow* TLVs that are not in `tlvs` are handed out, too, to be sent on.
    pub foreign_tlvs: bool,
    /// Whether check words are compared where there are any. Only for a source that nobody else can write.
    pub verify: bool,
    /// Whether frames without a check word are refused, as on a link where every frame was agreed to have one.
    pub check_required: bool,
}

impl Limits {
    /// All that the format can hold, no TLVs, nothing verified.
    pub const NONE: Self = Self {
        frame: crate::wire::MAX_FRAME,
        groups: u8::MAX,
        packets: u32::MAX,
        tlv_bytes: 0,
        tlvs: TlvSet::NONE,
        foreign_tlvs: false,
        verify: false,
        check_required: false,
    };
}

/// What a frame is made of, in order.
#[derive(Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// A group begins; its TLVs and packets follow.
    Group(GroupHeader),
    /// A TLV of the group.
    Tlv {
        /// Its type.
        kind: u8,
        /// Its data, without padding.
        data: &'a [u8],
    },
    /// A packet of the group.
    Packet(Packet<'a>),
    /// Something was not taken. What follows is good again.
    Damaged(Damage),
}

/// A packet.
#[derive(Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Its first bytes, up to [`HEAD`]: private, and they may be edited.
    pub head: &'a mut [u8],
    /// Length of the whole packet in bytes.
    pub len: u32,
    /// Where in the source the bytes beyond the head are: `len - head.len()` of them.
    pub rest_at: usize,
    /// What travels with it.
    pub meta: Meta,
}

/// What was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Why.
    pub cause: Cause,
    /// How many packets are lost with it, as far as a header says so.
    pub packets: u32,
}

/// Takes frames apart, one after the other. It is made once and reused.
#[derive(Debug)]
pub struct Reader {
    ahead: LookAhead,
    limits: Limits,
    header: Header,
    phase: Phase,
    /// Offset in the source where the frame ends.
    end: usize,
    /// Offset in the source of the next group.
    next_group: usize,
    /// Number of the next group.
    group_index: u8,
    /// Packets that may still come.
    packet_budget: u32,
    /// Packets of the current group that are to come.
    left: u16,
    /// Offset in the source where the current group ends.
    group_end: usize,
    /// Where in the look-ahead plain packets must end: at the group's end, or that of what has been read.
    stop: usize,
    /// Bytes that the template puts before each packet: 0 or 14.
    prefix: usize,
    template: [u8; ETHERNET],
    /// Bytes of TLVs that are still to be handed out.
    tlv_left: usize,
    /// Group headers as they were checked.
    checked: Box<[[u8; GROUP_HEADER]; 255]>,
}

/// Where the cursor stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// At `next_group`.
    Between,
    /// In the current group's TLVs.
    Tlvs,
    /// In the current group's packets.
    Packets,
    /// Behind the last group.
    Done,
}

impl Default for Reader {
    fn default() -> Self {
        Self::new(LOOK_AHEAD)
    }
}

impl Reader {
    /// With a look-ahead of so many bytes, which is also the most that TLVs of one group can take up.
    #[must_use]
    pub fn new(look_ahead: usize) -> Self {
        let header = Header { control: false, checked: false, header_len: 0, len: 0, groups: 0, stage: 0, sequence: 0 };
        Self {
            ahead: LookAhead::new(look_ahead),
            limits: Limits::NONE,
            header,
            phase: Phase::Done,
            end: 0,
            next_group: 0,
            group_index: 0,
            packet_budget: 0,
            left: 0,
            group_end: 0,
            stop: 0,
            prefix: 0,
            template: [0; ETHERNET],
            tlv_left: 0,
            checked: Box::new([[0; GROUP_HEADER]; 255]),
        }
    }

    /// Goes to the frame that starts at offset `at` of the source and reads its common header. What an earlier frame had left is
    /// forgotten. The frame may end before the source does: Ethernet pads.
    ///
    /// A control frame is not read further: [`Header::control`] says so, there is nothing to be asked for, and its check word, which
    /// covers all of it, is left to [`negotiation`](crate::negotiation).
    ///
    /// # Errors
    /// Why the whole frame is not taken; then there is nothing to be asked for, either.
    pub fn begin<S: Source + ?Sized>(&mut self, source: &S, at: usize, limits: &Limits) -> Result<Header, Cause> {
        self.limits = *limits;
        self.phase = Phase::Done;
        self.left = 0;
        self.tlv_left = 0;
        let room = source.len().saturating_sub(at);
        self.ahead.begin(at, source.len());
        let bytes = self.ahead.need_little(source, HEADER).ok_or(Cause::FrameLength)?;
        let header = Header::parse(bytes.first_chunk::<HEADER>().ok_or(Cause::FrameLength)?)?;
        if header.len > room || header.len > limits.frame {
            return Err(Cause::FrameLength);
        }
        if self.limits.check_required && !header.checked {
            return Err(Cause::HeaderCheck);
        }
        self.header = header;
        self.end = at.saturating_add(header.len);
        self.ahead.set_limit(self.end);
        self.next_group = at.saturating_add(header.header_len);
        self.group_index = 0;
        self.packet_budget = limits.packets;
        if header.checked && limits.verify && !header.control {
            self.verify_headers(source)?;
        }
        if !header.control {
            self.phase = Phase::Between;
        }
        Ok(header)
    }

    /// The header of the frame that is being read.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// Whether all has been handed out.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.phase == Phase::Done
    }

    /// The next item of the frame, `None` at its end.
    #[inline]
    pub fn next<S: Source + ?Sized>(&mut self, source: &S) -> Option<Item<'_>> {
        if let Some((from, len)) = self.step() {
            let head = self.ahead.bytes_mut(from, from.saturating_add(len));
            // At most HEAD bytes.
            let len = u32::try_from(len).unwrap_or_default();
            return Some(Item::Packet(Packet { head, len, rest_at: 0, meta: Meta::NONE }));
        }
        self.advance(source, false)
    }

    /// The next item of the group that [`open_group`](Self::open_group) went into, `None` at its end.
    #[inline]
    pub fn next_in_group<S: Source + ?Sized>(&mut self, source: &S) -> Option<Item<'_>> {
        if let Some((from, len)) = self.step() {
            let head = self.ahead.bytes_mut(from, from.saturating_add(len));
            // At most HEAD bytes.
            let len = u32::try_from(len).unwrap_or_default();
            return Some(Item::Packet(Packet { head, len, rest_at: 0, meta: Meta::NONE }));
        }
        self.advance(source, true)
    }

    #[inline(never)]
    fn advance<S: Source + ?Sized>(&mut self, source: &S, within: bool) -> Option<Item<'_>> {
        let at = self.ahead.at();
        if let Some((from, len)) = self.step_long() {
            let head = self.ahead.bytes_mut(from, from.saturating_add(HEAD));
            let rest_at = at.saturating_add(SUBFRAME_HEADER.saturating_add(HEAD)).saturating_sub(self.prefix);
            let len = u32::try_from(len).unwrap_or(u32::MAX);
            return Some(Item::Packet(Packet { head, len, rest_at, meta: Meta::NONE }));
        }
        // In a loop that returns borrows the compiler would think every round borrowed.
        let found = loop {
            match self.phase {
                Phase::Between if within => return None,
                Phase::Between => match self.open(source)? {
                    Ok(group) => return Some(Item::Group(group)),
                    Err(damage) => return Some(Item::Damaged(damage)),
                },
                Phase::Tlvs => match self.tlv() {
                    Some(found) => break found,
                    None => self.phase = Phase::Packets,
                },
                Phase::Packets => match self.packet(source) {
                    Some(found) => break found,
                    None => self.phase = Phase::Between,
                },
                Phase::Done => return None,
            }
        };
        Some(match found {
            Found::Damaged(damage) => Item::Damaged(damage),
            Found::Tlv { kind, from, to } => Item::Tlv { kind, data: self.ahead.bytes(from, to) },
            Found::Packet { from, to, len, rest_at, meta } => {
                Item::Packet(Packet { head: self.ahead.bytes_mut(from, to), len, rest_at, meta })
            }
        })
    }
}

/// An [`Item`] by its place in the look-ahead.
#[derive(Clone, Copy, Debug)]
enum Found {
    Tlv { kind: u8, from: usize, to: usize },
    Packet { from: usize, to: usize, len: u32, rest_at: usize, meta: Meta },
    Damaged(Damage),
}

impl Damage {
    const fn of(cause: Cause, packets: u32) -> Self {
        Self { cause, packets }
    }
}
