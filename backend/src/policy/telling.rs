// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! From the workers to controllers: what happened in policy, told by the names of ports.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread::{Builder, JoinHandle};

use switch::engine::Event;

use super::PolicyStore;
use crate::NodeHandle;

/// Events that are told by one look at the names of ports.
const BATCH: usize = 256;

/// Tells events for as long as the node's workers run.
#[derive(Debug)]
pub struct EventTeller(Option<JoinHandle<()>>);

impl EventTeller {
    /// Takes a node's events and tells them to whom they concern.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(node: NodeHandle, policy: Arc<PolicyStore>) -> io::Result<Self> {
        // Whoever took them before tells them.
        let Some(events) = node.take_events() else { return Ok(Self(None)) };
        let thread = Builder::new().name("events".to_owned()).spawn(move || tell(&node, &policy, &events))?;
        Ok(Self(Some(thread)))
    }

    /// Waits for the end, which comes when the node has stopped.
    pub fn join(mut self) {
        if self.0.take().is_some_and(|thread| thread.join().is_err()) {
            log::error!("the thread that tells events panicked");
        }
    }
}

fn tell(node: &NodeHandle, policy: &PolicyStore, events: &Receiver<Event>) {
    while let Ok(first) = events.recv() {
        let batch: Vec<_> = std::iter::once(first).chain(events.try_iter().take(BATCH - 1)).collect();
        // Numbers are given again to other ports, so names are not kept.
        let Ok(names) = node.port_names() else { return };
        let names: HashMap<_, _> = names.into_iter().collect();
        for event in batch {
            let (Event::Miss { port, .. } | Event::NatExhausted { port, .. }) = &event;
            if let Some(name) = names.get(port) {
                policy.tell(name, &event);
            }
        }
    }
}
