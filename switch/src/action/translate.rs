// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Translation of addresses: what the initiator's packets become, and what answers get back.

use packet::transpose::{Transposition, Value};
use packet::{DropCause, Field};

use super::{Deed, Situation, Standing, Stop, best, number_of};
use crate::flow::connections::Connections;
use crate::flow::tuple::Tuple;
use crate::model::{Balance, Content, Direction, Endpoint, Nat, PortRange, Source};

/// Ports that are tried for one connection. Lists that are not longer are searched whole.
const TRIES: u32 = 1024;

pub(super) fn nat(nat: &Nat, at: &Situation<'_>) -> Result<Deed, Stop> {
    let (before, kept) = initiator(at)?;
    let mut after = before;
    if let Some(destination) = nat.destination {
        aim(&mut after, destination)?;
    }
    let mut from_ranges = false;
    match &nat.source {
        None => {}
        Some(Source::Fixed(source)) => {
            after = after.reversed();
            aim(&mut after, *source)?;
            after = after.reversed();
        }
        Some(Source::Ranges(name)) => {
            let ranges = at.snapshot.resource(name).map(|resource| &resource.content);
            let Some(Content::Ranges(ranges)) = ranges else { return Err(Stop::drop(DropCause::Untransposable)) };
            from_ranges = true;
            after = match kept {
                Some(kept) => keep(after, kept, ranges)?,
                None => allocate(after, ranges, at)?,
            };
        }
    }
    translate(before, after, kept, Deed { remember: Some(nat.stateful), from_ranges, ..Deed::default() })
}

pub(super) fn balance(balance: &Balance, at: &Situation<'_>) -> Result<Deed, Stop> {
    let (before, kept) = initiator(at)?;
    let aimed = |backend: &Endpoint| {
        let mut after = before;
        aim(&mut after, *backend).ok().map(|()| after)
    };
    let still = kept.filter(|kept| balance.backends.iter().any(|backend| aimed(backend) == Some(*kept)));
    let chosen = match (kept, still) {
        (_, Some(kept)) => Some(kept),
        (Some(_), None) => return Err(Stop::Ended),
        (None, None) => {
            best(&balance.backends, |backend| before.choice(number_of(backend.address, backend.port.unwrap_or(0))))
                .and_then(aimed)
        }
    };
    let after = chosen.ok_or(Stop::drop(DropCause::Untransposable))?;
    translate(before, after, kept, Deed { remember: Some(balance.stateful), ..Deed::default() })
}

/// What makes packets of one tuple those of another. Only what differs is set.
pub(crate) fn change(before: Tuple, after: Tuple) -> Transposition {
    let mut change = Transposition::default();
    for (field, old, new) in
        [(Field::IpSrc, before.source, after.source), (Field::IpDst, before.destination, after.destination)]
    {
        if old != new {
            change = change.with(field, Value::from(after.address(new)));
        }
    }
    if before.source_port != after.source_port {
        change = change.with(Field::L4Src, Value::from(after.source_port));
    }
    // The two ports of an echo are one identifier.
    if before.destination_port != after.destination_port && !after.is_echo() {
        change = change.with(Field::L4Dst, Value::from(after.destination_port));
    }
    change
}

/// The tuple to translate, and what it became before, if that is remembered.
fn initiator(at: &Situation<'_>) -> Result<(Tuple, Option<Tuple>), Stop> {
    let nobodys = Stop::drop(DropCause::NoConnection);
    let Some(before) = at.tuple else { return Err(nobodys) };
    match at.standing {
        Standing::Beginning => Ok((before, None)),
        // In front of it, something else changed: then it is another connection.
        Standing::Initiator(Some(entry)) if entry.before != before => Err(Stop::Ended),
        Standing::Initiator(Some(entry)) => Ok((before, Some(entry.after))),
        // The connection has its names already: answers to others would not be its own.
        Standing::Initiator(None) | Standing::Responder | Standing::Stray | Standing::Stateless => Err(nobodys),
    }
}

/// Gives a tuple another destination.
fn aim(tuple: &mut Tuple, to: Endpoint) -> Result<(), Stop> {
    tuple.destination = tuple.bits_of(to.address).ok_or(Stop::drop(DropCause::Untransposable))?;
    // An echo's identifier names no service.
    if let Some(port) = to.port.filter(|_| tuple.has_ports() && !tuple.is_echo()) {
        tuple.destination_port = port;
    }
    Ok(())
}

/// The same source as it had, if the ranges still have it.
fn keep(mut after: Tuple, kept: Tuple, ranges: &[PortRange]) -> Result<Tuple, Stop> {
    let address = kept.address(kept.source);
    let allowed = ranges
        .iter()
        .any(|range| range.address == address && (!kept.has_ports() || range.contains(address, kept.source_port)));
    if !allowed {
        return Err(Stop::Ended);
    }
    after.source = kept.source;
    source_port(&mut after, kept.source_port);
    Ok(after)
}

/// A source of the ranges that makes the answers' name one that no other connection has.
fn allocate(after: Tuple, ranges: &[PortRange], at: &Situation<'_>) -> Result<Tuple, Stop> {
    let fitting = || ranges.iter().filter(|range| after.bits_of(range.address).is_some());
    let total: u32 = fitting().map(PortRange::len).sum();
    if total == 0 {
        return Err(Stop::drop(DropCause::Untransposable));
    }
    #[expect(clippy::cast_possible_truncation, reason = "any bits will do")]
    let start = after.choice(0) as u32 % total;
    let tries = if after.has_ports() { total.min(TRIES) } else { u32::try_from(fitting().count()).unwrap_or(1) };
    for attempt in 0..tries {
        let mut candidate = after;
        let range = if after.has_ports() {
            let (range, port) = nth(fitting(), (start + attempt) % total).ok_or(Stop::drop(DropCause::NatExhausted))?;
            source_port(&mut candidate, port);
            range
        } else {
            // Without ports an address serves one connection to each destination.
            fitting().nth(attempt as usize).ok_or(Stop::drop(DropCause::NatExhausted))?
        };
        candidate.source = candidate.bits_of(range.address).ok_or(Stop::drop(DropCause::Untransposable))?;
        if is_free(at.connections, at.direction, candidate, at.now_ns) {
            return Ok(candidate);
        }
    }
    Err(Stop::drop(DropCause::NatExhausted))
}

fn is_free(connections: &Connections, direction: Direction, candidate: Tuple, now_ns: u64) -> bool {
    connections.is_free(direction.reversed(), &candidate.reversed(), crate::engine::to_ms(now_ns))
}

/// The range and port that have this number when all are counted.
fn nth<'a>(ranges: impl Iterator<Item = &'a PortRange>, mut number: u32) -> Option<(&'a PortRange, u16)> {
    for range in ranges {
        if number < range.len() {
            return Some((range, u16::try_from(u32::from(range.first) + number).ok()?));
        }
        number -= range.len();
    }
    None
}

const fn source_port(tuple: &mut Tuple, port: u16) {
    if tuple.is_echo() {
        (tuple.source_port, tuple.destination_port) = (port, port);
    } else if tuple.has_ports() {
        tuple.source_port = port;
    }
}

/// The deed, with what it does to headers; not if the connection was given something else.
fn translate(before: Tuple, after: Tuple, kept: Option<Tuple>, deed: Deed) -> Result<Deed, Stop> {
    if kept.is_some_and(|kept| kept != after) {
        return Err(Stop::Ended);
    }
    Ok(Deed { transposition: Some(Box::new(change(before, after))), ..deed })
}
