// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Who decides about a port's packets.

use packet::PortId;

/// Who decides about the packets that come from a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarder {
    /// The MAC-learning [`Bridge`](crate::Bridge).
    Bridge,
    /// Nobody: every packet goes to this port, unseen.
    Connected(PortId),
}

/// Pairs of ports that are wired back to back. A port in no pair is bridged.
///
/// ```
/// use packet::PortId;
/// use switch::{CrossConnect, Forwarder};
/// let wires = CrossConnect::new([(PortId(0), PortId(1))])?;
/// assert_eq!(wires.forwarder(PortId(1)), Forwarder::Connected(PortId(0)));
/// assert_eq!(wires.forwarder(PortId(2)), Forwarder::Bridge);
/// # Ok::<(), switch::CrossConnectError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CrossConnect {
    /// Indexed by port; ends with the highest port that is connected.
    peers: Vec<Option<PortId>>,
}

/// A pair of ports that cannot be wired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CrossConnectError {
    /// Both ends are the same port.
    #[error("port {port} cannot be connected to itself")]
    Loop {
        /// The port.
        port: PortId,
    },
    /// One end is in a pair already.
    #[error("port {port} is connected to port {peer} already")]
    Taken {
        /// The end that is not free.
        port: PortId,
        /// What it is connected to.
        peer: PortId,
    },
}

impl CrossConnect {
    /// The table of these pairs.
    ///
    /// # Errors
    /// As [`CrossConnect::connect`], for the first pair that cannot be wired.
    pub fn new(pairs: impl IntoIterator<Item = (PortId, PortId)>) -> Result<Self, CrossConnectError> {
        let mut wires = Self::default();
        for (a, b) in pairs {
            wires.connect(a, b)?;
        }
        Ok(wires)
    }

    /// Wires two ports back to back.
    ///
    /// # Errors
    /// If they are one port, or one of them is in a pair already; nothing is changed then.
    pub fn connect(&mut self, a: PortId, b: PortId) -> Result<(), CrossConnectError> {
        if a == b {
            return Err(CrossConnectError::Loop { port: a });
        }
        for port in [a, b] {
            if let Some(peer) = self.peer(port) {
                return Err(CrossConnectError::Taken { port, peer });
            }
        }
        self.set(a, Some(b));
        self.set(b, Some(a));
        Ok(())
    }

    /// Takes the pair apart that `port` is in, and returns the other end, which is bridged from now
    /// on as is `port`.
    pub fn disconnect(&mut self, port: PortId) -> Option<PortId> {
        let peer = self.peer(port)?;
        self.set(port, None);
        self.set(peer, None);
        while self.peers.last() == Some(&None) {
            self.peers.pop();
        }
        Some(peer)
    }

    /// The other end, if `port` is in a pair.
    #[inline]
    #[must_use]
    pub fn peer(&self, port: PortId) -> Option<PortId> {
        self.peers.get(port.index()).copied().flatten()
    }

    /// Who decides about packets from `port`.
    #[inline]
    #[must_use]
    pub fn forwarder(&self, port: PortId) -> Forwarder {
        self.peer(port).map_or(Forwarder::Bridge, Forwarder::Connected)
    }

    /// All pairs, each once, the lower port first.
    pub fn pairs(&self) -> impl Iterator<Item = (PortId, PortId)> + '_ {
        (0..=u16::MAX).map(PortId).zip(&self.peers).filter_map(|(port, peer)| {
            let peer = (*peer)?;
            (port < peer).then_some((port, peer))
        })
    }

    fn set(&mut self, port: PortId, peer: Option<PortId>) {
        if self.peers.len() <= port.index() {
            self.peers.resize(port.index() + 1, None);
        }
        if let Some(slot) = self.peers.get_mut(port.index()) {
            *slot = peer;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    #[test]
    fn a_port_cannot_meet_itself_or_two_others() {
        let (a, b, c) = (PortId(3), PortId(7), PortId(65535));
        assert_eq!(CrossConnect::new([(a, a)]), Err(CrossConnectError::Loop { port: a }));
        let mut wires = CrossConnect::new([(a, b)]).unwrap();
        let before = wires.clone();
        assert_eq!(wires.connect(c, b), Err(CrossConnectError::Taken { port: b, peer: a }));
        assert_eq!(wires.connect(b, a), Err(CrossConnectError::Taken { port: b, peer: a }));
        assert_eq!(wires, before);
        assert_eq!(wires.disconnect(b), Some(a));
        assert_eq!(wires, CrossConnect::default());
        wires.connect(c, b).unwrap();
        assert_eq!(wires.pairs().collect::<Vec<_>>(), [(b, c)]);
    }

    proptest! {
        #[test]
        fn the_table_is_a_symmetric_map(
            operations in vec((any::<bool>(), 0u16..12, 0u16..12), 0..60),
        ) {
            let mut wires = CrossConnect::default();
            let mut oracle = HashMap::new();
            for (connect, a, b) in operations {
                let (a, b) = (PortId(a), PortId(b));
                if connect {
                    let free = a != b && !oracle.contains_key(&a) && !oracle.contains_key(&b);
                    prop_assert_eq!(wires.connect(a, b).is_ok(), free);
                    if free {
                        oracle.insert(a, b);
                        oracle.insert(b, a);
                    }
                } else {
                    let peer = oracle.remove(&a);
                    if let Some(peer) = peer {
                        oracle.remove(&peer);
                    }
                    prop_assert_eq!(wires.disconnect(a), peer);
                }
                for port in (0..14).map(PortId) {
                    prop_assert_eq!(wires.peer(port), oracle.get(&port).copied());
                }
                let mut pairs: Vec<_> = oracle
                    .iter()
                    .map(|(a, b)| (*a, *b))
                    .filter(|(a, b)| a < b)
                    .collect();
                pairs.sort();
                prop_assert_eq!(wires.pairs().collect::<Vec<_>>(), pairs);
            }
        }
    }
}
