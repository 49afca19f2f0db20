// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Split and packed virtqueues over guest memory, device side and driver side.
//!
//! Promise: whatever another party writes into a ring, into a descriptor or into a buffer, and
//! whenever it writes it, this crate neither panics nor touches memory outside the regions it was
//! given. A malformed ring is a [`RingError`], and from then on that queue answers nothing else.
//! All `unsafe` for rings and guest memory of the workspace is here.
//!
//! | module | job |
//! |---|---|
//! | `mem` | regions of guest memory: mapping, look-up, racing access, the guard against SIGBUS |
//! | `config` | what a queue is configured with: kind, features, addresses, base |
//! | `layout` | descriptors, flags and index arithmetic as the virtio specification defines them |
//! | `error` | why a queue could not be set up, why a ring broke |
//! | `device` | the device side: harvests frames, delivers frames, forwards from guest to guest |
//! | `journal` | the record from which a packed ring is resumed after the device died |
//! | `driver` | the driver side: posts buffers, completes them; buffer pools |

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

#[cfg(not(all(target_os = "linux", target_endian = "little", target_pointer_width = "64")))]
compile_error!("virtqueue supports little-endian 64-bit Linux only");

mod config;
mod device;
mod driver;
mod error;
mod journal;
mod layout;
mod mem;

pub use config::{MAX_RING_SIZE, QueueConfig, QueueFeatures, RingAddresses, RingBase, RingKind};
pub use device::{
    Delivered, DeliveredBurst, DirtyPages, ForwardError, Forwarded, Frame, MAX_BURST, NetHeader, RxQueue, Tail,
    TxQueue, forward, recover_split_base,
};
pub use driver::{Buffer, BufferPool, Completion, DriverQueue, PoolError, PostError};
pub use error::{QueueError, RingError};
pub use journal::{JournalError, JournalFile, QueueJournal};
pub use layout::RingLayout;
pub use mem::{
    DirtyLog, LogError, MapError, MemError, MemoryMap, RegionId, RegionSpec, SharedMemory, full_fence,
    install_sigbus_guard,
};
