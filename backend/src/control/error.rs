// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Why the node refuses a request, and how the API says so.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;

use crate::config::{Fault, MAX_PORTS, Place};

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
    /// There are as many ports as a node serves.
    #[error("the node has {MAX_PORTS} ports, which is the most it serves")]
    TooManyPorts,
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
            ControlError::Invalid(_) => StatusCode::BAD_REQUEST,
            ControlError::Gone | ControlError::Unanswered { .. } => StatusCode::SERVICE_UNAVAILABLE,
            ControlError::UnknownPort { .. } => StatusCode::NOT_FOUND,
        };
        let answer = Self::new(status, error.to_string());
        match error {
            ControlError::UnknownPort { name } => answer.about(format!("port {name}")),
            ControlError::DuplicatePort { name } => answer.about(format!("port {name}")).field("name"),
            ControlError::Invalid(Fault { place, .. }) => answer.at(&place),
            ControlError::Open { name, field, .. } => answer.about(format!("port {name}")).field(field),
            ControlError::Gone | ControlError::TooManyPorts | ControlError::Unanswered { .. } => answer,
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

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}
