// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Layers, groups and rules of a port.

use std::cell::Cell;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use serde::Serialize;
use switch::Name;
use switch::compile::LayerTotals;
use switch::document::{self, Part};
use switch::model::{Controller, Edit, Group, Layer, PortPolicy, Precondition, Versioned};

use super::access::Acting;
use super::answers::{Count, LayerInfo, PortLayers, Written, group_totals};
use super::api::{self, Api, Policy, json, tagged};
use super::error::{ApiError, ErrorBody};
use super::schema;
use crate::policy::{PolicyError, PolicyStore, PortView};

/// Port and layer.
type InLayer = Path<(String, String)>;
/// Port, layer and group.
type InGroup = Path<(String, String, String)>;
/// Port, layer, group and rule.
type InRule = Path<(String, String, String, String)>;

/// What a request says about the version that it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// Nothing.
    Anything,
    /// `If-Match: *`
    Something,
    /// `If-Match: "3"`
    Version(u64),
    /// `If-None-Match: *`
    Nothing,
}

impl Expected {
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?").trim());
        let bad = |what| Err(ApiError::new(StatusCode::BAD_REQUEST, what));
        match (text(header::IF_MATCH), text(header::IF_NONE_MATCH)) {
            (None, None) => Ok(Self::Anything),
            (Some(_), Some(_)) => bad("If-Match and If-None-Match exclude each other"),
            (None, Some("*")) => Ok(Self::Nothing),
            (None, Some(_)) => bad("If-None-Match can only be *"),
            (Some("*"), None) => Ok(Self::Something),
            (Some(text), None) => {
                let version = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
                version.parse().map(Self::Version).or_else(|_| bad("If-Match must be * or one version, such as \"3\""))
            }
        }
    }

    /// The precondition that a version of this kind be as expected; `now`: the version that there is.
    pub(super) fn check(
        self,
        port: &Name,
        object: impl FnOnce() -> String,
        now: Option<u64>,
        precondition: impl FnOnce(Option<u64>) -> Precondition,
    ) -> Result<Vec<Precondition>, PolicyError> {
        match self {
            Self::Anything => Ok(Vec::new()),
            Self::Something if now.is_none() => Err(PolicyError::Absent { port: port.clone(), object: object() }),
            Self::Something => Ok(Vec::new()),
            Self::Version(version) => Ok(vec![precondition(Some(version))]),
            Self::Nothing => Ok(vec![precondition(None)]),
        }
    }
}

#[utoipa::path(get, path = "/ports/{name}/layers", tag = "policy", summary = "The layers of a port, nearest the VM first",
    params(("name" = String, Path, description = "The name of the port")),
    responses((status = 200, body = PortLayers), (status = 404, body = ErrorBody)))]
pub(super) async fn list_layers(State(api): State<Api>, Path(port): Path<String>) -> Result<Response, ApiError> {
    let port = api::name("port", &port)?;
    api.policy(move |store| {
        let (view, totals) = counted(store, &port)?;
        let report = store.board().report(&port).map_err(PolicyError::from)?;
        json(&PortLayers::new(&port, &view.policy, &totals, &report))
    })
    .await
}

#[utoipa::path(get, path = "/ports/{name}/layers/{layer}", tag = "policy", summary = "One layer, with its groups",
    params(("name" = String, Path, description = "The name of the port"),
        ("layer" = String, Path, description = "The name of the layer")),
    responses((status = 200, body = LayerInfo), (status = 404, body = ErrorBody)))]
pub(super) async fn show_layer(State(api): State<Api>, Path((port, layer)): InLayer) -> Result<Response, ApiError> {
    let port = api::name("port", &port)?;
    api.policy(move |store| {
        let (view, totals) = counted(store, &port)?;
        json(&LayerInfo::new(find_layer(&port, &view.policy, &layer)?, &totals))
    })
    .await
}

