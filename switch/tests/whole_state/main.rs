// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Stateful policy, packet by packet: after every one the whole state of the port is what it was, plus what the test says
//! (VF-22, VF-28). See [`support::Whole`] for the words.
//!
//! Every scenario runs twice: rules are told what flows counted after every packet, and only when it happens by itself.
//!
//! | file | what happens |
//! |---|---|
//! | `connections.rs` | connections that rules remember, and flows without |
//! | `tcp.rs` | TCP, from its first segment to its last |
//! | `layers.rs` | several layers, and packets that go elsewhere |
//! | `resources.rs` | translation, back ends and maps |
//! | `changes.rs` | policy that changes under connections |
//! | `fragments.rs` | fragments, and ICMP errors |
//! | `limits.rs` | room and budget |

mod changes;
mod connections;
mod fragments;
mod layers;
mod limits;
mod resources;
#[path = "../support/mod.rs"]
mod support;
mod tcp;

use packet::{DropCause, Verdict};
use switch::engine::EngineConfig;
use switch::model::Direction::Out;
use switch::model::{Action, Default, Nat, Source};

use support::{Bench, idle, name, pool, rule, stateful};

const VM: support::End = ([10, 0, 0, 1], 1000);
const SERVER: support::End = ([203, 0, 113, 7], 80);
const STRANGER: support::End = ([203, 0, 113, 66], 80);
const PUBLIC: [u8; 4] = [192, 0, 2, 1];

/// Runs a scenario in both ways.
fn both(config: EngineConfig, scenario: impl Fn(&mut Bench)) {
    for eager in [true, false] {
        let mut bench = Bench::new(config, eager);
        scenario(&mut bench);
        bench.finish();
    }
}

fn roomy() -> EngineConfig {
    EngineConfig { flows: 64, small_flows: 32, plans_per_second: 1_000_000, seed: 5 }
}

const fn dropped(cause: DropCause) -> Option<Verdict> {
    Some(Verdict::Drop(cause))
}

/// The ends of a UDP or TCP frame.
fn ends(frame: &[u8]) -> (support::End, support::End) {
    let address = |at: usize| frame[at..at + 4].try_into().expect("four bytes");
    let port = |at: usize| u16::from_be_bytes(frame[at..at + 2].try_into().expect("two bytes"));
    ((address(26), port(34)), (address(30), port(36)))
}

/// A firewall: what the guest asks is answered, and nothing else comes in.
fn firewall(bench: &mut Bench, seconds: u32) {
    bench.layer("acl", 10, Default::Block, vec![rule("out", Out, &[], stateful(seconds))]);
}

fn snat(bench: &mut Bench, last: u16) {
    bench.edit(vec![pool("pool", PUBLIC, 5000, last)]);
    let nat = Nat { source: Some(Source::Ranges(name("pool"))), destination: None, stateful: idle(60) };
    bench.layer("nat", 10, Default::Block, vec![rule("out", Out, &[], Action::Nat(nat))]);
}
