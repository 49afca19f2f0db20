// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Feature bits that a vhost-user network device can meet, and names for them.
//!
//! Two separate sets exist. *Virtio features* (GET/SET_FEATURES) are negotiated with the driver in the guest; bit 30
//! of them is borrowed by vhost-user to announce the second set, *protocol features* (GET/SET_PROTOCOL_FEATURES),
//! which the two ends of the socket agree on. The constants here are masks, not bit numbers. Numbers of virtio bits
//! are taken from `virtio-bindings`, those of protocol bits from `vhost`.

use vhost::vhost_user::message::{VhostUserProtocolFeatures as Protocol, VhostUserVirtioFeatures};
use virtio_bindings::{virtio_config, virtio_net, virtio_ring};

/// Dirty pages are to be logged (vhost's own use of bit 26).
pub const VHOST_F_LOG_ALL: u64 = VhostUserVirtioFeatures::LOG_ALL.bits();
/// Protocol features exist (vhost-user's own use of bit 30).
pub const VHOST_USER_F_PROTOCOL_FEATURES: u64 = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();

macro_rules! virtio_features {
    ($($module:ident :: $bit:ident => $name:literal,)*) => {
        $(
            #[doc = concat!("Mask of `", stringify!($bit), "`.")]
            pub const $bit: u64 = 1 << $module::$bit;
        )*
        /// Every virtio bit with a name, lowest first within its origin.
        const VIRTIO_NAMES: &[(u64, &str)] = &[
            $(($bit, $name),)*
            (VHOST_F_LOG_ALL, "log_all"),
            (VHOST_USER_F_PROTOCOL_FEATURES, "protocol_features"),
        ];
    };
}

virtio_features! {
    virtio_net::VIRTIO_NET_F_CSUM => "csum",
    virtio_net::VIRTIO_NET_F_GUEST_CSUM => "guest_csum",
    virtio_net::VIRTIO_NET_F_CTRL_GUEST_OFFLOADS => "ctrl_guest_offloads",
    virtio_net::VIRTIO_NET_F_MTU => "mtu",
    virtio_net::VIRTIO_NET_F_MAC => "mac",
    virtio_net::VIRTIO_NET_F_GSO => "gso",
    virtio_net::VIRTIO_NET_F_GUEST_TSO4 => "guest_tso4",
    virtio_net::VIRTIO_NET_F_GUEST_TSO6 => "guest_tso6",
    virtio_net::VIRTIO_NET_F_GUEST_ECN => "guest_ecn",
    virtio_net::VIRTIO_NET_F_GUEST_UFO => "guest_ufo",
    virtio_net::VIRTIO_NET_F_HOST_TSO4 => "host_tso4",
    virtio_net::VIRTIO_NET_F_HOST_TSO6 => "host_tso6",
    virtio_net::VIRTIO_NET_F_HOST_ECN => "host_ecn",
    virtio_net::VIRTIO_NET_F_HOST_UFO => "host_ufo",
    virtio_net::VIRTIO_NET_F_MRG_RXBUF => "mrg_rxbuf",
    virtio_net::VIRTIO_NET_F_STATUS => "status",
    virtio_net::VIRTIO_NET_F_CTRL_VQ => "ctrl_vq",
    virtio_net::VIRTIO_NET_F_CTRL_RX => "ctrl_rx",
    virtio_net::VIRTIO_NET_F_CTRL_VLAN => "ctrl_vlan",
    virtio_net::VIRTIO_NET_F_CTRL_RX_EXTRA => "ctrl_rx_extra",
    virtio_net::VIRTIO_NET_F_GUEST_ANNOUNCE => "guest_announce",
    virtio_net::VIRTIO_NET_F_MQ => "mq",
    virtio_net::VIRTIO_NET_F_CTRL_MAC_ADDR => "ctrl_mac_addr",
    virtio_net::VIRTIO_NET_F_GUEST_USO4 => "guest_uso4",
    virtio_net::VIRTIO_NET_F_GUEST_USO6 => "guest_uso6",
    virtio_net::VIRTIO_NET_F_HOST_USO => "host_uso",
    virtio_net::VIRTIO_NET_F_HASH_REPORT => "hash_report",
    virtio_net::VIRTIO_NET_F_GUEST_HDRLEN => "guest_hdrlen",
    virtio_net::VIRTIO_NET_F_RSS => "rss",
    virtio_net::VIRTIO_NET_F_RSC_EXT => "rsc_ext",
    virtio_net::VIRTIO_NET_F_STANDBY => "standby",
    virtio_net::VIRTIO_NET_F_SPEED_DUPLEX => "speed_duplex",
    virtio_config::VIRTIO_F_NOTIFY_ON_EMPTY => "notify_on_empty",
    virtio_config::VIRTIO_F_ANY_LAYOUT => "any_layout",
    virtio_ring::VIRTIO_RING_F_INDIRECT_DESC => "indirect_desc",
    virtio_ring::VIRTIO_RING_F_EVENT_IDX => "event_idx",
    virtio_config::VIRTIO_F_VERSION_1 => "version_1",
    virtio_config::VIRTIO_F_ACCESS_PLATFORM => "access_platform",
    virtio_config::VIRTIO_F_RING_PACKED => "ring_packed",
    virtio_config::VIRTIO_F_IN_ORDER => "in_order",
    virtio_config::VIRTIO_F_ORDER_PLATFORM => "order_platform",
    virtio_config::VIRTIO_F_SR_IOV => "sr_iov",
    virtio_config::VIRTIO_F_NOTIFICATION_DATA => "notification_data",
    virtio_config::VIRTIO_F_RING_RESET => "ring_reset",
}

