// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is known on one link is told on the others: what is new, to all; what is known, to who comes.

use aggregation::Trigger;

use super::super::bridge::Path;

/// Stations that newcomers are told of at once; they learn of others as those speak.
const WELCOME: usize = 1024;

impl Path {
    /// Lets time pass at all wires, and tells on each what is new on the others.
    pub(in crate::worker) fn tick_wires(&mut self, now_ns: u64) {
        for at in 0..self.uplinks.len() {
            let Some(link) = self.uplinks.get_mut(at) else { break };
            let Some(wire) = &link.wire else { continue };
            // What is open is sent under what was agreed.
            if wire.is_due(now_ns) {
                link.ship_all(Trigger::Order);
            }
            if link.tick_wire(now_ns) {
                link.ship_all(Trigger::Order);
            }
            link.speak(now_ns);
            self.spread_news(at, now_ns);
            self.welcome(at, now_ns);
        }
    }

    /// Tells newcomers on a wire of the stations that are known on the others.
    fn welcome(&mut self, uplink: usize, now_ns: u64) {
        let Some(wire) = self.uplinks.get_mut(uplink).and_then(|link| link.wire.as_mut()) else { return };
        let newcomers = wire.take_newcomers(now_ns);
        if newcomers.is_empty() {
            return;
        }
        let own = wire.node;
        let others = self.uplinks.iter().enumerate().filter(|(at, _)| *at != uplink);
        let wires = others.filter_map(|(_, link)| link.wire.as_ref());
        let known = wires.flat_map(|wire| {
            // As in news: nodes that are not believed are not told of.
            wire.some_stations().map(|(station, node)| (station, if wire.config.trusted { node } else { own }))
        });
        let known: Vec<_> = known.take(WELCOME).collect();
        let Some(link) = self.uplinks.get_mut(uplink) else { return };
        for (station, node) in known {
            link.wire.iter_mut().for_each(|wire| wire.remember(station, node, now_ns));
            newcomers.iter().for_each(|peer| link.tell(*peer, station, node));
        }
    }

    /// Tells on all other wires what is new on one.
    pub(in crate::worker) fn spread_news(&mut self, uplink: usize, now_ns: u64) {
        let Some(wire) = self.uplinks.get_mut(uplink).and_then(|link| link.wire.as_mut()) else { return };
        if !wire.has_news() {
            return;
        }
        // Nodes that are not believed are not told of: who wants to reach them asks this one.
        let (own, trusted) = (wire.node, wire.config.trusted);
        let mut news = wire.take_news();
        news.iter_mut().filter(|_| !trusted).for_each(|(_, node)| *node = own);
        for (at, link) in self.uplinks.iter_mut().enumerate() {
            if at != uplink {
                news.iter().for_each(|(station, node)| link.announce_station(*station, *node, false, now_ns));
            }
        }
    }
}
