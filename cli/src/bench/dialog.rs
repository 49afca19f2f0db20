// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the two sides say to each other on every flow before anything is measured, and after.
//!
//! Theory of operation. A switch that keeps the state of connections lets the server's packets through only after the
//! client's, and TCP only after a handshake. So each flow is opened by a *call* of the client and an *answer* of the server;
//! with TCP the client *confirms*. Closing TCP is the same with FIN for SYN.
//!
//! A few flows at a time are in progress. What is lost is said again, by whoever would do so: the client its call, the
//! server its answer. That is also how backends are waited for that take their time after the handshake of vhost-user. A
//! flow that does not get anywhere for ten seconds ends the run with its name: it is known then that all flows pass, in both
//! directions, before a single packet is counted.

use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use backend::sys::{Clock, cycles};

use super::flows::Side;
use super::frames::{self, FLAGS, Transport};
use super::inspect::{flow_of, named};
use super::lane::Lane;
use super::ledger::Ledger;
use super::stamp;
use super::tcp::Line;

/// Most flows in progress at once: far less than rings hold.
const MOST: usize = 64;

/// How long an answer may take before something is said again; doubled each time, up to the second one.
const PATIENCE: Duration = Duration::from_millis(20);
const MOST_PATIENCE: Duration = Duration::from_millis(320);

/// How long a flow may take that gets nowhere.
const LIMIT: Duration = Duration::from_secs(10);

/// What is brought about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Opening,
    Closing,
}

/// How far a flow has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The client has called, or is about to.
    Called,
    /// The server has heard that, and answers.
    Answered,
    /// The client has heard that, and confirms.
    Confirmed,
    Done,
}

/// A flow in progress.
#[derive(Clone, Copy, Debug)]
struct Dialog {
    flow: u32,
    step: Step,
    /// When it last got further, and when something was last said.
    since: u64,
    spoken: u64,
    patience: u64,
}

/// All flows, one after the other.
#[derive(Debug)]
pub(super) struct Dialogs {
    kind: Kind,
    transport: Transport,
    flows: u32,
    most: usize,
    /// The first flow that has not begun.
    next: u32,
    open: Vec<Dialog>,
    /// Who has to say something on which flow; what it is, its step says.
    due: VecDeque<(Side, u32)>,
    pub(super) done: u32,
}

