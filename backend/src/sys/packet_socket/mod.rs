// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A packet socket on one interface, with rings that it shares with the kernel (packet(7), `packet_mmap.rst`).
//!
//! # Theory of operation
//!
//! Both rings are arrays of slots of one size in one mapping. A slot begins with a `tpacket2_hdr`, of which the first word
//! says whose it is: it is read with acquire and written with release order, and between these its owner is alone with the
//! rest. The kernel is trusted to keep to that; guests never see the mapping.
//!
//! * **TPACKET_V2** rather than V3, which delays packets by up to a block's time-out when there are few.
//! * **PACKET_VNET_HDR**: each frame has a virtio-net header, because local senders leave checksums and segmentation to
//!   the device, and a veth pair hands that on.
//! * A frame that is longer than a slot (segmentation again) is queued in the socket as a whole (PACKET_COPY_THRESH) and
//!   fetched by a system call, so that slots need not have 64 KiB each.
//! * **PACKET_IGNORE_OUTGOING**: frames that this machine sends through the interface are not received.
//! * The queueing discipline is not bypassed: it keeps what the device cannot take at once, and tools see what is sent.

mod rx;
mod tx;

use std::ffi::c_int;
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;

use libc::{sockaddr_ll, tpacket_req, tpacket_stats, tpacket2_hdr};

use super::frame::{LINK_HEADER, NET_HEADER};
use super::sockopt::{self, bytes_of, set};
pub(crate) use rx::RxRing;
pub(crate) use tx::TxRing;

/// Most bytes of a slot. What is longer comes by the socket's queue, and cannot be sent.
const MAX_SLOT: usize = 64 << 10;
const MIN_SLOT: usize = 2 << 10;
/// Bytes of a ring's block, the unit of allocation; a multiple of every slot size.
const BLOCK: usize = 64 << 10;
/// Bytes of each ring, and a slot's size from which on a ring has a fixed number of slots instead.
const RX_BYTES: usize = 4 << 20;
const TX_BYTES: usize = 2 << 20;
const LARGE_SLOT: usize = 16 << 10;
/// Where the virtio-net header of a frame to be sent lies in its slot: `TPACKET_ALIGN` of the slot's header.
const TX_DATA: usize = 32;
const _: () = assert!(size_of::<tpacket2_hdr>() == TX_DATA && TX_DATA.is_multiple_of(libc::TPACKET_ALIGNMENT));
/// More than the kernel ever puts before a received frame: slot header, its address, alignment, virtio-net header.
const RX_OVERHEAD: usize = 128;

/// AF_PACKET and ETH_P_ALL, in the types of `sockaddr_ll`.
const FAMILY: u16 = 17;
const EVERY_PROTOCOL: u16 = 3;
const _: () = assert!(FAMILY as c_int == libc::AF_PACKET && EVERY_PROTOCOL as c_int == libc::ETH_P_ALL);

/// The socket and its mapping.
#[derive(Debug)]
pub(crate) struct PacketSocket {
    fd: OwnedFd,
    /// The receive ring, then the transmit ring.
    map: NonNull<u8>,
    slot: usize,
}

// SAFETY: the mapping lives as long as the value and is valid in every thread. Which slots of it may be touched is each
// ring's matter, of which there is one for each direction, used by one thread at a time (`&mut`).
unsafe impl Send for PacketSocket {}
// SAFETY: as above; what takes `&PacketSocket` here are system calls.
unsafe impl Sync for PacketSocket {}

/// Where a ring's slots are.
#[derive(Clone, Copy, Debug)]
struct Ring {
    /// From the start of the mapping, in bytes.
    at: usize,
    slots: usize,
}

impl PacketSocket {
    /// Opens a socket on the interface of this number and begins to receive all that arrives there, whatever its
    /// destination. `mtu` in bytes decides about the size of slots.
    pub(crate) fn open(index: i32, mtu: u32) -> io::Result<Self> {
        // Of no protocol: nothing is received before `bind`.
        let fd = sockopt::open(libc::AF_PACKET, libc::SOCK_RAW)?;
        let slot = slot_size(mtu);
        let on: c_int = 1;
        let version = libc::tpacket_versions::TPACKET_V2 as c_int;
        set(&fd, libc::SOL_PACKET, libc::PACKET_VERSION, &version)?;
        set(&fd, libc::SOL_PACKET, libc::PACKET_VNET_HDR, &on)?;
        set(&fd, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, &on)?;
        set(&fd, libc::SOL_PACKET, libc::PACKET_COPY_THRESH, &on)?;
        // What the kernel finds malformed is skipped and does not stop the ring.
        set(&fd, libc::SOL_PACKET, libc::PACKET_LOSS, &on)?;
        sockopt::enlarge(&fd, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF)?;
        sockopt::enlarge(&fd, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)?;
        set(&fd, libc::SOL_PACKET, libc::PACKET_RX_RING, &ring_request(ring_bytes(RX_BYTES, slot), slot))?;
        set(&fd, libc::SOL_PACKET, libc::PACKET_TX_RING, &ring_request(ring_bytes(TX_BYTES, slot), slot))?;
        let map = map_rings(&fd, map_bytes(slot))?;
        // From here on dropping it unmaps.
        let socket = Self { fd, map, slot };
        sockopt::receive_all(&socket.fd, index)?;
        socket.bind(index)?;
        Ok(socket)
    }

    /// How many frames the kernel had no room for since this was last asked.
    pub(crate) fn take_kernel_drops(&self) -> io::Result<u64> {
        let mut stats = tpacket_stats { tp_packets: 0, tp_drops: 0 };
        sockopt::get(&self.fd, libc::SOL_PACKET, libc::PACKET_STATISTICS, &mut stats)?;
        Ok(u64::from(stats.tp_drops))
    }

