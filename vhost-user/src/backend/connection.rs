// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! State machine with decoder and queue: what a host puts behind a socket.

use std::collections::VecDeque;

use vhost::vhost_user::message::FrontendReq;

use super::action::{Action, MemoryAck, RequestAck, StopAck};
use super::error::ProtocolError;
use super::machine::Backend;
use super::offer::Offer;
use crate::wire::{Decoder, Frame, Header, Message, Reply, Request, has_own_reply};

/// One connection of a front end, seen from its socket: bytes and descriptors in, [`Action`]s out.
///
/// Everything a peer can cause to be kept is bounded: one message, [`crate::MAX_FDS`] descriptors, and the actions of
/// one request.
#[derive(Debug)]
pub struct BackendConnection<F> {
    decoder: Decoder<F>,
    backend: Backend<F>,
    actions: VecDeque<Action<F>>,
    failed: Option<ProtocolError>,
}

impl<F> BackendConnection<F> {
    /// A connection that was just accepted or made.
    #[must_use]
    pub fn new(offer: Offer) -> Self {
        Self::from_backend(Backend::new(offer))
    }

    /// As [`BackendConnection::new`], with a machine that was prepared.
    #[must_use]
    pub fn from_backend(backend: Backend<F>) -> Self {
        Self { decoder: Decoder::new(), backend, actions: VecDeque::new(), failed: None }
    }

    /// How many bytes to read at most. 0 means: do not read (and do not ask to be woken for it) until the outstanding
    /// acknowledgement was given, or at all after an error.
    #[must_use]
    pub fn wanted(&self) -> usize {
        if self.failed.is_some() || self.backend.is_waiting() { 0 } else { self.decoder.wanted() }
    }

    /// Takes what one `recvmsg` returned; then call [`BackendConnection::poll`] until it returns `None`.
    pub fn receive(&mut self, bytes: &[u8], fds: impl IntoIterator<Item = F>) {
        self.decoder.push(bytes, fds);
    }

    /// The next thing to do; `None` if more bytes, or an acknowledgement, must come first.
    ///
    /// # Errors
    ///
    /// [`ProtocolError`] if the connection must be closed; the same one again ever after. If the front end had asked
    /// for a reply, an [`Action::Reply`] that tells it of the failure came before.
    pub fn poll(&mut self) -> Result<Option<Action<F>>, ProtocolError> {
        loop {
            if let Some(action) = self.actions.pop_front() {
                return Ok(Some(action));
            }
            if let Some(error) = self.failed {
                return Err(error);
            }
            if self.backend.is_waiting() {
                return Ok(None);
            }
            match self.decoder.next_message() {
                Ok(Some(message)) => self.serve(message),
                Ok(None) => return Ok(None),
                Err(error) => self.failed = Some(error.into()),
            }
        }
    }

    /// See [`Backend::finish`]; then continue to [`BackendConnection::poll`], which reports errors, too.
    pub fn finish(&mut self, ack: MemoryAck, accepted: bool) {
        let result = self.backend.finish(ack, accepted);
        self.enqueue(result);
    }

    /// See [`Backend::finish_stop`]; then continue to [`BackendConnection::poll`], which reports errors, too.
    pub fn finish_stop(&mut self, ack: StopAck, base: u32) {
        let result = self.backend.finish_stop(ack, base);
        self.enqueue(result);
    }

    /// See [`Backend::finish_request`]; then continue to [`BackendConnection::poll`], which reports errors, too.
    pub fn finish_request(&mut self, ack: RequestAck, reply: Option<Reply<F>>) {
        let result = self.backend.finish_request(ack, reply);
        self.enqueue(result);
    }

    /// The state behind the connection.
    #[must_use]
    pub fn backend(&self) -> &Backend<F> {
        &self.backend
    }

    /// Whether the peer may close here in good order: between two messages.
    #[must_use]
    pub fn is_between_messages(&self) -> bool {
        self.decoder.is_empty()
    }

    fn serve(&mut self, message: Message<F>) {
        let header = message.header;
        let result = Request::parse(message)
            .map_err(ProtocolError::from)
            .and_then(|request| self.backend.handle(request, header.needs_reply()));
        if result.is_err() {
            self.tell_failure(&header);
        }
        self.enqueue(result);
    }

    /// The last message of a connection that fails. A request with a reply of its own has none that says so.
    fn tell_failure(&mut self, header: &Header) {
        let own = FrontendReq::try_from(header.request).is_ok_and(has_own_reply);
        if header.needs_reply() && !header.is_reply() && !own && self.backend.acknowledges() {
            self.actions.push_back(Action::Reply(Frame::ack(header.request, 1)));
        }
    }

    fn enqueue(&mut self, result: Result<Vec<Action<F>>, ProtocolError>) {
        match result {
            Ok(actions) => self.actions.extend(actions),
            Err(error) => self.failed = Some(error),
        }
    }
}
