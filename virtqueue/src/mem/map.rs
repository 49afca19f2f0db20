// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The table of regions: immutable, shared, replaced as a whole.
//!
//! Theory of operation. A look-up happens for every descriptor, so the table keeps what a look-up
//! reads apart from everything else: one flat array of 32-byte entries {guest base, size, host
//! base}, two to a cache line, sorted by guest base. Buffers of one queue nearly always lie in the
//! region of the buffer before, so the caller keeps the index of its last hit as a hint; a hit
//! there is one subtraction and two comparisons, inlined. Everything else is a binary search out
//! of line. Changing the map means making another one that shares the regions that stay
//! (decision 4a): nobody who holds the old map sees a change.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::access::{HostPtr, copy_from_guest, copy_to_guest};
use super::error::{MapError, MemError};
use super::region::{Region, RegionId, RegionSpec};
use crate::config::QueueConfig;
use crate::error::QueueError;
use crate::layout;

/// The memory of one guest, as this process sees it.
#[derive(Debug, Default)]
pub struct MemoryMap {
    /// What a look-up reads, sorted by guest address.
    table: Vec<Entry>,
    /// The regions behind it, in the same order.
    regions: Vec<Arc<Region>>,
}

/// One region, as a look-up wants it.
#[derive(Clone, Copy, Debug)]
#[repr(align(32))]
pub(crate) struct Entry {
    guest: u64,
    size: u64,
    host: HostPtr,
}

impl MemoryMap {
    /// The most regions a map may have: as many as KVM has memory slots.
    pub const MAX_REGIONS: usize = 509;

    /// A map without memory.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// Maps the regions of VHOST_USER_SET_MEM_TABLE.
    ///
    /// # Errors
    /// Too many regions, empty or overlapping ones, ones that overflow or exceed their file, or
    /// files that cannot be mapped. Nothing stays mapped then.
    pub fn from_regions(regions: Vec<(RegionSpec, OwnedFd)>) -> Result<Self, MapError> {
        Self::empty().replace(regions)
    }

    /// The map after another VHOST_USER_SET_MEM_TABLE: regions with the same addresses and the
    /// same file keep the mapping they have.
    ///
    /// # Errors
    /// As [`MemoryMap::from_regions`].
    pub fn replace(&self, regions: Vec<(RegionSpec, OwnedFd)>) -> Result<Self, MapError> {
        // Before anything is mapped: a front end must not make us map what is then thrown away.
        let specs: Vec<RegionSpec> = regions.iter().map(|(spec, _)| *spec).collect();
        check_all(&specs)?;
        let regions = regions
            .into_iter()
            .map(|(spec, fd)| match self.same_region(&spec, &fd)? {
                Some(known) => Ok(known),
                None => Region::map(spec, fd).map(Arc::new),
            })
            .collect::<Result<Vec<_>, MapError>>()?;
        Ok(Self::new(regions))
    }

    /// The map after VHOST_USER_ADD_MEM_REG.
    ///
    /// # Errors
    /// As [`MemoryMap::from_regions`].
    pub fn with_region(&self, spec: RegionSpec, fd: OwnedFd) -> Result<Self, MapError> {
        let mut specs: Vec<RegionSpec> = self.regions.iter().map(|r| r.spec).collect();
        specs.push(spec);
        check_all(&specs)?;
        let mut regions = self.regions.clone();
        regions.push(Arc::new(Region::map(spec, fd)?));
        Ok(Self::new(regions))
    }

    /// The map after VHOST_USER_REM_MEM_REG. Addresses and size name the region; the offset in
    /// the file does not matter (vhost-user, "Single memory region description").
    ///
    /// # Errors
    /// [`MapError::NoSuchRegion`].
    pub fn without_region(&self, spec: &RegionSpec) -> Result<Self, MapError> {
        let named =
            |r: &RegionSpec| r.guest_addr == spec.guest_addr && r.size == spec.size && r.user_addr == spec.user_addr;
        let regions: Vec<_> = self.regions.iter().filter(|r| !named(&r.spec)).cloned().collect();
        if regions.len() == self.regions.len() {
            let RegionSpec { guest_addr, size, user_addr, .. } = *spec;
            return Err(MapError::NoSuchRegion { guest_addr, user_addr, size });
        }
        Ok(Self::new(regions))
    }

