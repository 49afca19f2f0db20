// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One request at a time to a node's control socket.

use std::fs::File;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use backend::config::{BadSocketPath, DEFAULT_SOCKET, Name, SocketPath};
use backend::control::ErrorBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use signal_hook::consts::{SIGINT, SIGTERM};
use thiserror::Error;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

/// How long a request may take: longer than the node gives itself.
const LIMIT: Duration = Duration::from_secs(20);
/// The same of policy: it may be large, and is compiled before the answer.
const POLICY_LIMIT: Duration = Duration::from_secs(100);
/// Longest answer that is read, in bytes.
const MAX_ANSWER: usize = 256 << 20;
/// Longest token file.
const MAX_TOKEN: u64 = 8192;

/// Where the node is spoken to.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Control {
    /// Control socket of the node
    #[arg(long, env = "SHUNT_CONTROL", default_value = DEFAULT_SOCKET, value_name = "PATH")]
    control: PathBuf,
}

impl Control {
    /// A node whose control socket is known.
    pub(crate) fn at(socket: PathBuf) -> Self {
        Self { control: socket }
    }
}

/// As whom the node is asked.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Identity {
    /// Controller to act as; for who is several of them, or owns the node
    #[arg(long, value_name = "NAME")]
    controller: Option<Name>,
    /// File with the bearer token of the controller
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// Why a request was not done. Each message is one line that names the socket or the port.
#[derive(Debug, Error)]
pub(crate) enum ClientError {
    #[error("control socket: {0}")]
    BadSocket(#[from] BadSocketPath),
    #[error("no node answers on {}: it does not exist; is \"shunt run\" running?", socket.display())]
    NoSocket { socket: PathBuf },
    #[error("no node answers on {}: nobody listens on it; is \"shunt run\" running?", socket.display())]
    NobodyThere { socket: PathBuf },
    #[error("no permission to connect to {}: it belongs to the user that runs the node", socket.display())]
    Permission { socket: PathBuf },
    #[error("cannot connect to {}: {source}", socket.display())]
    Connect { socket: PathBuf, source: io::Error },
    #[error("the node on {} closed the connection", socket.display())]
    Broken { socket: PathBuf },
    #[error("the node on {} did not answer within {seconds} s", socket.display())]
    Late { socket: PathBuf, seconds: u64 },
    #[error("token file {}: {cause}", file.display())]
    Token { file: PathBuf, cause: Box<dyn std::error::Error + Send + Sync> },
    #[error("what answers on {} is not a Shunt node: {cause}", socket.display())]
    NotANode { socket: PathBuf, cause: Box<dyn std::error::Error + Send + Sync> },
    /// The node's own words, which name the port.
    #[error("{0}")]
    Refused(String),
    #[error("cannot ask the node: {0}")]
    Runtime(io::Error),
}

/// Speaks to one node.
#[derive(Debug)]
pub(crate) struct Client {
    socket: SocketPath,
    runtime: Runtime,
    limit: Duration,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Client {
    /// A client of the node behind a socket. Nothing is connected yet.
    pub(crate) fn new(control: &Control) -> Result<Self, ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
        let (socket, runtime) = (SocketPath::new(&control.control)?, runtime.map_err(ClientError::Runtime)?);
        Ok(Self { socket, runtime, limit: LIMIT, headers: Vec::new() })
    }

    /// A client that reads and writes policy.
    pub(crate) fn of_policy(control: &Control, identity: &Identity) -> Result<Self, ClientError> {
        let mut client = Self { limit: POLICY_LIMIT, ..Self::new(control)? };
        if let Some(controller) = &identity.controller {
            // A name is text.
            let value = HeaderValue::from_str(controller).map_err(|cause| client.not_a_node(cause))?;
            client.headers.push((HeaderName::from_static("shunt-controller"), value));
        }
        if let Some(file) = &identity.token_file {
            let unusable =
                |cause: Box<dyn std::error::Error + Send + Sync>| ClientError::Token { file: file.clone(), cause };
            let mut text = String::new();
            let read = File::open(file).and_then(|file| file.take(MAX_TOKEN).read_to_string(&mut text));
            read.map_err(|error| unusable(error.into()))?;
            let value = HeaderValue::from_str(&format!("Bearer {}", text.trim()));
            client.headers.push((header::AUTHORIZATION, value.map_err(|error| unusable(error.into()))?));
        }
        Ok(client)
    }

    /// `GET`, as text.
    pub(crate) fn text(&self, path: &str) -> Result<String, ClientError> {
        let body = self.ask(Method::GET, path, Vec::new())?;
        String::from_utf8(body.into()).map_err(|cause| self.not_a_node(cause))
    }

    /// `GET`, as what its JSON means.
    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.read(&self.ask(Method::GET, path, Vec::new())?)
    }

    /// `POST` of a value as JSON.
    pub(crate) fn post<T: DeserializeOwned>(&self, path: &str, value: &impl Serialize) -> Result<T, ClientError> {
        let body = serde_json::to_vec(value).map_err(|error| ClientError::Runtime(error.into()))?;
        self.read(&self.ask(Method::POST, path, body)?)
    }

    /// `POST` of JSON; the answer as text.
    pub(crate) fn post_text(&self, path: &str, body: Vec<u8>) -> Result<String, ClientError> {
        let body = self.ask(Method::POST, path, body)?;
        String::from_utf8(body.into()).map_err(|cause| self.not_a_node(cause))
    }

    /// What an answer of JSON means.
    pub(crate) fn meaning<T: DeserializeOwned>(&self, text: &str) -> Result<T, ClientError> {
        self.read(text.as_bytes())
    }

