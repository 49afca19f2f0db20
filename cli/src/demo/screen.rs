// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Shows the view: redrawn in place on a terminal, line below line elsewhere, not at all when a program listens.

use std::io::{IsTerminal, stdout};
use std::time::{Duration, Instant};

use super::view::View;
use crate::output::print;

/// Between two pictures on a terminal; between two lines elsewhere.
const FRAME: Duration = Duration::from_millis(100);
const LINE: Duration = Duration::from_secs(1);

/// Where the demo's progress goes.
#[derive(Debug)]
pub(super) struct Screen {
    kind: Kind,
    next: Instant,
    /// Lines of the last picture.
    height: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Terminal,
    Lines,
    Silent,
}

impl Screen {
    pub(super) fn new(silent: bool) -> Self {
        let kind = match (silent, stdout().is_terminal()) {
            (true, _) => Kind::Silent,
            (false, true) => Kind::Terminal,
            (false, false) => Kind::Lines,
        };
        // A terminal gets its first picture at once; a log is not told that nothing has happened yet.
        let wait = if kind == Kind::Lines { LINE } else { Duration::ZERO };
        Self { kind, next: Instant::now() + wait, height: 0 }
    }

    /// Text for people.
    pub(super) fn say(&self, text: &str) -> anyhow::Result<()> {
        if self.kind == Kind::Silent { Ok(()) } else { print(text) }
    }

    /// Whether it is time to show something.
    pub(super) fn is_due(&self) -> bool {
        self.kind != Kind::Silent && Instant::now() >= self.next
    }

    /// Shows what there is now.
    pub(super) fn show(&mut self, view: &View) -> anyhow::Result<()> {
        self.next = Instant::now() + if self.kind == Kind::Terminal { FRAME } else { LINE };
        match self.kind {
            Kind::Silent => Ok(()),
            Kind::Lines => print(&view.line()),
            Kind::Terminal => {
                let text = view.table();
                // Up to where the last picture began; then each line is cleared as it is written.
                let up = if self.height > 0 { format!("\x1b[{}A", self.height) } else { String::new() };
                self.height = text.lines().count();
                print(&text.lines().fold(up, |all, line| all + "\x1b[2K" + line + "\n"))
            }
        }
    }
}
