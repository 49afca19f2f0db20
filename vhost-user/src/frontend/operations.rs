// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The operations of a front end, as sequences of requests.

use vhost::vhost_user::message::FrontendReq;

use super::error::FrontendError;
use super::machine::{Event, Frontend, Purpose, Step};
use super::setup::{DeviceSetup, Negotiated, Order, QueueSetup};
use crate::features::{PROTOCOL_F_CONFIGURE_MEM_SLOTS, PROTOCOL_F_STATUS, VHOST_USER_F_PROTOCOL_FEATURES};
use crate::wire::{ConfigAccess, Region, Request, has_own_reply};

/// Regions of one SET_MEM_TABLE, and all there can be without memory slots.
const TABLE_REGIONS: usize = 8;

/// ACKNOWLEDGE, DRIVER, FEATURES_OK.
const STATUS_FEATURES_OK: u64 = 1 | 2 | 8;
/// And DRIVER_OK.
const STATUS_DRIVER_OK: u64 = STATUS_FEATURES_OK | 4;

impl<F> Frontend<F> {
    /// Begins a connection: owner, features, protocol features. Ends with [`Event::Negotiated`].
    ///
    /// # Errors
    ///
    /// [`FrontendError`] if something else is under way or the connection has failed; as for all operations.
    pub fn connect(&mut self) -> Result<(), FrontendError> {
        self.begin()?;
        self.usable = self.config.features;
        self.push(Request::SetOwner);
        self.negotiate();
        Ok(())
    }

    /// Begins another connection after the first one was lost, whatever was under way. Features that were
    /// acknowledged can be lost but not won. In virtio-user's order this is how its server mode does it: without an
    /// owner, it first disables and stops the rings that the *new* back end has never heard of, and uses what was
    /// negotiated on the *old* connection until it has negotiated anew. Ends with [`Event::Negotiated`].
    pub fn reconnect(&mut self) {
        self.forget_connection();
        match self.config.order {
            Order::VirtioUser => {
                self.disable_all();
                for vring in 0..self.vrings() {
                    self.push_step(Step::Send(Request::GetVringBase { vring }, Purpose::Discard));
                }
                self.push_status(0);
            }
            Order::Qemu => {
                self.push(Request::SetOwner);
                self.enabled.fill(false);
                self.negotiated = Negotiated::default();
            }
        }
        self.push_step(Step::Send(Request::GetFeatures, Purpose::Features));
        self.push_step(Step::EndNegotiated);
    }

    /// Gives the back end memory and rings. Ends with [`Event::Started`].
    ///
    /// # Errors
    ///
    /// [`FrontendError::Queues`], [`FrontendError::Regions`] if there are not two queues for each pair, or too many
    /// regions.
    pub fn start(&mut self, setup: DeviceSetup<F>) -> Result<(), FrontendError> {
        self.begin()?;
        let DeviceSetup { memory, queues, enabled_pairs } = setup;
        let expected = usize::from(self.config.pairs) * 2;
        if queues.len() != expected || usize::from(enabled_pairs) * 2 > expected {
            return Err(FrontendError::Queues { got: queues.len(), expected });
        }
        self.check_region_count(memory.len())?;
        match self.config.order {
            Order::VirtioUser => self.start_as_virtio_user(memory, queues, enabled_pairs),
            Order::Qemu => self.start_as_qemu(memory, queues, enabled_pairs),
        }
        self.push_step(Step::End(Event::Started));
        Ok(())
    }

    /// Stops all rings. Ends with [`Event::Stopped`]; `start` can follow.
    ///
    /// # Errors
    ///
    /// As [`Frontend::connect`].
    pub fn stop(&mut self) -> Result<(), FrontendError> {
        self.begin()?;
        self.disable_all();
        for vring in 0..self.vrings() {
            self.push_step(Step::Send(Request::GetVringBase { vring }, Purpose::Base(vring)));
        }
        self.push_status(0);
        self.push_step(Step::EndStopped);
        Ok(())
    }

    /// Adds a region of memory to a live device. Ends with [`Event::Done`].
    ///
    /// # Errors
    ///
    /// [`FrontendError::NotNegotiated`] if the back end has no memory slots.
    pub fn add_region(&mut self, region: Region, fd: F) -> Result<(), FrontendError> {
        self.single(Request::AddMemReg(region, fd))
    }

    /// Removes a region of memory from a live device. Ends with [`Event::Done`], after which the back end does not
    /// touch it any more.
    ///
    /// # Errors
    ///
    /// As [`Frontend::add_region`].
    pub fn remove_region(&mut self, region: Region) -> Result<(), FrontendError> {
        self.single(Request::RemMemReg(region))
    }

