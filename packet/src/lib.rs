// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a packet is.
//!
//! This crate is pure: no I/O, no clock, no threads, no `unsafe`. Every function takes bytes that a
//! hostile guest may have written and answers with a value or an error; none panics. Multi-byte
//! fields are in network order unless a name says otherwise.
//!
//! | module | what it holds |
//! |---|---|
//! | [`burst`] | [`Burst`]: up to 64 packets as a structure of arrays, what workers and the switch pass around |
//! | [`port`] | [`PortId`]: which port a packet came from or goes to |
//! | [`verdict`] | [`Verdict`] and [`DropCause`]: what was decided about a packet, and why it died |
//! | [`offload`] | [`Offload`]: what the sender left for others to do (checksum, segmentation) |
//! | [`ethernet`] | [`MacAddr`], [`EtherType`], [`EthernetHeader`] |
//! | [`checksum`] | the Internet checksum: whole, streamed, incremental, and finishing an unfinished one |
//! | [`segment`] | [`Segmenter`]: one oversized TCP or UDP frame, tunnelled or not, cut into finished ones |
//! | [`filter`] | [`Filter`](filter::Filter): which packets somebody wants to see, in the words of pcap-filter(7) |
//! | [`icmp`] | ICMP errors: the packets that they quote, found and rewritten; "packet too big" built |
//! | [`mss`] | the maximum segment size that a TCP SYN announces, lowered |
//! | [`neighbor`] | ARP and IPv6 neighbour discovery: who has an address |
//! | [`parse`] | [`Parsed`]: what the headers say ([`Ufid`], [`Transient`]) and where they lie ([`Layout`]) |
//! | [`ufid`] | [`Ufid`] and [`Field`]: what a flow is called, all fields that policy can match |
//! | [`transpose`] | [`Transposition`]: what policy does to headers; composed, reversed, compiled, applied |
//! | [`synth`] | frames made from nothing: what load generators send and check, RARP announcements |

#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

pub mod burst;
pub mod checksum;
pub mod ethernet;
pub mod filter;
pub mod icmp;
pub mod mss;
pub mod neighbor;
pub mod offload;
pub mod parse;
pub mod port;
pub mod segment;
pub mod synth;
pub mod transpose;
pub mod ufid;
pub mod verdict;

pub use burst::{Burst, HEADROOM, MAX_BURST, Run, WINDOW};
pub use ethernet::{EtherType, EthernetHeader, MacAddr};
pub use offload::{Checksum, GsoKind, Offload, OffloadError, Segmentation};
pub use parse::{Layout, OuterLayout, ParseError, Parsed, Quick, QuickTcp, Transient};
pub use port::PortId;
pub use segment::{SegmentError, Segmenter};
pub use transpose::{Program, Rewrite, Transposition};
pub use ufid::{Field, Fragment, Tunnel, Ufid};
pub use verdict::{DropCause, Verdict};
