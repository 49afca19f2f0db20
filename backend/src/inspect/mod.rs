// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What passes a port's queues, and what is dropped, for who wants to see it (`docs/adr/0013-looking-inside-a-queue.md`).
//!
//! | file | job |
//! |---|---|
//! | `capture.rs`, `pcapng.rs` | captures, in the control plane; the format in which they are written |
//! | `tap.rs` | captures, in the worker |
//! | `record.rs` | captured packets on their way out of it |
//! | `drops.rs` | drops, one by one |

mod capture;
mod drops;
mod pcapng;
mod record;
mod tap;

pub use capture::{Capture, CaptureRequest, DEFAULT_SNAPLEN, MAX_CAPTURES, MAX_SNAPLEN, Taken};
pub(crate) use capture::{Ends, share};
pub(crate) use drops::{DropHub, Seen};
pub use drops::{DropTrace, Dropped, FIRST_BYTES, MAX_RATE, MAX_TRACES};
pub(crate) use tap::{CaptureId, Sink, Sinks, Tap, copy};
