// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `libshunt_cnf`: the SDK for programs written in C, or in anything that can call C.
//!
//! Promise: a NULL pointer, a structure of an unknown size and a value out of range are errors with a name, and never more
//! than that; no panic crosses into C. What this side cannot check, C has to keep: pointers that are not NULL point to what
//! their types say, and a queue is used by one thread at a time. `cnf/include/shunt_cnf.h`, which says the rest, is made of
//! this crate by `cargo xtask header`.
//!
//! Theory of operation. Structures begin with their size and version. A caller that was built with an older header
//! passes shorter ones, of which that much is read or written; reserved words are zero. Arrays of packets come with the
//! size of one. Packets that were received stay in the queue's own burst until the next call to receive; a burst that has
//! more packets than the caller took is handed out by the next calls.
//!
//! | module | job |
//! |---|---|
//! | `config` | the configuration: from C to [`cnf::LinkConfig`] |
//! | `link` | open, tend, close; events |
//! | `queue` | receive, send, flush, wait, counters |
//! | `packet` | one packet, both ways |
//! | `error` | error codes, their names, and what happened last |
//! | `pointer` | the only ways in which this crate follows a pointer from C |

mod config;
mod error;
mod link;
mod packet;
mod pointer;
mod queue;

pub use config::*;
pub use error::*;
pub use link::*;
pub use packet::*;
pub use queue::*;

/// Version of the structures and functions. It moves on when something is added; a library knows all before its own.
pub const SHUNT_CNF_VERSION: u32 = 1;

/// The version of the library that the program runs with, which may be later than that of the header.
#[unsafe(no_mangle)]
pub extern "C" fn shunt_cnf_version() -> u32 {
    SHUNT_CNF_VERSION
}