    /// Replaces all memory of a live device, as virtio-user does when hugepages come and go: enabled pairs are
    /// disabled meanwhile. Ends with [`Event::Done`].
    ///
    /// # Errors
    ///
    /// [`FrontendError::Regions`] if there are too many for one message.
    pub fn replace_memory(&mut self, memory: Vec<(Region, F)>) -> Result<(), FrontendError> {
        self.begin()?;
        let (count, max) = (memory.len(), TABLE_REGIONS as u64);
        if count > TABLE_REGIONS {
            return Err(FrontendError::Regions { count, max });
        }
        let enabled = self.enabled.clone();
        self.disable_all();
        self.push(Request::SetMemTable(memory));
        for (pair, _) in (0..).zip(&enabled).filter(|(_, enabled)| **enabled) {
            self.push_enable(pair, true);
        }
        self.push_step(Step::End(Event::Done));
        Ok(())
    }

    /// Enables or disables a queue pair. Ends with [`Event::Done`].
    ///
    /// # Errors
    ///
    /// [`FrontendError::Queues`] if there is no such pair.
    pub fn set_enabled(&mut self, pair: u16, enabled: bool) -> Result<(), FrontendError> {
        self.begin()?;
        if pair >= self.config.pairs {
            let expected = usize::from(self.config.pairs) * 2;
            return Err(FrontendError::Queues { got: usize::from(pair) * 2 + 2, expected });
        }
        self.push_enable(pair, enabled);
        self.push_step(Step::End(Event::Done));
        Ok(())
    }

    /// Tells the guest's MTU. Ends with [`Event::Done`] or [`Event::Refused`].
    ///
    /// # Errors
    ///
    /// [`FrontendError::NotNegotiated`] if the back end has no NET_MTU; as for the operations that follow, each with
    /// its feature.
    pub fn set_mtu(&mut self, mtu: u16) -> Result<(), FrontendError> {
        self.single(Request::NetSetMtu(u64::from(mtu)))
    }

    /// Has the guest's presence announced. Ends with [`Event::Done`].
    ///
    /// # Errors
    ///
    /// As [`Frontend::set_mtu`].
    pub fn send_rarp(&mut self, mac: [u8; 6]) -> Result<(), FrontendError> {
        self.single(Request::SendRarp(mac))
    }

    /// Writes the device status. Ends with [`Event::Done`].
    ///
    /// # Errors
    ///
    /// As [`Frontend::set_mtu`].
    pub fn set_status(&mut self, status: u8) -> Result<(), FrontendError> {
        self.single(Request::SetStatus(u64::from(status)))
    }

    /// Writes configuration space. Ends with [`Event::Done`] or [`Event::Refused`].
    ///
    /// # Errors
    ///
    /// As [`Frontend::set_mtu`].
    pub fn set_config(&mut self, access: ConfigAccess) -> Result<(), FrontendError> {
        self.single(Request::SetConfig(access))
    }

    /// Reads the device status. Ends with [`Event::Status`].
    ///
    /// # Errors
    ///
    /// As [`Frontend::set_mtu`].
    pub fn get_status(&mut self) -> Result<(), FrontendError> {
        self.begin()?;
        self.check(FrontendReq::GET_STATUS)?;
        self.push_step(Step::Send(Request::GetStatus, Purpose::Status));
        Ok(())
    }

    /// Reads `size` bytes of configuration space. Ends with [`Event::Config`].
    ///
    /// # Errors
    ///
    /// As [`Frontend::set_mtu`].
    pub fn get_config(&mut self, offset: u32, size: u8) -> Result<(), FrontendError> {
        self.begin()?;
        self.check(FrontendReq::GET_CONFIG)?;
        let access = ConfigAccess { offset, flags: 0, bytes: vec![0; usize::from(size)] };
        self.push_step(Step::Send(Request::GetConfig(access), Purpose::Config));
        Ok(())
    }

    /// Resets the device: rings are stopped and forgotten, memory stays. Ends with [`Event::Done`]; `start` can
    /// follow.
    ///
    /// # Errors
    ///
    /// As [`Frontend::set_mtu`].
    pub fn reset_device(&mut self) -> Result<(), FrontendError> {
        self.single(Request::ResetDevice)?;
        self.enabled.fill(false);
        Ok(())
    }

    /// Sends any request, known to be sensible or not: for tests. A reply of its own is dropped. Ends with
    /// [`Event::Done`] or [`Event::Refused`].
    ///
    /// # Errors
    ///
    /// As [`Frontend::connect`].
    pub fn request(&mut self, request: Request<F>) -> Result<(), FrontendError> {
        self.begin()?;
        let own = request.code().is_some_and(has_own_reply);
        self.push_step(Step::Send(request, if own { Purpose::Discard } else { Purpose::Success }));
        self.push_step(Step::End(Event::Done));
        Ok(())
    }

