// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! An AF_XDP socket on one queue of an interface (`af_xdp.rst`).
//!
//! # Theory of operation
//!
//! Frames lie in chunks of one memory, which this process has and the kernel, or the device itself, reads and writes. A
//! chunk is always somebody's: half of them go round by the *fill* ring (to be received into) and the *receive* ring, half
//! by the *transmit* ring and the *completion* ring. The kernel is trusted to keep to that; guests never see the memory.
//!
//! * **A program on the interface** ([`program`]) hands the queue's frames to the socket, before the kernel has a packet of
//!   them. In native mode it runs in the driver, in generic mode behind it.
//! * **Copy or not**: where driver and kernel can share the memory with the device, and nobody forbids it, nothing is
//!   copied; else the kernel copies into our chunks and out of them.
//! * **Chunks of 4 KiB, and frames of several** (XDP_USE_SG): a jumbo frame is put together here, because all that comes
//!   after it wants frames in one piece.
//! * **Need-wakeup**: the kernel says in the ring when it must be called; else a call would be wasted.
//! * **Nothing is known about a frame but its bytes**: whether its sender left the checksum to the device does not pass.
//! * Other queues' frames go to the kernel's own stack.

mod program;
mod ring;
mod rx;
mod tx;

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};

use libc::{off_t, sockaddr_xdp, xdp_desc, xdp_mmap_offsets, xdp_options, xdp_statistics, xdp_umem_reg};

use self::program::{Places, Program, explain};
use self::ring::{Mapping, Ring};
use super::frame::LINK_HEADER;
use super::sockopt;

pub(crate) use rx::XdpRx;
pub(crate) use tx::XdpTx;

/// Bytes of a chunk.
const CHUNK_BYTES: u32 = 4096;
const CHUNK: usize = CHUNK_BYTES as usize;
/// Chunks for receiving, and as many for sending; also the entries of each ring.
const CHUNKS: u32 = 2048;
const MEMORY: usize = 2 * CHUNKS as usize * CHUNK;
/// What the kernel leaves free before a received frame (XDP_PACKET_HEADROOM).
const HEADROOM: u32 = 256;
/// Longest IP packet that fits one chunk.
const ONE_CHUNK_MTU: u32 = CHUNK_BYTES - HEADROOM - 18;
const _: () = assert!(LINK_HEADER == 18);
/// Longest IP packet that is sent in several chunks: the kernel takes 17 of them, and one frame is not to use up all.
const MANY_CHUNKS_MTU: usize = 16_000;

/// AF_XDP, in the type of `sockaddr_xdp`.
const FAMILY: u16 = 44;
const _: () = assert!(FAMILY as c_int == libc::AF_XDP && CHUNKS.is_power_of_two());

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct XdpRequest {
    /// The interface, its queue, and its MTU in bytes.
    pub(crate) index: i32,
    pub(crate) queue: u16,
    pub(crate) mtu: u32,
    /// Where the program may run.
    pub(crate) native: bool,
    pub(crate) generic: bool,
    /// Whether memory may be shared with the device.
    pub(crate) zero_copy: bool,
}

/// What has become of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct XdpMode {
    pub(crate) native: bool,
    pub(crate) zero_copy: bool,
    pub(crate) multi_buffer: bool,
}

/// The socket, its memory and rings, and the program that feeds it.
#[derive(Debug)]
pub(crate) struct XdpSocket {
    // In the order in which they go: no frames any more, then the socket, then what it used.
    _program: Program,
    fd: OwnedFd,
    /// Keeps the interface receiving what is for others.
    _promiscuous: OwnedFd,
    memory: Mapping,
    fill: Ring<u64>,
    receive: Ring<xdp_desc>,
    transmit: Ring<xdp_desc>,
    completion: Ring<u64>,
    mode: XdpMode,
    /// What the kernel's counter of drops showed last.
    drops: AtomicU64,
}

/// What a ring's entries are.
///
/// # Safety
/// Any bytes are a value.
unsafe trait Entry: Copy {}
// SAFETY: a number.
unsafe impl Entry for u64 {}
// SAFETY: numbers, without padding.
unsafe impl Entry for xdp_desc {}

