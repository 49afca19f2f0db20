// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A tap device (`tuntap.rst`): the kernel's stack, or whoever has the device, is at the other end.
//!
//! # Theory of operation
//!
//! A frame is one `read` or one `write` of the device's file; the driver knows no batches. Frames that the kernel sends
//! wait in a queue of the device until they are read.
//!
//! * **IFF_VNET_HDR**: each frame has a virtio-net header, and the kernel is told that it may leave checksums and
//!   segmentation to us: it does less, and one read fetches up to 64 KiB.
//! * **No IFF_MULTI_QUEUE**: an uplink belongs to one worker.
//! * A device that is not there is made, and goes when the file is closed; one that was made persistent stays.
//! * The device may be moved to another network namespace, a container's, while it is in use. The file still leads to it;
//!   only what its name is looked up for is not known any more.

mod rx;
mod tx;

use std::ffi::{c_int, c_short, c_ulong};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use libc::{c_void, ifreq};
use rustix::fs::{Mode, OFlags};

use super::frame::NET_HEADER;
use super::interface::{Interface, InterfaceProbe, name_of, request_for, transmit_drops};

pub(crate) use rx::TapRx;
pub(crate) use tx::TapTx;

/// Where tap devices come from.
const CLONE_DEVICE: &str = "/dev/net/tun";
/// A file of one device: frames with a virtio-net header and nothing else before them.
const FLAGS: c_int = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
/// What the kernel may leave to us. Kernels before 6.2 do not know the last two.
const OFFLOADS: u32 = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
const MORE_OFFLOADS: u32 = libc::TUN_F_USO4 | libc::TUN_F_USO6;

/// The file of a tap device.
#[derive(Debug)]
pub(crate) struct Tap {
    fd: OwnedFd,
    /// What the device's own counter of drops showed last.
    drops: AtomicU64,
}

impl Tap {
    /// Opens the device of that name, which is made if it is not there.
    ///
    /// # Errors
    /// The name is that of something else, somebody has the device (EBUSY), or the process may not.
    pub(crate) fn open(name: &str) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = rustix::fs::open(Path::new(CLONE_DEVICE), flags, Mode::empty());
        let fd = opened.map_err(|error| io::Error::new(error.kind(), format!("{CLONE_DEVICE}: {error}")))?;
        let tap = Self { fd, drops: AtomicU64::new(0) };
        let mut request = request_for(name)?;
        request.ifr_ifru.ifru_flags = flag_bits(FLAGS);
        tap.control(libc::TUNSETIFF, (&raw mut request).cast()).map_err(explain)?;
        let mut header = NET_HEADER_INT;
        tap.control(libc::TUNSETVNETHDRSZ, (&raw mut header).cast())?;
        tap.set_offloads(OFFLOADS | MORE_OFFLOADS).or_else(|_| tap.set_offloads(OFFLOADS))?;
        tap.drops.store(transmit_drops(name).unwrap_or(0), Ordering::Relaxed);
        Ok(tap)
    }

    /// How many frames found the device's queue full since this was last asked, or were sent while it was down. None that
    /// anybody here could count, if the device is in another namespace.
    pub(crate) fn take_kernel_drops(&self) -> u64 {
        let Ok(Some(now)) = self.name().map(|name| name.and_then(|name| transmit_drops(&name))) else { return 0 };
        now.saturating_sub(self.drops.swap(now, Ordering::Relaxed))
    }

    /// What the kernel says about the device, `None` if it is gone. `last`: what it said before, which still holds for a
    /// device that is now out of sight.
    pub(crate) fn look(&self, probe: &InterfaceProbe, last: Option<Interface>) -> io::Result<Option<Interface>> {
        let Some(name) = self.name()? else { return Ok(None) };
        let seen = probe.look(&name)?;
        // Whether it is up over there shows when frames are written.
        Ok(seen.or_else(|| last.map(|last| Interface { up: true, ..last })))
    }

    /// What the device is called now, `None` if it is gone.
    fn name(&self) -> io::Result<Option<String>> {
        // SAFETY: an `ifreq` is plain data: all zeros are a value of it.
        let mut answer: ifreq = unsafe { std::mem::zeroed() };
        match self.control(libc::TUNGETIFF, (&raw mut answer).cast()) {
            Err(error) if error.raw_os_error() == Some(libc::EBADFD) => Ok(None),
            result => result.map(|()| Some(name_of(&answer))),
        }
    }

    fn set_offloads(&self, offloads: u32) -> io::Result<()> {
        // SAFETY: this request takes a number, no pointer.
        let result = unsafe { libc::ioctl(self.as_raw_fd(), libc::TUNSETOFFLOAD, c_ulong::from(offloads)) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// A request whose argument is at least as large as the request says.
    fn control(&self, request: c_ulong, argument: *mut c_void) -> io::Result<()> {
        // SAFETY: the descriptor is open. The callers above pass what each request reads and writes: an `ifreq` for
        // TUNSETIFF and TUNGETIFF, an `int` for TUNSETVNETHDRSZ, all alive during the call.
        let result = unsafe { libc::ioctl(self.as_raw_fd(), request, argument) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl AsRawFd for Tap {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

const NET_HEADER_INT: c_int = 10;
const _: () = assert!(NET_HEADER_INT as usize == NET_HEADER);

/// The flags as an `ifreq` has them.
#[expect(clippy::cast_possible_truncation, reason = "all of them are within 16 bits")]
fn flag_bits(flags: c_int) -> c_short {
    flags as c_short
}

/// What the kernel means.
fn explain(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::EINVAL) => io::Error::new(io::ErrorKind::InvalidInput, "not a tap device with one queue"),
        _ => error,
    }
}
