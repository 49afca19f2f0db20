// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a successor concludes from a page of the journal and from the ring.

use super::page::{Evidence, Identity, QueueJournal, State};
use crate::config::{QueueConfig, RingBase, RingKind};
use crate::layout::{DESC_SIZE, F_AVAIL, PackedPos, PackedWord, is_avail, is_used};
use crate::mem::{HostPtr, MemoryMap};

impl QueueJournal {
    /// Where to resume the packed ring of `config` (whose base does not matter), after finishing a
    /// publication that was cut short. Safe to call any number of times.
    ///
    /// `None` if the page says nothing, if it is about another ring (address, size, features,
    /// backing file), or if the descriptors do not confirm it, for example because the driver has
    /// reset the ring. The ring then starts at the base it was given.
    #[must_use]
    pub fn recover(&self, config: &QueueConfig, map: &MemoryMap) -> Option<RingBase> {
        if config.features.kind != RingKind::Packed || config.check().is_err() {
            return None;
        }
        if self.identity()? != Identity::of(config, map)? {
            return None;
        }
        let ring = RingView::new(config, map)?;
        let state = self.state();
        if state.count > 0 {
            self.finish_batch(&ring, state)?;
        }
        let at = ring.position(self.state().after)?;
        if !ring.confirms(self.evidence(), at) {
            return None;
        }
        let PackedPos { index, wrap } = at;
        Some(RingBase { avail: index, avail_wrap: wrap, used: index, used_wrap: wrap })
    }

    /// Completes what `commit` announced. `None` if the page cannot be right.
    fn finish_batch(&self, ring: &RingView, state: State) -> Option<()> {
        let count = usize::from(state.count);
        let before = ring.position(state.before)?;
        let elements = (0..count).map(|at| self.element(at)).collect::<Option<Vec<_>>>()?;
        let ((_, first), &(last_word, last_slot)) = (*elements.first()?, elements.last()?);
        if first != before.index || elements.iter().any(|(_, slot)| *slot >= ring.size) {
            return None;
        }
        // The first slot is written last. As long as it is available, the driver has seen none of
        // the batch and every slot is as it was; otherwise it may have posted in any of them.
        if is_avail(ring.word(first).flags(), before.wrap) {
            if !ring.confirms(self.evidence(), before) {
                return None;
            }
            for (word, slot) in elements.iter().rev() {
                super::step();
                ring.write(*slot, *word);
            }
        }
        self.settle(state.after, last_word, last_slot);
        Some(())
    }
}

/// The nearest slot behind `base` that shows a used element, for a ring that starts in the middle
/// without a record: a later recovery needs something to be confirmed by.
pub(super) fn find_evidence(config: &QueueConfig, map: &MemoryMap, base: PackedPos) -> Option<Evidence> {
    let ring = RingView::new(config, map)?;
    (1..=ring.size).find_map(|back| {
        let slot = if base.index >= back { base.index - back } else { base.index + (ring.size - back) };
        let word = ring.word(slot);
        is_used(word.flags(), ring.lap(slot, base)).then_some(Evidence { word: word.0, slot })
    })
}

/// The descriptors of a ring that nobody on our side is running.
struct RingView {
    desc: HostPtr,
    size: u16,
}

impl RingView {
    /// Valid as long as the map, which callers borrow for longer.
    fn new(config: &QueueConfig, map: &MemoryMap) -> Option<Self> {
        Some(Self { desc: map.ring_areas(config).ok()?.desc, size: config.size })
    }

    fn position(&self, bits: u16) -> Option<PackedPos> {
        let at = PackedPos { index: bits & 0x7fff, wrap: bits & 0x8000 != 0 };
        (at.index < self.size).then_some(at)
    }

    /// Second half of a descriptor; slots come from checked positions and elements.
    fn word(&self, slot: u16) -> PackedWord {
        // SAFETY: `slot < size`; `ring_areas` found the descriptors mapped and aligned to 16.
        PackedWord(unsafe { self.desc.offset(usize::from(slot) * DESC_SIZE + 8).load_u64_acquire() })
    }

    fn write(&self, slot: u16, word: u64) {
        // SAFETY: as in `word`.
        unsafe { self.desc.offset(usize::from(slot) * DESC_SIZE + 8).store_u64_release(word) };
    }

    /// The wrap counter under which a slot behind `at` was used, less than a lap ago.
    const fn lap(&self, slot: u16, at: PackedPos) -> bool {
        if slot < at.index { at.wrap } else { !at.wrap }
    }

    /// Whether the descriptors agree that the device has used everything up to `at`, the element
    /// in `evidence` last.
    ///
    /// A driver that reset its ring and posted it full is found out except in one case, which looks
    /// the same to the last bit: the last chain (or in-order batch) crossed the end of the ring
    /// into a lap with the wrap counter of a fresh ring, and the driver has since posted anew up to
    /// it. Then the record is believed, because a crash is likelier than a reset during one.
    fn confirms(&self, evidence: Option<Evidence>, at: PackedPos) -> bool {
        let Some(evidence) = evidence else {
            // Nothing was ever published: only the start of a fresh ring needs no proof.
            return at == PackedPos { index: 0, wrap: true };
        };
        if evidence.slot >= self.size {
            return false;
        }
        let lap = self.lap(evidence.slot, at);
        let last = self.word(evidence.slot);
        let next = self.word(at.index).flags();
        // What the device meets next was either posted in this lap, or left over from the last
        // one, with AVAIL as of then. A ring of zeros passes for neither in its second lap.
        let posted = is_avail(next, at.wrap);
        let left_over = (next & F_AVAIL != 0) != at.wrap;
        let used = is_used(last.flags(), lap) && last.id() == PackedWord(evidence.word).id();
        // Or the driver has posted anew where we wrote last; then all before it, and so what comes
        // next, is posted, too.
        let reposted = is_avail(last.flags(), !lap);
        (used && (posted || left_over)) || (reposted && posted)
    }
}
