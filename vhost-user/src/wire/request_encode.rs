// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! From request to bytes.

use super::body;
use super::header::{Frame, Header};
use super::request::Request;
use super::request_parse::NO_FD;

impl<F> Request<F> {
    /// The message to send; `need_reply` sets the flag (front ends do so only after negotiating REPLY_ACK).
    pub fn into_frame(self, need_reply: bool) -> Frame<F> {
        let id = self.id();
        let mut fds = Vec::new();
        let payload = self.into_body(&mut fds);
        Frame::build(|size| Header::request(id, need_reply, size), &payload, fds)
    }

    fn into_body(self, fds: &mut Vec<F>) -> Vec<u8> {
        match self {
            Self::GetFeatures
            | Self::SetOwner
            | Self::ResetOwner
            | Self::GetProtocolFeatures
            | Self::GetQueueNum
            | Self::PostcopyAdvise
            | Self::PostcopyListen
            | Self::PostcopyEnd
            | Self::ResetDevice
            | Self::GetMaxMemSlots
            | Self::GetStatus
            | Self::CheckDeviceState
            | Self::GetShmemConfig
            | Self::Unknown(_) => Vec::new(),
            Self::SetFeatures(value)
            | Self::SetProtocolFeatures(value)
            | Self::NetSetMtu(value)
            | Self::CloseCryptoSession(value)
            | Self::SetStatus(value) => value.to_le_bytes().to_vec(),
            Self::SetVringNum { vring, num: value }
            | Self::SetVringBase { vring, base: value }
            | Self::SetVringEnable { vring, enable: value }
            | Self::SetVringEndian { vring, endian: value } => body::put_vring_state(vring, value),
            Self::GetVringBase { vring } | Self::VringKick { vring } => body::put_vring_state(vring, 0),
            Self::SetVringAddr { vring, flags, addresses, log } => body::put_vring_addr(vring, flags, addresses, log),
            Self::SetVringKick { vring, fd } | Self::SetVringCall { vring, fd } | Self::SetVringErr { vring, fd } => {
                let flag = if fd.is_none() { NO_FD } else { 0 };
                fds.extend(fd);
                (u64::from(vring) | flag).to_le_bytes().to_vec()
            }
            Self::SetMemTable(regions) => {
                let payload = body::put_regions(regions.iter().map(|(region, _)| region));
                fds.extend(regions.into_iter().map(|(_, fd)| fd));
                payload
            }
            Self::AddMemReg(region, fd) => {
                fds.push(fd);
                body::put_single_region(&region)
            }
            Self::RemMemReg(region) => body::put_single_region(&region),
            Self::SetLogBase { log, fd: None } => log.offset.to_le_bytes().to_vec(),
            Self::SetLogBase { log, fd: Some(fd) } => {
                fds.push(fd);
                body::put_log(&log)
            }
            Self::SetLogFd(fd) | Self::SetBackendReqFd(fd) | Self::GpuSetSocket(fd) => {
                fds.push(fd);
                Vec::new()
            }
            Self::SendRarp([a, b, c, d, e, f]) => vec![a, b, c, d, e, f, 0, 0],
            Self::Iotlb(iotlb) => body::put_iotlb(&iotlb),
            Self::GetConfig(access) | Self::SetConfig(access) => body::put_config(&access),
            Self::CreateCryptoSession(session) => session,
            Self::GetInflightFd(inflight) => body::put_inflight(&inflight),
            Self::SetInflightFd(inflight, fd) => {
                fds.push(fd);
                body::put_inflight(&inflight)
            }
            Self::GetSharedObject(uuid) => uuid.to_vec(),
            Self::SetDeviceStateFd(transfer, fd) => {
                fds.push(fd);
                body::put_device_state(transfer.direction, transfer.phase)
            }
        }
    }
}
