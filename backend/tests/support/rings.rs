// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A device whose rings are written by hand, so that anything can be wrong with them.
//!
//! ```text
//! | ring 0: descriptors, driver area, device area | ring 1: … | buffers and tables … |
//! ```
//!
//! Guest addresses and front-end addresses differ on purpose.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vhost_user::features::{
    VHOST_USER_F_PROTOCOL_FEATURES, VIRTIO_F_RING_PACKED, VIRTIO_F_VERSION_1, VIRTIO_RING_F_INDIRECT_DESC,
};
use vhost_user::{Region, Request, VringAddresses};
use virtqueue::{MemoryMap, RegionSpec, full_fence};

use super::raw::{Raw, eventfd, ring_up};
use super::{BROADCAST, Guest, frame, until};

/// Entries of both rings.
pub(crate) const SIZE: u16 = 16;
/// Name of the memory, as /proc/self/maps shows it.
pub(crate) const MEMORY: &str = "shunt-raw-guest";

/// Its MAC address.
const RAW: [u8; 6] = [2, 0, 0, 0, 0, 0xa];

const GUEST: u64 = 0x1_0000_0000;
const USER: u64 = 0x7fff_0000_0000;
const BYTES: u64 = 1 << 20;
const RING_BYTES: usize = 0x4000;
const RING_PITCH: u64 = RING_BYTES as u64;
const DRIVER: u64 = 0x1000;
const DEVICE: u64 = 0x2000;
const BUFFERS: u64 = 0x1_0000;

const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    Split,
    Packed,
}

/// A device set up by hand: ring 0 receives, ring 1 transmits.
#[derive(Debug)]
pub(crate) struct RawDevice {
    pub(crate) raw: Raw,
    pub(crate) layout: Layout,
    pub(crate) memory: MemoryMap,
    pub(crate) file: OwnedFd,
    pub(crate) kicks: [OwnedFd; 2],
    pub(crate) calls: [OwnedFd; 2],
    pub(crate) errors: [OwnedFd; 2],
    /// Of ring 0 on the wire: the node knows the rings by other numbers than this file.
    first: u8,
    /// Next place in the ring, counted without end.
    posted: [u16; 2],
}

impl RawDevice {
    /// Features that are negotiated.
    pub(crate) fn features(layout: Layout) -> u64 {
        let packed = if layout == Layout::Packed { VIRTIO_F_RING_PACKED } else { 0 };
        VIRTIO_F_VERSION_1 | VIRTIO_RING_F_INDIRECT_DESC | packed
    }

    /// The one region.
    pub(crate) fn region() -> Region {
        Region { guest_addr: GUEST, size: BYTES, user_addr: USER, mmap_offset: 0 }
    }

    /// Memory of its own, mapped here as well.
    pub(crate) fn new_memory() -> (OwnedFd, MemoryMap) {
        let file = memfd_create(MEMORY, MemfdFlags::CLOEXEC).expect("memfd");
        ftruncate(&file, BYTES).expect("ftruncate");
        let memory = Self::map(&file);
        (file, memory)
    }

    /// One more mapping of a device's memory, for another thread.
    pub(crate) fn map(file: &OwnedFd) -> MemoryMap {
        let Region { guest_addr, size, user_addr, mmap_offset } = Self::region();
        let spec = RegionSpec { guest_addr, size, user_addr, mmap_offset };
        MemoryMap::from_regions(vec![(spec, copy(file))]).expect("memory")
    }

    #[track_caller]
    pub(crate) fn attach(socket: &Path, layout: Layout) -> Self {
        Self::attach_pair(socket, layout, 0)
    }

    /// Sets up one queue pair only.
    #[track_caller]
    pub(crate) fn attach_pair(socket: &Path, layout: Layout, pair: u8) -> Self {
        let (file, memory) = Self::new_memory();
        let bells = || [eventfd(), eventfd()];
        let raw = Raw::connect(socket);
        let first = pair * 2;
        let mut device =
            Self { raw, layout, memory, file, kicks: bells(), calls: bells(), errors: bells(), first, posted: [0; 2] };
        let bits = Self::features(layout) | VHOST_USER_F_PROTOCOL_FEATURES;
        device.raw.tell(Request::SetOwner);
        let offered = device.raw.value(Request::GetFeatures);
        assert_eq!(offered & bits, bits, "everything is offered");
        assert_eq!(device.raw.value(Request::SetFeatures(bits)), 0);
        let memory = vec![(Self::region(), copy(&device.file))];
        assert_eq!(device.raw.value(Request::SetMemTable(memory)), 0);
        device.set_up(0);
        device.set_up(1);
        device
    }

