// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The worker's side of captures.
//!
//! Each capture has one [`Sink`] in each worker. What comes in is compared with the worker's list of sinks, which is empty while
//! nobody captures; what goes out with the [`Tap`] of its queue or uplink, which is not there then. All references to a sink are in one thread.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use packet::filter::Filter;
use packet::{PortId, WINDOW};

use super::record::{Head, Records};
use crate::counters::Counter;
use crate::sys::{Clock, cycles};

/// Names a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CaptureId(pub(crate) u64);

/// Which way packets go, seen from the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    In,
    Out,
}

/// What one worker counts for a capture, for each queue pair.
#[derive(Debug, Default)]
pub(super) struct TapCounters {
    /// Packets looked at, of them those that the filter accepts, and of those the ones that were lost.
    pub(super) seen: Counter,
    pub(super) accepted: Counter,
    pub(super) lost: Counter,
}

/// Where a worker puts what a capture is to have.
#[derive(Debug)]
pub(crate) struct Sink {
    pub(super) id: CaptureId,
    pub(super) port: PortId,
    /// The one queue pair that is captured; `None`: all.
    pub(super) pair: Option<u16>,
    pub(super) inward: bool,
    pub(super) outward: bool,
    pub(super) filter: Option<Filter>,
    /// Bytes of a packet that are kept.
    pub(super) snaplen: u32,
    pub(super) records: Records,
    /// By queue pair.
    pub(super) counters: Arc<[TapCounters]>,
    /// Packets lost since the last record, by queue pair.
    pub(super) missed: Vec<u32>,
    pub(super) clock: Clock,
}

/// All captures of a worker.
#[derive(Debug, Default)]
pub(crate) struct Sinks(Vec<Rc<RefCell<Sink>>>);

/// Those that want what goes out by one queue or uplink.
#[derive(Debug)]
pub(crate) struct Tap {
    pair: u16,
    sinks: Vec<Rc<RefCell<Sink>>>,
}

impl Sinks {
    /// Whether nobody captures.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn add(&mut self, sink: Sink) {
        self.0.push(Rc::new(RefCell::new(sink)));
    }

    /// Takes a capture's sink back, for someone else to free. No [`Tap`] that this made is left.
    pub(crate) fn remove(&mut self, id: CaptureId) -> Option<Sink> {
        let at = self.0.iter().position(|sink| sink.try_borrow().is_ok_and(|sink| sink.id == id))?;
        Rc::into_inner(self.0.remove(at)).map(RefCell::into_inner)
    }

    /// What there is to be kept for what goes out by a queue pair of a port.
    pub(crate) fn tap(&self, port: PortId, pair: u16) -> Option<Box<Tap>> {
        let wants = |sink: &&Rc<RefCell<Sink>>| sink.try_borrow().is_ok_and(|sink| sink.wants(port, pair, Way::Out));
        let sinks: Vec<_> = self.0.iter().filter(wants).map(Rc::clone).collect();
        (!sinks.is_empty()).then(|| Box::new(Tap { pair, sinks }))
    }

    /// Whether somebody wants what comes in by a queue pair of a port.
    pub(crate) fn wants(&self, port: PortId, pair: u16) -> bool {
        self.0.iter().any(|sink| sink.try_borrow().is_ok_and(|sink| sink.wants(port, pair, Way::In)))
    }

    /// Most bytes of a packet that any capture keeps.
    pub(crate) fn longest(&self) -> u32 {
        let lengths = self.0.iter().filter_map(|sink| sink.try_borrow().ok().map(|sink| sink.snaplen));
        lengths.max().unwrap_or(0)
    }

    /// A frame came in: `length` bytes, of which the first are in `head`, and `rest` copies from a place behind that on.
    pub(crate) fn see(&self, port: PortId, pair: u16, length: u32, head: &[u8], rest: impl Fn(u32, &mut [u8])) {
        for sink in &self.0 {
            // Nobody holds one for longer than this.
            let Ok(mut sink) = sink.try_borrow_mut() else { continue };
            if sink.wants(port, pair, Way::In) {
                sink.see(pair, Way::In, length, head, &rest);
            }
        }
    }
}

impl Tap {
    /// A frame went out: as [`Sinks::see`].
    #[cold]
    pub(crate) fn see(&self, length: u32, head: &[u8], rest: impl Fn(u32, &mut [u8])) {
        for sink in &self.sinks {
            if let Ok(mut sink) = sink.try_borrow_mut() {
                sink.see(self.pair, Way::Out, length, head, &rest);
            }
        }
    }

    /// A frame went out that is in one piece.
    #[cold]
    pub(crate) fn see_bytes(&self, frame: &[u8]) {
        self.see_pieces(frame, &[]);
    }

    /// A frame went out that is in two pieces.
    #[cold]
    pub(crate) fn see_pieces(&self, first: &[u8], second: &[u8]) {
        let length = u32::try_from(first.len() + second.len()).unwrap_or(u32::MAX);
        if second.is_empty() || first.len() >= WINDOW {
            return self.see(length, first, |at, room| copy(second, at, room));
        }
        // A filter looks at the window in one piece.
        let mut window = [0; WINDOW];
        let bytes = first.iter().chain(second);
        let copied = window.iter_mut().zip(bytes).map(|(to, from)| *to = *from).count();
        let behind = second.get(copied.saturating_sub(first.len())..).unwrap_or_default();
        self.see(length, window.get(..copied).unwrap_or_default(), |at, room| copy(behind, at, room));
    }
}

impl Sink {
    fn wants(&self, port: PortId, pair: u16, way: Way) -> bool {
        let wanted = match way {
            Way::In => self.inward,
            Way::Out => self.outward,
        };
        wanted && self.port == port && self.pair.is_none_or(|only| only == pair)
    }

    fn see(&mut self, pair: u16, way: Way, length: u32, head: &[u8], rest: &impl Fn(u32, &mut [u8])) {
        let Some(counters) = self.counters.get(usize::from(pair)) else { return };
        counters.seen.add(1);
        if self.filter.as_ref().is_some_and(|filter| !filter.matches(head, length)) {
            return;
        }
        counters.accepted.add(1);
        let Some(missed) = self.missed.get_mut(usize::from(pair)) else { return };
        let head = head.get(..length as usize).unwrap_or(head);
        let record = Head {
            at_ns: self.clock.nanos_at(cycles()),
            length,
            captured: length.min(self.snaplen),
            lost: *missed,
            pair,
            inward: way == Way::In,
        };
        let appended = self.records.append(record, |at, room| {
            let (to, behind) = room.split_at_mut(head.len().saturating_sub(at).min(room.len()));
            copy(head, u32::try_from(at).unwrap_or(u32::MAX), to);
            if !behind.is_empty() {
                rest(u32::try_from((at + to.len()).saturating_sub(head.len())).unwrap_or(u32::MAX), behind);
            }
        });
        if appended {
            *missed = 0;
        } else {
            *missed = missed.saturating_add(1);
            counters.lost.add(1);
        }
    }
}

/// Copies bytes from a place on, as far as there are any.
pub(crate) fn copy(bytes: &[u8], at: u32, room: &mut [u8]) {
    let from = bytes.get(at as usize..).unwrap_or_default();
    room.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
}
