// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What policy does: live flows, and packets that might come.

use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use switch::document::Probe;

use super::answers::{FlowInfo, FlowList, TraceAnswer};
use super::api::{self, Api, Policy, Query, json};
use super::error::{ApiError, ErrorBody};
use super::schema;
use crate::policy::PolicyError;

/// Flows of one answer, unless the request says it.
const DEFAULT_LIMIT: usize = 100;
/// Most flows of one answer.
const MAX_LIMIT: usize = 10_000;

#[utoipa::path(get, path = "/ports/{name}/flows", tag = "flows", summary = "Live flows of a port",
    params(("name" = String, Path, description = "The name of the port"),
        ("limit" = Option<u32>, Query, description = "How many at most, 1 to 10000; 100 where it is not given"),
        ("cursor" = Option<u64>, Query, description = "Where to go on: `next` of the answer before")),
    responses((status = 200, body = FlowList), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(super) async fn list_flows(
    State(api): State<Api>,
    Path(port): Path<String>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let port = api::name("port", &port)?;
    let query = Query::of(&uri, &["limit", "cursor"])?;
    let limit = query.parsed("limit", "a number")?.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        let cause = format!("parameter limit: {limit} is not between 1 and {MAX_LIMIT}");
        return Err(ApiError::new(StatusCode::BAD_REQUEST, cause));
    }
    let cursor = query.parsed("cursor", "a cursor")?.unwrap_or(0);
    api.policy(move |store| {
        let board = store.board();
        let page = board.flows(&port, cursor, limit).map_err(PolicyError::from)?;
        let now_ns = board.now_ns();
        let flows = page.flows.iter().map(|flow| FlowInfo::new(flow, now_ns)).collect();
        json(&FlowList { version: page.version, flows, next: page.next })
    })
    .await
}

#[utoipa::path(post, path = "/ports/{name}/simulate", tag = "flows",
    summary = "What policy would do with a packet that came now; changes nothing",
    params(("name" = String, Path, description = "The name of the port")),
    request_body = schema::ProbeBody,
    responses((status = 200, body = TraceAnswer), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(super) async fn simulate(
    State(api): State<Api>,
    Path(port): Path<String>,
    Policy(body): Policy,
) -> Result<Response, ApiError> {
    let port = api::name("port", &port)?;
    api.policy(move |store| {
        let Probe { direction, key } = Probe::from_json(&body)?;
        let trace = store.board().simulate(&port, direction, &key).map_err(PolicyError::from)?;
        json(&TraceAnswer::new(&trace))
    })
    .await
}
