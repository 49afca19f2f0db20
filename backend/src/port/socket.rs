// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The two ways a port gets its connection: listening on a socket file, or connecting to one.

use std::io::{self, ErrorKind};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};

/// Bytes of a socket path that `sockaddr_un` holds, without the terminating zero.
pub(super) const MAX_SOCKET_PATH: usize = 107;

/// Why a socket cannot be had. Each names the path.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Longer than `sun_path`.
    #[error("socket path {path} is {length} bytes long; the system's limit is {MAX_SOCKET_PATH}")]
    TooLong {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        length: usize,
    },
    /// Somebody answers there.
    #[error("socket {0} is in use by another process")]
    InUse(PathBuf),
    /// There is something else than a socket.
    #[error("{0} exists and is not a socket")]
    NotASocket(PathBuf),
    /// The directory is missing.
    #[error("the directory of socket {0} does not exist")]
    NoDirectory(PathBuf),
    /// Not allowed.
    #[error("no permission for socket {0}")]
    Permission(PathBuf),
    /// Anything else.
    #[error("socket {path}: {source}")]
    Other {
        /// The path.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
}

impl SocketError {
    fn from_io(path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            ErrorKind::PermissionDenied => Self::Permission(path),
            ErrorKind::NotFound => Self::NoDirectory(path),
            ErrorKind::AddrInUse => Self::InUse(path),
            _ => Self::Other { path, source },
        }
    }
}

/// Checks the length that the system allows.
fn check_path(path: &Path) -> Result<(), SocketError> {
    let length = path.as_os_str().len();
    if length > MAX_SOCKET_PATH {
        return Err(SocketError::TooLong { path: path.to_path_buf(), length });
    }
    Ok(())
}

/// A listening socket whose file goes when it is dropped.
#[derive(Debug)]
pub(super) struct Listener {
    socket: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Binds `path`, non-blocking. A socket file that nobody answers on is replaced; a live one is an error.
    pub(super) fn bind(path: &Path) -> Result<Self, SocketError> {
        check_path(path)?;
        remove_stale(path)?;
        let socket = UnixListener::bind(path).map_err(|error| SocketError::from_io(path, error))?;
        socket.set_nonblocking(true).map_err(|error| SocketError::from_io(path, error))?;
        Ok(Self { socket, path: path.to_path_buf() })
    }

    /// The socket to accept from.
    pub(super) fn socket(&self) -> &UnixListener {
        &self.socket
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(SocketError::from_io(path, error)),
    };
    if !metadata.file_type().is_socket() {
        return Err(SocketError::NotASocket(path.to_path_buf()));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(SocketError::InUse(path.to_path_buf())),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            log::info!("replacing the stale socket {}", path.display());
            std::fs::remove_file(path).map_err(|error| SocketError::from_io(path, error))
        }
        Err(error) => Err(SocketError::from_io(path, error)),
    }
}

/// Connects to `path` without waiting; the stream is non-blocking. `None`: nobody takes the connection now.
pub(super) fn connect(path: &Path) -> Result<Option<UnixStream>, SocketError> {
    check_path(path)?;
    let other = |error: Errno| SocketError::from_io(path, error.into());
    let address = SocketAddrUnix::new(path).map_err(other)?;
    // Non-blocking before it connects: a peer with a full backlog would otherwise hold up all ports.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(other)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) => Ok(Some(socket.into())),
        Err(Errno::CONNREFUSED | Errno::NOENT | Errno::AGAIN) => Ok(None),
        Err(error) => Err(other(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_an_error() {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("port.sock");
        let live = UnixListener::bind(&path).expect("bind");
        let taken = Listener::bind(&path).expect_err("live").to_string();
        assert_eq!(taken, format!("socket {} is in use by another process", path.display()));
        drop(live);
        let listener = Listener::bind(&path).expect("stale");
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn what_is_not_a_socket_is_left_alone() {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("file");
        std::fs::write(&path, "precious").expect("write");
        assert!(matches!(Listener::bind(&path), Err(SocketError::NotASocket(_))));
        assert_eq!(std::fs::read(&path).expect("read"), b"precious");
    }

    #[test]
    fn long_paths_and_missing_directories_are_named() {
        let long = PathBuf::from(format!("/tmp/{}", "x".repeat(120)));
        let error = Listener::bind(&long).expect_err("long").to_string();
        assert!(error.contains("is 125 bytes long; the system's limit is 107"), "{error}");
        let error = Listener::bind(Path::new("/nonexistent/dir/s.sock")).expect_err("missing").to_string();
        assert_eq!(error, "the directory of socket /nonexistent/dir/s.sock does not exist");
    }

    #[test]
    fn connecting_to_nobody_is_not_an_error() {
        let directory = tempfile::tempdir().expect("tempdir");
        assert!(connect(&directory.path().join("none.sock")).expect("none").is_none());
    }
}
