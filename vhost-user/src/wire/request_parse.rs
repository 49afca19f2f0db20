// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! From message to request: sizes and descriptors are checked here, once.

use vhost::vhost_user::message::FrontendReq;

use super::body::Body;
use super::decoder::{MAX_FDS, Message};
use super::error::WireError;
use super::request::Request;
use super::types::{DeviceStateTransfer, LogArea};

/// "No descriptor" in the payload of SET_VRING_KICK, CALL and ERR.
pub(super) const NO_FD: u64 = 0x100;

impl<F> Request<F> {
    /// Parses a front end's request.
    ///
    /// # Errors
    ///
    /// [`WireError`] if it is a reply, or size or descriptors are not those of this request. A request of unknown id
    /// is no error here: it becomes [`Request::Unknown`].
    pub fn parse(message: Message<F>) -> Result<Self, WireError> {
        let Message { header, payload, fds } = message;
        let request = header.request;
        if header.is_reply() {
            return Err(WireError::UnexpectedReply { request });
        }
        let Ok(code) = FrontendReq::try_from(request) else { return Ok(Self::Unknown(request)) };
        let body = Body { request, bytes: &payload };
        let fds = Fds { request, fds };
        Self::parse_known(code, body, fds)
    }

    fn parse_known(code: FrontendReq, body: Body<'_>, fds: Fds<F>) -> Result<Self, WireError> {
        // Those with descriptors first; all others share one check that there are none.
        Ok(match code {
            FrontendReq::SET_MEM_TABLE => {
                let regions = body.regions(MAX_FDS)?;
                let fds = fds.exactly(regions.len())?;
                Self::SetMemTable(regions.into_iter().zip(fds).collect())
            }
            FrontendReq::SET_LOG_BASE if body.bytes.len() == 8 => {
                fds.none()?;
                Self::SetLogBase { log: LogArea { size: 0, offset: body.u64()? }, fd: None }
            }
            FrontendReq::SET_LOG_BASE => Self::SetLogBase { log: body.log()?, fd: Some(fds.one()?) },
            FrontendReq::SET_LOG_FD => {
                body.empty()?;
                Self::SetLogFd(fds.one()?)
            }
            FrontendReq::SET_VRING_KICK => {
                let (vring, fd) = vring_fd(body, fds)?;
                Self::SetVringKick { vring, fd }
            }
            FrontendReq::SET_VRING_CALL => {
                let (vring, fd) = vring_fd(body, fds)?;
                Self::SetVringCall { vring, fd }
            }
            FrontendReq::SET_VRING_ERR => {
                let (vring, fd) = vring_fd(body, fds)?;
                Self::SetVringErr { vring, fd }
            }
            FrontendReq::SET_BACKEND_REQ_FD => {
                body.empty()?;
                Self::SetBackendReqFd(fds.one()?)
            }
            FrontendReq::SET_INFLIGHT_FD => Self::SetInflightFd(body.inflight()?, fds.one()?),
            FrontendReq::GPU_SET_SOCKET => {
                body.empty()?;
                Self::GpuSetSocket(fds.one()?)
            }
            FrontendReq::ADD_MEM_REG => Self::AddMemReg(body.single_region()?, fds.one()?),
            // The specification lets old front ends send a descriptor here, to be closed unused.
            FrontendReq::REM_MEM_REG => {
                let region = body.single_region()?;
                fds.at_most(1)?;
                Self::RemMemReg(region)
            }
            FrontendReq::SET_DEVICE_STATE_FD => {
                let (direction, phase) = body.device_state()?;
                Self::SetDeviceStateFd(DeviceStateTransfer { direction, phase }, fds.one()?)
            }
            plain => {
                fds.none()?;
                Self::parse_plain(plain, body)?
            }
        })
    }

