// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One conversation with a backend: a request, then its reply, under a deadline.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use vhost_user::{Decoder, Message, Reply, Request};

use crate::AttachError;
use crate::socket::Stream;

/// A connected socket and what of the last reply has arrived.
#[derive(Debug)]
pub(crate) struct Session {
    stream: Stream,
    decoder: Decoder<OwnedFd>,
    socket: PathBuf,
    timeout: Duration,
    /// REPLY_ACK was negotiated: requests without a reply of their own are acknowledged.
    pub(crate) acknowledged: bool,
}

impl Session {
    pub(crate) fn new(stream: Stream, socket: &Path, timeout: Duration) -> Self {
        Self { stream, decoder: Decoder::new(), socket: socket.to_owned(), timeout, acknowledged: false }
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// True once the backend has gone.
    pub(crate) fn hung_up(&self) -> bool {
        self.stream.hung_up()
    }

    /// Sends a request that has a reply of its own, and waits for that.
    pub(crate) fn ask(&mut self, request: Request<OwnedFd>) -> Result<Reply<OwnedFd>, AttachError> {
        let step = step(&request);
        let Some(code) = request.code() else {
            return Err(AttachError::WrongReply { socket: self.socket.clone(), step });
        };
        let deadline = self.send(request, false, &step)?;
        let message = self.next_message(&step, deadline)?;
        Reply::parse(code, message).map_err(|source| AttachError::Wire { socket: self.socket.clone(), step, source })
    }

    /// Sends a request that is answered with a number, and waits for that.
    pub(crate) fn ask_value(&mut self, request: Request<OwnedFd>) -> Result<u64, AttachError> {
        let step = step(&request);
        match self.ask(request)? {
            Reply::Value(value) => Ok(value),
            _ => Err(AttachError::WrongReply { socket: self.socket.clone(), step }),
        }
    }

    /// Sends a request that has no reply of its own; waits for its acknowledgement where those were negotiated.
    pub(crate) fn tell(&mut self, request: Request<OwnedFd>) -> Result<(), AttachError> {
        let step = step(&request);
        let code = request.code().filter(|_| self.acknowledged);
        let deadline = self.send(request, code.is_some(), &step)?;
        let Some(code) = code else { return Ok(()) };
        let message = self.next_message(&step, deadline)?;
        let socket = self.socket.clone();
        match Reply::parse(code, message) {
            Ok(Reply::Value(0)) => Ok(()),
            Ok(Reply::Value(value)) => Err(AttachError::Refused { socket, step, value }),
            Ok(_) => Err(AttachError::WrongReply { socket, step }),
            Err(source) => Err(AttachError::Wire { socket, step, source }),
        }
    }

    fn send(&self, request: Request<OwnedFd>, need_reply: bool, step: &str) -> Result<Instant, AttachError> {
        let deadline = Instant::now() + self.timeout;
        let frame = request.into_frame(need_reply);
        let fds: Vec<_> = frame.fds.iter().map(AsFd::as_fd).collect();
        self.stream.send(&frame.bytes, &fds, deadline).map_err(|source| self.lost(source, step))?;
        Ok(deadline)
    }

    fn next_message(&mut self, step: &str, deadline: Instant) -> Result<Message<OwnedFd>, AttachError> {
        loop {
            match self.decoder.next_message() {
                Ok(Some(message)) => return Ok(message),
                Ok(None) => {}
                Err(source) => {
                    return Err(AttachError::Wire { socket: self.socket.clone(), step: step.to_owned(), source });
                }
            }
            let mut buffer = [0; 4096];
            let room = self.decoder.wanted().min(buffer.len());
            let room = buffer.get_mut(..room).unwrap_or(&mut []);
            let mut fds = Vec::new();
            let received = self.stream.receive(room, &mut fds, deadline);
            match received.map_err(|source| self.lost(source, step))? {
                0 => return Err(AttachError::Closed { socket: self.socket.clone(), step: step.to_owned() }),
                count => self.decoder.push(buffer.get(..count).unwrap_or(&[]), fds),
            }
        }
    }

    fn lost(&self, source: io::Error, step: &str) -> AttachError {
        let (socket, step) = (self.socket.clone(), step.to_owned());
        match source.kind() {
            ErrorKind::TimedOut => AttachError::TimedOut { socket, step },
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => AttachError::Closed { socket, step },
            _ => AttachError::Io { socket, step, source },
        }
    }
}

/// What the specification calls the request.
fn step(request: &Request<OwnedFd>) -> String {
    request.code().map_or_else(|| format!("request {}", request.id()), |code| format!("{code:?}"))
}
