// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The front end's state machine: a queue of steps, of which one at a time waits for its reply.
//!
//! # Theory of operation
//!
//! An operation puts *steps* into the queue: requests, and the event that ends it. [`Frontend::next_frame`] takes
//! requests off until one needs a reply; [`Frontend::receive`] and [`Frontend::next_event`] consume the reply, which
//! may put further steps in front (negotiation asks for what the answers so far make askable). A refusal (a non-zero
//! acknowledgement) drops the operation's remaining steps.

use std::collections::VecDeque;

use vhost::vhost_user::message::FrontendReq;

use super::error::FrontendError;
use super::setup::{FrontendConfig, Negotiated, Order};
use crate::features::{self, PROTOCOL_F_REPLY_ACK, VHOST_USER_F_PROTOCOL_FEATURES};
use crate::wire::{ConfigAccess, Decoder, Frame, Reply, Request, has_own_reply, protocol_feature};

/// The end of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// `connect` or `reconnect`: features are agreed on; `start` can follow.
    Negotiated(Negotiated),
    /// `start`: the device runs.
    Started,
    /// `stop`: the rings stand still at these bases, by ring index.
    Stopped(Vec<u32>),
    /// `get_status`.
    Status(u8),
    /// `get_config`; `None`: the back end could not serve it.
    Config(Option<ConfigAccess>),
    /// Any other operation.
    Done,
    /// The back end refused this request; the rest of the operation was dropped.
    Refused(FrontendReq),
}

/// One connection to a back end. See the crate's documentation for the loop around it.
#[derive(Debug)]
pub struct Frontend<F> {
    pub(super) config: FrontendConfig,
    pub(super) negotiated: Negotiated,
    /// The back end announced protocol features (then rings must be enabled).
    pub(super) has_protocol: bool,
    /// Per pair.
    pub(super) enabled: Vec<bool>,
    /// What SET_FEATURES may contain: what is wanted, and after a first negotiation what that yielded.
    pub(super) usable: u64,
    decoder: Decoder<F>,
    steps: VecDeque<Step<F>>,
    awaited: Option<(FrontendReq, Purpose)>,
    bases: Vec<u32>,
    failed: Option<FrontendError>,
}

#[derive(Debug)]
pub(super) enum Step<F> {
    Send(Request<F>, Purpose),
    /// Ends an operation.
    End(Event),
    /// Ends a stop with the bases collected.
    EndStopped,
    /// Ends a negotiation.
    EndNegotiated,
}

/// What a reply is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Nothing but success.
    Success,
    Features,
    ProtocolFeatures,
    Pairs,
    Slots,
    /// A base that is part of the result.
    Base(u32),
    /// A base that nobody wants.
    Discard,
    Status,
    Config,
}

impl<F> Frontend<F> {
    /// A front end before its first operation.
    #[must_use]
    pub fn new(config: FrontendConfig) -> Self {
        Self {
            config,
            negotiated: Negotiated::default(),
            has_protocol: false,
            enabled: vec![false; usize::from(config.pairs)],
            usable: config.features,
            decoder: Decoder::new(),
            steps: VecDeque::new(),
            awaited: None,
            bases: Vec::new(),
            failed: None,
        }
    }

    /// The next message to send; `None` if a reply must come first, an event is to be taken, or nothing is to be
    /// done.
    pub fn next_frame(&mut self) -> Option<Frame<F>> {
        if self.awaited.is_some() || self.failed.is_some() {
            return None;
        }
        match self.steps.pop_front()? {
            Step::Send(request, purpose) => Some(self.send(request, purpose)),
            end => {
                self.steps.push_front(end);
                None
            }
        }
    }

    /// How many bytes to read at most; 0 if no reply is due.
    #[must_use]
    pub fn wanted(&self) -> usize {
        if self.awaited.is_some() && self.failed.is_none() { self.decoder.wanted() } else { 0 }
    }

    /// Takes what one `recvmsg` returned.
    pub fn receive(&mut self, bytes: &[u8], fds: impl IntoIterator<Item = F>) {
        self.decoder.push(bytes, fds);
    }

