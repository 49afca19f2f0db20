// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The ports thread: one epoll loop over all sockets, and the node's requests.
//!
//! # Theory of operation
//!
//! Each registered descriptor carries a token {port slot, what it is, generation of the connection}; an event of an earlier
//! connection is recognised by its generation and ignored. Ports in client role that have no connection are tried on a
//! timer, which runs only while there is one; so are the interfaces of uplinks looked at. Whatever changes the set of receive queues ends in a new topology, and workers
//! have it before the front end is told that its request was served.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::{Duration, Instant};

use epoll::{ControlOptions, Event, Events};
use packet::PortId;
use switch::compile::Snapshot;
use switch::engine::Engine;
use vmm_sys_util::eventfd::EventFd;

use super::guest::{Accepted, GuestLink};
use super::member::{Port, PortError};
use super::session::Changes;
use crate::config::{Conflict, CrossConnect, MAX_PORTS, Name, PortConfig};
use crate::counters::PortCounters;
use crate::fleet::Fleet;
use crate::inspect::{CaptureId, CaptureRequest, DropHub, Ends, MAX_CAPTURES, share};
use crate::stats::PortStatus;
use crate::sys::InterfaceProbe;
use crate::topology::Topology;
use crate::worker::{Command, Job, WorkerGone};

/// How often an unconnected port in client role tries: well within the 50 ms promised.
const CONNECT_INTERVAL: Duration = Duration::from_millis(20);
/// How often the interfaces of uplinks are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// How long a listening socket is left alone whose connections cannot be accepted: it would be readable all the time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Events taken in one go.
const EVENTS: usize = 64;

/// Why a port cannot be added or removed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The name is taken.
    #[error("port {:?} exists already", .0.as_str())]
    Exists(Name),
    /// There is no port of that name.
    #[error("no port {0:?}")]
    Unknown(String),
    /// Another port has something that only one can have.
    #[error("port {:?}: {what} is that of port {other:?}", .port.as_str())]
    Taken {
        /// The port.
        port: Name,
        /// What it names.
        what: Conflict,
        /// The port that has it.
        other: String,
    },
    /// The port is wired to another, and what is wired meets no policy.
    #[error("port {0:?} is wired to another port, so that it can have no policy")]
    Wired(String),
    /// A worker that the port names does not exist.
    #[error("port {:?} names worker {:?}, which does not exist", .port.as_str(), .worker.as_str())]
    UnknownWorker {
        /// The port.
        port: Name,
        /// The worker it names.
        worker: Name,
    },
    /// The node is full.
    #[error("the node has its {MAX_PORTS} ports already")]
    TooMany,
    /// The port itself.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The port has fewer queue pairs.
    #[error("port {port:?} has no queue pair {pair}: they are 0 to {last}")]
    NoPair {
        /// The port.
        port: String,
        /// Which was asked for.
        pair: u16,
        /// The last that it has.
        last: u16,
    },
    /// There are as many captures as can be.
    #[error("{MAX_CAPTURES} captures run already, which is the most")]
    TooManyCaptures,
    /// A worker does not answer.
    #[error(transparent)]
    Worker(#[from] WorkerGone),
    /// The port's socket cannot be watched.
    #[error("port {:?}: its socket cannot be watched: {source}", .port.as_str())]
    Watch {
        /// The port.
        port: Name,
        /// The system's word.
        source: io::Error,
    },
}

/// What the node asks of this thread; each is answered.
#[derive(Debug)]
pub(crate) enum Request {
    AddPort {
        config: Box<PortConfig>,
        reply: SyncSender<Result<(), ChangeError>>,
    },
    RemovePort {
        name: String,
        reply: SyncSender<Result<(), ChangeError>>,
    },
    Ports {
        reply: SyncSender<Vec<PortStatus>>,
    },
    Bridge {
        reply: SyncSender<Vec<(switch::BridgeStats, usize)>>,
    },
    /// Puts a port under a policy; the one before comes back.
    SetPolicy {
        name: String,
        snapshot: Arc<Snapshot>,
        reply: SyncSender<Result<Option<Arc<Snapshot>>, ChangeError>>,
    },
    /// Asks the engine that has a port's flows; the question is given the port's number.
    AskEngine {
        name: String,
        question: Question,
        reply: SyncSender<Result<(), ChangeError>>,
    },
    /// Lets every worker capture what passes a port.
    StartCapture {
        id: CaptureId,
        name: String,
        request: CaptureRequest,
        reply: SyncSender<Result<Ends, ChangeError>>,
    },
    /// Ends a capture, if it runs.
    EndCapture {
        id: CaptureId,
    },
    Stop,
}

