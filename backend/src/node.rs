// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A running node: its threads, and the handle by which it is asked.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use packet::PortId;
use switch::BridgeConfig;
use switch::compile::Snapshot;
use switch::engine::{Engine, EngineConfig, Event};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::config::{Config, Fault, Machine, Name, PortConfig, WorkerConfig};
use crate::counters::WorkerCounters;
use crate::fleet::Fleet;
use crate::inspect::{Capture, CaptureId, CaptureRequest, DropHub, DropTrace};
use crate::port::{ChangeError, PortsThread, Question, Request, ThreadParts};
use crate::stats::{BridgeStats, PortStatus, Stats, WorkerStats};
use crate::sys::pin_current_thread;
use crate::worker::{Parts, Waker, Worker, mailbox, ring};

/// How long the ports thread may take to answer: it waits for workers, each for a burst.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Events of policy that wait to be heard.
const MAX_EVENTS: usize = 4096;

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// A configuration that was built in code and cannot be.
    #[error(transparent)]
    Config(#[from] Fault),
    /// The directory of ring records.
    #[error("state directory {path}: {source}")]
    StateDir {
        /// The directory.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// A worker cannot be pinned, or has no epoll.
    #[error("worker {worker}: {source}")]
    Worker {
        /// Its name.
        worker: Name,
        /// The system's word.
        source: io::Error,
    },
    /// A thread or an eventfd.
    #[error("a thread of the node cannot start: {0}")]
    Thread(#[from] io::Error),
    /// A port of the configuration.
    #[error(transparent)]
    Port(#[from] ChangeError),
    /// The node's threads do not answer.
    #[error(transparent)]
    Gone(#[from] NodeGone),
}

/// The node has stopped, or does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the node has stopped or does not answer")]
pub struct NodeGone;

/// A running node. Dropping it stops it.
#[derive(Debug)]
pub struct Node {
    handle: NodeHandle,
    ports: Option<JoinHandle<()>>,
    workers: Vec<JoinHandle<()>>,
}

/// Asks a running node; cheap to clone.
#[derive(Clone)]
pub struct NodeHandle {
    requests: Sender<Request>,
    doorbell: Arc<EventFd>,
    workers: Arc<[WorkerConfig]>,
    counters: Arc<[WorkerCounters]>,
    bridge_capacity: u64,
    events: Arc<Mutex<Option<Receiver<Event>>>>,
    drops: Arc<DropHub>,
    started: Instant,
}

impl Node {
    /// Starts workers and the ports thread, and adds the ports of the configuration.
    ///
    /// # Errors
    /// The first thing that cannot be had; nothing is left running then.
    pub fn start(config: &Config) -> Result<Self, NodeError> {
        config.check(&Machine::current())?;
        virtqueue::install_sigbus_guard().map_err(NodeError::Thread)?;
        make_state_dir(&config.control.state_dir)?;
        let bridge = BridgeConfig { seed: RandomState::new().hash_one(0), ..BridgeConfig::default() };
        let counters: Arc<[WorkerCounters]> = config.workers.iter().map(|_| WorkerCounters::default()).collect();
        let engine = EngineConfig { seed: RandomState::new().hash_one(1), ..EngineConfig::default() };
        let (events, heard) = sync_channel(MAX_EVENTS);
        let (workers, fleet) = start_workers(config, &counters, bridge, engine, &events)?;
        let doorbell = Arc::new(EventFd::new(EFD_NONBLOCK)?);
        let drops = Arc::new(DropHub::default());
        let (requests, receiver) = channel();
        let thread = PortsThread::new(ThreadParts {
            requests: receiver,
            doorbell: doorbell.try_clone()?,
            fleet,
            workers: config.workers.iter().map(|worker| worker.name.clone()).collect(),
            crossconnects: config.crossconnects.clone(),
            state_dir: config.control.state_dir.clone(),
            drops: Arc::clone(&drops),
        })?;
        let ports = thread::Builder::new().name("ports".into()).spawn(move || thread.run())?;
        let handle = NodeHandle {
            requests,
            doorbell,
            workers: config.workers.clone().into(),
            counters,
            bridge_capacity: u64::from(bridge.capacity),
            events: Arc::new(Mutex::new(Some(heard))),
            drops,
            started: Instant::now(),
        };
        let node = Self { handle, ports: Some(ports), workers };
        for port in &config.ports {
            node.handle.add_port(port.clone())??;
        }
        Ok(node)
    }

    /// The handle by which the node is asked.
    #[must_use]
    pub fn handle(&self) -> NodeHandle {
        self.handle.clone()
    }

    /// Takes all queues back and ends all threads. Guests find their rings in order.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.handle.send(Request::Stop);
        for thread in self.ports.take().into_iter().chain(self.workers.drain(..)) {
            if thread.join().is_err() {
                log::error!("a thread of the node panicked");
            }
        }
    }
}

impl NodeHandle {
    /// Adds a port.
    ///
    /// # Errors
    /// [`NodeGone`], or what is wrong with the port.
    pub fn add_port(&self, config: PortConfig) -> Result<Result<(), ChangeError>, NodeGone> {
        self.ask(|reply| Request::AddPort { config: Box::new(config), reply })
    }

    /// Removes a port; its guest's connection is closed.
    ///
    /// # Errors
    /// [`NodeGone`], or that there is no such port.
    pub fn remove_port(&self, name: &str) -> Result<Result<(), ChangeError>, NodeGone> {
        self.ask(|reply| Request::RemovePort { name: name.to_owned(), reply })
    }

    /// All ports, by name.
    ///
    /// # Errors
    /// [`NodeGone`].
    pub fn ports(&self) -> Result<Vec<PortStatus>, NodeGone> {
        self.ask(|reply| Request::Ports { reply })
    }

    /// Everything that the node counts but for policy, of which [`PolicyStore::stats`](crate::policy::PolicyStore::stats)
    /// knows.
    ///
    /// # Errors
    /// [`NodeGone`].
    pub fn stats(&self) -> Result<Stats, NodeGone> {
        let replicas = self.ask(|reply| Request::Bridge { reply })?;
        let mut bridge = BridgeStats { capacity: self.bridge_capacity, ..BridgeStats::default() };
        for (replica, entries) in replicas {
            bridge.entries = bridge.entries.max(entries as u64);
            bridge.learned += replica.learned;
            bridge.moves += replica.moved;
            bridge.aged += replica.aged;
            bridge.full += replica.table_full + replica.port_full;
            bridge.flooded += replica.flooded_group + replica.flooded_unknown;
        }
        let workers = self.workers.iter().zip(self.counters.iter()).map(|(config, counters)| WorkerStats {
            name: config.name.to_string(),
            cpu: config.cpu,
            poll: config.poll,
            packets: counters.packets.get(),
            busy_cycles: counters.busy_cycles.get(),
            idle_cycles: counters.idle_cycles.get(),
            polls: counters.polls.get(),
            sleeps: counters.sleeps.get(),
            handed_over: counters.handed_over.get(),
            deferred: counters.deferred.get(),
            longest_turn_cycles: counters.longest_turn.get(),
        });
        let workers = workers.collect();
        Ok(Stats {
            uptime_s: self.started.elapsed().as_secs_f64(),
            workers,
            ports: self.ports()?,
            bridge,
            policies: Vec::new(),
        })
    }

    /// Puts a port under a policy. When this returns every packet of it meets the new one, and the one before comes
    /// back.
    ///
    /// # Errors
    /// [`NodeGone`], or that there is no such port, or that it can have no policy.
    pub fn set_policy(
        &self,
        port: &str,
        snapshot: Arc<Snapshot>,
    ) -> Result<Result<Option<Arc<Snapshot>>, ChangeError>, NodeGone> {
        self.ask(|reply| Request::SetPolicy { name: port.to_owned(), snapshot, reply })
    }

    /// Asks the engine that has a port's flows something that takes no longer than a burst, and gives it the port's
    /// number and the time in nanoseconds.
    ///
    /// # Errors
    /// [`NodeGone`], or that there is no such port.
    pub fn ask_engine<R: Send + 'static>(
        &self,
        port: &str,
        question: impl FnOnce(&mut Engine, PortId, u64) -> R + Send + 'static,
    ) -> Result<Result<R, ChangeError>, NodeGone> {
        let (answer, answered) = sync_channel(1);
        let question = Question(Box::new(move |engine, port, now_ns| {
            let _ = answer.try_send(question(engine, port, now_ns));
        }));
        match self.ask(|reply| Request::AskEngine { name: port.to_owned(), question, reply })? {
            Ok(()) => answered.recv_timeout(ANSWER_TIMEOUT).map(Ok).map_err(|_| NodeGone),
            Err(error) => Ok(Err(error)),
        }
    }

    /// What happens in policy, for the one who asks first.
    #[must_use]
    pub fn take_events(&self) -> Option<Receiver<Event>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Captures what passes a port, until what this returns is dropped.
    ///
    /// # Errors
    /// [`NodeGone`], or why the port cannot be captured.
    pub fn capture(
        &self,
        port: &Name,
        request: &CaptureRequest,
        filter: String,
    ) -> Result<Result<Capture, ChangeError>, NodeGone> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = CaptureId(NEXT.fetch_add(1, Ordering::Relaxed));
        // Made before: whatever becomes of the request, the capture ends.
        let guard = Box::new(CaptureGuard { node: self.clone(), id });
        let asked = request.clone();
        let ends = self.ask(|reply| Request::StartCapture { id, name: port.to_string(), request: asked, reply })?;
        Ok(ends.map(|ends| Capture::new(port.clone(), filter, request.snaplen, ends, guard)))
    }

    /// Tells of drops at one port, or at all, as they happen, at most `rate` in a second. `None`: there are too many who ask.
    ///
    /// # Errors
    /// That there is no such port.
    pub fn trace_drops(&self, port: Option<&str>, rate: u32) -> Result<Option<DropTrace>, ChangeError> {
        let unknown = |name: &str| ChangeError::Unknown(name.to_owned());
        let port = port.map(|name| self.drops.port_named(name).ok_or_else(|| unknown(name))).transpose()?;
        Ok(self.drops.trace(port, rate))
    }

    fn ask<R>(&self, request: impl FnOnce(SyncSender<R>) -> Request) -> Result<R, NodeGone> {
        let (reply, answer) = sync_channel(1);
        self.send(request(reply));
        answer.recv_timeout(ANSWER_TIMEOUT).map_err(|_| NodeGone)
    }

    fn send(&self, request: Request) {
        // A thread that has ended drops the request, and with it the reply's sender: the asker learns at once.
        let _ = self.requests.send(request);
        let _ = self.doorbell.write(1);
    }
}

/// Ends a capture when it is dropped; without waiting for that.
struct CaptureGuard {
    node: NodeHandle,
    id: CaptureId,
}

impl Drop for CaptureGuard {
    fn drop(&mut self) {
        self.node.send(Request::EndCapture { id: self.id });
    }
}

impl fmt::Debug for NodeHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeHandle").field("workers", &self.workers).finish_non_exhaustive()
    }
}

