// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Bookkeeping of memory regions: what the host holds mapped, checked before the host is asked to change it.

use super::error::ProtocolError;
use crate::wire::Region;

/// Checks a whole table.
pub(super) fn check_table(regions: &[Region], max_slots: u16) -> Result<(), ProtocolError> {
    let count = regions.len();
    if count > usize::from(max_slots) {
        return Err(ProtocolError::TooManySlots { count, max: max_slots });
    }
    for (at, region) in regions.iter().enumerate() {
        check_region(region, regions.iter().take(at))?;
    }
    Ok(())
}

/// Checks a region that is to join `table`.
pub(super) fn check_added(table: &[Region], region: &Region, max_slots: u16) -> Result<(), ProtocolError> {
    let count = table.len() + 1;
    if count > usize::from(max_slots) {
        return Err(ProtocolError::TooManySlots { count, max: max_slots });
    }
    check_region(region, table.iter())
}

/// The region of `table` that `region` names.
pub(super) fn find(table: &[Region], region: &Region) -> Result<Region, ProtocolError> {
    let Region { guest_addr, size, .. } = *region;
    table.iter().find(|known| known.names_same(region)).copied().ok_or(ProtocolError::NoSuchRegion { guest_addr, size })
}

fn check_region<'a>(region: &Region, mut others: impl Iterator<Item = &'a Region>) -> Result<(), ProtocolError> {
    let Region { guest_addr, size, .. } = *region;
    if !region.is_sane() {
        return Err(ProtocolError::RegionRange { guest_addr, size });
    }
    if others.any(|other| other.overlaps(region)) {
        return Err(ProtocolError::RegionOverlap { guest_addr, size });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(guest_addr: u64, size: u64) -> Region {
        Region { guest_addr, size, user_addr: guest_addr, mmap_offset: 0 }
    }

    #[test]
    fn neighbours_are_fine_and_overlaps_are_not() {
        let table = [region(0, 0x1000), region(0x1000, 0x1000)];
        assert_eq!(check_table(&table, 2), Ok(()));
        assert_eq!(check_table(&table, 1), Err(ProtocolError::TooManySlots { count: 2, max: 1 }));
        let error = ProtocolError::RegionOverlap { guest_addr: 0xfff, size: 2 };
        assert_eq!(check_added(&table, &region(0xfff, 2), 8), Err(error));
        assert_eq!(check_added(&table, &region(0x2000, 2), 8), Ok(()));
    }

    #[test]
    fn empty_and_wrapping_regions_are_refused() {
        for (guest_addr, size) in [(0, 0), (u64::MAX, 1), (1, u64::MAX)] {
            let error = ProtocolError::RegionRange { guest_addr, size };
            assert_eq!(check_added(&[], &region(guest_addr, size), 8), Err(error));
        }
    }
}