/// A question to the engine about a port, with the time.
pub(crate) struct Question(pub(crate) Box<AskAbout>);

type AskAbout = dyn FnOnce(&mut Engine, PortId, u64) + Send;

impl std::fmt::Debug for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Question")
    }
}

/// What the thread is made from.
#[derive(Debug)]
pub(crate) struct ThreadParts {
    pub(crate) requests: Receiver<Request>,
    /// Written after each request.
    pub(crate) doorbell: EventFd,
    pub(crate) fleet: Fleet,
    /// Worker names, in worker order.
    pub(crate) workers: Vec<Name>,
    pub(crate) crossconnects: Vec<CrossConnect>,
    pub(crate) state_dir: PathBuf,
    /// Who is told of drops.
    pub(crate) drops: Arc<DropHub>,
}

/// The state that the thread owns.
#[derive(Debug)]
pub(crate) struct PortsThread {
    parts: ThreadParts,
    epoll: RawFd,
    /// Indexed by port id.
    ports: Vec<Option<Port>>,
    by_name: BTreeMap<String, usize>,
    /// Where the search for a free id begins: ids are re-used as late as possible.
    next_id: usize,
    /// Not before this do ports in client role try again, whatever became of the last attempt.
    next_attempt: Option<Instant>,
    /// Whether a port in client role has no connection.
    clients_wait: bool,
    /// Asks about the interfaces of uplinks, and when to do so next; `None`: there are no uplinks.
    probe: InterfaceProbe,
    next_look: Option<Instant>,
    /// Ports whose listening sockets are left alone, until when.
    paused: Vec<usize>,
    resume_at: Option<Instant>,
    /// Captures that run, and of which ports.
    captures: Vec<(CaptureId, PortId)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Doorbell,
    Listener { port: usize },
    Connection { port: usize, generation: u32 },
}

impl PortsThread {
    pub(crate) fn new(parts: ThreadParts) -> io::Result<Self> {
        let epoll = epoll::create(true)?;
        let thread = Self {
            parts,
            epoll,
            ports: Vec::new(),
            by_name: BTreeMap::new(),
            next_id: 0,
            next_attempt: None,
            clients_wait: false,
            probe: InterfaceProbe::new()?,
            next_look: None,
            paused: Vec::new(),
            resume_at: None,
            captures: Vec::new(),
        };
        thread.watch(thread.parts.doorbell.as_raw_fd(), Token::Doorbell, Events::EPOLLIN)?;
        Ok(thread)
    }

    /// Runs until [`Request::Stop`], then takes all queues back and stops the workers.
    pub(crate) fn run(mut self) {
        if let Err(error) = self.serve() {
            log::error!("the ports thread ends: {error}");
        }
        for port in self.ports.iter_mut().flatten() {
            if let Err(error) = port.close(&self.parts.fleet) {
                log::error!("closing port {}: {error}", port.config.name);
            }
        }
        self.parts.fleet.stop();
    }

    fn serve(&mut self) -> Result<(), WorkerGone> {
        let mut events = [Event::new(Events::empty(), 0); EVENTS];
        loop {
            let count = epoll::wait(self.epoll, self.timeout(), &mut events).unwrap_or(0);
            let mut queues_changed = false;
            for event in events.iter().take(count) {
                match Token::from_data(event.data) {
                    Token::Doorbell => {
                        // Only ever read here; a failed read means that another request rang meanwhile.
                        let _ = self.parts.doorbell.read();
                        if !self.requests()? {
                            return Ok(());
                        }
                    }
                    Token::Listener { port } => queues_changed |= self.accept(port)?,
                    Token::Connection { port, generation } => {
                        queues_changed |= self.connection(port, generation, event.events)?;
                    }
                }
            }
            self.connect_clients();
            self.resume_listeners();
            queues_changed |= self.look_at_uplinks()?;
            if queues_changed {
                self.publish()?;
            }
        }
    }

