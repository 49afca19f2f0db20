// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The vhost-user protocol.
#![forbid(unsafe_code)]
mod backend;
pub mod features;
mod wire;
pub use self::backend::*;
pub use self::wire::*;
