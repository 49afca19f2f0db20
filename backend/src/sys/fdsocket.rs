// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A non-blocking UNIX stream socket that carries file descriptors (`SCM_RIGHTS`).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

/// Descriptors that the kernel delivers with one `recvmsg` at most (SCM_MAX_FD).
const SCM_MAX_FD: usize = 253;

/// What one read brought.
#[derive(Debug)]
pub(crate) enum ReadOutcome {
    /// Bytes were read; the descriptors that travelled with them were appended.
    Bytes(usize),
    /// Nothing there now.
    WouldBlock,
    /// The peer closed its end.
    Closed,
    /// The kernel had to discard descriptors (our limit of open files, or more than a message may carry).
    FdsTruncated,
}

/// Reads once; descriptors arrive close-on-exec and are owned at once, so none leaks whatever follows.
pub(crate) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<ReadOutcome> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SCM_MAX_FD))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let message = loop {
        match recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut ancillary, flags) {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(ReadOutcome::WouldBlock),
            Err(Errno::CONNRESET) => return Ok(ReadOutcome::Closed),
            Err(error) => return Err(error.into()),
            Ok(message) => break message,
        }
    };
    for part in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = part {
            fds.extend(received);
        }
    }
    if message.flags.contains(ReturnFlags::CTRUNC) {
        return Ok(ReadOutcome::FdsTruncated);
    }
    Ok(if message.bytes == 0 { ReadOutcome::Closed } else { ReadOutcome::Bytes(message.bytes) })
}

/// Writes as much as the socket takes now; the descriptors travel with the first byte. `Ok(0)` means that it is full.
pub(crate) fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[OwnedFd]) -> io::Result<usize> {
    let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SCM_MAX_FD))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !borrowed.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&borrowed)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors for one message"));
    }
    loop {
        match sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(0),
            other => return Ok(other?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn descriptors_travel_with_bytes() {
        let (left, right) = UnixStream::pair().expect("pair");
        let (mut pipe_left, pipe_right) = UnixStream::pair().expect("pair");
        assert_eq!(send(left.as_fd(), b"hello", &[pipe_right.into()]).expect("send"), 5);
        let (mut buffer, mut fds) = ([0; 16], Vec::new());
        let outcome = receive(right.as_fd(), &mut buffer, &mut fds).expect("receive");
        assert!(matches!(outcome, ReadOutcome::Bytes(5)), "{outcome:?}");
        assert_eq!((&buffer[..5], fds.len()), (&b"hello"[..], 1));
        let mut received = File::from(fds.remove(0));
        received.write_all(b"x").expect("write");
        let mut byte = [0];
        pipe_left.read_exact(&mut byte).expect("read");
        assert_eq!(&byte, b"x");
    }

    #[test]
    fn an_empty_socket_would_block_and_a_closed_one_says_so() {
        let (left, right) = UnixStream::pair().expect("pair");
        let (mut buffer, mut fds) = ([0; 16], Vec::new());
        let empty = receive(right.as_fd(), &mut buffer, &mut fds).expect("receive");
        assert!(matches!(empty, ReadOutcome::WouldBlock), "{empty:?}");
        drop(left);
        let closed = receive(right.as_fd(), &mut buffer, &mut fds).expect("receive");
        assert!(matches!(closed, ReadOutcome::Closed), "{closed:?}");
    }
}
