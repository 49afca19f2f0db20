// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A frame, put together.
//!
//! # Theory of operation
//!
//! A writer owns a buffer that is made once. Packets are appended behind each other, each by one copy; a new group begins
//! when the key changes. Lengths, counts and check words are filled in when a group or the frame ends.
//!
//! ```text
//!   buf:  | room for an encapsulation | common header | group | group | ...open group | free |
//! ```
//!
//! **Template.** Where the receiver granted it, the Ethernet header that a run of packets shares is said once. A template costs a group of
//! its own (28 bytes, and 12 for the group after it) and saves 14 bytes a packet, so it is begun with the fourth packet of a run and
//! ended with the first that has another header: a run of eight gains, one of four loses less than it would gain if it went on.

mod assemble;
#[cfg(test)]
mod tests;

use crate::wire::{ETHERNET, GROUP_HEADER, HEADER, HEADER_CHECKED, MAX_FRAME, SUBFRAME_HEADER, TEMPLATE, padded};
use crate::{GroupHeader, Meta};

/// Packets in a row with the same Ethernet header after which a template is worth its bytes.
const RUN: u32 = 4;

/// What a frame may and shall look like. The limits are those that the receiver granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Bytes of the frame, at most [`MAX_FRAME`].
    pub max_bytes: usize,
    /// Packets of the frame.
    pub max_packets: u32,
    /// Who writes: 1 a CNF, 2 a node, 3 a top-of-rack node.
    pub stage: u8,
    /// A check word over all headers.
    pub check: bool,
    /// A CRC in each group.
    pub group_crc: bool,
    /// Ethernet templates.
    pub template: bool,
}

/// What packets of one group have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupKey {
    /// Node id of who puts the group together.
    pub origin: u16,
    /// Node id of who takes it apart, 0 for the other end of the link.
    pub destination: u16,
    /// Traffic class, 0 to 7.
    pub class: u8,
}

/// Puts frames together, one after the other. It is made once and reused.
#[derive(Debug)]
pub struct Writer {
    buf: Box<[u8]>,
    /// Bytes before the frame.
    room: usize,
    format: Format,
    /// Where the frame may end.
    limit: usize,
    /// Where the next byte goes.
    at: usize,
    groups: u8,
    /// Packets that the frame may still take.
    packets_left: u32,
    packets: u32,
    /// The open group; `at` is 0 if there is none.
    open: Open,
    /// The Ethernet header of the packet before, and how many had it in a row.
    last: [u8; ETHERNET],
    run: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Open {
    at: usize,
    key: u64,
    packets: u16,
    template: bool,
    /// Whether packets can be appended without a further look: no template is granted.
    fast: bool,
}

impl Writer {
    /// With a buffer for frames of up to `capacity` bytes, and `room` bytes before the frame for an encapsulation.
    #[must_use]
    pub fn new(capacity: usize, room: usize) -> Self {
        let capacity = capacity.min(MAX_FRAME);
        let format = Format { max_bytes: 0, max_packets: 0, stage: 0, check: false, group_crc: false, template: false };
        Self {
            buf: vec![0; room.saturating_add(capacity)].into_boxed_slice(),
            room,
            format,
            limit: 0,
            at: 0,
            groups: 0,
            packets_left: 0,
            packets: 0,
            open: Open::default(),
            last: [0; ETHERNET],
            run: 0,
        }
    }

    /// Begins a frame; what an earlier one held is forgotten.
    pub fn begin(&mut self, format: &Format) {
        self.format = *format;
        let header = if format.check { HEADER_CHECKED } else { HEADER };
        self.at = self.room.saturating_add(header);
        self.limit = self.room.saturating_add(format.max_bytes.min(MAX_FRAME)).min(self.buf.len());
        self.groups = 0;
        self.packets = 0;
        self.packets_left = format.max_packets;
        self.open = Open::default();
    }

    /// Whether a packet of `len` bytes would find room in the frame.
    #[must_use]
    pub fn has_room(&self, key: GroupKey, len: usize, meta: &Meta) -> bool {
        let stored = stored(len, meta);
        // Whether there is to be a template is seen when the packet comes; without one it is at most this long.
        let group = if self.is_open(key) && !self.open.template { 0 } else { self.group_front() };
        let end = self.at.saturating_add(group).saturating_add(stored);
        let group_end = end.saturating_sub(self.open.at);
        self.packets_left > 0 && end <= self.limit && group_end <= MAX_FRAME && (group == 0 || self.groups < u8::MAX)
    }