    /// Clears a ring, tells of it and enables it.
    #[track_caller]
    pub(crate) fn set_up(&mut self, ring: u8) {
        self.clear(ring);
        let base = if self.layout == Layout::Packed { 0x8000_8000 } else { 0 };
        self.describe(ring, base);
    }

    #[track_caller]
    pub(crate) fn describe(&self, ring: u8, base: u32) {
        let (index, at) = (self.first + ring, usize::from(ring));
        let vring = u32::from(index);
        let addresses = Self::addresses(ring);
        for request in [
            Request::SetVringNum { vring, num: u32::from(SIZE) },
            Request::SetVringBase { vring, base },
            Request::SetVringAddr { vring, flags: 0, addresses, log: 0 },
            Request::SetVringCall { vring: index, fd: Some(copy(&self.calls[at])) },
            Request::SetVringErr { vring: index, fd: Some(copy(&self.errors[at])) },
            Request::SetVringKick { vring: index, fd: Some(copy(&self.kicks[at])) },
            Request::SetVringEnable { vring, enable: 1 },
        ] {
            assert_eq!(self.raw.value(request), 0);
        }
    }

    /// Stops a ring and returns its base.
    #[track_caller]
    pub(crate) fn stop(&self, ring: u8) -> u32 {
        let answer = self.raw.ask(Request::GetVringBase { vring: u32::from(self.first + ring) });
        u32::from_le_bytes(answer[4..8].try_into().expect("four bytes"))
    }

    /// Where a ring lies, in front-end addresses.
    pub(crate) fn addresses(ring: u8) -> VringAddresses {
        let at = USER + RING_PITCH * u64::from(ring);
        VringAddresses { descriptor: at, driver: at + DRIVER, device: at + DEVICE }
    }

    pub(crate) fn clear(&mut self, ring: u8) {
        self.memory.write(GUEST + RING_PITCH * u64::from(ring), &[0; RING_BYTES]).expect("memory");
        self.posted[usize::from(ring)] = 0;
    }

    /// Guest address of a scratch buffer of 4 KiB.
    pub(crate) fn buffer(n: u64) -> u64 {
        GUEST + BUFFERS + n * 0x1000
    }