    /// Serves what the node asked; `false`: stop.
    fn requests(&mut self) -> Result<bool, WorkerGone> {
        while let Ok(request) = self.parts.requests.try_recv() {
            match request {
                Request::AddPort { config, reply } => {
                    let result = self.add(*config);
                    // The one who asked may have given up waiting.
                    let _ = reply.try_send(result);
                }
                Request::RemovePort { name, reply } => {
                    let result = self.remove(&name);
                    let _ = reply.try_send(result);
                }
                Request::Ports { reply } => {
                    let _ = reply.try_send(self.statuses()?);
                }
                Request::Bridge { reply } => {
                    let _ = reply.try_send(self.parts.fleet.bridge_stats()?);
                }
                Request::SetPolicy { name, snapshot, reply } => {
                    let result = self.set_policy(&name, snapshot);
                    let _ = reply.try_send(result);
                }
                Request::AskEngine { name, question, reply } => {
                    let result = self.ask_engine(&name, question);
                    let _ = reply.try_send(result);
                }
                Request::StartCapture { id, name, request, reply } => {
                    let _ = reply.try_send(self.start_capture(id, &name, &request));
                }
                Request::EndCapture { id } => self.end_captures(|(running, _)| *running == id)?,
                Request::Stop => return Ok(false),
            }
        }
        Ok(true)
    }

    fn add(&mut self, config: PortConfig) -> Result<(), ChangeError> {
        if self.by_name.contains_key(config.name.as_str()) {
            return Err(ChangeError::Exists(config.name));
        }
        for other in self.ports.iter().flatten() {
            if let Some(what) = config.conflict(&other.config) {
                return Err(ChangeError::Taken { port: config.name, what, other: other.config.name.to_string() });
            }
        }
        let at = self.free_id().ok_or(ChangeError::TooMany)?;
        let id = PortId(u16::try_from(at).map_err(|_| ChangeError::TooMany)?);
        let workers = self.workers_of(&config)?;
        let name = config.name.clone();
        let wired_to = wire_of(&self.parts.crossconnects, &name);
        // On the bridge a fixed address is a station like others; in a virtual network, the network's table has it.
        let mac = config.mac.filter(|_| config.vni.is_none());
        let limits = config.limits;
        let all = self.parts.fleet.len();
        let ThreadParts { state_dir, drops, .. } = &self.parts;
        let counters = (0..all).map(|_| PortCounters::of(id, drops)).collect();
        let port = Port::new(id, config, wired_to, workers, state_dir, &self.probe, counters)?;
        let is_uplink = port.is_uplink();
        if let Some(listener) = port.guest().and_then(|guest| guest.listener.as_ref()) {
            let fd = listener.socket().as_raw_fd();
            let watched = self.watch(fd, Token::Listener { port: at }, Events::EPOLLIN);
            watched.map_err(|source| ChangeError::Watch { port: name.clone(), source })?;
        }
        if self.ports.len() <= at {
            self.ports.resize_with(at + 1, || None);
        }
        if let Some(slot) = self.ports.get_mut(at) {
            *slot = Some(port);
        }
        self.by_name.insert(name.to_string(), at);
        self.parts.drops.name_port(id, &name, true);
        log::info!("port {name} is there");
        self.parts.fleet.add_port(id, &name, mac, limits)?;
        self.publish()?;
        self.connect_clients();
        if is_uplink {
            self.next_look = Some(Instant::now());
            if self.look_at_uplinks()? {
                self.publish()?;
            }
        }
        Ok(())
    }

    fn remove(&mut self, name: &str) -> Result<(), ChangeError> {
        let Some(at) = self.by_name.remove(name) else { return Err(ChangeError::Unknown(name.to_owned())) };
        let Some(mut port) = self.ports.get_mut(at).and_then(Option::take) else { return Ok(()) };
        port.close(&self.parts.fleet)?;
        self.end_captures(|(_, of)| *of == port.id)?;
        self.publish()?;
        self.parts.fleet.forget_port(port.id)?;
        self.parts.drops.name_port(port.id, &port.config.name, false);
        log::info!("port {name} is gone");
        Ok(())
    }

