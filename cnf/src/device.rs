// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The handshake, and a device that is attached.
//!
//! Theory of operation. The order of messages is that of virtio-user, which every backend has to understand:
//!
//! ```text
//! SET_OWNER, GET_FEATURES, GET/SET_PROTOCOL_FEATURES, [GET_QUEUE_NUM], SET_VRING_CALL of all rings,
//! SET_FEATURES, SET_MEM_TABLE, per ring NUM, BASE, ADDR, ERR, KICK, and at last SET_VRING_ENABLE
//! ```
//!
//! Addresses of guest, front end and ring are all the same number: the address at which this process mapped the memory.
//! Where the backend can acknowledge (REPLY_ACK), every step is acknowledged, so that an error names the step at fault.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use vhost_user::features::{
    Bits, PROTOCOL_F_MQ, PROTOCOL_F_REPLY_ACK, VHOST_USER_F_PROTOCOL_FEATURES, VIRTIO_F_IN_ORDER, VIRTIO_F_RING_PACKED,
    VIRTIO_F_VERSION_1,
};
use vhost_user::{Region, Reply, Request, VringAddresses};
use virtqueue::{BufferPool, DriverQueue, QueueConfig, QueueFeatures, RingAddresses, RingBase, RingKind, SharedMemory};

use crate::memory::{Plan, TABLE_BYTES};
use crate::pair::Bells;
use crate::session::Session;
use crate::{AttachError, DeviceConfig, EventFd, QueuePair};

/// SET_VRING_BASE of a packed ring that starts from the beginning, as virtio-user sends it. Backends with a record of
/// an earlier connection take it to mean that the driver has reset the ring.
const PACKED_FRESH: u32 = 0x0000_8000;

/// The same of a ring that is in use, as QEMU sends it after its backend vanished.
const PACKED_RESUMED: u32 = 0x8000_8000;

/// How the rings of an attachment begin.
pub(crate) enum Start {
    /// Cleared.
    Fresh,
    /// As an earlier backend left them.
    Resumed(Vec<QueuePair>),
}

/// A device attached to a backend. Dropping it closes the connection.
#[derive(Debug)]
pub struct Device {
    session: Session,
    features: u64,
    protocol_features: u64,
    queue_pairs: u16,
    pairs: Vec<QueuePair>,
}

impl Device {
    /// The negotiated virtio features.
    #[must_use]
    pub fn features(&self) -> u64 {
        self.features
    }

    /// The negotiated vhost-user protocol features.
    #[must_use]
    pub fn protocol_features(&self) -> u64 {
        self.protocol_features
    }

    /// What the negotiated features mean for the rings.
    #[must_use]
    pub fn queue_features(&self) -> QueueFeatures {
        QueueFeatures::from_bits(self.features)
    }

    /// Path of the socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        self.session.socket()
    }

    /// Hands out the queue pairs, once.
    pub fn take_pairs(&mut self) -> Vec<QueuePair> {
        std::mem::take(&mut self.pairs)
    }

    /// Whether the backend is still there. Looks at the socket, so not for every packet.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        !self.session.hung_up()
    }

    /// Enables or disables both rings of a pair.
    ///
    /// # Errors
    /// See [`AttachError`].
    pub fn set_enabled(&mut self, pair: u16, enabled: bool) -> Result<(), AttachError> {
        for vring in [2 * u32::from(pair), 2 * u32::from(pair) + 1] {
            self.session.tell(Request::SetVringEnable { vring, enable: u32::from(enabled) })?;
        }
        Ok(())
    }

    /// Stops every ring and says where each stands, as GET_VRING_BASE encodes it: receive ring, then transmit ring of
    /// each pair. The backend uses no buffer after that.
    ///
    /// # Errors
    /// See [`AttachError`].
    pub fn stop(&mut self) -> Result<Vec<u32>, AttachError> {
        (0..2 * u32::from(self.queue_pairs))
            .map(|vring| match self.session.ask(Request::GetVringBase { vring })? {
                Reply::VringBase { base, .. } => Ok(base),
                _ => Err(AttachError::WrongReply { socket: self.socket().to_owned(), step: "GET_VRING_BASE".into() }),
            })
            .collect()
    }

    /// Sends any other request that is answered by a number.
    ///
    /// # Errors
    /// See [`AttachError`].
    pub fn ask(&mut self, request: Request<OwnedFd>) -> Result<u64, AttachError> {
        self.session.ask_value(request)
    }

    /// Sends any other request that has no answer of its own.
    ///
    /// # Errors
    /// See [`AttachError`].
    pub fn tell(&mut self, request: Request<OwnedFd>) -> Result<(), AttachError> {
        self.session.tell(request)
    }
}

