// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The API's thread, its connections and their bounds.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::Controlled;
use super::access::Connection;
use super::api::Api;
use super::routes::router;
use crate::config::{ControlConfig, ControllerConfig};
use crate::policy::{Caller, Controllers, Peer, PolicyStore, TokenError};
use crate::sys::{SocketError, SocketListener, SocketMode};

/// Connections served at once on each address; further ones wait in the backlog.
const MAX_CONNECTIONS: u32 = 32;
/// Connections of users who are neither the node's owner nor a controller.
const MAX_STRANGERS: usize = 4;
/// How long a connection may take to send a request's header, and may idle between requests.
const HEADER_LIMIT: Duration = Duration::from_secs(5);
/// How long a connection may last, and how long its last request may take then.
const CONNECTION_LIMIT: Duration = Duration::from_secs(300);
const CLOSE_LIMIT: Duration = Duration::from_secs(15);
/// Longest request header in bytes.
const MAX_HEADER: usize = 16 << 10;
/// Threads that call the node.
const CALLERS: usize = 8;
/// How long requests under way may take to end when the server stops.
const STOP_LIMIT: Duration = Duration::from_secs(1);
/// Pause after the system refused a connection, for want of file descriptors as a rule.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the API cannot be served.
#[derive(Debug, Error)]
pub enum ServerError {
    /// The TCP address cannot be had.
    #[error("cannot serve http on {address}: {source}")]
    Http {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The control socket cannot be had.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// A controller could not be recognised.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The thread cannot be started.
    #[error("cannot start the control thread: {0}")]
    Thread(io::Error),
}

/// The API's addresses, listened on but not yet served: clients that connect wait.
///
/// Binding before the node starts makes a second node with the same configuration fail before it touches anything.
#[derive(Debug)]
pub struct ControlListener {
    socket: SocketListener,
    unix: UnixListener,
    tcp: Option<(TcpListener, SocketAddr)>,
    runtime: Runtime,
    controllers: Controllers,
}

impl ControlListener {
    /// Listens on the control socket and, if configured, the TCP address.
    ///
    /// # Errors
    /// If either cannot be listened on, or a controller's token cannot be used.
    pub fn bind(config: &ControlConfig, controllers: &[ControllerConfig]) -> Result<Self, ServerError> {
        let controllers = Controllers::load(controllers)?;
        // The file's mode lets in nobody who has no business here. Where it must let in controllers it cannot tell them from
        // others, so each request is judged by its caller.
        let mode = if controllers.has_other_users() { SocketMode::Everyone } else { SocketMode::Owner };
        let socket = SocketListener::listen(&config.socket, mode)?;
        let runtime = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(CALLERS)
            .thread_name("control-call")
            .build()
            .map_err(ServerError::Thread)?;
        let (unix, tcp) = {
            let _context = runtime.enter();
            let unix = socket.listener().and_then(UnixListener::from_std).map_err(ServerError::Thread)?;
            (unix, config.http.map(listen_tcp).transpose()?)
        };
        Ok(Self { socket, unix, tcp, runtime, controllers })
    }

    /// Serves a node and the policy of its ports on a thread of its own.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn serve(self, target: Arc<dyn Controlled>, policy: Arc<PolicyStore>) -> Result<ControlServer, ServerError> {
        let Self { socket, unix, tcp, runtime, controllers } = self;
        let http = tcp.as_ref().map(|(_, address)| *address);
        let api = Api::new(target, policy, Arc::new(controllers));
        let mut served = vec![(Listener::Unix(unix), api.clone())];
        served.extend(tcp.map(|(tcp, _)| (Listener::Tcp(tcp), api)));
        let (stop, stopped) = watch::channel(false);
        let thread = thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || run(runtime, served, &stopped))
            .map_err(ServerError::Thread)?;
        Ok(ControlServer { http, stop, thread: Some(thread), _socket: socket })
    }
}

/// The API, served until this is dropped.
#[derive(Debug)]
pub struct ControlServer {
    http: Option<SocketAddr>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
    // Last, so that the file goes when nobody serves it any more.
    _socket: SocketListener,
}