    /// Puts a port under a policy. When this returns every packet of it meets the new one.
    fn set_policy(&mut self, name: &str, snapshot: Arc<Snapshot>) -> Result<Option<Arc<Snapshot>>, ChangeError> {
        let unknown = || ChangeError::Unknown(name.to_owned());
        let at = *self.by_name.get(name).ok_or_else(unknown)?;
        let port = self.ports.get_mut(at).and_then(Option::as_mut).ok_or_else(unknown)?;
        if port.wired_to.is_some() {
            return Err(ChangeError::Wired(name.to_owned()));
        }
        let (id, home, policed) = (port.id, port.first_worker(), !snapshot.is_empty());
        let before = self.parts.fleet.ask(home, |reply| Command::SetPolicy { port: id, snapshot, reply })?;
        if std::mem::replace(&mut port.policed, policed) != policed {
            self.publish()?;
        }
        Ok(before)
    }

    fn ask_engine(&self, name: &str, Question(question): Question) -> Result<(), ChangeError> {
        let port = self.by_name.get(name).and_then(|&at| self.ports.get(at)?.as_ref());
        let port = port.ok_or_else(|| ChangeError::Unknown(name.to_owned()))?;
        let id = port.id;
        let job = Job(Box::new(move |engine: &mut Engine, now_ns| question(engine, id, now_ns)));
        Ok(self.parts.fleet.ask_engine(port.first_worker(), job)?)
    }

    /// Gives every worker a tap, whatever it serves now: queues come, go and move.
    fn start_capture(&mut self, id: CaptureId, name: &str, request: &CaptureRequest) -> Result<Ends, ChangeError> {
        let port = self.by_name.get(name).and_then(|&at| self.ports.get(at)?.as_ref());
        let port = port.ok_or_else(|| ChangeError::Unknown(name.to_owned()))?;
        let (of, pairs) = (port.id, port.queue_pairs());
        if let Some(pair) = request.pair.filter(|pair| *pair >= pairs) {
            return Err(ChangeError::NoPair { port: name.to_owned(), pair, last: pairs.saturating_sub(1) });
        }
        if self.captures.len() >= MAX_CAPTURES {
            return Err(ChangeError::TooManyCaptures);
        }
        self.captures.push((id, of));
        let (mut ends, workers) = (Ends::new(), self.parts.fleet.len());
        for worker in 0..workers {
            let sink = Box::new(share(id, of, pairs, request, workers, &mut ends));
            self.parts.fleet.ask(worker, |reply| Command::StartCapture { sink, reply })?;
        }
        log::info!("port {name} is captured");
        Ok(ends)
    }

    fn end_captures(&mut self, is_over: impl Fn(&(CaptureId, PortId)) -> bool) -> Result<(), WorkerGone> {
        for (id, _) in self.captures.extract_if(.., |capture| is_over(capture)) {
            // What the workers had is freed here.
            self.parts.fleet.end_capture(id)?;
        }
        Ok(())
    }

    /// Returns whether receive queues changed and nobody was told of it.
    fn accept(&mut self, at: usize) -> Result<bool, WorkerGone> {
        let Some(guest) = self.guest(at) else { return Ok(false) };
        let changed = match &guest.session {
            // A front end that went and came back at once may be seen coming before it is seen going.
            Some(_) => self.connection(at, guest.generation, Events::EPOLLIN.bits())?,
            None => false,
        };
        match self.guest_mut(at).map(GuestLink::accept) {
            Some(Accepted::Opened) => self.watch_connection(at),
            Some(Accepted::Failed) => self.pause_listener(at),
            Some(Accepted::None) | None => {}
        }
        Ok(changed)
    }

    /// Tries ports in client role when their time has come, and sets the next time.
    fn connect_clients(&mut self) {
        let wanting =
            |port: &Option<Port>| port.as_ref().and_then(Port::guest).is_some_and(GuestLink::wants_connection);
        if !self.ports.iter().any(wanting) {
            self.clients_wait = false;
            return;
        }
        let now = Instant::now();
        self.clients_wait = true;
        if self.next_attempt.is_some_and(|at| at > now) {
            return;
        }
        for at in 0..self.ports.len() {
            let guest = self.guest_mut(at).filter(|guest| guest.wants_connection());
            if guest.is_some_and(GuestLink::try_connect) {
                self.watch_connection(at);
            }
        }
        // Also after a success: a peer that hangs up at once must not keep us busy.
        self.next_attempt = Some(now + CONNECT_INTERVAL);
        self.clients_wait = self.ports.iter().any(wanting);
    }

