// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What passes a port, as pcapng, and what is dropped, as lines of JSON: answers that end when the client goes, or when it has what it asked for.

use std::fmt::Write;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use packet::filter::Filter;
use serde_json::json;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::ControlError;
use super::access::{Connection, Manager};
use super::api::{ANSWER_LIMIT, Api, Query, blocking};
use super::error::{ApiError, ErrorBody};
use crate::config::Name;
use crate::inspect::{
    Capture, CaptureRequest, DEFAULT_SNAPLEN, DropTrace, Dropped, FIRST_BYTES, MAX_RATE, MAX_SNAPLEN,
};

/// How often is looked for something new, while there is nothing.
const LOOK: Duration = Duration::from_millis(5);
/// How often losses are told, if there are new ones, and how long a stream may be silent, so that a client that is gone is noticed.
const TELL: Duration = Duration::from_secs(1);
const PULSE: Duration = Duration::from_secs(15);
/// Bytes that are written at once.
const CHUNK: usize = 64 << 10;
/// Drops that one trace tells of in a second, if nothing else is said.
const DEFAULT_RATE: u32 = 100;

#[utoipa::path(get, path = "/ports/{name}/capture", tag = "inspect",
    summary = "What passes a port's queues, as pcapng, while the client listens. The owner of the node may",
    params(("name" = String, Path, description = "The name of the port"),
        ("queue" = Option<u16>, Query, description = "The one queue pair; all where it is not given"),
        ("direction" = Option<String>, Query, description = "in: what the node receives, before policy; out: what it delivers, \
            after policy; both where it is not given"),
        ("filter" = Option<String>, Query, description = "Which packets, in a subset of pcap-filter(7)"),
        ("snaplen" = Option<u32>, Query, description = "Bytes of each packet that are kept; 256 where it is not given, 0: all"),
        ("count" = Option<u64>, Query, description = "Ends after so many packets"),
        ("seconds" = Option<u64>, Query, description = "Ends after so long")),
    responses((status = 200, content_type = "application/x-pcapng"), (status = 400, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(super) async fn stream_capture(
    State(api): State<Api>,
    Path(name): Path<String>,
    _: Manager,
    connection: Option<Extension<Connection>>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let query = Query::of(&uri, &["queue", "direction", "filter", "snaplen", "count", "seconds"])?;
    let (inward, outward) = match query.text("direction") {
        None | Some("both") => (true, true),
        Some("in") => (true, false),
        Some("out") => (false, true),
        Some(other) => return Err(bad(format!("parameter direction: {other:?} is not in, out or both"))),
    };
    let text = query.decoded("filter")?.unwrap_or_default();
    let filter: Option<Filter> = match text.trim() {
        "" => None,
        text => Some(text.parse().map_err(|error| bad(format!("filter: {error}")))?),
    };
    let snaplen = match query.parsed("snaplen", "a number of bytes")?.unwrap_or(DEFAULT_SNAPLEN) {
        0 => MAX_SNAPLEN,
        snaplen => snaplen.min(MAX_SNAPLEN),
    };
    let pair = query.parsed("queue", "the number of a queue pair")?;
    let left = query.parsed("count", "a number of packets")?.unwrap_or(u64::MAX);
    let seconds: Option<u64> = query.parsed("seconds", "a number of seconds")?;
    let about = format!("port {name}");
    let port = Name::new(name.as_str()).map_err(|_| ControlError::UnknownPort { name })?;
    let request = CaptureRequest { pair, inward, outward, filter, snaplen };
    let node = api.node;
    let capture = blocking(ANSWER_LIMIT, move || node.capture(&port, &request, text)).await?;
    let capture = capture.map_err(|error| ApiError::from(error).about(about))?;
    if let Some(Extension(connection)) = connection {
        connection.keep();
    }
    let until_ns = seconds.map(|seconds| capture.now_ns().saturating_add(seconds.saturating_mul(1_000_000_000)));
    let headers = [(header::CONTENT_TYPE, "application/x-pcapng"), (header::CACHE_CONTROL, "no-store")];
    let told = Instant::now();
    let stream = Captured { capture: Some(capture), begun: false, left, until_ns, told, heard: told };
    Ok((headers, Body::new(Telling::new(stream))).into_response())
}

#[utoipa::path(get, path = "/drops", tag = "inspect",
    summary = "Drops as they happen, a line of JSON each: {time_ns, port, cause, packets, length, bytes}; {missed} says how many there \
               were besides. The owner of the node may",
    params(("port" = Option<String>, Query, description = "The one port; all where it is not given"),
        ("rate" = Option<u32>, Query, description = "Drops that are told of in a second at most; 100 where it is not given"),
        ("count" = Option<u64>, Query, description = "Ends after so many")),
    responses((status = 200, content_type = "application/x-ndjson"), (status = 400, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(super) async fn stream_drops(
    State(api): State<Api>,
    _: Manager,
    connection: Option<Extension<Connection>>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let query = Query::of(&uri, &["port", "rate", "count"])?;
    let rate = query.parsed("rate", "a number of drops per second")?.unwrap_or(DEFAULT_RATE);
    if !(1..=MAX_RATE).contains(&rate) {
        return Err(bad(format!("parameter rate: {rate} is outside 1..={MAX_RATE}")));
    }
    let left = query.parsed("count", "a number of drops")?.unwrap_or(u64::MAX);
    let trace = api.node.trace_drops(query.text("port"), rate)?;
    if let Some(Extension(connection)) = connection {
        connection.keep();
    }
    let headers = [(header::CONTENT_TYPE, "application/x-ndjson"), (header::CACHE_CONTROL, "no-store")];
    let stream = Traced { trace, begun: false, left, told: Instant::now() };
    Ok((headers, Body::new(Telling::new(stream))).into_response())
}

fn bad(cause: String) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, cause)
}

/// The body of an answer that goes on, looked for now and then.
struct Telling<T> {
    what: T,
    look: Interval,
}

impl<T> Telling<T> {
    fn new(what: T) -> Self {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { what, look }
    }
}

/// What is told in it.
trait Told {
    /// Whether all was said.
    fn is_over(&self) -> bool;

    /// What there is to be written; nothing: not now.
    fn next(&mut self) -> Option<Vec<u8>>;
}

/// A capture.
struct Captured {
    /// `None`: all was said.
    capture: Option<Capture>,
    begun: bool,
    /// Packets that may still come.
    left: u64,
    until_ns: Option<u64>,
    /// When losses were looked at, and when something was said at all.
    told: Instant,
    heard: Instant,
}

impl Told for Captured {
    fn is_over(&self) -> bool {
        self.capture.is_none()
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        let capture = self.capture.as_mut()?;
        let mut out = Vec::new();
        if !std::mem::replace(&mut self.begun, true) {
            // The first thing that a client gets says that packets are captured from now on.
            capture.begin(&mut out);
            return Some(out);
        }
        let is_late = self.until_ns.is_some_and(|until| capture.now_ns() > until);
        let taken = capture.take(&mut out, (self.left, CHUNK), self.until_ns, is_late);
        self.left -= taken.packets;
        if self.left == 0 || taken.ended || is_late && taken.packets == 0 {
            capture.tell(&mut out, true);
            self.capture = None;
        } else if self.told.elapsed() >= TELL {
            self.told = Instant::now();
            capture.tell(&mut out, self.heard.elapsed() >= PULSE);
        }
        if out.is_empty() {
            return None;
        }
        self.heard = Instant::now();
        Some(out)
    }
}

/// A trace.
struct Traced {
    trace: DropTrace,
    begun: bool,
    left: u64,
    told: Instant,
}

impl Told for Traced {
    fn is_over(&self) -> bool {
        self.left == 0
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        let mut out = String::new();
        if !std::mem::replace(&mut self.begun, true) {
            // As of a capture. Readers of lines of JSON take no notice of an empty one.
            return Some(b"\n".to_vec());
        }
        self.trace.fill_up(Instant::now());
        while self.left > 0
            && out.len() < CHUNK
            && let Some(dropped) = self.trace.take()
        {
            self.left -= 1;
            line(&mut out, &self.trace, &dropped);
        }
        if self.left == 0 || self.told.elapsed() >= TELL {
            let missed = self.trace.missed();
            if missed > 0 {
                let _ = writeln!(out, "{}", json!({ "missed": missed }));
            } else if out.is_empty() && self.told.elapsed() >= PULSE {
                out.push('\n');
            }
            if !out.is_empty() {
                self.told = Instant::now();
            }
        }
        (!out.is_empty()).then(|| out.into_bytes())
    }
}

fn line(out: &mut String, trace: &DropTrace, dropped: &Dropped) {
    let bytes = dropped.bytes().iter().fold(String::with_capacity(2 * FIRST_BYTES), |mut hex, byte| {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    let port = trace.name_of(dropped.port).map_or_else(|| format!("{}", dropped.port.0), |name| name.to_string());
    let object = json!({
        "time_ns": dropped.at_ns,
        "port": port,
        "cause": dropped.cause.label(),
        "packets": dropped.packets,
        "length": dropped.length,
        "bytes": bytes,
    });
    let _ = writeln!(out, "{object}");
}

impl<T: Told + Unpin> hyper::body::Body for Telling<T> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        loop {
            if self.what.is_over() {
                return Poll::Ready(None);
            }
            if let Some(bytes) = self.what.next() {
                return Poll::Ready(Some(Ok(Frame::data(bytes.into()))));
            }
            ready!(self.look.poll_tick(context));
        }
    }
}
