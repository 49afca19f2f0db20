// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Values inside message bodies. They are ours because those of `vhost` are packed wire structures without `Debug` and
//! `PartialEq`; [`super::body`] uses the latter for the layout.

/// One region of guest memory (specification: "Memory region description").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Address in the guest's physical address space.
    pub guest_addr: u64,
    /// Bytes.
    pub size: u64,
    /// Address in the front end's own address space; ring addresses are given in this space.
    pub user_addr: u64,
    /// Where the region begins in the file behind the descriptor.
    pub mmap_offset: u64,
}

impl Region {
    /// Whether the region is not empty and no address range of it wraps around.
    #[must_use]
    pub fn is_sane(&self) -> bool {
        self.size != 0
            && [self.guest_addr, self.user_addr, self.mmap_offset]
                .iter()
                .all(|start| start.checked_add(self.size).is_some())
    }

    /// Whether both name the same memory: REM_MEM_REG ignores the offset.
    #[must_use]
    pub fn names_same(&self, other: &Self) -> bool {
        (self.guest_addr, self.size, self.user_addr) == (other.guest_addr, other.size, other.user_addr)
    }

    /// Whether guest addresses overlap.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.guest_addr < other.guest_addr.saturating_add(other.size)
            && other.guest_addr < self.guest_addr.saturating_add(self.size)
    }
}

/// The three areas of a ring, as addresses of the *front end* (specification: "A vring address description").
///
/// On the wire the order is descriptor, **used, available**; for packed rings DPDK, VPP and virtio-user agree that
/// "available" is the driver's event area and "used" the device's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VringAddresses {
    /// Descriptor table (split) or descriptor ring (packed).
    pub descriptor: u64,
    /// Available ring (split) or driver event suppression (packed); the device reads it.
    pub driver: u64,
    /// Used ring (split) or device event suppression (packed); the device writes it.
    pub device: u64,
}

/// Where dirty pages are logged (specification: "Log description").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogArea {
    /// Bytes.
    pub size: u64,
    /// Offset in the file.
    pub offset: u64,
}

/// Where in-flight descriptors are recorded (specification: "Inflight description").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inflight {
    /// Bytes; 0 when asking.
    pub mmap_size: u64,
    /// Offset in the file.
    pub mmap_offset: u64,
    /// Number of virtqueues.
    pub num_queues: u16,
    /// Descriptors of each.
    pub queue_size: u16,
}

/// An IOTLB event (specification: "An IOTLB message").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Iotlb {
    /// I/O virtual address.
    pub iova: u64,
    /// Bytes.
    pub size: u64,
    /// Address in the front end.
    pub user_addr: u64,
    /// Bit 0 read, bit 1 write.
    pub permissions: u8,
    /// 1 miss, 2 update, 3 invalidate, 4 access failure.
    pub kind: u8,
}

/// A piece of device configuration space (specification: "Virtio device config space").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigAccess {
    /// Offset of the first byte.
    pub offset: u32,
    /// 0: written by the driver; 1: written by migration.
    pub flags: u32,
    /// The contents; when asking, as many bytes (of no meaning) as are asked for.
    pub bytes: Vec<u8>,
}

/// A host notifier's page (specification: "Vring area description").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VringArea {
    /// Ring index (bits 0-7) and "no descriptor" (bit 8).
    pub index: u64,
    /// Bytes.
    pub size: u64,
    /// Offset in the file.
    pub offset: u64,
}

/// How device state is to be transferred (specification: "Device state transfer parameters").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceStateTransfer {
    /// 0 save, 1 load.
    pub direction: u32,
    /// 0 stopped.
    pub phase: u32,
}

/// A mapping into a VIRTIO shared-memory region (specification: "MMAP request").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShmemMap {
    /// Shared-memory region.
    pub shmid: u8,
    /// Offset in the file.
    pub fd_offset: u64,
    /// Offset in the region.
    pub shm_offset: u64,
    /// Bytes.
    pub len: u64,
    /// Bit 0 writable.
    pub flags: u64,
}
