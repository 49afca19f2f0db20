// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The transmit ring.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use libc::tpacket2_hdr;
use virtqueue::NetHeader;

use super::{PacketSocket, Ring, TX_DATA};
use crate::sys::frame::{Flushed, NET_HEADER, header_bytes};

/// The sending end. Frames are written into slots and sent together by [`TxRing::flush`].
#[derive(Debug)]
pub(crate) struct TxRing {
    socket: Arc<PacketSocket>,
    ring: Ring,
    /// The next slot to fill.
    next: usize,
    /// Slots filled that the kernel has not taken as far as is known.
    unsent: usize,
}

impl TxRing {
    pub(crate) fn new(socket: Arc<PacketSocket>) -> Self {
        Self { ring: socket.tx(), socket, next: 0, unsent: 0 }
    }

    /// Whether frames wait for [`TxRing::flush`].
    pub(crate) fn has_unsent(&self) -> bool {
        self.unsent > 0
    }

    /// Whether a frame can be put into the ring now.
    #[inline]
    pub(crate) fn has_room(&self) -> bool {
        self.socket.status(self.ring, self.next).load(Ordering::Acquire) == libc::TP_STATUS_AVAILABLE
    }

    /// Puts a frame of `len` bytes, which `fill` writes entirely, behind those that wait. `false`: there is no room for
    /// it now, or in no slot.
    pub(crate) fn push(&mut self, len: usize, header: NetHeader, fill: impl FnOnce(&mut [u8])) -> bool {
        let fits = TX_DATA + NET_HEADER + len <= self.socket.slot;
        if !fits || !self.has_room() {
            return false;
        }
        // All of the frame is "header": the kernel then copies it. Else it would lend the slot's pages to whoever
        // receives the packet, and a receiver on this machine (veth, a bridge) gives the slot back before it has read
        // them: the next frame would overwrite this one.
        let header = NetHeader { hdr_len: u16::try_from(len).unwrap_or(u16::MAX), ..header };
        let slot = self.socket.slot_at(self.ring, self.next);
        // SAFETY: the slot is ours, as its status says, and has so many bytes, as was checked; nobody else looks at them
        // before the status changes, and this is the only ring on them.
        let data = unsafe { std::slice::from_raw_parts_mut(slot.add(TX_DATA).as_ptr(), NET_HEADER + len) };
        let (head, frame) = data.split_at_mut(NET_HEADER);
        head.copy_from_slice(&header_bytes(header));
        fill(frame);
        // SAFETY: a slot begins with this header; the field lies in it and is ours, as above.
        unsafe {
            let field = &raw mut (*slot.cast::<tpacket2_hdr>().as_ptr()).tp_len;
            field.write(u32::try_from(NET_HEADER + len).unwrap_or_default());
        }
        self.socket.status(self.ring, self.next).store(libc::TP_STATUS_SEND_REQUEST, Ordering::Release);
        self.next = (self.next + 1) % self.ring.slots;
        self.unsent += 1;
        true
    }

    /// Hands what waits to the kernel, in one system call.
    pub(crate) fn flush(&mut self) -> Flushed {
        if self.unsent == 0 {
            return Flushed::All;
        }
        // A link that was down leaves an error in the socket that the first call after it is up again is told.
        let mut last_chance = false;
        loop {
            // SAFETY: no pointer is given: the frames are in the ring.
            let sent = unsafe {
                libc::sendto(self.socket.as_raw_fd(), std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0)
            };
            let error = if sent < 0 { io::Error::last_os_error().raw_os_error() } else { None };
            match error {
                Some(libc::EINTR) => {}
                Some(libc::ENETDOWN | libc::ENXIO | libc::ENODEV) if last_chance => {
                    return Flushed::Lost(self.take_back());
                }
                Some(libc::ENETDOWN | libc::ENXIO | libc::ENODEV) => last_chance = true,
                _ => break,
            }
        }
        // The kernel goes through the ring in order: if it has the last one, it has all.
        let last = (self.next + self.ring.slots - 1) % self.ring.slots;
        if self.socket.status(self.ring, last).load(Ordering::Acquire) == libc::TP_STATUS_SEND_REQUEST {
            return Flushed::Later;
        }
        self.unsent = 0;
        Flushed::All
    }

    /// Takes back the frames that the kernel has not taken; it looks for them in system calls only.
    fn take_back(&mut self) -> usize {
        let mut taken = 0;
        while taken < self.unsent {
            let last = (self.next + self.ring.slots - 1) % self.ring.slots;
            let status = self.socket.status(self.ring, last);
            if status.load(Ordering::Acquire) != libc::TP_STATUS_SEND_REQUEST {
                break;
            }
            status.store(libc::TP_STATUS_AVAILABLE, Ordering::Release);
            self.next = last;
            taken += 1;
        }
        self.unsent = 0;
        taken
    }
}
