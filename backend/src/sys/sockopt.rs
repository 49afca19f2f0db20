// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Socket options that are the kernel's own plain types.

use std::ffi::c_int;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, OwnedFd};

use libc::{c_void, packet_mreq, socklen_t};

/// Bytes that a link's socket may hold: frames on their way.
pub(super) const SOCKET_BUFFER: c_int = 4 << 20;

/// One of the kernel's own plain types: any bytes are a value of it, and it has no padding that matters.
///
/// # Safety
/// The kernel may read and write all bytes of a value as it likes.
pub(super) unsafe trait Plain: Copy {}

// SAFETY: a number.
unsafe impl Plain for c_int {}
// SAFETY: numbers.
unsafe impl<const N: usize> Plain for [u32; N] {}
// SAFETY: numbers.
unsafe impl Plain for libc::tpacket_req {}
// SAFETY: numbers.
unsafe impl Plain for libc::tpacket_stats {}
// SAFETY: numbers, and bytes.
unsafe impl Plain for packet_mreq {}
// SAFETY: numbers.
unsafe impl Plain for libc::xdp_umem_reg {}
// SAFETY: numbers.
unsafe impl Plain for libc::xdp_mmap_offsets {}
// SAFETY: numbers.
unsafe impl Plain for libc::xdp_statistics {}
// SAFETY: a number.
unsafe impl Plain for libc::xdp_options {}

/// Opens a socket that does not block and is closed on `exec`.
pub(super) fn open(family: c_int, kind: c_int) -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: no pointers.
    let fd = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just opened, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sets an option.
pub(super) fn set<T: Plain>(fd: &OwnedFd, level: c_int, option: c_int, value: &T) -> io::Result<()> {
    // SAFETY: the kernel reads as many bytes from the pointer as it points to.
    let result = unsafe {
        let pointer = std::ptr::from_ref(value).cast::<c_void>();
        libc::setsockopt(fd.as_raw_fd(), level, option, pointer, bytes_of::<T>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Reads an option; what the kernel does not write of it stays as it was.
pub(super) fn get<T: Plain>(fd: &OwnedFd, level: c_int, option: c_int, value: &mut T) -> io::Result<()> {
    let mut len = bytes_of::<T>();
    // SAFETY: the kernel writes at most `len` bytes, the size of what the pointer points to.
    let result = unsafe {
        let pointer = std::ptr::from_mut(value).cast::<c_void>();
        libc::getsockopt(fd.as_raw_fd(), level, option, pointer, &raw mut len)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Lets a socket hold [`SOCKET_BUFFER`] bytes, without CAP_NET_ADMIN within the system's limit, which serves, if worse.
pub(super) fn enlarge(fd: &OwnedFd, forced: c_int, asked: c_int) -> io::Result<()> {
    set(fd, libc::SOL_SOCKET, forced, &SOCKET_BUFFER).or_else(|_| set(fd, libc::SOL_SOCKET, asked, &SOCKET_BUFFER))
}

/// Lets the interface of this number receive all frames, whatever their destination, for as long as this packet socket is
/// open.
pub(super) fn receive_all(fd: &OwnedFd, index: i32) -> io::Result<()> {
    let everything = packet_mreq {
        mr_ifindex: index,
        mr_type: u16::try_from(libc::PACKET_MR_PROMISC).unwrap_or_default(),
        mr_alen: 0,
        mr_address: [0; 8],
    };
    set(fd, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &everything)
}

/// The size of one of the kernel's own small types.
#[expect(clippy::cast_possible_truncation, reason = "some ten bytes")]
pub(super) const fn bytes_of<T>() -> socklen_t {
    size_of::<T>() as socklen_t
}
