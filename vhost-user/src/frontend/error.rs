// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What can go wrong for a front end.

use vhost::vhost_user::message::FrontendReq;

use crate::features::Bits;
use crate::wire::WireError;

/// The connection is of no use any more, or (`Busy`, `NotNegotiated`, `Regions`, `Queues`) an operation was asked for
/// that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrontendError {
    /// The back end sent something malformed, or not the reply that was due.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The back end does not offer features that are required.
    #[error("the back end does not offer {}", Bits::Virtio(*bits))]
    FeaturesMissing {
        /// What is missing.
        bits: u64,
    },
    /// The back end has too few queue pairs.
    #[error("the back end has {offered} queue pairs, {wanted} are wanted")]
    TooFewPairs {
        /// As the back end says.
        offered: u64,
        /// As configured.
        wanted: u16,
    },
    /// The back end's answer names another ring than was asked for.
    #[error("base of ring {got} instead of ring {asked}")]
    WrongVring {
        /// As asked.
        asked: u32,
        /// As received.
        got: u32,
    },
    /// A protocol feature that the operation needs was not negotiated.
    #[error("{request:?} needs {}, which was not negotiated", Bits::Protocol(*feature))]
    NotNegotiated {
        /// The request.
        request: FrontendReq,
        /// The protocol feature.
        feature: u64,
    },
    /// An operation before the one before it has ended.
    #[error("an operation is under way")]
    Busy,
    /// More memory regions than one SET_MEM_TABLE takes, and no ADD_MEM_REG.
    #[error("{count} memory regions, the back end takes {max}")]
    Regions {
        /// As asked.
        count: usize,
        /// Limit.
        max: u64,
    },
    /// A number of queues that is not two for each pair configured, or more pairs to be enabled than there are.
    #[error("{got} queues, {expected} are configured")]
    Queues {
        /// As asked.
        got: usize,
        /// As configured.
        expected: usize,
    },
    /// Messages without a request.
    #[error("a message of {request} that nothing asked for")]
    Unasked {
        /// Its id.
        request: u32,
    },
}