/// Brings a fresh connection to where packets flow.
pub(crate) fn handshake(
    mut session: Session,
    config: &DeviceConfig,
    memory: &SharedMemory,
    start: Start,
) -> Result<Device, AttachError> {
    let (features, protocol_features) = negotiate(&mut session, config)?;
    let queue_features = QueueFeatures::from_bits(features);
    let (pairs, resumed) = match start {
        Start::Fresh => (new_pairs(session.socket(), config, memory, queue_features)?, false),
        Start::Resumed(pairs) => (renew_bells(&session, pairs, queue_features)?, true),
    };

    for (pair, vring) in rings(&pairs) {
        let fd = share(&session, &pair.bells(vring).call)?;
        session.tell(Request::SetVringCall { vring, fd: Some(fd) })?;
    }
    session.tell(Request::SetFeatures(features))?;
    let spec = memory.spec();
    let region = Region {
        guest_addr: spec.guest_addr,
        size: spec.size,
        user_addr: spec.user_addr,
        mmap_offset: spec.mmap_offset,
    };
    let fd = memory.fd().try_clone_to_owned().map_err(|source| io(&session, "sharing memory", source))?;
    session.tell(Request::SetMemTable(vec![(region, fd)]))?;
    for (pair, vring) in rings(&pairs) {
        start_ring(&mut session, pair, vring, resumed, memory)?;
    }
    for (_, vring) in rings(&pairs) {
        session.tell(Request::SetVringEnable { vring: u32::from(vring), enable: 1 })?;
    }
    log::info!("{}: attached with {}", session.socket().display(), Bits::Virtio(features));
    let features = features & !VHOST_USER_F_PROTOCOL_FEATURES;
    Ok(Device { session, features, protocol_features, queue_pairs: config.queue_pairs, pairs })
}

/// Virtio and protocol features both sides have.
fn negotiate(session: &mut Session, config: &DeviceConfig) -> Result<(u64, u64), AttachError> {
    session.tell(Request::SetOwner)?;
    let offered = session.ask_value(Request::GetFeatures)?;
    let wanted = config.wanted_features();
    let missing = wanted & !offered;
    // Without VERSION_1 the header's length is another one, and in-order and packed rings do not exist.
    if missing != 0 && !config.fallback || missing & VIRTIO_F_VERSION_1 != 0 {
        let socket = session.socket().to_owned();
        return Err(AttachError::Missing { socket, missing: Bits::Virtio(missing), offered: Bits::Virtio(offered) });
    }
    if offered & VHOST_USER_F_PROTOCOL_FEATURES == 0 {
        if config.queue_pairs > 1 {
            return Err(AttachError::QueuePairs { asked: config.queue_pairs, most: 1 });
        }
        return Ok((wanted & offered, 0));
    }
    let ours = PROTOCOL_F_REPLY_ACK | PROTOCOL_F_MQ;
    let protocol = session.ask_value(Request::GetProtocolFeatures)? & ours;
    session.tell(Request::SetProtocolFeatures(protocol))?;
    session.acknowledged = protocol & PROTOCOL_F_REPLY_ACK != 0;
    if config.queue_pairs > 1 {
        let most = match protocol & PROTOCOL_F_MQ {
            0 => 1,
            _ => session.ask_value(Request::GetQueueNum)?,
        };
        if u64::from(config.queue_pairs) > most {
            let most = u16::try_from(most).unwrap_or(u16::MAX);
            return Err(AttachError::QueuePairs { asked: config.queue_pairs, most });
        }
    }
    Ok((wanted & offered | VHOST_USER_F_PROTOCOL_FEATURES, protocol))
}

