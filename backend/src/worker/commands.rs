// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Serving the mailbox.

use std::sync::Arc;

use packet::synth::rarp_announcement;
use packet::{MacAddr, PortId};
use virtqueue::MemoryMap;

use super::Worker;
use super::mailbox::{Attachment, Bell, Command, Job, QueueId, Side};
use super::slots::{Common, Queue, RxSlot, TxSlot};
use crate::sys::cycles;
use crate::topology::Routes;

impl Worker {
    /// Carries out one command; `false`: stop. A reply that nobody waits for any more is dropped.
    #[cold]
    pub(super) fn serve(&mut self, command: Command) -> bool {
        match command {
            Command::Attach { attachment, reply } => {
                self.attach(*attachment);
                let _ = reply.try_send(());
            }
            Command::Detach { id, reply } => {
                let _ = reply.try_send(self.detach(id).map(Box::new));
            }
            Command::SetEnabled { id, enabled, reply } => {
                if let Some(common) = self.find(id) {
                    common.enabled = enabled;
                }
                self.compile_routes();
                let _ = reply.try_send(());
            }
            Command::SetCall { id, fd, reply } => {
                let old = self.find(id).and_then(|common| std::mem::replace(&mut common.call, fd));
                // A driver that set its eventfd late must not miss what was used before.
                if let Some(common) = self.find(id) {
                    common.notify();
                }
                let _ = reply.try_send(old);
            }
            Command::SetError { id, fd, reply } => {
                let old = self.find(id).and_then(|common| std::mem::replace(&mut common.error, fd));
                let _ = reply.try_send(old);
            }
            Command::SetKick { id, fd, reply } => {
                let _ = reply.try_send(self.replace_kick(id, fd));
            }
            Command::SetMemory { port, map, reply } => {
                let _ = reply.try_send(self.set_memory(port, &map));
            }
            Command::SetTopology { topology, reply } => {
                let old = std::mem::replace(&mut self.topology, topology);
                self.compile_routes();
                let _ = reply.try_send(old);
            }
            Command::ForgetPort { port, reply } => {
                self.bridge.remove_port(port);
                let _ = reply.try_send(self.police.engine.remove_port(port));
            }
            Command::SetPolicy { port, snapshot, reply } => {
                let _ = reply.try_send(self.police.engine.set_policy(port, snapshot));
                // What was missing may be there now.
                self.release(port);
            }
            Command::AskEngine(Job(question)) => {
                question(&mut self.police.engine, self.clock.nanos_at(cycles()));
            }
            Command::AddPort { port, name, reply } => {
                self.police.engine.name_port(port, Some(name));
                self.bridge.add_port(port);
                let _ = reply.try_send(());
            }
            Command::Announce { port, mac, reply } => {
                self.inject(port, &rarp_announcement(MacAddr(mac)), cycles());
                let _ = reply.try_send(());
            }
            Command::BridgeStats { reply } => {
                let _ = reply.try_send((*self.bridge.stats(), self.bridge.len()));
            }
            Command::Stop => return false,
        }
        true
    }

    fn attach(&mut self, attachment: Attachment) {
        let port = attachment.id.port;
        let counters = self.topology.port(port).map_or_else(|| Arc::from([]), |entry| Arc::clone(&entry.counters));
        let (queue, common) = Common::new(attachment, counters, self.index);
        match queue {
            Queue::Transmit(mut queue) => {
                self.sleeper.watch_ring(common.kick.as_deref());
                queue.set_kicks(false);
                self.txs.push(TxSlot { queue, common, stalled_since: 0 });
            }
            Queue::Receive(mut queue) => {
                // Buffers are looked for when there are packets; the driver need not tell of new ones.
                queue.set_kicks(false);
                self.rxs.push(RxSlot { queue, common });
            }
        }
        self.compile_routes();
    }

    fn detach(&mut self, id: QueueId) -> Option<Attachment> {
        let attachment = match id.side {
            Side::Transmit => {
                let at = self.txs.iter().position(|slot| slot.common.id == id)?;
                let TxSlot { queue, common, .. } = self.txs.remove(at);
                self.sleeper.unwatch_ring(common.kick.as_deref());
                common.into_attachment(Queue::Transmit(queue))
            }
            Side::Receive => {
                let at = self.rxs.iter().position(|slot| slot.common.id == id)?;
                let RxSlot { queue, common } = self.rxs.remove(at);
                common.into_attachment(Queue::Receive(queue))
            }
        };
        self.compile_routes();
        Some(attachment)
    }

    /// Returns the queues that cannot follow.
    fn set_memory(&mut self, port: PortId, map: &Arc<MemoryMap>) -> Vec<Attachment> {
        let mut lost = Vec::new();
        for slot in self.txs.iter_mut().filter(|slot| slot.common.port() == port) {
            if !slot.set_memory(map) {
                lost.push(slot.common.id);
            }
        }
        for slot in self.rxs.iter_mut().filter(|slot| slot.common.port() == port) {
            if !slot.set_memory(map) {
                lost.push(slot.common.id);
            }
        }
        lost.into_iter().filter_map(|id| self.detach(id)).collect()
    }

    fn replace_kick(&mut self, id: QueueId, fd: Option<Bell>) -> Option<Bell> {
        if id.side == Side::Receive {
            return std::mem::replace(&mut self.find(id)?.kick, fd);
        }
        let slot = self.txs.iter_mut().find(|slot| slot.common.id == id)?;
        self.sleeper.unwatch_ring(slot.common.kick.as_deref());
        self.sleeper.watch_ring(fd.as_deref());
        std::mem::replace(&mut slot.common.kick, fd)
    }

    fn find(&mut self, id: QueueId) -> Option<&mut Common> {
        let txs = self.txs.iter_mut().map(|slot| &mut slot.common);
        txs.chain(self.rxs.iter_mut().map(|slot| &mut slot.common)).find(|common| common.id == id)
    }

    fn compile_routes(&mut self) {
        let rxs = &self.rxs;
        let local = |port, pair| {
            let id = QueueId { port, pair, side: Side::Receive };
            rxs.iter().position(|slot| slot.common.id == id && slot.common.usable())
        };
        self.changes += 1;
        self.routes = Routes::compile(&self.topology, self.index, local);
    }
}
