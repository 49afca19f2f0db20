// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a bridge counts.

/// Counters of one replica since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BridgeStats {
    /// Stations forgotten because they were silent.
    pub aged: u64,
    /// Frames whose source was not learnt because it is the fixed address of another port.
    pub claimed: u64,
    /// Frames flooded because their destination is a group.
    pub flooded_group: u64,
    /// Frames flooded because their destination is not in the table.
    pub flooded_unknown: u64,
    /// Stations forgotten with their port.
    pub flushed: u64,
    /// Stations first seen here.
    pub learned: u64,
    /// Stations seen here at another port than before.
    pub moved: u64,
    /// Frames whose source was not learnt because it could not have been announced.
    pub outbox_full: u64,
    /// Stations not learnt because their port had added its share.
    pub port_full: u64,
    /// Time stamps written for stations already known.
    pub refreshed: u64,
    /// Announcements of other replicas taken over.
    pub remote_applied: u64,
    /// Announcements of other replicas refused: older than what is known, for a removed port, no
    /// room.
    pub remote_refused: u64,
    /// Silent stations that gave way to new ones.
    pub replaced: u64,
    /// Frames whose source was not learnt because their port had been removed.
    pub retired_port: u64,
    /// Stations not learnt because there was no room.
    pub table_full: u64,
    /// Frames whose source is a group or zero, which is never learnt.
    pub unlearnable: u64,
}

impl BridgeStats {
    /// A number that is another one whenever some station was learnt, has moved or was forgotten.
    #[inline]
    #[must_use]
    pub const fn changes(&self) -> u64 {
        self.aged + self.flushed + self.learned + self.moved + self.remote_applied + self.replaced
    }

    /// Adds another replica's counters, for a total over all workers.
    pub const fn add(&mut self, other: &Self) {
        self.aged += other.aged;
        self.claimed += other.claimed;
        self.flooded_group += other.flooded_group;
        self.flooded_unknown += other.flooded_unknown;
        self.flushed += other.flushed;
        self.learned += other.learned;
        self.moved += other.moved;
        self.outbox_full += other.outbox_full;
        self.port_full += other.port_full;
        self.refreshed += other.refreshed;
        self.remote_applied += other.remote_applied;
        self.remote_refused += other.remote_refused;
        self.replaced += other.replaced;
        self.retired_port += other.retired_port;
        self.table_full += other.table_full;
        self.unlearnable += other.unlearnable;
    }
}
