// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Frames as a peer sees them: through the public interface only.

mod answer;
mod common;
mod damage;
mod roundtrip;
mod second_decoder;
mod vectors;
