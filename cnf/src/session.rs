// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One connection to a backend: runs the protocol's state machine over the socket, under a deadline.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use vhost::vhost_user::message::FrontendReq;
use vhost_user::{Event, Frame, Frontend};

use crate::AttachError;
use crate::socket::Stream;

/// A connected socket.
#[derive(Debug)]
pub(crate) struct Session {
    stream: Stream,
    socket: PathBuf,
    timeout: Duration,
}

impl Session {
    pub(crate) fn new(stream: Stream, socket: &Path, timeout: Duration) -> Self {
        Self { stream, socket: socket.to_owned(), timeout }
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// True once the backend has gone.
    pub(crate) fn hung_up(&self) -> bool {
        self.stream.hung_up()
    }

    /// A second descriptor of the connection.
    pub(crate) fn line(&self) -> Result<OwnedFd, AttachError> {
        self.stream.as_fd().try_clone_to_owned().map_err(|source| AttachError::Io {
            socket: self.socket.clone(),
            step: "sharing the connection".to_owned(),
            source,
        })
    }

    /// Carries out the operation that was begun, to its end. The backend has the whole time-out for each reply.
    pub(crate) fn run(&self, frontend: &mut Frontend<OwnedFd>) -> Result<Event, AttachError> {
        let mut step = "the first request".to_owned();
        loop {
            let deadline = Instant::now() + self.timeout;
            while let Some(frame) = frontend.next_frame() {
                step = name(&frame);
                let fds: Vec<_> = frame.fds.iter().map(AsFd::as_fd).collect();
                self.stream.send(&frame.bytes, &fds, deadline).map_err(|source| self.lost(source, &step))?;
            }
            while frontend.wanted() > 0 {
                match self.advance(frontend, &step)? {
                    Some(event) => return self.judged(event),
                    None if frontend.wanted() > 0 => self.receive(frontend, &step, deadline)?,
                    None => {}
                }
            }
            if let Some(event) = self.advance(frontend, &step)? {
                return self.judged(event);
            }
        }
    }

    /// An error of the state machine, as one of this socket.
    pub(crate) fn refuse(&self, source: vhost_user::FrontendError) -> AttachError {
        AttachError::Protocol { socket: self.socket.clone(), step: "the request".into(), source }
    }

    fn advance(&self, frontend: &mut Frontend<OwnedFd>, step: &str) -> Result<Option<Event>, AttachError> {
        frontend.next_event().map_err(|source| AttachError::Protocol {
            socket: self.socket.clone(),
            step: step.to_owned(),
            source,
        })
    }

    fn judged(&self, event: Event) -> Result<Event, AttachError> {
        match event {
            Event::Refused(request) => {
                Err(AttachError::Refused { socket: self.socket.clone(), step: format!("{request:?}") })
            }
            event => Ok(event),
        }
    }

    fn receive(&self, frontend: &mut Frontend<OwnedFd>, step: &str, deadline: Instant) -> Result<(), AttachError> {
        let mut buffer = [0; 4096];
        let room = frontend.wanted().min(buffer.len());
        let room = buffer.get_mut(..room).unwrap_or(&mut []);
        let mut fds = Vec::new();
        let received = self.stream.receive(room, &mut fds, deadline).map_err(|source| self.lost(source, step))?;
        if received == 0 {
            return Err(AttachError::Closed { socket: self.socket.clone(), step: step.to_owned() });
        }
        frontend.receive(buffer.get(..received).unwrap_or(&[]), fds);
        Ok(())
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
fn name(frame: &Frame<OwnedFd>) -> String {
    let id = frame.bytes.first_chunk().map_or(0, |id| u32::from_le_bytes(*id));
    FrontendReq::try_from(id).map_or_else(|_| format!("request {id}"), |request| format!("{request:?}"))
}
