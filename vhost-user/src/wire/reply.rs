// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Replies of the back end.

use vhost::vhost_user::message::FrontendReq;

use super::body::{self, Body};
use super::decoder::{MAX_FDS, Message};
use super::error::WireError;
use super::header::{Frame, Header};
use super::request_parse::Fds;
use super::types::{ConfigAccess, Inflight, Region};

/// The answer to a request. Which one is due follows from the request; a request without an answer of its own is
/// answered with [`Reply::Value`] if it had the need-reply flag: 0 is success.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply<F> {
    /// A number: features, counts, status, or an acknowledgement.
    Value(u64),
    /// GET_VRING_BASE.
    VringBase {
        /// Ring index.
        vring: u32,
        /// As the ring layout defines it.
        base: u32,
    },
    /// GET_CONFIG; `None` if the back end could not serve it (the payload is empty then).
    Config(Option<ConfigAccess>),
    /// GET_INFLIGHT_FD.
    Inflight(Inflight, F),
    /// POSTCOPY_ADVISE and GET_SHARED_OBJECT: a descriptor, if there is one.
    Descriptor(Option<F>),
    /// SET_DEVICE_STATE_FD: bits 0-7 error, bit 8 no descriptor.
    DeviceState(u64, Option<F>),
    /// SET_LOG_BASE: answered without a payload (some back ends add one, which has no meaning).
    LogBase,
    /// GET_SHMEM_CONFIG: size of each shared-memory region.
    ShmemConfig(Vec<u64>),
    /// SET_MEM_TABLE in post-copy: where the back end mapped the regions.
    Regions(Vec<Region>),
    /// ADD_MEM_REG in post-copy: where the back end mapped the region.
    Region(Region),
    /// CREATE_CRYPTO_SESSION, not parsed.
    CryptoSession(Vec<u8>),
}

impl<F> Reply<F> {
    /// Parses the reply to `expected`.
    ///
    /// # Errors
    ///
    /// [`WireError`] if it is not that reply, or size or descriptors are wrong for it.
    pub fn parse(expected: FrontendReq, message: Message<F>) -> Result<Self, WireError> {
        let Message { header, payload, fds } = message;
        let Header { request, flags, .. } = header;
        if !header.is_reply() || request != u32::from(expected) {
            return Err(WireError::NotTheReply { request, flags, expected: expected.into() });
        }
        let body = Body { request, bytes: &payload };
        let fds = Fds { request, fds };
        Ok(match expected {
            FrontendReq::GET_INFLIGHT_FD => Self::Inflight(body.inflight()?, fds.one()?),
            FrontendReq::POSTCOPY_ADVISE | FrontendReq::GET_SHARED_OBJECT => Self::Descriptor(fds.at_most(1)?.pop()),
            FrontendReq::SET_DEVICE_STATE_FD => Self::DeviceState(body.u64()?, fds.at_most(1)?.pop()),
            plain => {
                fds.none()?;
                Self::parse_plain(plain, body)?
            }
        })
    }

    fn parse_plain(expected: FrontendReq, body: Body<'_>) -> Result<Self, WireError> {
        Ok(match expected {
            FrontendReq::GET_VRING_BASE => {
                let (vring, base) = body.vring_state()?;
                Self::VringBase { vring, base }
            }
            FrontendReq::GET_CONFIG if body.bytes.is_empty() => Self::Config(None),
            FrontendReq::GET_CONFIG => Self::Config(Some(body.config()?)),
            FrontendReq::SET_LOG_BASE => Self::LogBase,
            FrontendReq::GET_SHMEM_CONFIG => Self::ShmemConfig(body.shmem_config()?),
            FrontendReq::CREATE_CRYPTO_SESSION => Self::CryptoSession(body.bytes.to_vec()),
            FrontendReq::SET_MEM_TABLE if body.bytes.len() != 8 => Self::Regions(body.regions(MAX_FDS)?),
            FrontendReq::ADD_MEM_REG if body.bytes.len() != 8 => Self::Region(body.single_region()?),
            _ => Self::Value(body.u64()?),
        })
    }

    /// The message to send as the answer to `request`.
    pub fn into_frame(self, request: FrontendReq) -> Frame<F> {
        let mut fds = Vec::new();
        let payload = match self {
            Self::Value(value) => value.to_le_bytes().to_vec(),
            Self::VringBase { vring, base } => body::put_vring_state(vring, base),
            Self::Config(None) | Self::LogBase => Vec::new(),
            Self::Config(Some(access)) => body::put_config(&access),
            Self::Inflight(inflight, fd) => {
                fds.push(fd);
                body::put_inflight(&inflight)
            }
            Self::Descriptor(fd) => {
                fds.extend(fd);
                Vec::new()
            }
            Self::DeviceState(value, fd) => {
                fds.extend(fd);
                value.to_le_bytes().to_vec()
            }
            Self::ShmemConfig(sizes) => body::put_shmem_config(&sizes),
            Self::Regions(regions) => body::put_regions(regions.iter()),
            Self::Region(region) => body::put_single_region(&region),
            Self::CryptoSession(session) => session,
        };
        Frame::build(|size| Header::reply(request.into(), size), &payload, fds)
    }
}
