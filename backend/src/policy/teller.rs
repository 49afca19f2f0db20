// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What workers say about policy, on its way to those who listen for it.
//!
//! Workers know ports by number, controllers by name. Numbers are used again after a port is gone, so the name that a number
//! had before is asked about first, and only then all others.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use packet::PortId;
use switch::Name;
use switch::engine::Event;

use super::PolicyStore;
use crate::NodeHandle;

/// Tells what happens in the policy of a node to the subscribers of `store`, until the node ends. Only the first call for a
/// node does so.
///
/// # Errors
/// No thread can be started.
pub fn tell_events(node: NodeHandle, store: Arc<PolicyStore>) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name("policy-events".to_owned()).spawn(move || {
        let Some(events) = node.take_events() else { return };
        let mut names = HashMap::new();
        for event in events {
            let (Event::Miss { port, .. } | Event::NatExhausted { port, .. }) = &event;
            let known = names.get(port).filter(|name| has_number(&node, name, *port)).cloned();
            // A port that is gone has nobody to be told.
            if let Some(name) = known.or_else(|| find(&node, *port)) {
                store.tell(&name, &event);
                names.insert(*port, name);
            }
        }
    })
}

fn find(node: &NodeHandle, port: PortId) -> Option<Name> {
    let mut names = node.ports().ok()?.into_iter().filter_map(|status| Name::new(status.name).ok());
    names.find(|name| has_number(node, name, port))
}

fn has_number(node: &NodeHandle, name: &Name, port: PortId) -> bool {
    node.ask_engine(name, |_, id, _| id).is_ok_and(|id| id.is_ok_and(|id| id == port))
}
