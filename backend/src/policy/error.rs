// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Why policy does not change.

use switch::Name;
use switch::compile::CommitError;
use switch::model::ResourceError;

use super::SwitchboardError;

/// Why policy does not change. Each message is one line that names the thing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The running switch does not take it.
    #[error(transparent)]
    Switchboard(#[from] SwitchboardError),
    /// The policy would not hold together, or cannot be compiled.
    #[error("port {port:?}: {cause}")]
    Refused {
        /// The port.
        port: Name,
        /// What is in the way.
        cause: Box<CommitError>,
    },
    /// A resource that does not hold together.
    #[error("port {port:?}: resource {resource:?}: {cause}")]
    Resource {
        /// The port.
        port: Name,
        /// The resource.
        resource: Name,
        /// What is wrong with it.
        cause: ResourceError,
    },
    /// There is no such object.
    #[error("port {port:?} has no {object}")]
    Unknown {
        /// The port.
        port: Name,
        /// What was looked for: `group acl/web`.
        object: String,
    },
}