    /// Looks after the interfaces of uplinks when their time has come. Returns whether one came, went or changed.
    fn look_at_uplinks(&mut self) -> Result<bool, WorkerGone> {
        let now = Instant::now();
        if self.next_look.is_none_or(|at| at > now) {
            return Ok(false);
        }
        let (mut any, mut changed) = (false, false);
        for uplink in self.ports.iter_mut().flatten().filter_map(Port::uplink_mut) {
            any = true;
            changed |= uplink.look(&self.probe, &self.parts.fleet)?;
        }
        self.next_look = any.then(|| now + LOOK_INTERVAL);
        Ok(changed)
    }

    /// All ports, by name.
    fn statuses(&mut self) -> Result<Vec<PortStatus>, WorkerGone> {
        let Self { by_name, ports, parts, .. } = self;
        let mut statuses = Vec::with_capacity(by_name.len());
        for at in by_name.values() {
            if let Some(port) = ports.get_mut(*at).and_then(Option::as_mut) {
                statuses.push(port.status(&parts.fleet)?);
            }
        }
        Ok(statuses)
    }

    fn pause_listener(&mut self, at: usize) {
        self.listen(at, Events::empty());
        self.paused.push(at);
        self.resume_at.get_or_insert_with(|| Instant::now() + ACCEPT_PAUSE);
    }

    fn resume_listeners(&mut self) {
        if self.resume_at.is_some_and(|at| at <= Instant::now()) {
            self.resume_at = None;
            for at in std::mem::take(&mut self.paused) {
                self.listen(at, Events::EPOLLIN);
            }
        }
    }

    /// Sets what a listening socket is watched for.
    fn listen(&self, at: usize, events: Events) {
        if let Some(listener) = self.guest(at).and_then(|guest| guest.listener.as_ref()) {
            let event = Event::new(events, Token::Listener { port: at }.data());
            // The descriptor is registered: this cannot fail for want of anything.
            let _ = epoll::ctl(self.epoll, ControlOptions::EPOLL_CTL_MOD, listener.socket().as_raw_fd(), event);
        }
    }

    fn watch_connection(&mut self, at: usize) {
        let Some(guest) = self.guest(at) else { return };
        let Some(session) = &guest.session else { return };
        let token = Token::Connection { port: at, generation: guest.generation };
        if let Err(error) = self.watch(session.socket().as_raw_fd(), token, Events::EPOLLIN) {
            log::error!("port {at}: its connection cannot be watched: {error}");
        }
    }

    fn guest(&self, at: usize) -> Option<&GuestLink> {
        self.ports.get(at)?.as_ref()?.guest()
    }

    fn guest_mut(&mut self, at: usize) -> Option<&mut GuestLink> {
        self.ports.get_mut(at)?.as_mut()?.guest_mut()
    }

    /// Returns whether receive queues changed and nobody was told of it.
    fn connection(&mut self, at: usize, generation: u32, events: u32) -> Result<bool, WorkerGone> {
        let Some(port) = self.ports.get_mut(at).and_then(Option::as_mut) else { return Ok(false) };
        let (id, worker) = (port.id, port.first_worker());
        let Some(guest) = port.guest_mut().filter(|guest| guest.generation == generation) else { return Ok(false) };
        let events = Events::from_bits_truncate(events);
        let had_unsent = guest.session.as_ref().is_some_and(|session| session.has_unsent());
        let readable = events.intersects(Events::EPOLLIN | Events::EPOLLHUP | Events::EPOLLERR);
        let changes = if readable { guest.serve(&self.parts.fleet)? } else { Changes::default() };
        if changes.queues {
            // Before the replies go out: a front end that is told that its ring is enabled may use it at once.
            self.publish()?;
        }
        for mac in changes.rarp {
            self.parts.fleet.announce(worker, id, mac)?;
        }
        let port = self.ports.get_mut(at).and_then(Option::as_mut);
        let Some(guest) = port.and_then(Port::guest_mut) else { return Ok(false) };
        let lost = guest.flush(&self.parts.fleet)?;
        if let Some(session) = &guest.session
            && session.has_unsent() != had_unsent
        {
            let room = if session.has_unsent() { Events::EPOLLOUT } else { Events::empty() };
            let event = Event::new(Events::EPOLLIN | room, Token::Connection { port: at, generation }.data());
            // The descriptor is registered: this cannot fail for want of anything.
            let _ = epoll::ctl(self.epoll, ControlOptions::EPOLL_CTL_MOD, session.socket().as_raw_fd(), event);
        }
        Ok(lost)
    }

