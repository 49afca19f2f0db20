// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! From one policy to the next.

use core::net::IpAddr;
use std::sync::Arc;

use super::group::Group;
use super::layer::{Default, Layer, LayerError};
use super::policy::{MAX_LAYERS, MAX_RESOURCES, PortPolicy};
use super::resource::{Answer, Resource, ResourceError};
use crate::Name;

/// Who writes, as the control plane made sure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Controller {
    /// Its name.
    pub name: Name,
    /// The lowest and the highest order that its layers may have.
    pub order: [u32; 2],
}

/// One request of one controller for one port: all of it happens, or nothing.
#[derive(Clone, Debug)]
pub struct Transaction {
    /// Who asks.
    pub controller: Controller,
    /// What must still be so; checked before anything is done.
    pub preconditions: Vec<Precondition>,
    /// What is to be done, in this order.
    pub edits: Vec<Edit>,
}

/// Something that the controller believes; another may have written in between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// The group was last put under this version; `None`: it is not there.
    Group {
        /// Its layer.
        layer: Name,
        /// The group.
        group: Name,
        /// The version last read.
        version: Option<u64>,
    },
    /// The whole policy has this version.
    Policy {
        /// The version last read.
        version: u64,
    },
    /// The resource was last changed under this version; `None`: it is not there.
    Resource {
        /// The resource.
        resource: Name,
        /// The version last read.
        version: Option<u64>,
    },
}

/// A step of a transaction.
#[derive(Clone, Debug)]
pub enum Edit {
    /// Creates a layer, or gives it another order or default. Its groups stay.
    PutLayer {
        /// Its name.
        name: Name,
        /// Its order.
        order: u32,
        /// Its default.
        default: Default,
    },
    /// Removes a layer with all its groups.
    RemoveLayer {
        /// Its name.
        name: Name,
    },
    /// Creates a group or replaces it. One that is equal to what is there stays what it is, version and all.
    PutGroup {
        /// Its layer.
        layer: Name,
        /// The group.
        group: Arc<Group>,
    },
    /// Removes a group.
    RemoveGroup {
        /// Its layer.
        layer: Name,
        /// Its name.
        group: Name,
    },
    /// Creates a resource or replaces it; it belongs to whoever creates it.
    PutResource {
        /// The resource. Whose it is said to be does not matter.
        resource: Arc<Resource>,
    },
    /// Removes a resource that no rule needs any more.
    RemoveResource {
        /// Its name.
        name: Name,
    },
    /// Puts an entry of a map, or removes it.
    PutMapping {
        /// The map.
        resource: Name,
        /// The key.
        address: IpAddr,
        /// What is known of it; `None`: nothing any more.
        answer: Option<Answer>,
    },
}

/// Why nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    /// Somebody else wrote the group in between.
    #[error("group {layer}/{group} has version {now}, not {expected}", now = show(*.now), expected = show(*.expected))]
    GroupConflict {
        /// Its layer.
        layer: Name,
        /// The group.
        group: Name,
        /// The version it has; `None`: it is not there.
        now: Option<u64>,
        /// The version it was believed to have.
        expected: Option<u64>,
    },
    /// A layer would not hold together.
    #[error("layer {layer:?}: {cause}")]
    Layer {
        /// Which one.
        layer: Name,
        /// What is wrong with it.
        cause: LayerError,
    },
    /// Somebody else wrote in between.
    #[error("the policy has version {now}, not {expected}")]
    PolicyConflict {
        /// The version it has.
        now: u64,
        /// The version it was believed to have.
        expected: u64,
    },
    /// A resource would not hold together.
    #[error("resource {resource:?}: {cause}")]
    Resource {
        /// Which one.
        resource: Name,
        /// What is wrong with it.
        cause: ResourceError,
    },
    /// Somebody else wrote the resource in between.
    #[error("resource {resource} has version {now}, not {expected}", now = show(*.now), expected = show(*.expected))]
    ResourceConflict {
        /// The resource.
        resource: Name,
        /// The version it has; `None`: it is not there.
        now: Option<u64>,
        /// The version it was believed to have.
        expected: Option<u64>,
    },
    /// More layers than a port may have.
    #[error("a port has at most {MAX_LAYERS} layers")]
    TooManyLayers,
    /// More resources than a port may have.
    #[error("a port has at most {MAX_RESOURCES} resources")]
    TooManyResources,
    /// There is no such layer.
    #[error("there is no layer {layer:?}")]
    UnknownLayer {
        /// The name given.
        layer: Name,
    },
}