    /// Consumes replies; returns the end of an operation, or `None` if there is more to send or to receive.
    ///
    /// # Errors
    ///
    /// [`FrontendError`] if the connection must be closed; the same one again ever after.
    pub fn next_event(&mut self) -> Result<Option<Event>, FrontendError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.advance().inspect_err(|error| self.failed = Some(*error))
    }

    /// What was agreed on.
    #[must_use]
    pub fn negotiated(&self) -> &Negotiated {
        &self.negotiated
    }

    /// Whether no operation is under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.steps.is_empty() && self.awaited.is_none()
    }

    /// Forgets the connection (but not what was negotiated) and drops what was under way.
    pub(super) fn forget_connection(&mut self) {
        self.decoder = Decoder::new();
        self.steps.clear();
        self.awaited = None;
        self.bases.clear();
        self.failed = None;
    }

    pub(super) fn has(&self, protocol_features: u64) -> bool {
        self.negotiated.protocol_features & protocol_features == protocol_features
    }

    /// Begins an operation.
    pub(super) fn begin(&mut self) -> Result<(), FrontendError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if self.is_idle() { Ok(()) } else { Err(FrontendError::Busy) }
    }

    /// Checks that `request` may be sent.
    pub(super) fn check(&self, request: FrontendReq) -> Result<(), FrontendError> {
        let feature = protocol_feature(request);
        if self.has(feature) { Ok(()) } else { Err(FrontendError::NotNegotiated { request, feature }) }
    }

    /// Adds a request of which only success matters.
    pub(super) fn push(&mut self, request: Request<F>) {
        self.push_step(Step::Send(request, Purpose::Success));
    }

    pub(super) fn push_step(&mut self, step: Step<F>) {
        self.steps.push_back(step);
    }

    fn send(&mut self, request: Request<F>, purpose: Purpose) -> Frame<F> {
        let Some(code) = request.code() else { return request.into_frame(false) };
        let own = has_own_reply(code);
        let need_reply = !own && self.has(PROTOCOL_F_REPLY_ACK);
        if own || need_reply {
            self.awaited = Some((code, purpose));
        }
        if let Request::SetProtocolFeatures(acked) = request {
            // They count from the next message on; this one did not ask for a reply yet.
            self.negotiated.protocol_features = acked;
        }
        request.into_frame(need_reply)
    }

    fn advance(&mut self) -> Result<Option<Event>, FrontendError> {
        if let Some((code, purpose)) = self.awaited {
            let Some(message) = self.decoder.next_message()? else { return Ok(None) };
            self.awaited = None;
            let reply = Reply::parse(code, message)?;
            if let Some(event) = self.consume(code, purpose, reply)? {
                return Ok(Some(event));
            }
        }
        if let Some(message) = self.decoder.next_message()? {
            return Err(FrontendError::Unasked { request: message.header.request });
        }
        let end = match self.steps.pop_front() {
            None => return Ok(None),
            Some(send @ Step::Send(..)) => {
                self.steps.push_front(send);
                return Ok(None);
            }
            Some(Step::End(event)) => event,
            Some(Step::EndStopped) => Event::Stopped(std::mem::take(&mut self.bases)),
            Some(Step::EndNegotiated) => Event::Negotiated(self.negotiated),
        };
        Ok(Some(end))
    }

    fn consume(
        &mut self,
        code: FrontendReq,
        purpose: Purpose,
        reply: Reply<F>,
    ) -> Result<Option<Event>, FrontendError> {
        match (purpose, reply) {
            (Purpose::Success, Reply::Value(value)) if value != 0 => {
                self.steps.clear();
                return Ok(Some(Event::Refused(code)));
            }
            (Purpose::Features, Reply::Value(bits)) => self.offered_features(bits)?,
            (Purpose::ProtocolFeatures, Reply::Value(bits)) => self.offered_protocol_features(bits),
            (Purpose::Pairs, Reply::Value(offered)) => {
                let wanted = self.config.pairs;
                if offered < u64::from(wanted) {
                    return Err(FrontendError::TooFewPairs { offered, wanted });
                }
                self.negotiated.max_pairs = Some(offered);
            }
            (Purpose::Slots, Reply::Value(slots)) => self.negotiated.max_mem_slots = slots,
            (Purpose::Base(asked), Reply::VringBase { vring: got, base }) => {
                if asked != got {
                    return Err(FrontendError::WrongVring { asked, got });
                }
                self.bases.push(base);
            }
            (Purpose::Status, Reply::Value(status)) => {
                // Only eight bits are defined.
                let [status, ..] = status.to_le_bytes();
                return Ok(Some(Event::Status(status)));
            }
            (Purpose::Config, Reply::Config(config)) => return Ok(Some(Event::Config(config))),
            _ => {}
        }
        Ok(None)
    }

    fn offered_features(&mut self, bits: u64) -> Result<(), FrontendError> {
        let missing = self.config.required & !bits;
        if missing != 0 {
            return Err(FrontendError::FeaturesMissing { bits: missing });
        }
        self.negotiated.features = bits & self.usable & !VHOST_USER_F_PROTOCOL_FEATURES;
        self.usable = self.negotiated.features;
        self.has_protocol = bits & VHOST_USER_F_PROTOCOL_FEATURES != 0;
        if self.has_protocol {
            self.steps.push_front(Step::Send(Request::GetProtocolFeatures, Purpose::ProtocolFeatures));
        }
        Ok(())
    }

    fn offered_protocol_features(&mut self, bits: u64) {
        let acked = bits & self.config.protocol_features;
        let mut next = vec![Step::Send(Request::SetProtocolFeatures(acked), Purpose::Success)];
        if acked & features::PROTOCOL_F_MQ != 0 {
            next.push(Step::Send(Request::GetQueueNum, Purpose::Pairs));
        }
        if acked & features::PROTOCOL_F_CONFIGURE_MEM_SLOTS != 0 {
            next.push(Step::Send(Request::GetMaxMemSlots, Purpose::Slots));
        }
        if self.config.order == Order::VirtioUser && acked & features::PROTOCOL_F_STATUS != 0 {
            // Reset, ACKNOWLEDGE, DRIVER.
            next.extend([0, 1, 3].map(|status| Step::Send(Request::SetStatus(status), Purpose::Success)));
        }
        for step in next.into_iter().rev() {
            self.steps.push_front(step);
        }
    }
}
