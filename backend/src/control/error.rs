// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Why the node refuses a request, and how the API says so.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use switch::compile::CommitError;
use switch::document::DocumentError;
use switch::model::{GroupError, LayerError, ResourceError, TransactionError};
use thiserror::Error;
use utoipa::ToSchema;

use crate::config::{Fault, MAX_PORTS, Place};
use crate::inspect::{MAX_CAPTURES, MAX_TRACES};
use crate::policy::{Forbidden, PolicyError, SwitchboardError};

/// Why a node refuses to change. Each message is one line that names the thing.
#[derive(Debug, Error)]
pub enum ControlError {
    /// There is a port of that name.
    #[error("port \"{name}\" exists already")]
    DuplicatePort {
        /// The name.
        name: String,
    },
    /// The node has stopped, or a part of it does not answer; whether a change happened is not known.
    #[error("the node has stopped or does not answer")]
    Gone,
    /// The port has fewer queue pairs.
    #[error("port \"{name}\" has no queue pair {pair}: they are 0 to {last}")]
    NoPair {
        /// The port.
        name: String,
        /// Which was asked for.
        pair: u16,
        /// The last that it has.
        last: u16,
    },
    /// What the port asks for does not exist here.
    #[error(transparent)]
    Invalid(#[from] Fault),
    /// The port's socket or interface cannot be had.
    #[error("{cause}")]
    Open {
        /// The port.
        name: String,
        /// The key that names what cannot be had.
        field: &'static str,
        /// Why not; names the port.
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// As many capture as can at once.
    #[error("{MAX_CAPTURES} captures run already, which is the most")]
    TooManyCaptures,
    /// There are as many ports as a node serves.
    #[error("the node has {MAX_PORTS} ports, which is the most it serves")]
    TooManyPorts,
    /// As many trace drops as can at once.
    #[error("{MAX_TRACES} traces run already, which is the most")]
    TooManyTraces,
    /// A part of the node did not answer in time; whether the change happened is not known.
    #[error("the node did not answer within {seconds} s")]
    Unanswered {
        /// How long was waited.
        seconds: u64,
    },
    /// There is no port of that name.
    #[error("there is no port \"{name}\"")]
    UnknownPort {
        /// The name.
        name: String,
    },
}

/// The JSON of every answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// The cause, one line.
    pub error: String,
    /// What it is about, such as `port vm0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// The key of the request that is at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

/// An answer that is not a success.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    body: ErrorBody,
}

impl ApiError {
    /// An error about the request as such.
    pub(super) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, body: ErrorBody { error: error.into(), object: None, field: None } }
    }

    /// Names the object, where it is not known from the error.
    pub(super) fn about(mut self, object: impl Into<String>) -> Self {
        self.body.object.get_or_insert_with(|| object.into());
        self
    }

    fn field(mut self, field: &str) -> Self {
        self.body.field = Some(field.to_owned());
        self
    }
}

impl From<ControlError> for ApiError {
    fn from(error: ControlError) -> Self {
        let status = match &error {
            ControlError::DuplicatePort { .. } | ControlError::Open { .. } | ControlError::TooManyPorts => {
                StatusCode::CONFLICT
            }
            ControlError::Invalid(_) | ControlError::NoPair { .. } => StatusCode::BAD_REQUEST,
            ControlError::Gone
            | ControlError::TooManyCaptures
            | ControlError::TooManyTraces
            | ControlError::Unanswered { .. } => StatusCode::SERVICE_UNAVAILABLE,
            ControlError::UnknownPort { .. } => StatusCode::NOT_FOUND,
        };
        let answer = Self::new(status, error.to_string());
        match error {
            ControlError::UnknownPort { name } => answer.about(format!("port {name}")),
            ControlError::DuplicatePort { name } => answer.about(format!("port {name}")).field("name"),
            ControlError::Invalid(Fault { place, .. }) => answer.at(&place),
            ControlError::Open { name, field, .. } => answer.about(format!("port {name}")).field(field),
            ControlError::NoPair { name, .. } => answer.about(format!("port {name}")).field("queue"),
            ControlError::Gone
            | ControlError::TooManyCaptures
            | ControlError::TooManyPorts
            | ControlError::TooManyTraces
            | ControlError::Unanswered { .. } => answer,
        }
    }
}

impl ApiError {
    fn at(self, place: &Place) -> Self {
        if place.key.is_empty() { self } else { self.field(&place.key) }
    }
}

impl From<Fault> for ApiError {
    fn from(fault: Fault) -> Self {
        ControlError::from(fault).into()
    }
}

