// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One page of the journal: what it says, and the stores made while its queue runs.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::Arc;

use super::file::Mapping;
use super::step;
use crate::config::{QueueConfig, RingBase, RingKind};
use crate::layout::PackedPos;
use crate::mem::MemoryMap;

/// Most used elements in one publication.
pub(crate) const BATCH: usize = 256;

/// The used elements of a publication, oldest first: second halves of descriptors, and their slots.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Elements {
    pub(crate) words: [u64; BATCH],
    pub(crate) slots: [u16; BATCH],
}

impl Elements {
    pub(crate) fn new() -> Box<Self> {
        Box::new(Self { words: [0; BATCH], slots: [0; BATCH] })
    }
}

/// Layout of a page.
#[repr(C, align(4096))]
pub(super) struct Page {
    words: Words,
    elements: Elements,
}

const _: () = assert!(size_of::<Page>() == Page::SIZE);

impl Page {
    pub(super) const SIZE: usize = 4096;
}

/// The part of a page that is read and written word by word.
#[repr(C, align(64))]
struct Words {
    /// Checksum of `identity`; anything else means that the page says nothing.
    checksum: AtomicU64,
    identity: [AtomicU64; Identity::WORDS],
    /// Keeps what changes at every publication in a line of its own.
    _rest: u64,
    /// See [`State`].
    state: AtomicU64,
    /// The last element of the last batch settled.
    last_word: AtomicU64,
    /// Its slot, or `NO_SLOT`.
    last_slot: AtomicU64,
}

const NO_SLOT: u64 = u64::MAX;

/// What must be the same for a record to be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity([u64; Self::WORDS]);

impl Identity {
    const WORDS: usize = 6;

    /// `None` if the ring is not mapped.
    pub(super) fn of(config: &QueueConfig, map: &MemoryMap) -> Option<Self> {
        let file = map.identity(config.addresses.desc)?;
        let features = &config.features;
        let bits = [
            features.kind == RingKind::Packed,
            features.in_order,
            features.indirect,
            features.event_idx,
            features.mrg_rxbuf,
            features.offloads,
        ];
        let bits = bits.iter().fold(0, |all, bit| all << 1 | u64::from(*bit));
        Some(Self([
            file.dev,
            file.ino,
            config.addresses.desc,
            config.addresses.driver,
            config.addresses.device,
            u64::from(config.size) | u64::from(features.header_len) << 16 | bits << 24,
        ]))
    }

    /// FNV-1a over the words; never 0, which marks an empty page.
    fn checksum(&self) -> u64 {
        let bytes = self.0.iter().flat_map(|word| word.to_le_bytes());
        let sum = bytes
            .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        sum | 1
    }
}

/// How far a queue got: the positions before and after the batch being published, each as in half
/// a vring base, and the number of its elements; 0 when none is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) before: u16,
    pub(super) after: u16,
    pub(super) count: u16,
}

impl State {
    const fn to_word(self) -> u64 {
        self.before as u64 | (self.after as u64) << 16 | (self.count as u64) << 32
    }

    #[expect(clippy::cast_possible_truncation, reason = "three fields of 16 bits")]
    const fn from_word(word: u64) -> Self {
        Self { before: word as u16, after: (word >> 16) as u16, count: (word >> 32) as u16 }
    }
}

/// The last element settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Evidence {
    pub(super) word: u64,
    pub(super) slot: u16,
}

/// The journal of one queue: one page of a [`JournalFile`](super::JournalFile), handed out to one
/// owner at a time.
#[derive(Debug)]
pub struct QueueJournal {
    /// Inside `file`.
    page: NonNull<Page>,
    index: u16,
    file: Arc<Mapping>,
}

// SAFETY: the page is in a shared mapping that `file` keeps; only one journal per page exists at a
// time (see `Mapping::take`), so moving it to another thread moves the only access.
unsafe impl Send for QueueJournal {}

impl QueueJournal {
    /// `page` is page `index` of `file`, taken for this journal alone.
    pub(super) fn new(file: Arc<Mapping>, page: NonNull<Page>, index: u16) -> Self {
        Self { page, index, file }
    }

    /// Makes the page say nothing: nobody resumes from it.
    pub fn clear(&self) {
        self.words().checksum.store(0, Ordering::Release);
    }

