// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Connecting to a front end that listens.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};

/// Connects to `path` without waiting; the stream is non-blocking. `None`: nobody takes the connection now.
pub(super) fn connect(path: &Path) -> io::Result<Option<UnixStream>> {
    let address = SocketAddrUnix::new(path)?;
    // Non-blocking before it connects: a peer with a full backlog would otherwise hold up all ports.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) => Ok(Some(socket.into())),
        Err(Errno::CONNREFUSED | Errno::NOENT | Errno::AGAIN) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn nobody_there_is_not_an_error() {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("port.sock");
        assert!(connect(&path).expect("missing").is_none());
        let listener = UnixListener::bind(&path).expect("bind");
        assert!(connect(&path).expect("live").is_some());
        drop(listener);
        assert!(connect(&path).expect("stale").is_none());
    }
}