    /// Writes a split descriptor, or its like in a table.
    pub(crate) fn split_desc(&self, table: u64, index: u16, (addr, len, flags, next): (u64, u32, u16, u16)) {
        let mut bytes = Vec::new();
        bytes.extend(addr.to_le_bytes());
        bytes.extend(len.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        self.memory.write(table + u64::from(index) * 16, &bytes).expect("memory");
    }

    /// Guest address of a ring's descriptors.
    pub(crate) fn table(ring: u8) -> u64 {
        GUEST + RING_PITCH * u64::from(ring)
    }

    /// Makes chains available and kicks. Split: heads; the descriptors are in place already. Packed: descriptors
    /// {address, length, id, flags}, one after the other.
    pub(crate) fn make_available_split(&mut self, ring: u8, heads: &[u16]) {
        let area = Self::table(ring) + DRIVER;
        let posted = &mut self.posted[usize::from(ring)];
        for head in heads {
            let slot = u64::from(*posted % SIZE);
            self.memory.write(area + 4 + slot * 2, &head.to_le_bytes()).expect("memory");
            *posted = posted.wrapping_add(1);
        }
        let index = *posted;
        self.set_avail_index(ring, index);
    }

    pub(crate) fn set_avail_index(&mut self, ring: u8, index: u16) {
        full_fence();
        self.memory.write(Self::table(ring) + DRIVER + 2, &index.to_le_bytes()).expect("memory");
        self.posted[usize::from(ring)] = index;
        self.kick(ring);
    }

    pub(crate) fn make_available_packed(&mut self, ring: u8, descriptors: &[(u64, u32, u16, u16)]) {
        let first = self.posted[usize::from(ring)];
        // The first one last, so that the device sees all or nothing.
        for (n, &(addr, len, id, flags)) in descriptors.iter().enumerate().rev() {
            let at = first.wrapping_add(u16::try_from(n).expect("few"));
            let wrap = (at / SIZE).is_multiple_of(2);
            let flags = flags | if wrap { AVAIL } else { USED };
            let mut bytes = Vec::new();
            bytes.extend(addr.to_le_bytes());
            bytes.extend(len.to_le_bytes());
            bytes.extend(id.to_le_bytes());
            let slot = Self::table(ring) + u64::from(at % SIZE) * 16;
            self.memory.write(slot, &bytes).expect("memory");
            full_fence();
            self.memory.write(slot + 14, &flags.to_le_bytes()).expect("memory");
        }
        let count = u16::try_from(descriptors.len()).expect("few");
        self.posted[usize::from(ring)] = first.wrapping_add(count);
        self.kick(ring);
    }

    /// Posts one buffer of a ring, to be read or written by the device.
    pub(crate) fn post(&mut self, ring: u8, addr: u64, len: u32) {
        let flags = if ring == 0 { 2 } else { 0 };
        let at = self.posted[usize::from(ring)] % SIZE;
        match self.layout {
            Layout::Split => {
                self.split_desc(Self::table(ring), at, (addr, len, flags, 0));
                self.make_available_split(ring, &[at]);
            }
            Layout::Packed => self.make_available_packed(ring, &[(addr, len, at, flags)]),
        }
    }

    /// Posts a frame to be sent, and returns it.
    pub(crate) fn post_frame(&mut self, number: u64) -> Vec<u8> {
        let sent = frame(BROADCAST, RAW, 60, number);
        self.memory.write(Self::buffer(1), &[[0; 12].as_slice(), &sent].concat()).expect("memory");
        self.post(1, Self::buffer(1), 72);
        sent
    }

    /// A frame from here to the guest.
    #[track_caller]
    pub(crate) fn sends(&mut self, guest: &mut Guest, number: u64) {
        let sent = self.post_frame(number);
        assert_eq!(guest.receive(1), [sent]);
    }

    /// A frame from the guest to here.
    #[track_caller]
    pub(crate) fn receives(&mut self, guest: &mut Guest, number: u64) {
        let sent = frame(RAW, [2, 0, 0, 0, 0, 1], 61, number);
        let used = self.used(0);
        self.post(0, Self::buffer(2), 2048);
        guest.send(std::slice::from_ref(&sent));
        until("the raw device receives", || (self.used(0) != used).then_some(()));
        let mut bytes = [0; 73];
        self.memory.read(Self::buffer(2), &mut bytes).expect("memory");
        assert!(bytes[12..] == sent[..], "another frame arrived");
    }

    /// Both rings work.
    #[track_caller]
    pub(crate) fn works(&mut self, guest: &mut Guest, number: u64) {
        self.sends(guest, number);
        self.receives(guest, number);
    }

    pub(crate) fn kick(&self, ring: u8) {
        full_fence();
        ring_up(&self.kicks[usize::from(ring)]);
    }

    /// How many buffers of a ring the device has used, as far as the ring shows it: the used index, or used
    /// descriptors of the first lap.
    pub(crate) fn used(&self, ring: u8) -> u16 {
        let table = Self::table(ring);
        let word = |at| {
            let mut bytes = [0; 2];
            self.memory.read(at, &mut bytes).expect("memory");
            u16::from_le_bytes(bytes)
        };
        match self.layout {
            Layout::Split => word(table + DEVICE + 2),
            Layout::Packed => {
                let used = |n: &u16| word(table + u64::from(*n) * 16 + 14) & (AVAIL | USED) == AVAIL | USED;
                u16::try_from((0..SIZE).take_while(used).count()).expect("few")
            }
        }
    }
}

fn copy(fd: &OwnedFd) -> OwnedFd {
    fd.as_fd().try_clone_to_owned().expect("dup")
}
