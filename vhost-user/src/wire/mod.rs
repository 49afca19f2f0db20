// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Messages as bytes: header, framing, and what each body looks like.
//!
//! From the bottom up: [`Decoder`] cuts a byte stream into [`Message`]s and gives each its file descriptors;
//! [`Request::parse`], [`Reply::parse`] and [`BackendRequest::parse`] turn a message into a value whose size and
//! number of descriptors were checked; `into_frame` is the way back. The *meaning* of values is checked by the roles,
//! not here.

mod backend_request;
mod body;
mod decoder;
mod error;
mod header;
mod reply;
mod request;
mod request_encode;
mod request_parse;
mod types;

pub use self::backend_request::BackendRequest;
pub(crate) use self::body::MAX_CONFIG;
pub use self::decoder::{Decoder, MAX_FDS, MAX_PAYLOAD, Message};
pub use self::error::WireError;
pub use self::header::{Frame, HEADER_LEN, Header};
pub use self::reply::Reply;
pub use self::request::Request;
pub(crate) use self::request::{has_own_reply, protocol_feature};
pub use self::types::{
    ConfigAccess, DeviceStateTransfer, Inflight, Iotlb, LogArea, Region, ShmemMap, VringAddresses, VringArea,
};