    /// Appends a packet: `head`, and `tail_len` bytes more that `tail` writes, entirely. `false`, and no change, if there is no
    /// room, or if it is shorter than an Ethernet header.
    #[inline]
    pub fn push(
        &mut self,
        key: GroupKey,
        head: &[u8],
        tail_len: usize,
        tail: impl FnOnce(&mut [u8]),
        meta: &Meta,
    ) -> bool {
        let len = head.len().saturating_add(tail_len);
        if !(self.open.fast && self.open.key == key.bits() && meta.is_none()) {
            return self.push_any(key, head, tail_len, tail, meta);
        }
        let Some(left) = self.packets_left.checked_sub(1) else { return false };
        let (Ok(len16), true) = (u16::try_from(len), len >= ETHERNET) else { return false };
        let stored = padded(len).wrapping_add(SUBFRAME_HEADER);
        let at = self.at;
        let Some(to) = self.buf.get_mut(at..self.limit).and_then(|free| free.get_mut(..stored)) else { return false };
        // First the padding: what is left of an earlier frame is another guest's.
        if let Some(last) = to.last_chunk_mut::<4>() {
            *last = [0; 4];
        }
        let Some((front, body)) = to.split_first_chunk_mut::<SUBFRAME_HEADER>() else { return false };
        let [len0, len1] = len16.to_be_bytes();
        *front = [len0, len1, 0, 0];
        fill(body, head, tail_len, tail);
        self.at = at.wrapping_add(stored);
        self.packets_left = left;
        self.packets = self.packets.wrapping_add(1);
        self.open.packets = self.open.packets.wrapping_add(1);
        true
    }

    /// Appends plain packets with their sub-frame headers and padding, as [`Reader::run`](crate::Reader::run) finds them and
    /// `bytes` holds them. `false`, and no change, if there is no room for all.
    ///
    /// They are taken as they are: whoever calls this has read them.
    pub fn push_run(&mut self, key: GroupKey, bytes: &[u8], packets: u16) -> bool {
        let same = self.is_open(key) && !self.open.template;
        let front = if same { 0 } else { self.group_front() };
        let end = self.at.saturating_add(front).saturating_add(bytes.len());
        let Some(left) = self.packets_left.checked_sub(u32::from(packets)) else { return false };
        if bytes.len() & 3 != 0 || end > self.limit || !same && self.groups == u8::MAX {
            return false;
        }
        if !same {
            self.open_group(key, None);
        }
        if let Some(to) = self.buf.get_mut(self.at..end) {
            to.copy_from_slice(bytes);
        }
        self.at = end;
        self.packets_left = left;
        self.packets = self.packets.saturating_add(u32::from(packets));
        self.open.packets = self.open.packets.saturating_add(packets);
        self.run = 0;
        true
    }

    /// Packets in the frame so far.
    #[must_use]
    pub const fn packets(&self) -> u32 {
        self.packets
    }

    /// Whether the frame holds nothing, not even a group without packets.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.groups == 0
    }

