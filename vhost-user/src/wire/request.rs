// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Requests of the front end.

use vhost::vhost_user::message::FrontendReq;

use super::types::{ConfigAccess, DeviceStateTransfer, Inflight, Iotlb, LogArea, Region, VringAddresses};
use crate::features;

/// Every request a front end can make, by the specification's names; payloads are parsed, not judged. `vring` is a
/// ring index as received (the descriptor messages have only eight bits for it).
#[derive(Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "names are those of the specification; fields are described by their types")]
pub enum Request<F> {
    GetFeatures,
    SetFeatures(u64),
    SetOwner,
    ResetOwner,
    /// The whole memory table; each region with its descriptor.
    SetMemTable(Vec<(Region, F)>),
    /// With a descriptor if LOG_SHMFD was negotiated; without it the log's address alone (then `size` is 0).
    SetLogBase {
        log: LogArea,
        fd: Option<F>,
    },
    SetLogFd(F),
    SetVringNum {
        vring: u32,
        num: u32,
    },
    /// Flag bit 0: log writes to the device area.
    SetVringAddr {
        vring: u32,
        flags: u32,
        addresses: VringAddresses,
        log: u64,
    },
    SetVringBase {
        vring: u32,
        base: u32,
    },
    GetVringBase {
        vring: u32,
    },
    /// `None`: the ring is to be polled (flag 0x100).
    SetVringKick {
        vring: u8,
        fd: Option<F>,
    },
    /// `None`: never notify (flag 0x100).
    SetVringCall {
        vring: u8,
        fd: Option<F>,
    },
    /// `None`: do not report errors (flag 0x100).
    SetVringErr {
        vring: u8,
        fd: Option<F>,
    },
    GetProtocolFeatures,
    SetProtocolFeatures(u64),
    GetQueueNum,
    SetVringEnable {
        vring: u32,
        enable: u32,
    },
    /// MAC address of the guest.
    SendRarp([u8; 6]),
    NetSetMtu(u64),
    SetBackendReqFd(F),
    Iotlb(Iotlb),
    SetVringEndian {
        vring: u32,
        endian: u32,
    },
    GetConfig(ConfigAccess),
    SetConfig(ConfigAccess),
    /// Session description, not parsed.
    CreateCryptoSession(Vec<u8>),
    CloseCryptoSession(u64),
    PostcopyAdvise,
    PostcopyListen,
    PostcopyEnd,
    GetInflightFd(Inflight),
    SetInflightFd(Inflight, F),
    GpuSetSocket(F),
    ResetDevice,
    VringKick {
        vring: u32,
    },
    GetMaxMemSlots,
    AddMemReg(Region, F),
    RemMemReg(Region),
    SetStatus(u64),
    GetStatus,
    GetSharedObject([u8; 16]),
    SetDeviceStateFd(DeviceStateTransfer, F),
    CheckDeviceState,
    GetShmemConfig,
    /// An id that no specification known to us has; payload and descriptors were dropped.
    Unknown(u32),
}

impl<F> Request<F> {
    /// The request's id on the wire.
    #[must_use]
    pub fn id(&self) -> u32 {
        match self {
            Self::Unknown(id) => *id,
            known => known.code().map_or(0, u32::from),
        }
    }

    /// The request's code, unless it is unknown.
    #[must_use]
    pub fn code(&self) -> Option<FrontendReq> {
        Some(match self {
            Self::GetFeatures => FrontendReq::GET_FEATURES,
            Self::SetFeatures(_) => FrontendReq::SET_FEATURES,
            Self::SetOwner => FrontendReq::SET_OWNER,
            Self::ResetOwner => FrontendReq::RESET_OWNER,
            Self::SetMemTable(_) => FrontendReq::SET_MEM_TABLE,
            Self::SetLogBase { .. } => FrontendReq::SET_LOG_BASE,
            Self::SetLogFd(_) => FrontendReq::SET_LOG_FD,
            Self::SetVringNum { .. } => FrontendReq::SET_VRING_NUM,
            Self::SetVringAddr { .. } => FrontendReq::SET_VRING_ADDR,
            Self::SetVringBase { .. } => FrontendReq::SET_VRING_BASE,
            Self::GetVringBase { .. } => FrontendReq::GET_VRING_BASE,
            Self::SetVringKick { .. } => FrontendReq::SET_VRING_KICK,
            Self::SetVringCall { .. } => FrontendReq::SET_VRING_CALL,
            Self::SetVringErr { .. } => FrontendReq::SET_VRING_ERR,
            Self::GetProtocolFeatures => FrontendReq::GET_PROTOCOL_FEATURES,
            Self::SetProtocolFeatures(_) => FrontendReq::SET_PROTOCOL_FEATURES,
            Self::GetQueueNum => FrontendReq::GET_QUEUE_NUM,
            Self::SetVringEnable { .. } => FrontendReq::SET_VRING_ENABLE,
            Self::SendRarp(_) => FrontendReq::SEND_RARP,
            Self::NetSetMtu(_) => FrontendReq::NET_SET_MTU,
            Self::SetBackendReqFd(_) => FrontendReq::SET_BACKEND_REQ_FD,
            Self::Iotlb(_) => FrontendReq::IOTLB_MSG,
            Self::SetVringEndian { .. } => FrontendReq::SET_VRING_ENDIAN,
            Self::GetConfig(_) => FrontendReq::GET_CONFIG,
            Self::SetConfig(_) => FrontendReq::SET_CONFIG,
            Self::CreateCryptoSession(_) => FrontendReq::CREATE_CRYPTO_SESSION,
            Self::CloseCryptoSession(_) => FrontendReq::CLOSE_CRYPTO_SESSION,
            Self::PostcopyAdvise => FrontendReq::POSTCOPY_ADVISE,
            Self::PostcopyListen => FrontendReq::POSTCOPY_LISTEN,
            Self::PostcopyEnd => FrontendReq::POSTCOPY_END,
            Self::GetInflightFd(_) => FrontendReq::GET_INFLIGHT_FD,
            Self::SetInflightFd(..) => FrontendReq::SET_INFLIGHT_FD,
            Self::GpuSetSocket(_) => FrontendReq::GPU_SET_SOCKET,
            Self::ResetDevice => FrontendReq::RESET_DEVICE,
            Self::VringKick { .. } => FrontendReq::VRING_KICK,
            Self::GetMaxMemSlots => FrontendReq::GET_MAX_MEM_SLOTS,
            Self::AddMemReg(..) => FrontendReq::ADD_MEM_REG,
            Self::RemMemReg(_) => FrontendReq::REM_MEM_REG,
            Self::SetStatus(_) => FrontendReq::SET_STATUS,
            Self::GetStatus => FrontendReq::GET_STATUS,
            Self::GetSharedObject(_) => FrontendReq::GET_SHARED_OBJECT,
            Self::SetDeviceStateFd(..) => FrontendReq::SET_DEVICE_STATE_FD,
            Self::CheckDeviceState => FrontendReq::CHECK_DEVICE_STATE,
            Self::GetShmemConfig => FrontendReq::GET_SHMEM_CONFIG,
            Self::Unknown(_) => return None,
        })
    }
}

