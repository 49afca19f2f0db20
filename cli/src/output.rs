// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Standard output that may be closed by whoever reads it.

use std::io::{self, ErrorKind, Write};

/// Writes text to standard output, all of it.
///
/// # Errors
/// What the system says; [`is_closed`] tells the harmless case.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Whether an error only says that nobody reads any more.
pub(crate) fn is_closed(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == ErrorKind::BrokenPipe)
}
