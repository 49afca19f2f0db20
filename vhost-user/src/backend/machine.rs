// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The state machine itself: one request in, what to do out.
//!
//! # Theory of operation
//!
//! [`Backend::handle`] serves one request. What needs nothing from the host takes effect at once, and the reply, if
//! one is due, is the last action. What needs the host (memory to be mapped, a ring to be left by its worker) leaves
//! a [`Waiting`] behind: acknowledgements that are outstanding and what to do when the last is in. Replies on the
//! socket must come in the order of requests, so nothing else is served until then.
//!
//! Order is not prescribed beyond that. Real front ends enable and stop rings before SET_FEATURES, name call
//! descriptors before anything else, and continue a connection's negotiation on the next one without repeating it:
//! virtio-user in server mode sends requests with the need-reply flag on a new connection before (or without ever)
//! negotiating protocol features there, and waits for the answers. So until SET_PROTOCOL_FEATURES arrives, everything
//! that is *offered* counts as negotiated.

use std::marker::PhantomData;

use vhost::vhost_user::message::FrontendReq;

use super::action::{Action, MemoryAck, RequestAck, StopAck};
use super::config::NetConfig;
use super::error::ProtocolError;
use super::offer::Offer;
use super::pending::{Awaited, Then, Waiting};
use super::vring::VringState;
use crate::features::{PROTOCOL_F_REPLY_ACK, VHOST_USER_F_PROTOCOL_FEATURES};
use crate::wire::{Frame, Region, Reply, Request, protocol_feature};

/// The node's side of one connection, without decoder and queue (see [`super::BackendConnection`] for those). After
/// an error it must be dropped, together with the connection.
#[derive(Debug)]
pub struct Backend<F> {
    pub(super) offer: Offer,
    /// As acknowledged; `None` until SET_FEATURES.
    pub(super) features: Option<u64>,
    /// As acknowledged; `None` until SET_PROTOCOL_FEATURES.
    pub(super) protocol: Option<u64>,
    pub(super) config: NetConfig,
    pub(super) status: u8,
    pub(super) vrings: Vec<VringState>,
    pub(super) regions: Vec<Region>,
    waiting: Option<Waiting>,
    next_token: u64,
    fds: PhantomData<fn() -> F>,
}

/// How far a request got.
#[derive(Clone, Copy)]
pub(super) enum Progress {
    /// Served; if the front end asked, acknowledge it.
    Done,
    /// Served, and its own reply is among the actions.
    Replied,
    /// The host has something to do first.
    Waiting,
    /// Without effect; if the front end asked, say so.
    Refused(ProtocolError),
    /// Without effect, and the front end must know: say so if it asked, else close the connection.
    Unusable(ProtocolError),
}

impl<F> Backend<F> {
    /// The state at the beginning of a connection.
    #[must_use]
    pub fn new(offer: Offer) -> Self {
        let vrings = vec![VringState::default(); usize::from(offer.max_queues)];
        Self {
            config: offer.config,
            offer,
            features: None,
            protocol: None,
            status: 0,
            vrings,
            regions: Vec::new(),
            waiting: None,
            next_token: 0,
            fds: PhantomData,
        }
    }

    /// Takes `features` for acknowledged, as a connection before this one left them: for a take-over from another
    /// process.
    #[must_use]
    pub fn with_acked_features(mut self, features: u64) -> Self {
        self.features = Some(features & self.offer.all_features());
        self
    }

    /// Serves one request; `need_reply` is the header's flag.
    ///
    /// # Errors
    ///
    /// [`ProtocolError`] if the connection must be closed. [`Backend::acknowledges`] tells whether the front end is
    /// to hear of it first.
    pub fn handle(&mut self, request: Request<F>, need_reply: bool) -> Result<Vec<Action<F>>, ProtocolError> {
        if self.waiting.is_some() {
            return Err(ProtocolError::HostOrder);
        }
        let code = request.code().ok_or_else(|| ProtocolError::UnknownRequest { id: request.id() })?;
        self.check_negotiated(code)?;
        let mut actions = Vec::new();
        let progress = self.serve(request, code, &mut actions)?;
        let ack = (need_reply && self.acknowledges()).then_some(code);
        self.settle(progress, ack, &mut actions)?;
        Ok(actions)
    }

