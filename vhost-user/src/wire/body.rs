// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Layout of message bodies. Fixed bodies are read and written through the structures of `vhost`, which are the
//! layout; those it lacks, or has with compiler padding, are spelled out here field by field.

use vhost::vhost_user::message as layout;
use vm_memory::ByteValued;

use super::error::WireError;
use super::types::{ConfigAccess, Inflight, Iotlb, LogArea, Region, ShmemMap, VringAddresses, VringArea};

/// Device configuration space that can be accessed, in bytes (the bound that QEMU has).
pub(crate) const MAX_CONFIG: usize = 256;

const REGION_LEN: usize = size_of::<layout::VhostUserMemoryRegion>();
const MEMORY_LEN: usize = size_of::<layout::VhostUserMemory>();
const CONFIG_LEN: usize = size_of::<layout::VhostUserConfig>();

/// A body being read; every accessor consumes the whole of it.
#[derive(Clone, Copy)]
pub(super) struct Body<'a> {
    pub(super) request: u32,
    pub(super) bytes: &'a [u8],
}

impl Body<'_> {
    pub(super) fn empty(self) -> Result<(), WireError> {
        self.sized(0)
    }

    pub(super) fn u64(self) -> Result<u64, WireError> {
        self.fixed::<layout::VhostUserU64>().map(|body| body.value)
    }

    /// Ring index and number.
    pub(super) fn vring_state(self) -> Result<(u32, u32), WireError> {
        self.fixed::<layout::VhostUserVringState>().map(|body| (body.index, body.num))
    }

    /// Ring index, flags, addresses, log address.
    pub(super) fn vring_addr(self) -> Result<(u32, u32, VringAddresses, u64), WireError> {
        let body = self.fixed::<layout::VhostUserVringAddr>()?;
        let addresses = VringAddresses { descriptor: body.descriptor, driver: body.available, device: body.used };
        Ok((body.index, body.flags, addresses, body.log))
    }

    pub(super) fn regions(self, limit: usize) -> Result<Vec<Region>, WireError> {
        let Some((head, rest)) = self.bytes.split_at_checked(MEMORY_LEN) else {
            return Err(self.wrong_size(MEMORY_LEN));
        };
        let head = Body { bytes: head, ..self }.fixed::<layout::VhostUserMemory>()?;
        let count = head.num_regions;
        let too_many = WireError::TooManyRegions { request: self.request, count, limit };
        let number = usize::try_from(count).map_err(|_| too_many)?;
        if number > limit {
            return Err(too_many);
        }
        if rest.len() != number * REGION_LEN {
            return Err(self.wrong_size(MEMORY_LEN + number * REGION_LEN));
        }
        rest.chunks_exact(REGION_LEN)
            .map(|bytes| Body { bytes, ..self }.fixed::<layout::VhostUserMemoryRegion>().map(|r| region(&r)))
            .collect()
    }

    pub(super) fn single_region(self) -> Result<Region, WireError> {
        self.fixed::<layout::VhostUserSingleMemoryRegion>().map(|body| region(&body))
    }

    pub(super) fn log(self) -> Result<LogArea, WireError> {
        self.fixed::<layout::VhostUserLog>().map(|body| LogArea { size: body.mmap_size, offset: body.mmap_offset })
    }

    pub(super) fn config(self) -> Result<ConfigAccess, WireError> {
        let Some((head, bytes)) = self.bytes.split_at_checked(CONFIG_LEN) else {
            return Err(self.wrong_size(CONFIG_LEN));
        };
        let head = Body { bytes: head, ..self }.fixed::<layout::VhostUserConfig>()?;
        let size = usize::try_from(head.size).unwrap_or(usize::MAX);
        if bytes.len() != size || size > MAX_CONFIG {
            return Err(self.wrong_size(CONFIG_LEN + size.min(MAX_CONFIG)));
        }
        Ok(ConfigAccess { offset: head.offset, flags: head.flags, bytes: bytes.to_vec() })
    }

    pub(super) fn device_state(self) -> Result<(u32, u32), WireError> {
        self.fixed::<layout::VhostUserTransferDeviceState>().map(|body| (body.direction, body.phase))
    }

    /// 20 bytes, which C pads to 24; both are met.
    pub(super) fn inflight(self) -> Result<Inflight, WireError> {
        let mut fields = Fields(self.bytes);
        match (self.bytes.len(), fields.u64(), fields.u64(), fields.u16(), fields.u16()) {
            (20 | 24, Some(mmap_size), Some(mmap_offset), Some(num_queues), Some(queue_size)) => {
                Ok(Inflight { mmap_size, mmap_offset, num_queues, queue_size })
            }
            _ => Err(self.wrong_size(24)),
        }
    }

    /// 26 bytes, which C pads to 32; both are met.
    pub(super) fn iotlb(self) -> Result<Iotlb, WireError> {
        let mut fields = Fields(self.bytes);
        let addresses = (fields.u64(), fields.u64(), fields.u64());
        match (self.bytes.len(), addresses, fields.u8(), fields.u8()) {
            (26 | 32, (Some(iova), Some(size), Some(user_addr)), Some(permissions), Some(kind)) => {
                Ok(Iotlb { iova, size, user_addr, permissions, kind })
            }
            _ => Err(self.wrong_size(32)),
        }
    }

    pub(super) fn vring_area(self) -> Result<VringArea, WireError> {
        let mut fields = Fields(self.bytes);
        match (self.bytes.len(), fields.u64(), fields.u64(), fields.u64()) {
            (24, Some(index), Some(size), Some(offset)) => Ok(VringArea { index, size, offset }),
            _ => Err(self.wrong_size(24)),
        }
    }

    pub(super) fn shmem_map(self) -> Result<ShmemMap, WireError> {
        let body = self.fixed::<layout::VhostUserMMap>()?;
        Ok(ShmemMap {
            shmid: body.shmid,
            fd_offset: body.fd_offset,
            shm_offset: body.shm_offset,
            len: body.len,
            flags: body.flags,
        })
    }

    pub(super) fn uuid(self) -> Result<[u8; 16], WireError> {
        self.bytes.try_into().map_err(|_| self.wrong_size(16))
    }

    /// Sizes of up to 256 shared-memory regions: count, padding, and always 256 sizes.
    pub(super) fn shmem_config(self) -> Result<Vec<u64>, WireError> {
        let head = self.bytes.get(..4).and_then(|head| head.try_into().ok()).map(u32::from_le_bytes);
        let sizes = self.bytes.get(8..).unwrap_or_default();
        match head.and_then(|count| usize::try_from(count).ok()) {
            Some(count) if count <= 256 && sizes.len() == 256 * 8 => {
                let mut fields = Fields(sizes);
                Ok((0..count).map_while(|_| fields.u64()).collect())
            }
            _ => Err(self.wrong_size(8 + 256 * 8)),
        }
    }

    fn fixed<T: ByteValued + Default>(self) -> Result<T, WireError> {
        let mut value = T::default();
        self.sized(size_of::<T>())?;
        value.as_mut_slice().copy_from_slice(self.bytes);
        Ok(value)
    }

    fn sized(self, expected: usize) -> Result<(), WireError> {
        if self.bytes.len() == expected { Ok(()) } else { Err(self.wrong_size(expected)) }
    }

    fn wrong_size(self, expected: usize) -> WireError {
        WireError::PayloadSize { request: self.request, size: self.bytes.len(), expected }
    }
}

