// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the machine waits for, and what it does then.

use vhost::vhost_user::message::FrontendReq;

use super::error::ProtocolError;
use super::vring::Kick;
use crate::wire::{LogArea, Region, VringAddresses};

/// Acknowledgements that are outstanding for one request. While there is one, no other request is taken.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    /// Tokens given out and not returned.
    pub(super) outstanding: Vec<(u64, Awaited)>,
    /// What completes the request.
    pub(super) then: Then,
    /// The request whose acknowledgement the front end asked for.
    pub(super) ack: Option<FrontendReq>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Awaited {
    Memory,
    Request,
    Stop { vring: u16 },
}

#[derive(Clone, Debug)]
pub(super) enum Then {
    /// SET_MEM_TABLE: this is the table.
    SetMemory(Vec<Region>),
    /// ADD_MEM_REG.
    AddRegion(Region),
    /// REM_MEM_REG.
    RemoveRegion(Region),
    /// SET_LOG_BASE: answer it.
    SetLog(LogArea),
    /// GET_VRING_BASE: report it.
    ReportBase { vring: u16 },
    /// SET_VRING_NUM.
    Resize { vring: u16, size: u16 },
    /// SET_VRING_BASE; what is known of the kick afterwards.
    Rebase { vring: u16, base: u32, kick: Kick },
    /// SET_VRING_ADDR.
    Readdress { vring: u16, addresses: VringAddresses },
    /// SET_STATUS to 0.
    Reset,
    /// RESET_DEVICE.
    ResetDevice,
    /// A request that the host serves.
    Answer(FrontendReq),
}

impl Waiting {
    /// The ring whose stop `token` stands for.
    pub(super) fn stopping(&self, token: u64) -> Option<u16> {
        self.outstanding.iter().find_map(|owed| match *owed {
            (known, Awaited::Stop { vring }) if known == token => Some(vring),
            _ => None,
        })
    }
}

impl Then {
    /// What is wrong when the host cannot use the memory, or the log, that this is about.
    pub(super) fn unusable(&self) -> ProtocolError {
        let request = match self {
            Self::SetLog(LogArea { size, offset }) => {
                return ProtocolError::LogUnusable { size: *size, offset: *offset };
            }
            Self::AddRegion(_) => FrontendReq::ADD_MEM_REG,
            Self::RemoveRegion(_) => FrontendReq::REM_MEM_REG,
            _ => FrontendReq::SET_MEM_TABLE,
        };
        ProtocolError::MemoryUnusable { request }
    }
}
