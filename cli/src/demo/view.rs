// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the demo shows while it runs: text, made from counts.

use std::time::Duration;

use crate::columns::Columns;

/// Cells of the progress bar.
const BAR: usize = 40;

/// One CNF, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CnfView {
    pub(super) name: &'static str,
    pub(super) sent: u64,
    pub(super) verified: u64,
    pub(super) corrupted: u64,
    pub(super) bytes: u64,
}

/// All there is to show.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct View {
    pub(super) cnfs: [CnfView; 2],
    pub(super) elapsed: Duration,
    pub(super) length: Duration,
    /// In the last interval.
    pub(super) packets_per_second: f64,
    pub(super) bits_per_second: f64,
}

impl View {
    /// The table and the progress bar, with newlines.
    pub(super) fn table(&self) -> String {
        let mut table = Columns::new(&["  CNF", "SENT", "RECEIVED AND VERIFIED", "CORRUPTED"]);
        for cnf in &self.cnfs {
            table.row([format!("  {}", cnf.name), grouped(cnf.sent), grouped(cnf.verified), grouped(cnf.corrupted)]);
        }
        let done = self.elapsed.as_secs_f64() / self.length.as_secs_f64();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 40")]
        let full = (done.clamp(0.0, 1.0) * 40.0) as usize;
        format!(
            "{table}\n  {}{}  {:.1} s of {:.0} s   {:.2} Mpps   {:.2} Gbit/s\n",
            "█".repeat(full),
            "░".repeat(BAR - full),
            self.elapsed.as_secs_f64(),
            self.length.as_secs_f64(),
            self.packets_per_second / 1e6,
            self.bits_per_second / 1e9,
        )
    }

    /// The same in one line, for output that is no terminal.
    pub(super) fn line(&self) -> String {
        let sum = |count: fn(&CnfView) -> u64| grouped(self.cnfs.iter().map(count).sum());
        format!(
            "{:>5.1} s  {} packets verified, {} corrupted, {:.2} Mpps, {:.2} Gbit/s\n",
            self.elapsed.as_secs_f64(),
            sum(|cnf| cnf.verified),
            sum(|cnf| cnf.corrupted),
            self.packets_per_second / 1e6,
            self.bits_per_second / 1e9,
        )
    }
}

/// A number with its thousands apart: `12,345,678`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_stand_apart() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (12_345_678, "12,345,678")] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn the_bar_fills_up() {
        let mut view = View {
            cnfs: [CnfView { name: "cnf-a", ..CnfView::default() }, CnfView { name: "cnf-b", ..CnfView::default() }],
            elapsed: Duration::from_millis(2500),
            length: Duration::from_secs(5),
            packets_per_second: 1.5e6,
            bits_per_second: 4e9,
        };
        let text = view.table();
        assert_eq!(text.matches('█').count(), 20);
        assert!(text.contains("2.5 s of 5 s   1.50 Mpps   4.00 Gbit/s"), "{text}");
        view.elapsed = Duration::from_secs(6);
        assert_eq!(view.table().matches('█').count(), BAR);
        assert!(text.lines().all(|line| line.chars().count() <= 90), "{text}");
    }
}
