// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The harness of the end-to-end tests: it starts a backend and real clients (DPDK's virtio-user, QEMU guests), lets
//! them talk, and compares what each of them counted.
//!
//! Promises: a child never outlives its test, not even when the test is killed; a failed test shows the end of every
//! log; nothing sleeps in place of a condition ([`wait::wait_for`] polls until a deadline).
//!
//! | module | job |
//! |---|---|
//! | [`wait`] | conditions with deadlines |
//! | [`scenario`] | one test's directory, and its logs when it fails |
//! | [`process`] | a child process: its log, its input, its death |
//! | [`qmp`] | a QEMU, told what to do |
//! | [`control`] | a node's policy, as its owner reaches it |
//! | [`agent`] | a controller's agent, known by its token |
//! | [`cnf`] | the SDK's examples as processes |
//! | [`stream`] | a TCP connection that is sent through step by step |
//! | [`node`] | the `shunt` binary as a daemon: configuration, statistics, restarts |
//! | [`testpmd`] | DPDK's testpmd, driven through its prompt |
//! | [`exchange`] | two testpmd guests exchange traffic; their counts are held against the node's |
//! | [`guest`] | a QEMU guest with a stock kernel and a shell on its serial line |
//! | [`transfer`] | TCP transfers whose hashes are compared |
//! | [`capture`] | the frames that QEMU saw at a guest |
//! | [`aggdump`] | captures of links with aggregate frames, decoded by somebody else |
//! | [`racks`] | three nodes, a top of the rack among them, with guests and CNFs |
//! | [`netns`] | network namespaces of the host |
//! | [`accounting`] | what a process holds: descriptors, mappings, memory |
//! | [`cover`] | covering every pair of options with few runs |

pub mod accounting;
pub mod agent;
pub mod aggdump;
pub mod capture;
pub mod cnf;
pub mod control;
pub mod cover;
pub mod exchange;
pub mod guest;
pub mod netns;
pub mod node;
pub mod process;
pub mod qmp;
pub mod racks;
pub mod scenario;
pub mod stream;
pub mod testpmd;
pub mod transfer;
pub mod wait;
