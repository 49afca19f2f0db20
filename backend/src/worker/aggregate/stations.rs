// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which stations are behind which peers of a link, and which were announced to them (decision 24).
//!
//! # Theory of operation
//!
//! A station is behind the peer in whose aggregates it was last seen as a source, and belongs to the node that the group came from. A
//! peer is known here by the number of its *stay*: when it goes, what is known of it is no longer true and is not asked for; the
//! stations are forgotten by and by. So neither a peer's going nor time costs a look at all stations at once.
//!
//! A station that is seen in a plain frame, long after it was seen in an aggregate, has moved to somebody unaware.
//!
//! The way to a node is by the peer behind which it was seen last. It is forgotten as a station is, and when the node is seen on another
//! link: who was on the way once would drop what is no longer for somebody behind it.

use packet::MacAddr;

use super::table::Table;

/// Stations that are remembered; behind others packets go plain.
const MAX_STATIONS: usize = 65_536;
/// How long a silent station is remembered, in milliseconds: as long as a bridge remembers it.
const STATION_MS: u32 = 300_000;
/// A plain frame of a station counts as a move if it was not in an aggregate for so long.
const MOVED_MS: u32 = 5_000;
/// A station is announced again after so long: before a bridge forgets it, and before peers do.
const ANNOUNCE_MS: u32 = 60_000;
/// That a station has moved is told no more often.
const TELL_MS: u32 = 1_000;
/// Of how many stations a newcomer's welcome is chosen.
const WELCOMED_OF: usize = 8_192;
/// Nodes that are remembered: as many as there are ids.
const MAX_NODES: usize = 65_536;
/// How many stations are looked at in a sweep: all of them in some seconds.
const SWEPT: usize = 1_024;

/// A peer, from the time when its aggregates are taken until they are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stay(pub(super) u32);

/// The stations of a link.
#[derive(Debug)]
pub(super) struct Stations {
    /// The node's id.
    node: u16,
    behind: Table<MacAddr, Behind>,
    announced: Table<MacAddr, Announced>,
    /// Whether any of these is another node's.
    has_foreign: bool,
    /// How often somebody has come that knows none of the node's own stations.
    newcomers: u32,
    /// Nodes behind peers, as their groups said.
    nodes: Table<u16, Way>,
    /// Stations that are new here, and their nodes: to be told on other links.
    news: Vec<(MacAddr, u16)>,
}

/// A station that was seen inside an aggregate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Behind {
    pub(super) peer: Stay,
    /// Where it is.
    pub(super) node: u16,
    seen_ms: u32,
    told_ms: u32,
}

/// How a node is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) peer: Stay,
    seen_ms: u32,
}

/// A station that was announced to the peers.
#[derive(Clone, Copy, Debug)]
struct Announced {
    /// Whose it is.
    node: u16,
    at_ms: u32,
    /// After how many newcomers.
    newcomers: u32,
    /// Whether it was for a plain frame that went as well.
    with_plain: bool,
}

impl Stations {
    pub(super) fn new(node: u16) -> Self {
        Self {
            node,
            behind: Table::new(MAX_STATIONS),
            announced: Table::new(MAX_STATIONS),
            has_foreign: false,
            newcomers: 0,
            nodes: Table::new(MAX_NODES),
            news: Vec::new(),
        }
    }

    /// A station was seen inside an aggregate. `is_here`: whether a peer has not gone.
    pub(super) fn learn(
        &mut self,
        station: MacAddr,
        peer: Stay,
        node: u16,
        now_ms: u32,
        is_here: impl Fn(Stay) -> bool,
    ) {
        if !station.is_unicast() || node == self.node {
            return;
        }
        let known = self.behind.get(station).copied().filter(|known| is_here(known.peer));
        let is_news = known.is_none_or(|known| {
            let moved = (known.peer, known.node) != (peer, node);
            // What is announced at an interval comes sooner now and then.
            now_ms.wrapping_sub(known.told_ms) >= if moved { TELL_MS } else { ANNOUNCE_MS - TELL_MS }
        });
        let told_ms = if is_news { now_ms } else { known.map_or(now_ms, |known| known.told_ms) };
        if !self.behind.insert(station, Behind { peer, node, seen_ms: now_ms, told_ms }) {
            return;
        }
        if is_news {
            self.news.push((station, node));
        }
        self.announced.remove(station);
    }

