// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Resources of a port, and the entries of maps.

use std::cell::Cell;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Serialize;
use switch::Name;
use switch::document::{self, Content, Entry, Part};
use switch::model::{self, Edit, PortPolicy, Precondition, Resource, VersionedResource};

use super::access::Acting;
use super::answers::Written;
use super::api::{self, Api, Policy, json, tagged};
use super::error::{ApiError, ErrorBody};
use super::policy::{Expected, unknown};
use super::schema;
use crate::policy::PolicyError;

/// Port and resource.
type InResource = Path<(String, String)>;
/// Port, resource and address.
type InEntry = Path<(String, String, String)>;

#[derive(Serialize)]
struct ResourceAnswer<'a> {
    version: u64,
    controller: &'a str,
    resource: Part<'a>,
}

#[utoipa::path(get, path = "/ports/{name}/resources/{resource}", tag = "resources",
    summary = "One resource with all it holds; its version is the entity tag",
    params(("name" = String, Path, description = "The name of the port"),
        ("resource" = String, Path, description = "The name of the resource")),
    responses((status = 200, body = schema::ResourceAnswer), (status = 404, body = ErrorBody)))]
pub(super) async fn show_resource(
    State(api): State<Api>,
    Path((port, resource)): InResource,
) -> Result<Response, ApiError> {
    let port = api::name("port", &port)?;
    api.policy(move |store| {
        let view = store.view(&port)?;
        let held = find(&port, &view.policy, &resource)?;
        let content = Content::of(&held.resource.content, store.board().now_ns());
        let part = Part::Resource(&held.resource.name, &content);
        let controller = held.resource.controller.as_str();
        tagged(&ResourceAnswer { version: held.version, controller, resource: part }, held.version)
    })
    .await
}

#[utoipa::path(put, path = "/ports/{name}/resources/{resource}", tag = "resources",
    summary = "Creates or replaces a resource. If-Match and If-None-Match: * are heeded",
    params(("name" = String, Path, description = "The name of the port"),
        ("resource" = String, Path, description = "The name of the resource"),
        ("if-match" = Option<String>, Header, description = "The version that is to be replaced, or *")),
    request_body = schema::ResourceBody,
    responses((status = 200, body = Written), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 409, body = ErrorBody), (status = 412, body = ErrorBody)))]
pub(super) async fn put_resource(
    State(api): State<Api>,
    Path((port, resource)): InResource,
    headers: HeaderMap,
    Acting(controller): Acting,
    Policy(body): Policy,
) -> Result<Response, ApiError> {
    let (port, resource) = (api::name("port", &port)?, api::name("resource", &resource)?);
    let expected = Expected::of(&headers)?;
    api.policy(move |store| {
        let content = document::resource_from_json(&resource, &body)?;
        drop(body);
        let unchanged = Cell::new(None);
        let version = store.update(&port, &controller, |policy, now_ns| {
            let held = policy.resource(&resource);
            let preconditions = expect(expected, &port, &resource, held)?;
            let content = content
                .to_model(now_ns, held.map(|held| &held.resource.content))
                .map_err(|cause| PolicyError::Resource { port: port.clone(), resource: resource.clone(), cause })?;
            unchanged.set(held.filter(|held| held.resource.content == content).map(|held| held.version));
            let resource = Resource { name: resource.clone(), controller: controller.name.clone(), content };
            Ok((preconditions, vec![Edit::PutResource { resource: Arc::new(resource) }]))
        })?;
        tagged(&Written { version }, unchanged.get().unwrap_or(version))
    })
    .await
}

#[utoipa::path(delete, path = "/ports/{name}/resources/{resource}", tag = "resources",
    summary = "Removes a resource that no rule needs any more. If-Match is heeded",
    params(("name" = String, Path, description = "The name of the port"),
        ("resource" = String, Path, description = "The name of the resource"),
        ("if-match" = Option<String>, Header, description = "The version that is to be removed, or *")),
    responses((status = 200, body = Written), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody), (status = 412, body = ErrorBody)))]
