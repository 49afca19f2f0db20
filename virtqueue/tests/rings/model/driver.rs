// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The driver of the model.

use std::collections::VecDeque;

use virtqueue::{QueueConfig, RingKind};

use super::{Desc, Guest, INDIRECT, NEXT, Notify, Piece, WRITE, place, set_wish, start, wants};

/// A chain that was posted and not used yet.
#[derive(Clone, Debug)]
pub(crate) struct Posted {
    pub(crate) token: u32,
    pub(crate) id: u16,
    pub(crate) descs: Vec<u16>,
    pub(crate) writable: u32,
}

#[derive(Debug)]
pub(crate) struct ModelDriver {
    pub(crate) guest: Guest,
    pub(crate) config: QueueConfig,
    /// Available and used position: descriptors (packed) or chains (split).
    pub(crate) available: u64,
    pub(crate) used: u64,
    /// Outstanding chains, oldest first.
    pub(crate) outstanding: VecDeque<Posted>,
    /// Ids (packed) or descriptors (split) not in use.
    free: VecDeque<u16>,
    /// Descriptors not in use.
    pub(crate) room: u16,
    next_in_table: u16,
    /// In order: a batch of which some chains are still to be reported.
    batch: Option<(u16, u32)>,
}

impl ModelDriver {
    /// Takes over a ring: writes it as if everything before the base had been used.
    pub(crate) fn new(guest: Guest, config: QueueConfig) -> Self {
        let (size, at, addresses) = (config.size, start(&config), config.addresses);
        for position in at..at + u64::from(size) {
            let (index, _) = place(position, size);
            let wrap = !place(position, size).1;
            let flags = match config.features.kind {
                RingKind::Packed if wrap => 1 << 7 | 1 << 15,
                _ => 0,
            };
            let desc = Desc { addr: 0, len: 0, flags, other: 0 };
            desc.write(&guest, config.features.kind, addresses.desc + 16 * u64::from(index));
        }
        guest.set_u32(addresses.driver, 0);
        guest.set_u32(addresses.device, 0);
        if config.features.kind == RingKind::Split {
            guest.set_u16(addresses.driver + 2, config.base.avail);
            guest.set_u16(addresses.device + 2, config.base.used);
        }
        // Backwards, so that ids and positions are never the same by accident.
        let free = (0..size).rev().collect();
        let outstanding = VecDeque::new();
        Self { guest, config, available: at, used: at, outstanding, free, room: size, next_in_table: 0, batch: None }
    }

    /// Posts a chain, directly or through a table at the given address. The caller sees to it that
    /// there is room.
    pub(crate) fn post(&mut self, pieces: &[Piece], table: Option<u64>, token: u32) {
        let writable = pieces.iter().filter(|p| p.writable).map(|p| p.len).sum();
        let ring_pieces = match table {
            None => pieces.iter().map(|p| (*p, 0)).collect(),
            Some(addr) => {
                self.write_table(addr, pieces);
                let len = 16 * u32::try_from(pieces.len()).unwrap();
                vec![(Piece { addr, len, writable: false }, INDIRECT)]
            }
        };
        let posted = match self.config.features.kind {
            RingKind::Packed => self.post_packed(&ring_pieces),
            RingKind::Split => self.post_split(&ring_pieces),
        };
        self.room -= u16::try_from(posted.len()).unwrap();
        let id = match self.config.features.kind {
            RingKind::Packed => posted[0].1,
            RingKind::Split => posted[0].0,
        };
        let descs = posted.iter().map(|(index, _)| *index).collect();
        self.outstanding.push_back(Posted { token, id, descs, writable });
    }

    /// The next used chain: its token and how many bytes were written. What a batch leaves out
    /// counts as filled.
    pub(crate) fn complete(&mut self) -> Option<(u32, u32)> {
        if self.batch.is_none() {
            self.batch = self.used_element();
        }
        let (id, len) = self.batch?;
        let found = match self.config.features.in_order {
            true => 0,
            false => self.outstanding.iter().position(|p| p.id == id).expect("an outstanding id"),
        };
        let posted = self.outstanding.remove(found).expect("something is outstanding");
        let last = posted.id == id;
        if last {
            self.batch = None;
        }
        self.room += u16::try_from(posted.descs.len()).unwrap();
        match self.config.features.kind {
            RingKind::Packed => {
                self.used += posted.descs.len() as u64;
                self.free.push_back(posted.id);
            }
            RingKind::Split => {
                self.used += 1;
                self.free.extend(&posted.descs);
            }
        }
        Some((posted.token, if last { len } else { posted.writable }))
    }