    /// Builds the topology from the ports as they are, and makes it that of all workers.
    fn publish(&mut self) -> Result<(), WorkerGone> {
        let mut topology = Topology::default();
        for port in self.ports.iter().flatten() {
            topology.insert(port.id, port.entry());
            let peer = port.wired_to.as_ref().and_then(|name| self.by_name.get(name));
            let peer = peer.and_then(|&at| self.ports.get(at)?.as_ref());
            if let Some(peer) = peer.filter(|peer| port.id < peer.id)
                && let Err(error) = topology.wires.connect(port.id, peer.id)
            {
                // The configuration was checked, so that no port is in two pairs.
                log::error!("{error}");
            }
        }
        self.parts.fleet.set_topology(topology)
    }

    fn workers_of(&self, config: &PortConfig) -> Result<Arc<[usize]>, ChangeError> {
        if config.workers.is_empty() {
            return Ok((0..self.parts.fleet.len()).collect());
        }
        let index = |worker: &Name| {
            let at = self.parts.workers.iter().position(|name| name == worker);
            at.ok_or_else(|| ChangeError::UnknownWorker { port: config.name.clone(), worker: worker.clone() })
        };
        config.workers.iter().map(index).collect()
    }

    fn free_id(&mut self) -> Option<usize> {
        let free = |at: &usize| self.ports.get(*at).is_none_or(Option::is_none);
        let at = (self.next_id..MAX_PORTS).chain(0..self.next_id).find(free)?;
        self.next_id = (at + 1) % MAX_PORTS;
        Some(at)
    }

    fn timeout(&self) -> i32 {
        let next_attempt = self.next_attempt.filter(|_| self.clients_wait);
        let times = next_attempt.into_iter().chain(self.resume_at).chain(self.next_look);
        let Some(at) = times.min() else { return -1 };
        let wait = at.saturating_duration_since(Instant::now()).as_micros().div_ceil(1000);
        i32::try_from(wait).unwrap_or(i32::MAX)
    }

    fn watch(&self, fd: RawFd, token: Token, events: Events) -> io::Result<()> {
        epoll::ctl(self.epoll, ControlOptions::EPOLL_CTL_ADD, fd, Event::new(events, token.data()))
    }
}

impl Drop for PortsThread {
    fn drop(&mut self) {
        // Nothing can be done about a failing close.
        let _ = epoll::close(self.epoll);
    }
}

/// What the configuration wires `name` to.
fn wire_of(crossconnects: &[CrossConnect], name: &Name) -> Option<String> {
    crossconnects.iter().find_map(|CrossConnect { ports: [a, b] }| match name {
        name if name == a => Some(b.to_string()),
        name if name == b => Some(a.to_string()),
        _ => None,
    })
}

impl Token {
    const LISTENER: u64 = 1 << 62;
    const CONNECTION: u64 = 1 << 63;

    fn data(self) -> u64 {
        match self {
            Self::Doorbell => 0,
            Self::Listener { port } => Self::LISTENER | (port as u64) << 32,
            Self::Connection { port, generation } => Self::CONNECTION | (port as u64) << 32 | u64::from(generation),
        }
    }

    fn from_data(data: u64) -> Self {
        let port = (data >> 32 & 0xffff) as usize;
        if data & Self::CONNECTION != 0 {
            Self::Connection { port, generation: (data & 0xffff_ffff) as u32 }
        } else if data & Self::LISTENER != 0 {
            Self::Listener { port }
        } else {
            Self::Doorbell
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_kernel() {
        let tokens = [
            Token::Doorbell,
            Token::Listener { port: 1023 },
            Token::Connection { port: 0, generation: u32::MAX },
            Token::Connection { port: 1023, generation: 0 },
        ];
        for token in tokens {
            assert_eq!(Token::from_data(token.data()), token);
        }
    }
}
