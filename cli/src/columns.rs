// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Text in columns: words to the left, numbers to the right.

use std::fmt;

/// Space between two columns.
const GAP: usize = 2;

/// A table that is as wide as its cells are.
#[derive(Debug)]
pub(crate) struct Columns {
    /// The first row is the head.
    rows: Vec<Vec<String>>,
}

impl Columns {
    /// A table with a head and no rows yet.
    pub(crate) fn new(head: &[&str]) -> Self {
        Self { rows: vec![head.iter().map(ToString::to_string).collect()] }
    }

    /// Adds a row; it has as many cells as the head.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Whether a column, apart from its head, has numbers only: digits, and what is written with them.
    fn is_numeric(&self, column: usize) -> bool {
        let mut cells =
            self.rows.iter().skip(1).filter_map(|row| row.get(column)).filter(|cell| *cell != "-").peekable();
        cells.peek().is_some() && cells.all(|cell| cell.starts_with(|c: char| c.is_ascii_digit()))
    }
}

impl fmt::Display for Columns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let layout: Vec<(usize, bool)> = (0..count)
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                (cells.map(|cell| cell.chars().count()).max().unwrap_or(0), self.is_numeric(column))
            })
            .collect();
        for row in &self.rows {
            let mut line = String::new();
            for (i, (cell, (width, numeric))) in row.iter().zip(&layout).enumerate() {
                let gap = if i == 0 { 0 } else { GAP };
                let padding = " ".repeat(width - cell.chars().count());
                line.extend([" ".repeat(gap).as_str(), if *numeric { &padding } else { "" }, cell]);
                line.push_str(if *numeric { "" } else { &padding });
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stand_left_and_numbers_right() {
        let mut table = Columns::new(&["PORT", "RX", "RING"]);
        table.row(["vm0".to_owned(), "1".to_owned(), "packed".to_owned()]);
        table.row(["a-long-name".to_owned(), "1000".to_owned(), "-".to_owned()]);
        let expected = "PORT           RX  RING\nvm0             1  packed\na-long-name  1000  -\n";
        assert_eq!(table.to_string(), expected);
    }

    #[test]
    fn a_table_without_rows_is_its_head() {
        assert_eq!(Columns::new(&["PORT", "RX"]).to_string(), "PORT  RX\n");
    }
}
