// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Choices that are the engine's to make.
//!
//! The interpreter is written as if somebody told it what to choose. Who runs it again and again with
//! [`Choices::advance`] in between has seen every way in which things may go.

/// What is chosen, in the order in which it is asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Choices {
    /// The option taken, and how many there were.
    script: Vec<(usize, usize)>,
    at: usize,
}

impl Choices {
    /// One of several.
    pub(crate) fn among<T: Clone>(&mut self, options: &[T]) -> T {
        if self.at == self.script.len() {
            self.script.push((0, options.len()));
        }
        let (taken, of) = self.script[self.at];
        assert_eq!(of, options.len(), "a run depends on its choices only");
        self.at += 1;
        options[taken].clone()
    }

    /// Begins again with other choices; `false` if all were made.
    pub(crate) fn advance(&mut self) -> bool {
        self.at = 0;
        while let Some((taken, of)) = self.script.pop() {
            if taken + 1 < of {
                self.script.push((taken + 1, of));
                return true;
            }
        }
        false
    }
}
