// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Frames as a peer sees them: through the public interface only.

mod common;
mod damage;
mod roundtrip;