    fn parse_plain(code: FrontendReq, body: Body<'_>) -> Result<Self, WireError> {
        let empty = |request| body.empty().map(|()| request);
        match code {
            FrontendReq::GET_FEATURES => empty(Self::GetFeatures),
            FrontendReq::SET_FEATURES => body.u64().map(Self::SetFeatures),
            FrontendReq::SET_OWNER => empty(Self::SetOwner),
            FrontendReq::RESET_OWNER => empty(Self::ResetOwner),
            FrontendReq::SET_VRING_NUM => body.vring_state().map(|(vring, num)| Self::SetVringNum { vring, num }),
            FrontendReq::SET_VRING_ADDR => body.vring_addr().map(|(vring, flags, addresses, log)| Self::SetVringAddr {
                vring,
                flags,
                addresses,
                log,
            }),
            FrontendReq::SET_VRING_BASE => body.vring_state().map(|(vring, base)| Self::SetVringBase { vring, base }),
            FrontendReq::GET_VRING_BASE => body.vring_state().map(|(vring, _)| Self::GetVringBase { vring }),
            FrontendReq::GET_PROTOCOL_FEATURES => empty(Self::GetProtocolFeatures),
            FrontendReq::SET_PROTOCOL_FEATURES => body.u64().map(Self::SetProtocolFeatures),
            FrontendReq::GET_QUEUE_NUM => empty(Self::GetQueueNum),
            FrontendReq::SET_VRING_ENABLE => {
                body.vring_state().map(|(vring, enable)| Self::SetVringEnable { vring, enable })
            }
            FrontendReq::SEND_RARP => body.u64().map(|value| {
                let [a, b, c, d, e, f, _, _] = value.to_le_bytes();
                Self::SendRarp([a, b, c, d, e, f])
            }),
            FrontendReq::NET_SET_MTU => body.u64().map(Self::NetSetMtu),
            FrontendReq::IOTLB_MSG => body.iotlb().map(Self::Iotlb),
            FrontendReq::SET_VRING_ENDIAN => {
                body.vring_state().map(|(vring, endian)| Self::SetVringEndian { vring, endian })
            }
            FrontendReq::GET_CONFIG => body.config().map(Self::GetConfig),
            FrontendReq::SET_CONFIG => body.config().map(Self::SetConfig),
            FrontendReq::CREATE_CRYPTO_SESSION => Ok(Self::CreateCryptoSession(body.bytes.to_vec())),
            FrontendReq::CLOSE_CRYPTO_SESSION => body.u64().map(Self::CloseCryptoSession),
            FrontendReq::POSTCOPY_ADVISE => empty(Self::PostcopyAdvise),
            FrontendReq::POSTCOPY_LISTEN => empty(Self::PostcopyListen),
            FrontendReq::POSTCOPY_END => empty(Self::PostcopyEnd),
            FrontendReq::GET_INFLIGHT_FD => body.inflight().map(Self::GetInflightFd),
            FrontendReq::RESET_DEVICE => empty(Self::ResetDevice),
            FrontendReq::VRING_KICK => body.vring_state().map(|(vring, _)| Self::VringKick { vring }),
            FrontendReq::GET_MAX_MEM_SLOTS => empty(Self::GetMaxMemSlots),
            FrontendReq::SET_STATUS => body.u64().map(Self::SetStatus),
            FrontendReq::GET_STATUS => empty(Self::GetStatus),
            FrontendReq::GET_SHARED_OBJECT => body.uuid().map(Self::GetSharedObject),
            FrontendReq::CHECK_DEVICE_STATE => empty(Self::CheckDeviceState),
            FrontendReq::GET_SHMEM_CONFIG => empty(Self::GetShmemConfig),
            // Handled by `parse_known`; named so that a request added to `vhost` does not compile until it is placed.
            FrontendReq::SET_MEM_TABLE
            | FrontendReq::SET_LOG_BASE
            | FrontendReq::SET_LOG_FD
            | FrontendReq::SET_VRING_KICK
            | FrontendReq::SET_VRING_CALL
            | FrontendReq::SET_VRING_ERR
            | FrontendReq::SET_BACKEND_REQ_FD
            | FrontendReq::SET_INFLIGHT_FD
            | FrontendReq::GPU_SET_SOCKET
            | FrontendReq::ADD_MEM_REG
            | FrontendReq::REM_MEM_REG
            | FrontendReq::SET_DEVICE_STATE_FD => Ok(Self::Unknown(code.into())),
        }
    }
}

/// Descriptors of a message; each accessor consumes (and so closes) what is not returned.
pub(super) struct Fds<F> {
    pub(super) request: u32,
    pub(super) fds: Vec<F>,
}

impl<F> Fds<F> {
    pub(super) fn none(self) -> Result<(), WireError> {
        self.exactly(0).map(drop)
    }