    /// Tells that the memory action of `ack` is complete: `accepted` if it took effect. Returns what follows.
    ///
    /// # Errors
    ///
    /// [`ProtocolError`] if the connection must be closed: memory that was not accepted, and no other way to tell; or
    /// `ack` is not outstanding.
    pub fn finish(&mut self, ack: MemoryAck, accepted: bool) -> Result<Vec<Action<F>>, ProtocolError> {
        let token = ack.into_token();
        self.take(token, Awaited::Memory)?;
        self.conclude(accepted)
    }

    /// Tells that a ring has stopped, and its base: for packed rings with both halves equal, for split rings in the
    /// low half.
    ///
    /// # Errors
    ///
    /// [`ProtocolError`] if the connection must be closed, as in [`Backend::handle`]; or `ack` is not outstanding.
    pub fn finish_stop(&mut self, ack: StopAck, base: u32) -> Result<Vec<Action<F>>, ProtocolError> {
        let token = ack.into_token();
        let index = self.waiting.as_ref().and_then(|waiting| waiting.stopping(token));
        let vring = index.ok_or(ProtocolError::HostOrder)?;
        self.take(token, Awaited::Stop { vring })?;
        if let Some(state) = self.vrings.get_mut(usize::from(vring)) {
            state.stopped(base);
        }
        self.conclude(true)
    }

    /// Answers an [`Action::Request`]; `None` acknowledges it if the front end asked for that, and else says nothing.
    ///
    /// # Errors
    ///
    /// [`ProtocolError`] if `ack` is not outstanding.
    pub fn finish_request(
        &mut self,
        ack: RequestAck,
        reply: Option<Reply<F>>,
    ) -> Result<Vec<Action<F>>, ProtocolError> {
        let token = ack.into_token();
        self.take(token, Awaited::Request)?;
        let Some(waiting) = self.waiting.take() else { return Ok(Vec::new()) };
        let mut actions = Vec::new();
        match (waiting.then, reply) {
            (Then::Answer(code), Some(reply)) => actions.push(Action::Reply(reply.into_frame(code))),
            _ => self.settle(Progress::Done, waiting.ack, &mut actions)?,
        }
        Ok(actions)
    }

    /// Whether a request with the need-reply flag is to be answered: REPLY_ACK is negotiated, or still taken for it.
    #[must_use]
    pub fn acknowledges(&self) -> bool {
        self.protocol.unwrap_or(self.offer.protocol_features) & PROTOCOL_F_REPLY_ACK != 0
    }

    /// Whether an acknowledgement of the host is outstanding.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// Virtio features as acknowledged, without the protocol features' bit; `None` until SET_FEATURES.
    #[must_use]
    pub fn acked_features(&self) -> Option<u64> {
        self.features.map(|bits| bits & !VHOST_USER_F_PROTOCOL_FEATURES)
    }

    /// Protocol features as acknowledged; `None` until SET_PROTOCOL_FEATURES.
    #[must_use]
    pub fn acked_protocol_features(&self) -> Option<u64> {
        self.protocol
    }

    /// Configuration space as the front end reads it.
    #[must_use]
    pub fn config(&self) -> &NetConfig {
        &self.config
    }

    /// Device status as the driver wrote it.
    #[must_use]
    pub fn status(&self) -> u8 {
        self.status
    }

    /// The memory table in effect.
    #[must_use]
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// A ring; `None` beyond those offered.
    #[must_use]
    pub fn vring(&self, index: u16) -> Option<&VringState> {
        self.vrings.get(usize::from(index))
    }

    /// What was offered.
    #[must_use]
    pub fn offer(&self) -> &Offer {
        &self.offer
    }

