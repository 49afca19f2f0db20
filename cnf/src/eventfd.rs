// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The doorbells of a queue: kick (driver to device) and call (device to driver), each an eventfd.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;

/// A non-blocking eventfd used as a doorbell: its count carries no meaning beyond "not zero".
#[derive(Debug)]
pub struct EventFd(OwnedFd);

impl EventFd {
    /// A new doorbell that has not rung.
    ///
    /// # Errors
    /// The system's, when it is out of descriptors or memory.
    pub fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// Rings. A count that is full already has rung, so that is no error.
    ///
    /// # Errors
    /// The system's; none is expected on a live descriptor.
    pub fn ring(&self) -> io::Result<()> {
        match rustix::io::write(&self.0, &1u64.to_ne_bytes()) {
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes the ring back; true if it had rung since the last call.
    pub fn take(&self) -> bool {
        let mut count = [0; 8];
        matches!(rustix::io::read(&self.0, &mut count), Ok(8))
    }

    /// Sleeps until it rings or `limit` passes; true if it rang. Does not take the ring back.
    pub fn wait(&self, limit: Duration) -> bool {
        let timeout = limit.try_into().ok();
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        matches!(poll(&mut fds, timeout.as_ref()), Ok(1..))
    }

    /// A second descriptor of the same doorbell, to be given to the other side.
    ///
    /// # Errors
    /// The system's, when it is out of descriptors.
    pub fn share(&self) -> io::Result<OwnedFd> {
        self.0.try_clone()
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_once_however_often() {
        let bell = EventFd::new().unwrap();
        assert!(!bell.take());
        bell.ring().unwrap();
        bell.ring().unwrap();
        assert!(bell.wait(Duration::ZERO));
        assert!(bell.take());
        assert!(!bell.take());
        assert!(!bell.wait(Duration::from_millis(1)));
    }

    #[test]
    fn a_shared_bell_is_the_same_bell() {
        let bell = EventFd::new().unwrap();
        let other = EventFd(bell.share().unwrap());
        other.ring().unwrap();
        assert!(bell.take());
    }
}
