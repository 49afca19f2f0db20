// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Requests about rings and memory: the part of the state machine that starts and stops rings.

use vhost::vhost_user::message::{FrontendReq, VhostUserVringAddrFlags};

use super::action::{Action, MemoryAck, StopAck};
use super::error::ProtocolError;
use super::machine::{Backend, Progress};
use super::memory;
use super::pending::{Awaited, Then};
use super::vring::{Kick, VringState};
use crate::features::VHOST_F_LOG_ALL;
use crate::wire::{LogArea, Region, Reply, VringAddresses};

type Outcome = Result<Progress, ProtocolError>;

impl<F> Backend<F> {
    pub(super) fn set_size(&mut self, vring: u32, num: u32, actions: &mut Vec<Action<F>>) -> Outcome {
        let vring = self.index(vring)?;
        let max = self.offer.max_ring_size;
        let size = u16::try_from(num).ok().filter(|size| (1..=max).contains(size));
        let size = size.ok_or(ProtocolError::VringSize { vring, size: num, max })?;
        if self.state(vring).size == Some(size) {
            return Ok(Progress::Done);
        }
        self.stop_if_running(vring, Then::Resize { vring, size }, actions)
    }

    pub(super) fn set_addresses(
        &mut self,
        vring: u32,
        flags: u32,
        addresses: VringAddresses,
        log: u64,
        actions: &mut Vec<Action<F>>,
    ) -> Outcome {
        let vring = self.index(vring)?;
        let logging = self.offer.features & VHOST_F_LOG_ALL != 0;
        let known = if logging { VhostUserVringAddrFlags::VHOST_VRING_F_LOG.bits() } else { 0 };
        if flags & !known != 0 {
            return Err(ProtocolError::VringFlags { vring, flags });
        }
        // QEMU switches logging by sending the same addresses again, and the ring goes on.
        let address = (flags != 0).then_some(log);
        if self.state(vring).log != address {
            self.change(vring, |state| state.log = address);
            actions.push(Action::SetVringLog { vring, address });
        }
        if self.state(vring).addresses == Some(addresses) {
            return Ok(Progress::Done);
        }
        self.stop_if_running(vring, Then::Readdress { vring, addresses }, actions)
    }

    /// A base for a running ring begins a new set-up, and the ring waits for the kick that ends it; unless it is the
    /// first base it ever got, which then only came late.
    pub(super) fn set_base(&mut self, vring: u32, base: u32, actions: &mut Vec<Action<F>>) -> Outcome {
        let vring = self.index(vring)?;
        let state = self.state(vring);
        let kick = if state.running && state.base.is_some() { Kick::Unset } else { state.kick };
        self.stop_if_running(vring, Then::Rebase { vring, base, kick }, actions)
    }

    pub(super) fn get_base(&mut self, vring: u32, actions: &mut Vec<Action<F>>) -> Outcome {
        let vring = self.index(vring)?;
        // A ring that is only set up, too, loses its kick: what follows is a new set-up.
        self.change(vring, |state| {
            if !state.running {
                state.kick = Kick::Unset;
            }
        });
        self.stop_if_running(vring, Then::ReportBase { vring }, actions)
    }

    pub(super) fn report_base(&self, vring: u16, actions: &mut Vec<Action<F>>) {
        let base = self.state(vring).idle_base(self.features.unwrap_or(0));
        let reply = Reply::VringBase { vring: u32::from(vring), base };
        actions.push(Action::Reply(reply.into_frame(FrontendReq::GET_VRING_BASE)));
    }

    pub(super) fn set_enabled(&mut self, vring: u32, value: u32, actions: &mut Vec<Action<F>>) -> Outcome {
        let vring = self.index(vring)?;
        let enabled = match value {
            0 => false,
            1 => true,
            _ => return Err(ProtocolError::EnableValue { vring, value }),
        };
        self.enable(vring, enabled, actions);
        Ok(Progress::Done)
    }

    pub(super) fn set_kick(&mut self, vring: u8, fd: Option<F>, actions: &mut Vec<Action<F>>) -> Outcome {
        let vring = self.index(u32::from(vring))?;
        let kick = if fd.is_some() { Kick::Descriptor } else { Kick::Poll };
        self.change(vring, |state| state.kick = kick);
        actions.push(Action::SetKick { vring, fd });
        self.start_complete(actions)?;
        Ok(Progress::Done)
    }

    /// Deprecated, and meant different things to different back ends; the specification recommends this one.
    pub(super) fn reset_owner(&mut self, actions: &mut Vec<Action<F>>) -> Progress {
        for vring in 0..self.offer.max_queues {
            self.enable(vring, false, actions);
        }
        Progress::Done
    }