    /// How many regions there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.regions.len()
    }

    /// Whether there is no region.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.regions.is_empty()
    }

    /// The regions, by guest address.
    pub fn specs(&self) -> impl Iterator<Item = RegionSpec> + '_ {
        self.regions.iter().map(|region| region.spec)
    }

    /// Translates a range of front-end addresses, in which rings are told, to guest addresses.
    /// `None` unless one region holds all of it.
    #[must_use]
    pub fn user_to_guest(&self, user_addr: u64, len: u64) -> Option<u64> {
        self.regions.iter().map(|r| &r.spec).find_map(|spec| {
            let offset = user_addr.checked_sub(spec.user_addr)?;
            let inside = offset < spec.size && len <= spec.size - offset;
            inside.then(|| spec.guest_addr + offset)
        })
    }

    /// The file behind the region that holds this guest address.
    #[must_use]
    pub fn identity(&self, guest_addr: u64) -> Option<RegionId> {
        let index = self.find(guest_addr)?;
        self.regions.get(index).map(|region| region.id)
    }

    /// The guest address of the first region whose file was truncated under us; its contents are
    /// lost and read as zeros. See [`install_sigbus_guard`](crate::install_sigbus_guard).
    #[must_use]
    pub fn poisoned(&self) -> Option<u64> {
        self.regions.iter().find(|region| region.poisoned()).map(|region| region.spec.guest_addr)
    }

    /// Copies bytes out of the guest. The range may span regions. Slow path.
    ///
    /// # Errors
    /// A part of the range is not mapped; what comes before it was copied.
    pub fn read(&self, guest_addr: u64, dst: &mut [u8]) -> Result<(), MemError> {
        let mut rest = dst;
        self.for_each_segment(guest_addr, rest.len() as u64, |host, len| {
            let (now, later) = std::mem::take(&mut rest).split_at_mut(len);
            // SAFETY: the segment was looked up in this map, which is alive.
            unsafe { copy_from_guest(host, now) };
            rest = later;
        })
    }

    /// Copies bytes into the guest. The range may span regions. Slow path.
    ///
    /// # Errors
    /// A part of the range is not mapped; what comes before it was copied.
    pub fn write(&self, guest_addr: u64, src: &[u8]) -> Result<(), MemError> {
        let mut rest = src;
        self.for_each_segment(guest_addr, rest.len() as u64, |host, len| {
            let (now, later) = rest.split_at(len);
            // SAFETY: the segment was looked up in this map, which is alive.
            unsafe { copy_to_guest(host, now) };
            rest = later;
        })
    }

    /// Where `len` bytes at a guest address are, if one region holds all of them.
    ///
    /// `hint` is the caller's memory of where it found the last one; any value will do.
    #[inline(always)]
    pub(crate) fn host_range(&self, guest_addr: u64, len: u64, hint: &mut usize) -> Option<HostPtr> {
        let hit = self.table.get(*hint).and_then(|entry| entry.range(guest_addr, len));
        hit.or_else(|| self.host_range_cold(guest_addr, len, hint))
    }

    /// The region a hint stands for, by value: for loops over many ranges. Valid as long as the map.
    #[inline(always)]
    pub(crate) fn entry(&self, hint: usize) -> Entry {
        self.table.get(hint).copied().unwrap_or(Entry { guest: 0, size: 0, host: HostPtr::DANGLING })
    }

    #[cold]
    #[inline(never)]
    fn host_range_cold(&self, guest_addr: u64, len: u64, hint: &mut usize) -> Option<HostPtr> {
        let (host, there) = self.host_prefix(guest_addr, len, hint)?;
        (there == len).then_some(host)
    }

    /// Where the first bytes of a range are, and how many of its `len` bytes lie there. Call it
    /// again with the rest to walk a range that spans regions. `None`: the first byte is unmapped.
    pub(crate) fn host_prefix(&self, guest_addr: u64, len: u64, hint: &mut usize) -> Option<(HostPtr, u64)> {
        let index = self.find(guest_addr)?;
        let entry = self.table.get(index)?;
        *hint = index;
        let offset = guest_addr - entry.guest;
        Some((entry.at(offset), len.min(entry.size - offset)))
    }

    /// Which guest address the byte at an address of ours has. The reverse of what a look-up does, and as seldom wanted as
    /// guests migrate: regions are tried one after the other, the one of the last hit first.
    pub(crate) fn guest_of(&self, host: HostPtr, hint: &mut usize) -> Option<u64> {
        if let Some(guest) = self.table.get(*hint).and_then(|entry| entry.guest_of(host)) {
            return Some(guest);
        }
        let (index, guest) =
            self.table.iter().enumerate().find_map(|(index, entry)| Some((index, entry.guest_of(host)?)))?;
        *hint = index;
        Some(guest)
    }

    /// Resolves the three areas of a ring and checks their alignment. Each must lie in one region.
    pub(crate) fn ring_areas(&self, config: &QueueConfig) -> Result<RingAreas, QueueError> {
        let [desc, driver, device] = layout::areas(&config.features, config.size);
        let addresses = &config.addresses;
        Ok(RingAreas {
            desc: self.ring_area(addresses.desc, desc)?,
            driver: self.ring_area(addresses.driver, driver)?,
            device: self.ring_area(addresses.device, device)?,
        })
    }

    fn ring_area(&self, addr: u64, (len, align): (u64, u64)) -> Result<HostPtr, QueueError> {
        let host = self.host_range(addr, len, &mut 0).ok_or(QueueError::Unmapped { addr, len })?;
        // The host address counts, for that is what our atomics use; the guest address has the
        // same low bits unless a front end lays out its regions so that it has not.
        if !addr.is_multiple_of(align) || !(host.as_ptr().addr() as u64).is_multiple_of(align) {
            return Err(QueueError::Misaligned { addr, align });
        }
        Ok(host)
    }

    /// A map of one region of ours, at the address where it is mapped.
    pub(super) fn at_own_address(mut region: Region) -> Self {
        let addr = region.host.as_ptr().expose_provenance() as u64;
        region.spec.guest_addr = addr;
        region.spec.user_addr = addr;
        Self::new(vec![Arc::new(region)])
    }

    fn new(mut regions: Vec<Arc<Region>>) -> Self {
        regions.sort_by_key(|region| region.spec.guest_addr);
        let table =
            regions.iter().map(|r| Entry { guest: r.spec.guest_addr, size: r.spec.size, host: r.host }).collect();
        Self { table, regions }
    }

    /// Index of the region that holds this guest address.
    fn find(&self, guest_addr: u64) -> Option<usize> {
        let index = self.table.partition_point(|e| e.guest <= guest_addr).checked_sub(1)?;
        let entry = self.table.get(index)?;
        (guest_addr - entry.guest < entry.size).then_some(index)
    }

    /// A region of this map that can serve as the one asked for.
    fn same_region(&self, spec: &RegionSpec, fd: &OwnedFd) -> Result<Option<Arc<Region>>, MapError> {
        let Some(region) = self.regions.iter().find(|r| r.spec == *spec && !r.poisoned()) else {
            return Ok(None);
        };
        Ok((region.id == RegionId::of(fd)?).then(|| Arc::clone(region)))
    }

    fn for_each_segment(
        &self,
        mut addr: u64,
        mut len: u64,
        mut copy: impl FnMut(HostPtr, usize),
    ) -> Result<(), MemError> {
        let mut hint = 0;
        while len > 0 {
            let unmapped = MemError::Unmapped { addr, len };
            let (host, there) = self.host_prefix(addr, len, &mut hint).ok_or(unmapped)?;
            copy(host, usize::try_from(there).map_err(|_| unmapped)?);
            len -= there;
            // Only the end of the last region can be the end of the address space.
            addr = addr.wrapping_add(there);
        }
        Ok(())
    }
}

