// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Descriptors, flags, areas and index arithmetic, as virtio 1.3 sections 2.7 and 2.8 define them;
//! shared by the device side and the driver side.

use virtio_bindings::bindings::virtio_ring as vring;
use virtio_queue::desc::RawDescriptor;

use crate::config::{QueueFeatures, RingKind};

/// Bytes of a descriptor, in both formats and in indirect tables.
pub(crate) const DESC_SIZE: usize = size_of::<RawDescriptor>();
/// Descriptors in a cache line.
pub(crate) const DESCS_PER_LINE: u16 = 4;

/// The chain goes on.
pub(crate) const F_NEXT: u16 = low16(vring::VRING_DESC_F_NEXT);
/// The device writes this buffer (packed, used: it wrote it).
pub(crate) const F_WRITE: u16 = low16(vring::VRING_DESC_F_WRITE);
/// The buffer is a table of descriptors.
pub(crate) const F_INDIRECT: u16 = low16(vring::VRING_DESC_F_INDIRECT);
/// Packed: equals the driver's wrap counter when the descriptor is available.
pub(crate) const F_AVAIL: u16 = 1 << vring::VRING_PACKED_DESC_F_AVAIL;
/// Packed: equals the driver's wrap counter once used, its inverse while available.
pub(crate) const F_USED: u16 = 1 << vring::VRING_PACKED_DESC_F_USED;

/// Split, `used.flags`: the device wants no kicks.
pub(crate) const USED_F_NO_NOTIFY: u16 = low16(vring::VRING_USED_F_NO_NOTIFY);
/// Split, `avail.flags`: the driver wants no calls.
pub(crate) const AVAIL_F_NO_INTERRUPT: u16 = low16(vring::VRING_AVAIL_F_NO_INTERRUPT);

/// Packed event suppression, flags: notify always.
pub(crate) const EVENT_ENABLE: u16 = low16(vring::VRING_PACKED_EVENT_FLAG_ENABLE);
/// Packed event suppression, flags: notify never.
pub(crate) const EVENT_DISABLE: u16 = low16(vring::VRING_PACKED_EVENT_FLAG_DISABLE);
/// Packed event suppression, flags: notify at a position (EVENT_IDX only).
pub(crate) const EVENT_DESC: u16 = low16(vring::VRING_PACKED_EVENT_FLAG_DESC);
/// Packed event suppression: offset of `off_wrap` (u16: position, wrap counter in bit 15).
pub(crate) const EVENT_OFF_WRAP: usize = 0;
/// Packed event suppression: offset of `flags` (u16).
pub(crate) const EVENT_FLAGS: usize = 2;

/// Split: offset of `flags` in both the available and the used ring.
pub(crate) const RING_FLAGS: usize = 0;
/// Split: offset of `idx` in both the available and the used ring.
pub(crate) const RING_IDX: usize = 2;
/// Split: offset of the first element in both the available and the used ring.
pub(crate) const RING_ELEMS: usize = 4;
/// Split: bytes of an element of the available ring: u16 head.
pub(crate) const AVAIL_ELEM: usize = 2;
/// Split: bytes of an element of the used ring: u32 id, u32 len.
pub(crate) const USED_ELEM: usize = 8;

/// Narrows a constant of the bindings, which are all `u32`.
const fn low16(value: u32) -> u16 {
    assert!(value <= 0xffff);
    (value & 0xffff) as u16
}

/// Split: offset of `used_event` in the available ring.
#[inline]
pub(crate) const fn used_event_offset(size: u16) -> usize {
    RING_ELEMS + AVAIL_ELEM * size as usize
}

/// Split: offset of `avail_event` in the used ring.
#[inline]
pub(crate) const fn avail_event_offset(size: u16) -> usize {
    RING_ELEMS + USED_ELEM * size as usize
}

/// Length in bytes and alignment of the three areas: descriptors, driver, device.
///
/// The event words at the end of the split rings are counted only when EVENT_IDX is there:
/// without it a driver need not have room for them.
pub(crate) const fn areas(features: &QueueFeatures, size: u16) -> [(u64, u64); 3] {
    let desc = DESC_SIZE as u64 * size as u64;
    match features.kind {
        RingKind::Packed => [(desc, 16), (4, 4), (4, 4)],
        RingKind::Split => {
            let event = if features.event_idx { 2 } else { 0 };
            [
                (desc, vring::VRING_DESC_ALIGN_SIZE as u64),
                (used_event_offset(size) as u64 + event, vring::VRING_AVAIL_ALIGN_SIZE as u64),
                (avail_event_offset(size) as u64 + event, vring::VRING_USED_ALIGN_SIZE as u64),
            ]
        }
    }
}

