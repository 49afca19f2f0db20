// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Groups: how they are entered, skipped and checked.

use super::{Damage, Found, Phase, Reader};
use crate::crc::Crc;
use crate::tlv::{self, FOLLOW, GROUP_CRC};
use crate::wire::{ETHERNET, GROUP_HEADER, HEADER, HEADER_CHECKED, TEMPLATE, TLV_HEADER};
use crate::{Cause, GroupHeader, Source};

/// Bytes behind the last packet of a group, or behind the last group, that still pass for padding.
pub(super) const PADDING: usize = 64;

/// A group as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// What its header says.
    pub header: GroupHeader,
    /// Its header's first bytes, private.
    pub bytes: [u8; GROUP_HEADER],
    /// Offset in the source where it begins; it has `header.len` bytes.
    pub at: usize,
}

impl Group {
    /// Writes who put the group together, and who is to take it apart. The group's CRC does not cover that.
    pub fn readdress(&mut self, origin: u16, destination: u16) {
        (self.header.origin, self.header.destination) = (origin, destination);
        if let Some(to) = self.bytes.get_mut(4..8) {
            let [from0, from1] = origin.to_be_bytes();
            let [to0, to1] = destination.to_be_bytes();
            to.copy_from_slice(&[from0, from1, to0, to1]);
        }
    }
}

impl Reader {
    /// The next group as a whole: nothing behind its header is looked at, nor is its CRC compared. What was left of the current group
    /// is skipped. `None` at the frame's end.
    pub fn next_group<S: Source + ?Sized>(&mut self, source: &S) -> Option<Result<Group, Damage>> {
        if self.phase == Phase::Done {
            return None;
        }
        self.left = 0;
        self.phase = Phase::Between;
        let (at, bytes) = match self.group_header(source)? {
            Ok(found) => found,
            Err(damage) => return Some(Err(damage)),
        };
        let header = match self.enter(at, &bytes) {
            Ok(header) => header,
            Err(damage) => return Some(Err(damage)),
        };
        Some(Ok(Group { header, bytes, at }))
    }

    /// Goes into the group that [`next_group`](Self::next_group) has just handed out: [`next_in_group`](Self::next_in_group) hands
    /// out what is in it.
    ///
    /// # Errors
    /// Why nothing of the group is taken; the next one can be asked for.
    pub fn open_group<S: Source + ?Sized>(&mut self, source: &S, group: &Group) -> Result<(), Damage> {
        self.ahead.seek(group.at);
        self.open_at(source, group.at, group.header).map(drop)
    }

    /// Enters the next group, of which all but the packets has then been checked.
    pub(super) fn open<S: Source + ?Sized>(&mut self, source: &S) -> Option<Result<GroupHeader, Damage>> {
        self.ahead.seek(self.next_group);
        if self.group_index < self.header.groups {
            // From here on what is read is read ahead, the packets behind it included.
            let _ = self.ahead.need(source, GROUP_HEADER);
        }
        let (at, bytes) = match self.group_header(source)? {
            Ok(found) => found,
            Err(damage) => return Some(Err(damage)),
        };
        Some(self.enter(at, &bytes).and_then(|header| self.open_at(source, at, header)))
    }

    /// Goes to the packets of a group whose header was judged.
    fn open_at<S: Source + ?Sized>(
        &mut self,
        source: &S,
        at: usize,
        header: GroupHeader,
    ) -> Result<GroupHeader, Damage> {
        self.front(source, at, &header).map_err(|cause| {
            self.left = 0;
            if cause == Cause::Unreadable {
                self.phase = Phase::Done;
            }
            Damage::of(cause, u32::from(header.packets))
        })
    }

    /// Where the next group begins and its header's bytes; at the frame's end, whether something is left over.
    fn group_header<S: Source + ?Sized>(&mut self, source: &S) -> Option<Result<(usize, [u8; GROUP_HEADER]), Damage>> {
        let index = self.group_index;
        if index >= self.header.groups {
            self.phase = Phase::Done;
            let surplus = self.end.saturating_sub(self.next_group) >= PADDING;
            return surplus.then_some(Err(Damage::of(Cause::Surplus, 0)));
        }
        if index >= self.limits.groups {
            self.phase = Phase::Done;
            return Some(Err(Damage::of(Cause::TooManyGroups, 0)));
        }
        let at = self.next_group;
        let private = self.checked.get(usize::from(index)).filter(|_| self.header.checked && self.limits.verify);
        let bytes = private.copied().or_else(|| self.header_at(source, at));
        let Some(bytes) = bytes else {
            self.phase = Phase::Done;
            return Some(Err(Damage::of(self.cut(at.saturating_add(GROUP_HEADER), Cause::GroupLength), 0)));
        };
        self.group_index = index.saturating_add(1);
        Some(Ok((at, bytes)))
    }

