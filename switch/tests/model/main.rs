// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The switch against a naive interpreter of what policy means (docs/switch.md).
//!
//! | file | job |
//! |---|---|
//! | `wire/` | headers in bytes: reading, and changing with all checksums summed anew |
//! | `edit.rs` | what actions do to bytes |
//! | `select.rs` | which rule of a layer applies |
//! | `walk.rs` | a packet through all layers |
//! | `connections.rs`, `tcp.rs` | what is remembered |
//! | `choices.rs`, `interpreter/` | all ways in which things may go, and whether what was seen is one |
//! | `frame.rs`, `text.rs` | frames and policies as values and in words |
//! | `script.rs`, `scenarios.rs` | stories that are told in words, with their outcome |
//! | `policies.rs`, `traffic.rs`, `driver.rs`, `random.rs` | random policies, conversations and changes, and who tells them |
//! | `switch_under_test.rs`, `engine.rs` | what is held against the interpreter |

mod choices;
mod connections;
mod driver;
mod edit;
mod engine;
mod frame;
mod interpreter;
mod policies;
mod random;
mod scenarios;
mod script;
mod select;
mod switch_under_test;
mod tcp;
mod text;
mod traffic;
mod walk;
mod wire;
