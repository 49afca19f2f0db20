// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Stations that a bridge between nodes would forget.
//!
//! # Theory of operation
//!
//! A bridge that knows nothing of aggregates learns from the headers that it sees, and of those who speak in aggregates only it sees the
//! nodes. It would forget them, and flood what unaware stations send to them. So a node shows it their addresses: for each station
//! whose packets go to a link only in aggregates it sends a plain frame from the station's address there, in a third of the time after
//! which bridges forget. The frame is a reverse ARP request that nobody answers, and goes to the group address of HELLOs: who does not
//! know that one ignores it, and who does knows that the station has not moved. Nodes pass such frames on to other links, where
//! there may be bridges, too, and not to guests.
//!
//! The worker that has a link walks its bridge's table, so many stations in each interval that it comes round in time: no packet costs
//! more, and nothing is remembered about a station.

use packet::EtherType;
use packet::synth::rarp_announcement;
use switch::bridge::Entry;

use super::super::bridge::Path;
use super::super::uplink::UplinkTx;
use super::wire::EVERYBODY;
use crate::topology::{Forwarding, Route, Routes};

/// How often a station is shown. Bridges forget after 300 s, unless they are told otherwise.
const EVERY_NS: u64 = 100_000_000_000;
const EVERY_MS: u32 = 100_000;
/// How long news of a station may take from one worker to another.
const SLACK_NS: u64 = 10_000_000_000;
/// Most frames of this kind that one worker sends in a second; if there are more stations it takes longer to come round.
const PER_SECOND: u64 = 256;
/// The longest time that is made up for at once.
const LONGEST_NS: u64 = 1_000_000_000;
const SECOND_NS: u64 = 1_000_000_000;

/// How far a worker is on its round.
#[derive(Debug, Default)]
pub(in crate::worker) struct Round {
    /// The next bucket of the bridge's table.
    bucket: usize,
    /// Time that has not been used for buckets, and for frames.
    buckets_ns: u64,
    frames_ns: u64,
}

/// Whether a frame is there to show bridges a station that has not moved.
#[inline]
pub(in crate::worker) fn is_refresh(head: &[u8]) -> bool {
    head.starts_with(&EVERYBODY.0) && head.get(12..14) == Some(&EtherType::RARP.0.to_be_bytes())
}

impl Path {
    /// Shows the bridges on aware links the stations whose turn it is, `elapsed_ns` after it did so last.
    pub(in crate::worker) fn refresh_bridges(&mut self, now_ns: u64, elapsed_ns: u64) {
        let Self { bridge, uplinks, routes, round, .. } = self;
        let elapsed_ns = elapsed_ns.min(LONGEST_NS);
        if !uplinks.iter().any(|uplink| may_need(uplink, routes)) {
            return;
        }
        let mut frames = take_share(&mut round.frames_ns, elapsed_ns, PER_SECOND, SECOND_NS);
        let lately_ns = EVERY_NS.max(bridge.announced_every_ns().saturating_add(SLACK_NS));
        let buckets = u64::try_from(bridge.buckets()).unwrap_or(u64::MAX);
        for _ in 0..take_share(&mut round.buckets_ns, elapsed_ns, buckets, EVERY_NS).min(buckets) {
            if frames == 0 {
                return;
            }
            // A bucket is gone through to its end: the next time begins with the next.
            for entry in bridge.bucket(round.bucket) {
                for at in 0..uplinks.len() {
                    if is_there(routes, entry, now_ns, lately_ns) && is_due(uplinks, at, routes, entry, now_ns) {
                        frames = frames.saturating_sub(1);
                        uplinks.get_mut(at).into_iter().for_each(|uplink| show(uplink, entry));
                    }
                }
            }
            round.bucket = (round.bucket + 1) % bridge.buckets().max(1);
        }
    }
}

/// How many of so many in a `period` are due after `elapsed` more. What is left of the time counts the next time.
fn take_share(left_ns: &mut u64, elapsed_ns: u64, of: u64, period_ns: u64) -> u64 {
    let time = u128::from(left_ns.saturating_add(elapsed_ns)) * u128::from(of);
    let period = u128::from(period_ns.max(1));
    *left_ns = u64::try_from(time % period / u128::from(of.max(1))).unwrap_or(0);
    u64::try_from(time / period).unwrap_or(u64::MAX)
}

/// Whether there may be a bridge between this end of a link and somebody who is sent aggregates.
fn may_need(uplink: &UplinkTx, routes: &Routes) -> bool {
    let is_shared = uplink.wire.as_ref().is_some_and(|wire| !wire.config.one_peer && wire.takes_any());
    is_shared && routes.forwarding(uplink.port) == Forwarding::Bridged
}

/// Whether a station that is there is to be shown on a link: it is behind this node, and does not show itself.
fn is_due(uplinks: &[UplinkTx], at: usize, routes: &Routes, entry: Entry, now_ns: u64) -> bool {
    let Some(uplink) = uplinks.get(at) else { return false };
    let Some(wire) = &uplink.wire else { return false };
    let knows = |uplink: &UplinkTx| uplink.wire.as_ref().is_some_and(|wire| wire.knows(entry.mac));
    entry.port != uplink.port
        && may_need(uplink, routes)
        && routes.forwarding(entry.port) == Forwarding::Bridged
        && !wire.went_plain(entry.mac, EVERY_MS, now_ns)
        // Who is behind another node is shown by that one. On links where it is not, it is no matter who said that it is behind somebody.
        && !uplinks.iter().filter(|uplink| uplink.port == entry.port).any(knows)
}

/// Whether a station was at its port lately: one that fell silent may have moved, and so may one whose port has nobody any more.
fn is_there(routes: &Routes, entry: Entry, now_ns: u64, lately_ns: u64) -> bool {
    routes.to(entry.port, 0) != Route::None && (entry.is_fixed() || now_ns.saturating_sub(entry.seen_ns) < lately_ns)
}

fn show(uplink: &mut UplinkTx, entry: Entry) {
    let mut frame = rarp_announcement(entry.mac);
    frame.iter_mut().zip(EVERYBODY.0).for_each(|(to, from)| *to = from);
    uplink.send_bytes(&frame);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_whatever_the_steps() {
        for (of, period, steps) in [(3, 10, 1000), (256, 1_000_000_000, 777), (1, 7, 50), (2048, 100, 3)] {
            for step in [1, 3, 99, 1_000_000] {
                let (mut left, mut taken) = (0, 0);
                for _ in 0..steps {
                    taken += take_share(&mut left, step, of, period);
                }
                let due = of * step * steps / period;
                // Rounding a remainder down loses less than a nanosecond each time.
                assert!(taken <= due && taken + of * steps / period + 1 >= due, "{taken} of {due}");
            }
        }
    }
}