impl ControlServer {
    /// [`ControlListener::bind`] and [`ControlListener::serve`] in one.
    ///
    /// # Errors
    /// As those.
    pub fn start(
        config: &ControlConfig,
        controllers: &[ControllerConfig],
        target: Arc<dyn Controlled>,
        policy: Arc<PolicyStore>,
    ) -> Result<Self, ServerError> {
        ControlListener::bind(config, controllers)?.serve(target, policy)
    }

    /// The TCP address served, with the port that the system chose where the configuration says 0.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http
    }

    /// Lets requests under way end, for a second at most, and stops. Dropping does the same.
    pub fn stop(self) {}
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("control: the thread failed");
        }
    }
}

fn listen_tcp(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ServerError> {
    let listen = || {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let bound = listener.local_addr()?;
        Ok((TcpListener::from_std(listener)?, bound))
    };
    listen().map_err(|source| ServerError::Http { address, source })
}

/// The thread.
fn run(runtime: Runtime, served: Vec<(Listener, Api)>, stop: &watch::Receiver<bool>) {
    runtime.block_on(async {
        let servers: Vec<_> =
            served.into_iter().map(|(listener, api)| tokio::spawn(serve(listener, api, stop.clone()))).collect();
        for server in servers {
            if server.await.is_err() {
                log::error!("control: a server failed");
            }
        }
    });
    runtime.shutdown_timeout(STOP_LIMIT);
}

/// Accepts on one address until told to stop.
async fn serve(listener: Listener, api: Api, mut stop: watch::Receiver<bool>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS as usize));
    let strangers = Arc::new(Semaphore::new(MAX_STRANGERS));
    let router = router(api.clone());
    loop {
        let next = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            (slot, listener.accept().await)
        };
        match tokio::select! { next = next => next, _ = stop.wait_for(|stop| *stop) => break } {
            (Ok(slot), Ok((stream, peer))) => {
                let stranger = matches!(api.controllers.who(peer, None), Ok(Caller::Stranger { .. }));
                let place = stranger.then(|| Arc::clone(&strangers).try_acquire_owned()).transpose();
                // Users who have no business here cannot take the places of those who have.
                let Ok(place) = place else { continue };
                tokio::spawn(connection(stream, peer, router.clone(), stop.clone(), (slot, place)));
            }
            (_, Err(error)) => {
                log::warn!("control: a connection was not accepted: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            // The semaphore is never closed.
            (Err(_), Ok(_)) => break,
        }
    }
    // All slots free: all connections ended.
    let _ = tokio::time::timeout(STOP_LIMIT, slots.acquire_many(MAX_CONNECTIONS)).await;
}

/// Serves one connection until it ends, or until its time is up.
async fn connection(
    stream: Box<dyn Stream>,
    peer: Peer,
    router: Router,
    mut stop: watch::Receiver<bool>,
    _places: (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>),
) {
    let info = Connection::new(peer);
    let router = router.layer(Extension(info.clone()));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_LIMIT)
        .max_buf_size(MAX_HEADER)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => {
            if let Err(error) = ended {
                log::debug!("control: a connection broke: {error}");
            }
            return;
        }
        _ = stop.wait_for(|stop| *stop) => {}
        () = time_is_up(&info) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(CLOSE_LIMIT, connection).await;
}

/// Ends when a connection has lasted long enough. One that hears events may last.
async fn time_is_up(connection: &Connection) {
    tokio::time::sleep(CONNECTION_LIMIT).await;
    while connection.streams.load(Ordering::Relaxed) {
        tokio::time::sleep(CONNECTION_LIMIT).await;
    }
}

/// Where connections come from.
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// What they are.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Listener {
    async fn accept(&self) -> io::Result<(Box<dyn Stream>, Peer)> {
        Ok(match self {
            Self::Tcp(listener) => (Box::new(listener.accept().await?.0), Peer::Remote),
            Self::Unix(listener) => {
                let stream = listener.accept().await?.0;
                let uid = stream.peer_cred()?.uid();
                (Box::new(stream), Peer::Local { uid })
            }
        })
    }
}
