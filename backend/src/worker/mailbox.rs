// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the control side asks of a worker: a bounded mailbox served between bursts.
//!
//! Serving it is also the worker's announcement of quiescence: a reply means that no burst begun before the command is
//! still running, so an old memory map or topology may go (decisions 4a, 4b). Whatever a command replaces travels back in
//! its reply, because a worker never frees.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

use packet::{MacAddr, PortId};
use switch::compile::Snapshot;
use switch::engine::{Engine, FlowLimits, Retired};
use switch::{BridgeStats, Name};
use virtqueue::{DirtyPages, MemoryMap};

use super::handover::Waker;
use super::slots::Queue;
use super::uplink::{LinkReport, Uplink};
use crate::inspect::{CaptureId, Sink};
use crate::topology::Topology;

/// Commands that may wait.
const DEPTH: usize = 64;
/// How long the control side waits for a worker; a burst takes microseconds, so this means that the thread is gone or
/// that the machine is stalled.
pub(crate) const REPLY_TIMEOUT: Duration = Duration::from_secs(5);

/// A guest's eventfd. Shared with the ports thread rather than duplicated: a process out of descriptors could not.
pub(crate) type Bell = Arc<OwnedFd>;

/// Names a queue: the port, the queue pair, the direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QueueId {
    pub(crate) port: PortId,
    pub(crate) pair: u16,
    pub(crate) side: Side,
}

/// Which queue of a pair, in the guest's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// The guest transmits, the node reads.
    Transmit,
    /// The guest receives, the node writes.
    Receive,
}

/// A queue on its way to a worker, with its eventfds.
#[derive(Debug)]
pub(crate) struct Attachment {
    pub(crate) id: QueueId,
    pub(crate) queue: Queue,
    /// The memory that the queue works in.
    pub(crate) map: Arc<MemoryMap>,
    pub(crate) enabled: bool,
    /// `None`: the driver asked to be polled, so the worker looks at the ring on a timer while it sleeps.
    pub(crate) kick: Option<Bell>,
    /// `None`: the driver never wants a notification.
    pub(crate) call: Option<Bell>,
    pub(crate) error: Option<Bell>,
}

/// A command; see the module's text for replies.
#[derive(Debug)]
pub(crate) enum Command {
    Attach {
        attachment: Box<Attachment>,
        reply: SyncSender<()>,
    },
    /// Takes a queue back; `None` if the worker does not have it.
    Detach {
        id: QueueId,
        reply: SyncSender<Option<Box<Attachment>>>,
    },
    SetEnabled {
        id: QueueId,
        enabled: bool,
        reply: SyncSender<()>,
    },
    /// Replaces the call eventfd; the old one comes back.
    SetCall {
        id: QueueId,
        fd: Option<Bell>,
        reply: SyncSender<Option<Bell>>,
    },
    SetError {
        id: QueueId,
        fd: Option<Bell>,
        reply: SyncSender<Option<Bell>>,
    },
    /// Logs what a queue writes, or no longer; what did so before comes back, complete.
    SetLog {
        id: QueueId,
        log: Option<Box<DirtyPages>>,
        reply: SyncSender<Option<Box<DirtyPages>>>,
    },
    SetKick {
        id: QueueId,
        fd: Option<Bell>,
        reply: SyncSender<Option<Bell>>,
    },
    /// Moves a port's queues to another memory map; those whose rings it does not hold break and come back, so that
    /// nothing keeps the old map.
    SetMemory {
        port: PortId,
        map: Arc<MemoryMap>,
        reply: SyncSender<Vec<Attachment>>,
    },
    SetTopology {
        topology: Arc<Topology>,
        reply: SyncSender<Arc<Topology>>,
    },
    /// A port has this id from now on, this one address if it has one, and at most so many flows.
    AddPort {
        port: PortId,
        name: Name,
        mac: Option<MacAddr>,
        limits: FlowLimits,
        reply: SyncSender<()>,
    },
    /// A port is gone: what the bridge learned of it goes too. Its flows come back.
    ForgetPort {
        port: PortId,
        reply: SyncSender<Option<Retired>>,
    },
    /// Puts a port under this policy; the one before comes back.
    SetPolicy {
        port: PortId,
        snapshot: Arc<Snapshot>,
        reply: SyncSender<Option<Arc<Snapshot>>>,
    },
    /// Asks the engine something that takes no longer than a burst.
    AskEngine(Job),
    /// Broadcasts a RARP request as the guest at `port` with this address would.
    Announce {
        port: PortId,
        mac: [u8; 6],
        reply: SyncSender<()>,
    },
    /// Hands over an uplink.
    AttachUplink {
        uplink: Box<Uplink>,
        reply: SyncSender<()>,
    },
    /// Takes an uplink back; `None` if the worker does not have it.
    DetachUplink {
        port: PortId,
        reply: SyncSender<Option<Box<Uplink>>>,
    },
    /// Tells the link of an uplink of the node's addresses there.
    AnnounceUplink {
        port: PortId,
        reply: SyncSender<()>,
    },
    /// Asks about the neighbours of an uplink.
    LinkReport {
        port: PortId,
        reply: SyncSender<LinkReport>,
    },
    /// Lets a capture have what it asks for, from now on.
    StartCapture {
        sink: Box<Sink>,
        reply: SyncSender<()>,
    },
    /// Ends a capture; what the worker had of it comes back.
    EndCapture {
        id: CaptureId,
        reply: SyncSender<Option<Box<Sink>>>,
    },
    BridgeStats {
        reply: SyncSender<(BridgeStats, usize)>,
    },
    Stop,
}

