// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What all links have in common: how a received frame is looked at, what becomes of sent ones, and the kernel's form of
//! the virtio-net header, in this machine's byte order (`linux/virtio_net.h`).

use virtqueue::NetHeader;

/// Most frames that a receiving end holds at once.
pub(crate) const MAX_HELD: usize = 64;
/// Longest frame that is received: what fits an IP packet, with room for headers around it.
pub(crate) const LONG_FRAME: usize = 68 << 10;
/// Longest IP packet there is. What a link takes may be less.
pub(crate) const MAX_MTU: u16 = u16::MAX;
/// An Ethernet header with one VLAN tag.
pub(crate) const LINK_HEADER: usize = 18;
/// Bytes of the virtio-net header before each frame.
pub(super) const NET_HEADER: usize = 10;

/// A frame that was received.
#[derive(Debug)]
pub(crate) struct Received<'a> {
    /// All of it, without the VLAN tag that the kernel took out. `None`: it was longer than there was room for.
    pub(crate) bytes: Option<&'a [u8]>,
    /// That tag, as it belongs behind the addresses.
    pub(crate) vlan: Option<[u8; 4]>,
    /// What its sender left undone; offsets count from the start of `bytes`.
    pub(crate) header: NetHeader,
}

impl<'a> Received<'a> {
    /// A frame that is all there, and finished.
    pub(crate) fn finished(bytes: &'a [u8]) -> Self {
        Self { bytes: Some(bytes), vlan: None, header: NetHeader::default() }
    }

    /// A frame that was lost on its last few bytes of way.
    pub(crate) fn lost() -> Self {
        Self { bytes: None, vlan: None, header: NetHeader::default() }
    }

    /// A frame behind its virtio-net header.
    pub(super) fn behind_header(all: &'a [u8]) -> Self {
        Self { bytes: all.get(NET_HEADER..), vlan: None, header: net_header(all) }
    }
}

/// What became of the frames that waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flushed {
    /// The kernel has all of them.
    All,
    /// Some wait for room in the kernel: to be tried again.
    Later,
    /// The interface is down or gone, and this many are lost; others may still wait.
    Lost(usize),
}

/// Reads the header that `bytes` begin with.
pub(super) fn net_header(bytes: &[u8]) -> NetHeader {
    let half = |at: usize| bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |b| u16::from_ne_bytes(*b));
    NetHeader {
        flags: bytes.first().copied().unwrap_or_default(),
        gso_type: bytes.get(1).copied().unwrap_or_default(),
        hdr_len: half(2),
        gso_size: half(4),
        csum_start: half(6),
        csum_offset: half(8),
    }
}

/// The bytes of a header.
pub(super) fn header_bytes(header: NetHeader) -> [u8; NET_HEADER] {
    let NetHeader { flags, gso_type, hdr_len, gso_size, csum_start, csum_offset } = header;
    let mut bytes = [0; NET_HEADER];
    let fields =
        [[flags, gso_type]].into_iter().chain([hdr_len, gso_size, csum_start, csum_offset].map(u16::to_ne_bytes));
    for (room, field) in bytes.chunks_exact_mut(2).zip(fields) {
        room.copy_from_slice(&field);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_its_bytes() {
        let header = NetHeader { flags: 1, gso_type: 4, hdr_len: 66, gso_size: 1448, csum_start: 34, csum_offset: 16 };
        assert_eq!(net_header(&header_bytes(header)), header);
    }
}
