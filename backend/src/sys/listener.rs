// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A listening UNIX socket: the API's, and those of ports.
//!
//! A file that nobody answers on was left by a process that died, and is replaced; a live one belongs to somebody, and is
//! an error. Between finding it stale and replacing it, another node could do the same and lose its new socket to us, so
//! the directory is locked meanwhile.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::{fs, thread, time::Duration};

use rustix::fs::{FlockOperation, Mode, flock};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use thiserror::Error;

use crate::config::{DEFAULT_RUN_DIR, SocketPath};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;

/// Why a socket cannot be listened on. Each message names its path.
#[derive(Debug, Error)]
pub enum SocketError {
    /// The directory is not there, or cannot be made.
    #[error("cannot listen on {}: its directory {} {what}", path.display(), dir.display())]
    Directory {
        /// The socket.
        path: PathBuf,
        /// Its directory.
        dir: PathBuf,
        /// What is wrong with it.
        what: DirectoryFault,
    },
    /// Another process answers on it.
    #[error("cannot listen on {}: another process does", path.display())]
    Live {
        /// The socket.
        path: PathBuf,
    },
    /// There is something else of that name.
    #[error("cannot listen on {}: it exists and is not a socket", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The user may not create, connect to or replace it.
    #[error("cannot listen on {}: no permission to {action}", path.display())]
    Permission {
        /// The socket.
        path: PathBuf,
        /// What is not permitted.
        action: &'static str,
    },
    /// Anything else that the system says.
    #[error("cannot listen on {}: {source}", path.display())]
    System {
        /// The socket.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// What is wrong with a socket's directory.
#[derive(Debug, Error)]
pub enum DirectoryFault {
    /// It is the default one, and cannot be made.
    #[error("cannot be made: {0}")]
    Failed(io::Error),
    /// It is not there.
    #[error("does not exist")]
    Missing,
}

/// A listening socket. Its file goes away with it.
#[derive(Debug)]
pub(crate) struct SocketListener {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file: another process may have put its own there since.
    identity: Option<(u64, u64)>,
}

/// Who may connect to a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SocketMode {
    /// Its owner: mode 0600 from the first moment on.
    Owner,
    /// Everybody: each caller is judged by who it is.
    Everyone,
    /// Whom the process's umask allows: front ends run as other users.
    Umask,
}

impl SocketListener {
    /// Listens on `path`, without blocking.
    pub(crate) fn listen(path: &SocketPath, mode: SocketMode) -> Result<Self, SocketError> {
        let dir = directory(path)?;
        let _lock = lock(dir);
        remove_stale(path)?;
        let listener = bind(path, mode).map_err(|error| refused(path, "create it", error))?;
        let identity = fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()));
        Ok(Self { listener, path: path.to_path_buf(), identity })
    }

    /// The socket to accept from.
    pub(crate) fn socket(&self) -> &UnixListener {
        &self.listener
    }

    /// A second handle to accept from.
    pub(crate) fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }
}

impl Drop for SocketListener {
    fn drop(&mut self) {
        let now = fs::symlink_metadata(&self.path).ok().map(|file| (file.dev(), file.ino()));
        if now.is_some() && now == self.identity {
            // Nothing is left to be done about a failure: the next node finds the file stale.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The directory of `path`, which is made if it is the one that belongs to Shunt.
fn directory(path: &Path) -> Result<&Path, SocketError> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let fault = |what| SocketError::Directory { path: path.to_owned(), dir: dir.to_owned(), what };
    if !dir.is_dir() {
        if dir != Path::new(DEFAULT_RUN_DIR) {
            return Err(fault(DirectoryFault::Missing));
        }
        let made = fs::DirBuilder::new().mode(0o755).recursive(true).create(dir);
        made.map_err(|error| fault(DirectoryFault::Failed(error)))?;
    }
    Ok(dir)
}

/// Locks a directory against others who do the same, for as long as the handle lives.
///
/// Anyone who can read the directory can hold the lock, so it is waited for only briefly, and then done without.
fn lock(dir: &Path) -> Option<fs::File> {
    let handle = fs::File::open(dir).ok()?;
    for _ in 0..50 {
        match flock(&handle, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => thread::sleep(Duration::from_millis(10)),
            other => return other.ok().map(|()| handle),
        }
    }
    None
}

fn remove_stale(path: &Path) -> Result<(), SocketError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(refused(path, "look at it", error)),
        Ok(file) if !file.file_type().is_socket() => return Err(SocketError::NotASocket { path: path.to_owned() }),
        Ok(_) => {}
    }
    match knock(path) {
        // A full backlog has somebody behind it, if not a lively one.
        Ok(()) | Err(Errno::AGAIN) => Err(SocketError::Live { path: path.to_owned() }),
        Err(Errno::CONNREFUSED) => {
            log::info!("{} was left by a process that is gone; replacing it", path.display());
            fs::remove_file(path).map_err(|error| refused(path, "replace it", error))
        }
        Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(refused(path, "connect to it", errno.into())),
    }
}

/// Connects to `path` and hangs up.
fn knock(path: &Path) -> Result<(), Errno> {
    rustix::net::connect(&socket()?, &SocketAddrUnix::new(path)?)
}

fn bind(path: &Path, mode: SocketMode) -> io::Result<UnixListener> {
    let socket = socket()?;
    if mode == SocketMode::Owner {
        // Linux creates the file with the mode that the unbound socket has, so there is no moment at which others may connect.
        rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    }
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    if mode == SocketMode::Everyone {
        // The mode of the unbound socket would be cut by the umask.
        rustix::fs::chmod(path, Mode::from_raw_mode(0o666))?;
    }
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

fn socket() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

fn refused(path: &Path, action: &'static str, source: io::Error) -> SocketError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::PermissionDenied => SocketError::Permission { path, action },
        io::ErrorKind::AddrInUse => SocketError::Live { path },
        _ => SocketError::System { path, source },
    }
}
