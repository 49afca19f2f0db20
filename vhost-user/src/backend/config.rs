// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The network device's configuration space.

use crate::wire::{ConfigAccess, MAX_CONFIG};

/// The fields of `virtio_net_config` that a vhost-user back end decides. On the wire: MAC (6 bytes), status, maximum
/// number of queue pairs, MTU (16 bits each), speed (32 bits) and duplex (8 bits), both "unknown"; the rest of the
/// 256 bytes is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetConfig {
    /// The guest's address; meaningful with VIRTIO_NET_F_MAC.
    pub mac: [u8; 6],
    /// Bit 0: link is up.
    pub status: u16,
    /// Queue pairs; meaningful with VIRTIO_NET_F_MQ.
    pub max_pairs: u16,
    /// Bytes; meaningful with VIRTIO_NET_F_MTU.
    pub mtu: u16,
}

impl Default for NetConfig {
    /// No MAC address, link up, one pair, 1500 bytes.
    fn default() -> Self {
        Self { mac: [0; 6], status: 1, max_pairs: 1, mtu: 1500 }
    }
}

/// Why a write to configuration space is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConfigRefusal {
    Range,
    ReadOnly,
}

impl NetConfig {
    /// Bit 0 of SET_CONFIG's flags: the write belongs to a migration and may change anything.
    const MIGRATION: u32 = 1;

    /// The range that a GET_CONFIG asks for, if it lies within configuration space.
    pub(super) fn read(&self, access: &ConfigAccess) -> Option<ConfigAccess> {
        let space = self.to_space();
        let start = usize::try_from(access.offset).ok()?;
        let bytes = space.get(start..start.checked_add(access.bytes.len())?)?;
        if bytes.is_empty() {
            return None;
        }
        Some(ConfigAccess { offset: access.offset, flags: access.flags, bytes: bytes.to_vec() })
    }

    /// The configuration after a SET_CONFIG. A driver may write the MAC address, and only before VERSION_1
    /// (`legacy`); writing what is there already is no change; a migration may write all.
    pub(super) fn written(&self, access: &ConfigAccess, legacy: bool) -> Result<Self, ConfigRefusal> {
        let mut space = self.to_space();
        let start = usize::try_from(access.offset).map_err(|_| ConfigRefusal::Range)?;
        let end = start.checked_add(access.bytes.len()).ok_or(ConfigRefusal::Range)?;
        let target = space.get_mut(start..end).ok_or(ConfigRefusal::Range)?;
        if target == access.bytes {
            return Ok(*self);
        }
        if access.flags & Self::MIGRATION == 0 && !(legacy && end <= 6) {
            return Err(ConfigRefusal::ReadOnly);
        }
        target.copy_from_slice(&access.bytes);
        Ok(Self::from_space(&space))
    }

    fn to_space(self) -> [u8; MAX_CONFIG] {
        let words = [self.status, self.max_pairs, self.mtu].into_iter().flat_map(u16::to_le_bytes);
        let speed_and_duplex = [0xff; 5];
        let mut space = [0; MAX_CONFIG];
        for (to, from) in space.iter_mut().zip(self.mac.into_iter().chain(words).chain(speed_and_duplex)) {
            *to = from;
        }
        space
    }

    fn from_space(space: &[u8; MAX_CONFIG]) -> Self {
        let [a, b, c, d, e, f, s0, s1, p0, p1, m0, m1, ..] = *space;
        Self {
            mac: [a, b, c, d, e, f],
            status: u16::from_le_bytes([s0, s1]),
            max_pairs: u16::from_le_bytes([p0, p1]),
            mtu: u16::from_le_bytes([m0, m1]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: NetConfig = NetConfig { mac: [2, 0, 0, 0, 0, 1], status: 1, max_pairs: 4, mtu: 9000 };

    fn access(offset: u32, flags: u32, bytes: &[u8]) -> ConfigAccess {
        ConfigAccess { offset, flags, bytes: bytes.to_vec() }
    }

    #[test]
    fn layout_is_that_of_virtio_net_config() {
        let read = CONFIG.read(&access(0, 0, &[0; 24])).unwrap();
        let mut expected = vec![2, 0, 0, 0, 0, 1, 1, 0, 4, 0, 0x28, 0x23, 255, 255, 255, 255, 255];
        expected.resize(24, 0);
        assert_eq!(read.bytes, expected);
        assert_eq!(CONFIG.read(&access(10, 0, &[0; 2])).unwrap().bytes, [0x28, 0x23]);
        assert_eq!(CONFIG.read(&access(0, 0, &[0; 256])).unwrap().bytes.len(), 256);
        for (offset, len) in [(0, 0), (255, 2), (u32::MAX, 1)] {
            assert_eq!(CONFIG.read(&access(offset, 0, &vec![0; len])), None);
        }
    }

    #[test]
    fn only_migration_and_legacy_mac_writes_change_anything() {
        let mac = [4; 6];
        assert_eq!(CONFIG.written(&access(0, 0, &mac), false), Err(ConfigRefusal::ReadOnly));
        assert_eq!(CONFIG.written(&access(0, 0, &mac), true).ok(), Some(NetConfig { mac, ..CONFIG }));
        assert_eq!(CONFIG.written(&access(0, 0, &[4; 7]), true), Err(ConfigRefusal::ReadOnly));
        assert_eq!(CONFIG.written(&access(0, 0, &CONFIG.mac), false).ok(), Some(CONFIG));
        let mtu = NetConfig { mtu: 1280, ..CONFIG };
        assert_eq!(CONFIG.written(&access(10, 1, &1280u16.to_le_bytes()), false).ok(), Some(mtu));
        assert_eq!(CONFIG.written(&access(256, 1, &[1]), false), Err(ConfigRefusal::Range));
    }
}