#[utoipa::path(put, path = "/ports/{name}/layers/{layer}", tag = "policy",
    summary = "Creates a layer, or gives it another order or default; its groups stay",
    params(("name" = String, Path, description = "The name of the port"),
        ("layer" = String, Path, description = "The name of the layer")),
    request_body = schema::LayerHead,
    responses((status = 200, body = Written), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(super) async fn put_layer(
    State(api): State<Api>,
    Path((port, layer)): InLayer,
    Acting(controller): Acting,
    Policy(body): Policy,
) -> Result<Response, ApiError> {
    let (port, layer) = (api::name("port", &port)?, api::name("layer", &layer)?);
    api.policy(move |store| {
        let (order, default) = document::layer_from_json(&layer, &body)?;
        let edit = Edit::PutLayer { name: layer, order, default };
        let version = store.update(&port, &controller, |_, _| Ok((Vec::new(), vec![edit])))?;
        json(&Written { version })
    })
    .await
}

#[utoipa::path(delete, path = "/ports/{name}/layers/{layer}", tag = "policy", summary = "Removes a layer with all its groups",
    params(("name" = String, Path, description = "The name of the port"),
        ("layer" = String, Path, description = "The name of the layer")),
    responses((status = 200, body = Written), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(super) async fn remove_layer(
    State(api): State<Api>,
    Path((port, layer)): InLayer,
    Acting(controller): Acting,
) -> Result<Response, ApiError> {
    let (port, layer) = (api::name("port", &port)?, api::name("layer", &layer)?);
    api.policy(move |store| {
        let edit = Edit::RemoveLayer { name: layer };
        let version = store.update(&port, &controller, |_, _| Ok((Vec::new(), vec![edit])))?;
        json(&Written { version })
    })
    .await
}

/// A group with what was counted.
#[derive(Serialize)]
struct GroupAnswer<'a> {
    version: u64,
    group: Part<'a>,
    count: Count,
    rule_counts: Vec<RuleCount<'a>>,
}

#[derive(Serialize)]
struct RuleCount<'a> {
    rule: &'a str,
    #[serde(flatten)]
    count: Count,
}

#[utoipa::path(get, path = "/ports/{name}/layers/{layer}/groups/{group}", tag = "policy",
    summary = "One group, with its rules and what they counted; its version is the entity tag",
    params(("name" = String, Path, description = "The name of the port"),
        ("layer" = String, Path, description = "The name of the layer"),
        ("group" = String, Path, description = "The name of the group")),
    responses((status = 200, body = schema::GroupAnswer), (status = 404, body = ErrorBody)))]
pub(super) async fn show_group(
    State(api): State<Api>,
    Path((port, layer, group)): InGroup,
) -> Result<Response, ApiError> {
    let port = api::name("port", &port)?;
    api.policy(move |store| {
        let (view, totals) = counted(store, &port)?;
        let held = find_group(&port, &view.policy, &layer, &group)?;
        let counted = totals.iter().find(|totals| *totals.layer == *layer);
        let counted = counted.and_then(|totals| group_totals(totals, &group));
        let rules = counted.map(|totals| totals.rules.as_slice()).unwrap_or_default();
        let rule_counts = rules.iter().map(|(rule, total)| RuleCount { rule, count: (*total).into() }).collect();
        let count = counted.map(|totals| totals.all).unwrap_or_default().into();
        tagged(
            &GroupAnswer { version: held.version, group: Part::Group(&held.group), count, rule_counts },
            held.version,
        )
    })
    .await
}

#[utoipa::path(put, path = "/ports/{name}/layers/{layer}/groups/{group}", tag = "policy",
    summary = "Creates or replaces a group: a transaction. If-Match and If-None-Match: * are heeded",
    params(("name" = String, Path, description = "The name of the port"),
        ("layer" = String, Path, description = "The name of the layer"),
        ("group" = String, Path, description = "The name of the group"),
        ("if-match" = Option<String>, Header, description = "The version that is to be replaced, or *")),
    request_body = schema::GroupBody,
    responses((status = 200, body = Written), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 409, body = ErrorBody), (status = 412, body = ErrorBody)))]
pub(super) async fn put_group(
    State(api): State<Api>,
    Path((port, layer, group)): InGroup,
    headers: HeaderMap,
    Acting(controller): Acting,
    Policy(body): Policy,
) -> Result<Response, ApiError> {
    let place = GroupPlace::new(&port, &layer, &group)?;
    let expected = Expected::of(&headers)?;
    api.policy(move |store| {
        let group = Arc::new(document::group_from_json(&place.group, &body)?);
        drop(body);
        place.change(store, &controller, expected, |_| Ok(Some(group)))
    })
    .await
}