fn start_ring(
    session: &mut Session,
    pair: &QueuePair,
    index: u8,
    resumed: bool,
    memory: &SharedMemory,
) -> Result<(), AttachError> {
    let vring = u32::from(index);
    let queue = pair.ring(index).config();
    let base = match (queue.features.kind, resumed) {
        (RingKind::Packed, false) => PACKED_FRESH,
        (RingKind::Packed, true) => PACKED_RESUMED,
        (RingKind::Split, false) => 0,
        // What the used index says was completed; everything after it is to be done again.
        (RingKind::Split, true) => {
            let mut used = [0; 2];
            let _ = memory.map().read(queue.addresses.device + 2, &mut used);
            u32::from(u16::from_le_bytes(used))
        }
    };
    session.tell(Request::SetVringNum { vring, num: u32::from(queue.size) })?;
    session.tell(Request::SetVringBase { vring, base })?;
    let RingAddresses { desc, driver, device } = queue.addresses;
    let addresses = VringAddresses { descriptor: desc, driver, device };
    session.tell(Request::SetVringAddr { vring, flags: 0, addresses, log: 0 })?;
    let bells = pair.bells(index);
    let (error, kick) = (share(session, &bells.error)?, share(session, &bells.kick)?);
    session.tell(Request::SetVringErr { vring: index, fd: Some(error) })?;
    session.tell(Request::SetVringKick { vring: index, fd: Some(kick) })
}

fn new_pairs(
    socket: &Path,
    config: &DeviceConfig,
    memory: &SharedMemory,
    features: QueueFeatures,
) -> Result<Vec<QueuePair>, AttachError> {
    let plan = Plan::new(config, features.kind);
    let base = memory.spec().guest_addr;
    let ring = |vring: u16| {
        let queue = QueueConfig {
            size: config.queue_size,
            features,
            addresses: plan.ring(base, vring),
            base: RingBase::initial(features.kind),
        };
        DriverQueue::new(queue, memory.map()).map_err(|source| AttachError::Queue { socket: socket.to_owned(), source })
    };
    let bells = || {
        Bells::new().map_err(|source| AttachError::Io {
            socket: socket.to_owned(),
            step: "making a doorbell".into(),
            source,
        })
    };
    let pool = |at, stride, count| BufferPool::new(Arc::clone(&memory.map()), at, stride, count);
    let entries = u32::from(config.queue_size);
    (0..config.queue_pairs)
        .map(|index| {
            let at = plan.buffers(base, index);
            let tables = features.indirect.then(|| pool(at.tables, TABLE_BYTES, entries)).transpose()?;
            Ok(QueuePair {
                index,
                rx: ring(2 * index)?,
                tx: ring(2 * index + 1)?,
                tx_buffers: pool(at.tx, plan.tx_stride, config.tx_count())?,
                rx_buffers: pool(at.rx, plan.rx_stride, entries)?,
                tx_tables: tables,
                rx_bells: bells()?,
                tx_bells: bells()?,
            })
        })
        .collect()
}

/// Pairs of an earlier attachment, with new doorbells: the old backend may still hold the other ends of theirs.
fn renew_bells(
    session: &Session,
    mut pairs: Vec<QueuePair>,
    features: QueueFeatures,
) -> Result<Vec<QueuePair>, AttachError> {
    for pair in &mut pairs {
        let before = pair.rx.config().features;
        if before != features {
            let bit = if before.kind == features.kind { VIRTIO_F_IN_ORDER } else { VIRTIO_F_RING_PACKED };
            let (missing, offered) = (Bits::Virtio(bit), Bits::Virtio(0));
            return Err(AttachError::Missing { socket: session.socket().to_owned(), missing, offered });
        }
        pair.rx_bells = Bells::new().map_err(|source| io(session, "making a doorbell", source))?;
        pair.tx_bells = Bells::new().map_err(|source| io(session, "making a doorbell", source))?;
    }
    Ok(pairs)
}

/// Every ring with its pair: receive ring, transmit ring, of each pair in turn.
fn rings(pairs: &[QueuePair]) -> impl Iterator<Item = (&QueuePair, u8)> {
    // At most 128 pairs exist, so the index fits.
    pairs.iter().flat_map(|pair| [(pair, 2 * pair.index), (pair, 2 * pair.index + 1)]).map(|(pair, vring)| {
        let vring = u8::try_from(vring).unwrap_or(u8::MAX);
        (pair, vring)
    })
}

fn share(session: &Session, bell: &EventFd) -> Result<OwnedFd, AttachError> {
    bell.share().map_err(|source| io(session, "sharing a doorbell", source))
}

fn io(session: &Session, step: &str, source: std::io::Error) -> AttachError {
    AttachError::Io { socket: session.socket().to_owned(), step: step.to_owned(), source }
}
