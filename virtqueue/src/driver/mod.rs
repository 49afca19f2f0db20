// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The driver side of a ring: posts buffers, learns which were used.
//!
//! | file | job |
//! |---|---|
//! | `mod.rs` | one API for both formats |
//! | `split.rs`, `packed.rs` | the two formats |
//! | `slots.rs` | what the driver remembers of a posted buffer; free ids |
//! | `indirect.rs` | writes tables of indirect descriptors |
//! | `pool.rs` | buffers to post |

mod indirect;
mod packed;
mod pool;
mod slots;
mod split;

use std::sync::Arc;

use crate::config::{QueueConfig, RingKind};
use crate::error::{QueueError, RingError};
use crate::layout::{F_INDIRECT, F_WRITE, RingLayout};
use crate::mem::MemoryMap;

use packed::PackedDriver;
pub use pool::{BufferPool, PoolError};
use slots::Slot;
use split::SplitDriver;

/// A piece of guest memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Buffer {
    /// Guest address.
    pub addr: u64,
    /// Bytes.
    pub len: u32,
}

/// A posted chain that the device has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Completion {
    /// What was given when it was posted.
    pub token: u32,
    /// Bytes the device wrote, never more than the chain's writable bytes. A device that uses
    /// buffers in order may report a whole batch at once: those before the last one count as
    /// filled completely.
    pub len: u32,
}

/// Why a chain was not posted. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PostError {
    /// A chain without buffers.
    #[error("a chain needs at least one buffer")]
    Empty,
    /// Not enough descriptors are free.
    #[error("{needed} descriptors needed, {free} are free")]
    Full {
        /// Descriptors the chain takes.
        needed: usize,
        /// Descriptors there are.
        free: u16,
    },
    /// VIRTIO_F_INDIRECT_DESC was not negotiated.
    #[error("indirect descriptors were not negotiated")]
    NotIndirect,
    /// The lengths add up to more than 32 bits, or there are more buffers than ring entries.
    #[error("the chain is too long")]
    TooLong,
    /// The indirect table is not 16-byte aligned or not inside one region.
    #[error("no indirect table of {entries} entries fits at {addr:#x}")]
    Table {
        /// Guest address of the table.
        addr: u64,
        /// Entries it would need.
        entries: usize,
    },
}

/// The driver side of one ring, split or packed.
///
/// `post*` writes descriptors that the device cannot see; [`publish`](Self::publish) shows all of
/// them at once. After that, [`full_fence`](crate::full_fence) and then
/// [`should_kick`](Self::should_kick) tell whether the device wants to be notified.
///
/// ```
/// use virtqueue::{Buffer, Completion, DriverQueue, QueueConfig, QueueFeatures, RingAddresses};
/// use virtqueue::{RingBase, RingKind, SharedMemory};
///
/// let memory = SharedMemory::create("example", 1 << 16, false)?;
/// let start = memory.spec().guest_addr;
/// let layout = DriverQueue::ring_bytes(RingKind::Packed, 256);
/// let config = QueueConfig {
///     size: 256,
///     features: QueueFeatures::from_bits(1 << 32 | 1 << 34),
///     addresses: RingAddresses {
///         desc: start + layout.desc,
///         driver: start + layout.driver,
///         device: start + layout.device,
///     },
///     base: RingBase::initial(RingKind::Packed),
/// };
/// let mut queue = DriverQueue::new(config, memory.map())?;
/// let buffers = [Buffer { addr: start + 0x8000, len: 64 }];
/// assert_eq!(queue.post_burst(&buffers, &[7], false), 1);
/// queue.publish();
/// virtqueue::full_fence();
/// assert!(queue.should_kick());
/// assert_eq!(queue.complete(&mut [Completion::default(); 8])?, 0, "nobody has used it yet");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct DriverQueue {
    config: QueueConfig,
    // Keeps mapped what the ring points to.
    mem: Arc<MemoryMap>,
    ring: Ring,
    broken: Option<RingError>,
}

#[derive(Debug)]
enum Ring {
    Split(SplitDriver),
    Packed(PackedDriver),
}

/// Calls the same method of whichever format the ring has.
macro_rules! on_ring {
    ($ring:expr, $inner:ident => $call:expr) => {
        match $ring {
            Ring::Split($inner) => $call,
            Ring::Packed($inner) => $call,
        }
    };
}

impl DriverQueue {
    /// Takes over a ring: clears its areas and starts at the base.
    ///
    /// # Errors
    /// A bad size or base; areas that are not mapped, each within one region, or not aligned.
    pub fn new(config: QueueConfig, mem: Arc<MemoryMap>) -> Result<Self, QueueError> {
        config.check()?;
        let areas = mem.ring_areas(&config)?;
        let ring = match config.features.kind {
            RingKind::Split => Ring::Split(SplitDriver::new(&config, areas)),
            RingKind::Packed => Ring::Packed(PackedDriver::new(&config, areas)),
        };
        Ok(Self { config, mem, ring, broken: None })
    }

    /// How the areas of a ring fit into one block of memory.
    #[must_use]
    pub const fn ring_bytes(kind: RingKind, size: u16) -> RingLayout {
        RingLayout::new(kind, size)
    }