    /// Bytes of the frame so far, its header included; at most three less than it will have.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.at.saturating_sub(self.room)
    }

    /// Groups in the frame so far.
    #[must_use]
    pub const fn groups(&self) -> u8 {
        self.groups
    }

    /// The only packet of the frame, if it is one that goes as well without: no metadata, no template, no TLVs.
    #[must_use]
    pub fn single(&self) -> Option<&[u8]> {
        if self.packets != 1 || self.groups != 1 || self.open.at == 0 || self.open.template {
            return None;
        }
        let group = self.buf.get(self.open.at..self.at)?;
        let header = GroupHeader::parse(group.first_chunk()?);
        let crc = if self.format.group_crc { crate::wire::GROUP_CRC } else { 0 };
        if header.tlv_len != crc {
            return None;
        }
        let subframe = group.get(GROUP_HEADER.saturating_add(crc)..)?;
        let (&[len0, len1, flags, ext], rest) = subframe.split_first_chunk::<SUBFRAME_HEADER>()?;
        if flags != 0 || ext != 0 {
            return None;
        }
        rest.get(..usize::from(u16::from_be_bytes([len0, len1])))
    }

    /// Whether the open group has this key.
    const fn is_open(&self, key: GroupKey) -> bool {
        self.open.at != 0 && self.open.key == key.bits()
    }

    /// Bytes that a new group takes up before its first packet, without a template.
    const fn group_front(&self) -> usize {
        if self.format.group_crc { GROUP_HEADER + crate::wire::GROUP_CRC } else { GROUP_HEADER }
    }

    /// A packet that needs more than a copy: a new group, metadata, a look at its Ethernet header.
    #[cold]
    fn push_any(
        &mut self,
        key: GroupKey,
        head: &[u8],
        tail_len: usize,
        tail: impl FnOnce(&mut [u8]),
        meta: &Meta,
    ) -> bool {
        let len = head.len().saturating_add(tail_len);
        if len < ETHERNET || self.packets_left == 0 {
            return false;
        }
        let mut template = if self.format.template { self.template(head, len) } else { None };
        if template.is_some() && self.open_template() != template {
            let front = self.group_front().saturating_add(TEMPLATE);
            let end = self.at.saturating_add(front).saturating_add(stored(len.saturating_sub(ETHERNET), meta));
            // At the end of a frame there is room for the packet perhaps, but not for a template.
            template = template.filter(|_| end <= self.limit && self.groups < u8::MAX);
        }
        let fits_open = self.is_open(key) && self.open.template == template.is_some();
        let fits_open = fits_open && (template.is_none() || self.open_template() == template);
        let prefix = if template.is_some() { ETHERNET } else { 0 };
        let front = match (fits_open, template) {
            (true, _) => 0,
            (false, None) => self.group_front(),
            (false, Some(_)) => self.group_front().saturating_add(TEMPLATE),
        };
        let stored = stored(len.saturating_sub(prefix), meta);
        let end = self.at.saturating_add(front).saturating_add(stored);
        let (Ok(len16), true) = (u16::try_from(len.saturating_sub(prefix)), end <= self.limit) else { return false };
        if !fits_open && self.groups == u8::MAX {
            return false;
        }
        if self.format.template {
            self.note(head);
        }
        if !fits_open {
            self.open_group(key, template.as_ref());
        }
        let (flags, ext, ext_len) = meta.to_bytes();
        let Some(to) = self.buf.get_mut(self.at..end) else { return false };
        if let Some(last) = to.last_chunk_mut::<4>() {
            *last = [0; 4];
        }
        let Some((front, rest)) = to.split_first_chunk_mut::<SUBFRAME_HEADER>() else { return false };
        let [len0, len1] = len16.to_be_bytes();
        // At most six words.
        *front = [len0, len1, flags, u8::try_from(ext_len >> 2).unwrap_or_default()];
        let Some((to_ext, body)) = rest.split_at_mut_checked(ext_len) else { return false };
        to_ext.copy_from_slice(ext.get(..ext_len).unwrap_or_default());
        fill(body, head.get(prefix..).unwrap_or_default(), tail_len, tail);
        self.at = end;
        self.packets_left = self.packets_left.saturating_sub(1);
        self.packets = self.packets.saturating_add(1);
        self.open.packets = self.open.packets.saturating_add(1);
        true
    }

    /// The header that is to be left out of a packet, if it is worth it.
    fn template(&self, head: &[u8], len: usize) -> Option<[u8; ETHERNET]> {
        let header = head.first_chunk::<ETHERNET>().filter(|header| **header == self.last && len > ETHERNET)?;
        (self.run >= RUN - 1).then_some(*header)
    }

    /// The template of the open group.
    fn open_template(&self) -> Option<[u8; ETHERNET]> {
        let at = self.open.at.saturating_add(self.group_front());
        let bytes = if self.open.template { self.buf.get(at..)?.first_chunk() } else { None };
        bytes.copied()
    }

    /// Counts packets in a row with the same Ethernet header.
    fn note(&mut self, head: &[u8]) {
        match head.first_chunk::<ETHERNET>() {
            Some(header) if *header == self.last => self.run = self.run.saturating_add(1),
            Some(header) => (self.last, self.run) = (*header, 1),
            None => self.run = 0,
        }
    }
}

impl GroupKey {
    /// In one word, not 0.
    #[inline]
    const fn bits(self) -> u64 {
        (self.origin as u64) << 32 | (self.destination as u64) << 16 | (self.class & 7) as u64 | 8
    }
}

/// Bytes that a packet takes up with its sub-frame header, extensions and padding.
#[inline]
const fn stored(len: usize, meta: &Meta) -> usize {
    padded(len).saturating_add(SUBFRAME_HEADER).saturating_add(meta.ext_len())
}

/// Writes a packet's bytes to the front of `body`; padding behind them is left alone.
#[inline]
fn fill(body: &mut [u8], head: &[u8], tail_len: usize, tail: impl FnOnce(&mut [u8])) {
    let Some((to_head, rest)) = body.split_at_mut_checked(head.len()) else { return };
    to_head.copy_from_slice(head);
    if tail_len > 0 {
        tail(rest.get_mut(..tail_len).unwrap_or_default());
    }
}
