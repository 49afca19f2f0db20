// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is held against the interpreter.

use switch::model::{Direction, PortPolicy};

use crate::interpreter::{Interpreter, Outcome, Totals};

/// One port of a switch.
pub(crate) trait Switch {
    /// From now on this is the policy.
    fn set_policy(&mut self, policy: &PortPolicy);

    /// Takes a packet through the policy.
    fn process(&mut self, direction: Direction, frame: Vec<u8>, now_ns: u64) -> Outcome;

    /// Takes a burst of packets of one direction through it.
    fn process_all(&mut self, direction: Direction, frames: Vec<Vec<u8>>, now_ns: u64) -> Vec<Outcome> {
        frames.into_iter().map(|frame| self.process(direction, frame, now_ns)).collect()
    }

    /// Time passes. It is called at least once a second of the switch's time.
    fn sweep(&mut self, _now_ns: u64) {}

    /// What was counted so far, everything included.
    fn totals(&mut self) -> Option<Totals> {
        None
    }

    /// How many connections are remembered.
    fn connections(&mut self) -> Option<usize> {
        None
    }

    /// What it knows, in words, for whoever looks for a mistake.
    fn describe(&self) -> String {
        String::new()
    }
}

impl Switch for Interpreter {
    fn set_policy(&mut self, policy: &PortPolicy) {
        Self::set_policy(self, policy.clone());
    }

    fn process(&mut self, direction: Direction, frame: Vec<u8>, now_ns: u64) -> Outcome {
        self.decide(direction, &frame, now_ns)
    }

    fn sweep(&mut self, now_ns: u64) {
        self.forget(now_ns);
    }

    fn totals(&mut self) -> Option<Totals> {
        Some(self.worlds()[0].totals.clone())
    }

    fn connections(&mut self) -> Option<usize> {
        Some(self.worlds()[0].connections.len())
    }
}
