// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Resources: data that rules share and that is updated without them (VF-13).

use core::net::IpAddr;
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use packet::MacAddr;

use super::action::ResourceKind;
use crate::Name;

/// Most entries of a map.
pub const MAX_MAPPINGS: usize = 1 << 20;
/// Most ranges of a list.
pub const MAX_RANGES: usize = 256;

/// Something that rules refer to by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// What it is called; unique on its port.
    pub name: Name,
    /// Whose it is.
    pub controller: Name,
    /// What it holds.
    pub content: Content,
}

/// What a resource holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Addresses to what is known of them (CA → PA).
    Map(Mappings),
    /// Addresses and ports to give out; no two ranges of one address overlap.
    Ranges(Arc<[PortRange]>),
}

/// A part of an address's ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortRange {
    /// The address.
    pub address: IpAddr,
    /// The lowest port.
    pub first: u16,
    /// The highest.
    pub last: u16,
}

/// What is known of an address in a virtual network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mapping {
    /// Where packets for it go: the outer destination address.
    pub address: IpAddr,
    /// The virtual network, if the rule does not say it; 24 bits.
    pub vni: Option<u32>,
    /// The inner destination MAC address, if it is to change.
    pub mac: Option<MacAddr>,
}

/// What a directory said about an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// It is there.
    Known(Mapping),
    /// There is no such address; to be believed until then, in nanoseconds of the switch's clock.
    Unknown {
        /// When to ask again.
        until_ns: u64,
    },
}

/// A map of up to [`MAX_MAPPINGS`] addresses, of which an edit copies only a small part.
#[derive(Clone, Debug)]
pub struct Mappings {
    parts: Arc<[Arc<Part>; PARTS]>,
    len: usize,
}

type Part = HashMap<IpAddr, Answer, foldhash::fast::RandomState>;

/// An edit copies a part: some four thousand entries of a full map.
const PARTS: usize = 256;

/// What is wrong with a resource.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResourceError {
    /// A rule refers to one that is not there.
    #[error("rule {layer}/{group}/{rule} needs it, and it is not there or of another kind")]
    Missing {
        /// The layer of the rule.
        layer: Name,
        /// Its group.
        group: Name,
        /// The rule.
        rule: Name,
    },
    /// It belongs to another controller.
    #[error("it belongs to controller {owner:?}")]
    Owner {
        /// To whom.
        owner: Name,
    },
    /// Two ranges of one address share ports.
    #[error("ports {first} to {last} of {address} overlap another range")]
    Overlap {
        /// The address.
        address: IpAddr,
        /// The lowest port of the later range.
        first: u16,
        /// Its highest.
        last: u16,
    },
    /// A range that ends before it begins, or begins with port 0.
    #[error("ports {first} to {last} of {address} are no range")]
    Range {
        /// The address.
        address: IpAddr,
        /// The lowest port.
        first: u16,
        /// The highest.
        last: u16,
    },
    /// More entries than a map may have.
    #[error("a map has at most {MAX_MAPPINGS} entries")]
    TooManyMappings,
    /// No range, or more than a list may have.
    #[error("{count} ranges; a list has 1 to {MAX_RANGES}")]
    Ranges {
        /// How many were given.
        count: usize,
    },
    /// A network identifier of more than 24 bits.
    #[error("{address}: vni {vni} is not between 0 and 16777215")]
    Vni {
        /// The address that is mapped.
        address: IpAddr,
        /// The number given.
        vni: u32,
    },
    /// An entry was put into what is no map.
    #[error("it is no map")]
    NoMap,
    /// It is not there.
    #[error("it is not there")]
    Unknown,
}

impl Resource {
    /// # Errors
    /// What does not hold together.
    pub fn check(&self) -> Result<(), ResourceError> {
        self.content.check()
    }

    /// Of which kind it is.
    #[must_use]
    pub const fn kind(&self) -> ResourceKind {
        match self.content {
            Content::Map(_) => ResourceKind::Map,
            Content::Ranges(_) => ResourceKind::Range,
        }
    }
}

impl Content {
    /// # Errors
    /// What does not hold together.
    pub fn check(&self) -> Result<(), ResourceError> {
        match self {
            Self::Map(map) => map.iter().try_for_each(|(address, answer)| check_answer(address, answer)),
            Self::Ranges(ranges) => check_ranges(ranges),
        }
    }
}

impl PortRange {
    /// How many ports it has.
    #[must_use]
    pub const fn len(&self) -> u32 {
        (self.last as u32).saturating_sub(self.first as u32).saturating_add(1)
    }

    /// Never: a range has at least one port.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.last < self.first
    }

    /// Whether a port of an address is in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr, port: u16) -> bool {
        self.address == address && self.first <= port && port <= self.last
    }
}

