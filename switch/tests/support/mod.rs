// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the tests of the engine share, and its examples: frames, policy in few words, an engine with one port, and the
//! whole of its state.
#![allow(dead_code, unused_imports, reason = "each test binary uses a part of it")]

mod bench;
mod crowd;
mod frames;
mod policy;
mod state;

pub(crate) use bench::{Bench, PASS, PORT, SECOND};
pub(crate) use crowd::{Crowd, Flood, GUEST, SERVICE, assert_passed};
pub(crate) use frames::{ACK, End, FIN, Packet, RST, SYN, What};
pub(crate) use policy::{allow, block, group, idle, layer, name, pool, rule, snapshot, stateful};
pub(crate) use state::Whole;