fn make_state_dir(path: &Path) -> Result<(), NodeError> {
    std::fs::create_dir_all(path).map_err(|source| NodeError::StateDir { path: path.to_path_buf(), source })
}

/// Starts all workers, each with a ring to each other one.
fn start_workers(
    config: &Config,
    counters: &Arc<[WorkerCounters]>,
    bridge: BridgeConfig,
    engine: EngineConfig,
    events: &SyncSender<Event>,
) -> Result<(Vec<JoinHandle<()>>, Fleet), NodeError> {
    let (node, configs) = (config.node, &config.workers);
    let count = configs.len();
    let wakers: Vec<Arc<Waker>> =
        (0..count).map(|_| Ok(Arc::new(Waker::new(EventFd::new(EFD_NONBLOCK)?)))).collect::<Result<_, io::Error>>()?;
    let mut inbound: Vec<Vec<_>> = (0..count).map(|_| Vec::new()).collect();
    let mut outbound: Vec<Vec<_>> = (0..count).map(|_| Vec::new()).collect();
    for (from, senders) in outbound.iter_mut().enumerate() {
        for ((to, waker), receivers) in wakers.iter().enumerate().zip(&mut inbound) {
            senders.push((from != to).then(|| {
                let (sender, receiver) = ring(Arc::clone(waker));
                receivers.push(receiver);
                sender
            }));
        }
    }
    let (mut threads, mut mailboxes) = (Vec::new(), Vec::new());
    let rings = inbound.into_iter().zip(outbound);
    for (index, ((config, waker), (inbound, outbound))) in configs.iter().zip(&wakers).zip(rings).enumerate() {
        let (mailbox, inbox) = mailbox(index, Arc::clone(waker));
        let bridge = BridgeConfig { outbox: if count > 1 { bridge.outbox } else { 0 }, ..bridge };
        let (poll, waker, counters) = (config.poll, Arc::clone(waker), Arc::clone(counters));
        let parts = Parts {
            index,
            node,
            poll,
            inbox,
            waker,
            inbound,
            outbound,
            counters,
            bridge,
            engine,
            events: events.clone(),
        };
        mailboxes.push(mailbox);
        match start_worker(config, parts) {
            Ok(thread) => threads.push(thread),
            Err(source) => {
                // Those that run already end with the fleet.
                Fleet::new(mailboxes).stop();
                return Err(NodeError::Worker { worker: config.name.clone(), source });
            }
        }
    }
    Ok((threads, Fleet::new(mailboxes)))
}

/// Starts one worker and waits until it is pinned.
fn start_worker(config: &WorkerConfig, parts: Parts) -> io::Result<JoinHandle<()>> {
    let (ready, started): (_, Receiver<io::Result<()>>) = sync_channel(1);
    let cpu = config.cpu;
    let thread = thread::Builder::new().name(format!("worker-{}", config.name)).spawn(move || {
        let worker = cpu.map_or(Ok(()), pin_current_thread).and_then(|()| Worker::new(parts));
        match worker {
            Ok(worker) => {
                let _ = ready.send(Ok(()));
                worker.run();
            }
            Err(error) => {
                let _ = ready.send(Err(error));
            }
        }
    })?;
    started.recv().unwrap_or_else(|_| Err(io::Error::other("the thread ended at once")))?;
    Ok(thread)
}
