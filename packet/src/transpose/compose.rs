// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One transposition for two in turn.

use std::collections::BTreeMap;

use super::{
    Encap, Header, Outer, OuterEdit, TransposeError, Transposition, Ttl, Value,
    ecn::{ABSENT, Ecn, REFUSED},
    needs::Needs,
};
use crate::Field;

impl Transposition {
    /// What this and then `next` do, as one: applying it to a packet gives the bytes that applying the two
    /// in turn gives, and an error where either does. Only what the first would need for a moment is not
    /// needed any more: headroom, and a length that fits, for a header that `next` takes off again.
    ///
    /// # Errors
    /// If no packet could undergo both.
    pub fn then(&self, next: &Self) -> Result<Self, TransposeError> {
        let undone = self.needs()?.and_then(self, &next.needs()?)?;
        let (inner_ecn, outer_ecn) = self.ecn_then(next);
        let mut fields = self.fields.clone();
        fields.extend(self.substitute(&next.fields)?);
        let ttl = next.ttl.map(|ttl| self.ttl_through(ttl)).transpose()?.or(self.ttl);
        let mut vlans = next.vlans.clone();
        for value in vlans.set.iter_mut().flatten().chain(vlans.pushes.iter_mut().map(|tag| &mut tag.tci)) {
            *value = self.value_through(*value)?;
        }
        let mut both = Self {
            outer: self.outer_then(next, outer_ecn)?,
            fields,
            vlans: self.vlans.then(&vlans),
            ttl,
            ecn: inner_ecn,
            undone,
        };
        both.normalise();
        Ok(both)
    }

    fn outer_then(&self, next: &Self, ecn: Ecn) -> Result<Outer, TransposeError> {
        let encap = |encap: &Encap| -> Result<Encap, TransposeError> {
            let fields = self.substitute(&encap.fields)?;
            Ok(Encap { tunnel: encap.tunnel, fields, ttl: self.ttl_through(encap.ttl)?, ecn })
        };
        let edited = |old: &Encap, edit: &OuterEdit| -> Result<Encap, TransposeError> {
            let mut fields = old.fields.clone();
            fields.extend(self.substitute(&edit.fields)?);
            let ttl = edit.ttl.map_or(Ok(old.ttl), |ttl| self.ttl_through(ttl))?;
            Ok(Encap { tunnel: old.tunnel, fields, ttl, ecn })
        };
        Ok(match (&self.outer, &next.outer) {
            (outer, Outer::Ignore) => outer.clone(),
            (Outer::Ignore | Outer::Modify(_), Outer::Modify(edit)) => {
                let old = if let Outer::Modify(old) = &self.outer { old.clone() } else { OuterEdit::default() };
                let mut fields = old.fields;
                fields.extend(self.substitute(&edit.fields)?);
                let ttl = edit.ttl.map(|ttl| self.ttl_through(ttl)).transpose()?.or(old.ttl);
                Outer::Modify(OuterEdit { fields, ttl, ecn })
            }
            (Outer::Push(old), Outer::Modify(edit)) => Outer::Push(edited(old, edit)?),
            (Outer::Replace(old), Outer::Modify(edit)) => Outer::Replace(edited(old, edit)?),
            (Outer::Ignore | Outer::Modify(_) | Outer::Replace(_), Outer::Pop) => Outer::Pop,
            (Outer::Push(_), Outer::Pop) => Outer::Ignore,
            (Outer::Ignore, Outer::Push(new)) | (Outer::Push(_), Outer::Replace(new)) => Outer::Push(encap(new)?),
            (Outer::Pop, Outer::Push(new))
            | (Outer::Ignore | Outer::Modify(_) | Outer::Replace(_), Outer::Replace(new)) => {
                Outer::Replace(encap(new)?)
            }
            (Outer::Pop, Outer::Modify(_) | Outer::Pop | Outer::Replace(_))
            | (Outer::Modify(_) | Outer::Push(_) | Outer::Replace(_), Outer::Push(_)) => {
                return Err(TransposeError::Outer);
            }
        })
    }

    /// Inner and outer ECN after both. A refusal of the first stays one whatever the second does.
    fn ecn_then(&self, next: &Self) -> (Ecn, Ecn) {
        let outer_of = |outer: &Outer| match outer {
            Outer::Ignore => Ecn::outer(),
            Outer::Modify(edit) => edit.ecn,
            Outer::Pop => Ecn::tabulate(|_, _| ABSENT),
            Outer::Push(encap) | Outer::Replace(encap) => encap.ecn,
        };
        let (first, second) = (outer_of(&self.outer), outer_of(&next.outer));
        let between = |inner, outer| {
            let kept = if inner == ABSENT { ABSENT } else { self.ecn.of(inner, outer) };
            let outer = match first.of(inner, outer) {
                // A header that is written has a mark.
                ABSENT if !matches!(self.outer, Outer::Ignore | Outer::Pop) => 0,
                mark => mark,
            };
            (kept != REFUSED && outer != REFUSED).then_some((kept, outer))
        };
        let inner_ecn = Ecn::tabulate(|inner, outer| match between(inner, outer) {
            Some((ABSENT, _)) => ABSENT,
            Some((inner, outer)) => next.ecn.of(inner, outer),
            None => REFUSED,
        });
        let outer_ecn = Ecn::tabulate(|inner, outer| between(inner, outer).map_or(0, |(i, o)| second.of(i, o)));
        (inner_ecn, outer_ecn)
    }

    fn substitute(&self, fields: &BTreeMap<Field, Value>) -> Result<BTreeMap<Field, Value>, TransposeError> {
        fields.iter().map(|(field, value)| Ok((*field, self.value_through(*value)?))).collect()
    }

