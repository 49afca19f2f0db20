// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whole groups, put together without touching their packets.
//!
//! A hop that sends groups on as they are writes a new common header and names the groups: of each the private copy of its header, which was
//! judged and may have been re-addressed, and where the bytes behind it lie. That takes the same time for a group of a thousand packets as for
//! one of one.

use crate::crc::Crc;
use crate::wire::{GROUP_HEADER, HEADER, HEADER_CHECKED, MAX_FRAME};
use crate::{Format, GroupHeader, Header};

/// A frame as a list of pieces: private headers, and what `T` names.
#[derive(Debug)]
pub struct Splice<T> {
    format: Format,
    front: [u8; HEADER_CHECKED],
    groups: Vec<([u8; GROUP_HEADER], T)>,
    len: usize,
    packets: u32,
}

/// A piece of a spliced frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a, T> {
    /// Bytes that are private.
    Header(&'a [u8]),
    /// The bytes of a group behind its header, wherever they are.
    Body(&'a T),
}

impl<T> Default for Splice<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Splice<T> {
    /// An empty list, with room for the most groups that a frame can have, so that nothing is allocated later.
    #[must_use]
    pub fn new() -> Self {
        let format = Format { max_bytes: 0, max_packets: 0, stage: 0, check: false, group_crc: false, template: false };
        let groups = Vec::with_capacity(usize::from(u8::MAX));
        Self { format, front: [0; HEADER_CHECKED], groups, len: HEADER, packets: 0 }
    }

    /// Begins a frame; what an earlier one named is forgotten. Of the format, CRCs of groups and templates do not matter: groups
    /// keep what they have.
    pub fn begin(&mut self, format: &Format) {
        self.format = *format;
        self.groups.clear();
        self.len = if format.check { HEADER_CHECKED } else { HEADER };
        self.packets = 0;
    }

    /// Appends a group: its header, and the name of the bytes behind these 12. `false`, and no change, if there is no room or if the header
    /// makes no sense.
    pub fn push(&mut self, header: [u8; GROUP_HEADER], body: T) -> bool {
        let group = GroupHeader::parse(&header);
        let len = self.len.saturating_add(group.len);
        let packets = self.packets.saturating_add(u32::from(group.packets));
        let fits = len <= self.format.max_bytes.min(MAX_FRAME) && packets <= self.format.max_packets;
        if !fits || !group.has_end(MAX_FRAME) || self.groups.len() >= usize::from(u8::MAX) {
            return false;
        }
        self.groups.push((header, body));
        self.len = len;
        self.packets = packets;
        true
    }

    /// Ends the frame, and names its pieces in order.
    pub fn finish(&mut self, sequence: u16) -> impl Iterator<Item = Piece<'_, T>> {
        let checked = self.format.check;
        let header_len = if checked { HEADER_CHECKED } else { HEADER };
        let groups = u8::try_from(self.groups.len()).unwrap_or(u8::MAX);
        let stage = self.format.stage;
        let header = Header { control: false, checked, header_len, len: self.len, groups, stage, sequence };
        let front = header.to_bytes();
        let mut crc = Crc::default().with(&front).with(&[0; 4]);
        if checked {
            for (header, _) in &self.groups {
                crc = crc.with(header);
            }
        }
        if let Some((to_front, to_word)) = self.front.split_first_chunk_mut::<HEADER>() {
            *to_front = front;
            to_word.copy_from_slice(&crc.value().to_be_bytes());
        }
        let front = self.front.get(..header_len).unwrap_or_default();
        let bodies =
            self.groups.iter().flat_map(|(header, body)| [Piece::Header(header.as_slice()), Piece::Body(body)]);
        std::iter::once(Piece::Header(front)).chain(bodies)
    }

    /// Bytes of the frame so far.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Packets of the frame so far.
    #[must_use]
    pub const fn packets(&self) -> u32 {
        self.packets
    }

    /// Number of groups so far.
    #[must_use]
    pub const fn groups(&self) -> usize {
        self.groups.len()
    }

    /// Whether there are no groups.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{GroupKey, Limits, Meta, Reader, Writer};

    const FORMAT: Format =
        Format { max_bytes: 9000, max_packets: 1000, stage: 2, check: true, group_crc: false, template: false };

    fn frame(destination: u16, lens: &[usize]) -> Vec<u8> {
        let mut writer = Writer::new(9000, 0);
        writer.begin(&FORMAT);
        for (class, len) in (0..).zip(lens) {
            let key = GroupKey { origin: 1, destination, class };
            assert!(writer.push(key, &vec![class; *len], 0, |_| (), &Meta::NONE));
        }
        writer.finish(0).to_vec()
    }

    /// All groups of these frames, spliced.
    fn spliced(frames: &[&Vec<u8>], format: &Format) -> Vec<u8> {
        let (mut splice, mut reader) = (Splice::new(), Reader::default());
        splice.begin(format);
        for frame in frames {
            reader.begin(*frame, 0, &Limits::NONE).unwrap();
            while let Some(group) = reader.next_group(*frame) {
                let group = group.unwrap();
                let body = &frame[group.at + GROUP_HEADER..group.at + group.header.len];
                assert!(splice.push(group.bytes, body));
            }
        }
        let len = splice.len();
        let pieces = splice.finish(7).map(|piece| match piece {
            Piece::Header(bytes) => bytes.to_vec(),
            Piece::Body(bytes) => bytes.to_vec(),
        });
        let bytes = pieces.collect::<Vec<_>>().concat();
        assert_eq!(bytes.len(), len);
        bytes
    }

    #[test]
    fn splicing_is_associative_and_the_same_as_copying() {
        let (a, b, c) = (frame(1, &[14, 60]), frame(2, &[1000]), frame(3, &[300, 15, 15]));
        let left = spliced(&[&spliced(&[&a, &b], &FORMAT), &c], &FORMAT);
        let right = spliced(&[&a, &spliced(&[&b, &c], &FORMAT)], &FORMAT);
        assert_eq!(left, right);
        let mut writer = Writer::new(9000, 0);
        writer.begin(&FORMAT);
        for bytes in [&a, &b, &c] {
            assert!(writer.splice(&bytes[HEADER_CHECKED..]));
        }
        assert_eq!((writer.packets(), writer.groups()), (6, 6));
        assert_eq!(writer.finish(7), left);
    }

    #[test]
    fn a_group_that_does_not_fit_changes_nothing() {
        let one = frame(1, &[60]);
        let group = *one[HEADER_CHECKED..].first_chunk::<GROUP_HEADER>().unwrap();
        let mut splice = Splice::new();
        splice.begin(&Format { max_bytes: 12 + 2 * 76 + 75, ..FORMAT });
        assert!(splice.push(group, ()) && splice.push(group, ()));
        assert!(!splice.push(group, ()));
        splice.begin(&Format { max_packets: 2, ..FORMAT });
        assert!(splice.push(group, ()) && splice.push(group, ()));
        assert!(!splice.push(group, ()));
        assert_eq!((splice.groups(), splice.packets(), splice.len()), (2, 2, 12 + 2 * 76));
        assert!(!splice.push([0; GROUP_HEADER], ()), "a group that has no end");
        splice.begin(&Format { max_bytes: 65_535, ..FORMAT });
        let empty = [0, 12, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0];
        let mut many = 0;
        while splice.push(empty, ()) {
            many += 1;
        }
        assert_eq!(many, 255);
        let mut writer = Writer::new(9000, 0);
        writer.begin(&FORMAT);
        assert!(!writer.splice(&one[HEADER_CHECKED..one.len() - 1]), "not a whole group");
        assert!(!writer.splice(&one));
        assert!(writer.is_empty());
    }

    #[test]
    fn groups_are_picked_by_destination_and_readdressed() {
        let frame = spliced(&[&frame(5, &[60]), &frame(6, &[70, 71]), &frame(5, &[80])], &FORMAT);
        let mut reader = Reader::default();
        reader.begin(&frame, 0, &Limits { verify: true, ..Limits::NONE }).unwrap();
        let mut to_5 = Vec::new();
        while let Some(Ok(mut group)) = reader.next_group(&frame) {
            if group.header.destination == 5 {
                to_5.push(group.header.len);
                group.readdress(9, 0);
                assert_eq!(GroupHeader::parse(&group.bytes), group.header);
                assert_eq!((group.header.origin, group.header.destination), (9, 0));
            }
        }
        assert_eq!(to_5, [76, 96]);
        assert!(reader.is_done());
    }
}
