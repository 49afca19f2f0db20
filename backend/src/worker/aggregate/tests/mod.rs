// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whole workers with uplinks in memory, and aware nodes at the other ends; the time is said.

mod claims;
mod holding;
mod mixing;
mod passing;
mod refreshing;
mod turns;
mod unfinished;
mod watching;
mod ways;
mod welcoming;
