// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Death at every store.

use std::cell::Cell;

thread_local! {
    static LEFT: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Unwinds when the number of steps allowed on this thread is used up.
pub(crate) fn step() {
    LEFT.with(|left| match left.get() {
        Some(0) => std::panic::resume_unwind(Box::new(Killed)),
        Some(n) => left.set(Some(n - 1)),
        None => {}
    });
}

/// What a killed run unwinds with.
struct Killed;
