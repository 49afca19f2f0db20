// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The ring record: how a packed ring survives the death of the device (decision 4e).
//!
//! Theory of operation. A packed ring does not say how far the device got, so the device keeps that
//! in a file on tmpfs, one page per queue, written ahead of every publication:
//!
//! 1. the used elements of the batch gather in the page (`Elements`), where nobody looks;
//! 2. `commit`: one store says "from position A to position B, with so many elements";
//! 3. the elements are written to the ring, the first one last;
//! 4. `settle`: the last element is noted as evidence, and one store says "at position B".
//!
//! Every store is a single word, and what a killed process has stored stays stored, in program
//! order. So whoever comes next finds either nothing committed, and the position holds; or a
//! committed batch whose first slot still says "available", which nobody but us can have changed
//! behind it, and writes it again from the last element to the first; or one whose first slot says
//! something else, so that the driver has seen it all and may have posted anew: nothing to write.
//!
//! A page is believed only if its checksum holds, the ring has the same address, size, features and
//! backing file, and the descriptor in the slot written last confirms it. A driver that has reset
//! its ring in between is found out that way.
//!
//! | file | job |
//! |---|---|
//! | `file.rs` | the file: created, locked, mapped; hands out one page per queue |
//! | `page.rs` | layout of a page, and the words written while the queue runs |
//! | `recover.rs` | what a successor concludes |

mod file;
mod page;
mod recover;

#[cfg(test)]
mod tests;

pub use file::{JournalError, JournalFile};
pub use page::QueueJournal;
pub(crate) use page::{BATCH, Elements};

/// A place where a process can die: the tests count them and die at each.
#[cfg(not(test))]
#[inline(always)]
pub(crate) const fn step() {}

#[cfg(test)]
pub(crate) use tests::step;
