// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Cutting a byte stream into messages, and giving each message its descriptors.
//!
//! # Theory of operation
//!
//! Descriptors travel beside the stream: the kernel hands them out with the first bytes of the `sendmsg` that carried
//! them, and ends a `recvmsg` at the end of that send. So descriptors received with a chunk belong to the message
//! that the *last byte* of the chunk is part of, and a chunk may begin with whole messages that have none. Each
//! descriptor is remembered with the stream position of that last byte; a complete message takes all descriptors at
//! positions before its end. A host that reads no more than [`Decoder::wanted`] bytes at a time never meets the
//! ambiguous case of a peer that puts several messages into one send.

use std::collections::VecDeque;

use super::error::WireError;
use super::header::{HEADER_LEN, Header};

/// Largest payload accepted, in bytes; the largest one specified is GET_SHMEM_CONFIG's reply with 2056.
pub const MAX_PAYLOAD: u32 = 4096;
/// Most descriptors held for one message.
pub const MAX_FDS: usize = 32;

/// A message whose body is not looked at yet.
#[derive(Debug, PartialEq, Eq)]
pub struct Message<F> {
    /// The header; its size is the payload's length.
    pub header: Header,
    /// The body.
    pub payload: Vec<u8>,
    /// Descriptors that came with it.
    pub fds: Vec<F>,
}

/// Bytes and descriptors in, messages out. Never holds more than a message beyond what was pushed. Fails once and for
/// ever: after an error there is no way to find the next message.
#[derive(Debug)]
pub struct Decoder<F> {
    buffer: VecDeque<u8>,
    /// Position in the stream of the first byte in `buffer`.
    position: u64,
    fds: VecDeque<(u64, F)>,
    failed: Option<WireError>,
}

impl<F> Default for Decoder<F> {
    fn default() -> Self {
        Self::new()
    }
}

impl<F> Decoder<F> {
    /// A decoder at the beginning of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self { buffer: VecDeque::new(), position: 0, fds: VecDeque::new(), failed: None }
    }

    /// How many bytes complete the header, or the message, that is being received. Reading at most so many attributes
    /// descriptors without doubt. Never 0 while messages are taken out after each push, except after an error.
    #[must_use]
    pub fn wanted(&self) -> usize {
        if self.failed.is_some() {
            return 0;
        }
        let total = match self.header() {
            None => HEADER_LEN,
            Some(header) => HEADER_LEN.saturating_add(to_usize(header.size)),
        };
        total.saturating_sub(self.buffer.len())
    }

    /// Takes what one `recvmsg` returned. After an error everything is dropped, which closes the descriptors.
    pub fn push(&mut self, bytes: &[u8], fds: impl IntoIterator<Item = F>) {
        if self.failed.is_some() {
            // Exhaust it, so that lazily made descriptors are made and closed.
            fds.into_iter().for_each(drop);
            return;
        }
        let end = self.position + to_u64(self.buffer.len()) + to_u64(bytes.len());
        let at = if bytes.is_empty() { end } else { end - 1 };
        self.buffer.extend(bytes);
        let mut got = self.fds.len();
        for fd in fds {
            got += 1;
            if got <= MAX_FDS {
                self.fds.push_back((at, fd));
            }
        }
        if got > MAX_FDS {
            self.fail(WireError::TooManyFds { got, limit: MAX_FDS });
        }
    }

    /// The next complete message, if there is one.
    ///
    /// # Errors
    ///
    /// [`WireError`] for bad flags, a payload too large, too many descriptors; the same one again ever after.
    pub fn next_message(&mut self) -> Result<Option<Message<F>>, WireError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let Some(header) = self.header() else { return Ok(None) };
        if !header.has_valid_flags() {
            return Err(self.fail(WireError::Flags { request: header.request, flags: header.flags }));
        }
        if header.size > MAX_PAYLOAD {
            let Header { request, size, .. } = header;
            return Err(self.fail(WireError::PayloadTooLarge { request, size, limit: MAX_PAYLOAD }));
        }
        let total = HEADER_LEN + to_usize(header.size);
        if self.buffer.len() < total {
            return Ok(None);
        }
        let payload = self.buffer.drain(..total).skip(HEADER_LEN).collect();
        self.position += to_u64(total);
        let count = self.fds.iter().take_while(|(at, _)| *at < self.position).count();
        let fds = self.fds.drain(..count).map(|(_, fd)| fd).collect();
        Ok(Some(Message { header, payload, fds }))
    }

    /// Whether the stream stands between two messages, with nothing left over: where an orderly peer closes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty() && self.fds.is_empty()
    }

    fn header(&self) -> Option<Header> {
        let mut bytes = [0; HEADER_LEN];
        if self.buffer.len() < HEADER_LEN {
            return None;
        }
        for (to, from) in bytes.iter_mut().zip(&self.buffer) {
            *to = *from;
        }
        Some(Header::from_bytes(bytes))
    }

    fn fail(&mut self, error: WireError) -> WireError {
        self.failed = Some(error);
        self.buffer = VecDeque::new();
        self.fds = VecDeque::new();
        error
    }
}

