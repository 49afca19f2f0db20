// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a link is made with, what it tells, and what it counts.

use super::{Grant, Offer};

/// What a side of a link is.
#[derive(Clone, Debug)]
pub struct Config<A> {
    /// Its node id, not 0.
    pub node: u16,
    /// A random number that no earlier incarnation had, not 0.
    pub session: u32,
    /// What it can do.
    pub offer: Offer,
    /// Its name, for people; what is beyond [`MAX_NAME`](super::MAX_NAME) bytes is not sent.
    pub name: Vec<u8>,
    /// Whom it speaks to unasked.
    pub announce: Announce<A>,
    /// Most peers at a time.
    pub max_peers: usize,
}

/// Whom a side speaks to unasked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announce<A> {
    /// Nobody: it is the passive side.
    Never,
    /// The one at this address.
    Peer(A),
    /// Everybody, by this group address, for ever.
    Group(A),
}

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<A> {
    /// Aggregates from this address are to be taken from now on.
    Accept {
        /// Where from.
        address: A,
        /// The peer's node id.
        node: u16,
    },
    /// Aggregates may be sent to this address from now on.
    Up {
        /// Where to.
        address: A,
        /// The peer's node id.
        node: u16,
        /// What they may be like.
        grant: Grant,
    },
    /// Neither any more.
    Down {
        /// The peer's address.
        address: A,
        /// The peer's node id.
        node: u16,
        /// Why.
        why: Down,
    },
    /// Somebody was not taken as a peer.
    Refused {
        /// Its address.
        address: A,
        /// Its node id.
        node: u16,
        /// Why.
        reason: Reason,
    },
    /// Somebody does not take us as a peer.
    RefusedBy {
        /// Its address.
        address: A,
        /// Its node id.
        node: u16,
        /// Why.
        reason: Reason,
    },
}

/// Why a peer is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Down {
    /// It said BYE.
    Bye(Reason),
    /// We said BYE.
    Closed,
    /// Nothing was heard for three keepalives.
    Silent,
    /// It, or the link, started anew.
    Restarted,
}

/// What a BYE is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The sender stops.
    Closing,
    /// The sender does not know the session; begin anew.
    NoSession,
    /// Another station has the same node id.
    Duplicate,
    /// No version, encapsulation or size is common to both.
    Incompatible,
    /// The sender has as many peers as it can have.
    Full,
    /// A reason that this version does not know, or none.
    Other(u8),
}

/// How often what happened on a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Control frames that were understood, by [`Message`](super::Message): HELLO, HELLO-ACK, KEEPALIVE, BYE.
    pub received: [u64; 4],
    /// Control frames that were sent, likewise.
    pub sent: [u64; 4],
    /// Control frames of earlier incarnations, late or repeated.
    pub stale: u64,
    /// Our own frames that came back.
    pub reflected: u64,
    /// Stations with a node id that somebody else has.
    pub duplicate_node: u64,
    /// Stations with which nothing is in common.
    pub incompatible: u64,
    /// Stations for which there was no room.
    pub peers_full: u64,
    /// Peers that went silent.
    pub silent: u64,
}

impl Reason {
    /// The code in a frame.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Closing => 1,
            Self::NoSession => 2,
            Self::Duplicate => 3,
            Self::Incompatible => 4,
            Self::Full => 5,
            Self::Other(code) => code,
        }
    }

    /// The reason of a code.
    #[must_use]
    pub const fn from_code(code: u8) -> Self {
        match code {
            1 => Self::Closing,
            2 => Self::NoSession,
            3 => Self::Duplicate,
            4 => Self::Incompatible,
            5 => Self::Full,
            code => Self::Other(code),
        }
    }
}
