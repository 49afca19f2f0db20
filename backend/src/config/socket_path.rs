// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A path that fits the address of a UNIX socket.

use std::fmt;
use std::ops::Deref;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// A path that fits the address of a UNIX socket (`sun_path`: 108 bytes with the closing NUL).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SocketPath(PathBuf);

/// A path that cannot be a [`SocketPath`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadSocketPath {
    /// It has no characters.
    #[error("socket path is empty")]
    Empty,
    /// It contains a NUL byte.
    #[error("socket path {path:?} contains a NUL byte")]
    Nul {
        /// The path as given.
        path: PathBuf,
    },
    /// It does not fit.
    #[error("socket path {} has {len} bytes; the longest that the system takes has {max}", path.display(), max = SocketPath::MAX_LEN)]
    TooLong {
        /// The path as given.
        path: PathBuf,
        /// Its length in bytes.
        len: usize,
    },
}

impl SocketPath {
    /// Longest path in bytes.
    pub const MAX_LEN: usize = 107;

    /// Checks a path's form; whether anything can be made there is not looked at.
    ///
    /// # Errors
    /// What is wrong with it, with its length where that is the matter.
    ///
    /// ```
    /// use backend::config::SocketPath;
    /// assert!(SocketPath::new("/run/shunt/vm0.sock").is_ok());
    /// assert!(SocketPath::new("/".repeat(108)).is_err());
    /// ```
    pub fn new(path: impl Into<PathBuf>) -> Result<Self, BadSocketPath> {
        let path = path.into();
        let bytes = path.as_os_str().as_bytes();
        match bytes.len() {
            0 => Err(BadSocketPath::Empty),
            len if len > Self::MAX_LEN => Err(BadSocketPath::TooLong { path, len }),
            _ if bytes.contains(&0) => Err(BadSocketPath::Nul { path }),
            _ => Ok(Self(path)),
        }
    }

    /// The path itself.
    pub fn as_path(&self) -> &Path {
        &self.0
    }

    /// A literal of this crate, which fits by sight.
    pub(super) fn from_static(path: &'static str) -> Self {
        Self(path.into())
    }
}

impl AsRef<Path> for SocketPath {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl Deref for SocketPath {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl fmt::Display for SocketPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}
