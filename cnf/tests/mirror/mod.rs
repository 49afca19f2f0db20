// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A backend on a real socket that sends every frame back to where it came from, or misbehaves as told.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use vhost_user::features::{
    VIRTIO_F_IN_ORDER, VIRTIO_F_RING_PACKED, VIRTIO_F_VERSION_1, VIRTIO_NET_F_MQ, VIRTIO_NET_F_MRG_RXBUF,
    VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC,
};
use vhost_user::{Action, BackendConnection, Frame, Offer, Region, VringStart};
use virtqueue::{
    MemoryMap, QueueConfig, QueueFeatures, RegionSpec, RingAddresses, RingBase, RxQueue, TxQueue, forward, full_fence,
};

/// Everything a ring can have.
pub(crate) const ALL: u64 = VIRTIO_F_VERSION_1
    | VIRTIO_F_RING_PACKED
    | VIRTIO_F_IN_ORDER
    | VIRTIO_NET_F_MRG_RXBUF
    | VIRTIO_RING_F_EVENT_IDX
    | VIRTIO_RING_F_INDIRECT_DESC
    | VIRTIO_NET_F_MQ;

/// What a backend does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Closes the connection when it has received so many messages.
    CloseAfter(usize),
    /// Says nothing more then.
    SilentAfter(usize),
    /// Answers that message with zeros.
    GarbageAfter(usize),
    /// Does not take the memory.
    RefuseMemory,
}

/// What a backend saw of one connection.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) messages: usize,
    pub(crate) features: u64,
    /// Bases of the rings that were started.
    pub(crate) bases: Vec<Option<u32>>,
    pub(crate) forwarded: u64,
    /// The connection ended because the front end closed it.
    pub(crate) closed: bool,
}

/// A backend that listens, in a thread, for one connection.
pub(crate) struct Mirror {
    thread: JoinHandle<Seen>,
    stop: Arc<AtomicBool>,
}

impl Mirror {
    pub(crate) fn listen(path: &Path, offer: Offer, fault: Fault) -> Self {
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(path).unwrap();
        Self::spawn(offer, fault, move |_| listener.accept().unwrap().0)
    }

    pub(crate) fn connect(path: &Path, offer: Offer, fault: Fault) -> Self {
        let path = path.to_owned();
        Self::spawn(offer, fault, move |_| {
            loop {
                if let Ok(stream) = UnixStream::connect(&path) {
                    break stream;
                }
                thread::yield_now();
            }
        })
    }

    fn spawn(offer: Offer, fault: Fault, meet: impl FnOnce(()) -> UnixStream + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let stream = meet(());
            stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
            let mut backend = Backend::new(stream, offer, fault);
            while !told.load(Relaxed) && backend.turn() {}
            backend.seen
        });
        Self { thread, stop }
    }

    /// Ends it, which closes the connection, and says what it saw.
    pub(crate) fn stop(self) -> Seen {
        self.stop.store(true, Relaxed);
        self.thread.join().unwrap()
    }

    /// Waits until the front end has closed the connection.
    pub(crate) fn wait(self) -> Seen {
        self.thread.join().unwrap()
    }
}

/// One connection, and the rings that came with it.
pub(crate) struct Backend {
    connection: BackendConnection<OwnedFd>,
    stream: UnixStream,
    fault: Fault,
    memory: Arc<MemoryMap>,
    pairs: Vec<Pair>,
    /// Call descriptors by ring.
    bells: Vec<Option<OwnedFd>>,
    seen: Seen,
}

#[derive(Default)]
struct Pair {
    rx: Option<RxQueue>,
    tx: Option<TxQueue>,
}

impl Backend {
    pub(crate) fn new(stream: UnixStream, offer: Offer, fault: Fault) -> Self {
        Self {
            connection: BackendConnection::new(offer),
            stream,
            fault,
            memory: Arc::new(MemoryMap::empty()),
            pairs: Vec::new(),
            bells: Vec::new(),
            seen: Seen::default(),
        }
    }

    /// Serves the socket, then the rings; false when it is over.
    fn turn(&mut self) -> bool {
        let goes_on = self.serve(self.pairs.is_empty());
        if goes_on {
            self.reflect();
        }
        goes_on
    }