    /// Starts the record of a queue at `config.base`. What the page says already is kept when it
    /// is about the same ring at the same position.
    pub(crate) fn begin(&self, config: &QueueConfig, map: &MemoryMap) {
        let Some(identity) = Identity::of(config, map) else {
            self.clear();
            return;
        };
        let base = PackedPos { index: config.base.used, wrap: config.base.used_wrap };
        let at = base.to_bits();
        let settled = State { before: at, after: at, count: 0 };
        if self.identity() == Some(identity) && self.state() == settled {
            return;
        }
        self.clear();
        let page = self.words();
        for (word, value) in page.identity.iter().zip(identity.0) {
            word.store(value, Ordering::Relaxed);
        }
        let evidence = if config.base == RingBase::initial(RingKind::Packed) {
            None
        } else {
            super::recover::find_evidence(config, map, base)
        };
        page.last_word.store(evidence.map_or(0, |e| e.word), Ordering::Relaxed);
        page.last_slot.store(evidence.map_or(NO_SLOT, |e| u64::from(e.slot)), Ordering::Relaxed);
        page.state.store(settled.to_word(), Ordering::Relaxed);
        page.checksum.store(identity.checksum(), Ordering::Release);
    }

    /// Where the elements of the next publication gather. They are reached through this pointer
    /// only, by the one owner of the journal.
    pub(crate) const fn elements(&self) -> NonNull<Elements> {
        // SAFETY: the page is mapped as long as `file` lives, and the field lies inside it.
        unsafe { NonNull::new_unchecked(&raw mut (*self.page.as_ptr()).elements) }
    }

    /// Says that `count` elements are about to be written to the ring.
    #[inline(always)]
    pub(crate) fn commit(&self, before: u16, after: u16, count: usize) {
        step();
        let count = u16::try_from(count).unwrap_or(0);
        // After the elements, and before anything the caller stores from now on.
        self.words().state.store(State { before, after, count }.to_word(), Ordering::Release);
        fence(Ordering::Release);
    }

    /// Says that they are written; `word` in `slot` was the last of them.
    #[inline(always)]
    pub(crate) fn settle(&self, after: u16, word: u64, slot: u16) {
        step();
        fence(Ordering::Release);
        self.words().last_word.store(word, Ordering::Relaxed);
        step();
        self.words().last_slot.store(u64::from(slot), Ordering::Relaxed);
        step();
        let settled = State { before: after, after, count: 0 };
        self.words().state.store(settled.to_word(), Ordering::Release);
    }

    /// Whose record it is, if it is one.
    pub(super) fn identity(&self) -> Option<Identity> {
        let page = self.words();
        let checksum = page.checksum.load(Ordering::Acquire);
        let identity = Identity(page.identity.each_ref().map(|word| word.load(Ordering::Relaxed)));
        (checksum == identity.checksum()).then_some(identity)
    }

    pub(super) fn state(&self) -> State {
        State::from_word(self.words().state.load(Ordering::Acquire))
    }

    pub(super) fn evidence(&self) -> Option<Evidence> {
        let slot = u16::try_from(self.words().last_slot.load(Ordering::Relaxed)).ok()?;
        Some(Evidence { word: self.words().last_word.load(Ordering::Relaxed), slot })
    }

    /// Element `at` of the batch committed; `None` beyond the end of the page.
    pub(super) fn element(&self, at: usize) -> Option<(u64, u16)> {
        if at >= BATCH {
            return None;
        }
        let elements = self.elements().as_ptr();
        // SAFETY: inside the arrays of a page that is mapped and that nobody else writes.
        unsafe {
            Some((
                (&raw const (*elements).words).cast::<u64>().add(at).read(),
                (&raw const (*elements).slots).cast::<u16>().add(at).read(),
            ))
        }
    }

    /// The atomic words of the page.
    #[inline(always)]
    fn words(&self) -> &Words {
        // SAFETY: the page is mapped as long as `file`, which outlives the reference; these words
        // are atomics, and nothing but this journal writes the rest of the line.
        unsafe { &(*self.page.as_ptr()).words }
    }
}

impl Drop for QueueJournal {
    fn drop(&mut self) {
        self.file.give_back(self.index);
    }
}
