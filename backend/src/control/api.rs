// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What all routes share.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRef, FromRequest, Request};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use switch::Name;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::Controlled;
use super::error::{ApiError, ControlError};
use crate::policy::{Controllers, PolicyStore};

/// How long the node may take to answer one call.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// How long a change of policy may take, or an answer with all of it.
pub(super) const POLICY_LIMIT: Duration = Duration::from_secs(60);
/// Calls about policy that run at once: fewer than there are threads for calls, so that others need not wait.
const POLICY_CALLS: usize = 4;
/// Policy bodies that are held at once: each may have [`MAX_POLICY`](super::routes::MAX_POLICY) bytes.
const LARGE_BODIES: usize = 4;

/// What the routes about ports speak to.
pub(super) type Target = Arc<dyn Controlled>;

/// What all routes speak to.
#[derive(Clone)]
pub(super) struct Api {
    pub(super) node: Target,
    pub(super) policy: Arc<PolicyStore>,
    pub(super) controllers: Arc<Controllers>,
    large: Arc<Semaphore>,
    calls: Arc<Semaphore>,
}

impl Api {
    pub(super) fn new(node: Target, policy: Arc<PolicyStore>, controllers: Arc<Controllers>) -> Self {
        let large = Arc::new(Semaphore::new(LARGE_BODIES));
        Self { node, policy, controllers, large, calls: Arc::new(Semaphore::new(POLICY_CALLS)) }
    }

    /// Works on policy, on a thread that may block.
    pub(super) async fn policy<T: Send + 'static>(
        &self,
        call: impl FnOnce(&PolicyStore) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let policy = Arc::clone(&self.policy);
        // The semaphore is never closed.
        let permit = Arc::clone(&self.calls).acquire_owned().await.map_err(|_| ControlError::Gone)?;
        let call = move || {
            // Held until the call ends, even if nobody waits for it any more.
            let _permit = permit;
            call(&policy)
        };
        blocking(POLICY_LIMIT, call).await?
    }

    async fn large_body(&self) -> Result<SemaphorePermit<'_>, ApiError> {
        // The semaphore is never closed.
        self.large.acquire().await.map_err(|_| ControlError::Gone.into())
    }
}

impl FromRef<Api> for Target {
    fn from_ref(api: &Api) -> Self {
        Self::clone(&api.node)
    }
}

/// Runs a call on a thread that may block, and gives up on it after a time.
pub(super) async fn blocking<T: Send + 'static>(
    limit: Duration,
    call: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    match tokio::time::timeout(limit, tokio::task::spawn_blocking(call)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) => Err(broken("the node failed while it answered; its log says more")),
        Err(_) => Err(ControlError::Unanswered { seconds: limit.as_secs() }.into()),
    }
}

pub(super) fn broken(cause: &str) -> ApiError {
    log::error!("control: {cause}");
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, cause)
}

/// The body of a request about policy. Few are read at once.
#[derive(Debug)]
pub(super) struct Policy(pub(super) Bytes);

impl FromRequest<Api> for Policy {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Api) -> Result<Self, ApiError> {
        let _permit = api.large_body().await?;
        let body = Bytes::from_request(request, api).await;
        body.map(Self).map_err(|rejection: BytesRejection| ApiError::new(rejection.status(), rejection.body_text()))
    }
}

/// A value as a JSON answer. To be called where it may take long.
pub(super) fn json(value: &impl Serialize) -> Result<Response, ApiError> {
    let text = serde_json::to_vec(value).map_err(|_| broken("the answer cannot be written as JSON"))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}

/// The same with a version as its entity tag.
pub(super) fn tagged(value: &impl Serialize, version: u64) -> Result<Response, ApiError> {
    let answer = json(value)?;
    Ok(([(header::ETAG, format!("\"{version}\""))], answer).into_response())
}

/// A part of the path that is a name.
pub(super) fn name(what: &'static str, text: &str) -> Result<Name, ApiError> {
    Name::new(text).map_err(|bad| ApiError::new(StatusCode::BAD_REQUEST, format!("{what} name: {bad}")))
}

/// A part of the path that is an IP address.
pub(super) fn address(text: &str) -> Result<core::net::IpAddr, ApiError> {
    text.parse().map_err(|_| ApiError::new(StatusCode::BAD_REQUEST, format!("{text:?} is not an IP address")))
}

/// The parameters behind the question mark, all of which must be known.
#[derive(Debug)]
pub(super) struct Query(BTreeMap<String, String>);

impl Query {
    pub(super) fn of(uri: &Uri, known: &[&str]) -> Result<Self, ApiError> {
        let mut parameters = BTreeMap::new();
        for pair in uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            if !known.contains(&key) {
                let known = known.join(", ");
                let cause = format!("unknown parameter {key:?}; known parameters: {known}");
                return Err(ApiError::new(StatusCode::BAD_REQUEST, cause));
            }
            if parameters.insert(key.to_owned(), value.to_owned()).is_some() {
                let cause = format!("parameter {key:?} is there twice");
                return Err(ApiError::new(StatusCode::BAD_REQUEST, cause));
            }
        }
        Ok(Self(parameters))
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// A parameter of which bytes may be written as `%` and two hexadecimal digits.
    pub(super) fn decoded(&self, key: &str) -> Result<Option<String>, ApiError> {
        let Some(text) = self.text(key) else { return Ok(None) };
        let decoded = decode(text).ok_or_else(|| {
            let cause = format!("parameter {key}: {text:?} is not text in the encoding of URLs");
            ApiError::new(StatusCode::BAD_REQUEST, cause)
        });
        decoded.map(Some)
    }

    pub(super) fn parsed<T: FromStr>(&self, key: &str, wanted: &str) -> Result<Option<T>, ApiError> {
        let Some(text) = self.text(key) else { return Ok(None) };
        let bad = |_| ApiError::new(StatusCode::BAD_REQUEST, format!("parameter {key}: {text:?} is not {wanted}"));
        text.parse().map(Some).map_err(bad)
    }
}

/// `None`: an escape is not one, or the bytes are no text.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        bytes.push(if byte == b'%' { digit(rest.next())? << 4 | digit(rest.next())? } else { byte });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn escapes_are_two_hexadecimal_digits() {
        assert_eq!(decode("not%20tcp%26%26%c3%a9+x").as_deref(), Some("not tcp&&é+x"));
        for bad in ["%", "%2", "%2g", "%+1", "%ff", "a%"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }
}