/// The protocol feature a request belongs to; 0 for those that always exist.
pub(crate) fn protocol_feature(code: FrontendReq) -> u64 {
    match code {
        FrontendReq::SET_LOG_BASE | FrontendReq::SET_LOG_FD => features::PROTOCOL_F_LOG_SHMFD,
        FrontendReq::GET_QUEUE_NUM => features::PROTOCOL_F_MQ,
        FrontendReq::SEND_RARP => features::PROTOCOL_F_RARP,
        FrontendReq::NET_SET_MTU => features::PROTOCOL_F_NET_MTU,
        // IOTLB misses are sent over the back end's channel, so that feature is a condition too.
        FrontendReq::SET_BACKEND_REQ_FD | FrontendReq::IOTLB_MSG => features::PROTOCOL_F_BACKEND_REQ,
        FrontendReq::SET_VRING_ENDIAN => features::PROTOCOL_F_CROSS_ENDIAN,
        FrontendReq::GET_CONFIG | FrontendReq::SET_CONFIG => features::PROTOCOL_F_CONFIG,
        FrontendReq::CREATE_CRYPTO_SESSION | FrontendReq::CLOSE_CRYPTO_SESSION => features::PROTOCOL_F_CRYPTO_SESSION,
        FrontendReq::POSTCOPY_ADVISE | FrontendReq::POSTCOPY_LISTEN | FrontendReq::POSTCOPY_END => {
            features::PROTOCOL_F_PAGEFAULT
        }
        FrontendReq::GET_INFLIGHT_FD | FrontendReq::SET_INFLIGHT_FD => features::PROTOCOL_F_INFLIGHT_SHMFD,
        FrontendReq::RESET_DEVICE => features::PROTOCOL_F_RESET_DEVICE,
        FrontendReq::VRING_KICK => features::PROTOCOL_F_INBAND_NOTIFICATIONS,
        FrontendReq::GET_MAX_MEM_SLOTS | FrontendReq::ADD_MEM_REG | FrontendReq::REM_MEM_REG => {
            features::PROTOCOL_F_CONFIGURE_MEM_SLOTS
        }
        FrontendReq::SET_STATUS | FrontendReq::GET_STATUS => features::PROTOCOL_F_STATUS,
        FrontendReq::GET_SHARED_OBJECT => features::PROTOCOL_F_SHARED_OBJECT,
        FrontendReq::SET_DEVICE_STATE_FD | FrontendReq::CHECK_DEVICE_STATE => features::PROTOCOL_F_DEVICE_STATE,
        FrontendReq::GET_SHMEM_CONFIG => features::PROTOCOL_F_SHMEM,
        _ => 0,
    }
}

/// Whether the request has an answer of its own, so that the need-reply flag changes nothing.
pub(crate) fn has_own_reply(code: FrontendReq) -> bool {
    matches!(
        code,
        FrontendReq::GET_FEATURES
            | FrontendReq::GET_PROTOCOL_FEATURES
            | FrontendReq::GET_QUEUE_NUM
            | FrontendReq::GET_VRING_BASE
            | FrontendReq::GET_CONFIG
            | FrontendReq::GET_MAX_MEM_SLOTS
            | FrontendReq::GET_STATUS
            | FrontendReq::SET_LOG_BASE
            | FrontendReq::IOTLB_MSG
            | FrontendReq::CREATE_CRYPTO_SESSION
            | FrontendReq::POSTCOPY_ADVISE
            | FrontendReq::POSTCOPY_END
            | FrontendReq::GET_INFLIGHT_FD
            | FrontendReq::GET_SHARED_OBJECT
            | FrontendReq::SET_DEVICE_STATE_FD
            | FrontendReq::CHECK_DEVICE_STATE
            | FrontendReq::GET_SHMEM_CONFIG
    )
}
