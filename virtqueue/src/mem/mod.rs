// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Guest memory: what is mapped where, and how it is touched.
//!
//! | file | job |
//! |---|---|
//! | `access.rs` | pointers into racing memory, copies, prefetch, fences |
//! | `map.rs` | the immutable table of regions, look-up of guest and front-end addresses |
//! | `dirty.rs` | the log of pages that were written, for a front end that migrates its guest |
//! | `region.rs` | one mapped region: checks, alignment, identity |
//! | `shared.rs` | memory of our own, to be given to a backend |
//! | `sigbus.rs` | survives a guest that truncates the file behind its memory |
//! | `error.rs` | what can go wrong |

mod access;
mod dirty;
mod error;
mod map;
mod region;
mod shared;
mod sigbus;

pub use access::full_fence;
pub(crate) use access::{
    HostPtr, LINE, copy_from_guest, copy_guest_to_guest, copy_to_guest, prefetch_read, prefetch_write,
};
pub(crate) use dirty::GROUP;
pub use dirty::{DirtyLog, LogError};
pub use error::{MapError, MemError};
pub use map::MemoryMap;
pub(crate) use map::RingAreas;
pub use region::{RegionId, RegionSpec};
pub use shared::SharedMemory;
pub use sigbus::install_sigbus_guard;
