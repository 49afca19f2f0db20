// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A device that is attached, and how it becomes that.
//!
//! Theory of operation. Features are negotiated, then rings are made in the format that came out of it, then the backend
//! is given memory, rings and doorbells. Addresses of guest, front end and ring are all the same number: the address at
//! which this process mapped the memory.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use vhost_user::features::Bits;
use vhost_user::{DeviceSetup, Event, Frontend, FrontendConfig, FrontendError, Order, QueueSetup, Region, Request};
use vhost_user::{Negotiated, VringAddresses};
use virtqueue::{BufferPool, DriverQueue, QueueConfig, QueueFeatures, RingAddresses, RingBase, RingKind, SharedMemory};

use crate::memory::{Plan, TABLE_BYTES};
use crate::pair::Bells;
use crate::session::Session;
use crate::{AttachError, DeviceConfig, EventFd, QueuePair};

/// SET_VRING_BASE of a packed ring that was reset, as virtio-user sends it. Backends with a record of an earlier
/// connection take it to mean that the record is void.
const PACKED_RESET: u32 = 0x0000_8000;

/// The same as QEMU sends it, for a fresh ring and, after its backend vanished, for one that is in use.
const PACKED_QEMU: u32 = 0x8000_8000;

/// A device attached to a backend. Dropping it closes the connection.
#[derive(Debug)]
pub struct Device {
    session: Session,
    frontend: Frontend<OwnedFd>,
    pairs: Vec<QueuePair>,
}

impl Device {
    /// The negotiated virtio features.
    #[must_use]
    pub fn features(&self) -> u64 {
        self.negotiated().features
    }

    /// Everything that was negotiated.
    #[must_use]
    pub fn negotiated(&self) -> &Negotiated {
        self.frontend.negotiated()
    }

    /// What the negotiated features mean for the rings.
    #[must_use]
    pub fn queue_features(&self) -> QueueFeatures {
        QueueFeatures::from_bits(self.features())
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

    /// A second descriptor of the connection, to sleep on: it hangs up when the backend does.
    pub(crate) fn line(&self) -> Result<OwnedFd, AttachError> {
        self.session.line()
    }

    /// Enables or disables both rings of a pair.
    ///
    /// # Errors
    /// See [`AttachError`].
    pub fn set_enabled(&mut self, pair: u16, enabled: bool) -> Result<(), AttachError> {
        self.operate(|frontend| frontend.set_enabled(pair, enabled)).map(drop)
    }

    /// Stops every ring and says where each stands, as GET_VRING_BASE encodes it: receive ring, then transmit ring of
    /// each pair. The backend uses no buffer after that.
    ///
    /// # Errors
    /// See [`AttachError`].
    pub fn stop(&mut self) -> Result<Vec<u32>, AttachError> {
        match self.operate(Frontend::stop)? {
            Event::Stopped(bases) => Ok(bases),
            _ => Ok(Vec::new()),
        }
    }

    /// Sends any other request, sensible or not.
    ///
    /// # Errors
    /// See [`AttachError`].
    pub fn request(&mut self, request: Request<OwnedFd>) -> Result<(), AttachError> {
        self.operate(|frontend| frontend.request(request)).map(drop)
    }

    /// Any operation of the protocol, to its end.
    ///
    /// # Errors
    /// See [`AttachError`].
    pub fn operate(
        &mut self,
        begin: impl FnOnce(&mut Frontend<OwnedFd>) -> Result<(), FrontendError>,
    ) -> Result<Event, AttachError> {
        begin(&mut self.frontend).map_err(|source| self.session.refuse(source))?;
        self.session.run(&mut self.frontend)
    }
}

/// A connection that is to become a device.
pub(crate) struct Attaching<'a> {
    pub(crate) session: Session,
    pub(crate) config: &'a DeviceConfig,
    pub(crate) memory: &'a SharedMemory,
}

