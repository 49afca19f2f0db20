// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The connections of a port, by their names.
//!
//! A name that was taken from a list of ports rests for a while when its connection ends: what is still on
//! its way to the old one must not reach a new one.

use std::collections::{HashMap, VecDeque};

use super::connection::{Connection, Entry, Fact, Role, Tcp};
use super::index::Index;
use super::slab::{Aligned, Handle, Slab};
use super::table::Secret;
use super::tcp;
use super::tuple::Tuple;
use crate::model::Direction;

/// How long a name rests, in milliseconds.
const REST_MS: u32 = 30_000;
/// Most names that rest at a time; the ones that rest longest give way.
const MAX_RESTING: usize = 65_536;

const DIRECTIONS: [Direction; 2] = [Direction::In, Direction::Out];

/// A bounded table.
#[derive(Debug)]
pub(crate) struct Connections {
    index: Index,
    slab: Slab<Connection>,
    /// States of TCP.
    tcp: Slab<Tcp, Aligned<Tcp>>,
    secret: Secret,
    resting: HashMap<u64, u32, foldhash::fast::RandomState>,
    queue: VecDeque<(u32, u64)>,
    /// Bytes that connections have on the heap: a sum that is kept, because to walk over all would be a stall.
    heap: usize,
}

impl Connections {
    /// Room for `capacity` connections.
    pub(crate) fn new(capacity: usize, secret: Secret) -> Self {
        Self {
            index: Index::new(capacity.saturating_mul(2)),
            slab: Slab::new(capacity),
            tcp: Slab::new(capacity),
            secret,
            resting: HashMap::default(),
            queue: VecDeque::new(),
            heap: 0,
        }
    }

    /// Number of connections.
    pub(crate) const fn len(&self) -> usize {
        self.slab.len()
    }

    /// Names that rest.
    pub(crate) fn resting(&self) -> usize {
        self.resting.len()
    }

    /// The connection that a packet with this tuple at the entry belongs to.
    pub(crate) fn find(&self, direction: Direction, tuple: &Tuple) -> Option<(Handle, Role)> {
        let is_meant = |place| self.slab.at(place).is_some_and(|(_, held)| held.name(direction) == *tuple);
        let place = self.index.find(self.hash(direction, tuple), is_meant)?;
        let (handle, connection) = self.slab.at(place)?;
        Some((handle, connection.role(direction)))
    }

    /// Whether no connection has this name, and it does not rest either.
    pub(crate) fn is_free(&self, direction: Direction, tuple: &Tuple, now_ms: u32) -> bool {
        let hash = self.hash(direction, tuple);
        let is_meant = |place| self.slab.at(place).is_some_and(|(_, held)| held.name(direction) == *tuple);
        let rests = self.resting.get(&hash).is_some_and(|since| now_ms.wrapping_sub(*since) < REST_MS);
        !rests && self.index.find(hash, is_meant).is_none()
    }

    /// The hashes of a connection's names; `None` if one of them is taken.
    pub(crate) fn hashes(&self, connection: &Connection) -> Option<[u64; 2]> {
        let names = DIRECTIONS.map(|direction| (direction, connection.name(direction)));
        let hashes = names.map(|(direction, name)| self.hash(direction, &name));
        let is_free = |((direction, name), hash): (&(Direction, Tuple), &u64)| {
            let is_meant = |place| self.slab.at(place).is_some_and(|(_, held)| held.name(*direction) == *name);
            self.index.find(*hash, is_meant).is_none()
        };
        names.iter().zip(&hashes).all(is_free).then_some(hashes)
    }

