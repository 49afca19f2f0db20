// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The keys of a `[[port]]` that bound its flows.

use std::ops::RangeInclusive;

use switch::engine::FlowLimits;

use super::error::Section;
use super::fields::Fields;
use super::{Fault, Place, Problem};

/// A key, what it can be, and what it says.
type Key = (&'static str, RangeInclusive<u32>, fn(&mut FlowLimits) -> &mut u32);

const KEYS: [Key; 3] = [
    ("max_flows", FlowLimits::CONFIRMED, |limits| &mut limits.confirmed),
    ("max_unconfirmed_flows", FlowLimits::UNCONFIRMED, |limits| &mut limits.unconfirmed),
    ("plans_per_second", FlowLimits::PLANS_PER_SECOND, |limits| &mut limits.plans_per_second),
];

/// The defaults, and what a port says instead.
pub(super) fn parse(fields: &Fields<'_>) -> Result<FlowLimits, Fault> {
    let mut limits = FlowLimits::default();
    for (key, range, place) in KEYS {
        if let Some(value) = fields.integer(key, (*range.start()).into(), (*range.end()).into())? {
            *place(&mut limits) = value;
        }
    }
    Ok(limits)
}

/// Checks limits that nobody has parsed.
pub(super) fn check(mut limits: FlowLimits) -> Result<(), Fault> {
    for (key, range, place) in KEYS {
        let found = *place(&mut limits);
        if !range.contains(&found) {
            let (min, max) = ((*range.start()).into(), (*range.end()).into());
            let problem = Problem::OutOfRange { section: Section("port"), key, found: found.into(), min, max };
            return Err(Place::in_port(0, key).fault(problem));
        }
    }
    Ok(())
}
