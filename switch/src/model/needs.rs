// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Resources in transactions: who may write them, and that every rule has what it needs.

use core::net::IpAddr;
use std::sync::Arc;

use super::policy::{MAX_RESOURCES, PortPolicy, VersionedResource};
use super::resource::{Answer, Content, Resource, ResourceError};
use super::transaction::{Controller, TransactionError};
use super::{Group, Layer, ResourceKind};
use crate::Name;

impl PortPolicy {
    pub(super) fn put_resource(
        &mut self,
        resource: &Arc<Resource>,
        controller: &Controller,
    ) -> Result<(), TransactionError> {
        resource.check().map_err(|cause| fault(&resource.name, cause))?;
        let version = self.version;
        let mine = Resource { controller: controller.name.clone(), ..Resource::clone(resource) };
        match self.place_of(&resource.name) {
            Ok(at) => {
                let held = self.owned_resource(at, &resource.name, controller)?;
                if *held.resource != mine {
                    *held = VersionedResource { version, resource: Arc::new(mine) };
                }
            }
            Err(_) if self.resources.len() >= MAX_RESOURCES => return Err(TransactionError::TooManyResources),
            Err(at) => self.resources.insert(at, VersionedResource { version, resource: Arc::new(mine) }),
        }
        Ok(())
    }

    pub(super) fn remove_resource(&mut self, name: &Name, controller: &Controller) -> Result<(), TransactionError> {
        let at = self.place_of(name).map_err(|_| fault(name, ResourceError::Unknown))?;
        self.owned_resource(at, name, controller)?;
        self.resources.remove(at);
        Ok(())
    }

    pub(super) fn put_mapping(
        &mut self,
        name: &Name,
        address: IpAddr,
        answer: Option<Answer>,
        controller: &Controller,
    ) -> Result<(), TransactionError> {
        let version = self.version;
        let at = self.place_of(name).map_err(|_| fault(name, ResourceError::Unknown))?;
        let held = self.owned_resource(at, name, controller)?;
        let Content::Map(map) = &mut Arc::make_mut(&mut held.resource).content else {
            return Err(fault(name, ResourceError::NoMap));
        };
        map.put(address, answer).map_err(|cause| fault(name, cause))?;
        held.version = version;
        Ok(())
    }

    /// Whether every rule finds the resource that it needs. What was so `before` is looked at again only where
    /// it can have changed.
    pub(super) fn check_needs(&self, before: &Self) -> Result<(), TransactionError> {
        let kept = before.resources.iter().all(|held| self.has(&held.resource.name, held.resource.kind()));
        for layer in &self.layers {
            let known = if kept { before.layer(&layer.name) } else { None };
            if known.is_some_and(|known| Arc::ptr_eq(known, layer)) {
                continue;
            }
            for held in &layer.groups {
                let known = known.and_then(|known| known.group(&held.group.name));
                if !known.is_some_and(|known| Arc::ptr_eq(&known.group, &held.group)) {
                    self.check_group(layer, &held.group)?;
                }
            }
        }
        Ok(())
    }

    fn check_group(&self, layer: &Layer, group: &Group) -> Result<(), TransactionError> {
        for rule in &group.rules {
            if let Some((name, kind)) = rule.action.resource()
                && !self.has(name, kind)
            {
                let (layer, group, rule) = (layer.name.clone(), group.name.clone(), rule.name.clone());
                return Err(fault(name, ResourceError::Missing { layer, group, rule }));
            }
        }
        Ok(())
    }

    fn has(&self, name: &Name, kind: ResourceKind) -> bool {
        self.resource(name).is_some_and(|held| held.resource.kind() == kind)
    }

    fn owned_resource(
        &mut self,
        at: usize,
        name: &Name,
        controller: &Controller,
    ) -> Result<&mut VersionedResource, TransactionError> {
        let held = self.resources.get_mut(at).ok_or_else(|| fault(name, ResourceError::Unknown))?;
        if held.resource.controller != controller.name {
            return Err(fault(name, ResourceError::Owner { owner: held.resource.controller.clone() }));
        }
        Ok(held)
    }

    fn place_of(&self, name: &Name) -> Result<usize, usize> {
        self.resources.binary_search_by(|held| (*held.resource.name).cmp(&**name))
    }
}

fn fault(resource: &Name, cause: ResourceError) -> TransactionError {
    TransactionError::Resource { resource: resource.clone(), cause }
}
