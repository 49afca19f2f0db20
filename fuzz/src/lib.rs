// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Fuzz targets: what a hostile guest or front end can write, read by the code that must survive it.
//!
//! A target is a function of bytes that panics if a promise is broken. `tests/brief.rs` runs each
//! on pseudo-random bytes and on every file of `corpus/` under plain `cargo test`; with a nightly
//! toolchain and cargo-fuzz, `cargo fuzz run --features libfuzzer NAME` runs it for longer. A file
//! that once made a target fail is kept in its corpus.
//!
//! | target | what the bytes are |
//! |---|---|
//! | [`ring_contents()`] | scribbles over all areas of a ring, while a device and a driver work on it |
//! | [`chains()`] | descriptors of one burst of chains and of an indirect table, in a well-formed ring |
//! | [`aggregate()`] | an aggregate frame, read, written again and spliced |
//! | [`aggregate_control`] | control frames from several senders to one station |
//! | [`filter()`] | the text of a filter, and a frame |
//! | [`packets()`] | a frame, parsed and transposed |
//! | [`vhost_user_decode`] | a byte stream of vhost-user messages |
//! | [`vhost_user_session`] | a sequence of vhost-user requests to a node |

mod aggregate;
mod chains;
mod filter;
mod guest;
mod input;
mod packets;
mod ring_contents;

pub use aggregate::{aggregate, aggregate_control};
pub use chains::chains;
pub use filter::filter;
pub use packets::packets;
pub use ring_contents::ring_contents;
pub use vhost_user::fuzzing::{decode as vhost_user_decode, session as vhost_user_session};