impl Mappings {
    /// Number of entries, negative answers included.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What is known of an address.
    #[must_use]
    pub fn get(&self, address: IpAddr) -> Option<&Answer> {
        self.parts.get(part_of(address))?.get(&address)
    }

    /// All entries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (IpAddr, &Answer)> {
        self.parts.iter().flat_map(|part| part.iter()).map(|(address, answer)| (*address, answer))
    }

    /// Puts an entry, or removes it.
    ///
    /// # Errors
    /// The map is full, or the entry does not hold together.
    pub fn put(&mut self, address: IpAddr, answer: Option<Answer>) -> Result<(), ResourceError> {
        if let Some(answer) = &answer {
            check_answer(address, answer)?;
        }
        let full = self.len >= MAX_MAPPINGS;
        let Some(part) = Arc::make_mut(&mut self.parts).get_mut(part_of(address)) else { return Ok(()) };
        if answer.is_some() && full && !part.contains_key(&address) {
            return Err(ResourceError::TooManyMappings);
        }
        let part = Arc::make_mut(part);
        let before = part.len();
        match answer {
            Some(answer) => drop(part.insert(address, answer)),
            None => drop(part.remove(&address)),
        }
        self.len = self.len.saturating_add(part.len()).saturating_sub(before);
        Ok(())
    }
}

impl Default for Mappings {
    fn default() -> Self {
        Self { parts: Arc::new(std::array::from_fn(|_| Arc::default())), len: 0 }
    }
}

impl PartialEq for Mappings {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.parts, &other.parts)
            || self.len == other.len && self.parts.iter().zip(other.parts.iter()).all(|(a, b)| a == b)
    }
}

impl Eq for Mappings {}

/// In which part an address lies: any fixed function will do, a map's size is its controller's affair.
fn part_of(address: IpAddr) -> usize {
    (foldhash::fast::FixedState::default().hash_one(address) >> 56) as usize % PARTS
}

fn check_answer(address: IpAddr, answer: &Answer) -> Result<(), ResourceError> {
    match answer {
        Answer::Known(Mapping { vni: Some(vni), .. }) if *vni >= 1 << 24 => {
            Err(ResourceError::Vni { address, vni: *vni })
        }
        _ => Ok(()),
    }
}

fn check_ranges(ranges: &[PortRange]) -> Result<(), ResourceError> {
    if ranges.is_empty() || ranges.len() > MAX_RANGES {
        return Err(ResourceError::Ranges { count: ranges.len() });
    }
    for (at, &PortRange { address, first, last }) in ranges.iter().enumerate() {
        if first == 0 || first > last {
            return Err(ResourceError::Range { address, first, last });
        }
        let overlaps = |other: &PortRange| other.address == address && other.first <= last && first <= other.last;
        if ranges.iter().take(at).any(overlaps) {
            return Err(ResourceError::Overlap { address, first, last });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mapping(last: u8) -> Answer {
        Answer::Known(Mapping { address: IpAddr::from([192, 0, 2, last]), vni: Some(7), mac: None })
    }

    proptest! {
        /// VF-13: an edited copy differs in what was edited, and the map it came from in nothing.
        #[test]
        fn it_is_a_map_of_values(steps in prop::collection::vec((any::<u8>(), prop::option::of(any::<u8>())), 0..200)) {
            let (mut map, mut model) = (Mappings::default(), HashMap::new());
            for (key, value) in steps {
                let address = IpAddr::from([10, 0, 0, key]);
                let (before, old) = (map.clone(), model.get(&address).copied());
                map.put(address, value.map(mapping)).unwrap();
                match value {
                    Some(value) => drop(model.insert(address, mapping(value))),
                    None => drop(model.remove(&address)),
                }
                prop_assert_eq!(before.get(address).copied(), old);
                prop_assert_eq!(map.get(address), model.get(&address));
                prop_assert_eq!(map.len(), model.len());
                let mut all: Vec<_> = map.iter().map(|(address, answer)| (address, *answer)).collect();
                let mut expected: Vec<_> = model.iter().map(|(address, answer)| (*address, *answer)).collect();
                all.sort_by_key(|(address, _)| *address);
                expected.sort_by_key(|(address, _)| *address);
                prop_assert_eq!(all, expected);
            }
        }
    }

    #[test]
    fn ranges_do_not_overlap() {
        let address = IpAddr::from([192, 0, 2, 1]);
        let range = |first, last| PortRange { address, first, last };
        assert_eq!(check_ranges(&[range(1, 10), range(11, 20)]), Ok(()));
        assert_eq!(
            check_ranges(&[range(1, 10), range(10, 20)]),
            Err(ResourceError::Overlap { address, first: 10, last: 20 })
        );
        assert_eq!(check_ranges(&[range(0, 10)]), Err(ResourceError::Range { address, first: 0, last: 10 }));
        assert_eq!(check_ranges(&[]), Err(ResourceError::Ranges { count: 0 }));
    }
}
