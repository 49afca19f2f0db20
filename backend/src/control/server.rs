// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The API's thread, its connections and their bounds.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::Controlled;
use super::routes::{Access, router};
use crate::config::ControlConfig;
use crate::sys::{SocketError, SocketListener, SocketMode};

/// Connections served at once on each address; further ones wait in the backlog.
const MAX_CONNECTIONS: u32 = 32;
/// How long a connection may take to send a request's header, and may idle between requests.
const HEADER_LIMIT: Duration = Duration::from_secs(5);
/// How long a connection may last, and how long its last request may take then.
const CONNECTION_LIMIT: Duration = Duration::from_secs(300);
const CLOSE_LIMIT: Duration = Duration::from_secs(15);
/// Longest request header in bytes.
const MAX_HEADER: usize = 16 << 10;
/// Threads that call the node.
const CALLERS: usize = 4;
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
}

impl ControlListener {
    /// Listens on the control socket and, if configured, the TCP address.
    ///
    /// # Errors
    /// If either cannot be listened on.
    pub fn bind(config: &ControlConfig) -> Result<Self, ServerError> {
        let socket = SocketListener::listen(&config.socket, SocketMode::Owner)?;
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
        Ok(Self { socket, unix, tcp, runtime })
    }

    /// Serves `target` on a thread of its own.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn serve(self, target: Arc<dyn Controlled>) -> Result<ControlServer, ServerError> {
        let Self { socket, unix, tcp, runtime } = self;
        let http = tcp.as_ref().map(|(_, address)| *address);
        let mut served = vec![(Listener::Unix(unix), router(Arc::clone(&target), Access::Full))];
        served.extend(tcp.map(|(tcp, _)| (Listener::Tcp(tcp), router(target, Access::ReadOnly))));
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
    pub fn start(config: &ControlConfig, target: Arc<dyn Controlled>) -> Result<Self, ServerError> {
        ControlListener::bind(config)?.serve(target)
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
fn run(runtime: Runtime, served: Vec<(Listener, Router)>, stop: &watch::Receiver<bool>) {
    runtime.block_on(async {
        let servers: Vec<_> =
            served.into_iter().map(|(listener, router)| tokio::spawn(serve(listener, router, stop.clone()))).collect();
        for server in servers {
            if server.await.is_err() {
                log::error!("control: a server failed");
            }
        }
    });
    runtime.shutdown_timeout(STOP_LIMIT);
}

/// Accepts on one address until told to stop.
async fn serve(listener: Listener, router: Router, mut stop: watch::Receiver<bool>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS as usize));
    loop {
        let next = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            (slot, listener.accept().await)
        };
        match tokio::select! { next = next => next, _ = stop.wait_for(|stop| *stop) => break } {
            (Ok(slot), Ok(stream)) => {
                tokio::spawn(connection(stream, router.clone(), stop.clone(), slot));
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
    router: Router,
    mut stop: watch::Receiver<bool>,
    _slot: OwnedSemaphorePermit,
) {
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
        () = tokio::time::sleep(CONNECTION_LIMIT) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(CLOSE_LIMIT, connection).await;
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
    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Tcp(listener) => Box::new(listener.accept().await?.0),
            Self::Unix(listener) => Box::new(listener.accept().await?.0),
        })
    }
}
