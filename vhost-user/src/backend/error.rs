// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a front end can do wrong.

use vhost::vhost_user::message::FrontendReq;

use crate::features::Bits;
use crate::wire::WireError;

/// A request that cannot be served. Returned as an error it ends the connection; inside [`super::Action::Refused`] it
/// only means that this one request was answered with a failure, or had no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// Malformed bytes.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// An id that the specification does not have.
    #[error("unknown request {id}")]
    UnknownRequest {
        /// As received.
        id: u32,
    },
    /// The request belongs to protocol features that are not offered here.
    #[error("{request:?} needs {}, which is not offered", Bits::Protocol(*feature))]
    NotOffered {
        /// The request.
        request: FrontendReq,
        /// The protocol feature.
        feature: u64,
    },
    /// The request belongs to protocol features that the front end declined.
    #[error("{request:?} needs {}, which was offered but not acknowledged", Bits::Protocol(*feature))]
    NotNegotiated {
        /// The request.
        request: FrontendReq,
        /// The protocol feature.
        feature: u64,
    },
    /// The request makes no sense for a network device.
    #[error("{request:?} does not apply to a network device")]
    NotApplicable {
        /// The request.
        request: FrontendReq,
    },
    /// SET_FEATURES with bits that were not offered.
    #[error("acknowledged features that were not offered: {}", Bits::Virtio(*bits))]
    FeaturesNotOffered {
        /// The surplus.
        bits: u64,
    },
    /// SET_PROTOCOL_FEATURES with bits that were not offered.
    #[error("acknowledged protocol features that were not offered: {}", Bits::Protocol(*bits))]
    ProtocolFeaturesNotOffered {
        /// The surplus.
        bits: u64,
    },
    /// SET_FEATURES with other bits while rings run.
    #[error("features changed from {} to {} while rings run", Bits::Virtio(*from), Bits::Virtio(*to))]
    FeaturesWhileRunning {
        /// In effect.
        from: u64,
        /// As received.
        to: u64,
    },
    /// A ring index beyond those offered.
    #[error("ring {vring}, but only {max} are offered")]
    VringIndex {
        /// As received.
        vring: u32,
        /// Number of rings.
        max: u16,
    },
    /// A ring size of zero or beyond the maximum.
    #[error("ring {vring}: size {size} is not within 1..={max}")]
    VringSize {
        /// Ring index.
        vring: u16,
        /// As received.
        size: u32,
        /// Largest allowed.
        max: u16,
    },
    /// A split ring's size must be a power of two.
    #[error("ring {vring}: size {size} of a split ring is not a power of two")]
    VringSizeNotPowerOfTwo {
        /// Ring index.
        vring: u16,
        /// As received.
        size: u16,
    },
    /// An area of the ring is not aligned as virtio demands.
    #[error("ring {vring}: address {address:#x} is not a multiple of {alignment}")]
    VringAlignment {
        /// Ring index.
        vring: u16,
        /// As received.
        address: u64,
        /// In bytes.
        alignment: u64,
    },
    /// Flags of SET_VRING_ADDR other than the log flag, or the log flag without VHOST_F_LOG_ALL offered.
    #[error("ring {vring}: address flags {flags:#x} are not offered")]
    VringFlags {
        /// Ring index.
        vring: u16,
        /// As received.
        flags: u32,
    },
    /// SET_VRING_ENABLE with something other than 0 and 1.
    #[error("ring {vring}: enable {value} is neither 0 nor 1")]
    EnableValue {
        /// Ring index.
        vring: u16,
        /// As received.
        value: u32,
    },
    /// More memory regions than offered.
    #[error("{count} memory regions, but only {max} slots are offered")]
    TooManySlots {
        /// Regions there would be.
        count: usize,
        /// Slots.
        max: u16,
    },
    /// A memory region that is empty or wraps around the address space.
    #[error("memory region at {guest_addr:#x} of {size:#x} bytes is empty or wraps around")]
    RegionRange {
        /// Guest address.
        guest_addr: u64,
        /// Bytes.
        size: u64,
    },
    /// Two memory regions overlap.
    #[error("memory region at {guest_addr:#x} of {size:#x} bytes overlaps another one")]
    RegionOverlap {
        /// Guest address.
        guest_addr: u64,
        /// Bytes.
        size: u64,
    },
    /// REM_MEM_REG of a region that does not exist.
    #[error("no memory region at {guest_addr:#x} of {size:#x} bytes")]
    NoSuchRegion {
        /// Guest address.
        guest_addr: u64,
        /// Bytes.
        size: u64,
    },
    /// The host could not do what a request about memory needs, for example map a region.
    #[error("{request:?}: the memory could not be used")]
    MemoryUnusable {
        /// The request.
        request: FrontendReq,
    },
    /// The host could not use the log of dirty pages; going on without it would lose what the guest receives.
    #[error("SET_LOG_BASE: the log of {size:#x} bytes at {offset:#x} of its file could not be used")]
    LogUnusable {
        /// Bytes.
        size: u64,
        /// Offset in the file.
        offset: u64,
    },
    /// SET_LOG_BASE with an address in place of a descriptor.
    #[error("SET_LOG_BASE without a descriptor, log {address:#x}")]
    LogWithoutDescriptor {
        /// As received.
        address: u64,
    },
    /// SET_LOG_FD: nobody is told when something is logged.
    #[error("SET_LOG_FD is not served: what is logged is to be looked for")]
    LogFd,
    /// An MTU outside of what virtio allows.
    #[error("MTU {mtu} is not within 68..=65535")]
    Mtu {
        /// As received.
        mtu: u64,
    },
    /// A device status that does not fit its eight bits.
    #[error("device status {status:#x} does not fit eight bits")]
    Status {
        /// As received.
        status: u64,
    },
    /// A range outside of configuration space.
    #[error("configuration space has no {size} bytes at {offset}")]
    ConfigRange {
        /// Offset.
        offset: u32,
        /// Bytes.
        size: usize,
    },
    /// A write to read-only configuration space.
    #[error("{size} bytes at {offset} of configuration space are read-only")]
    ConfigReadOnly {
        /// Offset.
        offset: u32,
        /// Bytes.
        size: usize,
    },
    /// The *host* handed over a request while it still owes an acknowledgement, or finished one that is not
    /// outstanding.
    #[error("the host broke the order of requests and acknowledgements")]
    HostOrder,
}

