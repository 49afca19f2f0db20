// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A frame that was received and lies in shared memory.

use aggregation::Source;
use virtqueue::{BufferPool, Completion};

/// A frame that was received, still in shared memory: copy out what is needed. The device could rewrite it at any
/// time, so there is no slice of it.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    buffers: &'a BufferPool,
    parts: &'a [Completion],
    /// Bytes of the virtio-net header, which lies before the frame.
    header_len: u32,
}

impl<'a> Received<'a> {
    pub(crate) fn new(buffers: &'a BufferPool, parts: &'a [Completion], header_len: u32) -> Self {
        Self { buffers, parts, header_len }
    }

    /// Bytes of the frame, without the virtio-net header.
    #[must_use]
    pub fn len(&self) -> usize {
        let all: usize = self.parts.iter().map(|part| part.len as usize).sum();
        all.saturating_sub(self.header_len as usize)
    }

    /// Whether the device delivered no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies the frame into `buffer`, as far as it reaches, and says how many bytes that were.
    #[inline]
    pub fn read(&self, buffer: &mut [u8]) -> usize {
        self.read_at(0, buffer)
    }

    /// The same from byte `at` of the frame on.
    #[inline]
    pub fn read_at(&self, at: usize, buffer: &mut [u8]) -> usize {
        let mut skip = u64::from(self.header_len).saturating_add(at as u64);
        let mut filled = 0;
        for part in self.parts {
            let room = buffer.get_mut(filled..).unwrap_or(&mut []);
            // What is skipped in this part; no more than there is, so 32 bits.
            let from = u32::try_from(skip).map_or(part.len, |skip| skip.min(part.len));
            let bytes = ((part.len - from) as usize).min(room.len());
            if let Some(room) = room.get_mut(..bytes).filter(|room| !room.is_empty()) {
                self.buffers.read(part.token, from, room);
            }
            filled += bytes;
            skip -= u64::from(from);
        }
        filled
    }
}

impl Source for Received<'_> {
    fn len(&self) -> usize {
        Received::len(self)
    }

    #[inline]
    fn read(&self, at: usize, to: &mut [u8]) -> usize {
        self.read_at(at, to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use virtqueue::SharedMemory;

    #[test]
    fn parts_are_one_frame() {
        let memory = SharedMemory::create("received", 1 << 16, false).unwrap();
        let buffers = BufferPool::new(memory.map(), memory.spec().guest_addr, 64, 8).unwrap();
        let all: Vec<u8> = (0..100).collect();
        // Twelve bytes of header and three of the frame in the first, nothing in the second.
        let parts = [(3, 15), (1, 0), (5, 64), (0, 33)].map(|(token, len)| Completion { token, len });
        let mut rest = &[&[0xee; 12], &*all].concat()[..];
        for part in parts {
            let (here, after) = rest.split_at(part.len as usize);
            buffers.write(part.token, 0, here);
            rest = after;
        }
        let frame = Received::new(&buffers, &parts, 12);
        assert_eq!((frame.len(), frame.is_empty()), (100, false));
        for at in (0..110).chain([usize::MAX]) {
            for room in [0, 1, 7, 100, 200] {
                let mut buffer = vec![0; room];
                let read = frame.read_at(at, &mut buffer);
                let wanted: Vec<u8> = all.iter().copied().skip(at).take(room).collect();
                assert_eq!(buffer[..read], wanted, "{room} bytes at {at}");
            }
        }
        let short = [Completion { token: 2, len: 7 }];
        assert!(Received::new(&buffers, &short, 12).is_empty());
    }
}
