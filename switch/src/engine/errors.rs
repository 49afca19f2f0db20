// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! ICMP errors: about packets of connections, found by what they quote (decision 16).
//!
//! An error is planned by itself and leaves nothing behind: it neither begins a flow nor refreshes one. In a layer
//! that remembers the connection it is let through and translated with what it quotes; all others see it as any packet.

use core::net::IpAddr;

use packet::icmp::{self, Embedded, EmbeddedEdit};
use packet::{Burst, DropCause, Verdict};

use super::Outside;
use super::reconcile::Settled;
use super::shard::{Now, Place, Shard};
use super::treatment::{Fate, Treatment};
use crate::condition::{Key, REGISTERS};
use crate::flow::FlowKey;
use crate::flow::tuple::{ICMP, ICMPV6, Tuple};
use crate::plan::{Membership, Outcome};

impl Shard {
    /// Deals with an ICMP error.
    #[cold]
    #[inline(never)]
    pub(super) fn error(
        &mut self,
        burst: &mut Burst,
        place: &Place,
        key: &FlowKey<'_>,
        now: &Now<'_>,
        outside: &mut Outside<'_>,
    ) {
        self.stats.icmp_errors += 1;
        if !self.budget.take(now.ns, self.config.plans_per_second) {
            return self.refuse(burst, place.at);
        }
        let quoted = icmp::embedded(burst.window(place.at), &place.parsed);
        let answers = quoted.as_ref().and_then(tuple).map(Tuple::reversed);
        let connection = answers.and_then(|tuple| {
            let (at, role) = self.connections.find(now.direction, &tuple)?;
            self.hear_from_flows(at);
            let lives = !self.connections.is_over(at, now.ms);
            let goes = lives && !matches!(self.reconcile_connection(at, now), Settled::Ended);
            goes.then_some((at, role, tuple))
        });
        let member = connection.and_then(|(at, role, tuple)| Some((self.connections.get(at)?, role, tuple)));
        let membership = member.map_or(Membership::None, |(held, role, tuple)| Membership::About(held, role, tuple));
        let question = Key { ufid: place.parsed.ufid, registers: [0; REGISTERS] };
        let plan = self.plan(&question, membership, now);
        if let Outcome::Pending(request) = &plan.outcome {
            self.ask(request, now.ns, outside);
            outside.parked += 1;
            return burst.set_verdict(place.at, Verdict::Park(DropCause::Unresolved));
        }
        let path = self.paths.intern(&plan, now.snapshot);
        self.paths.count(path, 1, place.len.into());
        self.paths.release(path);
        let fate = now.fate(&plan.outcome, self.port);
        if let (Some(quoted), Some(before), Some(after)) = (&quoted, answers, plan.related)
            && !matches!(fate, Fate::Drop(_))
            && before != after
        {
            let checksum = burst.offload(place.at).checksum;
            let edit = edit(before.reversed(), after.reversed());
            if let Err(cause) = icmp::rewrite_embedded(burst.window_mut(place.at), quoted, &edit, checksum) {
                return burst.set_verdict(place.at, Verdict::Drop(cause));
            }
        }
        let (ufid, layout) = (&place.parsed.ufid, &place.parsed.layout);
        Treatment::compile(fate, &plan, ufid, layout).apply(burst, place.at, layout, key.hash);
    }
}

/// The tuple of what is quoted.
fn tuple(quoted: &Embedded) -> Option<Tuple> {
    let (source, destination, version) = match (quoted.src, quoted.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => (src.to_bits().into(), dst.to_bits().into(), 4),
        (IpAddr::V6(src), IpAddr::V6(dst)) => (src.to_bits(), dst.to_bits(), 6),
        _ => return None,
    };
    let (source_port, mut destination_port) = (quoted.src_port, quoted.dst_port);
    if matches!(quoted.proto, ICMP | ICMPV6) {
        // Only echoes have an identifier, which stands for both ports.
        let [_, kind] = destination_port.to_le_bytes();
        let echo = match version {
            4 => matches!(kind, 0 | 8),
            _ => matches!(kind, 128 | 129),
        };
        if !echo {
            return None;
        }
        destination_port = source_port;
    }
    Some(Tuple { source, destination, source_port, destination_port, protocol: quoted.proto, version })
}

/// What makes the quoted packet that of another tuple.
fn edit(before: Tuple, after: Tuple) -> EmbeddedEdit {
    let address = |old, new| (old != new).then(|| after.address(new));
    let port = |old, new| (old != new).then_some(new);
    EmbeddedEdit {
        src: address(before.source, after.source),
        dst: address(before.destination, after.destination),
        src_port: port(before.source_port, after.source_port),
        dst_port: port(before.destination_port, after.destination_port).filter(|_| !after.is_echo()),
    }
}
