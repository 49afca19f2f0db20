// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Why a queue could not be set up, and why a ring broke.

use crate::config::RingKind;

/// Why a queue could not be set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// The start position lies outside the ring.
    #[error("ring base {index} lies outside a ring of {size} entries")]
    BaseOutsideRing {
        /// Position asked for.
        index: u16,
        /// Entries of the ring.
        size: u16,
    },
    /// The virtio-net header has a length nobody defined.
    #[error("a virtio-net header of {header} bytes does not exist")]
    HeaderLength {
        /// Length asked for.
        header: u8,
    },
    /// Frames are held across a change of memory.
    #[error("{held} frames are held")]
    Held {
        /// How many.
        held: usize,
    },
    /// A queue of one format was expected to be of another.
    #[error("a {kind:?} ring does not fit here")]
    Kind {
        /// Format found.
        kind: RingKind,
    },
    /// An area of the ring is not aligned as the specification demands.
    #[error("ring area at {addr:#x} is not aligned to {align} bytes")]
    Misaligned {
        /// Guest address.
        addr: u64,
        /// Alignment due.
        align: u64,
    },
    /// The size is 0, above 32768, or not a power of two in a split ring.
    #[error("ring size {size} is not supported")]
    Size {
        /// Entries asked for.
        size: u16,
    },
    /// An area of the ring is not inside one region of the memory map.
    #[error("ring area at {addr:#x} of {len} bytes is not inside one memory region")]
    Unmapped {
        /// Guest address.
        addr: u64,
        /// Length in bytes.
        len: u64,
    },
}

/// Why a ring broke. The first malformed thing ends the queue; every later call gives it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum RingError {
    /// An indirect table has no entries, or a length that is no multiple of 16.
    #[error("indirect table at {addr:#x} has a length of {len} bytes")]
    BadIndirect {
        /// Guest address of the table.
        addr: u64,
        /// Its length in bytes.
        len: u32,
    },
    /// A chain has more descriptors than the ring has entries.
    #[error("chain {head} has more than {limit} descriptors")]
    ChainTooLong {
        /// Head index or buffer id.
        head: u16,
        /// Most descriptors allowed.
        limit: u16,
    },
    /// The device used more buffers than were posted.
    #[error("device used {used} buffers, {outstanding} were outstanding")]
    DeviceRaced {
        /// Buffers it claims to have used.
        used: u16,
        /// Buffers it had.
        outstanding: u16,
    },
    /// The driver made more entries available than the ring has.
    #[error("driver made {available} entries available in a ring of {size}")]
    DriverRaced {
        /// Entries it claims to have made available.
        available: u16,
        /// Entries of the ring.
        size: u16,
    },
    /// An index points outside its table.
    #[error("index {index} in a table of {size}")]
    IndexBeyondSize {
        /// The index.
        index: u16,
        /// Entries of the table.
        size: u16,
    },
    /// The lengths of a chain add up to more than 32 bits, or a buffer runs past the end of the
    /// address space.
    #[error("length {len} at {addr:#x} overflows")]
    LengthOverflow {
        /// Guest address of the descriptor that overflowed.
        addr: u64,
        /// Its length.
        len: u32,
    },
    /// The file behind the log of dirty pages was truncated under us; what is written is logged no more.
    #[error("the file behind the log of dirty pages was truncated")]
    LogPoisoned,
    /// A chain comes back to itself.
    #[error("chain {head} loops")]
    Loop {
        /// Head of the chain.
        head: u16,
    },
    /// An indirect table holds an indirect descriptor, or an indirect descriptor has NEXT set.
    #[error("indirect inside indirect in chain {head}")]
    NestedIndirect {
        /// Head of the chain.
        head: u16,
    },
    /// A chain is too short for the virtio-net header.
    #[error("chain of {len} bytes has no room for a header of {header}")]
    NoHeader {
        /// Bytes in the chain.
        len: u32,
        /// Bytes due.
        header: u8,
    },
    /// The device used a buffer that is not outstanding.
    #[error("device used buffer {id}, which is not outstanding")]
    NotOutstanding {
        /// Buffer id.
        id: u16,
    },
    /// The file behind a region was truncated under us; its contents are gone.
    #[error("the file behind guest memory at {addr:#x} was truncated")]
    Poisoned {
        /// Guest address of the region.
        addr: u64,
    },
    /// A buffer, ring or table address is not mapped.
    #[error("{addr:#x} of {len} bytes is not mapped")]
    Unmapped {
        /// Guest address.
        addr: u64,
        /// Length in bytes.
        len: u32,
    },
    /// The device used a buffer id the ring cannot have.
    #[error("device used buffer id {id} in a ring of {size}")]
    UnknownId {
        /// The id.
        id: u32,
        /// Entries of the ring.
        size: u16,
    },
    /// The device claims to have written more than the buffer holds.
    #[error("device wrote {len} bytes into buffer {id} of {limit}")]
    UsedTooLong {
        /// Buffer id.
        id: u16,
        /// Bytes it claims.
        len: u32,
        /// Bytes there are.
        limit: u32,
    },
    /// A device-writable descriptor where a device-readable one is due, or the reverse.
    #[error("descriptor {index} of chain {head} has the wrong direction")]
    WrongDirection {
        /// Head of the chain.
        head: u16,
        /// Place in the chain.
        index: u16,
    },
}

impl RingError {
    /// Every label [`RingError::cause`] can give, sorted: the label set of the error counters.
    pub const CAUSES: &[&str] = &[
        "bad_indirect",
        "chain_too_long",
        "device_raced",
        "driver_raced",
        "index_beyond_size",
        "length_overflow",
        "log_poisoned",
        "loop",
        "nested_indirect",
        "no_header",
        "not_outstanding",
        "poisoned",
        "unknown_id",
        "unmapped",
        "used_too_long",
        "wrong_direction",
    ];

    /// The name of this cause as a metric label, in snake case.
    #[must_use]
    pub const fn cause(&self) -> &'static str {
        match self {
            Self::BadIndirect { .. } => "bad_indirect",
            Self::ChainTooLong { .. } => "chain_too_long",
            Self::DeviceRaced { .. } => "device_raced",
            Self::DriverRaced { .. } => "driver_raced",
            Self::IndexBeyondSize { .. } => "index_beyond_size",
            Self::LengthOverflow { .. } => "length_overflow",
            Self::LogPoisoned => "log_poisoned",
            Self::Loop { .. } => "loop",
            Self::NestedIndirect { .. } => "nested_indirect",
            Self::NoHeader { .. } => "no_header",
            Self::NotOutstanding { .. } => "not_outstanding",
            Self::Poisoned { .. } => "poisoned",
            Self::Unmapped { .. } => "unmapped",
            Self::UnknownId { .. } => "unknown_id",
            Self::UsedTooLong { .. } => "used_too_long",
            Self::WrongDirection { .. } => "wrong_direction",
        }
    }
}