    /// Its configuration.
    #[must_use]
    pub const fn config(&self) -> &QueueConfig {
        &self.config
    }

    /// Free descriptors.
    #[must_use]
    pub fn free(&self) -> u16 {
        on_ring!(&self.ring, ring => ring.free())
    }

    /// Posts one chain of direct descriptors: buffers the device reads, then buffers it writes.
    ///
    /// # Errors
    /// See [`PostError`].
    pub fn post(&mut self, readable: &[Buffer], writable: &[Buffer], token: u32) -> Result<(), PostError> {
        let slot = slot_for(readable, writable, token, self.config.size)?;
        let needed = usize::from(slot.count);
        self.room_for(needed)?;
        let chain = readable.iter().map(|b| (b, 0)).chain(writable.iter().map(|b| (b, F_WRITE)));
        on_ring!(&mut self.ring, ring => ring.post(chain, slot));
        Ok(())
    }

    /// Posts one chain as a single descriptor that points at a table, which is written at
    /// `table_addr` (16-byte aligned, 16 bytes per buffer) and must stay untouched until the chain
    /// completes.
    ///
    /// # Errors
    /// See [`PostError`].
    pub fn post_indirect(
        &mut self,
        table_addr: u64,
        readable: &[Buffer],
        writable: &[Buffer],
        token: u32,
    ) -> Result<(), PostError> {
        if !self.config.features.indirect {
            return Err(PostError::NotIndirect);
        }
        let slot = slot_for(readable, writable, token, self.config.size)?;
        self.room_for(1)?;
        let kind = self.config.features.kind;
        let table = indirect::write(&self.mem, kind, table_addr, readable, writable)?;
        let slot = Slot { count: 1, ..slot };
        on_ring!(&mut self.ring, ring => ring.post(std::iter::once((&table, F_INDIRECT)), slot));
        Ok(())
    }

    /// Posts buffers as chains of one descriptor each, as many as fit, and says how many.
    ///
    /// The fast path: `buffers` and `tokens` go in pairs; the device writes them or reads them.
    #[inline]
    pub fn post_burst(&mut self, buffers: &[Buffer], tokens: &[u32], writable: bool) -> usize {
        let flags = if writable { F_WRITE } else { 0 };
        on_ring!(&mut self.ring, ring => ring.post_burst(buffers, tokens, flags))
    }

    /// Shows the device everything posted since the last time.
    #[inline]
    pub fn publish(&mut self) {
        on_ring!(&mut self.ring, ring => ring.publish());
    }

    /// Whether the device wants a kick for what was published since the last time this was asked.
    /// The caller executed [`full_fence`](crate::full_fence) after [`publish`](Self::publish).
    #[inline]
    pub fn should_kick(&mut self) -> bool {
        on_ring!(&mut self.ring, ring => ring.should_kick())
    }

    /// Takes back what the device has used, as far as `out` reaches, and says how much.
    ///
    /// # Errors
    /// The device is malformed; the queue answers nothing else from then on, and must be set up
    /// anew. What completed before the error in the same call is not reported.
    #[inline]
    pub fn complete(&mut self, out: &mut [Completion]) -> Result<usize, RingError> {
        if let Some(error) = self.broken {
            return Err(error);
        }
        let result = on_ring!(&mut self.ring, ring => ring.complete(out));
        if let Err(error) = result {
            self.broken = Some(error);
        }
        result
    }

    /// Whether [`complete`](Self::complete) would find something, be it an error.
    #[must_use]
    pub fn has_completions(&self) -> bool {
        self.broken.is_some() || on_ring!(&self.ring, ring => ring.has_completions())
    }

    /// Asks the device to call us when it uses a buffer, or not to.
    ///
    /// Returns whether something is used already (this executes the fence that makes the answer
    /// certain): a caller that is told `true` must not go to sleep, for no call may come.
    pub fn set_calls(&mut self, enabled: bool) -> bool {
        on_ring!(&mut self.ring, ring => ring.set_calls(enabled));
        if enabled {
            crate::full_fence();
        }
        self.has_completions()
    }

    fn room_for(&self, needed: usize) -> Result<(), PostError> {
        let free = self.free();
        if needed > usize::from(free) { Err(PostError::Full { needed, free }) } else { Ok(()) }
    }
}

/// What to remember of a chain; checks its length.
fn slot_for(readable: &[Buffer], writable: &[Buffer], token: u32, size: u16) -> Result<Slot, PostError> {
    let count = readable.len() + writable.len();
    if count == 0 {
        return Err(PostError::Empty);
    }
    let count = u16::try_from(count).ok().filter(|&n| n <= size).ok_or(PostError::TooLong)?;
    let sum = |buffers: &[Buffer]| buffers.iter().map(|b| u64::from(b.len)).sum::<u64>();
    let total = sum(readable).saturating_add(sum(writable));
    if total > u64::from(u32::MAX) {
        return Err(PostError::TooLong);
    }
    let writable = u32::try_from(sum(writable)).map_err(|_| PostError::TooLong)?;
    Ok(Slot { token, writable, count, next: 0 })
}