    /// The first bytes of a group header, from the look-ahead or, once, from the source.
    fn header_at<S: Source + ?Sized>(&self, source: &S, at: usize) -> Option<[u8; GROUP_HEADER]> {
        if at.saturating_add(GROUP_HEADER) > self.end {
            return None;
        }
        let held = self.ahead.held(at, GROUP_HEADER);
        if let Some(bytes) = held.first_chunk() {
            return Some(*bytes);
        }
        let mut bytes = [0; GROUP_HEADER];
        let (here, there) = bytes.split_at_mut_checked(held.len())?;
        here.copy_from_slice(held);
        let whole = there.is_empty() || source.read(at.saturating_add(held.len()), there) == there.len();
        whole.then_some(bytes)
    }

    /// Judges a group by its header, and goes to where the next one begins.
    fn enter(&mut self, at: usize, bytes: &[u8; GROUP_HEADER]) -> Result<GroupHeader, Damage> {
        let header = GroupHeader::parse(bytes);
        let packets = u32::from(header.packets);
        if !header.has_end(self.end.saturating_sub(at)) {
            self.phase = Phase::Done;
            return Err(Damage::of(Cause::GroupLength, 0));
        }
        self.group_end = at.saturating_add(header.len);
        self.next_group = self.group_end;
        if header.critical {
            return Err(Damage::of(Cause::GroupFlag, packets));
        }
        if header.check().is_none() {
            return Err(Damage::of(Cause::GroupHeader, packets));
        }
        let Some(budget) = self.packet_budget.checked_sub(packets) else {
            return Err(Damage::of(Cause::TooManyPackets, packets));
        };
        self.packet_budget = budget;
        Ok(header)
    }

    /// Checks what stands before a group's packets, and the group's CRC.
    fn front<S: Source + ?Sized>(&mut self, source: &S, at: usize, header: &GroupHeader) -> Result<GroupHeader, Cause> {
        let tlvs_at = at.saturating_add(header.header_len);
        let template = if header.template { TEMPLATE } else { 0 };
        let room = header.tlv_len.saturating_add(template);
        if room == 0 {
            self.ahead.seek(tlvs_at);
            self.prefix = 0;
            self.left = header.packets;
            self.enter_packets();
            return Ok(*header);
        }
        if header.tlv_len > 0 && header.tlv_len > self.limits.tlv_bytes.saturating_add(crate::wire::GROUP_CRC)
            || room > self.ahead.capacity()
        {
            return Err(Cause::TlvTooLong);
        }
        self.ahead.seek(tlvs_at);
        if self.limits.verify && header.tlv_len >= crate::wire::GROUP_CRC {
            self.verify_group(source, at, header)?;
        }
        let bytes = self.ahead.need(source, room).ok_or(Cause::Unreadable)?;
        let (tlvs, template) = bytes.split_at_checked(header.tlv_len).ok_or(Cause::Unreadable)?;
        tlv::check(tlvs, self.limits.tlvs)?;
        self.prefix = 0;
        if let Some(template) = template.first_chunk::<ETHERNET>() {
            self.template = *template;
            self.prefix = ETHERNET;
        }
        self.tlv_left = header.tlv_len;
        self.left = header.packets;
        self.phase = Phase::Tlvs;
        self.stop = 0;
        if self.tlv_left == 0 {
            self.enter_packets();
        }
        Ok(*header)
    }

    /// Goes behind the TLVs and the template, which stand in the look-ahead.
    fn enter_packets(&mut self) {
        let template = if self.prefix > 0 { TEMPLATE } else { 0 };
        self.ahead.pos = self.ahead.pos.saturating_add(template);
        self.phase = Phase::Packets;
        self.bound();
    }

    /// Plain packets may be taken up to the end of the group, or of what has been read.
    pub(super) fn bound(&mut self) {
        self.stop = self.ahead.end.min(self.ahead.index_of(self.group_end));
    }

