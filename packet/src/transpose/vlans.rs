// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is done to the inner group's VLAN tags.

use super::Value;
use crate::{EtherType, Field};

/// Changes of the stack of tags: first pops, then changes of what is left, then pushes. Every composition
/// of such changes is one again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vlans {
    /// How many tags are taken off, outermost first.
    pub pops: u8,
    /// New values of the tags that are left, outermost first. The DEI bit of a tag that is set becomes 0.
    pub set: [Option<Value>; 2],
    /// Tags put on, the innermost first.
    pub pushes: Vec<Tag>,
}

/// A VLAN tag to be put on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// [`EtherType::VLAN`] or [`EtherType::VLAN_SERVICE`].
    pub tpid: EtherType,
    /// Priority and VLAN id, as [`Field::Vlan`] has them.
    pub tci: Value,
}

/// Tags that a packet may have for policy to see them.
pub(super) const MAX_TAGS: u8 = 2;

impl Vlans {
    /// Takes the outermost tag off.
    #[must_use]
    pub fn pop() -> Self {
        Self { pops: 1, ..Self::default() }
    }

    /// Changes the outermost tag.
    #[must_use]
    pub fn set(tci: Value) -> Self {
        Self { set: [Some(tci), None], ..Self::default() }
    }

    /// Puts a tag on.
    #[must_use]
    pub fn push(tag: Tag) -> Self {
        Self { pushes: vec![tag], ..Self::default() }
    }

    /// Whether nothing is changed.
    pub(super) fn is_nothing(&self) -> bool {
        self.pops == 0 && self.pushes.is_empty() && self.set.iter().all(Option::is_none)
    }

    /// Value of the `index`th tag afterwards, from outermost; `None` if it is known that there is none. A
    /// tag that came with the packet is a copy.
    pub(super) fn tag(&self, index: usize) -> Option<Value> {
        if let Some(tag) = self.pushes.iter().rev().nth(index) {
            return Some(tag.tci);
        }
        let left = index.checked_sub(self.pushes.len())?;
        let came = match usize::from(self.pops).checked_add(left)? {
            0 => Field::Vlan,
            1 => Field::SecondVlan,
            _ => return None,
        };
        Some(self.set.get(left).copied().flatten().unwrap_or(Value::Copy(came)))
    }

    /// This, and then that, whose values are already those of the packet as it came to this one.
    pub(super) fn then(&self, next: &Self) -> Self {
        let mut both = self.clone();
        for _ in 0..next.pops {
            if both.pushes.pop().is_none() {
                both.pops = both.pops.saturating_add(1);
                let [_, second] = both.set;
                both.set = [second, None];
            }
        }
        for (index, value) in next.set.iter().enumerate().filter_map(|(i, value)| Some((i, (*value)?))) {
            if let Some(tag) = both.pushes.iter_mut().rev().nth(index) {
                tag.tci = value;
            } else if let Some(slot) = index.checked_sub(both.pushes.len()).and_then(|left| both.set.get_mut(left)) {
                *slot = Some(value);
            }
        }
        both.pushes.extend(&next.pushes);
        both
    }

    /// Tags put on less tags taken off.
    pub(super) fn net(&self) -> i32 {
        i32::try_from(self.pushes.len()).unwrap_or(i32::MAX).saturating_sub(self.pops.into())
    }
}
