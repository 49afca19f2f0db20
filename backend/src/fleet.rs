// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! All workers together, as the ports thread sees them.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};

use packet::{MacAddr, PortId};
use switch::engine::FlowLimits;
use switch::{BridgeStats, Name};
use virtqueue::MemoryMap;

use crate::inspect::CaptureId;
use crate::topology::Topology;
use crate::worker::{Attachment, Command, Job, Mailbox, QueueId, Uplink, WorkerGone};

/// The workers' mailboxes, and the topology that all of them have.
#[derive(Debug)]
pub(crate) struct Fleet {
    mailboxes: Vec<Mailbox>,
    /// Kept until every worker has answered with it, so that none of them frees it.
    topology: Arc<Topology>,
}

impl Fleet {
    pub(crate) fn new(mailboxes: Vec<Mailbox>) -> Self {
        Self { mailboxes, topology: Arc::default() }
    }

    /// How many workers there are.
    pub(crate) fn len(&self) -> usize {
        self.mailboxes.len()
    }

    pub(crate) fn attach(&self, worker: usize, attachment: Attachment) -> Result<(), WorkerGone> {
        let attachment = Box::new(attachment);
        self.mailbox(worker)?.ask(|reply| Command::Attach { attachment, reply })
    }

    pub(crate) fn detach(&self, worker: usize, id: QueueId) -> Result<Option<Box<Attachment>>, WorkerGone> {
        self.mailbox(worker)?.ask(|reply| Command::Detach { id, reply })
    }

    /// Asks the one worker that has a queue.
    pub(crate) fn ask<R>(
        &self,
        worker: usize,
        command: impl FnOnce(SyncSender<R>) -> Command,
    ) -> Result<R, WorkerGone> {
        self.mailbox(worker)?.ask(command)
    }

    /// Moves all queues of `port` to another memory map, and returns those that it does not hold. No worker uses the old
    /// one any more.
    pub(crate) fn set_memory(&self, port: PortId, map: &Arc<MemoryMap>) -> Result<Vec<Attachment>, WorkerGone> {
        let lost = self.ask_all(|reply| Command::SetMemory { port, map: Arc::clone(map), reply })?;
        Ok(lost.into_iter().flatten().collect())
    }

    /// Publishes a topology. When this returns every worker forwards by it.
    pub(crate) fn set_topology(&mut self, topology: Topology) -> Result<(), WorkerGone> {
        let new = Arc::new(topology);
        self.ask_all(|reply| Command::SetTopology { topology: Arc::clone(&new), reply })?;
        self.topology = new;
        Ok(())
    }

    /// Lets the bridge learn at `port`, or know the one address that is there, and the port have so many flows.
    pub(crate) fn add_port(
        &self,
        port: PortId,
        name: &Name,
        mac: Option<MacAddr>,
        limits: FlowLimits,
    ) -> Result<(), WorkerGone> {
        self.ask_all(|reply| Command::AddPort { port, name: name.clone(), mac, limits, reply }).map(drop)
    }

    pub(crate) fn attach_uplink(&self, worker: usize, uplink: Uplink) -> Result<(), WorkerGone> {
        let uplink = Box::new(uplink);
        self.mailbox(worker)?.ask(|reply| Command::AttachUplink { uplink, reply })
    }

    /// Takes an uplink back. Its worker touches the socket no more.
    pub(crate) fn detach_uplink(&self, worker: usize, port: PortId) -> Result<Option<Box<Uplink>>, WorkerGone> {
        self.mailbox(worker)?.ask(|reply| Command::DetachUplink { port, reply })
    }

    /// Announces a guest that moved here, once: by the worker that serves the port's first queue pair.
    pub(crate) fn announce(&self, worker: usize, port: PortId, mac: [u8; 6]) -> Result<(), WorkerGone> {
        self.mailbox(worker)?.ask(|reply| Command::Announce { port, mac, reply })
    }

    /// Each replica's counters and entries.
    pub(crate) fn bridge_stats(&self) -> Result<Vec<(BridgeStats, usize)>, WorkerGone> {
        self.ask_all(|reply| Command::BridgeStats { reply })
    }

    /// Removes what the bridge learned of `port`.
    pub(crate) fn forget_port(&self, port: PortId) -> Result<(), WorkerGone> {
        self.ask_all(|reply| Command::ForgetPort { port, reply }).map(drop)
    }

    /// Ends a capture. When this returns no worker has anything of it any more.
    pub(crate) fn end_capture(&self, id: CaptureId) -> Result<(), WorkerGone> {
        self.ask_all(|reply| Command::EndCapture { id, reply }).map(drop)
    }

    pub(crate) fn stop(&self) {
        for mailbox in &self.mailboxes {
            mailbox.stop();
        }
    }

    /// Sends a question to the engine of a worker.
    pub(crate) fn ask_engine(&self, worker: usize, job: Job) -> Result<(), WorkerGone> {
        self.mailbox(worker)?.tell(Command::AskEngine(job))
    }

    /// Asks all workers at once, then waits for each.
    fn ask_all<R>(&self, command: impl Fn(SyncSender<R>) -> Command) -> Result<Vec<R>, WorkerGone> {
        let sent: Vec<Receiver<R>> =
            self.mailboxes.iter().map(|mailbox| mailbox.send(&command)).collect::<Result<_, _>>()?;
        self.mailboxes.iter().zip(&sent).map(|(mailbox, answer)| mailbox.wait(answer)).collect()
    }

    fn mailbox(&self, worker: usize) -> Result<&Mailbox, WorkerGone> {
        self.mailboxes.get(worker).ok_or(WorkerGone(worker))
    }
}