    pub(super) fn one(self) -> Result<F, WireError> {
        let request = self.request;
        let missing = WireError::MissingFds { request, got: 0, expected: 1 };
        self.exactly(1)?.pop().ok_or(missing)
    }

    pub(super) fn exactly(self, expected: usize) -> Result<Vec<F>, WireError> {
        let (request, got) = (self.request, self.fds.len());
        match got.cmp(&expected) {
            std::cmp::Ordering::Less => Err(WireError::MissingFds { request, got, expected }),
            std::cmp::Ordering::Equal => Ok(self.fds),
            std::cmp::Ordering::Greater => Err(WireError::ExtraFds { request, got, expected }),
        }
    }

    pub(super) fn at_most(self, limit: usize) -> Result<Vec<F>, WireError> {
        let (request, got) = (self.request, self.fds.len());
        if got > limit {
            return Err(WireError::ExtraFds { request, got, expected: limit });
        }
        Ok(self.fds)
    }
}

/// Ring index and descriptor of KICK, CALL and ERR. Bits above the flag are reserved and ignored, as every peer does.
fn vring_fd<F>(body: Body<'_>, fds: Fds<F>) -> Result<(u8, Option<F>), WireError> {
    let value = body.u64()?;
    let [vring, ..] = value.to_le_bytes();
    if value & NO_FD == 0 {
        return Ok((vring, Some(fds.one()?)));
    }
    fds.none()?;
    Ok((vring, None))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Header;

    fn parse(request: FrontendReq, payload: &[u8], fds: &[u32]) -> Result<Request<u32>, WireError> {
        Request::parse(Message {
            header: Header::request(request.into(), false, u32::try_from(payload.len()).unwrap()),
            payload: payload.to_vec(),
            fds: fds.to_vec(),
        })
    }

    #[test]
    fn kick_with_and_without_descriptor() {
        let with = 3u64.to_le_bytes();
        let without = 0x103u64.to_le_bytes();
        let kick = FrontendReq::SET_VRING_KICK;
        assert_eq!(parse(kick, &with, &[9]), Ok(Request::SetVringKick { vring: 3, fd: Some(9) }));
        assert_eq!(parse(kick, &without, &[]), Ok(Request::SetVringKick { vring: 3, fd: None }));
        let (request, expected) = (12, 0);
        assert_eq!(parse(kick, &without, &[9]), Err(WireError::ExtraFds { request, got: 1, expected }));
        assert_eq!(parse(kick, &with, &[]), Err(WireError::MissingFds { request, got: 0, expected: 1 }));
        assert_eq!(parse(kick, &with, &[1, 2]), Err(WireError::ExtraFds { request, got: 2, expected: 1 }));
        assert_eq!(parse(kick, &with[..7], &[9]), Err(WireError::PayloadSize { request, size: 7, expected: 8 }));
    }

    #[test]
    fn rem_mem_reg_may_bring_a_descriptor_to_be_closed() {
        for fds in [&[][..], &[7]] {
            assert!(matches!(parse(FrontendReq::REM_MEM_REG, &[0; 40], fds), Ok(Request::RemMemReg(_))));
        }
        assert_eq!(
            parse(FrontendReq::REM_MEM_REG, &[0; 40], &[7, 8]),
            Err(WireError::ExtraFds { request: 38, got: 2, expected: 1 })
        );
        assert_eq!(
            parse(FrontendReq::ADD_MEM_REG, &[0; 40], &[]),
            Err(WireError::MissingFds { request: 37, got: 0, expected: 1 })
        );
    }

    #[test]
    fn descriptors_are_refused_where_none_belong() {
        assert_eq!(
            parse(FrontendReq::GET_FEATURES, &[], &[1]),
            Err(WireError::ExtraFds { request: 1, got: 1, expected: 0 })
        );
    }

    #[test]
    fn unknown_ids_and_replies() {
        let header = Header::request(99, false, 3);
        let message = Message { header, payload: vec![1, 2, 3], fds: vec![1u32] };
        assert_eq!(Request::parse(message), Ok(Request::Unknown(99)));
        let message = Message::<u32> { header: Header::reply(1, 0), payload: vec![], fds: vec![] };
        assert_eq!(Request::parse(message), Err(WireError::UnexpectedReply { request: 1 }));
    }
}
