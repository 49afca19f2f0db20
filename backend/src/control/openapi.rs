// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The description of the API at `/openapi.json`.

use utoipa::OpenApi;

use super::routes;

/// Generated from the routes; a test compares it with what the router serves.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Shunt control API",
        description = "Ports, counters and metrics of a running node. Served on the control socket, and read-only on the \
                       optional TCP address. Every answer that is not a success is an ErrorBody."
    ),
    paths(
        routes::list_ports,
        routes::add_port,
        routes::show_port,
        routes::remove_port,
        routes::show_stats,
        routes::show_metrics,
        routes::show_openapi,
        routes::show_version,
    )
)]
struct Description;

/// The description as JSON.
pub(super) fn json() -> Result<String, serde_json::Error> {
    Description::openapi().to_json()
}
