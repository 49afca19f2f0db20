// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A running node: vhost-user ports, poll workers and the control API, wired from the crates below it.
//!
//! Promise: [`Node::start`] turns a checked [`config::Config`] into threads; after that nothing that a guest, a front end or an
//! API client does ends the process, and a packet's way through a worker has no lock, no allocation and no system call
//! beyond the notification that a guest asked for.
//!
//! | module | job |
//! |---|---|
//! | [`config`] | what the operator asks for, as a checked value |
//! | [`control`] | the REST API on a running node, and its metrics |
//! | `node` | [`Node`]: starts and stops the threads; [`NodeHandle`]: asks them |
//! | [`policy`] | the policy of all ports, and who may write it |
//! | `port` | the ports thread: sockets, protocol, memory maps, rings on their way to workers |
//! | `worker` | the poll loop: rings, cross-connect, bridge, hand-over, sleep |
//! | `fleet` | all workers together |
//! | [`inspect`] | what passes a port's queues, and what is dropped, for who wants to see it |
//! | `link` | the link layer of uplinks, of all kinds |
//! | `topology` | the forwarding configuration as an immutable value |
//! | `counters` | single-writer counters |
//! | [`confine`] | what the process gives up before it serves anybody |
//! | [`stats`] | what a node says about itself |
//! | [`sys`] | the cycle counter, affinity, sockets that carry descriptors |

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod config;
pub mod confine;
pub mod control;
mod counters;
mod fleet;
pub mod inspect;
mod link;
mod node;
pub mod policy;
mod port;
pub mod stats;
pub mod sys;
mod topology;
mod worker;

pub use node::{Node, NodeError, NodeGone, NodeHandle};
pub use port::{ChangeError, PortError};
pub use worker::WorkerGone;