    pub(super) fn set_memory(&mut self, regions: Vec<(Region, F)>, actions: &mut Vec<Action<F>>) -> Outcome {
        let table: Vec<Region> = regions.iter().map(|(region, _)| *region).collect();
        if let Err(error) = memory::check_table(&table, self.offer.max_mem_slots) {
            return Ok(Progress::Unusable(error));
        }
        let same_layout = table == self.regions;
        let token = self.wait(Awaited::Memory, Then::SetMemory(table));
        actions.push(Action::SetMemory { regions, same_layout, ack: MemoryAck::new(token) });
        Ok(Progress::Waiting)
    }

    /// The log of dirty pages, which is used once there is something to log.
    pub(super) fn set_log(&mut self, log: LogArea, fd: F, actions: &mut Vec<Action<F>>) -> Progress {
        let token = self.wait(Awaited::Memory, Then::SetLog(log));
        actions.push(Action::SetLog { log, fd, ack: MemoryAck::new(token) });
        Progress::Waiting
    }

    pub(super) fn add_region(&mut self, region: Region, fd: F, actions: &mut Vec<Action<F>>) -> Outcome {
        if let Err(error) = memory::check_added(&self.regions, &region, self.offer.max_mem_slots) {
            return Ok(Progress::Unusable(error));
        }
        let token = self.wait(Awaited::Memory, Then::AddRegion(region));
        actions.push(Action::AddRegion { region, fd, ack: MemoryAck::new(token) });
        Ok(Progress::Waiting)
    }

    pub(super) fn remove_region(&mut self, region: Region, actions: &mut Vec<Action<F>>) -> Outcome {
        let region = match memory::find(&self.regions, &region) {
            Ok(region) => region,
            Err(error) => return Ok(Progress::Refused(error)),
        };
        let token = self.wait(Awaited::Memory, Then::RemoveRegion(region));
        actions.push(Action::RemoveRegion { region, ack: MemoryAck::new(token) });
        Ok(Progress::Waiting)
    }

    /// Stops every running ring, then completes.
    pub(super) fn stop_all(&mut self, then: Then, actions: &mut Vec<Action<F>>) -> Outcome {
        self.stop((0..self.offer.max_queues).collect(), then, actions)
    }

    /// Starts every ring that is complete and does not run.
    pub(super) fn start_complete(&mut self, actions: &mut Vec<Action<F>>) -> Result<(), ProtocolError> {
        let Some(features) = self.acked_features().filter(|_| !self.regions.is_empty()) else { return Ok(()) };
        let features = features & !VHOST_F_LOG_ALL;
        for (vring, state) in (0..).zip(&mut self.vrings) {
            if let Some(start) = state.start(vring, features)? {
                state.running = true;
                actions.push(Action::Start(start));
            }
        }
        Ok(())
    }

    pub(super) fn index(&self, vring: u32) -> Result<u16, ProtocolError> {
        let max = self.offer.max_queues;
        u16::try_from(vring).ok().filter(|index| *index < max).ok_or(ProtocolError::VringIndex { vring, max })
    }

    pub(super) fn change(&mut self, vring: u16, change: impl FnOnce(&mut VringState)) {
        if let Some(state) = self.vrings.get_mut(usize::from(vring)) {
            change(state);
        }
    }

    fn enable(&mut self, vring: u16, enabled: bool, actions: &mut Vec<Action<F>>) {
        let state = self.state(vring);
        self.change(vring, |state| state.enabled = enabled);
        if state.running && state.enabled != enabled {
            actions.push(Action::SetEnabled { vring, enabled });
        }
    }

    fn stop_if_running(&mut self, vring: u16, then: Then, actions: &mut Vec<Action<F>>) -> Outcome {
        self.stop(vec![vring], then, actions)
    }

    fn stop(&mut self, vrings: Vec<u16>, then: Then, actions: &mut Vec<Action<F>>) -> Outcome {
        let running: Vec<u16> = vrings.into_iter().filter(|vring| self.state(*vring).running).collect();
        if running.is_empty() {
            return self.complete(then, actions);
        }
        for vring in running {
            let token = self.wait(Awaited::Stop { vring }, then.clone());
            actions.push(Action::Stop { vring, ack: StopAck::new(token) });
        }
        Ok(Progress::Waiting)
    }

    fn state(&self, vring: u16) -> VringState {
        self.vring(vring).copied().unwrap_or_default()
    }
}