impl XdpSocket {
    /// Opens a socket and gives it the queue's frames.
    ///
    /// # Errors
    /// The kernel or the driver cannot, the process may not, or somebody has the queue or a program on the interface
    /// (`ResourceBusy`): also who has just ended, for the kernel takes a while to clear up.
    pub(crate) fn open(request: XdpRequest) -> io::Result<Self> {
        let fd = sockopt::open(libc::AF_XDP, libc::SOCK_RAW).map_err(|error| explain("an AF_XDP socket", &error))?;
        sockopt::enlarge(&fd, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)?;
        // First what may be somebody else's: the memory is much to have for nothing.
        let places = Places { native: request.native, generic: request.generic };
        let program = Program::attach(request.index, request.queue, places)?;
        let memory = Mapping::anonymous(MEMORY)?;
        let umem = xdp_umem_reg {
            addr: memory.address(),
            len: MEMORY as u64,
            chunk_size: CHUNK_BYTES,
            headroom: 0,
            flags: 0,
            tx_metadata_len: 0,
        };
        let option = |option, value: &c_int| sockopt::set(&fd, libc::SOL_XDP, option, value);
        sockopt::set(&fd, libc::SOL_XDP, libc::XDP_UMEM_REG, &umem)
            .map_err(|error| explain("16 MiB of memory for frames", &error))?;
        for ring in [libc::XDP_UMEM_FILL_RING, libc::XDP_UMEM_COMPLETION_RING, libc::XDP_RX_RING, libc::XDP_TX_RING] {
            option(ring, &CHUNKS.cast_signed()).map_err(|error| explain("a ring", &error))?;
        }
        // SAFETY: plain numbers: all zeros are a value.
        let mut offsets: xdp_mmap_offsets = unsafe { std::mem::zeroed() };
        sockopt::get(&fd, libc::SOL_XDP, libc::XDP_MMAP_OFFSETS, &mut offsets)?;
        let fill = Ring::map(&fd, page(libc::XDP_UMEM_PGOFF_FILL_RING)?, offsets.fr, CHUNKS)?;
        let completion = Ring::map(&fd, page(libc::XDP_UMEM_PGOFF_COMPLETION_RING)?, offsets.cr, CHUNKS)?;
        let receive = Ring::map(&fd, libc::XDP_PGOFF_RX_RING, offsets.rx, CHUNKS)?;
        let transmit = Ring::map(&fd, libc::XDP_PGOFF_TX_RING, offsets.tx, CHUNKS)?;
        for n in 0..CHUNKS {
            fill.write(n, u64::from(n) * CHUNK as u64);
        }
        fill.produce(CHUNKS);
        // Else frames for guests, which have their own addresses, do not get past the device.
        let promiscuous = sockopt::open(libc::AF_PACKET, libc::SOCK_RAW)?;
        sockopt::receive_all(&promiscuous, request.index)?;
        let multi_buffer = bind(&fd, &request, &program)?;
        let mut options = xdp_options { flags: 0 };
        sockopt::get(&fd, libc::SOL_XDP, libc::XDP_OPTIONS, &mut options)?;
        let zero_copy = options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0;
        let mode = XdpMode { native: program.native, zero_copy, multi_buffer };
        program.redirect(request.queue, &fd)?;
        Ok(Self {
            _program: program,
            fd,
            _promiscuous: promiscuous,
            memory,
            fill,
            receive,
            transmit,
            completion,
            mode,
            drops: AtomicU64::new(0),
        })
    }

    /// How frames are exchanged.
    pub(crate) fn mode(&self) -> XdpMode {
        self.mode
    }

    /// Longest IP packet that can be sent.
    pub(crate) fn max_mtu(&self) -> usize {
        if self.mode.multi_buffer { MANY_CHUNKS_MTU } else { ONE_CHUNK_MTU as usize }
    }

    /// How many frames the kernel had no room for since this was last asked.
    pub(crate) fn take_kernel_drops(&self) -> io::Result<u64> {
        let stats = self.statistics()?;
        // What finds no chunk to be received into is among the first.
        let now = stats.rx_dropped + stats.rx_ring_full;
        Ok(now.saturating_sub(self.drops.swap(now, Ordering::Relaxed)))
    }

    fn statistics(&self) -> io::Result<xdp_statistics> {
        // SAFETY: plain numbers: all zeros are a value.
        let mut stats: xdp_statistics = unsafe { std::mem::zeroed() };
        sockopt::get(&self.fd, libc::SOL_XDP, libc::XDP_STATISTICS, &mut stats)?;
        Ok(stats)
    }
}

impl AsRawFd for XdpSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// Binds the socket to its queue. Returns whether frames may lie in several chunks.
fn bind(fd: &OwnedFd, request: &XdpRequest, program: &Program) -> io::Result<bool> {
    // In generic mode the driver does not know of the socket, and must not be asked to share memory with it.
    let copy = if program.native && request.zero_copy { 0 } else { libc::XDP_COPY };
    let flags = libc::XDP_USE_NEED_WAKEUP | copy;
    let what = format!("queue {}", request.queue);
    let bound = |flags| bind_with(fd, request, flags).map_err(|error| explain(&what, &error));
    if program.frags {
        match bound(flags | libc::XDP_USE_SG) {
            Ok(()) => return Ok(true),
            // What follows may do; a kernel before 6.6 does not know the flag.
            Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {}
            Err(error) => return Err(error),
        }
    }
    if request.mtu > ONE_CHUNK_MTU {
        let text =
            format!("frames of an MTU of {} do not fit a chunk, and this kernel or driver takes no more", request.mtu);
        return Err(io::Error::new(io::ErrorKind::Unsupported, text));
    }
    bound(flags).map(|()| false)
}

fn bind_with(fd: &OwnedFd, request: &XdpRequest, flags: u16) -> io::Result<()> {
    let address = sockaddr_xdp {
        sxdp_family: FAMILY,
        sxdp_flags: flags,
        sxdp_ifindex: request.index.cast_unsigned(),
        sxdp_queue_id: u32::from(request.queue),
        sxdp_shared_umem_fd: 0,
    };
    // SAFETY: the kernel reads as many bytes from the pointer as it points to.
    let result =
        unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), sockopt::bytes_of::<sockaddr_xdp>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn page(offset: u64) -> io::Result<off_t> {
    off_t::try_from(offset).map_err(io::Error::other)
}
