// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a frame's headers say and where they lie.

mod layout;

pub use layout::{Layout, OuterLayout};
