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
//! | [`reader`] | [`Reader`]: a frame taken apart, packet by packet or group by group, resumable |
//! | [`writer`] | [`Writer`]: a frame put together from packets, runs of them and whole groups |
//! | [`splice`] | [`Splice`]: a frame put together from whole groups that stay where they are |
//! | [`flush`] | [`Queue`]: when a frame is sent; never later than at once, by default |
//! | [`negotiation`] | [`Link`]: who may be sent aggregates, and what they may be like |
//! | [`header`] | [`Header`] and [`GroupHeader`]: the two levels of headers |
//! | [`meta`] | [`Meta`]: what travels with a packet (unfinished checksum, segmentation, flow id) |
//! | [`tlv`] | the types of TLVs, [`TlvSet`] |
//! | [`encapsulation`] | what stands before a frame on a link |
//! | [`sequence`] | [`Sequence`]: loss, seen by the numbers of frames |
//! | [`cause`] | [`Cause`]: all that can be wrong with a frame; also the metric labels |
//! | [`wire`] | the numbers of the format |
//!
//! ```
//! use aggregation::{Format, GroupKey, Item, Limits, Meta, Reader, Writer};
//!
//! let mut writer = Writer::new(1500, 0);
//! let format = Format { max_bytes: 1500, max_packets: 256, stage: 1, check: false, group_crc: false, template: false };
//! writer.begin(&format);
//! let to_peer = GroupKey { origin: 7, destination: 0, class: 0 };
//! for packet in [[1_u8; 60], [2; 60]] {
//!     assert!(writer.push(to_peer, &packet, 0, |_| (), &Meta::NONE));
//! }
//! let frame = writer.finish(0);
//! assert_eq!(frame.len(), 8 + 12 + 2 * (4 + 60));
//!
//! let mut reader = Reader::default();
//! reader.begin(frame, 0, &Limits::NONE)?;
//! let mut packets = 0;
//! while let Some(item) = reader.next(frame) {
//!     if let Item::Packet(packet) = item {
//!         assert_eq!(packet.head.len(), 60);
//!         packets += 1;
//!     }
//! }
//! assert_eq!(packets, 2);
//! # Ok::<(), aggregation::Cause>(())
//! ```

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
pub mod encapsulation;
pub mod flush;
pub mod header;
pub mod meta;
mod needs;
pub mod negotiation;
pub mod reader;
pub mod sequence;
pub mod source;
pub mod splice;
pub mod tlv;
pub mod wire;
pub mod writer;

pub use cause::Cause;
pub use flush::{Knobs, Queue, Trigger};
pub use header::{GroupHeader, Header};
pub use meta::{Checksum, Gso, GsoKind, Meta};
pub use negotiation::{Features, Grant, Link, Offer};
pub use reader::{Damage, Group, Item, Limits, Packet, Reader, Run};
pub use sequence::Sequence;
pub use source::{Scattered, Source};
pub use splice::{Piece, Splice};
pub use tlv::TlvSet;
pub use writer::{Format, GroupKey, Writer};
