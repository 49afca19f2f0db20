// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One function per path and method.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::{ApiError, ControlError, ErrorBody};
use super::{Controlled, metrics, openapi};
use crate::config::{PortBody, PortConfig};
use crate::stats::{PortStatus, Stats};

/// Longest request body in bytes; a port is described in a few hundred.
const MAX_BODY: usize = 16 << 10;
/// How long the node may take to answer one call.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// How long a request may take from its header to its answer, its body included.
const REQUEST_LIMIT: Duration = Duration::from_secs(15);

/// What the routes speak to.
pub(super) type Target = Arc<dyn Controlled>;

/// What a client may do, by the way it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Through the UNIX socket, whose mode is the permission.
    Full,
    /// Through TCP, where nobody knows who it is.
    ReadOnly,
}

/// All paths of the API.
pub(super) fn router(target: Target, access: Access) -> Router {
    let router = Router::new()
        .route("/ports", get(list_ports).post(add_port))
        .route("/ports/{name}", get(show_port).delete(remove_port))
        .route("/stats", get(show_stats))
        .route("/metrics", get(show_metrics))
        .route("/openapi.json", get(show_openapi))
        .route("/version", get(show_version))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn(within_limit))
        .with_state(target);
    match access {
        Access::Full => router,
        Access::ReadOnly => router.layer(from_fn(only_reading)),
    }
}

/// Which program answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Version {
    /// `shunt`.
    pub name: String,
    /// Its version.
    pub version: String,
}

#[utoipa::path(get, path = "/ports", tag = "ports", summary = "All ports, by name",
    responses((status = 200, body = Vec<PortStatus>)))]
pub(super) async fn list_ports(State(target): State<Target>) -> Result<Json<Vec<PortStatus>>, ApiError> {
    ask(target, |node| node.ports()).await?.map(Json).map_err(ApiError::from)
}

#[utoipa::path(get, path = "/ports/{name}", tag = "ports", summary = "One port",
    params(("name" = String, Path, description = "The name of the port")),
    responses((status = 200, body = PortStatus), (status = 404, body = ErrorBody)))]
pub(super) async fn show_port(
    State(target): State<Target>,
    Path(name): Path<String>,
) -> Result<Json<PortStatus>, ApiError> {
    find_port(target, name).await.map(Json)
}

#[utoipa::path(post, path = "/ports", tag = "ports", summary = "Adds a port to the running node",
    request_body = PortBody,
    responses((status = 201, body = PortStatus), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 409, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(super) async fn add_port(
    State(target): State<Target>,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<PortStatus>), ApiError> {
    let body = body.map_err(|rejection| ApiError::new(rejection.status(), rejection.body_text()))?;
    let port = PortConfig::from_json(&body)?;
    let name = port.name.to_string();
    let about = format!("port {name}");
    ask(Arc::clone(&target), move |node| node.add_port(port))
        .await?
        .map_err(|error| ApiError::from(error).about(about))?;
    Ok((StatusCode::CREATED, Json(find_port(target, name).await?)))
}

#[utoipa::path(delete, path = "/ports/{name}", tag = "ports", summary = "Removes a port from the running node",
    params(("name" = String, Path, description = "The name of the port")),
    responses((status = 204), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(super) async fn remove_port(
    State(target): State<Target>,
    Path(name): Path<String>,
) -> Result<StatusCode, ApiError> {
    let about = format!("port {name}");
    ask(target, move |node| node.remove_port(&name)).await?.map_err(|error| ApiError::from(error).about(about))?;
    Ok(StatusCode::NO_CONTENT)
}

#[utoipa::path(get, path = "/stats", tag = "stats", summary = "All that the node counts",
    responses((status = 200, body = Stats)))]
pub(super) async fn show_stats(State(target): State<Target>) -> Result<Json<Stats>, ApiError> {
    ask(target, |node| node.stats()).await?.map(Json).map_err(ApiError::from)
}

#[utoipa::path(get, path = "/metrics", tag = "stats", summary = "All that the node counts, for Prometheus",
    responses((status = 200, body = String, content_type = "application/openmetrics-text")))]
pub(super) async fn show_metrics(State(target): State<Target>) -> Result<Response, ApiError> {
    let stats = ask(target, |node| node.stats()).await??;
    let text = metrics::encode(stats).map_err(|_| broken("the metrics cannot be written as text"))?;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}

#[utoipa::path(get, path = "/openapi.json", tag = "about", summary = "This description",
    responses((status = 200, content_type = "application/json")))]
pub(super) async fn show_openapi() -> Result<Response, ApiError> {
    let text = openapi::json().map_err(|_| broken("the description cannot be written as JSON"))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}

#[utoipa::path(get, path = "/version", tag = "about", summary = "Which program answers",
    responses((status = 200, body = Version)))]
pub(super) async fn show_version() -> Json<Version> {
    Json(Version { name: "shunt".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() })
}

async fn find_port(target: Target, name: String) -> Result<PortStatus, ApiError> {
    let ports = ask(target, |node| node.ports()).await??;
    ports.into_iter().find(|port| port.name == name).ok_or_else(|| ControlError::UnknownPort { name }.into())
}

/// Calls the node on a thread that may block.
async fn ask<T: Send + 'static>(
    target: Target,
    call: impl FnOnce(&dyn Controlled) -> T + Send + 'static,
) -> Result<T, ApiError> {
    match tokio::time::timeout(ANSWER_LIMIT, tokio::task::spawn_blocking(move || call(&*target))).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) => Err(broken("the node failed while it answered; its log says more")),
        Err(_) => Err(ControlError::Unanswered { seconds: ANSWER_LIMIT.as_secs() }.into()),
    }
}

fn broken(cause: &str) -> ApiError {
    log::error!("control: {cause}");
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, cause)
}

async fn unknown_path(request: Request) -> ApiError {
    let path = request.uri().path();
    ApiError::new(StatusCode::NOT_FOUND, format!("there is no path {path:?}; /openapi.json lists them"))
}

async fn wrong_method(request: Request) -> ApiError {
    let (method, path) = (request.method(), request.uri().path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, format!("{method} is not for {path:?}; /openapi.json lists what is"))
}

/// Gives up on a request that takes too long to arrive or to answer.
async fn within_limit(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_LIMIT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let cause = format!("the request was not complete within {} s", REQUEST_LIMIT.as_secs());
            ApiError::new(StatusCode::REQUEST_TIMEOUT, cause).into_response()
        }
    }
}

/// Refuses everything that could change the node.
async fn only_reading(request: Request, next: Next) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return next.run(request).await;
    }
    let cause = "this address is read-only; changes are made through the control socket";
    ApiError::new(StatusCode::FORBIDDEN, cause).into_response()
}
