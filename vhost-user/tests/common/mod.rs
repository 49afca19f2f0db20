// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A host in memory: it does what it is told and remembers what it was told, and checks that it made sense.

use std::collections::BTreeMap;

use vhost_user::{Action, BackendConnection, Frame, Offer, ProtocolError, Region, Request, VringStart, features};

/// Features of the tests' node.
pub(crate) const FEATURES: u64 =
    features::VIRTIO_F_VERSION_1 | features::VIRTIO_F_RING_PACKED | features::VIRTIO_F_IN_ORDER;

/// What a node would hold for one connection.
pub(crate) struct Host {
    pub(crate) connection: BackendConnection<u32>,
    pub(crate) replies: Vec<Frame<u32>>,
    /// Everything that happened, in words.
    pub(crate) log: Vec<String>,
    pub(crate) running: BTreeMap<u16, VringStart>,
    pub(crate) enabled: BTreeMap<u16, bool>,
    pub(crate) kicks: BTreeMap<u16, Option<u32>>,
    pub(crate) calls: BTreeMap<u16, Option<u32>>,
    pub(crate) memory: Vec<(Region, u32)>,
    /// The base that a stopped ring reports.
    pub(crate) base: u32,
    /// Whether memory can be mapped.
    pub(crate) maps: bool,
}

impl Host {
    pub(crate) fn new(offer: Offer) -> Self {
        Self {
            connection: BackendConnection::new(offer),
            replies: Vec::new(),
            log: Vec::new(),
            running: BTreeMap::new(),
            enabled: BTreeMap::new(),
            kicks: BTreeMap::new(),
            calls: BTreeMap::new(),
            memory: Vec::new(),
            base: 0,
            maps: true,
        }
    }

    pub(crate) fn send(&mut self, request: Request<u32>, need_reply: bool) -> Result<Vec<Frame<u32>>, ProtocolError> {
        self.receive(request.into_frame(need_reply))
    }

    pub(crate) fn receive(&mut self, frame: Frame<u32>) -> Result<Vec<Frame<u32>>, ProtocolError> {
        assert!(self.connection.wanted() > 0, "the host would not have read this");
        self.connection.receive(&frame.bytes, frame.fds);
        self.drain()?;
        Ok(std::mem::take(&mut self.replies))
    }

    fn drain(&mut self) -> Result<(), ProtocolError> {
        while let Some(action) = self.connection.poll()? {
            self.act(action);
        }
        Ok(())
    }

    fn act(&mut self, action: Action<u32>) {
        match action {
            Action::Reply(frame) => self.replies.push(frame),
            Action::SetMemory { regions, same_layout, ack } => {
                let same = regions.iter().map(|(region, _)| region).eq(self.memory.iter().map(|(region, _)| region));
                assert_eq!(same_layout, same);
                self.log.push(format!("memory {}", regions.len()));
                if self.maps {
                    self.memory = regions;
                }
                self.connection.finish(ack, self.maps);
            }
            Action::AddRegion { region, fd, ack } => {
                self.log.push(format!("add {:#x}", region.guest_addr));
                if self.maps {
                    self.memory.push((region, fd));
                }
                self.connection.finish(ack, self.maps);
            }
            Action::RemoveRegion { region, ack } => {
                self.log.push(format!("remove {:#x}", region.guest_addr));
                let before = self.memory.len();
                self.memory.retain(|(known, _)| *known != region);
                assert_eq!(self.memory.len(), before - 1);
                self.connection.finish(ack, true);
            }
            Action::SetLog { log, fd, ack } => {
                self.log.push(format!("log {fd}, {} at {}", log.size, log.offset));
                self.connection.finish(ack, self.maps);
            }
            Action::SetLogging(all) => self.log.push(format!("log all {all}")),
            Action::SetVringLog { vring, address } => self.log.push(format!("log ring {vring} {address:x?}")),
            Action::Start(start) => {
                assert!(!self.memory.is_empty(), "a ring without memory");
                assert!(self.kicks.contains_key(&start.vring), "a ring without a kick");
                self.log.push(format!("start {}", start.vring));
                self.enabled.insert(start.vring, start.enabled);
                assert_eq!(self.running.insert(start.vring, start), None, "started twice");
            }
            Action::Stop { vring, ack } => {
                assert!(self.running.remove(&vring).is_some(), "stopped twice");
                self.enabled.remove(&vring);
                self.log.push(format!("stop {vring}"));
                self.connection.finish_stop(ack, self.base);
            }
            Action::SetEnabled { vring, enabled } => {
                let before = self.enabled.insert(vring, enabled);
                assert_eq!(before, Some(!enabled), "not running, or no change");
                self.log.push(format!("enable {vring} {enabled}"));
            }
            Action::SetKick { vring, fd } => drop(self.kicks.insert(vring, fd)),
            Action::SetCall { vring, fd } => drop(self.calls.insert(vring, fd)),
            Action::ResetDevice => {
                assert!(self.running.is_empty());
                self.log.push("reset".into());
            }
            Action::Refused(error) => self.log.push(format!("refused {}", error.cause())),
            Action::FeaturesChanged(bits) => {
                assert!(self.running.is_empty());
                self.log.push(format!("features {bits:#x}"));
            }
            other => self.log.push(format!("{other:?}")),
        }
    }
}

pub(crate) fn region(at: u64) -> Region {
    Region { guest_addr: at, size: 0x1000, user_addr: 0x7000_0000 + at, mmap_offset: 0 }
}