fn to_usize(size: u32) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

fn to_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Frame;

    fn message(request: u32, payload: &[u8]) -> Vec<u8> {
        Frame::<u32>::build(|size| Header::request(request, false, size), payload, Vec::new()).bytes
    }

    #[test]
    fn a_byte_at_a_time_yields_the_message_at_its_last_byte() {
        let mut decoder = Decoder::new();
        let bytes = message(12, &[7; 8]);
        for (at, byte) in bytes.iter().enumerate() {
            assert_eq!(decoder.next_message(), Ok(None));
            let first = if at == 0 { vec![5] } else { vec![] };
            decoder.push(&[*byte], first);
        }
        let got = decoder.next_message().unwrap().unwrap();
        assert_eq!((got.header.request, got.payload, got.fds), (12, vec![7; 8], vec![5]));
        assert!(decoder.is_empty());
    }

    #[test]
    fn descriptors_go_to_the_message_the_chunk_ends_in() {
        let mut decoder = Decoder::new();
        let mut chunk = message(1, &[]);
        chunk.extend(message(12, &[0; 8]));
        decoder.push(&chunk, [9]);
        assert_eq!(decoder.next_message().unwrap().unwrap().fds, []);
        assert_eq!(decoder.next_message().unwrap().unwrap().fds, [9]);
    }

    #[test]
    fn descriptors_of_the_next_message_stay_behind() {
        let mut decoder = Decoder::new();
        decoder.push(&message(1, &[]), []);
        decoder.push(&message(12, &[0; 8])[..1], [9]);
        assert_eq!(decoder.next_message().unwrap().unwrap().fds, []);
        assert_eq!(decoder.next_message(), Ok(None));
        decoder.push(&message(12, &[0; 8])[1..], []);
        assert_eq!(decoder.next_message().unwrap().unwrap().fds, [9]);
    }

    #[test]
    fn wanted_walks_header_then_payload() {
        let mut decoder = Decoder::<u32>::new();
        assert_eq!(decoder.wanted(), 12);
        decoder.push(&message(2, &[0; 8])[..5], []);
        assert_eq!(decoder.wanted(), 7);
        decoder.push(&message(2, &[0; 8])[5..12], []);
        assert_eq!(decoder.wanted(), 8);
    }

    #[test]
    fn errors_are_sticky_and_drop_descriptors() {
        let fd = std::rc::Rc::new(());
        let mut decoder = Decoder::new();
        decoder.push(&Header::request(5, false, 5000).request.to_le_bytes(), [fd.clone()]);
        decoder.push(&1u32.to_le_bytes(), []);
        decoder.push(&5000u32.to_le_bytes(), []);
        let error = WireError::PayloadTooLarge { request: 5, size: 5000, limit: MAX_PAYLOAD };
        assert_eq!(decoder.next_message(), Err(error));
        assert_eq!(std::rc::Rc::strong_count(&fd), 1);
        decoder.push(&message(1, &[]), [fd.clone()]);
        assert_eq!(decoder.next_message(), Err(error));
        assert_eq!(decoder.wanted(), 0);
        assert_eq!(std::rc::Rc::strong_count(&fd), 1);
    }

    #[test]
    fn too_many_descriptors_are_all_dropped() {
        let fd = std::rc::Rc::new(());
        let mut decoder = Decoder::new();
        decoder.push(&[1], vec![fd.clone(); MAX_FDS]);
        assert_eq!(decoder.next_message(), Ok(None));
        decoder.push(&[0], [fd.clone()]);
        assert_eq!(decoder.next_message(), Err(WireError::TooManyFds { got: 33, limit: 32 }));
        assert_eq!(std::rc::Rc::strong_count(&fd), 1);
    }

    #[test]
    fn bad_flags_are_refused() {
        for flags in [0, 2, 3, 0x11, 0x8000_0001] {
            let mut bytes = message(1, &[]);
            bytes[4..8].copy_from_slice(&u32::to_le_bytes(flags));
            let mut decoder = Decoder::<u32>::new();
            decoder.push(&bytes, []);
            assert_eq!(decoder.next_message(), Err(WireError::Flags { request: 1, flags }));
        }
    }
}
