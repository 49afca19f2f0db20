// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The aggregate frame: many packets in one.
//!
//! This crate is pure: no I/O, no clock, no threads, no `unsafe`, and nothing is allocated for a packet. Whatever
//! bytes it is given, it answers with packets or with a [`Cause`], and never panics. The bytes are specified in
//! `docs/aggregate-frame.md`; multi-byte fields are in network order.
//!
//! | module | what it holds |
//! |---|---|
//! | [`source`] | [`Source`]: where a frame lies, scattered, perhaps in memory that others write |
//! | [`header`] | [`Header`] and [`GroupHeader`]: the two levels of headers |
//! | [`meta`] | [`Meta`]: what travels with a packet (unfinished checksum, segmentation, flow id) |
//! | [`tlv`] | the types of TLVs, [`TlvSet`] |
//! | [`reader`] | [`Reader`]: a frame taken apart, packet by packet or group by group, resumable |
//! | [`writer`] | [`Writer`]: a frame put together from packets, runs of them and whole groups |
//! | [`cause`] | [`Cause`]: all that can be wrong with a frame; also the metric labels |

#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

pub mod cause;
mod crc;
pub mod flush;
pub mod header;
pub mod meta;
pub mod reader;
pub mod source;
pub mod splice;
pub mod tlv;
pub mod wire;
pub mod writer;

pub use cause::Cause;
pub use flush::{Knobs, Queue, Trigger};
pub use header::{GroupHeader, Header};
pub use meta::{Checksum, Gso, GsoKind, Meta};
pub use reader::{Damage, Group, Item, Limits, Packet, Reader, Run};
pub use source::{Scattered, Source};
pub use splice::{Piece, Splice};
pub use tlv::TlvSet;
pub use writer::{Format, GroupKey, Writer};