    /// A value of the packet after this, in terms of the packet before.
    fn value_through(&self, value: Value) -> Result<Value, TransposeError> {
        let Value::Copy(field) = value else { return Ok(value) };
        match field {
            Field::Vlan => self.vlans.tag(0).ok_or(TransposeError::Vlans),
            Field::SecondVlan => self.vlans.tag(1).ok_or(TransposeError::Vlans),
            outer if super::needs::is_outer(outer) => match &self.outer {
                Outer::Ignore => Ok(value),
                Outer::Modify(edit) => Ok(edit.fields.get(&outer).copied().unwrap_or(value)),
                Outer::Pop => Err(TransposeError::Outer),
                Outer::Push(encap) | Outer::Replace(encap) => match encap.fields.get(&outer) {
                    Some(value) => Ok(*value),
                    None if outer == Field::OuterVlan => Err(TransposeError::OuterKind),
                    None => Ok(Value::Number(0)),
                },
            },
            inner => Ok(self.fields.get(&inner).copied().unwrap_or(value)),
        }
    }

    fn ttl_through(&self, ttl: Ttl) -> Result<Ttl, TransposeError> {
        let Ttl::Minus(header, spent) = ttl else { return Ok(ttl) };
        let between = match (header, &self.outer) {
            (Header::Inner, _) => self.ttl,
            (Header::Outer, Outer::Ignore) => None,
            (Header::Outer, Outer::Modify(edit)) => edit.ttl,
            (Header::Outer, Outer::Pop) => return Err(TransposeError::Outer),
            (Header::Outer, Outer::Push(encap) | Outer::Replace(encap)) => Some(encap.ttl),
        };
        match between.unwrap_or(Ttl::Minus(header, 0)) {
            Ttl::Literal(_) if spent == 0 => Ok(between.unwrap_or(ttl)),
            Ttl::Literal(value) if value > spent => Ok(Ttl::Literal(value.saturating_sub(spent))),
            Ttl::Literal(_) => Err(TransposeError::TtlExpires),
            Ttl::Minus(from, before) => {
                before.checked_add(spent).map(|spent| Ttl::Minus(from, spent)).ok_or(TransposeError::TtlExpires)
            }
        }
    }

    /// Forgets changes that are none, so that what cancels is seen to.
    fn normalise(&mut self) {
        self.fields.retain(|field, value| *value != Value::Copy(*field));
        self.ttl = self.ttl.filter(|ttl| *ttl != Ttl::Minus(Header::Inner, 0));
        let there = self.undone.outer;
        self.ecn = self.ecn.canonical(there, |inner| inner);
        let inner = self.ecn;
        // Where the inner one refuses, the outer one is never looked at.
        let read = |ecn: Ecn, stays: bool| {
            Ecn::tabulate(|i, o| match inner.of(i, o) {
                REFUSED if stays => o,
                REFUSED => 0,
                _ => ecn.of(i, o),
            })
        };
        match &mut self.outer {
            Outer::Modify(edit) => edit.ecn = read(edit.ecn.canonical(there, |_| ABSENT), true),
            Outer::Push(encap) | Outer::Replace(encap) => {
                encap.ecn = read(encap.ecn.canonical(there, |_| ABSENT), false);
                encap.fields.retain(|field, value| *field == Field::OuterVlan || *value != Value::Number(0));
            }
            Outer::Ignore | Outer::Pop => {}
        }
        if let Outer::Modify(edit) = &mut self.outer {
            edit.fields.retain(|field, value| *value != Value::Copy(*field) || *field == Field::OuterVlan);
            edit.ttl = edit.ttl.filter(|ttl| *ttl != Ttl::Minus(Header::Outer, 0));
            if edit.is_nothing() {
                self.outer = Outer::Ignore;
            }
        }
    }
}

impl Needs {
    /// These, and the others of the packet that `first` leaves.
    fn and_then(mut self, first: &Transposition, next: &Self) -> Result<Self, TransposeError> {
        let mut next = *next;
        let (mut guards, mut outer) = (Self::default(), next.outer);
        for (header, least) in [(Header::Inner, next.inner_ttl), (Header::Outer, next.outer_ttl)] {
            if least > 0
                && let Ttl::Minus(from, least) = first.ttl_through(Ttl::Minus(header, least))?
            {
                guards.exceed(from, least);
            }
        }
        (next.inner_ttl, next.outer_ttl) = (guards.inner_ttl, guards.outer_ttl);
        match &first.outer {
            Outer::Ignore => {}
            Outer::Modify(_) => outer = now(outer, true)?,
            Outer::Pop => outer = now(outer, false)?,
            Outer::Push(encap) | Outer::Replace(encap) => {
                outer = now(outer, true)?;
                if next.outer_version.is_some() && next.outer_version != encap.version()
                    || next.outer_vlan && !encap.fields.contains_key(&Field::OuterVlan)
                {
                    return Err(TransposeError::OuterKind);
                }
                (next.outer_version, next.outer_vlan) = (None, false);
            }
        }
        next.outer = outer;
        let net = first.vlans.net();
        next.vlans = (next.vlans.0.saturating_sub(net), next.vlans.1.saturating_sub(net));
        self.merge(&next)?;
        Ok(self)
    }
}

/// What is asked of the outer group against what it is after the first: nothing is asked any more.
fn now(asked: Option<bool>, is: bool) -> Result<Option<bool>, TransposeError> {
    if asked.is_none_or(|asked| asked == is) { Ok(None) } else { Err(TransposeError::Outer) }
}
