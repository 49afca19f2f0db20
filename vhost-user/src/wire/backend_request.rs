// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Requests of the back end, over the socket that SET_BACKEND_REQ_FD brings.

use vhost::vhost_user::message::BackendReq;

use super::body::{self, Body};
use super::decoder::Message;
use super::error::WireError;
use super::header::{Frame, Header};
use super::request_parse::Fds;
use super::types::{Iotlb, ShmemMap, VringArea};

/// Every request a back end can make, by the specification's names.
#[derive(Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "names are those of the specification; fields are described by their types")]
pub enum BackendRequest<F> {
    Iotlb(Iotlb),
    ConfigChange,
    /// Without a descriptor the notifier is withdrawn.
    VringHostNotifier {
        area: VringArea,
        fd: Option<F>,
    },
    VringCall {
        vring: u32,
    },
    VringErr {
        vring: u32,
    },
    SharedObjectAdd([u8; 16]),
    SharedObjectRemove([u8; 16]),
    SharedObjectLookup([u8; 16]),
    ShmemMap(ShmemMap, F),
    ShmemUnmap(ShmemMap),
    /// An id that no specification known to us has; payload and descriptors were dropped.
    Unknown(u32),
}

impl<F> BackendRequest<F> {
    /// Parses a back end's request.
    ///
    /// # Errors
    ///
    /// [`WireError`] if it is a reply, or size or descriptors are not those of this request.
    pub fn parse(message: Message<F>) -> Result<Self, WireError> {
        let Message { header, payload, fds } = message;
        let request = header.request;
        if header.is_reply() {
            return Err(WireError::UnexpectedReply { request });
        }
        let Ok(code) = BackendReq::try_from(request) else { return Ok(Self::Unknown(request)) };
        let body = Body { request, bytes: &payload };
        let fds = Fds { request, fds };
        match code {
            BackendReq::VRING_HOST_NOTIFIER_MSG => {
                let area = body.vring_area()?;
                return Ok(Self::VringHostNotifier { area, fd: fds.at_most(1)?.pop() });
            }
            BackendReq::SHMEM_MAP => return Ok(Self::ShmemMap(body.shmem_map()?, fds.one()?)),
            _ => fds.none()?,
        }
        match code {
            BackendReq::IOTLB_MSG => body.iotlb().map(Self::Iotlb),
            BackendReq::CONFIG_CHANGE_MSG => body.empty().map(|()| Self::ConfigChange),
            BackendReq::VRING_CALL => body.vring_state().map(|(vring, _)| Self::VringCall { vring }),
            BackendReq::VRING_ERR => body.vring_state().map(|(vring, _)| Self::VringErr { vring }),
            BackendReq::SHARED_OBJECT_ADD => body.uuid().map(Self::SharedObjectAdd),
            BackendReq::SHARED_OBJECT_REMOVE => body.uuid().map(Self::SharedObjectRemove),
            BackendReq::SHARED_OBJECT_LOOKUP => body.uuid().map(Self::SharedObjectLookup),
            BackendReq::SHMEM_UNMAP => body.shmem_map().map(Self::ShmemUnmap),
            BackendReq::VRING_HOST_NOTIFIER_MSG | BackendReq::SHMEM_MAP => Ok(Self::Unknown(request)),
        }
    }

    /// The request's id on the wire.
    #[must_use]
    pub fn id(&self) -> u32 {
        let code = match self {
            Self::Iotlb(_) => BackendReq::IOTLB_MSG,
            Self::ConfigChange => BackendReq::CONFIG_CHANGE_MSG,
            Self::VringHostNotifier { .. } => BackendReq::VRING_HOST_NOTIFIER_MSG,
            Self::VringCall { .. } => BackendReq::VRING_CALL,
            Self::VringErr { .. } => BackendReq::VRING_ERR,
            Self::SharedObjectAdd(_) => BackendReq::SHARED_OBJECT_ADD,
            Self::SharedObjectRemove(_) => BackendReq::SHARED_OBJECT_REMOVE,
            Self::SharedObjectLookup(_) => BackendReq::SHARED_OBJECT_LOOKUP,
            Self::ShmemMap(..) => BackendReq::SHMEM_MAP,
            Self::ShmemUnmap(_) => BackendReq::SHMEM_UNMAP,
            Self::Unknown(id) => return *id,
        };
        code.into()
    }

    /// The message to send.
    pub fn into_frame(self, need_reply: bool) -> Frame<F> {
        let id = self.id();
        let mut fds = Vec::new();
        let payload = match self {
            Self::Iotlb(iotlb) => body::put_iotlb(&iotlb),
            Self::ConfigChange | Self::Unknown(_) => Vec::new(),
            Self::VringHostNotifier { area, fd } => {
                fds.extend(fd);
                body::put_vring_area(&area)
            }
            Self::VringCall { vring } | Self::VringErr { vring } => body::put_vring_state(vring, 0),
            Self::SharedObjectAdd(uuid) | Self::SharedObjectRemove(uuid) | Self::SharedObjectLookup(uuid) => {
                uuid.to_vec()
            }
            Self::ShmemMap(map, fd) => {
                fds.push(fd);
                body::put_shmem_map(&map)
            }
            Self::ShmemUnmap(map) => body::put_shmem_map(&map),
        };
        Frame::build(|size| Header::request(id, need_reply, size), &payload, fds)
    }

    /// The front end's answer to request `id`: 0 is success; a shared-object look-up returns its descriptor too.
    pub fn reply(id: u32, value: u64, fd: Option<F>) -> Frame<F> {
        let fds = fd.into_iter().collect();
        Frame::build(|size| Header::reply(id, size), &value.to_le_bytes(), fds)
    }

    /// Parses the front end's answer to request `id`.
    ///
    /// # Errors
    ///
    /// [`WireError`] if it is not that reply, or malformed.
    pub fn parse_reply(id: u32, message: Message<F>) -> Result<(u64, Option<F>), WireError> {
        let Message { header, payload, fds } = message;
        let Header { request, flags, .. } = header;
        if !header.is_reply() || request != id {
            return Err(WireError::NotTheReply { request, flags, expected: id });
        }
        let value = Body { request, bytes: &payload }.u64()?;
        Ok((value, Fds { request, fds }.at_most(1)?.pop()))
    }
}
