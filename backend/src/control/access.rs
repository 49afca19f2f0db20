// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whom a request comes from, and what that caller may do.
//!
//! The connection says where it comes from, the request which token it shows and as which controller it acts. Everything is
//! decided before a body is read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use switch::model::Controller;

use super::api::Api;
use super::error::ApiError;
use crate::policy::{Caller, Forbidden, Peer};

/// As which of its controllers a caller acts.
pub(super) const CONTROLLER: &str = "shunt-controller";
/// What everybody may ask: which program this is, and how it is spoken to.
const PUBLIC: [&str; 2] = ["/version", "/openapi.json"];

/// The connection on which a request comes.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    pub(super) peer: Peer,
    /// Whether an answer is under way that ends with the connection only.
    pub(super) streams: Arc<AtomicBool>,
}

impl Connection {
    pub(super) fn new(peer: Peer) -> Self {
        Self { peer, streams: Arc::default() }
    }

    /// Says that the answer to this request has no end.
    pub(super) fn keep(&self) {
        self.streams.store(true, Ordering::Relaxed);
    }
}

/// Finds out whom a request comes from, and refuses what that caller may not even try.
pub(super) async fn identify(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    match caller(&api, &request) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(error) => ApiError::from(error).into_response(),
    }
}

fn caller(api: &Api, request: &Request) -> Result<Caller, Forbidden> {
    // A connection that says nothing of itself is nobody's.
    let peer = request.extensions().get::<Connection>().map_or(Peer::Remote, |connection| connection.peer);
    let caller = api.controllers.who(peer, token(request.headers()))?;
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if reads && PUBLIC.contains(&request.uri().path()) {
        return Ok(caller);
    }
    caller.may_read()?;
    if caller == Caller::Reader && !reads {
        return Err(Forbidden::ReadOnly);
    }
    Ok(caller)
}

fn token(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(7).unwrap_or((b"", b""));
    // Another scheme is a token that is nobody's.
    Some(if scheme.eq_ignore_ascii_case(b"bearer ") { token.trim_ascii() } else { b"" })
}

/// That a caller may change the node itself.
#[derive(Debug)]
pub(super) struct Manager;

impl FromRequestParts<Api> for Manager {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, ApiError> {
        known(parts)?.may_manage()?;
        Ok(Self)
    }
}

/// The controller as which a caller acts.
#[derive(Debug)]
pub(super) struct Acting(pub(super) Controller);

impl FromRequestParts<Api> for Acting {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let claimed = claimed(&parts.headers);
        Ok(Self(api.controllers.acting(known(parts)?, claimed.as_deref())?))
    }
}

/// A caller who may act as a controller that is named elsewhere.
#[derive(Debug)]
pub(super) struct Someone {
    pub(super) caller: Caller,
    /// The controller named in the header.
    pub(super) claimed: Option<String>,
}

impl FromRequestParts<Api> for Someone {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, ApiError> {
        Ok(Self { caller: known(parts)?.clone(), claimed: claimed(&parts.headers) })
    }
}

fn claimed(headers: &HeaderMap) -> Option<String> {
    // What is not text is the name of no controller.
    headers.get(CONTROLLER).map(|value| value.to_str().unwrap_or("?").trim().to_owned())
}

fn known(parts: &Parts) -> Result<&Caller, ApiError> {
    parts.extensions.get::<Caller>().ok_or_else(|| ApiError::from(Forbidden::ReadOnly))
}
