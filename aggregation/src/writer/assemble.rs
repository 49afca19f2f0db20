// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Groups are opened, closed and spliced; the frame is finished.

use super::{GroupKey, Open, Writer};
use crate::crc::Crc;
use crate::tlv::GROUP_CRC;
use crate::wire::{self, ETHERNET, GROUP_HEADER, HEADER, HEADER_CHECKED, TEMPLATE, TLV_HEADER, padded};
use crate::{GroupHeader, Header};

impl Writer {
    /// Begins a group with TLVs, of type and data each. Packets with the same key go into it; without any it is a group without packets.
    /// `false`, and no change, if there is no room for it.
    pub fn begin_group(&mut self, key: GroupKey, tlvs: &[(u8, &[u8])]) -> bool {
        let sizes = tlvs.iter().map(|(_, data)| TLV_HEADER.saturating_add(padded(data.len())));
        let tlv_len = sizes.fold(0, usize::saturating_add);
        let end = self.at.saturating_add(self.group_front()).saturating_add(tlv_len);
        if end > self.limit || self.groups == u8::MAX {
            return false;
        }
        self.open_group(key, None);
        for (kind, data) in tlvs {
            // The frame is no longer than 65,535 bytes, nor is what is in it.
            let [len0, len1] = u16::try_from(data.len()).unwrap_or_default().to_be_bytes();
            self.append(&[*kind, 0, len0, len1]);
            self.append(data);
            self.append([0; 3].get(..padded(data.len()).saturating_sub(data.len())).unwrap_or_default());
        }
        if let Some(header) = self.open_header() {
            let mut group = GroupHeader::parse(header);
            group.tlv_len = group.tlv_len.saturating_add(tlv_len);
            *header = group.to_bytes();
        }
        true
    }

    /// Appends whole groups as they are, `packets` in all. `false`, and no change, if there is no room, or if `bytes` are not whole
    /// groups. Only the groups' lengths are looked at: it takes as long for a group of a thousand packets as for one of one, but for
    /// copying the bytes.
    pub fn splice(&mut self, bytes: &[u8]) -> bool {
        let Some((groups, packets)) = count(bytes) else { return false };
        let end = self.at.saturating_add(bytes.len());
        let (Some(groups), Some(left)) = (self.groups.checked_add(groups), self.packets_left.checked_sub(packets))
        else {
            return false;
        };
        if end > self.limit {
            return false;
        }
        self.close_group();
        self.append(bytes);
        self.groups = groups;
        self.packets_left = left;
        self.packets = self.packets.saturating_add(packets);
        true
    }

    /// Ends the frame and hands it out.
    pub fn finish(&mut self, sequence: u16) -> &[u8] {
        self.seal(sequence);
        self.buf.get(self.room..self.at).unwrap_or_default()
    }

    /// Ends the frame and hands it out with the room before it, which the caller fills with the encapsulation.
    pub fn finish_with_room(&mut self, sequence: u16) -> &mut [u8] {
        self.seal(sequence);
        self.buf.get_mut(..self.at).unwrap_or_default()
    }

    fn seal(&mut self, sequence: u16) {
        self.close_group();
        let checked = self.format.check;
        let header_len = if checked { HEADER_CHECKED } else { HEADER };
        let header = Header {
            control: false,
            checked,
            header_len,
            len: self.len(),
            groups: self.groups,
            stage: self.format.stage,
            sequence,
        };
        let front = header.to_bytes();
        let word = checked.then(|| self.check_word(&front));
        let Some(frame) = self.buf.get_mut(self.room..) else { return };
        if let Some(to) = frame.first_chunk_mut() {
            *to = front;
        }
        if let (Some(word), Some(to)) = (word, frame.get_mut(HEADER..HEADER_CHECKED)) {
            to.copy_from_slice(&word.to_be_bytes());
        }
    }

    /// The CRC over all headers, the check word itself taken as zero.
    fn check_word(&self, front: &[u8; HEADER]) -> u32 {
        let mut crc = Crc::default().with(front).with(&[0; 4]);
        let mut rest = self.buf.get(self.room.saturating_add(HEADER_CHECKED)..self.at).unwrap_or_default();
        while let Some(header) = rest.first_chunk::<GROUP_HEADER>() {
            crc = crc.with(header);
            rest = rest.get(GroupHeader::parse(header).len.max(GROUP_HEADER)..).unwrap_or_default();
        }
        crc.value()
    }

    /// Begins a group, for which there is room.
    pub(super) fn open_group(&mut self, key: GroupKey, template: Option<&[u8; ETHERNET]>) {
        self.close_group();
        let crc = self.format.group_crc;
        let header = GroupHeader {
            len: 0,
            packets: 0,
            origin: key.origin,
            destination: key.destination,
            class: key.class,
            uniform: false,
            template: template.is_some(),
            critical: false,
            header_len: GROUP_HEADER,
            tlv_len: if crc { wire::GROUP_CRC } else { 0 },
        };
        self.open = Open {
            at: self.at,
            key: key.bits(),
            packets: 0,
            template: template.is_some(),
            fast: !self.format.template,
        };
        self.groups = self.groups.saturating_add(1);
        self.append(&header.to_bytes());
        if crc {
            self.append(&[GROUP_CRC, 0, 0, 4, 0, 0, 0, 0]);
        }
        if let Some(header) = template {
            self.append(header);
            self.append(&[0; TEMPLATE - ETHERNET]);
        }
    }

    /// Fills in what is known of the open group only at its end.
    fn close_group(&mut self) {
        let (at, packets) = (self.open.at, self.open.packets);
        if at == 0 {
            return;
        }
        let len = self.at.saturating_sub(at);
        if let Some(header) = self.open_header() {
            let [len0, len1] = u16::try_from(len).unwrap_or_default().to_be_bytes();
            let [n0, n1] = packets.to_be_bytes();
            if let Some(front) = header.first_chunk_mut::<4>() {
                *front = [len0, len1, n0, n1];
            }
        }
        if self.format.group_crc {
            // The CRC's own place holds zeros until now.
            let from = at.saturating_add(GROUP_HEADER);
            let body = self.buf.get_mut(from..self.at).unwrap_or_default();
            let crc = Crc::default().with(body).value();
            if let Some(to) = body.get_mut(TLV_HEADER..wire::GROUP_CRC) {
                to.copy_from_slice(&crc.to_be_bytes());
            }
        }
        self.open = Open::default();
    }

    fn open_header(&mut self) -> Option<&mut [u8; GROUP_HEADER]> {
        self.buf.get_mut(self.open.at..)?.first_chunk_mut()
    }

    /// Appends bytes for which there is room.
    fn append(&mut self, bytes: &[u8]) {
        let end = self.at.saturating_add(bytes.len());
        if let Some(to) = self.buf.get_mut(self.at..end) {
            to.copy_from_slice(bytes);
            self.at = end;
        }
    }
}

/// Groups and packets in bytes that are whole groups.
fn count(mut bytes: &[u8]) -> Option<(u8, u32)> {
    let (mut groups, mut packets) = (0_u8, 0_u32);
    while !bytes.is_empty() {
        let header = GroupHeader::parse(bytes.first_chunk()?);
        if !header.has_end(bytes.len()) {
            return None;
        }
        groups = groups.checked_add(1)?;
        packets = packets.saturating_add(u32::from(header.packets));
        bytes = bytes.get(header.len..)?;
    }
    Some((groups, packets))
}
