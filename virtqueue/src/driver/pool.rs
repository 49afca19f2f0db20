// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Buffers of equal size in one stretch of guest memory, for rings and programs to share.

use std::sync::Arc;

use super::Buffer;
use crate::mem::{HostPtr, MemoryMap, copy_from_guest, copy_to_guest, prefetch_read, prefetch_write};

/// Why a pool could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// The buffers are not inside one region.
    #[error("{count} buffers of {stride} bytes at {addr:#x} are not inside one memory region")]
    Unmapped {
        /// Guest address.
        addr: u64,
        /// Bytes from buffer to buffer.
        stride: u32,
        /// Buffers.
        count: u32,
    },
}

/// `count` buffers of `stride` bytes, one after the other.
///
/// Accessors check bounds and then are one or two plain moves. The other side may write the same
/// bytes at any time; what is read is a private copy.
#[derive(Debug)]
pub struct BufferPool {
    // Keeps the buffers mapped.
    _mem: Arc<MemoryMap>,
    host: HostPtr,
    guest_addr: u64,
    stride: u32,
    count: u32,
}

impl BufferPool {
    /// Makes a pool of the memory at a guest address.
    ///
    /// # Errors
    /// The memory is not mapped, or not all in one region.
    pub fn new(mem: Arc<MemoryMap>, guest_addr: u64, stride: u32, count: u32) -> Result<Self, PoolError> {
        let len = u64::from(stride) * u64::from(count);
        let host =
            mem.host_range(guest_addr, len, &mut 0).ok_or(PoolError::Unmapped { addr: guest_addr, stride, count })?;
        Ok(Self { _mem: mem, host, guest_addr, stride, count })
    }

    /// How many buffers there are.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Bytes of each.
    #[must_use]
    pub const fn stride(&self) -> u32 {
        self.stride
    }

    /// Guest address of buffer `i`.
    ///
    /// # Panics
    /// If there is no such buffer.
    #[inline(always)]
    #[must_use]
    pub fn addr(&self, i: u32) -> u64 {
        self.guest_addr + self.place(i, 0, 0) as u64
    }

    /// The first `len` bytes of buffer `i`, ready to be posted.
    ///
    /// # Panics
    /// If there is no such buffer, or it is shorter.
    #[inline(always)]
    #[must_use]
    pub fn buffer(&self, i: u32, len: u32) -> Buffer {
        Buffer { addr: self.guest_addr + self.place(i, 0, len as usize) as u64, len }
    }

    /// Copies bytes out of buffer `i`.
    ///
    /// # Panics
    /// If they are not inside the buffer.
    #[inline(always)]
    pub fn read(&self, i: u32, offset: u32, dst: &mut [u8]) {
        let at = self.host.offset(self.place(i, offset, dst.len()));
        // SAFETY: `place` checked that the bytes are inside the pool, which is mapped.
        unsafe { copy_from_guest(at, dst) };
    }

    /// Copies bytes into buffer `i`.
    ///
    /// # Panics
    /// If they are not inside the buffer.
    #[inline(always)]
    pub fn write(&self, i: u32, offset: u32, src: &[u8]) {
        let at = self.host.offset(self.place(i, offset, src.len()));
        // SAFETY: `place` checked that the bytes are inside the pool, which is mapped.
        unsafe { copy_to_guest(at, src) };
    }

    /// Reads eight bytes of buffer `i`, at any alignment, in this machine's order.
    ///
    /// # Panics
    /// If they are not inside the buffer.
    #[inline(always)]
    #[must_use]
    pub fn read_u64(&self, i: u32, offset: u32) -> u64 {
        let at = self.host.offset(self.place(i, offset, 8));
        // SAFETY: `place` checked that the bytes are inside the pool, which is mapped.
        unsafe { at.read_u64_unaligned() }
    }

