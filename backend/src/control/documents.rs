// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whole policies: transactions, documents, and all of a port.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde::{Serialize, Serializer};
use switch::Name;
use switch::document::{Content, Document, Part, Steps, default_word};
use switch::model::{Layer, PortPolicy, Transaction};

use super::access::{Acting, Someone};
use super::answers::{ApplyAnswer, Written};
use super::api::{self, Api, Policy, Query, json, tagged};
use super::error::{ApiError, ErrorBody};
use super::schema;
use crate::policy::{Forbidden, PolicyError};

#[utoipa::path(post, path = "/ports/{name}/transactions", tag = "policy",
    summary = "Carries out several edits, all or nothing; answers when every worker has passed a burst boundary under them",
    params(("name" = String, Path, description = "The name of the port")),
    request_body = schema::TransactionBody,
    responses((status = 200, body = Written), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 409, body = ErrorBody), (status = 412, body = ErrorBody)))]
pub(super) async fn transact(
    State(api): State<Api>,
    Path(port): Path<String>,
    Acting(controller): Acting,
    Policy(body): Policy,
) -> Result<Response, ApiError> {
    let port = api::name("port", &port)?;
    api.policy(move |store| {
        let steps = Steps::from_json(&body)?;
        drop(body);
        let fault = |(resource, cause)| PolicyError::Resource { port: port.clone(), resource, cause };
        let edits = steps.edits(&controller.name, store.board().now_ns()).map_err(fault)?;
        let transaction = Transaction { controller, preconditions: steps.preconditions, edits };
        json(&Written { version: store.transact(&port, &transaction)? })
    })
    .await
}

/// All of a port's policy.
#[derive(Serialize)]
struct PortPolicyAnswer<'a> {
    port: &'a str,
    version: u64,
    layers: Vec<LayerAnswer<'a>>,
    resources: Vec<ResourceAnswer<'a>>,
}

#[derive(Serialize)]
struct LayerAnswer<'a> {
    name: &'a str,
    controller: &'a str,
    order: u32,
    default: &'static str,
    group: Vec<Part<'a>>,
}

struct ResourceAnswer<'a> {
    name: &'a Name,
    content: Content,
}

impl Serialize for ResourceAnswer<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Part::Resource(self.name, &self.content).serialize(serializer)
    }
}

impl<'a> PortPolicyAnswer<'a> {
    fn new(port: &'a Name, policy: &'a PortPolicy, now_ns: u64) -> Self {
        let layer = |layer: &'a Arc<Layer>| LayerAnswer {
            name: &layer.name,
            controller: &layer.controller,
            order: layer.order,
            default: default_word(layer.default),
            group: layer.groups.iter().map(|versioned| Part::Group(&versioned.group)).collect(),
        };
        let resources = policy.resources().iter().map(|held| ResourceAnswer {
            name: &held.resource.name,
            content: Content::of(&held.resource.content, now_ns),
        });
        Self {
            port,
            version: policy.version(),
            layers: policy.layers().iter().map(layer).collect(),
            resources: resources.collect(),
        }
    }
}

#[utoipa::path(get, path = "/ports/{name}/policy", tag = "policy",
    summary = "All of a port's policy, whosever it is; the entity tag is its version",
    params(("name" = String, Path, description = "The name of the port")),
    responses((status = 200, body = schema::PortPolicyAnswer), (status = 404, body = ErrorBody)))]
pub(super) async fn show_port_policy(State(api): State<Api>, Path(port): Path<String>) -> Result<Response, ApiError> {
    let port = api::name("port", &port)?;
    api.policy(move |store| {
        let view = store.view(&port)?;
        tagged(&PortPolicyAnswer::new(&port, &view.policy, store.board().now_ns()), view.policy.version())
    })
    .await
}

#[utoipa::path(get, path = "/policy", tag = "policy",
    summary = "The document of a controller: all that it owns, on all ports",
    params(("controller" = Option<String>, Query, description = "Whose; the caller's where it is one controller")),
    responses((status = 200, body = schema::DocumentBody), (status = 400, body = ErrorBody)))]
pub(super) async fn show_document(State(api): State<Api>, someone: Someone, uri: Uri) -> Result<Response, ApiError> {
    let query = Query::of(&uri, &["controller"])?;
    let controller = match query.text("controller") {
        Some(controller) => api::name("controller", controller)?,
        None => match api.controllers.acting(&someone.caller, someone.claimed.as_deref()) {
            Ok(controller) => controller.name,
            Err(_) => {
                let cause = "say whose document is wanted, in the parameter controller";
                return Err(ApiError::new(StatusCode::BAD_REQUEST, cause));
            }
        },
    };
    api.policy(move |store| json(&store.document(&controller))).await
}

#[utoipa::path(post, path = "/policy", tag = "policy",
    summary = "Makes what a controller owns equal to its document, on all ports",
    params(("dry_run" = Option<bool>, Query, description = "Only say what would change, live flows included")),
    request_body = schema::DocumentBody,
    responses((status = 200, body = ApplyAnswer), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(super) async fn apply_document(
    State(api): State<Api>,
    someone: Someone,
    uri: Uri,
    Policy(body): Policy,
) -> Result<Response, ApiError> {
    let query = Query::of(&uri, &["dry_run"])?;
    let dry_run = query.parsed("dry_run", "true or false")?.unwrap_or(false);
    let controllers = Arc::clone(&api.controllers);
    api.policy(move |store| {
        let document = Document::from_json(&body)?;
        drop(body);
        let name = document.controller.as_str();
        if let Some(claimed) = someone.claimed.filter(|claimed| claimed != name) {
            return Err(Forbidden::OtherDocument { claimed, document: document.controller }.into());
        }
        let controller = controllers.acting(&someone.caller, Some(name))?;
        if dry_run {
            let dry = store.dry_run(&controller, &document)?;
            return json(&ApplyAnswer::of_dry_run(dry, store.board().now_ns()));
        }
        json(&ApplyAnswer::of_applied(store.apply(&controller, &document)?))
    })
    .await
}
