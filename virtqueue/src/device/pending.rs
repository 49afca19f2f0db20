// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Used elements that are decided and not yet visible to the driver.
//!
//! They gather here, in private memory, until a publication writes them to the ring in one go.
//! When the queue has a journal, "here" is the queue's page of the journal: what the ring is about
//! to be told is then already written down, and committing to it costs one store.

use core::ptr::NonNull;

use crate::journal::{BATCH, Elements, QueueJournal, step};

/// The elements of the next publication, oldest first: at most [`BATCH`].
#[derive(Debug)]
pub(super) struct Pending {
    /// In the journal when there is one, else from `Box::into_raw`; valid as long as `self`.
    elements: NonNull<Elements>,
    len: usize,
    journal: Option<QueueJournal>,
}

// SAFETY: `elements` is reached through this owner only: a private box, or a page of a journal
// that belongs to this one queue.
unsafe impl Send for Pending {}

impl Pending {
    pub(super) fn new(journal: Option<QueueJournal>) -> Self {
        let elements = match &journal {
            Some(journal) => journal.elements(),
            None => NonNull::from(Box::leak(Elements::new())),
        };
        Self { elements, len: 0, journal }
    }

    pub(super) const fn journal(&self) -> Option<&QueueJournal> {
        self.journal.as_ref()
    }

    #[inline(always)]
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// How many more fit.
    #[inline(always)]
    pub(super) const fn room(&self) -> usize {
        BATCH - self.len
    }

    /// Appends an element: the word, and the slot of the ring it goes to. There must be room.
    #[inline(always)]
    pub(super) fn push(&mut self, word: u64, slot: u16) {
        debug_assert!(self.len < BATCH);
        self.set(self.len, word, slot);
        self.len += 1;
    }

    /// Appends many, see [`Writer`]; [`Pending::written`] ends it.
    #[inline(always)]
    pub(super) fn writer(&mut self) -> Writer {
        let elements = self.elements.as_ptr();
        // SAFETY: `elements` is valid; nothing is read or written yet.
        let (words, slots) = unsafe { (&raw mut (*elements).words, &raw mut (*elements).slots) };
        Writer { words: words.cast(), slots: slots.cast(), len: self.len }
    }

    /// Takes over what a writer appended.
    #[inline(always)]
    pub(super) const fn written(&mut self, len: usize) {
        self.len = len;
    }

    /// Makes this the only element.
    #[inline(always)]
    pub(super) fn replace(&mut self, word: u64, slot: u16) {
        self.set(0, word, slot);
        self.len = 1;
    }

    #[inline(always)]
    fn set(&mut self, at: usize, word: u64, slot: u16) {
        step();
        let at = at & (BATCH - 1);
        // SAFETY: `elements` is valid and reached by nobody else (see the field); `at` is masked to
        // the length of the arrays.
        unsafe {
            let elements = self.elements.as_ptr();
            (&raw mut (*elements).words).cast::<u64>().add(at).write(word);
            (&raw mut (*elements).slots).cast::<u16>().add(at).write(slot);
        }
    }

    /// Element `at < len`.
    #[inline(always)]
    pub(super) const fn get(&self, at: usize) -> (u64, u16) {
        let at = at & (BATCH - 1);
        // SAFETY: as in `set`; everything below `len` was written, and the arrays began as zeros.
        unsafe {
            let elements = self.elements.as_ptr();
            (
                (&raw const (*elements).words).cast::<u64>().add(at).read(),
                (&raw const (*elements).slots).cast::<u16>().add(at).read(),
            )
        }
    }

    /// Forgets all but the first `len` elements.
    #[inline(always)]
    pub(super) const fn truncate(&mut self, len: usize) {
        self.len = len;
    }
}

/// Appends elements with everything it needs in registers.
pub(super) struct Writer {
    words: *mut u64,
    slots: *mut u16,
    len: usize,
}

impl Writer {
    /// As [`Pending::push`].
    #[inline(always)]
    pub(super) fn push(&mut self, word: u64, slot: u16) {
        step();
        debug_assert!(self.len < BATCH);
        let at = self.len & (BATCH - 1);
        // SAFETY: as in `Pending::set`: the arrays are those of the pending elements, which the
        // caller holds for as long as this.
        unsafe {
            self.words.add(at).write(word);
            self.slots.add(at).write(slot);
        }
        self.len += 1;
    }

    /// How many elements there are now.
    #[inline(always)]
    pub(super) const fn written(self) -> usize {
        self.len
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.journal.is_none() {
            // SAFETY: without a journal `elements` came from a leaked box in `new`, and this is the
            // only place that takes it back.
            drop(unsafe { Box::from_raw(self.elements.as_ptr()) });
        }
    }
}