/// Multiple queue pairs.
pub const PROTOCOL_F_MQ: u64 = Protocol::MQ.bits();
/// Dirty-page log in shared memory.
pub const PROTOCOL_F_LOG_SHMFD: u64 = Protocol::LOG_SHMFD.bits();
/// SEND_RARP.
pub const PROTOCOL_F_RARP: u64 = Protocol::RARP.bits();
/// The need-reply flag.
pub const PROTOCOL_F_REPLY_ACK: u64 = Protocol::REPLY_ACK.bits();
/// NET_SET_MTU.
pub const PROTOCOL_F_NET_MTU: u64 = Protocol::MTU.bits();
/// A second socket for requests of the back end.
pub const PROTOCOL_F_BACKEND_REQ: u64 = Protocol::BACKEND_REQ.bits();
/// SET_VRING_ENDIAN.
pub const PROTOCOL_F_CROSS_ENDIAN: u64 = Protocol::CROSS_ENDIAN.bits();
/// Crypto sessions.
pub const PROTOCOL_F_CRYPTO_SESSION: u64 = Protocol::CRYPTO_SESSION.bits();
/// Post-copy migration.
pub const PROTOCOL_F_PAGEFAULT: u64 = Protocol::PAGEFAULT.bits();
/// GET_CONFIG and SET_CONFIG.
pub const PROTOCOL_F_CONFIG: u64 = Protocol::CONFIG.bits();
/// In-flight descriptors in shared memory.
pub const PROTOCOL_F_INFLIGHT_SHMFD: u64 = Protocol::INFLIGHT_SHMFD.bits();
/// RESET_DEVICE.
pub const PROTOCOL_F_RESET_DEVICE: u64 = Protocol::RESET_DEVICE.bits();
/// Kick, call and error as messages.
pub const PROTOCOL_F_INBAND_NOTIFICATIONS: u64 = Protocol::INBAND_NOTIFICATIONS.bits();
/// ADD_MEM_REG, REM_MEM_REG and GET_MAX_MEM_SLOTS.
pub const PROTOCOL_F_CONFIGURE_MEM_SLOTS: u64 = Protocol::CONFIGURE_MEM_SLOTS.bits();
/// GET_STATUS and SET_STATUS.
pub const PROTOCOL_F_STATUS: u64 = Protocol::STATUS.bits();
/// Shared objects.
pub const PROTOCOL_F_SHARED_OBJECT: u64 = Protocol::SHARED_OBJECT.bits();
/// Transfer of the back end's state for migration.
pub const PROTOCOL_F_DEVICE_STATE: u64 = Protocol::DEVICE_STATE.bits();
/// VIRTIO shared-memory regions.
pub const PROTOCOL_F_SHMEM: u64 = Protocol::SHMEM.bits();

