// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device of the model.

use virtqueue::{QueueConfig, RingKind};

use super::{Desc, Guest, INDIRECT, NEXT, Notify, Piece, WRITE, place, set_wish, start, wants};

/// A chain the driver made available.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    /// Buffer id, or head of the chain.
    pub(crate) id: u16,
    /// Descriptors it takes in the ring.
    pub(crate) descs: u64,
    pub(crate) pieces: Vec<Piece>,
}

#[derive(Debug)]
pub(crate) struct ModelDevice {
    pub(crate) guest: Guest,
    pub(crate) config: QueueConfig,
    /// Available and used position: descriptors (packed) or chains (split).
    pub(crate) taken: u64,
    pub(crate) used: u64,
}

impl ModelDevice {
    pub(crate) fn new(guest: Guest, config: QueueConfig) -> Self {
        let at = start(&config);
        Self { guest, config, taken: at, used: at }
    }

    /// Takes the next available chain.
    pub(crate) fn next(&mut self) -> Option<Chain> {
        match self.config.features.kind {
            RingKind::Packed => self.next_packed(),
            RingKind::Split => self.next_split(),
        }
    }

    /// Uses chains. Several at once only in order: one used element for all of them.
    pub(crate) fn use_chains(&mut self, chains: &[Chain], written: u32) {
        let last = chains.last().unwrap();
        let size = self.config.size;
        let addresses = &self.config.addresses;
        match self.config.features.kind {
            RingKind::Packed => {
                let (index, wrap) = place(self.used, size);
                let mut flags = if wrap { 1 << 7 | 1 << 15 } else { 0 };
                if written > 0 {
                    flags |= WRITE;
                }
                let at = addresses.desc + 16 * u64::from(index);
                self.guest.set_u32(at + 8, written);
                self.guest.set_u16(at + 12, last.id);
                self.guest.set_u16(at + 14, flags);
                self.used += chains.iter().map(|chain| chain.descs).sum::<u64>();
            }
            RingKind::Split => {
                let at = addresses.device + 4 + 8 * (self.used % u64::from(size));
                self.guest.set_u32(at, u32::from(last.id));
                self.guest.set_u32(at + 4, written);
                self.used += chains.len() as u64;
                self.guest.set_u16(addresses.device + 2, (self.used & 0xffff) as u16);
            }
        }
    }

    /// Tells the driver when to kick.
    pub(crate) fn set_kicks(&mut self, kicks: Notify) {
        let events = self.config.addresses.device + 4 + 8 * u64::from(self.config.size);
        set_wish(&self.guest, &self.config, kicks, self.taken, self.config.addresses.device, events);
    }

    /// Whether the driver must kick after publishing positions `old..new`.
    pub(crate) fn must_kick(&self, old: u64, new: u64) -> bool {
        let events = self.config.addresses.device + 4 + 8 * u64::from(self.config.size);
        wants(&self.guest, &self.config, old..new, self.config.addresses.device, events)
    }

    /// Whether the driver wants a call after positions `old..new` were used.
    pub(crate) fn must_call(&self, old: u64, new: u64) -> bool {
        let events = self.config.addresses.driver + 4 + 2 * u64::from(self.config.size);
        wants(&self.guest, &self.config, old..new, self.config.addresses.driver, events)
    }

    fn next_packed(&mut self) -> Option<Chain> {
        let (_, wrap) = place(self.taken, self.config.size);
        let first = self.packed_desc(self.taken);
        let (avail, used) = (first.flags & 1 << 7 != 0, first.flags & 1 << 15 != 0);
        if avail != wrap || used == wrap {
            return None;
        }
        let mut pieces = Vec::new();
        for descs in 1.. {
            let desc = self.packed_desc(self.taken + descs - 1);
            self.add_pieces(desc, &mut pieces);
            if desc.flags & NEXT == 0 {
                self.taken += descs;
                return Some(Chain { id: desc.other, descs, pieces });
            }
        }
        unreachable!()
    }

    fn packed_desc(&self, position: u64) -> Desc {
        let (index, _) = place(position, self.config.size);
        Desc::read(&self.guest, RingKind::Packed, self.config.addresses.desc + 16 * u64::from(index))
    }

    fn next_split(&mut self) -> Option<Chain> {
        let addresses = &self.config.addresses;
        if self.guest.u16(addresses.driver + 2) == (self.taken & 0xffff) as u16 {
            return None;
        }
        let entry = self.taken % u64::from(self.config.size);
        let id = self.guest.u16(addresses.driver + 4 + 2 * entry);
        let mut pieces = Vec::new();
        let mut index = id;
        for descs in 1.. {
            assert!(index < self.config.size);
            let at = addresses.desc + 16 * u64::from(index);
            let desc = Desc::read(&self.guest, RingKind::Split, at);
            self.add_pieces(desc, &mut pieces);
            if desc.flags & NEXT == 0 {
                self.taken += 1;
                return Some(Chain { id, descs, pieces });
            }
            index = desc.other;
        }
        unreachable!()
    }

    fn add_pieces(&self, desc: Desc, pieces: &mut Vec<Piece>) {
        let piece = |d: Desc| Piece { addr: d.addr, len: d.len, writable: d.flags & WRITE != 0 };
        if desc.flags & INDIRECT == 0 {
            pieces.push(piece(desc));
            return;
        }
        assert!(self.config.features.indirect && desc.flags & NEXT == 0 && desc.len.is_multiple_of(16));
        let kind = self.config.features.kind;
        let entry = |index: u64| Desc::read(&self.guest, kind, desc.addr + 16 * index);
        let entries = u64::from(desc.len) / 16;
        match kind {
            RingKind::Packed => pieces.extend((0..entries).map(|index| piece(entry(index)))),
            RingKind::Split => {
                let mut at = entry(0);
                pieces.push(piece(at));
                while at.flags & NEXT != 0 {
                    assert!(u64::from(at.other) < entries);
                    at = entry(u64::from(at.other));
                    pieces.push(piece(at));
                }
            }
        }
    }
}