    /// A node was seen behind a peer. Returns whether it was not the last time.
    pub(super) fn learn_way(&mut self, node: u16, peer: Stay, now_ms: u32) -> bool {
        if node == self.node {
            return false;
        }
        let is_new = self.nodes.get(node).is_none_or(|known| known.peer != peer);
        self.nodes.insert(node, Way { peer, seen_ms: now_ms });
        is_new
    }

    /// A node was seen elsewhere.
    pub(super) fn forget_way(&mut self, node: u16) {
        self.nodes.remove(node);
    }

    /// A station was seen in a plain frame, or on another link. Returns behind whom it is no longer, if that is so.
    pub(super) fn heard_plain(&mut self, station: MacAddr, now_ms: u32) -> Option<Stay> {
        if self.behind.is_empty() {
            return None;
        }
        let known = self.behind.get(station).filter(|known| now_ms.wrapping_sub(known.seen_ms) > MOVED_MS)?;
        let peer = known.peer;
        self.behind.remove(station);
        Some(peer)
    }

    /// Where a station is that was seen inside an aggregate; the peer may have gone.
    #[inline]
    pub(super) fn behind(&self, station: MacAddr) -> Option<Behind> {
        self.behind.get(station).copied()
    }

    /// Behind which peer a node was lately, and how many milliseconds ago; the peer may have gone.
    pub(super) fn way(&self, node: u16, now_ms: u32) -> Option<(Stay, u32)> {
        let way = self.nodes.get(node)?;
        let since = now_ms.wrapping_sub(way.seen_ms);
        (since < STATION_MS).then_some((way.peer, since))
    }

    /// Stations behind peers that have not gone, and their nodes: some, if there are many.
    pub(super) fn some(&self, is_here: impl Fn(Stay) -> bool) -> impl Iterator<Item = (MacAddr, u16)> {
        let here = self.behind.iter().take(WELCOMED_OF).filter(move |(_, known)| is_here(known.peer));
        here.map(|(station, known)| (station, known.node))
    }

    /// Whether there are stations that are new here.
    pub(super) fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    /// Stations that are new here since this was last asked.
    pub(super) fn take_news(&mut self) -> Vec<(MacAddr, u16)> {
        std::mem::take(&mut self.news)
    }

    /// Somebody has come that knows none of the node's own stations. Returns how often that was so, at least 1.
    pub(super) fn greet(&mut self) -> u32 {
        self.newcomers = self.newcomers.wrapping_add(1).max(1);
        self.newcomers
    }

    /// The node at which a station is that sends here.
    #[inline]
    pub(super) fn origin_of(&self, station: MacAddr) -> u16 {
        // Nearly all stations are the node's own, and then nobody's have been announced here.
        if !self.has_foreign {
            return self.node;
        }
        self.announced.get(station).map_or(self.node, |announced| announced.node)
    }

    /// Whether a station that is not behind a peer is to be announced as the node's own. One that was announced as another's a while ago is
    /// that other's.
    #[inline]
    pub(super) fn should_announce(&self, station: MacAddr, now_ms: u32) -> bool {
        if !station.is_unicast() {
            return false;
        }
        let Some(last) = self.announced.get(station) else {
            // If there are too many, not all are told of.
            return !self.announced.is_full();
        };
        let since = now_ms.wrapping_sub(last.at_ms);
        if last.node == self.node {
            return last.newcomers != self.newcomers || since >= ANNOUNCE_MS;
        }
        since >= 2 * ANNOUNCE_MS
    }