impl ProtocolError {
    /// Every value of [`ProtocolError::cause`].
    pub const CAUSES: &[&str] = &[
        // Those of `WireError`.
        "flags",
        "too_many_fds",
        "missing_fds",
        "extra_fds",
        "payload_too_large",
        "payload_size",
        "too_many_regions",
        "unexpected_reply",
        "not_the_reply",
        "unknown_request",
        "not_offered",
        "not_negotiated",
        "not_applicable",
        "features_not_offered",
        "protocol_features_not_offered",
        "features_while_running",
        "vring_index",
        "vring_size",
        "vring_size_not_power_of_two",
        "vring_alignment",
        "vring_flags",
        "enable_value",
        "too_many_slots",
        "region_range",
        "region_overlap",
        "no_such_region",
        "memory_unusable",
        "log_unusable",
        "log_without_descriptor",
        "log_fd",
        "mtu",
        "device_status",
        "config_range",
        "config_read_only",
        "host_order",
    ];

    /// A label for a metric.
    #[must_use]
    pub fn cause(&self) -> &'static str {
        match self {
            Self::Wire(error) => error.cause(),
            Self::UnknownRequest { .. } => "unknown_request",
            Self::NotOffered { .. } => "not_offered",
            Self::NotNegotiated { .. } => "not_negotiated",
            Self::NotApplicable { .. } => "not_applicable",
            Self::FeaturesNotOffered { .. } => "features_not_offered",
            Self::ProtocolFeaturesNotOffered { .. } => "protocol_features_not_offered",
            Self::FeaturesWhileRunning { .. } => "features_while_running",
            Self::VringIndex { .. } => "vring_index",
            Self::VringSize { .. } => "vring_size",
            Self::VringSizeNotPowerOfTwo { .. } => "vring_size_not_power_of_two",
            Self::VringAlignment { .. } => "vring_alignment",
            Self::VringFlags { .. } => "vring_flags",
            Self::EnableValue { .. } => "enable_value",
            Self::TooManySlots { .. } => "too_many_slots",
            Self::RegionRange { .. } => "region_range",
            Self::RegionOverlap { .. } => "region_overlap",
            Self::NoSuchRegion { .. } => "no_such_region",
            Self::MemoryUnusable { .. } => "memory_unusable",
            Self::LogUnusable { .. } => "log_unusable",
            Self::LogWithoutDescriptor { .. } => "log_without_descriptor",
            Self::LogFd => "log_fd",
            Self::Mtu { .. } => "mtu",
            Self::Status { .. } => "device_status",
            Self::ConfigRange { .. } => "config_range",
            Self::ConfigReadOnly { .. } => "config_read_only",
            Self::HostOrder => "host_order",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_distinct_and_include_those_of_the_wire() {
        for (at, cause) in ProtocolError::CAUSES.iter().enumerate() {
            assert!(!ProtocolError::CAUSES[..at].contains(cause), "{cause}");
            assert!(cause.bytes().all(|b| b == b'_' || b.is_ascii_lowercase()), "{cause}");
        }
        assert!(ProtocolError::CAUSES.starts_with(WireError::CAUSES));
        assert!(ProtocolError::CAUSES.contains(&ProtocolError::HostOrder.cause()));
        assert!(ProtocolError::CAUSES.contains(&ProtocolError::Mtu { mtu: 1 }.cause()));
    }

    #[test]
    fn messages_name_the_bits() {
        let error = ProtocolError::FeaturesNotOffered { bits: crate::features::VIRTIO_F_RING_PACKED | 1 << 50 };
        assert_eq!(error.to_string(), "acknowledged features that were not offered: ring_packed,bit 50");
        let error = ProtocolError::NotOffered {
            request: FrontendReq::GET_INFLIGHT_FD,
            feature: crate::features::PROTOCOL_F_INFLIGHT_SHMFD,
        };
        assert_eq!(error.to_string(), "GET_INFLIGHT_FD needs inflight_shmfd, which is not offered");
    }
}
