// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The virtio-net header that stands before each frame (virtio 1.3, 5.1.6).

/// `struct virtio_net_hdr` without `num_buffers`, which belongs to the ring and not to the frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetHeader {
    /// VIRTIO_NET_HDR_F_*: checksum to be completed, checksum known good, ...
    pub flags: u8,
    /// VIRTIO_NET_HDR_GSO_*: 0 for none.
    pub gso_type: u8,
    /// Length in bytes of the headers of a GSO frame; a hint.
    pub hdr_len: u16,
    /// Payload bytes per segment of a GSO frame.
    pub gso_size: u16,
    /// Offset in bytes where checksumming starts.
    pub csum_start: u16,
    /// Offset in bytes of the checksum after `csum_start`.
    pub csum_offset: u16,
}

impl NetHeader {
    /// Bytes on the ring with `num_buffers`; the legacy header has the first 10 of them.
    pub(crate) const MAX_LEN: usize = 12;

    /// Reads the first 10 bytes; little endian.
    #[inline(always)]
    pub(crate) const fn from_bytes(bytes: [u8; Self::MAX_LEN]) -> Self {
        let [flags, gso_type, a, b, c, d, e, f, g, h, _, _] = bytes;
        Self {
            flags,
            gso_type,
            hdr_len: u16::from_le_bytes([a, b]),
            gso_size: u16::from_le_bytes([c, d]),
            csum_start: u16::from_le_bytes([e, f]),
            csum_offset: u16::from_le_bytes([g, h]),
        }
    }

    /// As on the ring, `num_buffers` last.
    #[inline(always)]
    pub(crate) const fn to_bytes(self, num_buffers: u16) -> [u8; Self::MAX_LEN] {
        let [a, b] = self.hdr_len.to_le_bytes();
        let [c, d] = self.gso_size.to_le_bytes();
        let [e, f] = self.csum_start.to_le_bytes();
        let [g, h] = self.csum_offset.to_le_bytes();
        let [i, j] = num_buffers.to_le_bytes();
        [self.flags, self.gso_type, a, b, c, d, e, f, g, h, i, j]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_back() {
        let header = NetHeader {
            flags: 1,
            gso_type: 4,
            hdr_len: 0x0605,
            gso_size: 0x0807,
            csum_start: 0x0a09,
            csum_offset: 0x0c0b,
        };
        let bytes = header.to_bytes(3);
        assert_eq!(bytes, [1, 4, 5, 6, 7, 8, 9, 10, 11, 12, 3, 0]);
        assert_eq!(NetHeader::from_bytes(bytes), header);
    }
}
