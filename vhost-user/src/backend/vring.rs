// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is known of one ring.
//!
//! A ring is *startable* when size, addresses and kick are known, in whatever order they came, and there are features
//! and memory to start it with. Enabling is independent of that: it can come first (QEMU) or last (virtio-user). A
//! stop takes the kick away, so that the next start needs a new one; size and addresses stay, since a front end may
//! rely on them.

use super::action::VringStart;
use super::error::ProtocolError;
use crate::features::VIRTIO_F_RING_PACKED;
use crate::wire::VringAddresses;

/// How the guest tells of new buffers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kick {
    /// Not known yet: the ring cannot start.
    #[default]
    Unset,
    /// It does not: the ring is to be polled.
    Poll,
    /// Through a descriptor.
    Descriptor,
}

/// One ring, as far as the front end has described it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VringState {
    /// Descriptors; `None` until SET_VRING_NUM.
    pub size: Option<u16>,
    /// As SET_VRING_BASE or the last stop left it.
    pub base: Option<u32>,
    /// Front-end addresses; `None` until SET_VRING_ADDR.
    pub addresses: Option<VringAddresses>,
    /// `Unset` until SET_VRING_KICK, and again after a stop.
    pub kick: Kick,
    /// What its device area is logged as; `None`: no VHOST_VRING_F_LOG.
    pub log: Option<u64>,
    /// Whether it may carry data when it runs.
    pub enabled: bool,
    /// Whether it was started and not stopped since.
    pub running: bool,
}

impl VringState {
    /// What to start the ring with, if it is complete; errors are those that only show when the features are known.
    pub(super) fn start(&self, vring: u16, features: u64) -> Result<Option<VringStart>, ProtocolError> {
        let (Some(size), Some(addresses)) = (self.size, self.addresses) else { return Ok(None) };
        if self.running || self.kick == Kick::Unset {
            return Ok(None);
        }
        let packed = features & VIRTIO_F_RING_PACKED != 0;
        if !packed && !size.is_power_of_two() {
            return Err(ProtocolError::VringSizeNotPowerOfTwo { vring, size });
        }
        let driver_alignment = if packed { 4 } else { 2 };
        let VringAddresses { descriptor, driver, device } = addresses;
        for (address, alignment) in [(descriptor, 16), (driver, driver_alignment), (device, 4)] {
            if address % alignment != 0 {
                return Err(ProtocolError::VringAlignment { vring, address, alignment });
            }
        }
        let &Self { base, enabled, kick, .. } = self;
        Ok(Some(VringStart { vring, size, base, addresses, features, enabled, kick }))
    }

    /// The ring stands still at `base`; its next start needs a new kick.
    pub(super) fn stopped(&mut self, base: u32) {
        self.base = Some(base);
        self.kick = Kick::Unset;
        self.running = false;
    }

    /// GET_VRING_BASE's answer for a ring that does not run: 0 if it never had a base. In packed rings the low half
    /// decides (front ends disagree on the upper one) and both halves of the answer are equal; split rings have only
    /// the low one.
    pub(super) fn idle_base(&self, features: u64) -> u32 {
        let low = self.base.unwrap_or(0) & 0xffff;
        if features & VIRTIO_F_RING_PACKED == 0 { low } else { low | low << 16 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: VringState = VringState {
        size: Some(256),
        base: None,
        addresses: Some(VringAddresses { descriptor: 0x1000, driver: 0x2000, device: 0x3000 }),
        kick: Kick::Poll,
        log: None,
        enabled: false,
        running: false,
    };

    #[test]
    fn every_missing_piece_prevents_the_start() {
        assert!(READY.start(0, 0).unwrap().is_some());
        for incomplete in [
            VringState { size: None, ..READY },
            VringState { addresses: None, ..READY },
            VringState { kick: Kick::Unset, ..READY },
            VringState { running: true, ..READY },
        ] {
            assert_eq!(incomplete.start(0, 0), Ok(None));
        }
    }

    #[test]
    fn split_sizes_are_powers_of_two_and_packed_ones_need_not_be() {
        let odd = VringState { size: Some(100), ..READY };
        assert_eq!(odd.start(3, 0), Err(ProtocolError::VringSizeNotPowerOfTwo { vring: 3, size: 100 }));
        assert_eq!(odd.start(3, VIRTIO_F_RING_PACKED).unwrap().unwrap().size, 100);
    }

    #[test]
    fn alignment_follows_the_layout() {
        let driver = VringAddresses { descriptor: 0x1000, driver: 0x2002, device: 0x3000 };
        let vring = VringState { addresses: Some(driver), ..READY };
        assert!(vring.start(0, 0).unwrap().is_some());
        let error = ProtocolError::VringAlignment { vring: 0, address: 0x2002, alignment: 4 };
        assert_eq!(vring.start(0, VIRTIO_F_RING_PACKED), Err(error));
    }

    #[test]
    fn idle_bases_are_normalised() {
        assert_eq!(VringState::default().idle_base(VIRTIO_F_RING_PACKED), 0);
        let set = VringState { base: Some(0x0000_8007), ..READY };
        assert_eq!(set.idle_base(VIRTIO_F_RING_PACKED), 0x8007_8007);
        assert_eq!(VringState { base: Some(0xdead_0007), ..READY }.idle_base(0), 7);
    }
}