    /// A station is announced as a node's; `with_plain`: for a plain frame that goes. Returns after how many newcomers that was said
    /// lately: only who came later is to be told. 0: all are.
    pub(super) fn announce(&mut self, station: MacAddr, node: u16, with_plain: bool, now_ms: u32) -> u32 {
        let lately = |last: &&Announced| now_ms.wrapping_sub(last.at_ms) < ANNOUNCE_MS - TELL_MS;
        let said = self.announced.get(station).filter(|last| last.node == node).filter(lately).copied();
        let announced = Announced {
            node,
            // The others are told again when it is time.
            at_ms: said.map_or(now_ms, |said| said.at_ms),
            newcomers: self.newcomers,
            with_plain: with_plain || said.is_some_and(|said| said.with_plain),
        };
        if self.announced.insert(station, announced) {
            self.has_foreign |= node != self.node;
        }
        said.map_or(0, |said| said.newcomers)
    }

    /// Whether a station was announced in the last `within_ms` milliseconds for a plain frame that went as well.
    pub(super) fn went_plain(&self, station: MacAddr, within_ms: u32, now_ms: u32) -> bool {
        let last = self.announced.get(station).filter(|last| last.with_plain);
        last.is_some_and(|last| now_ms.wrapping_sub(last.at_ms) < within_ms)
    }