impl From<Forbidden> for ApiError {
    fn from(error: Forbidden) -> Self {
        let status = match error {
            Forbidden::BadToken => StatusCode::UNAUTHORIZED,
            Forbidden::WhichOne { .. } | Forbidden::OtherDocument { .. } => StatusCode::BAD_REQUEST,
            Forbidden::NoSuch { .. }
            | Forbidden::NotYou { .. }
            | Forbidden::OwnerOnly
            | Forbidden::ReadOnly
            | Forbidden::Stranger { .. } => StatusCode::FORBIDDEN,
        };
        Self::new(status, error.to_string())
    }
}

impl From<DocumentError> for ApiError {
    fn from(error: DocumentError) -> Self {
        let mut answer = Self::new(StatusCode::BAD_REQUEST, error.to_string());
        if !error.object.is_empty() {
            answer = answer.about(error.object);
        }
        if error.field.is_empty() { answer } else { answer.field(&error.field) }
    }
}

impl From<PolicyError> for ApiError {
    fn from(error: PolicyError) -> Self {
        let text = error.to_string();
        let (status, object) = match error {
            PolicyError::Absent { port, object } => {
                (StatusCode::PRECONDITION_FAILED, format!("port {port} / {object}"))
            }
            PolicyError::Refused { port, cause } => {
                let (status, object) = refused(*cause);
                (status, format!("port {port} / {object}"))
            }
            PolicyError::Resource { port, resource, .. } => {
                (StatusCode::BAD_REQUEST, format!("port {port} / resource {resource}"))
            }
            PolicyError::Switchboard(SwitchboardError::UnknownPort { port }) => {
                (StatusCode::NOT_FOUND, format!("port {port}"))
            }
            PolicyError::Switchboard(SwitchboardError::Wired { port }) => {
                (StatusCode::CONFLICT, format!("port {port}"))
            }
            PolicyError::Switchboard(SwitchboardError::Late { port }) => {
                (StatusCode::SERVICE_UNAVAILABLE, format!("port {port}"))
            }
            PolicyError::Switchboard(SwitchboardError::Gone) => return ControlError::Gone.into(),
            PolicyError::Unknown { port, object } => (StatusCode::NOT_FOUND, format!("port {port} / {object}")),
        };
        Self::new(status, text).about(object)
    }
}

/// How the API says that a transaction is refused: status, and what is in the way.
fn refused(error: CommitError) -> (StatusCode, String) {
    match error {
        CommitError::Compile(error) => (StatusCode::BAD_REQUEST, format!("group {}/{}", error.layer, error.group)),
        CommitError::Transaction(error) => match error {
            TransactionError::GroupConflict { layer, group, .. } => {
                (StatusCode::PRECONDITION_FAILED, format!("group {layer}/{group}"))
            }
            TransactionError::PolicyConflict { .. } => (StatusCode::PRECONDITION_FAILED, "policy".to_owned()),
            TransactionError::ResourceConflict { resource, .. } => {
                (StatusCode::PRECONDITION_FAILED, format!("resource {resource}"))
            }
            TransactionError::Layer { layer, cause } => layer_refused(&layer, cause),
            TransactionError::Resource { resource, cause } => {
                let status = match cause {
                    ResourceError::Owner { .. } => StatusCode::FORBIDDEN,
                    ResourceError::Unknown => StatusCode::NOT_FOUND,
                    ResourceError::Missing { .. } | ResourceError::TooManyMappings => StatusCode::CONFLICT,
                    _ => StatusCode::BAD_REQUEST,
                };
                (status, format!("resource {resource}"))
            }
            TransactionError::TooManyLayers => (StatusCode::CONFLICT, "layers".to_owned()),
            TransactionError::TooManyResources => (StatusCode::CONFLICT, "resources".to_owned()),
            TransactionError::UnknownLayer { layer } => (StatusCode::NOT_FOUND, format!("layer {layer}")),
        },
    }
}

fn layer_refused(layer: &str, cause: LayerError) -> (StatusCode, String) {
    let about = format!("layer {layer}");
    match cause {
        LayerError::Group { group, cause } => {
            let group = format!("group {layer}/{group}");
            let object = match cause {
                GroupError::Rule { rule, .. } => format!("{group} / rule {rule}"),
                _ => group,
            };
            (StatusCode::BAD_REQUEST, object)
        }
        LayerError::Owner { .. } | LayerError::Order { .. } => (StatusCode::FORBIDDEN, about),
        LayerError::SameOrder { .. } | LayerError::TooManyGroups { .. } => (StatusCode::CONFLICT, about),
        LayerError::UnknownGroup { group } => (StatusCode::NOT_FOUND, format!("group {layer}/{group}")),
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}