    /// `DELETE`.
    pub(crate) fn delete(&self, path: &str) -> Result<(), ClientError> {
        self.ask(Method::DELETE, path, Vec::new()).map(|_| ())
    }

    fn ask(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Bytes, ClientError> {
        let (status, body) = self.runtime.block_on(async {
            let late = || ClientError::Late { socket: self.socket.to_path_buf(), seconds: self.limit.as_secs() };
            tokio::time::timeout(self.limit, self.exchange(method, path, body)).await.unwrap_or_else(|_| Err(late()))
        })?;
        if status.is_success() {
            return Ok(body);
        }
        Err(ClientError::Refused(self.read::<ErrorBody>(&body)?.error))
    }

    /// `GET` of an answer that may have no end: hands each piece of it to `take`, until there are no more, `take` wants no more, or SIGINT or SIGTERM
    /// comes.
    ///
    /// # Errors
    /// Also those of `take`.
    pub(crate) fn stream(
        &self,
        path: &str,
        mut take: impl FnMut(&[u8]) -> anyhow::Result<ControlFlow<()>>,
    ) -> anyhow::Result<()> {
        self.runtime.block_on(async {
            let signal = signals().map_err(ClientError::Runtime)?;
            let late = || ClientError::Late { socket: self.socket.to_path_buf(), seconds: self.limit.as_secs() };
            let begun = tokio::time::timeout(self.limit, self.begin(Method::GET, path, Vec::new()));
            let (response, connection) = begun.await.map_err(|_| late())??;
            let status = response.status();
            let mut body = response.into_body();
            if !status.is_success() {
                let refused = Limited::new(body, MAX_ANSWER).collect().await.map_err(|cause| self.not_a_node(cause))?;
                return Err(ClientError::Refused(self.read::<ErrorBody>(&refused.to_bytes())?.error).into());
            }
            loop {
                let frame = tokio::select! {
                    frame = body.frame() => frame,
                    _ = signal.readable() => break,
                };
                let Some(frame) = frame else { break };
                let frame = frame.map_err(|_| ClientError::Broken { socket: self.socket.to_path_buf() })?;
                if let Some(bytes) = frame.data_ref()
                    && take(bytes)?.is_break()
                {
                    break;
                }
            }
            connection.abort();
            Ok(())
        })
    }

    async fn exchange(&self, method: Method, path: &str, body: Vec<u8>) -> Result<(StatusCode, Bytes), ClientError> {
        let (response, connection) = self.begin(method, path, body).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        connection.abort();
        Ok((status, body.map_err(|cause| self.not_a_node(cause))?.to_bytes()))
    }

    /// Sends a request. Returns the head of its answer, and what keeps its body coming.
    async fn begin(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<(Response<Incoming>, JoinHandle<hyper::Result<()>>), ClientError> {
        let stream = UnixStream::connect(&*self.socket).await.map_err(|error| unreachable(&self.socket, error))?;
        let request = Request::builder().method(method).uri(path).header(header::HOST, "shunt");
        let request = self.headers.iter().fold(request, |request, (name, value)| request.header(name, value));
        let request = request.body(Full::new(Bytes::from(body))).map_err(|cause| self.not_a_node(cause))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|cause| self.not_a_node(cause))?;
        // It ends with the request, and says nothing that the request does not say too.
        let connection = tokio::spawn(connection);
        match sender.send_request(request).await {
            Ok(response) => Ok((response, connection)),
            Err(cause) => {
                connection.abort();
                Err(self.not_a_node(cause))
            }
        }
    }

    fn read<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(body).map_err(|cause| self.not_a_node(cause))
    }

    fn not_a_node(&self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ClientError {
        ClientError::NotANode { socket: self.socket.to_path_buf(), cause: cause.into() }
    }
}

/// Is readable once SIGINT or SIGTERM came.
fn signals() -> io::Result<UnixStream> {
    let (reader, writer) = std::os::unix::net::UnixStream::pair()?;
    for signal in [SIGINT, SIGTERM] {
        signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?;
    }
    reader.set_nonblocking(true)?;
    UnixStream::from_std(reader)
}

fn unreachable(socket: &Path, source: io::Error) -> ClientError {
    let socket = socket.to_path_buf();
    match source.kind() {
        io::ErrorKind::NotFound => ClientError::NoSocket { socket },
        io::ErrorKind::ConnectionRefused => ClientError::NobodyThere { socket },
        io::ErrorKind::PermissionDenied => ClientError::Permission { socket },
        _ => ClientError::Connect { socket, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_to_reach_nobody_names_the_socket() {
        let message = |kind| unreachable(Path::new("/run/c.sock"), io::Error::from(kind)).to_string();
        assert_eq!(
            message(io::ErrorKind::NotFound),
            "no node answers on /run/c.sock: it does not exist; is \"shunt run\" running?"
        );
        assert_eq!(
            message(io::ErrorKind::ConnectionRefused),
            "no node answers on /run/c.sock: nobody listens on it; is \"shunt run\" running?"
        );
        assert_eq!(
            message(io::ErrorKind::PermissionDenied),
            "no permission to connect to /run/c.sock: it belongs to the user that runs the node"
        );
        assert_eq!(message(io::ErrorKind::OutOfMemory), "cannot connect to /run/c.sock: out of memory");
    }

    #[test]
    fn a_socket_path_that_cannot_be_is_named_with_the_limit() {
        let control = Control { control: "/".repeat(200).into() };
        let message = Client::new(&control).expect_err("too long").to_string();
        assert!(message.ends_with(" has 200 bytes; the longest that the system takes has 107"), "{message}");
    }
}