    /// Longest IP packet that fits a slot of the transmit ring.
    pub(crate) fn max_mtu(&self) -> usize {
        self.slot - TX_DATA - NET_HEADER - LINK_HEADER
    }

    fn rx(&self) -> Ring {
        rx_ring(self.slot)
    }

    fn tx(&self) -> Ring {
        Ring { at: ring_bytes(RX_BYTES, self.slot), slots: ring_bytes(TX_BYTES, self.slot) / self.slot }
    }

    /// Slot `n` of a ring, `n < ring.slots`.
    fn slot_at(&self, ring: Ring, n: usize) -> NonNull<u8> {
        debug_assert!(n < ring.slots);
        let n = n.min(ring.slots - 1);
        // SAFETY: the mapping has both rings, and the slot lies in this one.
        unsafe { self.map.add(ring.at + n * self.slot) }
    }

    /// The word that says whose a slot is.
    fn status(&self, ring: Ring, n: usize) -> &AtomicU32 {
        // SAFETY: a slot is aligned to a page's divisor of at least 2 KiB and begins with this word, which both sides
        // access atomically; the mapping lives as long as `self`.
        unsafe { self.slot_at(ring, n).cast::<AtomicU32>().as_ref() }
    }

    fn bind(&self, index: i32) -> io::Result<()> {
        // SAFETY: a `sockaddr_ll` is plain data: all zeros are a value of it.
        let mut address: sockaddr_ll = unsafe { zeroed() };
        address.sll_family = FAMILY;
        address.sll_protocol = EVERY_PROTOCOL.to_be();
        address.sll_ifindex = index;
        // SAFETY: the kernel reads as many bytes from the pointer as it points to.
        let result = unsafe {
            let pointer = (&raw const address).cast();
            libc::bind(self.fd.as_raw_fd(), pointer, bytes_of::<sockaddr_ll>())
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl AsRawFd for PacketSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl Drop for PacketSocket {
    fn drop(&mut self) {
        // SAFETY: mapped by `map_rings` with this length; the rings, which borrow from it, are gone with the last handle.
        unsafe { libc::munmap(self.map.as_ptr().cast(), map_bytes(self.slot)) };
    }
}

/// How many frames wait at an `af-packet` uplink at most, on an interface with this MTU in bytes, before the kernel drops them.
pub fn packet_ring_frames(mtu: u32) -> usize {
    rx_ring(slot_size(mtu)).slots
}

/// The receive ring of slots of this size.
const fn rx_ring(slot: usize) -> Ring {
    Ring { at: 0, slots: ring_bytes(RX_BYTES, slot) / slot }
}

/// The size of slots into which frames of an interface with this MTU fit.
fn slot_size(mtu: u32) -> usize {
    let frame = RX_OVERHEAD + LINK_HEADER + mtu as usize;
    frame.next_power_of_two().clamp(MIN_SLOT, MAX_SLOT)
}

/// Bytes of a ring that has so many of them if its slots are small.
const fn ring_bytes(bytes: usize, slot: usize) -> usize {
    if slot > LARGE_SLOT { bytes / LARGE_SLOT * slot } else { bytes }
}

/// Bytes of both rings.
const fn map_bytes(slot: usize) -> usize {
    ring_bytes(RX_BYTES, slot) + ring_bytes(TX_BYTES, slot)
}

#[expect(clippy::cast_possible_truncation, reason = "a few MiB")]
fn ring_request(bytes: usize, slot: usize) -> tpacket_req {
    tpacket_req {
        tp_block_size: BLOCK as u32,
        tp_block_nr: (bytes / BLOCK) as u32,
        tp_frame_size: slot as u32,
        tp_frame_nr: (bytes / slot) as u32,
    }
}

fn map_rings(fd: &OwnedFd, bytes: usize) -> io::Result<NonNull<u8>> {
    // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
    let map = unsafe {
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
        libc::mmap(std::ptr::null_mut(), bytes, rights, flags, fd.as_raw_fd(), 0)
    };
    if map == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(map.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_fit_the_frames_of_their_link() {
        assert_eq!([0, 1500, 1902, 1903, 9000, 65_535].map(slot_size), [2048, 2048, 2048, 4096, 16_384, 65_536]);
        for mtu in [68, 1500, 9000, 16_000, 30_000, 65_476] {
            let slot = slot_size(mtu);
            assert!(BLOCK.is_multiple_of(slot) && TX_DATA + NET_HEADER + LINK_HEADER + mtu as usize <= slot);
            for bytes in [RX_BYTES, TX_BYTES] {
                let slots = ring_bytes(bytes, slot) / slot;
                assert_eq!(ring_request(ring_bytes(bytes, slot), slot).tp_frame_nr as usize, slots);
                assert!(slots >= 128 && ring_bytes(bytes, slot).is_multiple_of(BLOCK), "{slots} of {slot}");
            }
        }
    }

    #[test]
    fn as_many_frames_wait_as_the_ring_has_slots() {
        let cases = [(68, 2048), (1500, 2048), (1903, 1024), (9000, 256), (16_238, 256), (16_239, 256), (65_476, 256)];
        for (mtu, frames) in cases {
            let slot = slot_size(mtu);
            let asked = ring_request(ring_bytes(RX_BYTES, slot), slot);
            assert_eq!((packet_ring_frames(mtu), asked.tp_frame_nr as usize), (frames, frames), "{mtu}");
        }
    }
}