/// Where a driver may place the areas of a ring inside one block of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingLayout {
    /// Offset of the descriptors, always 0.
    pub desc: u64,
    /// Offset of what the driver writes.
    pub driver: u64,
    /// Offset of what the device writes.
    pub device: u64,
    /// Bytes in all, a multiple of 64.
    pub total: u64,
}

impl RingLayout {
    /// Lays out a ring of `size` entries, each area in cache lines of its own.
    #[must_use]
    pub const fn new(kind: RingKind, size: u16) -> Self {
        let features = QueueFeatures {
            kind,
            in_order: false,
            indirect: false,
            event_idx: true,
            mrg_rxbuf: false,
            header_len: 0,
            offloads: false,
        };
        let [(desc, _), (driver, _), (device, _)] = areas(&features, size);
        let driver_at = desc.next_multiple_of(LINE);
        let device_at = (driver_at + driver).next_multiple_of(LINE);
        Self { desc: 0, driver: driver_at, device: device_at, total: (device_at + device).next_multiple_of(LINE) }
    }
}

/// Bytes of a cache line.
const LINE: u64 = 64;

/// The second half of a packed descriptor as one word: `len | id << 32 | flags << 48`.
///
/// One aligned 64-bit load gives all three as they were at one moment, so what was seen as used
/// (or available) carries the id and length that were written before its flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PackedWord(pub(crate) u64);

impl PackedWord {
    #[inline(always)]
    pub(crate) const fn new(len: u32, id: u16, flags: u16) -> Self {
        Self(len as u64 | (id as u64) << 32 | (flags as u64) << 48)
    }

    #[inline(always)]
    pub(crate) const fn len(self) -> u32 {
        (self.0 & 0xffff_ffff) as u32
    }

    #[inline(always)]
    pub(crate) const fn id(self) -> u16 {
        (self.0 >> 32 & 0xffff) as u16
    }

    #[inline(always)]
    pub(crate) const fn flags(self) -> u16 {
        (self.0 >> 48) as u16
    }
}

/// The second half of a split descriptor as one word: `len | flags << 32 | next << 48`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SplitWord(pub(crate) u64);

impl SplitWord {
    #[inline(always)]
    pub(crate) const fn new(len: u32, flags: u16, next: u16) -> Self {
        Self(len as u64 | (flags as u64) << 32 | (next as u64) << 48)
    }

    #[inline(always)]
    pub(crate) const fn len(self) -> u32 {
        (self.0 & 0xffff_ffff) as u32
    }

    #[inline(always)]
    pub(crate) const fn flags(self) -> u16 {
        (self.0 >> 32 & 0xffff) as u16
    }

    #[inline(always)]
    pub(crate) const fn next(self) -> u16 {
        (self.0 >> 48) as u16
    }
}

/// The AVAIL and USED bits of a descriptor made available under this wrap counter.
#[inline(always)]
pub(crate) const fn avail_bits(wrap: bool) -> u16 {
    if wrap { F_AVAIL } else { F_USED }
}

/// The AVAIL and USED bits of a descriptor used under this wrap counter.
#[inline(always)]
pub(crate) const fn used_bits(wrap: bool) -> u16 {
    if wrap { F_AVAIL | F_USED } else { 0 }
}

/// Whether these flags say: available, to a side whose wrap counter is `wrap`.
#[inline(always)]
pub(crate) const fn is_avail(flags: u16, wrap: bool) -> bool {
    flags & (F_AVAIL | F_USED) == avail_bits(wrap)
}

/// Whether these flags say: used, to a side whose wrap counter is `wrap`.
#[inline(always)]
pub(crate) const fn is_used(flags: u16, wrap: bool) -> bool {
    flags & (F_AVAIL | F_USED) == used_bits(wrap)
}

/// A position in a packed ring: an index below the size, and the wrap counter there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PackedPos {
    pub(crate) index: u16,
    pub(crate) wrap: bool,
}

impl PackedPos {
    /// Moves on by `n <= size` descriptors.
    #[inline(always)]
    pub(crate) const fn advance(&mut self, n: u16, size: u16) {
        // An index is below 32768 and `n` at most that: the sum fits.
        let next = self.index + n;
        if next >= size {
            self.index = next - size;
            self.wrap = !self.wrap;
        } else {
            self.index = next;
        }
    }

    /// As `off_wrap` of an event suppression area, and as half a vring base.
    #[inline(always)]
    pub(crate) const fn to_bits(self) -> u16 {
        self.index | (self.wrap as u16) << 15
    }
}

