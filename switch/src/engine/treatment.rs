// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is done to packets: whether they pass, and how their headers change.

use packet::{Burst, DropCause, Layout, PortId, Program, Rewrite, Ufid, Verdict};

use crate::flow::slab::allocated;
use crate::plan::Plan;

/// What becomes of a flow's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Pass,
    /// They go to this port, whatever their addresses say.
    Redirect(PortId),
    Drop(DropCause),
}

/// What is done to their headers.
#[derive(Debug, Default)]
pub(super) enum Change {
    #[default]
    None,
    /// Most of all changes, and no reason to look elsewhere for them.
    Rewrite(Rewrite),
    Program(Box<Program>),
}

/// Both, of packets that have no flow, or none of their own.
#[derive(Debug)]
pub(super) struct Treatment {
    pub(super) fate: Fate,
    pub(super) change: Change,
}

impl Treatment {
    /// That of a plan. What cannot be compiled is dropped.
    pub(super) fn compile(fate: Fate, plan: &Plan, ufid: &Ufid, layout: &Layout) -> Self {
        if matches!(fate, Fate::Drop(_)) || plan.transposition.is_identity() {
            return Self::from(fate);
        }
        match plan.transposition.compile(ufid, layout) {
            Ok(program) => Self { fate, change: program.into() },
            Err(_) => Self::from(Fate::Drop(DropCause::Untransposable)),
        }
    }

    /// Does it to a packet. `true`: it passes.
    pub(super) fn apply(&self, burst: &mut Burst, at: usize, layout: &Layout, hash: u64) -> bool {
        self.change.apply(self.fate, burst, at, layout, hash)
    }
}

impl From<Fate> for Treatment {
    fn from(fate: Fate) -> Self {
        Self { fate, change: Change::None }
    }
}

impl From<Program> for Change {
    fn from(program: Program) -> Self {
        Rewrite::of(&program).map_or_else(|| Self::Program(Box::new(program)), Self::Rewrite)
    }
}

impl Change {
    /// Makes it, and sees to the fate of the packet. `true`: it passes.
    #[inline]
    pub(super) fn apply(&self, fate: Fate, burst: &mut Burst, at: usize, layout: &Layout, hash: u64) -> bool {
        let changed = match self {
            Self::None => Ok(()),
            Self::Rewrite(rewrite) => rewrite.apply(burst, at, layout, flow_hash(hash)),
            Self::Program(program) => program.apply(burst, at, layout, flow_hash(hash)),
        };
        let verdict = match (fate, changed) {
            (Fate::Drop(cause), _) | (_, Err(cause)) => Verdict::Drop(cause),
            (Fate::Redirect(port), _) => Verdict::Forward(port),
            (Fate::Pass, _) => return true,
        };
        burst.set_verdict(at, verdict);
        false
    }

    /// Whether it puts packets into a tunnel.
    pub(super) fn pushes(&self) -> bool {
        matches!(self, Self::Program(program) if program.pushes())
    }

    /// Whether headers stay where they are.
    pub(super) fn keeps_layout(&self) -> bool {
        !matches!(self, Self::Program(program) if !program.keeps_layout())
    }

    /// [`Program::overhead`].
    #[inline]
    pub(super) fn overhead(&self, layout: &Layout) -> Option<i32> {
        let Self::Program(program) = self else { return None };
        program.overhead(layout)
    }

    /// Bytes on the heap.
    pub(super) fn heap(&self) -> usize {
        let Self::Program(program) = self else { return 0 };
        allocated(size_of::<Program>()) + program.heap_bytes()
    }
}

/// The low half of a flow's hash; the high one is what the index compares.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the low half")]
const fn flow_hash(hash: u64) -> u32 {
    hash as u32
}