impl Dialogs {
    /// Of `flows` flows; `ring` is the number of receive buffers.
    pub(super) fn new(kind: Kind, transport: Transport, flows: u32, ring: u16) -> Self {
        Self {
            kind,
            transport,
            flows,
            most: MOST.min(usize::from(ring) / 4).max(1),
            next: 0,
            open: Vec::new(),
            due: VecDeque::new(),
            done: 0,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.done == self.flows
    }

    /// Says what is to be said and hears what has arrived. `lanes` are side A's, then side B's, as many of each.
    pub(super) fn step(&mut self, lanes: &mut [Lane], ledger: &mut Ledger, sockets: &[&Path; 2]) -> anyhow::Result<()> {
        let now = cycles();
        self.begin(now);
        self.repeat(now, sockets)?;
        let pairs = (lanes.len() / 2).max(1);
        self.speak(lanes, pairs, ledger)?;
        for (index, lane) in lanes.iter_mut().enumerate() {
            let side = if index < pairs { Side::A } else { Side::B };
            lane.hear(|frame| self.hear(side, frame, ledger, now))?;
        }
        match &ledger.inspector.first {
            Some(changed) => Err(changed.clone().into()),
            None => Ok(()),
        }
    }

    /// Takes up flows, as many as may be in progress.
    fn begin(&mut self, now: u64) {
        self.open.retain(|dialog| dialog.step != Step::Done);
        let patience = Clock::get().to_ticks(PATIENCE);
        while self.open.len() < self.most && self.next < self.flows {
            self.open.push(Dialog { flow: self.next, step: Step::Called, since: now, spoken: now, patience });
            self.due.push_back((Side::A, self.next));
            self.next += 1;
        }
    }

    /// Says again what has found no answer.
    fn repeat(&mut self, now: u64, sockets: &[&Path; 2]) -> anyhow::Result<()> {
        let (most, limit) = (Clock::get().to_ticks(MOST_PATIENCE), Clock::get().to_ticks(LIMIT));
        for dialog in &mut self.open {
            if now.saturating_sub(dialog.since) > limit {
                let (side, what) = match (dialog.step, self.transport, self.kind) {
                    (Step::Called | Step::Done, Transport::Udp, _) => (Side::A, "the first datagram"),
                    (_, Transport::Udp, _) => (Side::B, "the first datagram"),
                    (Step::Called | Step::Done, Transport::Tcp, Kind::Opening) => (Side::A, "the SYN"),
                    (Step::Called | Step::Done, Transport::Tcp, Kind::Closing) => (Side::A, "the FIN"),
                    (Step::Answered, Transport::Tcp, Kind::Opening) => (Side::B, "the SYN-ACK"),
                    (Step::Answered, Transport::Tcp, Kind::Closing) => (Side::B, "the FIN"),
                    (Step::Confirmed, Transport::Tcp, _) => (Side::A, "the last ACK"),
                };
                let socket = sockets[side.index()].display();
                bail!("{}: {what} sent to {socket} does not arrive at the other end", named(dialog.flow));
            }
            if now.saturating_sub(dialog.spoken) > dialog.patience {
                dialog.spoken = now;
                dialog.patience = (dialog.patience * 2).min(most);
                let side = if dialog.step == Step::Called { Side::A } else { Side::B };
                self.due.push_back((side, dialog.flow));
            }
        }
        Ok(())
    }

    fn speak(&mut self, lanes: &mut [Lane], pairs: usize, ledger: &Ledger) -> anyhow::Result<()> {
        while let Some(&(side, flow)) = self.due.front() {
            if let Some(line) = self.line(side, flow) {
                let lane = side.index() * pairs + flow as usize % pairs;
                let frame = self.frame(line, flow, ledger);
                let Some(lane) = lanes.get_mut(lane) else { bail!("there is no lane {lane}") };
                if !lane.say(&frame)? {
                    return Ok(());
                }
            }
            self.due.pop_front();
        }
        Ok(())
    }

    /// What `side` has to say on a flow now.
    fn line(&self, side: Side, flow: u32) -> Option<Line> {
        let dialog = self.open.iter().find(|dialog| dialog.flow == flow)?;
        match (side, dialog.step) {
            (Side::A, Step::Called) => Some(Line::Call),
            (Side::B, Step::Answered | Step::Confirmed) => Some(Line::Answer),
            (Side::A, Step::Confirmed) => Some(Line::Confirm),
            _ => None,
        }
    }

    fn frame(&self, line: Line, flow: u32, ledger: &Ledger) -> Vec<u8> {
        let from = if line == Line::Answer { Side::B } else { Side::A };
        match &ledger.connections {
            Some(connections) => {
                let signal = connections.signal(line, self.kind == Kind::Closing, flow);
                frames::signal(from, flow, signal)
            }
            None => frames::greeting(from, flow),
        }
    }

    /// A frame has arrived at `side`.
    fn hear(&mut self, side: Side, frame: &[u8], ledger: &mut Ledger, now: u64) {
        let Some((flow, line)) = self.heard(side, frame) else {
            ledger.aliens += 1;
            return;
        };
        // An echo of what is over, or not begun: it was said twice.
        let Some(at) = self.open.iter().position(|dialog| dialog.flow == flow && dialog.step != Step::Done) else {
            return;
        };
        let sent = self.frame(line, flow, ledger);
        ledger.inspector.signal(flow, &sent, frame);
        let Some(dialog) = self.open.get_mut(at) else { return };
        let before = dialog.step;
        match (line, before, self.transport) {
            (Line::Call, Step::Called, _) => dialog.step = Step::Answered,
            (Line::Answer, Step::Answered, Transport::Tcp) => dialog.step = Step::Confirmed,
            (Line::Answer, Step::Answered, Transport::Udp) | (Line::Confirm, Step::Confirmed, _) => {
                dialog.step = Step::Done;
            }
            // Said again, because what it was answered with was lost.
            (Line::Call | Line::Answer, _, _) => {}
            (Line::Confirm, _, _) => return,
        }
        if dialog.step != before {
            dialog.since = now;
        }
        if dialog.step == Step::Done {
            self.done += 1;
            if let Some(connections) = &mut ledger.connections {
                connections.agree(flow);
            }
        } else {
            dialog.spoken = now;
            self.due.push_back((side, flow));
        }
    }

    /// What was heard, if it is one of ours.
    fn heard(&self, side: Side, frame: &[u8]) -> Option<(u32, Line)> {
        let at = self.transport.stamp_at();
        match self.transport {
            Transport::Udp => {
                let stamp = frame.get(at..at + 8)?.try_into().ok()?;
                let flow = stamp::greeted(u64::from_le_bytes(stamp))?;
                Some((flow, if side == Side::B { Line::Call } else { Line::Answer }))
            }
            Transport::Tcp => {
                let flow = flow_of(side, frame)?;
                let marked = frame.get(FLAGS)? & (frames::SYN | frames::FIN) != 0;
                match (side, marked) {
                    (Side::B, true) => Some((flow, Line::Call)),
                    (Side::A, true) => Some((flow, Line::Answer)),
                    (Side::B, false) => Some((flow, Line::Confirm)),
                    (Side::A, false) => None,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::bench::options::Options;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn ledger(arguments: &[&str]) -> (Options, Ledger) {
        let options = Line::parse_from([&["pvp"], arguments].concat()).options;
        let ledger = Ledger::new(&options, 2).unwrap();
        (options, ledger)
    }

    /// A wire on which time passes, and on which `loses` says of the n-th frame whether it is lost; how many were sent.
    fn run(dialogs: &mut Dialogs, ledger: &mut Ledger, loses: impl Fn(u64) -> bool) -> anyhow::Result<u64> {
        let sockets = [Path::new("/a"), Path::new("/b")];
        let (mut now, mut sent) = (1, 0);
        while !dialogs.is_done() {
            now += Clock::get().to_ticks(PATIENCE) / 2;
            dialogs.begin(now);
            dialogs.repeat(now, &sockets)?;
            for (side, flow) in std::mem::take(&mut dialogs.due) {
                let Some(line) = dialogs.line(side, flow) else { continue };
                let frame = dialogs.frame(line, flow, ledger);
                sent += 1;
                if !loses(sent) {
                    dialogs.hear(side.other(), &frame, ledger, now);
                }
            }
            assert!(dialogs.open.len() <= dialogs.most && dialogs.due.len() <= 2 * dialogs.most);
        }
        assert_eq!((ledger.aliens, ledger.inspector.first.as_ref()), (0, None));
        Ok(sent)
    }

    #[test]
    fn every_flow_is_opened_and_closed_whatever_is_lost() {
        for (arguments, lines) in [(&["--flows", "500"][..], 2), (&["--flows", "500", "--tcp"], 3)] {
            for percent in [0, 1, 20, 30] {
                let (options, mut ledger) = ledger(arguments);
                for kind in [Kind::Opening, Kind::Closing] {
                    if kind == Kind::Closing && !options.tcp {
                        continue;
                    }
                    let mut dialogs = Dialogs::new(kind, options.transport(), options.flows, 256);
                    let sent = run(&mut dialogs, &mut ledger, |frame| {
                        // In no step with what is said in turn.
                        frame.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32 & 0xffff < percent * 0xffff / 100
                    });
                    let sent = sent.unwrap();
                    assert_eq!(dialogs.done, 500);
                    assert!(if percent == 0 { sent == 500 * lines } else { sent > 500 * lines }, "{sent}");
                }
            }
        }
    }

    #[test]
    fn a_flow_that_does_not_pass_is_named() {
        let told = |arguments: &[&str], kind, passes: u64| {
            let (options, mut ledger) = ledger(arguments);
            let mut dialogs = Dialogs::new(kind, options.transport(), options.flows, 256);
            run(&mut dialogs, &mut ledger, |frame| frame > passes).unwrap_err().to_string()
        };
        let flow = "flow 0 (10.0.0.1:16384 > 10.128.0.0:9000):";
        assert_eq!(
            told(&[], Kind::Opening, 0),
            format!("{flow} the first datagram sent to /a does not arrive at the other end")
        );
        assert_eq!(
            told(&[], Kind::Opening, 1),
            format!("{flow} the first datagram sent to /b does not arrive at the other end")
        );
        for (passes, what) in [(0, "SYN sent to /a"), (1, "SYN-ACK sent to /b"), (2, "last ACK sent to /a")] {
            assert_eq!(
                told(&["--tcp"], Kind::Opening, passes),
                format!("{flow} the {what} does not arrive at the other end")
            );
        }
        assert_eq!(
            told(&["--tcp"], Kind::Closing, 1),
            format!("{flow} the FIN sent to /b does not arrive at the other end")
        );
    }

    #[test]
    fn what_is_none_of_ours_is_an_alien() {
        for arguments in [&[][..], &["--tcp"]] {
            let (options, mut ledger) = ledger(arguments);
            let mut dialogs = Dialogs::new(Kind::Opening, options.transport(), 1, 256);
            dialogs.begin(1);
            for frame in [&[][..], &[0xff; 60], &[0; 64]] {
                dialogs.hear(Side::B, frame, &mut ledger, 1);
            }
            assert_eq!((ledger.aliens, dialogs.done, ledger.inspector.inspected), (3, 0, 0));
        }
    }
}
