// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The twelve bytes before every message, and a message ready to be sent.

use vhost::vhost_user::message::VhostUserHeaderFlag;

/// Bytes of a header.
pub const HEADER_LEN: usize = 12;

/// The protocol's only version.
const VERSION: u32 = 1;

/// What precedes every payload: request, flags and payload size, each 32 bits, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Request id; its meaning depends on the direction of the *request*.
    pub request: u32,
    /// Version (bits 0-1), reply (bit 2), need-reply (bit 3); the others are reserved.
    pub flags: u32,
    /// Bytes of payload that follow.
    pub size: u32,
}

impl Header {
    /// A request's header.
    #[must_use]
    pub fn request(request: u32, need_reply: bool, size: u32) -> Self {
        let need = if need_reply { VhostUserHeaderFlag::NEED_REPLY.bits() } else { 0 };
        Self { request, flags: VERSION | need, size }
    }

    /// A reply's header. virtio-user compares the flags with 5 exactly, so nothing else may be set.
    #[must_use]
    pub fn reply(request: u32, size: u32) -> Self {
        Self { request, flags: VERSION | VhostUserHeaderFlag::REPLY.bits(), size }
    }

    /// Whether this is the answer to a request.
    #[must_use]
    pub fn is_reply(&self) -> bool {
        self.flags & VhostUserHeaderFlag::REPLY.bits() != 0
    }

    /// Whether the sender asks for an answer (meaningful under REPLY_ACK).
    #[must_use]
    pub fn needs_reply(&self) -> bool {
        self.flags & VhostUserHeaderFlag::NEED_REPLY.bits() != 0
    }

    /// Whether version and reserved bits are as the specification has them.
    pub(crate) fn has_valid_flags(&self) -> bool {
        self.flags & VhostUserHeaderFlag::VERSION.bits() == VERSION
            && self.flags & VhostUserHeaderFlag::RESERVED_BITS.bits() == 0
    }

    pub(crate) fn from_bytes(bytes: [u8; HEADER_LEN]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = bytes;
        Self {
            request: u32::from_le_bytes([a, b, c, d]),
            flags: u32::from_le_bytes([e, f, g, h]),
            size: u32::from_le_bytes([i, j, k, l]),
        }
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.request.to_le_bytes());
        out.extend_from_slice(&self.flags.to_le_bytes());
        out.extend_from_slice(&self.size.to_le_bytes());
    }
}

/// A whole message as it goes over the socket: send `bytes` with one `sendmsg`, `fds` as its SCM_RIGHTS; if the
/// socket takes only part of the bytes, the descriptors went with the first of them.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a frame does nothing until it is sent"]
pub struct Frame<F> {
    /// Header and payload.
    pub bytes: Vec<u8>,
    /// Descriptors for the ancillary data.
    pub fds: Vec<F>,
}

impl<F> Frame<F> {
    pub(crate) fn build(header: impl FnOnce(u32) -> Header, payload: &[u8], fds: Vec<F>) -> Self {
        // Every payload that this crate builds is far below 4 GiB: the largest is bounded by MAX_PAYLOAD.
        let size = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(HEADER_LEN + payload.len());
        header(size).put(&mut bytes);
        bytes.extend_from_slice(payload);
        Self { bytes, fds }
    }

    /// The reply that acknowledges (`0`) or refuses (anything else) `request`.
    pub(crate) fn ack(request: u32, value: u64) -> Self {
        Self::build(|size| Header::reply(request, size), &value.to_le_bytes(), Vec::new())
    }
}