    /// The next TLV of the group, which has been checked.
    pub(super) fn tlv(&mut self) -> Option<Found> {
        while self.tlv_left > 0 {
            let from = self.ahead.pos;
            let Some((kind, data, rest)) = tlv::split(self.ahead.bytes(from, from.saturating_add(self.tlv_left)))
            else {
                break;
            };
            let (len, taken) = (data.len(), self.tlv_left.saturating_sub(rest.len()));
            self.tlv_left = rest.len();
            self.ahead.pos = from.saturating_add(taken);
            let data_at = from.saturating_add(TLV_HEADER);
            if kind == GROUP_CRC {
                continue;
            }
            let known = self.limits.tlvs.contains(kind) || self.limits.foreign_tlvs && kind & FOLLOW != 0;
            return Some(if known {
                Found::Tlv { kind, from: data_at, to: data_at.saturating_add(len) }
            } else {
                Found::Damaged(Damage::of(Cause::TlvRemoved, 0))
            });
        }
        self.enter_packets();
        None
    }

    /// Compares the check word, and keeps the group headers that were checked.
    pub(super) fn verify_headers<S: Source + ?Sized>(&mut self, source: &S) -> Result<(), Cause> {
        let len = self.header.header_len;
        let bytes = self.ahead.need(source, len).ok_or(Cause::Unreadable)?;
        let (front, word, rest) = match bytes.split_at_checked(HEADER_CHECKED) {
            Some((front, rest)) => (front.first_chunk::<HEADER>(), front.last_chunk::<4>(), rest),
            None => return Err(Cause::HeaderCheck),
        };
        let (Some(front), Some(word)) = (front, word) else { return Err(Cause::HeaderCheck) };
        let word = u32::from_be_bytes(*word);
        let mut crc = Crc::default().with(front).with(&[0; 4]).with(rest);
        let mut at = self.next_group;
        for i in 0..usize::from(self.header.groups) {
            let bytes = self.header_at(source, at).ok_or(Cause::HeaderCheck)?;
            crc = crc.with(&bytes);
            at = at.saturating_add(GroupHeader::parse(&bytes).len);
            if let Some(slot) = self.checked.get_mut(i) {
                *slot = bytes;
            }
        }
        if crc.value() == word { Ok(()) } else { Err(Cause::HeaderCheck) }
    }

    /// Compares the group's CRC if it has one. The look-ahead stands at the TLVs.
    fn verify_group<S: Source + ?Sized>(&mut self, source: &S, at: usize, header: &GroupHeader) -> Result<(), Cause> {
        let tlvs_at = at.saturating_add(header.header_len);
        let first = self.ahead.need(source, crate::wire::GROUP_CRC).ok_or(Cause::Unreadable)?;
        let Some((&[GROUP_CRC, reserved, 0, 4], word)) = first.split_first_chunk::<TLV_HEADER>() else { return Ok(()) };
        let Some(word) = word.first_chunk::<4>() else { return Ok(()) };
        let word = u32::from_be_bytes(*word);
        let mut crc = Crc::default();
        if header.header_len > GROUP_HEADER {
            crc = self.sum(source, crc, at.saturating_add(GROUP_HEADER), tlvs_at)?;
        }
        crc = crc.with(&[GROUP_CRC, reserved, 0, 4, 0, 0, 0, 0]);
        let from = tlvs_at.saturating_add(crate::wire::GROUP_CRC);
        let rest = self.group_end.saturating_sub(tlvs_at);
        if rest <= self.ahead.capacity() {
            let bytes = self.ahead.need(source, rest).ok_or(Cause::Unreadable)?;
            crc = crc.with(bytes.get(crate::wire::GROUP_CRC..).unwrap_or_default());
        } else {
            crc = self.sum(source, crc, from, self.group_end)?;
        }
        if crc.value() == word { Ok(()) } else { Err(Cause::GroupCrc) }
    }

    /// The CRC of a range of the source, which stays unread.
    fn sum<S: Source + ?Sized>(&self, source: &S, mut crc: Crc, mut at: usize, to: usize) -> Result<Crc, Cause> {
        let mut chunk = [0; 1024];
        while at < to {
            let n = to.saturating_sub(at).min(chunk.len());
            let chunk = chunk.get_mut(..n).unwrap_or_default();
            if source.read(at, chunk) != n {
                return Err(Cause::Unreadable);
            }
            crc = crc.with(chunk);
            at = at.saturating_add(n);
        }
        Ok(crc)
    }

    /// Why bytes up to `to` could not be read: the frame ends, or the source did.
    pub(super) const fn cut(&self, to: usize, cause: Cause) -> Cause {
        if to > self.end { cause } else { Cause::Unreadable }
    }
}
