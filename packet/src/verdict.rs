// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What was decided about a packet.

use std::fmt;

use crate::PortId;

/// What is to happen to a packet of a [`Burst`](crate::Burst).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// Nobody has decided yet. The only state in which a forwarder may judge the packet.
    #[default]
    Pending,
    /// Deliver to this port.
    Forward(PortId),
    /// Deliver to this port, whose policy has been applied already.
    Deliver(PortId),
    /// Deliver to every bridged port but the one it came from.
    Flood,
    /// Deliver to nobody, and count it under this cause.
    Drop(DropCause),
    /// Keep a copy: what policy does with it cannot be said yet. If that stays so, this is why it is dropped.
    Park(DropCause),
    /// A copy was kept, and there is nothing more to do.
    Parked,
    /// It was for the node itself.
    Taken,
    /// Nothing was done: the packets of its run are to be looked at one by one, as if they had just come.
    Expand,
    /// Likewise, but they have left the port that they came from, and are for this one.
    ExpandTo(PortId),
}

/// Declares the causes once, so that the enum, the labels and the list cannot drift apart.
macro_rules! drop_causes {
    ($($(#[doc = $doc:literal])+ $variant:ident => $label:literal,)+) => {
        /// Why a packet was dropped. The list is exhaustive: it is also the set of metric labels.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum DropCause {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl DropCause {
            /// Every cause, in the order of [`DropCause::index`].
            pub const ALL: [Self; [$($label),+].len()] = [$(Self::$variant),+];

            /// The cause as a metric label, in `snake_case`.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$variant => $label,)+
                }
            }
        }
    };
}

drop_causes! {
    /// An aggregate, or a frame that negotiates about them, from who has not negotiated, or who may not.
    Aggregate => "aggregate",
    /// A fragment that overlaps another, or is shorter than the header that it should begin with.
    BadFragment => "bad_fragment",
    /// The offload metadata contradicts the frame: an offset beyond its end, an unknown kind.
    BadOffload => "bad_offload",
    /// The outer header of a packet whose sender takes no notice of congestion was marked with it
    /// (RFC 6040, 4.2).
    EcnNotCapable => "ecn_not_capable",
    /// There is no room for another flow or connection.
    FlowTableFull => "flow_table_full",
    /// The first fragment of its packet did not come in time.
    FragmentTimeout => "fragment_timeout",
    /// The ring to the worker that serves the destination was full.
    HandoverFull => "handover_full",
    /// A header needed for the decision reaches beyond the private window.
    HeaderBeyondWindow => "header_beyond_window",
    /// The frame exceeds the destination link's MTU.
    LinkMtu => "link_mtu",
    /// A header that its frame cuts short, or with an impossible length.
    Malformed => "malformed",
    /// No address and port is left for a new connection to its destination.
    NatExhausted => "nat_exhausted",
    /// The destination had posted too few receive buffers.
    NoBuffers => "no_buffers",
    /// It would have to be translated, and belongs to no connection.
    NoConnection => "no_connection",
    /// There is no port to deliver to: a flood with nobody else, a cross-connect without its peer.
    NoDestination => "no_destination",
    /// There is no room before the frame for the headers to be put on.
    NoHeadroom => "no_headroom",
    /// The directory said that there is no such address.
    NoMapping => "no_mapping",
    /// The destination port exists, but nobody is attached or its queue is not started.
    NotReady => "not_ready",
    /// The pool that holds packets beyond their burst was full.
    ParkFull => "park_full",
    /// Too many flows began at its port in too short a time.
    PlanBudget => "plan_budget",
    /// A rule of the port's policy says so.
    PolicyBlock => "policy_block",
    /// No rule of a layer of the port's policy matches, and its default says so.
    PolicyDefault => "policy_default",
    /// The destination queue is broken: its driver did something malformed.
    QueueBroken => "queue_broken",
    /// The destination lies behind the port the frame came from.
    Reflection => "reflection",
    /// A link-local destination (01-80-C2-00-00-0x), which no bridge forwards (IEEE 802.1D 7.12.6).
    ReservedAddress => "reserved_address",
    /// Shorter than an Ethernet header.
    Runt => "runt",
    /// The source is not one that the port may have.
    SpoofedSource => "spoofed_source",
    /// Longer than any buffer the destination posted, or than a frame may be.
    TooBig => "too_big",
    /// The TTL or hop limit is spent.
    TtlExpired => "ttl_expired",
    /// The destination's number is not that of a port, or no longer.
    UnknownPort => "unknown_port",
    /// The directory, or the neighbour, did not answer in time.
    Unresolved => "unresolved",
    /// Needs segmentation that software cannot do for this frame.
    Unsegmentable => "unsegmentable",
    /// A rule of the port's policy changes headers that the packet has not.
    Untransposable => "untransposable",
    /// The kernel found no room in the uplink's receive ring.
    UplinkFull => "uplink_full",
}

impl DropCause {
    /// Number of causes: the size of a table with a counter for each.
    pub const COUNT: usize = Self::ALL.len();

    /// Position in [`DropCause::ALL`], below [`DropCause::COUNT`].
    #[inline]
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for DropCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn causes_are_numbered_as_listed() {
        for (i, cause) in DropCause::ALL.into_iter().enumerate() {
            assert_eq!(cause.index(), i);
        }
    }

    #[test]
    fn labels_are_unique_snake_case_and_sorted() {
        let labels: Vec<_> = DropCause::ALL.iter().map(|c| c.label()).collect();
        assert_eq!(labels.iter().collect::<HashSet<_>>().len(), DropCause::COUNT);
        assert!(labels.is_sorted());
        for label in labels {
            assert!(label.bytes().all(|b| b == b'_' || b.is_ascii_lowercase()), "{label}");
        }
    }

    #[test]
    fn a_verdict_is_four_bytes() {
        assert_eq!(size_of::<Verdict>(), 4);
    }
}