pub(super) fn put_vring_state(index: u32, num: u32) -> Vec<u8> {
    bytes_of(&layout::VhostUserVringState::new(index, num))
}

pub(super) fn put_vring_addr(index: u32, flags: u32, addresses: VringAddresses, log: u64) -> Vec<u8> {
    bytes_of(&layout::VhostUserVringAddr {
        index,
        flags,
        descriptor: addresses.descriptor,
        used: addresses.device,
        available: addresses.driver,
        log,
    })
}

pub(super) fn put_regions<'a>(regions: impl ExactSizeIterator<Item = &'a Region>) -> Vec<u8> {
    let count = u32::try_from(regions.len()).unwrap_or(u32::MAX);
    let mut out = bytes_of(&layout::VhostUserMemory::new(count));
    for r in regions {
        let region = layout::VhostUserMemoryRegion::new(r.guest_addr, r.size, r.user_addr, r.mmap_offset);
        out.extend_from_slice(region.as_slice());
    }
    out
}

pub(super) fn put_single_region(r: &Region) -> Vec<u8> {
    bytes_of(&layout::VhostUserSingleMemoryRegion::new(r.guest_addr, r.size, r.user_addr, r.mmap_offset))
}

pub(super) fn put_log(log: &LogArea) -> Vec<u8> {
    bytes_of(&layout::VhostUserLog::new(log.size, log.offset))
}

pub(super) fn put_config(access: &ConfigAccess) -> Vec<u8> {
    let size = u32::try_from(access.bytes.len()).unwrap_or(u32::MAX);
    let head = layout::VhostUserConfig { offset: access.offset, size, flags: access.flags };
    let mut out = bytes_of(&head);
    out.extend_from_slice(&access.bytes);
    out
}