    fn single(&mut self, request: Request<F>) -> Result<(), FrontendError> {
        self.begin()?;
        if let Some(code) = request.code() {
            self.check(code)?;
        }
        self.push(request);
        self.push_step(Step::End(Event::Done));
        Ok(())
    }

    fn negotiate(&mut self) {
        self.negotiated = Negotiated { max_mem_slots: TABLE_REGIONS as u64, ..Negotiated::default() };
        self.push_step(Step::Send(Request::GetFeatures, Purpose::Features));
        self.push_step(Step::EndNegotiated);
    }

    fn start_as_virtio_user(&mut self, memory: Vec<(Region, F)>, queues: Vec<QueueSetup<F>>, enabled_pairs: u16) {
        let mut rings = Vec::with_capacity(queues.len());
        for (vring, mut queue) in (0..=u8::MAX).zip(queues) {
            self.push(Request::SetVringCall { vring, fd: queue.call.take() });
            rings.push((vring, queue));
        }
        self.push_features();
        if memory.len() <= TABLE_REGIONS {
            self.push(Request::SetMemTable(memory));
        } else {
            self.push_regions(memory);
        }
        for (vring, queue) in rings {
            self.push_ring(vring, queue);
        }
        for pair in 0..enabled_pairs {
            self.push_enable(pair, true);
        }
        self.push_status(STATUS_DRIVER_OK);
    }

    fn start_as_qemu(&mut self, memory: Vec<(Region, F)>, queues: Vec<QueueSetup<F>>, enabled_pairs: u16) {
        for pair in 0..enabled_pairs {
            self.push_enable(pair, true);
        }
        self.push_features();
        if self.has(PROTOCOL_F_CONFIGURE_MEM_SLOTS) {
            self.push_regions(memory);
        } else {
            self.push(Request::SetMemTable(memory));
        }
        for (vring, mut queue) in (0..=u8::MAX).zip(queues) {
            let call = queue.call.take();
            self.push_ring(vring, queue);
            self.push(Request::SetVringCall { vring, fd: call });
        }
        self.push_status(STATUS_DRIVER_OK);
    }

    fn push_features(&mut self) {
        let flag = if self.has_protocol { VHOST_USER_F_PROTOCOL_FEATURES } else { 0 };
        self.push(Request::SetFeatures(self.negotiated.features | flag));
        self.push_status(STATUS_FEATURES_OK);
    }

    fn push_regions(&mut self, memory: Vec<(Region, F)>) {
        for (region, fd) in memory {
            self.push(Request::AddMemReg(region, fd));
        }
    }

    fn push_ring(&mut self, vring: u8, queue: QueueSetup<F>) {
        let QueueSetup { size, base, addresses, kick, err, .. } = queue;
        let index = u32::from(vring);
        self.push(Request::SetVringNum { vring: index, num: u32::from(size) });
        self.push(Request::SetVringBase { vring: index, base });
        self.push(Request::SetVringAddr { vring: index, flags: 0, addresses, log: 0 });
        if err.is_some() {
            self.push(Request::SetVringErr { vring, fd: err });
        }
        self.push(Request::SetVringKick { vring, fd: kick });
    }

    /// Both rings of a pair; without protocol features there is nothing to enable.
    fn push_enable(&mut self, pair: u16, enabled: bool) {
        if let Some(known) = self.enabled.get_mut(usize::from(pair)) {
            *known = enabled;
        }
        if self.has_protocol {
            for vring in [u32::from(pair) * 2, u32::from(pair) * 2 + 1] {
                self.push(Request::SetVringEnable { vring, enable: u32::from(enabled) });
            }
        }
    }

    fn disable_all(&mut self) {
        for pair in 0..self.config.pairs {
            if self.enabled.get(usize::from(pair)) == Some(&true) {
                self.push_enable(pair, false);
            }
        }
    }

    fn push_status(&mut self, status: u64) {
        if self.has(PROTOCOL_F_STATUS) {
            self.push(Request::SetStatus(status));
        }
    }

    fn check_region_count(&self, count: usize) -> Result<(), FrontendError> {
        let slots = self.has(PROTOCOL_F_CONFIGURE_MEM_SLOTS);
        let max = if slots { self.negotiated.max_mem_slots } else { TABLE_REGIONS as u64 };
        if u64::try_from(count).is_ok_and(|count| count <= max) {
            return Ok(());
        }
        Err(FrontendError::Regions { count, max })
    }

    fn vrings(&self) -> u32 {
        u32::from(self.config.pairs) * 2
    }
}
