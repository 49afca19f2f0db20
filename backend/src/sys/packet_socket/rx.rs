// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The receive ring.

use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use libc::{c_void, tpacket2_hdr};

use super::{PacketSocket, Ring};
use crate::sys::frame::{LONG_FRAME, MAX_HELD, NET_HEADER, Received};

/// How often the queue is asked for one of them.
const FETCHES: usize = 64;
/// Bytes for such frames: some of the longest.
const LONG_FRAMES: usize = 8 * LONG_FRAME;

/// The receiving end. Frames are held until [`RxRing::release`].
#[derive(Debug)]
pub(crate) struct RxRing {
    socket: Arc<PacketSocket>,
    ring: Ring,
    /// The first slot that is held, or the next one to fill.
    head: usize,
    held: usize,
    places: [Place; MAX_HELD],
    /// Held frames that were longer than a slot.
    long: Box<[u8]>,
    long_used: usize,
}

/// Where a held frame lies.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// In its slot, at this offset.
    Slot { at: usize, len: usize },
    /// Among the long ones.
    Long { at: usize, len: usize },
    /// Nowhere: the kernel had no room for all of it.
    Lost,
}

impl RxRing {
    pub(crate) fn new(socket: Arc<PacketSocket>) -> Self {
        let long = vec![0; LONG_FRAMES].into_boxed_slice();
        Self { ring: socket.rx(), socket, head: 0, held: 0, places: [Place::Lost; MAX_HELD], long, long_used: 0 }
    }

    pub(crate) fn socket(&self) -> &Arc<PacketSocket> {
        &self.socket
    }

    /// Whether a frame waits that is not held yet.
    #[inline]
    pub(crate) fn has_frames(&self) -> bool {
        self.is_filled(self.head + self.held)
    }

    /// Holds frames until there are [`MAX_HELD`], as far as there are any. Returns how many are held.
    #[inline]
    pub(crate) fn harvest(&mut self) -> usize {
        while self.held < MAX_HELD && self.has_frames() && self.hold_next() {}
        self.held
    }

    /// Held frame `i`; an empty one if there is none.
    pub(crate) fn frame(&self, i: usize) -> Received<'_> {
        let Some(place) = self.places.get(i).filter(|_| i < self.held) else {
            return Received::finished(&[]);
        };
        let slot = self.slot(self.head + i);
        let header = self.read_header(slot);
        let tag = |ethertype: u16| {
            let ([a, b], [c, d]) = (ethertype.to_be_bytes(), header.tp_vlan_tci.to_be_bytes());
            [a, b, c, d]
        };
        let has = |flag| header.tp_status & flag != 0;
        let vlan = has(libc::TP_STATUS_VLAN_VALID).then(|| {
            // Kernels before 3.14 do not say which kind of tag it was.
            tag(if has(libc::TP_STATUS_VLAN_TPID_VALID) { header.tp_vlan_tpid } else { 0x8100 })
        });
        let received = match *place {
            Place::Slot { at, len } => {
                // SAFETY: `hold_next` found both in the slot, which is ours while it is held: the kernel does not write
                // there, and nothing here gives out a mutable view. `&self` keeps it held.
                let all = unsafe { std::slice::from_raw_parts(slot.add(at - NET_HEADER).as_ptr(), NET_HEADER + len) };
                Received::behind_header(all)
            }
            Place::Long { at, len } => {
                let all = self.long.get(at..at + len).unwrap_or_default();
                Received::behind_header(all)
            }
            Place::Lost => Received::lost(),
        };
        Received { vlan, ..received }
    }

    /// Gives all held frames back to the kernel.
    #[inline]
    pub(crate) fn release(&mut self) {
        for i in 0..self.held {
            let status = self.socket.status(self.ring, (self.head + i) % self.ring.slots);
            status.store(libc::TP_STATUS_KERNEL, Ordering::Release);
        }
        self.head = (self.head + self.held) % self.ring.slots;
        self.held = 0;
        self.long_used = 0;
    }

    /// Holds the next slot, which is filled. `false`: there is no room for a long frame now.
    fn hold_next(&mut self) -> bool {
        let slot = self.slot(self.head + self.held);
        let header = self.read_header(slot);
        let (at, len) = (usize::from(header.tp_mac), header.tp_snaplen as usize);
        let place = if header.tp_status & libc::TP_STATUS_COPY != 0 {
            if self.long.len() - self.long_used < LONG_FRAME {
                return false;
            }
            self.fetch_long(header.tp_len as usize)
        } else if header.tp_snaplen < header.tp_len || at < NET_HEADER || at + len > self.socket.slot {
            Place::Lost
        } else {
            Place::Slot { at, len }
        };
        if let Some(entry) = self.places.get_mut(self.held) {
            *entry = place;
        }
        self.held += 1;
        true
    }

    /// Takes the frame of `len` bytes from the socket's queue that a slot had no room for.
    fn fetch_long(&mut self, len: usize) -> Place {
        let at = self.long_used;
        let Some(room) = self.long.get_mut(at..at + LONG_FRAME) else { return Place::Lost };
        for _ in 0..FETCHES {
            // SAFETY: the kernel writes at most as many bytes as `room` has.
            let read = unsafe {
                let pointer = room.as_mut_ptr().cast::<c_void>();
                let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
                libc::recv(self.socket.as_raw_fd(), pointer, room.len(), flags)
            };
            // With MSG_TRUNC this is how long it was, whatever fitted. The queue is in the order of the slots; one of
            // another length is of a slot that was lost. An error is told once and does not concern the queue.
            match usize::try_from(read) {
                Ok(all) if all == NET_HEADER + len => {
                    if all > LONG_FRAME {
                        return Place::Lost;
                    }
                    self.long_used += all;
                    return Place::Long { at, len: all };
                }
                Ok(_) => {}
                Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock => return Place::Lost,
                Err(_) => {}
            }
        }
        Place::Lost
    }

    #[inline]
    fn is_filled(&self, n: usize) -> bool {
        let status = self.socket.status(self.ring, n % self.ring.slots);
        self.held < MAX_HELD && status.load(Ordering::Acquire) & libc::TP_STATUS_USER != 0
    }

    fn slot(&self, n: usize) -> NonNull<u8> {
        self.socket.slot_at(self.ring, n % self.ring.slots)
    }

    /// The header of a slot that is ours.
    fn read_header(&self, slot: NonNull<u8>) -> tpacket2_hdr {
        // SAFETY: a slot begins with this header and is aligned to it; it is ours, so nobody writes it.
        unsafe { slot.cast::<tpacket2_hdr>().read() }
    }
}