    /// Forgets some of the stations that have been silent for long or whose peer has gone. Returns whether there was one of the
    /// former.
    pub(super) fn sweep(&mut self, now_ms: u32, is_here: impl Fn(Stay) -> bool) -> bool {
        let mut was_silent = false;
        self.behind.sweep(SWEPT, |known| {
            let (speaks, here) = (now_ms.wrapping_sub(known.seen_ms) < STATION_MS, is_here(known.peer));
            was_silent |= here && !speaks;
            here && speaks
        });
        self.announced.sweep(SWEPT, |announced| now_ms.wrapping_sub(announced.at_ms) < 2 * ANNOUNCE_MS);
        self.nodes.sweep(SWEPT, |way| now_ms.wrapping_sub(way.seen_ms) < STATION_MS && is_here(way.peer));
        was_silent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: u16 = 1;
    const SECOND: u32 = 1000;

    fn station(n: u32) -> MacAddr {
        let [a, b, c, d] = n.to_be_bytes();
        MacAddr([2, 7, a, b, c, d])
    }

    /// So many stations behind a peer, the first at the given time and one each second.
    fn some_behind(peer: Stay, first: u32, n: u32) -> Stations {
        let mut stations = Stations::new(OWN);
        for i in 0..n {
            stations.learn(station(i), peer, 2, first + i * SECOND, |_| true);
        }
        stations
    }

    #[test]
    fn silent_stations_are_forgotten_and_others_are_not() {
        let mut stations = some_behind(Stay(1), 0, 200);
        assert!(stations.sweep(STATION_MS + 99 * SECOND, |_| true));
        let known: Vec<_> = (0..200).map(|i| stations.behind(station(i)).is_some()).collect();
        assert_eq!(known, (0..200).map(|i| i > 99).collect::<Vec<_>>());
    }

    /// Work of a turn is bounded, however many there are and whatever happens to all of them at once.
    #[test]
    fn a_sweep_looks_at_some_of_many() {
        let mut stations = Stations::new(OWN);
        let most = u32::try_from(MAX_STATIONS).unwrap();
        for i in 0..most + 5 {
            stations.learn(station(i), Stay(1), 2, 0, |_| true);
        }
        assert_eq!((stations.behind.iter().count(), stations.take_news().len()), (MAX_STATIONS, MAX_STATIONS));
        // The peer goes: they are not told of any more, and go a part at a time.
        let is_gone = |_| false;
        assert_eq!(stations.some(is_gone).count(), 0);
        for sweep in 1..=MAX_STATIONS / SWEPT {
            assert!(!stations.sweep(0, is_gone), "they have not been silent");
            assert_eq!(stations.behind.iter().count(), MAX_STATIONS - sweep * SWEPT);
        }
        for i in 0..most + 5 {
            stations.announce(station(i), OWN, true, 0);
        }
        assert_eq!(stations.announced.iter().count(), MAX_STATIONS);
        assert!(!stations.should_announce(station(most + 9), 0), "there is no room to remember it");
    }

    /// What was known of a peer does not outlive it, though the stations are still there.
    #[test]
    fn a_peer_that_comes_back_with_another_id_is_told_of_at_once() {
        let mut stations = some_behind(Stay(1), 0, 1);
        assert_eq!(stations.take_news(), [(station(0), 2)]);
        stations.learn(station(0), Stay(2), 3, 10, |stay| stay == Stay(2));
        assert_eq!(stations.take_news(), [(station(0), 3)]);
        assert_eq!(stations.behind(station(0)).map(|known| known.peer), Some(Stay(2)));
        // One that only moves, and back, and back, is told of now and then.
        for i in 0..100 {
            stations.learn(station(0), Stay(2), 3 + i % 2, 10 + u32::from(i) * 100, |_| true);
        }
        assert_eq!(stations.take_news().len(), 9);
    }

    #[test]
    fn ways_are_forgotten_as_stations_are() {
        let mut stations = Stations::new(OWN);
        assert!(stations.learn_way(2, Stay(1), 0) && !stations.learn_way(2, Stay(1), 5));
        assert!(!stations.learn_way(OWN, Stay(1), 5), "there is no way to itself");
        assert_eq!((stations.way(2, 7), stations.way(OWN, 7)), (Some((Stay(1), 2)), None));
        assert!(stations.way(2, 4 + STATION_MS).is_some() && stations.way(2, 5 + STATION_MS).is_none());
        assert!(stations.learn_way(2, Stay(2), 10), "another way");
        for node in 0..=u16::MAX {
            stations.learn_way(node, Stay(2), 10);
        }
        assert_eq!(stations.nodes.iter().count(), MAX_NODES - 1, "all but itself");
        stations.forget_way(7);
        assert_eq!((stations.way(7, 10), stations.way(8, 10)), (None, Some((Stay(2), 0))));
        for _ in 0..MAX_NODES / SWEPT {
            stations.sweep(10, |_| false);
        }
        assert_eq!(stations.nodes.iter().count(), 0);
    }

    #[test]
    fn stations_that_went_plain_lately_are_known() {
        let mut stations = Stations::new(OWN);
        stations.announce(station(0), OWN, true, 5);
        stations.announce(station(1), OWN, false, 5);
        let went = |n, now_ms| stations.went_plain(station(n), 1000, now_ms);
        assert_eq!([went(0, 1004), went(0, 1005), went(1, 6), went(2, 6)], [true, false, false, false]);
    }

    #[test]
    fn announcements_are_made_again_for_time_and_newcomers() {
        let mut stations = Stations::new(OWN);
        assert!(stations.should_announce(station(0), 0) && !stations.should_announce(MacAddr::BROADCAST, 0));
        stations.announce(station(0), OWN, true, 0);
        stations.announce(station(1), 5, false, 0);
        assert!(
            !stations.should_announce(station(0), ANNOUNCE_MS - 1) && stations.should_announce(station(0), ANNOUNCE_MS)
        );
        assert_eq!(stations.greet(), 1);
        assert!(stations.should_announce(station(0), 1) && !stations.should_announce(station(1), 1));
        // Who came before was told lately, and again when it is time; of what is new, all are.
        let mut told = |n, node, now_ms| stations.announce(station(n), node, true, now_ms);
        assert_eq!([told(2, OWN, 1), told(1, 6, 1), told(1, 5, 1), told(0, OWN, 1), told(0, OWN, 2)], [0, 0, 0, 0, 1]);
        assert_eq!([told(0, OWN, ANNOUNCE_MS - TELL_MS - 1), told(0, OWN, ANNOUNCE_MS - TELL_MS)], [1, 0]);
        assert_eq!((stations.origin_of(station(0)), stations.origin_of(station(1))), (OWN, 5));
        stations.sweep(1 + 2 * ANNOUNCE_MS, |_| true);
        assert_eq!(stations.origin_of(station(1)), OWN, "it was announced long ago");
    }
}