    /// Serves the socket; false when it is over.
    pub(crate) fn serve(&mut self, wait: bool) -> bool {
        let mut buffer = vec![0; self.connection.wanted().max(1)];
        let mut fds = Vec::new();
        match receive(&self.stream, &mut buffer, &mut fds, wait) {
            Ok(0) => {
                self.seen.closed = true;
                return false;
            }
            Ok(count) => {
                self.connection.receive(&buffer[..count], fds);
                while let Some(action) = self.connection.poll().unwrap() {
                    self.act(action);
                }
                if self.connection.is_between_messages() {
                    self.seen.messages += 1;
                    if self.fault == Fault::CloseAfter(self.seen.messages) {
                        return false;
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::yield_now(),
            Err(_) => return false,
        }
        true
    }

    /// Whether all rings of so many pairs run.
    pub(crate) fn runs(&self, pairs: usize) -> bool {
        self.pairs.len() == pairs && self.pairs.iter().all(|pair| pair.rx.is_some() && pair.tx.is_some())
    }

    /// Gives another one what the front end sent, as far as there is room, pair by pair.
    pub(crate) fn pass_to(&mut self, other: &mut Self) {
        for (index, (from, to)) in self.pairs.iter_mut().zip(&mut other.pairs).enumerate() {
            let (Some(tx), Some(rx)) = (&mut from.tx, &mut to.rx) else { continue };
            forward(tx, rx, 64).unwrap();
            rx.publish();
            tx.publish();
            full_fence();
            ring(&other.bells, 2 * index, rx.should_notify());
            ring(&self.bells, 2 * index + 1, tx.should_notify());
        }
    }

    fn act(&mut self, action: Action<OwnedFd>) {
        match action {
            Action::Reply(frame) => self.reply(frame),
            Action::SetMemory { regions, ack, .. } => {
                let accepted = self.fault != Fault::RefuseMemory;
                if accepted {
                    let regions = regions.into_iter().map(|(region, fd)| (spec(region), fd)).collect();
                    self.memory = Arc::new(MemoryMap::from_regions(regions).unwrap());
                }
                self.connection.finish(ack, accepted);
            }
            Action::AddRegion { region, fd, ack } => {
                self.memory = Arc::new(self.memory.with_region(spec(region), fd).unwrap());
                self.connection.finish(ack, true);
            }
            Action::FeaturesChanged(features) => self.seen.features = features,
            Action::Start(start) => self.start(&start),
            Action::Stop { vring, ack } => {
                let pair = &mut self.pairs[usize::from(vring / 2)];
                let base = match vring % 2 {
                    0 => pair.rx.take().map(|queue| queue.base().to_wire(queue.config().features.kind)),
                    _ => pair.tx.take().map(|queue| queue.base().to_wire(queue.config().features.kind)),
                };
                self.connection.finish_stop(ack, base.unwrap());
            }
            Action::SetCall { vring, fd } => {
                let index = usize::from(vring);
                self.bells.resize_with(self.bells.len().max(index + 1), || None);
                self.bells[index] = fd;
            }
            _ => {}
        }
    }

    fn start(&mut self, start: &VringStart) {
        self.seen.bases.push(start.base);
        let features = QueueFeatures::from_bits(start.features);
        let guest = |user| self.memory.user_to_guest(user, 1).unwrap();
        let addresses = RingAddresses {
            desc: guest(start.addresses.descriptor),
            driver: guest(start.addresses.driver),
            device: guest(start.addresses.device),
        };
        let base = match start.base {
            Some(base) => RingBase::from_wire(features.kind, start.size, base).unwrap(),
            None => RingBase::initial(features.kind),
        };
        let config = QueueConfig { size: start.size, features, addresses, base };
        let index = usize::from(start.vring / 2);
        self.pairs.resize_with(self.pairs.len().max(index + 1), Pair::default);
        let (pair, memory) = (&mut self.pairs[index], Arc::clone(&self.memory));
        match start.vring % 2 {
            0 => pair.rx = Some(RxQueue::new(config, memory, None).unwrap()),
            _ => pair.tx = Some(TxQueue::new(config, memory, None).unwrap()),
        }
    }

    /// Sends back what the front end sent.
    fn reflect(&mut self) {
        for (index, pair) in self.pairs.iter_mut().enumerate() {
            let (Some(rx), Some(tx)) = (&mut pair.rx, &mut pair.tx) else { continue };
            let moved = forward(tx, rx, 64).unwrap();
            self.seen.forwarded += u64::from(moved.frames);
            rx.publish();
            tx.publish();
            full_fence();
            ring(&self.bells, 2 * index, rx.should_notify());
            ring(&self.bells, 2 * index + 1, tx.should_notify());
        }
    }

    fn reply(&self, mut frame: Frame<OwnedFd>) {
        match self.fault {
            Fault::SilentAfter(count) if self.seen.messages >= count => return,
            Fault::GarbageAfter(count) if self.seen.messages >= count => frame.bytes.fill(0),
            _ => {}
        }
        let fds: Vec<_> = frame.fds.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        }
        // A front end that has gone is seen by the next receive.
        let _ = sendmsg(&self.stream, &[io::IoSlice::new(&frame.bytes)], &mut control, SendFlags::NOSIGNAL);
    }
}

fn ring(bells: &[Option<OwnedFd>], vring: usize, wanted: bool) {
    if let Some(Some(bell)) = bells.get(vring).filter(|_| wanted) {
        rustix::io::write(bell, &1u64.to_ne_bytes()).unwrap();
    }
}

fn spec(region: Region) -> RegionSpec {
    let Region { guest_addr, size, user_addr, mmap_offset } = region;
    RegionSpec { guest_addr, size, user_addr, mmap_offset }
}

fn receive(stream: &UnixStream, buffer: &mut [u8], fds: &mut Vec<OwnedFd>, wait: bool) -> io::Result<usize> {
    let flags = if wait { RecvFlags::CMSG_CLOEXEC } else { RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT };
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(32))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = recvmsg(stream, &mut [IoSliceMut::new(buffer)], &mut control, flags)?;
    for item in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = item {
            fds.extend(received);
        }
    }
    Ok(message.bytes)
}
