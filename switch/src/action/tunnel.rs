// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Into a tunnel and out of it (VF-8, VF-13).

use core::net::IpAddr;

use packet::transpose::{Encap as Push, Transposition, Value};
use packet::{DropCause, Field, MacAddr};

use super::{Deed, Lookup, Request, Situation, Stop, best, number_of};
use crate::flow::tuple::Tuple;
use crate::model::{Answer, Content, Destination, Encap, Mapping};

pub(super) fn decap() -> Result<Deed, Stop> {
    Ok(Deed { transposition: Some(Box::new(Transposition::pop())), ..Deed::default() })
}

pub(super) fn encap(encap: &Encap, at: &Situation<'_>) -> Result<Deed, Stop> {
    let (far, lookup) = match &encap.destination {
        Destination::Among(ends) => {
            let tuple = at.tuple.unwrap_or(Tuple::NOBODY);
            let far = best(ends, |end| tuple.choice(number_of(*end, 0)));
            (far.map(|address| Mapping { address: *address, vni: None, mac: None }), None)
        }
        Destination::Mapped(map) => {
            let lookup = look_up(map, at)?;
            match lookup.answer {
                Some(Answer::Known(mapping)) => (Some(mapping), Some(Box::new(lookup))),
                _ => return Err(Stop::Drop(DropCause::NoMapping, Some(Box::new(lookup)))),
            }
        }
    };
    let untransposable = || Stop::Drop(DropCause::Untransposable, lookup.clone());
    let far = far.ok_or_else(untransposable)?;
    let vni = far.vni.or(encap.vni).ok_or_else(untransposable)?;
    let nobody = MacAddr::ZERO;
    let push = Push::new(encap.tunnel, vni, (nobody, encap.source), (nobody, far.address));
    let mut transposition = Transposition::push(push.with(Field::OuterDscp, Value::Copy(Field::Dscp)));
    if let Some(mac) = far.mac {
        transposition = transposition.with(Field::EthDst, Value::from(mac));
    }
    Ok(Deed { transposition: Some(Box::new(transposition)), lookup, ..Deed::default() })
}

/// What a map says about the packet's destination; a question if it says nothing (any more).
fn look_up(map: &crate::Name, at: &Situation<'_>) -> Result<Lookup, Stop> {
    let untransposable = Stop::drop(DropCause::Untransposable);
    let Some(address) = destination(at) else { return Err(untransposable) };
    let Some(resource) = at.snapshot.resource(map) else { return Err(untransposable) };
    let Content::Map(mappings) = &resource.content else { return Err(untransposable) };
    let answer = mappings.get(address).copied();
    match answer {
        Some(Answer::Known(_)) => {}
        Some(Answer::Unknown { until_ns }) if at.now_ns < until_ns => {}
        _ => {
            let (resource, controller) = (map.clone(), resource.controller.clone());
            return Err(Stop::Pending(Request { resource, controller, address }));
        }
    }
    Ok(Lookup { resource: map.clone(), address, answer })
}

/// The destination address; of ARP the target's.
fn destination(at: &Situation<'_>) -> Option<IpAddr> {
    let ufid = &at.key.ufid;
    let bits = ufid.get(Field::IpDst);
    match ufid.get(Field::IpVersion) {
        6 => Some(IpAddr::V6(bits.into())),
        4 => Some(IpAddr::V4(u32::try_from(bits).ok()?.into())),
        _ if ufid.get(Field::EtherType) == u128::from(packet::EtherType::ARP.0) => {
            Some(IpAddr::V4(u32::try_from(bits).ok()?.into()))
        }
        _ => None,
    }
}
