// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where a device meets its backend: the socket and the shared memory, which outlive any one connection.

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::time::Instant;

use vhost_user::Frontend;
use virtqueue::SharedMemory;

use crate::device::{Attaching, Device};
use crate::memory::Plan;
use crate::session::Session;
use crate::socket::{Door, Stream};
use crate::{AttachError, DeviceConfig, Port, QueuePair, Role};

/// A socket to attach a device through, and again when its backend was lost, over the same shared memory.
///
/// ```no_run
/// use cnf::{DeviceConfig, Endpoint, Port};
///
/// let endpoint = Endpoint::open(DeviceConfig::new("/run/shunt/vm0.sock"))?;
/// let mut device = endpoint.attach()?;
/// for pair in device.take_pairs() {
///     let mut port = Port::new(pair)?;
///     port.send_burst(&[&[0xff; 60]])?;
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Endpoint {
    config: DeviceConfig,
    memory: SharedMemory,
    /// In the server role.
    door: Option<Door>,
}

impl Endpoint {
    /// Makes the shared memory and, in the server role, listens on the socket.
    ///
    /// # Errors
    /// A configuration that cannot be; no memory; a socket that cannot be bound.
    pub fn open(config: DeviceConfig) -> Result<Self, AttachError> {
        config.check()?;
        let total = Plan::new(&config, config.rings).total;
        let memory = SharedMemory::create("shunt-cnf", total, config.huge_pages)
            .map_err(|source| AttachError::Memory { socket: config.socket.clone(), source })?;
        let door = match config.role {
            Role::Client => None,
            Role::Server => Some(
                Door::bind(&config.socket)
                    .map_err(|source| AttachError::Bind { socket: config.socket.clone(), source })?,
            ),
        };
        Ok(Self { config, memory, door })
    }

    /// What was asked for.
    #[must_use]
    pub fn config(&self) -> &DeviceConfig {
        &self.config
    }

    /// Waits for the backend and gives it cleared rings. One device at a time: they share the memory.
    ///
    /// # Errors
    /// See [`AttachError`]. The endpoint can be attached again.
    pub fn attach(&self) -> Result<Device, AttachError> {
        self.meet(self.patience())?.first()
    }

    /// The same, but only with a backend that is there now.
    pub(crate) fn attach_now(&self) -> Result<Device, AttachError> {
        self.meet(Instant::now())?.first()
    }

    /// Lets a backend that is there now go on with the rings of a device that lost its own.
    pub(crate) fn resume_now(
        &self,
        frontend: &mut Option<Frontend<OwnedFd>>,
        ports: &mut [Port],
    ) -> Result<Option<Device>, AttachError> {
        let Some(kept) = frontend else { return Ok(None) };
        let attaching = self.meet(Instant::now())?;
        attaching.resume(kept, ports, Port::pair_mut)?;
        Ok(frontend.take().map(|frontend| attaching.device(frontend, Vec::new())))
    }

    /// Waits for a backend after the one of `device` was lost. In virtio-user's order the rings are reset, and `pairs`
    /// may be empty. In QEMU's they go on, because the guest noticed nothing: `pairs` are those of the device, and
    /// what the old backend did not complete, the new one has to.
    ///
    /// # Errors
    /// See [`AttachError`]; among them a backend that offers less than the one before.
    pub fn reattach(&self, device: Device, mut pairs: Vec<QueuePair>) -> Result<Device, AttachError> {
        let (frontend, kept) = device.into_parts();
        pairs.extend(kept);
        self.meet(self.patience())?.again(frontend, pairs)
    }

    fn patience(&self) -> Instant {
        Instant::now() + self.config.timeout
    }

    /// Waits for a backend until `deadline`.
    fn meet(&self, deadline: Instant) -> Result<Attaching<'_>, AttachError> {
        let socket = &self.config.socket;
        let stream = match &self.door {
            None => Stream::connect(socket, deadline)
                .map_err(|source| AttachError::Connect { socket: socket.clone(), source })?,
            Some(door) => door.accept(deadline).map_err(|source| match source.kind() {
                ErrorKind::TimedOut => AttachError::Nobody { socket: socket.clone() },
                _ => AttachError::Connect { socket: socket.clone(), source },
            })?,
        };
        let session = Session::new(stream, socket, self.config.timeout);
        Ok(Attaching { session, config: &self.config, memory: &self.memory })
    }
}
