// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Serving the mailbox.

use std::sync::Arc;

use aggregation::Trigger;
use packet::synth::rarp_announcement;
use packet::{MacAddr, PortId};
use virtqueue::{DirtyPages, MemoryMap};

use super::bridge::Path;
use super::mailbox::{Attachment, Bell, Command, Job, QueueId, Side};
use super::slots::{Common, Queue, RxSlot, TxSlot};
use super::uplink::{LinkReport, Uplink, UplinkTx};
use super::{Worker, aggregate};
use crate::counters::PortCounters;
use crate::sys::cycles;
use crate::topology::{Route, Routes};

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
                if !enabled {
                    self.flush_link(id);
                }
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
            Command::SetLog { id, log, reply } => {
                let _ = reply.try_send(self.set_log(id, log));
            }
            Command::SetKick { id, fd, reply } => {
                let _ = reply.try_send(self.replace_kick(id, fd));
            }
            Command::SetMemory { port, map, reply } => {
                let _ = reply.try_send(self.set_memory(port, &map));
            }
            Command::SetTopology { topology, reply } => {
                let old = std::mem::replace(&mut self.path.topology, topology);
                self.path.police.engine.set_tunnel_mtu(self.path.topology.tunnel_mtu());
                self.compile_routes();
                let _ = reply.try_send(old);
            }
            Command::ForgetPort { port, reply } => {
                self.path.bridge.remove_port(port);
                let _ = reply.try_send(self.path.police.engine.remove_port(port));
            }
            Command::SetPolicy { port, snapshot, reply } => {
                let _ = reply.try_send(self.path.police.engine.set_policy(port, snapshot));
                // What was missing may be there now.
                self.release(port);
            }
            Command::AskEngine(Job(question)) => {
                question(&mut self.path.police.engine, self.clock.nanos_at(cycles()));
            }
            Command::AddPort { port, name, mac, limits, reply } => {
                self.path.police.engine.name_port(port, Some(name));
                self.path.police.engine.limit_port(port, Some(limits));
                self.path.changes += 1;
                match mac {
                    None => self.path.bridge.add_port(port),
                    Some(mac) if self.path.bridge.fix(port, mac) => {}
                    Some(mac) => log::error!("{port:?}: there is no room for its address {mac}; it is flooded for"),
                }
                let _ = reply.try_send(());
            }
            Command::Announce { port, mac, reply } => {
                self.inject(port, &rarp_announcement(MacAddr(mac)), cycles());
                let _ = reply.try_send(());
            }
            Command::AttachUplink { uplink, reply } => {
                self.attach_uplink(*uplink);
                let _ = reply.try_send(());
            }
            Command::DetachUplink { port, reply } => {
                let _ = reply.try_send(self.detach_uplink(port).map(Box::new));
            }
            Command::AnnounceUplink { port, reply } => {
                if let Some(uplink) = self.path.uplinks.iter_mut().find(|uplink| uplink.port == port) {
                    uplink.announce();
                    uplink.flush();
                }
                let _ = reply.try_send(());
            }
            Command::LinkReport { port, reply } => {
                let uplink = self.path.uplinks.iter().find(|uplink| uplink.port == port);
                let report = uplink.map(UplinkTx::report).unwrap_or_default();
                let rx = self.uplinks.iter_mut().find(|uplink| uplink.port == port);
                let faults = rx.map(|uplink| uplink.ring.take_faults()).unwrap_or_default();
                let _ = reply.try_send(LinkReport { faults, ..report });
            }
            Command::StartCapture { sink, reply } => {
                self.start_capture(*sink);
                let _ = reply.try_send(());
            }
            Command::EndCapture { id, reply } => {
                let _ = reply.try_send(self.end_capture(id));
            }
            Command::BridgeStats { reply } => {
                let _ = reply.try_send((*self.path.bridge.stats(), self.path.bridge.len()));
            }
            Command::Stop => return false,
        }
        true
    }

    fn attach(&mut self, attachment: Attachment) {
        let port = attachment.id.port;
        let (queue, common) = Common::new(attachment, self.counters_of(port), self.path.index);
        match queue {
            Queue::Transmit(mut queue) => {
                self.sleeper.watch_ring(common.kick.as_deref());
                queue.set_kicks(false);
                self.txs.push(TxSlot { queue, common, linked: false, stalled_since: 0 });
            }
            Queue::Receive(mut queue) => {
                // Buffers are looked for when there are packets; the driver need not tell of new ones.
                queue.set_kicks(false);
                self.path.rxs.push(RxSlot { queue, common, link: None });
            }
        }
        self.tap_all();
        self.compile_routes();
    }

    fn detach(&mut self, id: QueueId) -> Option<Attachment> {
        self.close_link(id);
        let attachment = match id.side {
            Side::Transmit => {
                let at = self.txs.iter().position(|slot| slot.common.id == id)?;
                let TxSlot { queue, common, .. } = self.txs.remove(at);
                self.sleeper.unwatch_ring(common.kick.as_deref());
                common.into_attachment(Queue::Transmit(queue))
            }
            Side::Receive => {
                let at = self.path.rxs.iter().position(|slot| slot.common.id == id)?;
                let RxSlot { queue, common, .. } = self.path.rxs.remove(at);
                common.into_attachment(Queue::Receive(queue))
            }
        };
        self.compile_routes();
        Some(attachment)
    }

    /// A receive queue takes no packets for a while. What was put together for it is not to wait for so long.
    fn flush_link(&mut self, id: QueueId) {
        if let Some(slot) = self.path.rxs.iter_mut().find(|slot| slot.common.id == id) {
            aggregate::flush(slot, Trigger::Order);
            self.notify();
        }
    }

    /// A receive queue goes: what was agreed with its guest ends, and loses nothing (decision 28).
    fn close_link(&mut self, id: QueueId) {
        if id.side != Side::Receive {
            return;
        }
        let slot = self.path.rxs.iter_mut().find(|slot| slot.common.id == id && slot.link.is_some());
        if let Some(slot) = slot {
            aggregate::close(slot);
            self.unlink(id.port, id.pair);
            self.notify();
        }
    }

    /// Returns the queues that cannot follow.
    fn set_memory(&mut self, port: PortId, map: &Arc<MemoryMap>) -> Vec<Attachment> {
        let mut lost = Vec::new();
        for slot in self.txs.iter_mut().filter(|slot| slot.common.port() == port) {
            if !slot.set_memory(map) {
                lost.push(slot.common.id);
            }
        }
        for slot in self.path.rxs.iter_mut().filter(|slot| slot.common.port() == port) {
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

    fn set_log(&mut self, id: QueueId, log: Option<Box<DirtyPages>>) -> Option<Box<DirtyPages>> {
        if let Some(slot) = self.txs.iter_mut().find(|slot| slot.common.id == id) {
            return slot.queue.set_log(log);
        }
        match self.path.rxs.iter_mut().find(|slot| slot.common.id == id) {
            Some(slot) => slot.queue.set_log(log),
            None => log,
        }
    }

    fn find(&mut self, id: QueueId) -> Option<&mut Common> {
        let txs = self.txs.iter_mut().map(|slot| &mut slot.common);
        txs.chain(self.path.rxs.iter_mut().map(|slot| &mut slot.common)).find(|common| common.id == id)
    }

    fn attach_uplink(&mut self, uplink: Uplink) {
        if let Err(error) = self.sleeper.watch(&uplink.rx) {
            log::error!("{:?}: its socket cannot be watched: {error}", uplink.port);
        }
        let counters = self.counters_of(uplink.port);
        let (rx, tx) = uplink.split(counters, self.path.index, self.node, self.clock.nanos_at(cycles()));
        self.uplinks.push(rx);
        self.path.uplinks.push(tx);
        self.tap_all();
        self.compile_routes();
    }

    fn detach_uplink(&mut self, port: PortId) -> Option<Uplink> {
        let rx = self.uplinks.iter().position(|uplink| uplink.port == port)?;
        let tx = self.path.uplinks.iter().position(|uplink| uplink.port == port)?;
        let uplink = Uplink::join(self.uplinks.remove(rx), self.path.uplinks.remove(tx));
        // One that could not be watched was told of then.
        let _ = self.sleeper.unwatch(&uplink.rx);
        self.compile_routes();
        Some(uplink)
    }

    fn counters_of(&self, port: PortId) -> Arc<[PortCounters]> {
        self.path.topology.port(port).map_or_else(|| Arc::from([]), |entry| Arc::clone(&entry.counters))
    }

    fn compile_routes(&mut self) {
        let Path { rxs, uplinks, topology, index, .. } = &self.path;
        let local = |port, pair| {
            let id = QueueId { port, pair, side: Side::Receive };
            let queue = rxs.iter().position(|slot| slot.common.id == id && slot.common.usable());
            let uplink = || uplinks.iter().position(|uplink| uplink.port == port);
            queue.map(Route::Local).or_else(|| uplink().map(Route::Uplink))
        };
        self.path.routes = Routes::compile(topology, *index, local);
        self.path.changes += 1;
    }
}