#[utoipa::path(delete, path = "/ports/{name}/layers/{layer}/groups/{group}", tag = "policy",
    summary = "Removes a group. If-Match is heeded",
    params(("name" = String, Path, description = "The name of the port"),
        ("layer" = String, Path, description = "The name of the layer"),
        ("group" = String, Path, description = "The name of the group"),
        ("if-match" = Option<String>, Header, description = "The version that is to be removed, or *")),
    responses((status = 200, body = Written), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 412, body = ErrorBody)))]
pub(super) async fn remove_group(
    State(api): State<Api>,
    Path((port, layer, group)): InGroup,
    headers: HeaderMap,
    Acting(controller): Acting,
) -> Result<Response, ApiError> {
    let place = GroupPlace::new(&port, &layer, &group)?;
    let expected = Expected::of(&headers)?;
    api.policy(move |store| place.change(store, &controller, expected, |_| Ok(None))).await
}

/// A rule with what was counted.
#[derive(Serialize)]
struct RuleAnswer<'a> {
    version: u64,
    rule: Part<'a>,
    count: Count,
}

#[utoipa::path(get, path = "/ports/{name}/layers/{layer}/groups/{group}/rules/{rule}", tag = "policy",
    summary = "One rule and what it counted; the entity tag is its group's version",
    params(("name" = String, Path, description = "The name of the port"),
        ("layer" = String, Path, description = "The name of the layer"),
        ("group" = String, Path, description = "The name of the group"),
        ("rule" = String, Path, description = "The name of the rule")),
    responses((status = 200, body = schema::RuleAnswer), (status = 404, body = ErrorBody)))]
pub(super) async fn show_rule(
    State(api): State<Api>,
    Path((port, layer, group, rule)): InRule,
) -> Result<Response, ApiError> {
    let port = api::name("port", &port)?;
    api.policy(move |store| {
        let (view, totals) = counted(store, &port)?;
        let held = find_group(&port, &view.policy, &layer, &group)?;
        let found = held.group.rules.iter().find(|held| *held.name == *rule);
        let found = found.ok_or_else(|| unknown(&port, format!("rule {layer}/{group}/{rule}")))?;
        let totals = totals.iter().find(|totals| *totals.layer == *layer);
        let totals = totals.and_then(|totals| group_totals(totals, &group)).map(|totals| totals.rules.as_slice());
        let count = totals.unwrap_or_default().iter().find(|(name, _)| **name == *rule).map(|(_, total)| *total);
        let count = count.unwrap_or_default().into();
        tagged(&RuleAnswer { version: held.version, rule: Part::Rule(found), count }, held.version)
    })
    .await
}

#[utoipa::path(put, path = "/ports/{name}/layers/{layer}/groups/{group}/rules/{rule}", tag = "policy",
    summary = "Creates a rule behind the others of its group, or replaces it in its place. If-Match is the group's version",
    params(("name" = String, Path, description = "The name of the port"),
        ("layer" = String, Path, description = "The name of the layer"),
        ("group" = String, Path, description = "The name of the group"),
        ("rule" = String, Path, description = "The name of the rule"),
        ("if-match" = Option<String>, Header, description = "The version of the group, or *")),
    request_body = schema::RuleBody,
    responses((status = 200, body = Written), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 412, body = ErrorBody)))]
pub(super) async fn put_rule(
    State(api): State<Api>,
    Path((port, layer, group, rule)): InRule,
    headers: HeaderMap,
    Acting(controller): Acting,
    Policy(body): Policy,
) -> Result<Response, ApiError> {
    let place = GroupPlace::new(&port, &layer, &group)?;
    let (rule, expected) = (api::name("rule", &rule)?, Expected::of(&headers)?);
    api.policy(move |store| {
        let rule = document::rule_from_json(&rule, &body)?;
        let missing = place.missing();
        place.change(store, &controller, expected, |held| {
            let mut group = Group::clone(held.ok_or(missing)?);
            match group.rules.iter_mut().find(|held| held.name == rule.name) {
                Some(held) => *held = rule,
                None => group.rules.push(rule),
            }
            Ok(Some(Arc::new(group)))
        })
    })
    .await
}

