// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the machine offers a configuration.

use std::collections::BTreeSet;
use std::fmt;

use rustix::thread::{CpuSet, sched_getaffinity};

/// The CPUs that this process may run on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    cpus: BTreeSet<usize>,
}

impl Machine {
    /// Asks the system.
    pub fn current() -> Self {
        // It cannot fail for the calling thread; were it to, no worker could be pinned and the error would say so.
        let set = sched_getaffinity(None).unwrap_or_default();
        Self::with_cpus((0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)))
    }

    /// A machine with these CPUs, for tests.
    pub fn with_cpus(cpus: impl IntoIterator<Item = usize>) -> Self {
        Self { cpus: cpus.into_iter().collect() }
    }

    /// Whether a worker can be pinned to `cpu`.
    pub fn has_cpu(&self, cpu: usize) -> bool {
        self.cpus.contains(&cpu)
    }
}

/// The CPUs as ranges: `0-3, 8`.
impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cpus = self.cpus.iter().copied().peekable();
        let mut comma = "";
        while let Some(first) = cpus.next() {
            let mut last = first;
            while let Some(next) = cpus.next_if_eq(&(last + 1)) {
                last = next;
            }
            if last == first {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
            comma = ", ";
        }
        Ok(())
    }
}
