// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Places for flows, and handles that know when a place has changed hands.

use std::fmt;
use std::marker::PhantomData;
use std::num::NonZeroU32;

/// Bits of a place in a [`Handle`].
const PLACE_BITS: u32 = 20;
const GENERATIONS: u16 = 1 << (32 - PLACE_BITS);

/// Names one flow of one shard: a place of 20 bits and its generation of 12. It outlives the flow: asked
/// for after the place was given to another, it finds nothing. Generations come back after 4096 owners of
/// one place, so a handle is not to be kept for longer than a connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Handle(NonZeroU32);

/// Free places that there are to be, by default, before one is used again. What comes and goes quickly so keeps
/// to memory that is there and near, and a place that changes hands has been free for thousands of others' ends.
const REST: usize = 4096;

/// A bounded collection whose members keep their places.
#[derive(Debug)]
pub struct Slab<T, P = Place<T>> {
    places: Vec<P>,
    member: PhantomData<T>,
    capacity: usize,
    /// Free places that there are to be before one is used again.
    rest: usize,
    /// The place that was free for longest.
    free: Option<u32>,
    last_free: Option<u32>,
    len: usize,
}

/// How a place lies in memory.
pub trait Cell<T>: AsRef<Place<T>> + AsMut<Place<T>> + From<Place<T>> {}

/// A place, as small as can be; whose it is stands at its head, like what is asked most of its owner.
#[derive(Debug)]
#[repr(C)]
pub struct Place<T> {
    generation: u16,
    state: State<T>,
}

/// A place that begins a cache line.
#[derive(Debug)]
#[repr(align(64))]
pub struct Aligned<T>(Place<T>);

#[derive(Debug)]
enum State<T> {
    Taken(T),
    /// And the next free place.
    Free(Option<u32>),
}

/// What an allocation of so many bytes takes: a word before it, and whole pairs of words.
pub(crate) const fn allocated(bytes: usize) -> usize {
    if bytes == 0 { 0 } else { (bytes + size_of::<usize>()).next_multiple_of(2 * size_of::<usize>()) }
}

impl Handle {
    /// Highest number of places a handle can name.
    pub const MAX_PLACES: usize = (1 << PLACE_BITS) - 1;

    /// The place alone.
    #[inline]
    #[must_use]
    pub const fn place(self) -> u32 {
        self.to_bits() & ((1 << PLACE_BITS) - 1)
    }

    /// As a number, for export.
    #[must_use]
    pub const fn to_bits(self) -> u32 {
        !self.0.get()
    }

    /// From a number, as [`to_bits`](Self::to_bits) gave it.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Option<Self> {
        match NonZeroU32::new(!bits) {
            Some(inverted) => Some(Self(inverted)),
            None => None,
        }
    }

    /// The highest place is never given away, so that no handle is all ones.
    const fn new(place: u32, generation: u16) -> Self {
        match Self::from_bits((generation as u32) << PLACE_BITS | place) {
            Some(handle) => handle,
            None => Self(NonZeroU32::MIN),
        }
    }

    const fn generation(self) -> u16 {
        // 12 bits are left.
        (self.to_bits() >> PLACE_BITS) as u16
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.place(), self.generation())
    }
}

impl<T> Cell<T> for Place<T> {}
impl<T> Cell<T> for Aligned<T> {}

impl<T> AsRef<Self> for Place<T> {
    #[inline]
    fn as_ref(&self) -> &Self {
        self
    }
}

impl<T> AsMut<Self> for Place<T> {
    #[inline]
    fn as_mut(&mut self) -> &mut Self {
        self
    }
}

impl<T> AsRef<Place<T>> for Aligned<T> {
    #[inline]
    fn as_ref(&self) -> &Place<T> {
        &self.0
    }
}

impl<T> AsMut<Place<T>> for Aligned<T> {
    #[inline]
    fn as_mut(&mut self) -> &mut Place<T> {
        &mut self.0
    }
}

impl<T> From<Place<T>> for Aligned<T> {
    fn from(place: Place<T>) -> Self {
        Self(place)
    }
}