/// Split, EVENT_IDX: whether moving an index from `old` to `new` passed `event`.
#[inline(always)]
pub(crate) const fn split_needs_event(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

/// Packed, EVENT_IDX: whether moving by the last `moved` descriptors up to `now` passed the
/// position in `off_wrap`. Any `off_wrap` is harmless: the answer is at worst wrong.
#[inline(always)]
pub(crate) const fn packed_needs_event(off_wrap: u16, now: PackedPos, moved: u32, size: u16) -> bool {
    if moved >= size as u32 {
        return true;
    }
    let mut event = off_wrap & 0x7fff;
    if (off_wrap & 0x8000 != 0) != now.wrap {
        event = event.wrapping_sub(size);
    }
    (now.index.wrapping_sub(event).wrapping_sub(1) as u32) < moved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_match_the_descriptor_types() {
        use virtio_queue::desc::{packed, split};
        use vm_memory::ByteValued;
        let raw = RawDescriptor::from(packed::Descriptor::new(1, 0x0203_0405, 0x0607, 0x8082));
        let word = u64::from_le_bytes(raw.as_slice()[8..].try_into().unwrap());
        assert_eq!(PackedWord::new(0x0203_0405, 0x0607, 0x8082).0, word);
        let raw = RawDescriptor::from(split::Descriptor::new(1, 0x0203_0405, 3, 0x0809));
        let word = u64::from_le_bytes(raw.as_slice()[8..].try_into().unwrap());
        assert_eq!(SplitWord::new(0x0203_0405, 3, 0x0809).0, word);
    }

    #[test]
    fn availability_is_one_of_four() {
        for wrap in [false, true] {
            assert!(is_avail(avail_bits(wrap), wrap) && !is_avail(avail_bits(!wrap), wrap));
            assert!(is_used(used_bits(wrap), wrap) && !is_used(used_bits(!wrap), wrap));
            assert!(!is_used(avail_bits(wrap), wrap) && !is_avail(used_bits(wrap), wrap));
        }
        assert!(!is_avail(0, true) && !is_used(0, true), "a zeroed ring is empty");
    }

    #[test]
    fn positions_wrap_in_every_place() {
        for size in [1u16, 2, 3, 7, 32768] {
            for start in [0, size / 2, size - 1] {
                for n in [0, 1, size / 2, size] {
                    let mut at = PackedPos { index: start, wrap: true };
                    at.advance(n, size);
                    let linear = u32::from(start) + u32::from(n);
                    assert_eq!(u32::from(at.index), linear % u32::from(size));
                    assert_eq!(at.wrap, linear < u32::from(size));
                }
            }
        }
    }

    /// The event test against the definition: was the slot of the event among those moved over?
    #[test]
    fn packed_event_by_definition() {
        for size in [1u16, 2, 3, 4, 7] {
            let at = |linear: u32| PackedPos {
                index: u16::try_from(linear % u32::from(size)).unwrap(),
                wrap: (linear / u32::from(size)).is_multiple_of(2),
            };
            for now in u32::from(size)..3 * u32::from(size) {
                for moved in 0..=u32::from(size) {
                    // An event position is at most a lap behind the position it was written at.
                    for event in now - u32::from(size)..now + u32::from(size) {
                        if moved == u32::from(size) {
                            assert!(packed_needs_event(at(event).to_bits(), at(now), moved, size));
                            continue;
                        }
                        if event + u32::from(size) < now || event > now {
                            continue;
                        }
                        let passed = event >= now - moved && event < now;
                        let same_as_a_lap_ago = event == now - u32::from(size);
                        if same_as_a_lap_ago {
                            continue;
                        }
                        assert_eq!(
                            packed_needs_event(at(event).to_bits(), at(now), moved, size),
                            passed,
                            "size {size} now {now} moved {moved} event {event}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn split_event_by_definition() {
        for old in [0u16, 5, 0xfff0] {
            for moved in 0..20u16 {
                for delta in -30i16..30 {
                    let event = old.wrapping_add_signed(delta);
                    let passed = delta >= 0 && delta < moved.cast_signed();
                    assert_eq!(split_needs_event(event, old.wrapping_add(moved), old), passed);
                }
            }
        }
    }

    #[test]
    fn layouts() {
        let split = RingLayout::new(RingKind::Split, 256);
        assert_eq!((split.driver, split.device), (4096, 4096 + 576));
        assert_eq!(split.total, (4096 + 576 + 4 + 8 * 256 + 2_u64).next_multiple_of(64));
        let packed = RingLayout::new(RingKind::Packed, 3);
        assert_eq!((packed.driver, packed.device, packed.total), (64, 128, 192));
    }
}
