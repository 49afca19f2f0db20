// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The program that hands an interface's frames to a socket, and its loading (bpf(2)).
//!
//! It is six instructions long, so that it is written down here rather than compiled: no library, compiler or file is
//! needed where the node runs.

use std::ffi::{c_int, c_long};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Commands of bpf(2), in the kernel's numbers (`linux/bpf.h`).
const MAP_CREATE: c_int = 0;
const MAP_UPDATE_ELEM: c_int = 2;
const PROG_LOAD: c_int = 5;
const LINK_CREATE: c_int = 28;
/// BPF_MAP_TYPE_XSKMAP, BPF_PROG_TYPE_XDP, and BPF_XDP, where such a program is attached.
const XSKMAP: u32 = 17;
const PROG_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;
/// BPF_F_XDP_HAS_FRAGS: the program knows that a frame may lie in several buffers.
const HAS_FRAGS: u32 = 1 << 5;
/// XDP_FLAGS_SKB_MODE, XDP_FLAGS_DRV_MODE (`linux/if_link.h`).
const SKB_MODE: u32 = 1 << 1;
const DRV_MODE: u32 = 1 << 2;

/// What `bpf_redirect_map` is called by, and what becomes of a frame if there is no socket for its queue: XDP_PASS.
const REDIRECT_MAP: i32 = 51;
const PASS: i32 = 2;
/// Offset of `rx_queue_index` in `struct xdp_md`.
const RX_QUEUE_INDEX: i16 = 16;

/// One instruction (`struct bpf_insn`): what it does, source and destination register (four bits each), offset, operand.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    operand: i32,
}

/// The program, for the map of this descriptor:
///
/// ```text
/// r2 = *(u32 *)(r1 + rx_queue_index)
/// r1 = map                              (two instructions long)
/// r3 = XDP_PASS
/// call bpf_redirect_map
/// exit
/// ```
fn instructions(map: RawFd) -> [Instruction; 6] {
    // BPF_LDX|BPF_MEM|BPF_W, BPF_LD|BPF_IMM|BPF_DW, BPF_ALU64|BPF_MOV|BPF_K, BPF_JMP|BPF_CALL, BPF_JMP|BPF_EXIT; source
    // register 1 of a wide load says that its operand is the descriptor of a map (BPF_PSEUDO_MAP_FD).
    let (load, wide, set, call, exit) = (0x61, 0x18, 0xb7, 0x85, 0x95);
    let step = |code, source: u8, destination: u8, offset, operand| Instruction {
        code,
        registers: source << 4 | destination,
        offset,
        operand,
    };
    [
        step(load, 1, 2, RX_QUEUE_INDEX, 0),
        step(wide, 1, 1, 0, map),
        step(0, 0, 0, 0, 0),
        step(set, 0, 3, 0, PASS),
        step(call, 0, 0, 0, REDIRECT_MAP),
        step(exit, 0, 0, 0, 0),
    ]
}

/// A program on an interface. It goes with the value, also when the process is killed.
#[derive(Debug)]
pub(super) struct Program {
    /// What keeps it on the interface, and lets go when it is closed.
    _link: OwnedFd,
    map: OwnedFd,
    /// It runs in the driver.
    pub(super) native: bool,
    /// It takes frames that lie in several buffers.
    pub(super) frags: bool,
}

/// Where a program shall run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Places {
    pub(super) native: bool,
    pub(super) generic: bool,
}

impl Program {
    /// Puts the program on the interface of this number, in the driver if `places` has that and the driver can. No socket is
    /// given frames yet.
    pub(super) fn attach(index: i32, queue: u16, places: Places) -> io::Result<Self> {
        let map = map(u32::from(queue) + 1).map_err(|error| explain("an XSKMAP", &error))?;
        // Kernels before 5.18 know no frames in several buffers, those before 6.6 not for sockets.
        let (program, frags) = match load(&map, HAS_FRAGS) {
            Ok(program) => (program, true),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                (load(&map, 0).map_err(|error| explain("the XDP program", &error))?, false)
            }
            Err(error) => return Err(explain("the XDP program", &error)),
        };
        let attach =
            |flags| attach(&program, index, flags).map_err(|error| explain("attaching the XDP program", &error));
        let (link, native) = match (places.native.then(|| attach(DRV_MODE)), places.generic) {
            (Some(Ok(link)), _) => (link, true),
            // Somebody else's program is there: it would be in the way in any mode.
            (Some(Err(error)), _) if error.kind() == io::ErrorKind::ResourceBusy => return Err(error),
            (Some(Err(error)), true) => {
                log::info!("interface {index}: not in native mode: {error}");
                (attach(SKB_MODE)?, false)
            }
            (Some(Err(error)), false) => return Err(error),
            (None, _) => (attach(SKB_MODE)?, false),
        };
        Ok(Self { _link: link, map, native, frags })
    }

    /// Gives a queue's frames to a socket.
    pub(super) fn redirect(&self, queue: u16, socket: &OwnedFd) -> io::Result<()> {
        let (key, value) = (u32::from(queue), socket.as_raw_fd().cast_unsigned());
        let attributes = MapUpdate {
            map: self.map.as_raw_fd().cast_unsigned(),
            padding: 0,
            key: address_of(&raw const key),
            value: address_of(&raw const value),
            flags: 0,
        };
        bpf(MAP_UPDATE_ELEM, &attributes).map(drop).map_err(|error| explain("the socket in the XSKMAP", &error))
    }
}

