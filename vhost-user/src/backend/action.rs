// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a host has to do for the state machine.

use super::config::NetConfig;
use super::error::ProtocolError;
use super::vring::Kick;
use crate::wire::{Frame, LogArea, Region, Request, VringAddresses};

/// Something for the host to do, in the order given and before the next one is looked at: a [`Action::Reply`] that
/// follows an action tells the front end that it was done.
///
/// Actions with an acknowledgement (`ack`) hold the connection until the host gives it back through `finish`,
/// `finish_stop` or `finish_request`; requests that came meanwhile wait. The three types of acknowledgement keep them
/// from being mixed up.
#[derive(Debug)]
pub enum Action<F> {
    /// Write these bytes to the front end.
    Reply(Frame<F>),
    /// Virtio features are acknowledged, for the first time or others than before (without the protocol features'
    /// bit, and without VHOST_F_LOG_ALL, see [`Action::SetLogging`]). No ring runs.
    FeaturesChanged(u64),
    /// Replace the memory table. `same_layout` says that addresses are as before; whether the *files* are the same,
    /// too, only the host can tell. Rings may be running: give them the new mapping (or stop them if theirs is gone),
    /// and finish when no worker uses the old one.
    SetMemory {
        /// The whole new table, each region with its file.
        regions: Vec<(Region, F)>,
        /// Addresses, sizes and offsets equal those in effect, in the same order.
        same_layout: bool,
        /// For `finish`.
        ack: MemoryAck,
    },
    /// Add a region to the memory table; rings may be running.
    AddRegion {
        /// The region.
        region: Region,
        /// Its file.
        fd: F,
        /// For `finish`.
        ack: MemoryAck,
    },
    /// Remove a region from the memory table; rings may be running. Finish when no worker uses it any more.
    RemoveRegion {
        /// The region as it was added (its offset, too).
        region: Region,
        /// For `finish`.
        ack: MemoryAck,
    },
    /// The log of dirty pages from now on, in place of one before. Finish when workers have it; if it cannot be used, the
    /// connection ends.
    SetLog {
        /// Where in the file.
        log: LogArea,
        /// The file.
        fd: F,
        /// For `finish`.
        ack: MemoryAck,
    },
    /// Whether everything that is written into guest memory is to be logged (VHOST_F_LOG_ALL). Rings may be running, and
    /// the log may be yet to come; what follows this action counts on it that workers know.
    SetLogging(bool),
    /// Whether, and from which guest address on, what is written into a ring's device area is to be logged
    /// (VHOST_VRING_F_LOG). The ring may be running, as for [`Action::SetLogging`].
    SetVringLog {
        /// Ring index.
        vring: u16,
        /// What the area's first byte is logged as; `None`: as what it is, while everything is logged.
        address: Option<u64>,
    },
    /// A ring can run: everything is known. It carries data only while enabled.
    Start(VringStart),
    /// A running ring must stop: finish with its base when no worker touches it any more. Its kick descriptor is not
    /// to be waited for, but kept, as the others are, until replaced: the ring may start again with it. If the ring
    /// had broken, its last base is as good as any.
    Stop {
        /// Ring index.
        vring: u16,
        /// For `finish_stop`.
        ack: StopAck,
    },
    /// A *running* ring is enabled or disabled. While disabled, nothing is delivered to it and what it sends is
    /// discarded.
    SetEnabled {
        /// Ring index.
        vring: u16,
        /// New state.
        enabled: bool,
    },
    /// The descriptor with which the guest wakes us; `None`: poll instead. Keep it for the ring's start if it does
    /// not run.
    SetKick {
        /// Ring index.
        vring: u16,
        /// To be read.
        fd: Option<F>,
    },
    /// The descriptor with which we wake the guest; `None`: never do. Keep it if the ring does not run.
    SetCall {
        /// Ring index.
        vring: u16,
        /// To be written.
        fd: Option<F>,
    },
    /// The descriptor with which we report a broken ring; `None`: do not. Keep it if the ring does not run.
    SetErr {
        /// Ring index.
        vring: u16,
        /// To be written.
        fd: Option<F>,
    },
    /// The guest will use this MTU, in bytes.
    SetMtu(u16),
    /// The guest moved here: broadcast a RARP from this address (unless it announces itself).
    SendRarp([u8; 6]),
    /// The driver wrote the device status (virtio's ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK, FAILED; 0 is reset,
    /// and rings were stopped).
    Status(u8),
    /// Configuration space was written: the driver set its MAC address, or a migration restored all.
    ConfigChanged(NetConfig),
    /// The device is as new: rings were stopped and forgotten, all are disabled, nothing is logged, features are to be
    /// acknowledged anew. Memory and descriptors stay until replaced, because QEMU does not send them all again.
    ResetDevice,
    /// A request of a protocol feature that the host offered beyond [`super::Offer::PROTOCOL_FEATURES`]: serve it and
    /// finish with the reply.
    Request {
        /// The request.
        request: Request<F>,
        /// For `finish_request`.
        ack: RequestAck,
    },
    /// A request had no effect; if the front end asked, the reply says so. Something for log and metric.
    Refused(ProtocolError),
}

/// Everything that is known of a ring when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VringStart {
    /// Ring index: even ones are received by the guest, odd ones sent by it.
    pub vring: u16,
    /// Descriptors.
    pub size: u16,
    /// Where to begin, as SET_VRING_BASE had it or the last stop reported it; `None` if neither happened: at the
    /// ring's beginning.
    pub base: Option<u32>,
    /// Front-end addresses: translate them by the regions' `user_addr`.
    pub addresses: VringAddresses,
    /// Acknowledged virtio features, without the protocol features' bit and VHOST_F_LOG_ALL.
    pub features: u64,
    /// Whether it may carry data at once.
    pub enabled: bool,
    /// Whether the guest kicks, or the ring is to be polled.
    pub kick: Kick,
}

/// The host owes word that a change of memory is complete.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the connection waits until this is given to `finish`"]
pub struct MemoryAck(u64);

/// The host owes a stopped ring's base.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the connection waits until this is given to `finish_stop`"]
pub struct StopAck(u64);

/// The host owes a reply.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the connection waits until this is given to `finish_request`"]
pub struct RequestAck(u64);

macro_rules! token {
    ($($ack:ident)*) => {$(
        impl $ack {
            pub(super) fn new(token: u64) -> Self {
                Self(token)
            }

            pub(super) fn into_token(self) -> u64 {
                self.0
            }
        }
    )*};
}
token!(MemoryAck StopAck RequestAck);