#[utoipa::path(delete, path = "/ports/{name}/layers/{layer}/groups/{group}/rules/{rule}", tag = "policy",
    summary = "Removes a rule. If-Match is the group's version",
    params(("name" = String, Path, description = "The name of the port"),
        ("layer" = String, Path, description = "The name of the layer"),
        ("group" = String, Path, description = "The name of the group"),
        ("rule" = String, Path, description = "The name of the rule"),
        ("if-match" = Option<String>, Header, description = "The version of the group, or *")),
    responses((status = 200, body = Written), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 412, body = ErrorBody)))]
pub(super) async fn remove_rule(
    State(api): State<Api>,
    Path((port, layer, group, rule)): InRule,
    headers: HeaderMap,
    Acting(controller): Acting,
) -> Result<Response, ApiError> {
    let place = GroupPlace::new(&port, &layer, &group)?;
    let (rule, expected) = (api::name("rule", &rule)?, Expected::of(&headers)?);
    api.policy(move |store| {
        let missing = place.missing();
        let object = format!("rule {}/{}/{rule}", place.layer, place.group);
        let port = place.port.clone();
        place.change(store, &controller, expected, |held| {
            let mut group = Group::clone(held.ok_or(missing)?);
            let before = group.rules.len();
            group.rules.retain(|held| held.name != rule);
            if group.rules.len() == before {
                return Err(PolicyError::Unknown { port, object });
            }
            Ok(Some(Arc::new(group)))
        })
    })
    .await
}

/// Where a group is, or is to be.
struct GroupPlace {
    port: Name,
    layer: Name,
    group: Name,
}

impl GroupPlace {
    fn new(port: &str, layer: &str, group: &str) -> Result<Self, ApiError> {
        Ok(Self {
            port: api::name("port", port)?,
            layer: api::name("layer", layer)?,
            group: api::name("group", group)?,
        })
    }

    fn missing(&self) -> PolicyError {
        PolicyError::Unknown { port: self.port.clone(), object: format!("group {}/{}", self.layer, self.group) }
    }

    /// Puts what `change` makes of the group, or removes it; answers with the group's version as its tag.
    fn change(
        self,
        store: &PolicyStore,
        controller: &Controller,
        expected: Expected,
        change: impl FnOnce(Option<&Arc<Group>>) -> Result<Option<Arc<Group>>, PolicyError>,
    ) -> Result<Response, ApiError> {
        // The version that stays, because the group is what it was.
        let unchanged = Cell::new(None);
        let removed = Cell::new(false);
        let Self { port, layer, group } = self;
        let version = store.update(&port, controller, |policy, _| {
            let held = policy.layer(&layer).and_then(|layer| layer.group(&group));
            let object = || format!("group {layer}/{group}");
            let preconditions = expected.check(&port, object, held.map(|held| held.version), |version| {
                Precondition::Group { layer: layer.clone(), group: group.clone(), version }
            })?;
            let edit = match change(held.map(|held| &held.group))? {
                Some(wanted) => {
                    unchanged.set(held.filter(|held| held.group == wanted).map(|held| held.version));
                    Edit::PutGroup { layer: layer.clone(), group: wanted }
                }
                None => {
                    removed.set(true);
                    Edit::RemoveGroup { layer: layer.clone(), group: group.clone() }
                }
            };
            Ok((preconditions, vec![edit]))
        })?;
        if removed.get() {
            json(&Written { version })
        } else {
            tagged(&Written { version }, unchanged.get().unwrap_or(version))
        }
    }
}

/// A port's policy and what was counted, up to now.
pub(super) fn counted(store: &PolicyStore, port: &Name) -> Result<(PortView, Vec<LayerTotals>), ApiError> {
    store.board().settle(port).map_err(PolicyError::from)?;
    let view = store.view(port)?;
    let totals = view.snapshot.totals();
    Ok((view, totals))
}

fn find_layer<'a>(port: &Name, policy: &'a PortPolicy, layer: &str) -> Result<&'a Arc<Layer>, ApiError> {
    policy.layer(layer).ok_or_else(|| unknown(port, format!("layer {layer}")))
}

fn find_group<'a>(port: &Name, policy: &'a PortPolicy, layer: &str, group: &str) -> Result<&'a Versioned, ApiError> {
    let found = find_layer(port, policy, layer)?.group(group);
    found.ok_or_else(|| unknown(port, format!("group {layer}/{group}")))
}

pub(super) fn unknown(port: &Name, object: String) -> ApiError {
    PolicyError::Unknown { port: port.clone(), object }.into()
}