impl PortPolicy {
    /// The policy that a transaction makes of this one.
    ///
    /// # Errors
    /// The first thing that is in the way; nothing has changed then.
    pub fn after(&self, transaction: &Transaction) -> Result<Self, TransactionError> {
        for precondition in &transaction.preconditions {
            self.check(precondition)?;
        }
        let version = self.version.saturating_add(1);
        let mut next = Self { version, layers: self.layers.clone(), resources: self.resources.clone() };
        for edit in &transaction.edits {
            next.edit(edit, &transaction.controller)?;
        }
        next.settle()?;
        next.check_needs(self)?;
        Ok(next)
    }

    fn check(&self, precondition: &Precondition) -> Result<(), TransactionError> {
        match *precondition {
            Precondition::Group { ref layer, ref group, version: expected } => {
                let now = self.layer(layer).and_then(|layer| layer.group(group)).map(|group| group.version);
                if now == expected {
                    return Ok(());
                }
                let (layer, group) = (layer.clone(), group.clone());
                Err(TransactionError::GroupConflict { layer, group, now, expected })
            }
            Precondition::Policy { version } if version == self.version => Ok(()),
            Precondition::Policy { version: expected } => {
                Err(TransactionError::PolicyConflict { now: self.version, expected })
            }
            Precondition::Resource { ref resource, version: expected } => {
                let now = self.resource(resource).map(|held| held.version);
                if now == expected {
                    return Ok(());
                }
                Err(TransactionError::ResourceConflict { resource: resource.clone(), now, expected })
            }
        }
    }

    fn edit(&mut self, edit: &Edit, controller: &Controller) -> Result<(), TransactionError> {
        match edit {
            Edit::PutLayer { name, order, default } => self.put_layer(name, *order, *default, controller),
            Edit::RemoveLayer { name } => {
                let at = self.owned(name, controller)?;
                self.layers.remove(at);
                Ok(())
            }
            Edit::PutGroup { layer, group } => {
                let version = self.version;
                self.change(layer, controller, |layer| layer.put(Arc::clone(group), version))
            }
            Edit::RemoveGroup { layer, group } => self.change(layer, controller, |layer| layer.remove(group)),
            Edit::PutResource { resource } => self.put_resource(resource, controller),
            Edit::RemoveResource { name } => self.remove_resource(name, controller),
            Edit::PutMapping { resource, address, answer } => self.put_mapping(resource, *address, *answer, controller),
        }
    }

    fn put_layer(
        &mut self,
        name: &Name,
        order: u32,
        default: Default,
        controller: &Controller,
    ) -> Result<(), TransactionError> {
        let mut layer = match self.position(name) {
            Some(_) => {
                let at = self.owned(name, controller)?;
                Arc::unwrap_or_clone(self.layers.remove(at))
            }
            None if self.layers.len() == MAX_LAYERS => return Err(TransactionError::TooManyLayers),
            None => {
                let controller = controller.name.clone();
                Layer { name: name.clone(), controller, order, default, groups: Vec::new() }
            }
        };
        (layer.order, layer.default) = (order, default);
        let fault = |cause| TransactionError::Layer { layer: name.clone(), cause };
        layer.check_owner(controller).map_err(fault)?;
        self.layers.push(Arc::new(layer));
        Ok(())
    }

    /// Brings the layers into their order, after all edits: layers may change places in one transaction.
    fn settle(&mut self) -> Result<(), TransactionError> {
        self.layers.sort_by_key(|layer| layer.order);
        for (layer, next) in self.layers.iter().zip(self.layers.iter().skip(1)) {
            if layer.order == next.order {
                let cause = LayerError::SameOrder { other: layer.name.clone(), order: layer.order };
                return Err(TransactionError::Layer { layer: next.name.clone(), cause });
            }
        }
        Ok(())
    }

    fn change(
        &mut self,
        name: &Name,
        controller: &Controller,
        change: impl FnOnce(&mut Layer) -> Result<(), LayerError>,
    ) -> Result<(), TransactionError> {
        let at = self.owned(name, controller)?;
        let Some(layer) = self.layers.get_mut(at) else { return Ok(()) };
        change(Arc::make_mut(layer)).map_err(|cause| TransactionError::Layer { layer: name.clone(), cause })
    }

    /// Where a layer stands that `controller` may write.
    fn owned(&self, name: &Name, controller: &Controller) -> Result<usize, TransactionError> {
        let unknown = || TransactionError::UnknownLayer { layer: name.clone() };
        let at = self.position(name).ok_or_else(unknown)?;
        let layer = self.layers.get(at).ok_or_else(unknown)?;
        if layer.controller != controller.name {
            let cause = LayerError::Owner { owner: layer.controller.clone() };
            return Err(TransactionError::Layer { layer: name.clone(), cause });
        }
        Ok(at)
    }

    fn position(&self, name: &Name) -> Option<usize> {
        self.layers.iter().position(|layer| layer.name == *name)
    }
}

fn show(version: Option<u64>) -> String {
    version.map_or_else(|| "none".to_owned(), |version| version.to_string())
}