impl Attaching<'_> {
    /// The first connection.
    pub(crate) fn first(self) -> Result<Device, AttachError> {
        let wanted = self.config.wanted_features();
        let required = if self.config.fallback { self.config.indispensable_features() } else { wanted };
        let order = self.config.order;
        let setup = FrontendConfig { required, order, ..FrontendConfig::new(wanted, self.config.queue_pairs) };
        let mut frontend = Frontend::new(setup);
        frontend.connect().map_err(|source| self.session.refuse(source))?;
        self.session.run(&mut frontend)?;
        let pairs = self.new_pairs(frontend.negotiated().features)?;
        self.start(&mut frontend, pairs.iter())?;
        Ok(self.device(frontend, pairs))
    }

    /// A connection after one that was lost.
    pub(crate) fn again(
        self,
        mut frontend: Frontend<OwnedFd>,
        mut pairs: Vec<QueuePair>,
    ) -> Result<Device, AttachError> {
        match self.config.order {
            Order::VirtioUser => {
                frontend.reconnect();
                self.session.run(&mut frontend)?;
                pairs = self.new_pairs(frontend.negotiated().features)?;
                self.start(&mut frontend, pairs.iter())?;
            }
            Order::Qemu => self.resume(&mut frontend, &mut pairs, |pair| pair)?,
        }
        Ok(self.device(frontend, pairs))
    }

    /// The same with rings that go on as they are, whoever holds them; they get new doorbells. Can be tried again.
    pub(crate) fn resume<T>(
        &self,
        frontend: &mut Frontend<OwnedFd>,
        holders: &mut [T],
        pair: impl Fn(&mut T) -> &mut QueuePair,
    ) -> Result<(), AttachError> {
        frontend.reconnect();
        self.session.run(frontend)?;
        let features = QueueFeatures::from_bits(frontend.negotiated().features);
        for holder in &mut *holders {
            self.renew(pair(holder), features)?;
        }
        self.start(frontend, holders.iter_mut().map(|holder| &*pair(holder)))
    }

    /// Gives the backend memory and rings.
    fn start<'q>(
        &self,
        frontend: &mut Frontend<OwnedFd>,
        pairs: impl Iterator<Item = &'q QueuePair>,
    ) -> Result<(), AttachError> {
        let spec = self.memory.spec();
        let region = Region {
            guest_addr: spec.guest_addr,
            size: spec.size,
            user_addr: spec.user_addr,
            mmap_offset: spec.mmap_offset,
        };
        let fd = self.memory.fd().try_clone_to_owned().map_err(|source| self.io("sharing memory", source))?;
        let mut queues = Vec::new();
        for pair in pairs {
            queues.push(self.queue(&pair.rx, &pair.rx_bells)?);
            queues.push(self.queue(&pair.tx, &pair.tx_bells)?);
        }
        let setup = DeviceSetup { memory: vec![(region, fd)], queues, enabled_pairs: self.config.queue_pairs };
        frontend.start(setup).map_err(|source| self.session.refuse(source))?;
        self.session.run(frontend)?;
        let features = Bits::Virtio(frontend.negotiated().features);
        log::info!("{}: attached with {features}", self.session.socket().display());
        Ok(())
    }

    pub(crate) fn device(self, frontend: Frontend<OwnedFd>, pairs: Vec<QueuePair>) -> Device {
        Device { session: self.session, frontend, pairs }
    }

    /// What the backend is told of a ring.
    fn queue(&self, queue: &DriverQueue, bells: &Bells) -> Result<QueueSetup<OwnedFd>, AttachError> {
        let config = queue.config();
        let RingAddresses { desc: descriptor, driver, device } = config.addresses;
        let base = match (config.features.kind, self.config.order) {
            (RingKind::Packed, Order::VirtioUser) => PACKED_RESET,
            (RingKind::Packed, Order::Qemu) => PACKED_QEMU,
            // What the used index says is completed; the rest is to be done again. A fresh ring has 0 there.
            (RingKind::Split, _) => {
                let mut used = [0; 2];
                self.memory
                    .map()
                    .read(device + 2, &mut used)
                    .map_err(|_| AttachError::Changed { socket: self.session.socket().to_owned() })?;
                u32::from(u16::from_le_bytes(used))
            }
        };
        let share = |bell: &EventFd| bell.share().map_err(|source| self.io("sharing a doorbell", source));
        Ok(QueueSetup {
            size: config.size,
            base,
            addresses: VringAddresses { descriptor, driver, device },
            kick: Some(share(&bells.kick)?),
            call: Some(share(&bells.call)?),
            err: Some(share(&bells.error)?),
        })
    }

    /// Pairs with cleared rings.
    fn new_pairs(&self, features: u64) -> Result<Vec<QueuePair>, AttachError> {
        let features = QueueFeatures::from_bits(features);
        let plan = Plan::new(self.config, features.kind);
        let base = self.memory.spec().guest_addr;
        let ring = |vring: u16| {
            let addresses = plan.ring(base, vring);
            let start = RingBase::initial(features.kind);
            let queue = QueueConfig { size: self.config.queue_size, features, addresses, base: start };
            DriverQueue::new(queue, self.memory.map())
                .map_err(|source| AttachError::Queue { socket: self.session.socket().to_owned(), source })
        };
        let pool = |at, stride, count| BufferPool::new(self.memory.map(), at, stride, count);
        let entries = u32::from(self.config.queue_size);
        (0..self.config.queue_pairs)
            .map(|index| {
                let at = plan.buffers(base, index);
                let tables = features.indirect.then(|| pool(at.tables, TABLE_BYTES, entries)).transpose()?;
                Ok(QueuePair {
                    index,
                    rx: ring(2 * index)?,
                    tx: ring(2 * index + 1)?,
                    tx_buffers: pool(at.tx, plan.tx_stride, self.config.tx_count())?,
                    rx_buffers: pool(at.rx, plan.rx_stride, entries)?,
                    tx_tables: tables,
                    rx_bells: self.bells()?,
                    tx_bells: self.bells()?,
                })
            })
            .collect()
    }

    /// New doorbells: the old backend may still hold the other ends of the old ones.
    fn renew(&self, pair: &mut QueuePair, features: QueueFeatures) -> Result<(), AttachError> {
        if pair.rx.config().features != features {
            return Err(AttachError::Changed { socket: self.session.socket().to_owned() });
        }
        pair.rx_bells = self.bells()?;
        pair.tx_bells = self.bells()?;
        Ok(())
    }

    fn bells(&self) -> Result<Bells, AttachError> {
        Bells::new().map_err(|source| self.io("making a doorbell", source))
    }

    fn io(&self, step: &str, source: io::Error) -> AttachError {
        AttachError::Io { socket: self.session.socket().to_owned(), step: step.to_owned(), source }
    }
}

impl Device {
    /// What outlives the connection.
    pub(crate) fn into_parts(self) -> (Frontend<OwnedFd>, Vec<QueuePair>) {
        (self.frontend, self.pairs)
    }
}
