// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What can be wrong with the bytes of a message.

/// A message that is malformed on its own, whatever the state of the connection. The stream cannot be trusted after
/// it: the connection has to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Version is not 1, or a reserved flag is set.
    #[error("message {request}: flags {flags:#x}, expected version 1 and no reserved bit")]
    Flags {
        /// Request id.
        request: u32,
        /// Flags as received.
        flags: u32,
    },
    /// More descriptors than any message may have; all were dropped.
    #[error("{got} descriptors waiting, at most {limit} can belong to a message")]
    TooManyFds {
        /// Descriptors held and offered.
        got: usize,
        /// The bound.
        limit: usize,
    },
    /// Descriptors are missing.
    #[error("message {request}: {got} descriptors, expected {expected}")]
    MissingFds {
        /// Request id.
        request: u32,
        /// As received.
        got: usize,
        /// As specified.
        expected: usize,
    },
    /// Descriptors where fewer, or none, are due.
    #[error("message {request}: {got} descriptors, expected {expected}")]
    ExtraFds {
        /// Request id.
        request: u32,
        /// As received.
        got: usize,
        /// As specified.
        expected: usize,
    },
    /// Payload larger than any message has.
    #[error("message {request}: payload of {size} bytes, at most {limit} are allowed")]
    PayloadTooLarge {
        /// Request id.
        request: u32,
        /// As announced by the header.
        size: u32,
        /// The bound.
        limit: u32,
    },
    /// Payload of the wrong size for this message.
    #[error("message {request}: payload of {size} bytes, expected {expected}")]
    PayloadSize {
        /// Request id.
        request: u32,
        /// As received.
        size: usize,
        /// As specified (given the counts inside the payload).
        expected: usize,
    },
    /// More memory regions than one message can carry descriptors for.
    #[error("message {request}: {count} memory regions, at most {limit} fit one message")]
    TooManyRegions {
        /// Request id.
        request: u32,
        /// As received.
        count: u32,
        /// The bound.
        limit: usize,
    },
    /// A reply where a request is due.
    #[error("message {request} is a reply, expected a request")]
    UnexpectedReply {
        /// Request id.
        request: u32,
    },
    /// A request, or the reply to something else, where a certain reply is due.
    #[error("message {request} (flags {flags:#x}), expected the reply to {expected}")]
    NotTheReply {
        /// Request id as received.
        request: u32,
        /// Flags as received.
        flags: u32,
        /// Id of the request that was asked.
        expected: u32,
    },
}

impl WireError {
    /// Every value of [`WireError::cause`].
    pub const CAUSES: &[&str] = &[
        "flags",
        "too_many_fds",
        "missing_fds",
        "extra_fds",
        "payload_too_large",
        "payload_size",
        "too_many_regions",
        "unexpected_reply",
        "not_the_reply",
    ];

    /// A label for a metric.
    #[must_use]
    pub fn cause(&self) -> &'static str {
        match self {
            Self::Flags { .. } => "flags",
            Self::TooManyFds { .. } => "too_many_fds",
            Self::MissingFds { .. } => "missing_fds",
            Self::ExtraFds { .. } => "extra_fds",
            Self::PayloadTooLarge { .. } => "payload_too_large",
            Self::PayloadSize { .. } => "payload_size",
            Self::TooManyRegions { .. } => "too_many_regions",
            Self::UnexpectedReply { .. } => "unexpected_reply",
            Self::NotTheReply { .. } => "not_the_reply",
        }
    }
}
