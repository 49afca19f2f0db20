// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Events for controllers, as a stream of server-sent events.
//!
//! ```text
//! event: miss
//! data: {"port":"vm0","resource":"directory","address":"10.0.0.9"}
//! ```

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use serde_json::json;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::access::{Connection, Someone};
use super::api::{Api, Query};
use super::error::{ApiError, ErrorBody};
use crate::policy::{Caller, Heard, MAX_SUBSCRIBERS, PolicyEvent, Subscription, What};

/// How long a stream may be silent, so that a client that is gone is noticed.
const PULSE: Duration = Duration::from_secs(15);

#[utoipa::path(get, path = "/events", tag = "events",
    summary = "Misses of maps and exhausted ranges, as they happen: event miss {port, resource, address}, nat-exhausted \
               {port, rule}, lagged {lost}",
    params(("controller" = Option<String>, Query,
        description = "Whose; the caller's where it is one controller. The owner of the node hears everything without it")),
    responses((status = 200, content_type = "text/event-stream"), (status = 403, body = ErrorBody),
        (status = 503, body = ErrorBody)))]
pub(super) async fn stream_events(
    State(api): State<Api>,
    someone: Someone,
    connection: Option<Extension<Connection>>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let query = Query::of(&uri, &["controller"])?;
    let claimed = query.text("controller").or(someone.claimed.as_deref());
    let controller = match (&someone.caller, claimed) {
        (Caller::Owner, None) => None,
        (caller, claimed) => Some(api.controllers.acting(caller, claimed)?.name),
    };
    let Some(subscription) = api.policy.events().subscribe(controller) else {
        let cause = format!("{MAX_SUBSCRIBERS} clients listen already, which is the most");
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, cause));
    };
    if let Some(Extension(connection)) = connection {
        connection.keep();
    }
    let mut pulse = interval(PULSE);
    pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Body::new(Stream { subscription, pulse })).into_response())
}

/// The body of an answer that has no end.
struct Stream {
    subscription: Subscription,
    /// Fires at once: the first thing that a client gets says that it is heard from now on.
    pulse: Interval,
}

impl hyper::body::Body for Stream {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let text = match self.subscription.poll(context) {
            Poll::Ready(Some(heard)) => text(&heard),
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => {
                ready!(self.pulse.poll_tick(context));
                ":\n\n".to_owned()
            }
        };
        Poll::Ready(Some(Ok(Frame::data(text.into()))))
    }
}

fn text(heard: &Heard) -> String {
    let (event, data) = match heard {
        Heard::Lagged(lost) => ("lagged", json!({ "lost": lost })),
        Heard::Event(PolicyEvent { port, what: What::Miss { resource, address }, .. }) => {
            ("miss", json!({ "port": port, "resource": resource, "address": address }))
        }
        Heard::Event(PolicyEvent { port, what: What::NatExhausted { rule }, .. }) => {
            ("nat-exhausted", json!({ "port": port, "rule": rule }))
        }
    };
    format!("event: {event}\ndata: {data}\n\n")
}