impl Entry {
    /// Where `len` bytes at a guest address are, if this region holds all of them.
    #[inline(always)]
    pub(crate) fn range(&self, guest_addr: u64, len: u64) -> Option<HostPtr> {
        let offset = guest_addr.wrapping_sub(self.guest);
        (offset < self.size && len <= self.size - offset).then(|| self.at(offset))
    }

    /// The guest address of a byte, if this region holds it.
    #[inline(always)]
    fn guest_of(&self, host: HostPtr) -> Option<u64> {
        let offset = (host.as_ptr().addr() as u64).wrapping_sub(self.host.as_ptr().addr() as u64);
        (offset < self.size).then(|| self.guest + offset)
    }

    /// The byte at an offset below the size, which `usize` can hold: the region is mapped.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "usize has 64 bits, see lib.rs")]
    fn at(&self, offset: u64) -> HostPtr {
        self.host.offset(offset as usize)
    }
}

/// The areas of a ring, resolved: mapped and aligned for as long as the map lives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RingAreas {
    pub(crate) desc: HostPtr,
    pub(crate) driver: HostPtr,
    pub(crate) device: HostPtr,
}

/// Checks number, bounds and overlaps, in guest and in front-end addresses.
fn check_all(specs: &[RegionSpec]) -> Result<(), MapError> {
    let limit = MemoryMap::MAX_REGIONS;
    if specs.len() > limit {
        return Err(MapError::TooManyRegions { count: specs.len(), limit });
    }
    for spec in specs {
        spec.check()?;
    }
    let overlap = |mut ranges: Vec<(u64, u64)>| {
        ranges.sort_unstable();
        for (&(first, size), &(second, _)) in ranges.iter().zip(ranges.iter().skip(1)) {
            if second - first < size {
                return Err(MapError::Overlap { first, second });
            }
        }
        Ok(())
    };
    overlap(specs.iter().map(|s| (s.guest_addr, s.size)).collect())?;
    overlap(specs.iter().map(|s| (s.user_addr, s.size)).collect())
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
