// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the two ring formats have in common for a device, and the choice between them, which is
//! made once per burst.

use super::chain::{Rules, Stop};
use super::dirty::DirtyPages;
use super::held::Held;
use super::packed::PackedRing;
use super::pending::Pending;
use super::split::SplitRing;
use crate::config::{QueueConfig, RingBase, RingKind};
use crate::mem::{HostPtr, RingAreas, prefetch_read};

/// A ring as a device sees it.
///
/// *Entries* are what a chain occupies in the ring: descriptors (packed) or one (split). What is
/// completed is invisible to the driver until `publish`.
pub(super) trait DeviceRing {
    /// Appends up to `want` chains to those held. There must be room for so many.
    fn harvest<const RX: bool>(&mut self, rules: &mut Rules<'_>, held: &mut Held, want: usize) -> Result<(), Stop>;
    /// Completes the oldest chain not completed, into which `len` bytes were written.
    fn complete(&mut self, pending: &mut Pending, id: u16, len: u32, entries: u16);
    /// Completes the `count` oldest chains not completed, all simple; `chain` gives the id of each
    /// and the bytes written into it. There must be room for so many.
    fn complete_simple(&mut self, pending: &mut Pending, count: usize, chain: impl Fn(usize) -> (u16, u32));
    /// Completes the `chains` oldest chains not completed with one element (IN_ORDER); used by
    /// queues that complete in no other way. Nothing was written into them.
    fn complete_batch(&mut self, pending: &mut Pending, last_id: u16, chains: u16, entries: u16);
    /// Makes what is pending visible to the driver, all at once, and notes what was written.
    fn publish(&mut self, pending: &mut Pending, dirty: Option<&mut DirtyPages>);
    /// Whether the driver wants to hear of what was published since this was asked last.
    fn should_notify(&mut self) -> bool;
    /// Tells the driver whether kicks are wanted for the entries behind those harvested.
    fn set_kicks(&mut self, enabled: bool, dirty: Option<&mut DirtyPages>);
    /// Whether there is something to harvest.
    fn has_available(&self) -> bool;
    /// Whether all the ring can hold is harvested and unpublished: waiting gives no more.
    fn is_drained(&self) -> bool;
    /// Goes back to where everything harvested and not completed can be harvested again.
    fn forget(&mut self);
    /// The same ring through another memory map.
    fn move_to(&mut self, areas: RingAreas);
    /// Where a successor resumes.
    fn base(&self) -> RingBase;
}

/// Either format.
#[derive(Debug)]
pub(super) enum Ring {
    Packed(PackedRing),
    Split(SplitRing),
}

impl Ring {
    pub(super) fn new(config: &QueueConfig, areas: RingAreas) -> Self {
        match config.features.kind {
            RingKind::Packed => Self::Packed(PackedRing::new(config, areas)),
            RingKind::Split => Self::Split(SplitRing::new(config, areas)),
        }
    }
}

/// Calls the same method on either format.
macro_rules! on {
    ($ring:expr, $name:ident => $call:expr) => {
        match $ring {
            $crate::device::ring::Ring::Packed($name) => $call,
            $crate::device::ring::Ring::Split($name) => $call,
        }
    };
}
pub(super) use on;

/// Asks for the first lines of a frame just harvested, if this is a queue we read from. The lines
/// of buffers that we write are asked for when the length to be written is known.
#[inline(always)]
pub(super) fn hint_frame<const RX: bool>(rules: &Rules<'_>, ptr: HostPtr, len: u32) {
    if RX {
        return;
    }
    let last = (len as usize).min(rules.skip + FIRST_BYTES).saturating_sub(1);
    prefetch_read(ptr.offset(rules.skip));
    prefetch_read(ptr.offset(last));
}

/// Bytes of a frame that are asked for ahead: what spans at most two lines. The rest of a longer
/// frame is sequential, which the processor finds out by itself.
pub(super) const FIRST_BYTES: usize = 64;

/// As [`hint_frame`] for the last chain held, which is not simple.
pub(super) fn hint_chain(rules: &Rules<'_>, held: &Held) {
    if !rules.writable && held.count() > 0 {
        for segment in held.segments(held.tail - 1).take(2) {
            prefetch_read(segment.ptr);
        }
    }
}
