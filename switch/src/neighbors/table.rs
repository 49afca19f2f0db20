// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The bounded table of neighbours, and what becomes of an entry as time goes by.

use std::{
    collections::{HashMap, hash_map},
    net::IpAddr,
};

use packet::MacAddr;

/// How long a neighbour that answered is believed to be there (RFC 4861, 10).
pub(super) const REACHABLE_NS: u64 = 30_000_000_000;
/// Time between two asks, and after the last before giving up.
pub(super) const RETRANSMIT_NS: u64 = 1_000_000_000;
/// Asks before giving up.
pub(super) const MAX_ASKS: u8 = 3;
/// How long one that did not answer is not asked again.
pub(super) const NEGATIVE_NS: u64 = 5_000_000_000;
/// How long one that nobody sends to is remembered.
pub(super) const IDLE_NS: u64 = 300_000_000_000;
/// One in use so recently gives way to no other.
const BUSY_NS: u64 = 60_000_000_000;
/// Entries looked at to find one that gives way.
const CANDIDATES: usize = 16;

/// What is known of a neighbour. `resolve` may find any; only [`State::Reachable`] and [`State::Stale`]
/// have a MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// It did not answer; until a time nobody asks again.
    Failed,
    /// It is being asked for.
    Incomplete,
    /// It is known, but was not heard of for a while. It is used, and asked if it is.
    Stale,
    /// It is known, and confirmed that recently.
    Reachable,
}

/// A neighbour.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) ip: IpAddr,
    pub(super) mac: MacAddr,
    pub(super) state: State,
    /// Reachable: until when. Failed: likewise. Else when the next ask is due.
    pub(super) due: u64,
    /// Asks since it was last confirmed.
    pub(super) asked: u8,
    /// Used since it became stale: worth asking.
    pub(super) wanted: bool,
    pub(super) used: u64,
}

/// What is to be done about an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    /// Ask all, or the one that is known. [`Entry::was_asked`] says that it was done.
    Ask(Option<MacAddr>),
    /// It has just failed.
    Failed,
    /// It is of no more use.
    Remove,
}

impl Entry {
    /// One to be asked for at once.
    pub(super) const fn incomplete(ip: IpAddr, now: u64) -> Self {
        let state = State::Incomplete;
        Self { ip, mac: MacAddr::ZERO, state, due: now, asked: 0, wanted: false, used: now }
    }

    /// One that was heard of without being asked for.
    pub(super) const fn stale(ip: IpAddr, mac: MacAddr, now: u64) -> Self {
        Self { ip, mac, state: State::Stale, due: now, asked: 0, wanted: false, used: now }
    }

    pub(super) fn is_known(&self) -> bool {
        self.state >= State::Stale
    }

    /// Its address, if that is known, for a packet that is to be sent now. One that is then stale is asked by
    /// the next sweep.
    pub(super) const fn look_up(&mut self, now: u64) -> Option<MacAddr> {
        self.used = now;
        match self.state {
            State::Failed | State::Incomplete => return None,
            State::Reachable if now < self.due => {}
            State::Reachable => {
                self.doubt(now);
                self.wanted = true;
            }
            State::Stale => self.wanted = true,
        }
        Some(self.mac)
    }

    /// Moves it on to `now`.
    pub(super) fn advance(&mut self, now: u64) -> Due {
        if self.state == State::Reachable && now >= self.due {
            self.doubt(now);
        }
        let is_due = now >= self.due;
        match self.state {
            State::Failed if is_due => Due::Remove,
            State::Incomplete if is_due && self.asked < MAX_ASKS => Due::Ask(None),
            State::Incomplete if is_due => {
                (self.state, self.due) = (State::Failed, now.saturating_add(NEGATIVE_NS));
                Due::Failed
            }
            State::Stale if now.saturating_sub(self.used) >= IDLE_NS => Due::Remove,
            State::Stale if is_due && self.wanted && self.asked < MAX_ASKS => Due::Ask(Some(self.mac)),
            State::Stale if is_due && self.wanted => {
                (self.state, self.asked) = (State::Incomplete, 0);
                Due::Ask(None)
            }
            _ => Due::Nothing,
        }
    }

