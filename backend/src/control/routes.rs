// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One function per path and method.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use switch::Name;
use utoipa::ToSchema;

use super::access::{Manager, identify};
use super::api::{ANSWER_LIMIT, Api, Query, Target, blocking, broken};
use super::error::{ApiError, ControlError, ErrorBody};
use super::policy_metrics::Policies;
use super::{Controlled, documents, events, flows, inspect, metrics, openapi, policy, resources};
use crate::config::{PortBody, PortConfig};
use crate::stats::{PortStatus, Stats};

/// Longest request body in bytes; a port is described in a few hundred.
const MAX_BODY: usize = 16 << 10;
/// Longest request body about policy in bytes; a document of 50 000 rules has some ten million.
pub(super) const MAX_POLICY: usize = 64 << 20;
/// How long a request may take from its header to its answer, its body included.
const REQUEST_LIMIT: Duration = Duration::from_secs(15);
/// The same of a request about policy.
const POLICY_REQUEST_LIMIT: Duration = Duration::from_secs(90);

/// All paths of the API.
pub(super) fn router(api: Api) -> Router {
    let policies = Router::new()
        .route("/ports/{name}/layers", get(policy::list_layers))
        .route(
            "/ports/{name}/layers/{layer}",
            get(policy::show_layer).put(policy::put_layer).delete(policy::remove_layer),
        )
        .route(
            "/ports/{name}/layers/{layer}/groups/{group}",
            get(policy::show_group).put(policy::put_group).delete(policy::remove_group),
        )
        .route(
            "/ports/{name}/layers/{layer}/groups/{group}/rules/{rule}",
            get(policy::show_rule).put(policy::put_rule).delete(policy::remove_rule),
        )
        .route(
            "/ports/{name}/resources/{resource}",
            get(resources::show_resource).put(resources::put_resource).delete(resources::remove_resource),
        )
        .route(
            "/ports/{name}/resources/{resource}/entries/{address}",
            get(resources::show_entry).put(resources::put_entry).delete(resources::remove_entry),
        )
        .route("/ports/{name}/transactions", post(documents::transact))
        .route("/ports/{name}/policy", get(documents::show_port_policy))
        .route("/ports/{name}/simulate", post(flows::simulate))
        .route("/ports/{name}/flows", get(flows::list_flows))
        .route("/policy", get(documents::show_document).post(documents::apply_document))
        .route("/events", get(events::stream_events))
        .layer(DefaultBodyLimit::max(MAX_POLICY))
        .layer(from_fn_with_state(POLICY_REQUEST_LIMIT, within_limit));
    let others = Router::new()
        .route("/ports", get(list_ports).post(add_port))
        .route("/ports/{name}", get(show_port).delete(remove_port))
        .route("/ports/{name}/capture", get(inspect::stream_capture))
        .route("/drops", get(inspect::stream_drops))
        .route("/stats", get(show_stats))
        .route("/metrics", get(show_metrics))
        .route("/openapi.json", get(show_openapi))
        .route("/version", get(show_version))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn_with_state(REQUEST_LIMIT, within_limit));
    Router::new()
        .merge(policies)
        .merge(others)
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(api.clone(), identify))
        .with_state(api)
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
    _: Manager,
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
    State(api): State<Api>,
    Path(name): Path<String>,
    _: Manager,
) -> Result<StatusCode, ApiError> {
    let about = format!("port {name}");
    let (node, policies) = (api.node, api.policy);
    let removed = blocking(ANSWER_LIMIT, move || match Name::new(name.as_str()) {
        Ok(port) => policies.remove_port(&port, || node.remove_port(&name)),
        Err(_) => node.remove_port(&name),
    });
    removed.await?.map_err(|error| ApiError::from(error).about(about))?;
    Ok(StatusCode::NO_CONTENT)
}

#[utoipa::path(get, path = "/stats", tag = "stats", summary = "All that the node counts",
    params(("policies" = Option<bool>, Query, description = "Whether flows are counted, too, for which all are walked over; \
        true where it is not given")),
    responses((status = 200, body = Stats), (status = 400, body = ErrorBody)))]
pub(super) async fn show_stats(State(api): State<Api>, uri: Uri) -> Result<Json<Stats>, ApiError> {
    let query = Query::of(&uri, &["policies"])?;
    let with_policies = query.parsed("policies", "true or false")?.unwrap_or(true);
    let mut stats = ask(api.node, |node| node.stats()).await??;
    if with_policies {
        stats.policies = blocking(ANSWER_LIMIT, move || api.policy.stats()).await?;
    }
    Ok(Json(stats))
}

#[utoipa::path(get, path = "/metrics", tag = "stats", summary = "All that the node counts, for Prometheus",
    responses((status = 200, body = String, content_type = "application/openmetrics-text")))]
pub(super) async fn show_metrics(State(api): State<Api>) -> Result<Response, ApiError> {
    let stats = ask(api.node, |node| node.stats()).await??;
    let policies = Arc::clone(&api.policy);
    let policies = blocking(ANSWER_LIMIT, move || Policies::of(&policies)).await?;
    let text = metrics::encode(stats, policies).map_err(|_| broken("the metrics cannot be written as text"))?;
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
    blocking(ANSWER_LIMIT, move || call(&*target)).await
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
async fn within_limit(State(limit): State<Duration>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let cause = format!("the request was not complete within {} s", limit.as_secs());
            ApiError::new(StatusCode::REQUEST_TIMEOUT, cause).into_response()
        }
    }
}
