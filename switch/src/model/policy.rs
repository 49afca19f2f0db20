// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The policy of one port.

use std::sync::Arc;

use super::layer::Layer;
use super::resource::Resource;
use super::rule::Direction;

/// Most layers of a port.
pub const MAX_LAYERS: usize = 32;

/// Most resources of a port.
pub const MAX_RESOURCES: usize = 256;

/// Layers in ascending order, resources by name, and how many transactions made them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortPolicy {
    pub(super) version: u64,
    pub(super) layers: Vec<Arc<Layer>>,
    pub(super) resources: Vec<VersionedResource>,
}

/// A resource and the version under which it was last changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionedResource {
    /// The policy's version that changed it.
    pub version: u64,
    /// The resource.
    pub resource: Arc<Resource>,
}

impl PortPolicy {
    /// No layers: everything passes.
    #[must_use]
    pub const fn empty() -> Self {
        Self { version: 0, layers: Vec::new(), resources: Vec::new() }
    }

    /// Grows by one with each transaction.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// The layers, nearest the VM first.
    #[must_use]
    pub fn layers(&self) -> &[Arc<Layer>] {
        &self.layers
    }

    /// The layers in the order in which packets of a direction meet them (VF-4).
    pub fn walk(&self, direction: Direction) -> impl Iterator<Item = &Arc<Layer>> {
        let (ascending, descending) = match direction {
            Direction::Out => (Some(self.layers.iter()), None),
            Direction::In => (None, Some(self.layers.iter().rev())),
        };
        ascending.into_iter().flatten().chain(descending.into_iter().flatten())
    }

    /// A layer by its name.
    #[must_use]
    pub fn layer(&self, name: &str) -> Option<&Arc<Layer>> {
        self.layers.iter().find(|layer| &*layer.name == name)
    }

    /// The resources, by name.
    #[must_use]
    pub fn resources(&self) -> &[VersionedResource] {
        &self.resources
    }

    /// A resource by its name.
    #[must_use]
    pub fn resource(&self, name: &str) -> Option<&VersionedResource> {
        let at = self.resources.binary_search_by(|held| (*held.resource.name).cmp(name)).ok()?;
        self.resources.get(at)
    }
}
