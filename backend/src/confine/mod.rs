// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the daemon gives up before it serves anybody, so that whoever takes it over gains little (docs/threat-model.md).
//!
//! Once, before there are other threads, which inherit all of it:
//!
//! | file | what goes |
//! |---|---|
//! | `capabilities.rs` | privileges that no configured port needs |
//! | `filter.rs` | system calls that a running node does not make, `execve` and executable memory above all |

mod capabilities;
mod filter;
#[cfg(test)]
mod tests;

use std::io;

pub(crate) use self::capabilities::lacking;
use crate::config::{Capability, Config};

/// Why the process cannot be confined.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// Its capabilities.
    #[error("cannot give up capabilities: {0}")]
    Capabilities(io::Error),
    /// Its system calls.
    #[error("cannot filter system calls: {0}")]
    Filter(#[from] seccompiler::Error),
    /// There are threads already, which would keep all of it.
    #[error("a process with {0} threads cannot be confined as a whole")]
    Threads(usize),
}

/// Confines the process to what a node of this configuration needs, and returns the capabilities that it keeps: of those that are needed
/// and those that the configuration says, the ones that it had.
///
/// # Errors
/// The kernel refuses, or other threads exist. The process may have given up a part, then.
pub fn confine(config: &Config) -> Result<Vec<Capability>, ConfineError> {
    let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads != 1 {
        return Err(ConfineError::Threads(threads));
    }
    let wanted = config.ports.iter().flat_map(|port| Capability::of(port.kind())).chain(&config.process.capabilities);
    let kept = capabilities::keep(wanted.copied()).map_err(ConfineError::Capabilities)?;
    filter::install(kept.contains(&Capability::Bpf))?;
    Ok(kept)
}
