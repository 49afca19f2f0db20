// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A front end that sends what it likes.

use std::io::{self, ErrorKind, IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::event::{EventfdFlags, PollFd, PollFlags, poll};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use vhost_user::Request;

use super::PATIENCE;

/// Most descriptors that the kernel passes with one message.
const SCM_MAX_FD: usize = 253;

/// A connection to a node.
#[derive(Debug)]
pub(crate) struct Raw(pub(crate) UnixStream);

impl Raw {
    #[track_caller]
    pub(crate) fn connect(socket: &Path) -> Self {
        Self::from(UnixStream::connect(socket).expect("connect"))
    }

    /// Sends bytes and descriptors with one `sendmsg`, and the rest of the bytes if it took only a part.
    pub(crate) fn send(&self, mut bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SCM_MAX_FD))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(fds.is_empty() || control.push(SendAncillaryMessage::ScmRights(fds)), "too many descriptors");
        while !bytes.is_empty() {
            let sent = sendmsg(&self.0, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
            bytes = &bytes[sent..];
            control = SendAncillaryBuffer::default();
        }
        Ok(())
    }

    pub(crate) fn try_request(&self, request: Request<OwnedFd>, need_reply: bool) -> io::Result<()> {
        let frame = request.into_frame(need_reply);
        let fds: Vec<_> = frame.fds.iter().map(AsFd::as_fd).collect();
        self.send(&frame.bytes, &fds)
    }

    /// Sends a request and wants no answer.
    #[track_caller]
    pub(crate) fn tell(&self, request: Request<OwnedFd>) {
        self.try_request(request, false).expect("send");
    }

    /// Sends a request that has an answer of its own, or asks for one; returns its payload.
    #[track_caller]
    pub(crate) fn ask(&self, request: Request<OwnedFd>) -> Vec<u8> {
        let id = request.id();
        self.try_request(request, true).expect("send");
        let mut header = [0; 12];
        (&self.0).read_exact(&mut header).expect("a reply");
        let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
        assert_eq!((word(0), word(4)), (id, 5), "the reply's request and flags");
        let mut payload = vec![0; word(8) as usize];
        (&self.0).read_exact(&mut payload).expect("a payload");
        payload
    }

    /// [`Raw::ask`] for answers that are a number.
    #[track_caller]
    pub(crate) fn value(&self, request: Request<OwnedFd>) -> u64 {
        u64::from_le_bytes(self.ask(request).try_into().expect("eight bytes"))
    }

    /// Whether the node closes the connection; replies before that are thrown away.
    pub(crate) fn is_closed(&self) -> bool {
        let mut sink = [0; 4096];
        loop {
            match (&self.0).read(&mut sink) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return true,
                Err(_) => return false,
            }
        }
    }
}

impl From<UnixStream> for Raw {
    fn from(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("timeout");
        Self(stream)
    }
}

/// A doorbell.
pub(crate) fn eventfd() -> OwnedFd {
    rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("eventfd")
}

/// Rings a doorbell.
pub(crate) fn ring_up(fd: &OwnedFd) {
    assert_eq!(rustix::io::write(fd, &1u64.to_ne_bytes()), Ok(8));
}

/// Waits until a doorbell rings, and takes the ring back.
pub(crate) fn fired(fd: &OwnedFd) -> bool {
    let timeout = PATIENCE.try_into().expect("timeout");
    let rang = poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&timeout)) == Ok(1);
    rang && rustix::io::read(fd, &mut [0; 8]) == Ok(8)
}
