// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The description of the API at `/openapi.json`.

use utoipa::OpenApi;

use super::{documents, events, flows, inspect, policy, resources, routes};

/// Generated from the routes; a test compares it with what the router serves.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Shunt control API",
        description = "Ports, policy, counters and metrics of a running node. Served on the control socket, and on the optional \
                       TCP address, where changes of policy need a bearer token. A caller that is several controllers \
                       says as which it acts in the header Shunt-Controller. Every answer that is not a success is an \
                       ErrorBody."
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
        policy::list_layers,
        policy::show_layer,
        policy::put_layer,
        policy::remove_layer,
        policy::show_group,
        policy::put_group,
        policy::remove_group,
        policy::show_rule,
        policy::put_rule,
        policy::remove_rule,
        resources::show_resource,
        resources::put_resource,
        resources::remove_resource,
        resources::show_entry,
        resources::put_entry,
        resources::remove_entry,
        documents::transact,
        documents::show_port_policy,
        documents::show_document,
        documents::apply_document,
        flows::simulate,
        flows::list_flows,
        events::stream_events,
        inspect::stream_capture,
        inspect::stream_drops,
    )
)]
struct Description;

/// The description as JSON.
pub(super) fn json() -> Result<String, serde_json::Error> {
    Description::openapi().to_json()
}