    fn serve(
        &mut self,
        request: Request<F>,
        code: FrontendReq,
        actions: &mut Vec<Action<F>>,
    ) -> Result<Progress, ProtocolError> {
        match request {
            Request::GetFeatures => Ok(answer(code, self.offer.all_features(), actions)),
            Request::SetFeatures(bits) => self.set_features(bits, actions),
            Request::GetProtocolFeatures => Ok(answer(code, self.offer.protocol_features, actions)),
            Request::SetProtocolFeatures(bits) => self.set_protocol_features(bits),
            // Marks the beginning of a session, which the connection did already.
            Request::SetOwner => Ok(Progress::Done),
            Request::ResetOwner => Ok(self.reset_owner(actions)),
            Request::GetQueueNum => Ok(answer(code, u64::from(self.offer.max_queues / 2), actions)),
            Request::GetMaxMemSlots => Ok(answer(code, u64::from(self.offer.max_mem_slots), actions)),
            Request::SetMemTable(regions) => self.set_memory(regions, actions),
            Request::AddMemReg(region, fd) => self.add_region(region, fd, actions),
            Request::RemMemReg(region) => self.remove_region(region, actions),
            Request::SetVringNum { vring, num } => self.set_size(vring, num, actions),
            Request::SetVringAddr { vring, flags, addresses, log } => {
                self.set_addresses(vring, flags, addresses, log, actions)
            }
            Request::SetLogBase { log, fd: Some(fd) } => Ok(self.set_log(log, fd, actions)),
            Request::SetLogBase { log, fd: None } => Err(ProtocolError::LogWithoutDescriptor { address: log.offset }),
            // The descriptor is closed.
            Request::SetLogFd(_) => Ok(Progress::Refused(ProtocolError::LogFd)),
            Request::SetVringBase { vring, base } => self.set_base(vring, base, actions),
            Request::GetVringBase { vring } => self.get_base(vring, actions),
            Request::SetVringEnable { vring, enable } => self.set_enabled(vring, enable, actions),
            Request::SetVringKick { vring, fd } => self.set_kick(vring, fd, actions),
            Request::SetVringCall { vring, fd } => {
                let vring = self.index(u32::from(vring))?;
                actions.push(Action::SetCall { vring, fd });
                Ok(Progress::Done)
            }
            Request::SetVringErr { vring, fd } => {
                let vring = self.index(u32::from(vring))?;
                actions.push(Action::SetErr { vring, fd });
                Ok(Progress::Done)
            }
            Request::NetSetMtu(mtu) => Ok(self.set_mtu(mtu, actions)),
            Request::SendRarp(mac) => {
                actions.push(Action::SendRarp(mac));
                Ok(Progress::Done)
            }
            Request::GetConfig(access) => Ok(self.get_config(&access, actions)),
            Request::SetConfig(access) => Ok(self.set_config(&access, actions)),
            Request::GetStatus => Ok(answer(code, u64::from(self.status), actions)),
            Request::SetStatus(status) => self.set_status(status, actions),
            Request::ResetDevice => self.stop_all(Then::ResetDevice, actions),
            Request::GpuSetSocket(_) => Err(ProtocolError::NotApplicable { request: code }),
            // Only reached if the host offered the feature.
            other => {
                let token = self.wait(Awaited::Request, Then::Answer(code));
                actions.push(Action::Request { request: other, ack: RequestAck::new(token) });
                Ok(Progress::Waiting)
            }
        }
    }

    fn check_negotiated(&self, request: FrontendReq) -> Result<(), ProtocolError> {
        let feature = protocol_feature(request);
        if feature & !self.offer.protocol_features != 0 {
            return Err(ProtocolError::NotOffered { request, feature });
        }
        match self.protocol {
            Some(acked) if feature & !acked != 0 => Err(ProtocolError::NotNegotiated { request, feature }),
            _ => Ok(()),
        }
    }