    /// Tells the device when to call.
    pub(crate) fn set_calls(&mut self, calls: Notify) {
        let events = self.config.addresses.driver + 4 + 2 * u64::from(self.config.size);
        set_wish(&self.guest, &self.config, calls, self.used, self.config.addresses.driver, events);
    }

    /// Whether the device must call after using positions `old..new`.
    pub(crate) fn must_call(&self, old: u64, new: u64) -> bool {
        let events = self.config.addresses.driver + 4 + 2 * u64::from(self.config.size);
        wants(&self.guest, &self.config, old..new, self.config.addresses.driver, events)
    }

    /// Whether the device wants a kick after positions `old..new` became available.
    pub(crate) fn must_kick(&self, old: u64, new: u64) -> bool {
        let events = self.config.addresses.device + 4 + 8 * u64::from(self.config.size);
        wants(&self.guest, &self.config, old..new, self.config.addresses.device, events)
    }

    fn used_element(&self) -> Option<(u16, u32)> {
        let (size, addresses) = (self.config.size, &self.config.addresses);
        match self.config.features.kind {
            RingKind::Packed => {
                let (index, wrap) = place(self.used, size);
                let desc = Desc::read(&self.guest, RingKind::Packed, addresses.desc + 16 * u64::from(index));
                let (avail, used) = (desc.flags & 1 << 7 != 0, desc.flags & 1 << 15 != 0);
                let len = if desc.flags & WRITE != 0 { desc.len } else { 0 };
                (avail == wrap && used == wrap).then_some((desc.other, len))
            }
            RingKind::Split => {
                if self.guest.u16(addresses.device + 2) == (self.used & 0xffff) as u16 {
                    return None;
                }
                let at = addresses.device + 4 + 8 * (self.used % u64::from(size));
                Some((u16::try_from(self.guest.u32(at)).unwrap(), self.guest.u32(at + 4)))
            }
        }
    }

    fn post_packed(&mut self, pieces: &[(Piece, u16)]) -> Vec<(u16, u16)> {
        let id = self.free.pop_front().unwrap();
        let first = self.available;
        let mut places = Vec::new();
        // The first descriptor last.
        for (offset, (piece, extra)) in pieces.iter().enumerate().rev() {
            let (index, wrap) = place(first + offset as u64, self.config.size);
            let mut flags = extra | if wrap { 1 << 7 } else { 1 << 15 };
            if piece.writable {
                flags |= WRITE;
            }
            if offset + 1 < pieces.len() {
                flags |= NEXT;
            }
            let desc = Desc { addr: piece.addr, len: piece.len, flags, other: id };
            desc.write(&self.guest, RingKind::Packed, self.config.addresses.desc + 16 * u64::from(index));
            places.insert(0, (index, id));
        }
        self.available += pieces.len() as u64;
        places
    }

    fn post_split(&mut self, pieces: &[(Piece, u16)]) -> Vec<(u16, u16)> {
        let size = self.config.size;
        let indices: Vec<u16> = pieces
            .iter()
            .map(|_| {
                if !self.config.features.in_order {
                    return self.free.pop_front().unwrap();
                }
                let index = self.next_in_table;
                self.next_in_table = (index + 1) % size;
                index
            })
            .collect();
        for (at, (piece, extra)) in pieces.iter().enumerate() {
            let next = indices.get(at + 1).copied();
            let mut flags = *extra;
            if piece.writable {
                flags |= WRITE;
            }
            if next.is_some() {
                flags |= NEXT;
            }
            let desc = Desc { addr: piece.addr, len: piece.len, flags, other: next.unwrap_or(0) };
            desc.write(&self.guest, RingKind::Split, self.config.addresses.desc + 16 * u64::from(indices[at]));
        }
        let driver = self.config.addresses.driver;
        self.guest.set_u16(driver + 4 + 2 * (self.available % u64::from(size)), indices[0]);
        self.available += 1;
        self.guest.set_u16(driver + 2, (self.available & 0xffff) as u16);
        indices.iter().map(|&index| (index, 0)).collect()
    }

    fn write_table(&self, addr: u64, pieces: &[Piece]) {
        for (at, piece) in pieces.iter().enumerate() {
            let mut flags = if piece.writable { WRITE } else { 0 };
            let last = at + 1 == pieces.len();
            let other = match self.config.features.kind {
                RingKind::Split if !last => {
                    flags |= NEXT;
                    u16::try_from(at + 1).unwrap()
                }
                _ => 0,
            };
            let desc = Desc { addr: piece.addr, len: piece.len, flags, other };
            desc.write(&self.guest, self.config.features.kind, addr + 16 * at as u64);
        }
    }
}