impl<T, P: Cell<T>> Slab<T, P> {
    /// Room for `capacity` members, at most [`Handle::MAX_PLACES`]. Address space is reserved whole, so that
    /// nothing is ever moved; memory is taken as it fills.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self::with_rest(capacity, REST)
    }

    /// The same, where places are used again as soon as so many are free: those whose handles outlive no member need no
    /// rest at all.
    #[must_use]
    pub fn with_rest(capacity: usize, rest: usize) -> Self {
        let capacity = capacity.min(Handle::MAX_PLACES);
        let places = Vec::with_capacity(capacity);
        Self { places, member: PhantomData, capacity, rest, free: None, last_free: None, len: 0 }
    }

    /// Number of members.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The most members it will have.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes that the places take that were ever used.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.places.len() * size_of::<P>()
    }

    /// Adds a member.
    ///
    /// # Errors
    /// It is full; the member comes back.
    pub fn insert(&mut self, member: T) -> Result<Handle, T> {
        if self.places.len() < self.capacity && self.places.len().saturating_sub(self.len) <= self.rest {
            let Ok(place) = u32::try_from(self.places.len()) else { return Err(member) };
            self.places.push(Place { generation: 0, state: State::Taken(member) }.into());
            self.len += 1;
            return Ok(Handle::new(place, 0));
        }
        let Some(at) = self.free else { return Err(member) };
        let Some(place) = self.places.get_mut(at as usize).map(AsMut::as_mut) else { return Err(member) };
        if let State::Free(next) = place.state {
            self.free = next;
            if next.is_none() {
                self.last_free = None;
            }
        }
        place.state = State::Taken(member);
        self.len += 1;
        Ok(Handle::new(at, place.generation))
    }

    /// Removes a member.
    pub fn remove(&mut self, handle: Handle) -> Option<T> {
        let place = self.places.get_mut(handle.place() as usize)?.as_mut();
        if place.generation != handle.generation() || matches!(place.state, State::Free(_)) {
            return None;
        }
        place.generation = (place.generation + 1) % GENERATIONS;
        let State::Taken(member) = std::mem::replace(&mut place.state, State::Free(None)) else { return None };
        let at = handle.place();
        match self.last_free.replace(at) {
            Some(last) => {
                if let Some(last) = self.places.get_mut(last as usize) {
                    last.as_mut().state = State::Free(Some(at));
                }
            }
            None => self.free = Some(at),
        }
        self.len -= 1;
        Some(member)
    }

    /// The member that a handle names, if it is still there.
    #[inline]
    #[must_use]
    pub fn get(&self, handle: Handle) -> Option<&T> {
        match self.places.get(handle.place() as usize)?.as_ref() {
            Place { generation, state: State::Taken(member) } if *generation == handle.generation() => Some(member),
            _ => None,
        }
    }

    /// The same, to be changed.
    #[inline]
    pub fn get_mut(&mut self, handle: Handle) -> Option<&mut T> {
        match self.places.get_mut(handle.place() as usize)?.as_mut() {
            Place { generation, state: State::Taken(member) } if *generation == handle.generation() => Some(member),
            _ => None,
        }
    }

    /// Who is at a place now, and the handle.
    #[inline]
    #[must_use]
    pub fn at(&self, place: u32) -> Option<(Handle, &T)> {
        match self.places.get(place as usize)?.as_ref() {
            Place { generation, state: State::Taken(member) } => Some((Handle::new(place, *generation), member)),
            Place { .. } => None,
        }
    }

    /// All members, by place.
    pub fn iter(&self) -> impl Iterator<Item = (Handle, &T)> {
        (0..).zip(&self.places).filter_map(|(at, place)| match place.as_ref() {
            Place { generation, state: State::Taken(member) } => Some((Handle::new(at, *generation), member)),
            Place { .. } => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn handles_find_their_member_or_nothing(rest in 0..7_usize, steps in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 0..300)) {
            let mut slab = Slab::<_>::with_rest(6, rest);
            let mut members: Vec<(Handle, usize)> = Vec::new();
            let mut gone: Vec<Handle> = Vec::new();
            for (n, (add, which)) in steps.into_iter().enumerate() {
                if add {
                    match slab.insert(n) {
                        Ok(handle) => members.push((handle, n)),
                        Err(back) => prop_assert_eq!((back, members.len()), (n, 6)),
                    }
                } else if !members.is_empty() {
                    let (handle, member) = members.swap_remove(which.index(members.len()));
                    prop_assert_eq!(slab.remove(handle), Some(member));
                    gone.push(handle);
                }
                prop_assert_eq!(slab.len(), members.len());
                for (handle, member) in &members {
                    prop_assert_eq!(slab.get(*handle), Some(member));
                    prop_assert_eq!(slab.at(handle.place()), Some((*handle, member)));
                }
                for handle in &gone {
                    prop_assert_eq!(slab.get(*handle), None);
                    prop_assert_eq!(slab.get_mut(*handle), None);
                    prop_assert_eq!(slab.remove(*handle), None);
                }
                let mut listed: Vec<_> = slab.iter().map(|(handle, member)| (handle.to_bits(), *member)).collect();
                let mut expected: Vec<_> = members.iter().map(|(handle, member)| (handle.to_bits(), *member)).collect();
                listed.sort_unstable();
                expected.sort_unstable();
                prop_assert_eq!(listed, expected);
            }
        }
    }

    #[test]
    fn a_place_rests_as_long_as_it_can() {
        let mut slab = Slab::<_>::new(3);
        let handles: Vec<_> = (0..3).map(|n| slab.insert(n).unwrap()).collect();
        for handle in &handles {
            slab.remove(*handle);
        }
        let places: Vec<_> = (0..3).map(|n| slab.insert(n).unwrap().place()).collect();
        assert_eq!(places, [0, 1, 2], "the place free for longest comes first");
    }

    #[test]
    fn fresh_places_are_used_only_until_enough_rest() {
        // VF-22: a flood of a thousand at a time does not wander through all of memory.
        let mut slab = Slab::<_>::with_rest(1000, 2);
        let mut live = std::collections::VecDeque::new();
        for n in 0..5000 {
            live.push_back(slab.insert(n).unwrap());
            if live.len() > 10 {
                slab.remove(live.pop_front().unwrap());
            }
        }
        assert_eq!((slab.len(), slab.places.len()), (10, 13));
        let mut paths = Slab::<_>::with_rest(1000, 0);
        for n in 0..10 {
            let handle = paths.insert(n).unwrap();
            assert_eq!(handle.place(), 0);
            paths.remove(handle);
        }
    }
}