    /// The last step of a request that waited for the host (or turned out not to have to).
    pub(super) fn complete(&mut self, then: Then, actions: &mut Vec<Action<F>>) -> Result<Progress, ProtocolError> {
        match then {
            Then::SetMemory(regions) => self.regions = regions,
            Then::AddRegion(region) => self.regions.push(region),
            Then::RemoveRegion(region) => self.regions.retain(|known| *known != region),
            Then::SetLog(_) => {
                actions.push(Action::Reply(Reply::LogBase.into_frame(FrontendReq::SET_LOG_BASE)));
                return Ok(Progress::Replied);
            }
            Then::ReportBase { vring } => {
                self.report_base(vring, actions);
                return Ok(Progress::Replied);
            }
            Then::Resize { vring, size } => self.change(vring, |state| state.size = Some(size)),
            Then::Readdress { vring, addresses } => self.change(vring, |state| state.addresses = Some(addresses)),
            Then::Rebase { vring, base, kick } => self.change(vring, |state| {
                state.base = Some(base);
                state.kick = kick;
            }),
            Then::Reset => {
                self.status = 0;
                actions.push(Action::Status(0));
            }
            Then::ResetDevice => {
                self.vrings.fill(VringState::default());
                self.features = None;
                self.status = 0;
                actions.push(Action::ResetDevice);
            }
            Then::Answer(_) => {}
        }
        self.start_complete(actions)?;
        Ok(Progress::Done)
    }

    /// Begins to wait, or waits for one more; returns the token.
    pub(super) fn wait(&mut self, awaited: Awaited, then: Then) -> u64 {
        let token = self.next_token;
        self.next_token += 1;
        let waiting = self.waiting.get_or_insert_with(|| Waiting { outstanding: Vec::new(), then, ack: None });
        waiting.outstanding.push((token, awaited));
        token
    }

    fn take(&mut self, token: u64, awaited: Awaited) -> Result<(), ProtocolError> {
        let waiting = self.waiting.as_mut().ok_or(ProtocolError::HostOrder)?;
        let at = waiting.outstanding.iter().position(|owed| *owed == (token, awaited));
        waiting.outstanding.swap_remove(at.ok_or(ProtocolError::HostOrder)?);
        Ok(())
    }

    /// After an acknowledgement: completes the request if it was the last.
    fn conclude(&mut self, accepted: bool) -> Result<Vec<Action<F>>, ProtocolError> {
        let mut actions = Vec::new();
        let Some(waiting) = self.waiting.take_if(|waiting| waiting.outstanding.is_empty()) else {
            return Ok(actions);
        };
        let progress = match accepted {
            true => self.complete(waiting.then, &mut actions)?,
            // Its answer says nothing but that there is one.
            false if matches!(waiting.then, Then::SetLog(_)) => return Err(waiting.then.unusable()),
            false => Progress::Unusable(waiting.then.unusable()),
        };
        self.settle(progress, waiting.ack, &mut actions)?;
        Ok(actions)
    }

    fn settle(
        &mut self,
        progress: Progress,
        ack: Option<FrontendReq>,
        actions: &mut Vec<Action<F>>,
    ) -> Result<(), ProtocolError> {
        let value = match progress {
            Progress::Replied => return Ok(()),
            Progress::Waiting => {
                if let Some(waiting) = &mut self.waiting {
                    waiting.ack = ack;
                }
                return Ok(());
            }
            Progress::Done => 0,
            Progress::Unusable(error) if ack.is_none() => return Err(error),
            Progress::Refused(error) | Progress::Unusable(error) => {
                actions.push(Action::Refused(error));
                1
            }
        };
        if let Some(code) = ack {
            actions.push(Action::Reply(Frame::ack(code.into(), value)));
        }
        Ok(())
    }
}

fn answer<F>(code: FrontendReq, value: u64, actions: &mut Vec<Action<F>>) -> Progress {
    actions.push(Action::Reply(Reply::Value(value).into_frame(code)));
    Progress::Replied
}
