// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The first packets: every flow is opened by an exchange before anything is measured.

use std::time::Duration;

use anyhow::{Context, ensure};
use backend::sys::{Clock, cycles};

use super::member::Member;
use super::{Scene, traffic};

/// How long opening all flows may take, and how long one that was not answered waits before it is asked again.
const OPENING: Duration = Duration::from_secs(10);
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// Flows that are opened at once: fewer than receive buffers.
const AT_ONCE: usize = 64;

impl Scene {
    /// Opens all flows, again and again until nodes have agreed, and once more then: only what is sent after that tells who is where.
    pub(super) fn open_with(&mut self, is_agreed: impl Fn() -> anyhow::Result<bool>) -> anyhow::Result<()> {
        let end = cycles() + Clock::get().to_ticks(OPENING);
        while !is_agreed()? {
            ensure!(cycles() < end, "the nodes do not agree to aggregates on the uplink");
            self.open()?;
        }
        self.open()
    }

    /// Sends the first packet of every flow until it is answered and its answer arrives.
    fn open(&mut self) -> anyhow::Result<()> {
        let clock = Clock::get();
        let (end, again) = (cycles() + clock.to_ticks(OPENING), clock.to_ticks(ASK_AGAIN));
        let mut open = vec![false; self.flows.len()];
        for from in (0..self.flows.len()).step_by(AT_ONCE) {
            let to = (from + AT_ONCE).min(self.flows.len());
            let mut asked = None;
            while open.iter().take(to).skip(from).any(|open| !open) {
                let now = cycles();
                ensure!(now < end, "of {} flows {} open", open.len(), open.iter().filter(|open| **open).count());
                if asked.is_none_or(|asked| now - asked > again) {
                    asked = Some(now);
                    self.members().try_for_each(Member::glance)?;
                    for flow in self.flows.iter().zip(&open).take(to).skip(from).filter(|(_, open)| !**open) {
                        let source = self.sources.get_mut(flow.0.source).context("a source")?;
                        source.member.port.send_burst(&[&flow.0.opening])?;
                    }
                }
                for (number, sink) in self.sinks.iter_mut().enumerate() {
                    let mut heard = Vec::new();
                    sink.hear(|packet| heard.extend(traffic::opened(packet, open.len())))?;
                    for flow in heard {
                        let flow = self.flows.get(flow?).context("a flow")?;
                        // What is flooded reaches others, too.
                        if flow.sink == number {
                            sink.port.send_burst(&[&flow.answer])?;
                        }
                    }
                }
                for (number, source) in self.sources.iter_mut().enumerate() {
                    let mut heard = Vec::new();
                    source.member.hear(|packet| heard.extend(traffic::opened(packet, open.len())))?;
                    for flow in heard {
                        let flow = flow?;
                        // As above: what another one has sent is no answer.
                        let own = self.flows.get(flow).filter(|flow| flow.source == number);
                        if let Some((_, open)) = own.zip(open.get_mut(flow)) {
                            *open = true;
                        }
                    }
                }
            }
        }
        // What was asked twice, or flooded, is still to come.
        let (mut quiet, limit) = (cycles(), clock.to_ticks(ASK_AGAIN));
        while cycles() - quiet < limit {
            for member in self.sources.iter_mut().map(|source| &mut source.member).chain(&mut self.sinks) {
                if member.hear(|_| {})? > 0 {
                    quiet = cycles();
                }
            }
        }
        Ok(())
    }
}
