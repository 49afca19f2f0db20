// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a transposition makes of a flow's identity, and what restores it for replies.

use core::net::IpAddr;

use super::{Encap, Outer, Tag, TransposeError, Transposition, Value, Vlans, needs};
use crate::{EtherType, Field, Fragment, MacAddr, Tunnel, Ufid, ufid::VLAN_PRESENT};

impl Transposition {
    /// The identity of a flow's packets afterwards.
    ///
    /// # Errors
    /// If they cannot undergo it.
    pub fn after(&self, before: &Ufid) -> Result<Ufid, TransposeError> {
        self.needs()?.check(before)?;
        let mut after = *before;
        let later = before.get(Field::Fragment) == Fragment::Later as u128;
        for (field, value) in &self.fields {
            if !(later && matches!(field, Field::L4Src | Field::L4Dst)) {
                after.set(*field, value.of(before));
            }
        }
        for (index, field) in [Field::Vlan, Field::SecondVlan].into_iter().enumerate() {
            let tag = self.vlans.tag(index);
            after.set(field, tag.map_or(0, |value| tag_of(value, before)));
        }
        match &self.outer {
            Outer::Ignore => {}
            Outer::Modify(edit) => {
                for (field, value) in &edit.fields {
                    after.set(*field, outer_of(*field, *value, before));
                }
            }
            Outer::Pop => clear_outer(&mut after),
            Outer::Push(encap) | Outer::Replace(encap) => {
                clear_outer(&mut after);
                after.set(Field::Tunnel, encap.tunnel as u128);
                after.set(Field::OuterIpVersion, encap.version().unwrap_or(0).into());
                for (field, value) in &encap.fields {
                    after.set(*field, outer_of(*field, *value, before));
                }
            }
        }
        Ok(after)
    }

    /// What restores, in packets that answer those of the flow `before`, what this changes: a packet whose
    /// identity is that of [`after`](Self::after), [reversed](Ufid::reversed), leaves with that of `before`, reversed.
    /// TTL and ECN are not restored, beyond what popping an outer group does. A group that is put on again
    /// has the addresses, key, DSCP and VLAN tag of the one taken off.
    ///
    /// # Errors
    /// If packets of that flow cannot undergo it.
    pub fn reverse(&self, before: &Ufid) -> Result<Self, TransposeError> {
        let after = self.after(before)?;
        let (from, to) = (after.reversed(), before.reversed());
        let later = before.get(Field::Fragment) == Fragment::Later as u128;
        let mut reverse = match self.outer {
            Outer::Push(_) => Self::pop(),
            Outer::Pop => Self::push(encap_of(&to)),
            Outer::Replace(_) => Self { outer: Outer::Replace(encap_of(&to)), ..Self::default() },
            Outer::Ignore | Outer::Modify(_) => Self::default(),
        };
        for field in Field::ALL {
            let passed_over = match field {
                Field::Vlan | Field::SecondVlan => true,
                Field::L4Src | Field::L4Dst => later,
                _ => needs::is_outer(field) && !matches!(self.outer, Outer::Ignore | Outer::Modify(_)),
            };
            if !passed_over && from.get(field) != to.get(field) {
                reverse = reverse.with(field, Value::literal(&to, field));
            }
        }
        reverse.vlans = self.vlans.reverse(before, &after);
        Ok(reverse)
    }
}

impl Vlans {
    /// What makes the tags of one identity those of another again.
    fn reverse(&self, before: &Ufid, after: &Ufid) -> Self {
        let pops = u8::try_from(self.pushes.len()).unwrap_or(u8::MAX);
        let old = [Field::Vlan, Field::SecondVlan];
        let left = usize::from(self.pops);
        let mut set = [None; 2];
        for (index, slot) in set.iter_mut().enumerate() {
            let was = old.get(left.saturating_add(index)).map(|field| Value::literal(before, *field));
            let is = old.get(self.pushes.len().saturating_add(index)).map(|field| Value::literal(after, *field));
            *slot = was.filter(|was| *was != Value::Number(0) && Some(*was) != is);
        }
        let tag = |field: &Field| Tag { tpid: EtherType::VLAN, tci: Value::literal(before, *field) };
        Self { pops, set, pushes: old.get(..left).unwrap_or_default().iter().rev().map(tag).collect() }
    }
}

/// The value of a VLAN tag as the identity holds it.
pub(super) fn tag_of(value: Value, ufid: &Ufid) -> u128 {
    match (value, value.of(ufid)) {
        // A tag that came with the packet; 0 if it did not.
        (Value::Copy(_), tag) => tag,
        (_, tag) => tag | u128::from(VLAN_PRESENT),
    }
}

/// The value of an outer field as the identity holds it.
pub(super) fn outer_of(field: Field, value: Value, ufid: &Ufid) -> u128 {
    if field == Field::OuterVlan { tag_of(value, ufid) } else { value.of(ufid) }
}

fn clear_outer(ufid: &mut Ufid) {
    for field in Field::ALL.into_iter().filter(|field| needs::is_outer(*field)) {
        ufid.set(field, 0);
    }
}

/// What puts on the outer group of an identity. One that cannot be put on is refused where it is used.
fn encap_of(ufid: &Ufid) -> Encap {
    let tunnels = [Tunnel::Vxlan, Tunnel::Nvgre, Tunnel::Geneve, Tunnel::Gre];
    let tunnel = tunnels.into_iter().find(|tunnel| *tunnel as u128 == ufid.get(Field::Tunnel)).unwrap_or_default();
    let nobody = (MacAddr::ZERO, IpAddr::from([0; 4]));
    let mut encap = Encap::new(tunnel, 0, nobody, nobody);
    let fields = [
        Field::OuterEthDst,
        Field::OuterEthSrc,
        Field::OuterVlan,
        Field::OuterIpSrc,
        Field::OuterIpDst,
        Field::OuterDscp,
        Field::TunnelKey,
    ];
    for field in fields.into_iter().filter(|field| *field != Field::OuterVlan || ufid.get(*field) != 0) {
        encap = encap.with(field, Value::literal(ufid, field));
    }
    encap
}