    /// Writes eight bytes of buffer `i`, at any alignment, in this machine's order.
    ///
    /// # Panics
    /// If they are not inside the buffer.
    #[inline(always)]
    pub fn write_u64(&self, i: u32, offset: u32, value: u64) {
        let at = self.host.offset(self.place(i, offset, 8));
        // SAFETY: `place` checked that the bytes are inside the pool, which is mapped.
        unsafe { at.write_u64_unaligned(value) };
    }

    /// Says that the first line of buffer `i` will be read soon. Does nothing if there is none.
    #[inline(always)]
    pub fn prefetch_read(&self, i: u32) {
        prefetch_read(self.line(i, 0));
    }

    /// The same for the line that holds the byte at `offset`.
    #[inline(always)]
    pub fn prefetch_read_at(&self, i: u32, offset: u32) {
        prefetch_read(self.line(i, offset));
    }

    /// Says that the first line of buffer `i` will be written soon. Does nothing if there is none.
    #[inline(always)]
    pub fn prefetch_write(&self, i: u32) {
        prefetch_write(self.line(i, 0));
    }

    /// The same for the line that holds the byte at `offset`.
    #[inline(always)]
    pub fn prefetch_write_at(&self, i: u32, offset: u32) {
        prefetch_write(self.line(i, offset));
    }

    #[inline(always)]
    fn line(&self, i: u32, offset: u32) -> HostPtr {
        self.host.offset((i as usize).wrapping_mul(self.stride as usize).wrapping_add(offset as usize))
    }

    /// Offset in the pool of `len` bytes at an offset of buffer `i`.
    #[inline(always)]
    fn place(&self, i: u32, offset: u32, len: usize) -> usize {
        let (stride, offset) = (self.stride as usize, offset as usize);
        if i >= self.count || offset > stride || len > stride - offset {
            self.out_of_bounds(i, offset, len);
        }
        i as usize * stride + offset
    }

    /// Our own program asked for it, as with a slice; nothing a guest writes leads here.
    #[cold]
    #[inline(never)]
    #[expect(clippy::panic, reason = "a bug of the caller, as indexing a slice out of bounds is")]
    fn out_of_bounds(&self, i: u32, offset: usize, len: usize) -> ! {
        panic!("{len} bytes at {offset} of buffer {i}: {} of {} bytes exist", self.count, self.stride)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SharedMemory;

    #[test]
    fn buffers_are_apart_and_bounded() {
        let memory = SharedMemory::create("pool", 1 << 16, false).unwrap();
        let base = memory.spec().guest_addr;
        let pool = BufferPool::new(memory.map(), base + 64, 256, 10).unwrap();
        pool.write(3, 250, &[1, 2, 3, 4, 5, 6]);
        pool.write_u64(4, 0, u64::MAX);
        assert_eq!(pool.addr(3), base + 64 + 768);
        assert_eq!(pool.buffer(9, 256), Buffer { addr: base + 64 + 2304, len: 256 });
        let mut back = [0; 6];
        pool.read(3, 250, &mut back);
        assert_eq!(back, [1, 2, 3, 4, 5, 6]);
        assert_eq!(pool.read_u64(4, 1), u64::MAX >> 8);
        pool.prefetch_read(9);
        pool.prefetch_write(u32::MAX);
        pool.prefetch_read_at(9, 255);
        pool.prefetch_write_at(u32::MAX, u32::MAX);
        BufferPool::new(memory.map(), base, 256, 257).unwrap_err();
    }

    #[test]
    fn outside_is_a_panic() {
        let memory = SharedMemory::create("pool", 4096, false).unwrap();
        let pool = BufferPool::new(memory.map(), memory.spec().guest_addr, 64, 2).unwrap();
        let panics = |f: &dyn Fn()| std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).is_err();
        assert!(panics(&|| {
            let _ = pool.addr(2);
        }));
        assert!(panics(&|| {
            let _ = pool.read_u64(1, 57);
        }));
        assert!(panics(&|| pool.write(0, 65, &[])));
        assert!(panics(&|| pool.read(0, u32::MAX, &mut [0; 2])));
    }
}
