// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Misses and exhausted ranges, on their way to controllers.
//!
//! Each subscriber has a bounded queue. Who does not keep up loses events; how many is counted and told before the next one:
//! a controller that lost some looks at what it owns instead.

use core::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use switch::Name;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Most subscribers of a node.
pub const MAX_SUBSCRIBERS: usize = 64;
/// Events that wait for one subscriber.
const QUEUE: usize = 1024;

/// Something that a controller wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyEvent {
    /// Whom it concerns.
    pub controller: Name,
    /// The port.
    pub port: Name,
    /// What happened.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A map does not say what is asked of it; packets wait (VF-14).
    Miss {
        /// The map.
        resource: Name,
        /// What is asked.
        address: IpAddr,
    },
    /// A rule has no address and port left for a new connection.
    NatExhausted {
        /// `layer/group/rule`.
        rule: String,
    },
}

/// Where events are told and heard.
#[derive(Debug, Default)]
pub struct EventHub {
    subscribers: Mutex<Vec<Subscriber>>,
    lost: AtomicU64,
}

#[derive(Debug)]
struct Subscriber {
    controller: Option<Name>,
    sender: Sender<PolicyEvent>,
    lagged: Arc<AtomicU64>,
}

/// Hears events.
#[derive(Debug)]
pub struct Subscription {
    receiver: Receiver<PolicyEvent>,
    lagged: Arc<AtomicU64>,
}

/// What a subscription hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// An event.
    Event(PolicyEvent),
    /// So many events were lost before the next one, because nobody took them in time.
    Lagged(u64),
}

impl EventHub {
    /// Subscribes to what concerns a controller; `None`: to everything.
    ///
    /// `None` if there are too many subscribers.
    #[must_use]
    pub fn subscribe(&self, controller: Option<Name>) -> Option<Subscription> {
        let mut subscribers = self.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        subscribers.retain(|subscriber| !subscriber.sender.is_closed());
        if subscribers.len() >= MAX_SUBSCRIBERS {
            return None;
        }
        let (sender, receiver) = channel(QUEUE);
        let lagged = Arc::new(AtomicU64::new(0));
        subscribers.push(Subscriber { controller, sender, lagged: Arc::clone(&lagged) });
        Some(Subscription { receiver, lagged })
    }

    /// Tells those whom an event concerns. Never waits.
    pub fn tell(&self, event: &PolicyEvent) {
        let mut subscribers = self.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        subscribers.retain(|Subscriber { controller, sender, lagged }| {
            if controller.as_ref().is_some_and(|controller| *controller != event.controller) {
                return true;
            }
            match sender.try_send(event.clone()) {
                Ok(()) => true,
                Err(TrySendError::Closed(_)) => false,
                Err(TrySendError::Full(_)) => {
                    lagged.fetch_add(1, Ordering::Relaxed);
                    self.lost.fetch_add(1, Ordering::Relaxed);
                    true
                }
            }
        });
    }

    /// Events that some subscriber did not hear.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Subscription {
    /// The next thing to hear; `None` when there will be none.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Heard>> {
        let waiting = !self.receiver.is_empty();
        if waiting {
            let lagged = self.lagged.swap(0, Ordering::Relaxed);
            if lagged > 0 {
                return Poll::Ready(Some(Heard::Lagged(lagged)));
            }
        }
        Poll::Ready(ready!(self.receiver.poll_recv(context)).map(Heard::Event))
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).expect("a name")
    }

    fn miss(controller: &str, last: u8) -> PolicyEvent {
        let what = What::Miss { resource: name("d"), address: IpAddr::from([10, 0, 0, last]) };
        PolicyEvent { controller: name(controller), port: name("vm0"), what }
    }

    fn hear(subscription: &mut Subscription) -> Option<Heard> {
        match subscription.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(heard) => heard,
            Poll::Pending => None,
        }
    }

    #[test]
    fn everybody_hears_what_concerns_him() {
        let hub = EventHub::default();
        let (mut a, mut all) = (hub.subscribe(Some(name("a"))).expect("room"), hub.subscribe(None).expect("room"));
        hub.tell(&miss("a", 1));
        hub.tell(&miss("b", 2));
        assert_eq!(hear(&mut a), Some(Heard::Event(miss("a", 1))));
        assert_eq!(hear(&mut a), None);
        assert_eq!([hear(&mut all), hear(&mut all)], [miss("a", 1), miss("b", 2)].map(|e| Some(Heard::Event(e))));
        assert_eq!(hub.lost(), 0);
    }

    #[test]
    fn who_does_not_keep_up_is_told_how_much_he_missed() {
        let hub = EventHub::default();
        let mut slow = hub.subscribe(None).expect("room");
        for _ in 0..QUEUE + 3 {
            hub.tell(&miss("a", 1));
        }
        assert_eq!((hear(&mut slow), hub.lost()), (Some(Heard::Lagged(3)), 3));
        for _ in 0..QUEUE {
            assert_eq!(hear(&mut slow), Some(Heard::Event(miss("a", 1))));
        }
        assert_eq!(hear(&mut slow), None);
    }

    #[test]
    fn places_of_those_who_left_are_free_again() {
        let hub = EventHub::default();
        let all: Vec<_> = (0..MAX_SUBSCRIBERS).map(|_| hub.subscribe(None).expect("room")).collect();
        assert!(hub.subscribe(None).is_none());
        drop(all);
        assert!(hub.subscribe(None).is_some());
    }
}