/// A question to the engine, with the time; its answer goes where the question says.
pub(crate) struct Job(pub(crate) Box<Ask>);

type Ask = dyn FnOnce(&mut Engine, u64) + Send;

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Job")
    }
}

/// The worker did not answer.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("worker {0} does not answer")]
pub struct WorkerGone(pub(crate) usize);

/// The control side's end.
#[derive(Debug, Clone)]
pub(crate) struct Mailbox {
    index: usize,
    commands: SyncSender<Command>,
    waker: Arc<Waker>,
}

/// The worker's end.
#[derive(Debug)]
pub(crate) struct Inbox {
    commands: Receiver<Command>,
}

pub(crate) fn mailbox(index: usize, waker: Arc<Waker>) -> (Mailbox, Inbox) {
    let (sender, receiver) = sync_channel(DEPTH);
    (Mailbox { index, commands: sender, waker }, Inbox { commands: receiver })
}

impl Mailbox {
    /// Sends a command and waits for its reply.
    pub(crate) fn ask<R>(&self, command: impl FnOnce(SyncSender<R>) -> Command) -> Result<R, WorkerGone> {
        let answer = self.send(command)?;
        self.wait(&answer)
    }

    /// Sends a command; the reply is fetched with [`Self::wait`], so that several workers can be asked at once.
    pub(crate) fn send<R>(&self, command: impl FnOnce(SyncSender<R>) -> Command) -> Result<Receiver<R>, WorkerGone> {
        let (reply, answer) = sync_channel(1);
        self.commands.send(command(reply)).map_err(|_| WorkerGone(self.index))?;
        self.waker.wake_always();
        Ok(answer)
    }

    /// Sends a command that answers by itself, if at all.
    pub(crate) fn tell(&self, command: Command) -> Result<(), WorkerGone> {
        self.commands.send(command).map_err(|_| WorkerGone(self.index))?;
        self.waker.wake_always();
        Ok(())
    }

    pub(crate) fn wait<R>(&self, answer: &Receiver<R>) -> Result<R, WorkerGone> {
        answer.recv_timeout(REPLY_TIMEOUT).map_err(|error| {
            if error == RecvTimeoutError::Timeout {
                log::error!("worker {} did not answer within {REPLY_TIMEOUT:?}", self.index);
            }
            WorkerGone(self.index)
        })
    }

    pub(crate) fn stop(&self) {
        // A worker that is gone already has stopped.
        let _ = self.commands.send(Command::Stop);
        self.waker.wake_always();
    }
}

impl Inbox {
    /// The next command, if one waits. A vanished control side reads as [`Command::Stop`].
    #[inline]
    pub(crate) fn next(&self) -> Option<Command> {
        match self.commands.try_recv() {
            Ok(command) => Some(command),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Command::Stop),
        }
    }
}