    pub(super) const fn was_asked(&mut self, now: u64) {
        self.asked = self.asked.saturating_add(1);
        self.due = now.saturating_add(RETRANSMIT_NS);
    }

    /// What is known is believed no longer than until somebody uses it.
    pub(super) const fn doubt(&mut self, now: u64) {
        self.state = State::Stale;
        self.due = now;
        self.asked = 0;
        self.wanted = false;
    }

    /// It said so itself, when asked.
    pub(super) const fn confirm(&mut self, now: u64) {
        self.doubt(now);
        self.state = State::Reachable;
        self.due = now.saturating_add(REACHABLE_NS);
    }

    /// Takes in what was heard of it; `confirmed` says that it was asked. Returns whether it is now known
    /// to be where it was not.
    pub(super) fn hear(&mut self, mac: Option<MacAddr>, confirmed: bool, overrides: bool, now: u64) -> bool {
        let elsewhere = mac.filter(|mac| !self.is_known() || *mac != self.mac);
        match elsewhere {
            // RFC 4861, 7.2.5: one that does not override only raises a doubt.
            Some(_) if self.is_known() && !overrides => {
                if self.state == State::Reachable {
                    self.doubt(now);
                }
                return false;
            }
            Some(mac) => self.mac = mac,
            None if !self.is_known() => return false,
            None => {}
        }
        if confirmed {
            self.confirm(now);
        } else if elsewhere.is_some() {
            self.doubt(now);
        }
        elsewhere.is_some()
    }
}

/// Entries by address, at most as many as it was made for.
#[derive(Debug)]
pub(super) struct Table {
    entries: Vec<Entry>,
    index: HashMap<IpAddr, usize>,
    capacity: usize,
    /// Where the search for one that gives way goes on.
    hand: usize,
}

/// Whether there was room for an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Free,
    /// Another one gave way; whether its address was known.
    Taken {
        known: bool,
    },
    None,
}

impl Table {
    pub(super) fn new(capacity: usize) -> Self {
        Self { entries: Vec::new(), index: HashMap::new(), capacity, hand: 0 }
    }

    pub(super) fn get_mut(&mut self, ip: IpAddr) -> Option<&mut Entry> {
        self.entries.get_mut(*self.index.get(&ip)?)
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Adds an entry for an address that has none.
    pub(super) fn insert(&mut self, entry: Entry, now: u64) -> Room {
        let mut room = Room::Free;
        if self.entries.len() >= self.capacity {
            let Some(victim) = self.victim(now) else { return Room::None };
            room = Room::Taken { known: self.entries.get(victim).is_some_and(Entry::is_known) };
            self.remove(victim);
        }
        if let hash_map::Entry::Vacant(vacant) = self.index.entry(entry.ip) {
            vacant.insert(self.entries.len());
            self.entries.push(entry);
        }
        room
    }

    /// The entry that can best be missed among the next few, so that a flood of addresses that nobody has
    /// costs no search of the whole table, and takes no neighbour that is in use.
    fn victim(&mut self, now: u64) -> Option<usize> {
        let len = self.entries.len();
        let start = self.hand;
        self.hand = start.saturating_add(CANDIDATES).checked_rem(len)?;
        let can_go = |entry: &Entry| !entry.is_known() || now.saturating_sub(entry.used) >= BUSY_NS;
        let nearby = self.entries.iter().enumerate().cycle().skip(start).take(CANDIDATES.min(len));
        nearby.filter(|(_, e)| can_go(e)).min_by_key(|(_, e)| (e.state, e.used)).map(|(at, _)| at)
    }

    fn remove(&mut self, at: usize) {
        let removed = self.entries.swap_remove(at);
        self.index.remove(&removed.ip);
        if let Some(moved) = self.entries.get(at) {
            self.index.insert(moved.ip, at);
        }
    }

    /// Shows each entry to `keep`, and removes those for which it says no.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&mut Entry) -> bool) {
        let mut at = 0;
        while let Some(entry) = self.entries.get_mut(at) {
            if keep(entry) {
                at = at.saturating_add(1);
            } else {
                self.remove(at);
            }
        }
    }
}