pub(super) async fn remove_resource(
    State(api): State<Api>,
    Path((port, resource)): InResource,
    headers: HeaderMap,
    Acting(controller): Acting,
) -> Result<Response, ApiError> {
    let (port, resource) = (api::name("port", &port)?, api::name("resource", &resource)?);
    let expected = Expected::of(&headers)?;
    api.policy(move |store| {
        let version = store.update(&port, &controller, |policy, _| {
            let preconditions = expect(expected, &port, &resource, policy.resource(&resource))?;
            Ok((preconditions, vec![Edit::RemoveResource { name: resource.clone() }]))
        })?;
        json(&Written { version })
    })
    .await
}

#[utoipa::path(get, path = "/ports/{name}/resources/{resource}/entries/{address}", tag = "resources",
    summary = "What a map says of an address",
    params(("name" = String, Path, description = "The name of the port"),
        ("resource" = String, Path, description = "The name of the map"),
        ("address" = String, Path, description = "The IP address")),
    responses((status = 200, body = schema::EntryBody), (status = 404, body = ErrorBody)))]
pub(super) async fn show_entry(
    State(api): State<Api>,
    Path((port, resource, address)): InEntry,
) -> Result<Response, ApiError> {
    let (port, address) = (api::name("port", &port)?, api::address(&address)?);
    api.policy(move |store| {
        let view = store.view(&port)?;
        let held = find(&port, &view.policy, &resource)?;
        let answer = match &held.resource.content {
            model::Content::Map(map) => map.get(address),
            model::Content::Ranges(_) => None,
        };
        let entry = answer.and_then(|answer| Entry::of(answer, store.board().now_ns()));
        let entry = entry.ok_or_else(|| unknown(&port, format!("entry {resource}/{address}")))?;
        tagged(&Part::Entry(&entry), held.version)
    })
    .await
}

#[utoipa::path(put, path = "/ports/{name}/resources/{resource}/entries/{address}", tag = "resources",
    summary = "Says what a map knows of an address, or that there is no such address and for how long to believe that",
    params(("name" = String, Path, description = "The name of the port"),
        ("resource" = String, Path, description = "The name of the map"),
        ("address" = String, Path, description = "The IP address")),
    request_body = schema::EntryBody,
    responses((status = 200, body = Written), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody)))]
pub(super) async fn put_entry(
    State(api): State<Api>,
    Path((port, resource, address)): InEntry,
    Acting(controller): Acting,
    Policy(body): Policy,
) -> Result<Response, ApiError> {
    let (port, resource) = (api::name("port", &port)?, api::name("resource", &resource)?);
    let address = api::address(&address)?;
    api.policy(move |store| {
        let entry = document::entry_from_json(&body)?;
        let version = store.update(&port, &controller, |_, now_ns| {
            let answer = Some(entry.answer(now_ns));
            Ok((Vec::new(), vec![Edit::PutMapping { resource, address, answer }]))
        })?;
        json(&Written { version })
    })
    .await
}

#[utoipa::path(delete, path = "/ports/{name}/resources/{resource}/entries/{address}", tag = "resources",
    summary = "Makes a map know nothing of an address",
    params(("name" = String, Path, description = "The name of the port"),
        ("resource" = String, Path, description = "The name of the map"),
        ("address" = String, Path, description = "The IP address")),
    responses((status = 200, body = Written), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(super) async fn remove_entry(
    State(api): State<Api>,
    Path((port, resource, address)): InEntry,
    Acting(controller): Acting,
) -> Result<Response, ApiError> {
    let (port, resource) = (api::name("port", &port)?, api::name("resource", &resource)?);
    let address = api::address(&address)?;
    api.policy(move |store| {
        let edit = Edit::PutMapping { resource, address, answer: None };
        let version = store.update(&port, &controller, |_, _| Ok((Vec::new(), vec![edit])))?;
        json(&Written { version })
    })
    .await
}

fn expect(
    expected: Expected,
    port: &Name,
    resource: &Name,
    held: Option<&VersionedResource>,
) -> Result<Vec<Precondition>, PolicyError> {
    let now = held.map(|held| held.version);
    let precondition = |version| Precondition::Resource { resource: resource.clone(), version };
    expected.check(port, || format!("resource {resource}"), now, precondition)
}

fn find<'a>(port: &Name, policy: &'a PortPolicy, resource: &str) -> Result<&'a VersionedResource, ApiError> {
    policy.resource(resource).ok_or_else(|| unknown(port, format!("resource {resource}")))
}