    /// Adds one, with the [`hashes`](Self::hashes) of its names and, if it is TCP's, its state.
    ///
    /// # Errors
    /// There is no room; it comes back.
    pub(crate) fn open(
        &mut self,
        connection: Connection,
        hashes: [u64; 2],
        tcp: Option<Tcp>,
    ) -> Result<Handle, Connection> {
        let heap = connection.heap();
        let handle = self.slab.insert(connection)?;
        let [first, second] = hashes.map(|hash| self.index.insert(hash, handle.place()));
        if first && second {
            self.heap += heap;
            // There is room for as many as there are connections.
            let tcp = tcp.and_then(|tcp| self.tcp.insert(tcp).ok());
            if let (Some(tcp), Some(connection)) = (tcp, self.slab.get_mut(handle)) {
                connection.track(tcp);
            }
            return Ok(handle);
        }
        for (hash, there) in hashes.into_iter().zip([first, second]) {
            if there {
                self.index.remove(hash, handle.place());
            }
        }
        self.slab.remove(handle).map_or(Ok(handle), Err)
    }

    /// Forgets one.
    pub(crate) fn close(&mut self, handle: Handle, now_ms: u32) -> Option<Connection> {
        let connection = self.slab.remove(handle)?;
        self.heap = self.heap.saturating_sub(connection.heap());
        connection.tcp().and_then(|tcp| self.tcp.remove(tcp));
        for direction in DIRECTIONS {
            let hash = self.hash(direction, &connection.name(direction));
            self.index.remove(hash, handle.place());
            if connection.is(Fact::Rests) && direction != connection.direction() {
                self.rest(hash, now_ms);
            }
        }
        Some(connection)
    }

    #[inline]
    pub(crate) fn get(&self, handle: Handle) -> Option<&Connection> {
        self.slab.get(handle)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, handle: Handle) -> Option<&mut Connection> {
        self.slab.get_mut(handle)
    }

    /// The state of a connection of TCP, by where it is.
    #[inline]
    pub(crate) fn tcp(&self, at: Handle) -> Option<&Tcp> {
        self.tcp.get(at)
    }

    /// The same, to be changed.
    #[inline]
    pub(crate) fn tcp_mut(&mut self, at: Handle) -> Option<&mut Tcp> {
        self.tcp.get_mut(at)
    }

    /// How far a connection has come, if it is TCP's.
    pub(crate) fn state(&self, connection: &Connection) -> Option<tcp::State> {
        connection.tcp().and_then(|at| self.tcp.get(at)).map(|tcp| tcp.state.state())
    }

    /// Whether a connection has lived too long without a packet, or is there no more.
    pub(crate) fn is_over(&self, handle: Handle, now_ms: u32) -> bool {
        self.slab.get(handle).is_none_or(|connection| {
            now_ms.wrapping_sub(connection.last_ms) > connection.lifetime_ms(self.state(connection))
        })
    }

    /// Replaces the entries of a connection.
    pub(crate) fn amend(&mut self, handle: Handle, entries: &[Entry]) {
        let Some(connection) = self.slab.get_mut(handle) else { return };
        let before = connection.heap();
        connection.amend(entries);
        self.heap = self.heap.saturating_sub(before) + connection.heap();
    }

    /// Ends the rest of names whose time is over.
    pub(crate) fn wake(&mut self, now_ms: u32) {
        while let Some((since, hash)) = self.queue.front().copied() {
            if now_ms.wrapping_sub(since) < REST_MS && self.queue.len() <= MAX_RESTING {
                break;
            }
            self.queue.pop_front();
            if self.resting.get(&hash) == Some(&since) {
                self.resting.remove(&hash);
            }
        }
    }

    /// Moves up to `budget` buckets of an index that has grown.
    pub(crate) fn settle(&mut self, budget: usize) {
        self.index.settle(budget);
    }

    /// Bytes that the table holds, room for more included.
    pub(crate) fn memory(&self) -> usize {
        debug_assert_eq!(self.heap, self.slab.iter().map(|(_, held)| held.heap()).sum::<usize>());
        self.index.memory() + self.slab.memory() + self.tcp.memory() + self.heap
    }

    fn rest(&mut self, hash: u64, now_ms: u32) {
        self.resting.insert(hash, now_ms);
        self.queue.push_back((now_ms, hash));
        self.wake(now_ms);
    }

    pub(crate) fn hash(&self, direction: Direction, tuple: &Tuple) -> u64 {
        self.secret.hash_tuple(direction == Direction::In, tuple)
    }
}