const PROTOCOL_NAMES: &[(u64, &str)] = &[
    (PROTOCOL_F_MQ, "mq"),
    (PROTOCOL_F_LOG_SHMFD, "log_shmfd"),
    (PROTOCOL_F_RARP, "rarp"),
    (PROTOCOL_F_REPLY_ACK, "reply_ack"),
    (PROTOCOL_F_NET_MTU, "net_mtu"),
    (PROTOCOL_F_BACKEND_REQ, "backend_req"),
    (PROTOCOL_F_CROSS_ENDIAN, "cross_endian"),
    (PROTOCOL_F_CRYPTO_SESSION, "crypto_session"),
    (PROTOCOL_F_PAGEFAULT, "pagefault"),
    (PROTOCOL_F_CONFIG, "config"),
    (Protocol::BACKEND_SEND_FD.bits(), "backend_send_fd"),
    (Protocol::HOST_NOTIFIER.bits(), "host_notifier"),
    (PROTOCOL_F_INFLIGHT_SHMFD, "inflight_shmfd"),
    (PROTOCOL_F_RESET_DEVICE, "reset_device"),
    (PROTOCOL_F_INBAND_NOTIFICATIONS, "inband_notifications"),
    (PROTOCOL_F_CONFIGURE_MEM_SLOTS, "configure_mem_slots"),
    (PROTOCOL_F_STATUS, "status"),
    (Protocol::XEN_MMAP.bits(), "xen_mmap"),
    (PROTOCOL_F_SHARED_OBJECT, "shared_object"),
    (PROTOCOL_F_DEVICE_STATE, "device_state"),
    (Protocol::GET_VRING_BASE_INFLIGHT.bits(), "get_vring_base_inflight"),
    (Protocol::GPA_ADDRESSES.bits(), "gpa_addresses"),
    (PROTOCOL_F_SHMEM, "shmem"),
];

/// Names of the virtio features in `bits`, without the `VIRTIO_F_` prefixes; bits without a name are left out (see
/// [`Bits`] for a text that loses nothing).
///
/// ```
/// use vhost_user::features::{self, VIRTIO_F_IN_ORDER, VIRTIO_F_RING_PACKED};
/// assert_eq!(features::names(VIRTIO_F_IN_ORDER | VIRTIO_F_RING_PACKED), ["ring_packed", "in_order"]);
/// ```
#[must_use]
pub fn names(bits: u64) -> Vec<&'static str> {
    named(VIRTIO_NAMES, bits)
}

/// Names of the protocol features in `bits`; as [`names`].
#[must_use]
pub fn protocol_names(bits: u64) -> Vec<&'static str> {
    named(PROTOCOL_NAMES, bits)
}

/// A set of feature bits that prints as names, for logs and errors: `ring_packed,in_order,bit 47`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bits {
    /// Virtio features.
    Virtio(u64),
    /// Protocol features.
    Protocol(u64),
}

impl std::fmt::Display for Bits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (table, bits) = match *self {
            Self::Virtio(bits) => (VIRTIO_NAMES, bits),
            Self::Protocol(bits) => (PROTOCOL_NAMES, bits),
        };
        if bits == 0 {
            return f.write_str("none");
        }
        let mut separator = "";
        for bit in (0..u64::BITS).filter(|bit| bits >> bit & 1 != 0) {
            match table.iter().find(|(mask, _)| *mask == 1 << bit) {
                Some((_, name)) => write!(f, "{separator}{name}")?,
                None => write!(f, "{separator}bit {bit}")?,
            }
            separator = ",";
        }
        Ok(())
    }
}

fn named(table: &[(u64, &'static str)], bits: u64) -> Vec<&'static str> {
    let mut found: Vec<_> = table.iter().filter(|(mask, _)| bits & mask != 0).collect();
    found.sort_by_key(|(mask, _)| *mask);
    found.into_iter().map(|(_, name)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_has_one_name_and_one_place() {
        for table in [VIRTIO_NAMES, PROTOCOL_NAMES] {
            for (at, (mask, name)) in table.iter().enumerate() {
                assert_eq!(mask.count_ones(), 1, "{name}");
                assert!(table[at + 1..].iter().all(|(m, n)| m != mask && n != name), "{name}");
            }
        }
    }

    #[test]
    fn bits_print_without_loss() {
        assert_eq!(
            Bits::Virtio(VIRTIO_F_VERSION_1 | VIRTIO_F_RING_PACKED | 1 << 47).to_string(),
            "version_1,ring_packed,bit 47"
        );
        assert_eq!(Bits::Protocol(PROTOCOL_F_MQ | PROTOCOL_F_STATUS | 1 << 60).to_string(), "mq,status,bit 60");
        assert_eq!(Bits::Virtio(0).to_string(), "none");
        assert_eq!(protocol_names(PROTOCOL_F_REPLY_ACK), ["reply_ack"]);
    }
}
