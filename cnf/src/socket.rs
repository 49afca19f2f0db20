// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The UNIX stream a backend is reached by: bytes together with file descriptors, under a deadline.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recvmsg, sendmsg, socket_with,
};

/// A backend sends at most one descriptor with a message we ask for; the room is what a wrong one may try.
const MAX_FDS: usize = 32;

/// How long to wait before knocking again at a socket nobody answers on.
const RETRY: Duration = Duration::from_millis(5);

const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// One connection to a backend.
#[derive(Debug)]
pub(crate) struct Stream(UnixStream);

impl Stream {
    /// Connects; knocks again until `deadline` while the path does not exist yet or nobody listens.
    pub(crate) fn connect(path: &Path, deadline: Instant) -> io::Result<Self> {
        loop {
            // Without blocking: a backend that listens and does not accept would hold us for ever.
            let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, FLAGS, None)?;
            match connect(&socket, &SocketAddrUnix::new(path)?) {
                Ok(()) => return Self::new(socket.into()),
                Err(Errno::NOENT | Errno::CONNREFUSED | Errno::AGAIN) if Instant::now() < deadline => sleep(RETRY),
                Err(error) => return Err(error.into()),
            }
        }
    }

    pub(crate) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self(stream))
    }

    /// Sends all of `bytes`; the descriptors travel with the first of them.
    pub(crate) fn send(&self, mut bytes: &[u8], fds: &[BorrowedFd<'_>], deadline: Instant) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut unsent = fds;
        while !bytes.is_empty() {
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !unsent.is_empty() && !control.push(SendAncillaryMessage::ScmRights(unsent)) {
                return Err(ErrorKind::InvalidInput.into());
            }
            match sendmsg(&self.0, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL) {
                Ok(sent) => {
                    bytes = bytes.get(sent..).unwrap_or_default();
                    unsent = &[];
                }
                Err(Errno::AGAIN) => self.wait(PollFlags::OUT, deadline)?,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Receives what is there, waiting until `deadline` for the first byte. Zero bytes: the backend has closed.
    pub(crate) fn receive(&self, buffer: &mut [u8], fds: &mut Vec<OwnedFd>, deadline: Instant) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        loop {
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut slices = [IoSliceMut::new(buffer)];
            match recvmsg(&self.0, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Ok(message) => {
                    for item in control.drain() {
                        if let RecvAncillaryMessage::ScmRights(received) = item {
                            fds.extend(received);
                        }
                    }
                    return Ok(message.bytes);
                }
                Err(Errno::AGAIN) => self.wait(PollFlags::IN, deadline)?,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// True once the other side has closed, or reset, the connection.
    pub(crate) fn hung_up(&self) -> bool {
        let mut fds = [PollFd::new(&self.0, PollFlags::RDHUP)];
        let gone = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
        matches!(poll(&mut fds, Some(&Default::default())), Ok(1..))
            && fds.iter().any(|fd| fd.revents().intersects(gone))
    }

    fn wait(&self, what: PollFlags, deadline: Instant) -> io::Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = left.try_into().map_err(|_| ErrorKind::InvalidInput)?;
        match poll(&mut [PollFd::new(&self.0, what)], Some(&timeout)) {
            Ok(0) => Err(ErrorKind::TimedOut.into()),
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // Others may sleep on descriptors of it; for the backend it ends here. It may have ended before.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A bound socket on which backends in the client role knock. Its file goes when it is dropped.
#[derive(Debug)]
pub(crate) struct Door {
    listener: UnixListener,
    path: PathBuf,
}

impl Door {
    /// Binds `path`. A socket file nobody answers on is replaced; a live one is an error.
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        let listener = match UnixListener::bind(path) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                if UnixStream::connect(path).is_ok() {
                    return Err(error);
                }
                std::fs::remove_file(path)?;
                UnixListener::bind(path)?
            }
            other => other?,
        };
        listener.set_nonblocking(true)?;
        Ok(Self { listener, path: path.to_owned() })
    }

    pub(crate) fn accept(&self, deadline: Instant) -> io::Result<Stream> {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => return Stream::new(stream),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    let timeout = left.try_into().map_err(|_| ErrorKind::InvalidInput)?;
                    let mut fds = [PollFd::new(&self.listener, PollFlags::IN)];
                    if poll(&mut fds, Some(&timeout))? == 0 {
                        return Err(ErrorKind::TimedOut.into());
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // Nothing useful can be done about a file that somebody else removed first.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EventFd;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(200)
    }

    #[test]
    fn descriptors_travel_with_bytes() {
        let (a, b) = UnixStream::pair().unwrap();
        let (a, b) = (Stream::new(a).unwrap(), Stream::new(b).unwrap());
        let bell = EventFd::new().unwrap();
        a.send(b"hello", &[bell.as_fd()], soon()).unwrap();
        let (mut buffer, mut fds) = ([0; 16], Vec::new());
        assert_eq!(b.receive(&mut buffer, &mut fds, soon()).unwrap(), 5);
        assert_eq!(&buffer[..5], b"hello");
        assert_eq!(fds.len(), 1);
        rustix::io::write(&fds[0], &1u64.to_ne_bytes()).unwrap();
        assert!(bell.take());
    }

    #[test]
    fn silence_ends_at_the_deadline_and_a_close_is_seen() {
        let (a, b) = UnixStream::pair().unwrap();
        let (a, b) = (Stream::new(a).unwrap(), b);
        let error = a.receive(&mut [0; 1], &mut Vec::new(), soon()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(!a.hung_up());
        drop(b);
        assert!(a.hung_up());
        assert_eq!(a.receive(&mut [0; 1], &mut Vec::new(), soon()).unwrap(), 0);
    }

    #[test]
    fn a_dead_socket_file_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        let door = Door::bind(&path).unwrap();
        assert_eq!(Door::bind(&path).unwrap_err().kind(), ErrorKind::AddrInUse);
        // The failed attempt knocked; that connection is taken first.
        drop(door.accept(soon()).unwrap());
        let guest = Stream::connect(&path, soon()).unwrap();
        let host = door.accept(soon()).unwrap();
        guest.send(b"x", &[], soon()).unwrap();
        assert_eq!(host.receive(&mut [0; 4], &mut Vec::new(), soon()).unwrap(), 1);
        drop(door);
        assert!(!path.exists());
    }
}