pub(super) fn put_device_state(direction: u32, phase: u32) -> Vec<u8> {
    bytes_of(&layout::VhostUserTransferDeviceState { direction, phase })
}

pub(super) fn put_inflight(inflight: &Inflight) -> Vec<u8> {
    let mut out = inflight.mmap_size.to_le_bytes().to_vec();
    out.extend(inflight.mmap_offset.to_le_bytes());
    out.extend(inflight.num_queues.to_le_bytes());
    out.extend(inflight.queue_size.to_le_bytes());
    out.resize(24, 0);
    out
}

pub(super) fn put_iotlb(iotlb: &Iotlb) -> Vec<u8> {
    let mut out = iotlb.iova.to_le_bytes().to_vec();
    out.extend(iotlb.size.to_le_bytes());
    out.extend(iotlb.user_addr.to_le_bytes());
    out.extend([iotlb.permissions, iotlb.kind]);
    out.resize(32, 0);
    out
}

pub(super) fn put_vring_area(area: &VringArea) -> Vec<u8> {
    [area.index, area.size, area.offset].into_iter().flat_map(u64::to_le_bytes).collect()
}

pub(super) fn put_shmem_map(map: &ShmemMap) -> Vec<u8> {
    bytes_of(&layout::VhostUserMMap {
        shmid: map.shmid,
        padding: [0; 7],
        fd_offset: map.fd_offset,
        shm_offset: map.shm_offset,
        len: map.len,
        flags: map.flags,
    })
}

pub(super) fn put_shmem_config(sizes: &[u64]) -> Vec<u8> {
    let count = u32::try_from(sizes.len()).unwrap_or(u32::MAX);
    bytes_of(&layout::VhostUserShMemConfig::new(count, sizes))
}

fn bytes_of<T: ByteValued>(value: &T) -> Vec<u8> {
    value.as_slice().to_vec()
}

fn region(body: &layout::VhostUserMemoryRegion) -> Region {
    Region {
        guest_addr: body.guest_phys_addr,
        size: body.memory_size,
        user_addr: body.user_addr,
        mmap_offset: body.mmap_offset,
    }
}

/// Little-endian fields, one after the other.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn used_precedes_available_on_the_wire() {
        let addresses = VringAddresses { descriptor: 0x1000, driver: 0x2000, device: 0x3000 };
        let bytes = put_vring_addr(7, 1, addresses, 0x4000);
        let expected: Vec<u8> = [7u32, 1]
            .into_iter()
            .flat_map(u32::to_le_bytes)
            .chain([0x1000u64, 0x3000, 0x2000, 0x4000].into_iter().flat_map(u64::to_le_bytes))
            .collect();
        assert_eq!(bytes, expected);
    }

    #[test]
    fn sizes_are_those_of_the_specification() {
        assert_eq!((MEMORY_LEN, REGION_LEN, CONFIG_LEN), (8, 32, 12));
        let region = Region { guest_addr: 1, size: 2, user_addr: 3, mmap_offset: 4 };
        assert_eq!(put_single_region(&region).len(), 40);
        assert_eq!(put_shmem_config(&[1, 2]).len(), 2056);
        let body = Body { request: 0, bytes: &put_shmem_config(&[1, 2]) };
        assert_eq!(body.shmem_config(), Ok(vec![1, 2]));
    }

    #[test]
    fn padded_and_unpadded_structures_are_read() {
        let inflight = Inflight { mmap_size: 1, mmap_offset: 2, num_queues: 3, queue_size: 4 };
        let bytes = put_inflight(&inflight);
        for len in [20, 24] {
            assert_eq!(Body { request: 31, bytes: &bytes[..len] }.inflight(), Ok(inflight));
        }
        let wrong = WireError::PayloadSize { request: 31, size: 22, expected: 24 };
        assert_eq!(Body { request: 31, bytes: &bytes[..22] }.inflight(), Err(wrong));
    }

    #[test]
    fn region_count_bounds_the_payload() {
        let mut bytes = put_regions([].iter());
        bytes[0] = 0xff;
        bytes[3] = 0xff;
        let error = WireError::TooManyRegions { request: 5, count: 0xff00_00ff, limit: 32 };
        assert_eq!(Body { request: 5, bytes: &bytes }.regions(32), Err(error));
        bytes[3] = 0;
        bytes[0] = 2;
        let error = WireError::PayloadSize { request: 5, size: 8, expected: 72 };
        assert_eq!(Body { request: 5, bytes: &bytes }.regions(32), Err(error));
    }
}