/// The beginnings of `union bpf_attr`; what is not there is zero to the kernel.
#[repr(C)]
struct MapCreate {
    kind: u32,
    key_size: u32,
    value_size: u32,
    entries: u32,
    flags: u32,
}

#[repr(C)]
struct MapUpdate {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct ProgLoad {
    kind: u32,
    instructions_len: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach: u32,
}

#[repr(C)]
struct LinkCreate {
    program: u32,
    interface: u32,
    attach: u32,
    flags: u32,
}

/// What may be given to bpf(2).
///
/// # Safety
/// The value begins as `union bpf_attr` does for the command that it is given with, addresses in it are those of memory
/// that lives during the call and is as large as the kernel takes it for, and it has no padding.
unsafe trait Attributes {}
// SAFETY: as the kernel has it for BPF_MAP_CREATE; no addresses.
unsafe impl Attributes for MapCreate {}
// SAFETY: as the kernel has it for BPF_MAP_UPDATE_ELEM; key and value of an XSKMAP are 32 bits each, as in `redirect`.
unsafe impl Attributes for MapUpdate {}
// SAFETY: as the kernel has it for BPF_PROG_LOAD; `load` gives as many instructions as it says, and a text with its NUL.
unsafe impl Attributes for ProgLoad {}
// SAFETY: as the kernel has it for BPF_LINK_CREATE; no addresses.
unsafe impl Attributes for LinkCreate {}

fn map(entries: u32) -> io::Result<OwnedFd> {
    descriptor(bpf(MAP_CREATE, &MapCreate { kind: XSKMAP, key_size: 4, value_size: 4, entries, flags: 0 })?)
}

fn load(map: &OwnedFd, flags: u32) -> io::Result<OwnedFd> {
    let instructions = instructions(map.as_raw_fd());
    let license = c"Apache-2.0 OR BSD-3-Clause";
    let attributes = ProgLoad {
        kind: PROG_XDP,
        instructions_len: 6,
        instructions: address_of(instructions.as_ptr()),
        license: address_of(license.as_ptr()),
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags,
        name: *b"shunt_to_socket\0",
        interface: 0,
        attach: ATTACH_XDP,
    };
    descriptor(bpf(PROG_LOAD, &attributes)?)
}

fn attach(program: &OwnedFd, index: i32, flags: u32) -> io::Result<OwnedFd> {
    let program = program.as_raw_fd().cast_unsigned();
    let attributes = LinkCreate { program, interface: index.cast_unsigned(), attach: ATTACH_XDP, flags };
    descriptor(bpf(LINK_CREATE, &attributes)?)
}

fn bpf(command: c_int, attributes: &impl Attributes) -> io::Result<c_long> {
    let size = size_of_val(attributes);
    // SAFETY: the kernel reads `size` bytes from the pointer, and from the addresses in them what `Attributes` promises; of
    // these commands none writes to them.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn descriptor(result: c_long) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(result).map_err(io::Error::other)?;
    // SAFETY: just returned by a command that opens one, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn address_of<T>(pointer: *const T) -> u64 {
    pointer.addr() as u64
}

/// Says what failed, and what it usually means.
pub(super) fn explain(what: &str, error: &io::Error) -> io::Error {
    let hint = match error.raw_os_error() {
        Some(libc::EPERM) => " (needs CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF)",
        Some(libc::EAFNOSUPPORT) => " (the kernel has no CONFIG_XDP_SOCKETS)",
        Some(libc::ENOSYS) => " (the kernel has no CONFIG_BPF_SYSCALL)",
        Some(libc::ENOBUFS) => " (more locked memory than RLIMIT_MEMLOCK lets it have)",
        Some(libc::ERANGE) => " (the MTU is more than the driver can, here or at the other end)",
        _ => "",
    };
    // Native and generic programs exclude each other: EEXIST is another's program, too.
    let kind = if error.raw_os_error() == Some(libc::EEXIST) { io::ErrorKind::ResourceBusy } else { error.kind() };
    io::Error::new(kind, format!("{what}: {error}{hint}"))
}

const _: () = assert!(size_of::<Instruction>() == 8 && size_of::<ProgLoad>() == 72 && size_of::<MapUpdate>() == 32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_these_bytes() {
        // `return bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_PASS);`, map 7.
        let bytes: Vec<u8> = instructions(7)
            .iter()
            .flat_map(|step| {
                [&[step.code, step.registers][..], &step.offset.to_le_bytes(), &step.operand.to_le_bytes()].concat()
            })
            .collect();
        let expected = [
            [0x61, 0x12, 0x10, 0, 0, 0, 0, 0],
            [0x18, 0x11, 0, 0, 7, 0, 0, 0],
            [0, 0, 0, 0, 0, 0, 0, 0],
            [0xb7, 0x03, 0, 0, 2, 0, 0, 0],
            [0x85, 0, 0, 0, 0x33, 0, 0, 0],
            [0x95, 0, 0, 0, 0, 0, 0, 0],
        ];
        assert_eq!(bytes, expected.concat());
    }

    #[test]
    fn who_is_in_the_way_is_told_from_what_cannot_be() {
        let kind = |number| explain("it", &io::Error::from_raw_os_error(number)).kind();
        assert_eq!([libc::EBUSY, libc::EEXIST].map(kind), [io::ErrorKind::ResourceBusy; 2]);
        assert_eq!(kind(libc::EPERM), io::ErrorKind::PermissionDenied);
        let text = explain("it", &io::Error::from_raw_os_error(libc::EAFNOSUPPORT)).to_string();
        assert!(text.ends_with("(the kernel has no CONFIG_XDP_SOCKETS)"), "{text}");
    }
}
