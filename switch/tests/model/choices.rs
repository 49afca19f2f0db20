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
    /// If choices are made at random.
    random: Option<u64>,
}

impl Choices {
    /// Chooses at random.
    pub(crate) fn random(seed: u64) -> Self {
        Self { random: Some(seed), ..Self::default() }
    }

    /// One of several.
    pub(crate) fn among<T: Clone>(&mut self, options: &[T]) -> T {
        if self.at == self.script.len() {
            let first = self.first(options.len());
            self.script.push((first, options.len()));
        }
        let (taken, of) = self.script[self.at];
        assert_eq!(of, options.len(), "a run depends on its choices only");
        self.at += 1;
        options[taken].clone()
    }

    /// Begins again with other choices, at random if that is how they are made.
    pub(crate) fn otherwise(&mut self) -> bool {
        if self.random.is_none() {
            return self.advance();
        }
        (self.script, self.at) = (Vec::new(), 0);
        true
    }

    fn first(&mut self, of: usize) -> usize {
        let Some(state) = &mut self.random else { return 0 };
        // xorshift64*
        *state |= 1;
        *state ^= *state >> 12;
        *state ^= *state << 25;
        *state ^= *state >> 27;
        let high = state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(high).unwrap() % of
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
