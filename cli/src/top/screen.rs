// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The terminal, if there is one: redrawn in place, keys read without return, restored at the end.

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use signal_hook::SigId;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::output::print;

/// Enters and leaves the second screen that terminals have, so that what was on the first is still there afterwards.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// To the upper left corner.
const HOME: &str = "\x1b[H";
/// Clears the rest of the line, the rest of the screen.
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

/// What ended a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// The time came.
    Elapsed,
    /// The user, or whoever sends signals, has seen enough.
    Quit,
}

/// Where tables are shown.
#[derive(Debug)]
pub(super) struct Screen {
    /// How the terminal was; `None`: not a terminal.
    before: Option<Termios>,
    /// Whether keys can be read.
    keys: bool,
    told: Arc<AtomicBool>,
    handlers: Vec<SigId>,
    shown: bool,
}

impl Screen {
    /// Takes the terminal over, if both ends are one that can be redrawn.
    pub(super) fn open() -> anyhow::Result<Self> {
        let told = Arc::new(AtomicBool::new(false));
        let mut handlers = Vec::new();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            handlers.push(signal_hook::flag::register(signal, Arc::clone(&told))?);
        }
        let mut screen = Self { before: None, keys: false, told, handlers, shown: false };
        let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        if !io::stdout().is_terminal() || dumb {
            return Ok(screen);
        }
        let before = tcgetattr(io::stdout())?;
        let mut raw = before.clone();
        // Keys come one by one and unseen; ctrl-c stays a signal.
        raw.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        raw.special_codes[SpecialCodeIndex::VMIN] = 0;
        raw.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(io::stdout(), OptionalActions::Now, &raw)?;
        screen.before = Some(before);
        screen.keys = io::stdin().is_terminal();
        print(ENTER)?;
        Ok(screen)
    }

    /// Whether tables are redrawn in place.
    pub(super) fn is_terminal(&self) -> bool {
        self.before.is_some()
    }

    /// Shows a table in the place of the last one, or below it.
    pub(super) fn show(&mut self, text: &str) -> anyhow::Result<()> {
        if !self.is_terminal() {
            let gap = if self.shown { "\n" } else { "" };
            self.shown = true;
            return print(&format!("{gap}{text}"));
        }
        let size = tcgetwinsize(io::stdout())?;
        print(&fitted(text, size.ws_row.into(), size.ws_col.into()))
    }

    /// Waits, and listens to keys and signals meanwhile.
    pub(super) fn wait_until(&self, when: Instant) -> anyhow::Result<Wait> {
        loop {
            if self.told.load(Ordering::Relaxed) {
                return Ok(Wait::Quit);
            }
            let left = when.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Wait::Elapsed);
            }
            let stdin = io::stdin();
            let mut keys = [PollFd::new(&stdin, PollFlags::IN)];
            let watched = if self.keys { &mut keys[..] } else { &mut [] };
            match poll(watched, Some(&Timespec::try_from(left)?)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) if self.is_quit_pressed()? => return Ok(Wait::Quit),
                Ok(_) => {}
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
    }

    fn is_quit_pressed(&self) -> anyhow::Result<bool> {
        let mut keys = [0; 64];
        match rustix::io::read(io::stdin(), &mut keys) {
            // The terminal is gone.
            Ok(0) | Err(rustix::io::Errno::IO) => Ok(true),
            Ok(n) => Ok(keys.iter().take(n).any(|key| matches!(key, b'q' | b'Q' | 0x03 | 0x04))),
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => Ok(false),
            Err(error) => Err(io::Error::from(error).into()),
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        for handler in self.handlers.drain(..) {
            signal_hook::low_level::unregister(handler);
        }
        if let Some(before) = self.before.take() {
            // Nothing is left to be done about a terminal that is gone.
            let _ = print(LEAVE);
            let _ = tcsetattr(io::stdout(), OptionalActions::Now, &before);
        }
    }
}

/// The bytes that show as much of `text` as a window has room for. A window of no size is one that does not tell.
fn fitted(text: &str, rows: usize, columns: usize) -> String {
    let (rows, columns) = (if rows == 0 { usize::MAX } else { rows }, if columns == 0 { usize::MAX } else { columns });
    let lines: Vec<String> = text.lines().take(rows).map(|line| line.chars().take(columns).collect()).collect();
    // No newline after the last line: in the last row it would scroll.
    format!("{HOME}{}{CLEAR_LINE}{CLEAR_BELOW}", lines.join(&format!("{CLEAR_LINE}\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_cut_to_the_window() {
        let shown = fitted("abcdef\nghi\njkl\n", 2, 4);
        assert_eq!(shown, "\x1b[Habcd\x1b[K\nghi\x1b[K\x1b[J");
        assert_eq!(fitted("abc\n", 0, 0), "\x1b[Habc\x1b[K\x1b[J");
    }
}
