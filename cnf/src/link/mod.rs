// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A link of a CNF to its backend, which is attached again whenever the backend comes back.
//!
//! | file | job |
//! |---|---|
//! | `mod.rs` | the link: attaches, notices a loss, attaches again |
//! | `config.rs` | what is asked of it |
//! | `event.rs` | what it tells |
//! | `slot.rs` | where it meets its queues |
//!
//! Theory of operation. [`Link::tend`] does all the work, one step for each call: it looks at the connection every few
//! milliseconds, recalls the ports when the connection is lost or a ring broke, and knocks at the backend's door when the
//! time has come. In virtio-user's order the rings are made anew; in QEMU's they go on, and what the old backend did not
//! complete the new one has to.

mod config;
mod event;
mod slot;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vhost_user::{Frontend, Order};

pub use config::{Backoff, LinkConfig};
pub use event::{Event, Loss, WhyPlain};
pub(crate) use slot::{Shared, Slot};

use crate::aggregate::{Clock, FRONT, Speaker, Terms};
use crate::queue::Common;
use crate::{AttachError, Device, Endpoint, Port, Queue};

/// How often the connection is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// Frames of the negotiation that wait for their queue.
const MOST_SAID: usize = 16;

/// A link to a backend: the connection, and its care. The packets go through its [`Queue`]s.
///
/// ```no_run
/// use std::time::Duration;
///
/// use cnf::{Burst, Link, LinkConfig};
///
/// let (mut link, mut queues) = Link::attach(LinkConfig::new("/run/shunt/cnf0.sock"))?;
/// let queue = &mut queues[0];
/// let mut burst = Burst::new();
/// loop {
///     if let Some(event) = link.tend() {
///         eprintln!("{event}");
///     }
///     if queue.receive(&mut burst) == 0 {
///         queue.wait(Duration::from_millis(100));
///         continue;
///     }
///     for packet in burst.iter() {
///         queue.send(packet);
///     }
///     queue.flush();
/// }
/// # #[expect(unreachable_code, reason = "for the type")]
/// # Ok::<(), cnf::AttachError>(())
/// ```
#[derive(Debug)]
pub struct Link {
    endpoint: Endpoint,
    backoff: Backoff,
    slots: Vec<Arc<Slot>>,
    seen: Vec<u32>,
    state: State,
    next_look: Instant,
    clock: Clock,
    /// If aggregation is spoken of.
    speaker: Option<Speaker>,
    /// What the queues were told.
    terms: Terms,
}

/// Where a link stands.
#[derive(Debug)]
enum State {
    /// Attached: the queues have the ports.
    Up(Device),
    /// The backend was lost, and some ports are still with their queues. The device is kept: it holds the socket open
    /// until nobody uses the rings any more, and in QEMU's order the rings go on.
    Recalling(Device),
    /// Nobody is there. Knocks again at `next`.
    Down { failures: u32, next: Instant, kept: Kept },
}

/// What QEMU's order carries from one connection to the next.
#[derive(Debug, Default)]
struct Kept {
    frontend: Option<Frontend<OwnedFd>>,
    ports: Vec<Port>,
}

impl Link {
    /// Waits for the backend, as long as the device's configuration allows, and attaches.
    ///
    /// # Errors
    /// See [`AttachError`].
    pub fn attach(config: LinkConfig) -> Result<(Self, Vec<Queue>), AttachError> {
        let (mut link, mut queues) = Self::open(config)?;
        let device = link.endpoint.attach()?;
        link.bring_up(device)?;
        queues.iter_mut().for_each(Queue::flush);
        Ok((link, queues))
    }

    /// Makes the link without looking for the backend, which [`tend`](Self::tend) does then. In the server role the
    /// socket listens when this returns.
    ///
    /// # Errors
    /// See [`AttachError`].
    pub fn open(config: LinkConfig) -> Result<(Self, Vec<Queue>), AttachError> {
        let LinkConfig { device, backoff, aggregation } = config;
        let socket = device.socket.clone();
        let pairs = device.queue_pairs;
        let endpoint = Endpoint::open(device)?;
        let slots: Vec<Arc<Slot>> = (0..pairs)
            .map(|_| Slot::new().map(Arc::new))
            .collect::<Result<_, _>>()
            .map_err(|source| AttachError::Io { socket, step: "making a bell".to_owned(), source })?;
        let common = Common {
            lasting: endpoint.config().order == Order::Qemu,
            clock: Clock::start(),
            aggregation,
            numbers: Arc::default(),
            alone: pairs == 1,
        };
        let queues = (0..pairs).zip(&slots).map(|(index, slot)| Queue::new(index, Arc::clone(slot), &common)).collect();
        let now = Instant::now();
        let link = Self {
            endpoint,
            backoff,
            seen: vec![0; slots.len()],
            slots,
            state: State::Down { failures: 0, next: now, kept: Kept::default() },
            next_look: now,
            clock: common.clock,
            speaker: common.aggregation.map(Speaker::new),
            terms: Terms::default(),
        };
        Ok((link, queues))
    }

    /// Does what is due, and says what happened, if anything did. To be called again and again, at least ten times a
    /// second: it is cheap when nothing is due. A handshake with a backend that has come back is done within the call.
    pub fn tend(&mut self) -> Option<Event> {
        let now = Instant::now();
        let news = self.news();
        match &mut self.state {
            State::Up(_) if !news && now < self.next_look => None,
            State::Up(device) => {
                self.next_look = now + LOOK;
                let fault = if news { take_fault(&self.slots) } else { None };
                if fault.is_none() && device.is_connected() {
                    return self.negotiate(self.clock.at(now));
                }
                self.recall();
                Some(Event::Down(fault.map_or(Loss::Disconnected, Loss::Broken)))
            }
            State::Recalling(_) => {
                if news && self.slots.iter().all(|slot| !slot.lock().lent) {
                    self.take_down(now);
                }
                None
            }
            State::Down { next, .. } if now < *next => None,
            State::Down { .. } => Some(self.knock()),
        }
    }

    /// Whether a backend is attached, as far as is known.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(self.state, State::Up(_))
    }

    /// The attached device.
    #[must_use]
    pub fn device(&self) -> Option<&Device> {
        match &self.state {
            State::Up(device) => Some(device),
            State::Recalling(_) | State::Down { .. } => None,
        }
    }

    /// Ends what is agreed on with the other end, sends what waits, and waits at most `limit` until the device has taken all
    /// of it. A link that is dropped ends as well, but what it had not sent is lost.
    pub fn close(mut self, mut queues: Vec<Queue>, limit: Duration) {
        if let Some(speaker) = &mut self.speaker {
            speaker.close();
            self.negotiate(self.clock.now());
        }
        let end = Instant::now() + limit;
        queues.iter_mut().for_each(Queue::flush);
        while queues.iter_mut().any(|queue| queue.on_their_way() > 0) && Instant::now() < end {
            std::thread::yield_now();
            queues.iter_mut().for_each(Queue::flush);
        }
    }

    /// Speaks with the other end about aggregation, and says what came of it.
    fn negotiate(&mut self, now: u64) -> Option<Event> {
        let speaker = self.speaker.as_mut()?;
        for slot in &self.slots {
            if slot.take_heard() {
                speaker.heard(now);
            }
            let inbox = std::mem::take(&mut slot.lock().inbox);
            inbox.iter().for_each(|frame| speaker.hear(frame, now));
        }
        speaker.tick(now);
        let outbox: Vec<Vec<u8>> = std::iter::from_fn(|| speaker.next_frame(now)).collect();
        // The first pair speaks for all.
        if let (Some(slot), false) = (self.slots.first(), outbox.is_empty()) {
            let mut shared = slot.lock();
            shared.outbox.extend(outbox);
            // Nobody fetches them: what is said now is more than what was said long ago.
            let surplus = shared.outbox.len().saturating_sub(MOST_SAID);
            shared.outbox.drain(..surplus);
            drop(shared);
            slot.tell_queue();
        }
        let terms = speaker.terms();
        if terms != self.terms {
            self.terms = terms;
            for slot in &self.slots {
                slot.lock().terms = Some(terms);
                slot.tell_queue();
            }
        }
        speaker.event()
    }

    fn news(&mut self) -> bool {
        let slots = self.slots.iter().zip(&mut self.seen);
        slots.fold(false, |any, (slot, seen)| slot.news_for_link(seen) | any)
    }

    /// Asks for the ports.
    fn recall(&mut self) {
        self.speaker.iter_mut().for_each(Speaker::end);
        self.terms = Terms::default();
        let now = Instant::now();
        let nothing = State::Down { failures: 0, next: now, kept: Kept::default() };
        if let State::Up(device) = std::mem::replace(&mut self.state, nothing) {
            self.state = State::Recalling(device);
        }
        for slot in &self.slots {
            // One that was not picked up is not to be, any more.
            slot.lock().recalled = true;
            slot.tell_queue();
        }
        if self.slots.iter().all(|slot| !slot.lock().lent) {
            self.take_down(now);
        }
    }

    /// All ports are back.
    fn take_down(&mut self, now: Instant) {
        let ports: Vec<Port> = self
            .slots
            .iter()
            .filter_map(|slot| {
                let mut shared = slot.lock();
                (shared.recalled, shared.line, shared.fault) = (false, None, None);
                shared.port.take()
            })
            .collect();
        let next = now + self.backoff.first;
        let nothing = State::Down { failures: 0, next, kept: Kept::default() };
        let old = std::mem::replace(&mut self.state, nothing);
        if let (State::Recalling(device), Order::Qemu) = (old, self.endpoint.config().order) {
            let (frontend, _) = device.into_parts();
            let kept = Kept { frontend: Some(frontend), ports };
            self.state = State::Down { failures: 0, next, kept };
        }
    }

    /// Looks whether a backend is there.
    fn knock(&mut self) -> Event {
        match self.try_attach() {
            Ok(()) => Event::Up,
            Err(error) => {
                let again_in = match &mut self.state {
                    State::Down { failures, next, kept } => {
                        // Rings that cannot go on are made anew at the next attempt.
                        if matches!(error, AttachError::Changed { .. }) {
                            *kept = Kept::default();
                        }
                        *failures = failures.saturating_add(1);
                        let wait = self.backoff.after(*failures);
                        *next = Instant::now() + wait;
                        wait
                    }
                    State::Up(_) | State::Recalling(_) => Duration::ZERO,
                };
                Event::NotYet { error, again_in }
            }
        }
    }

    fn try_attach(&mut self) -> Result<(), AttachError> {
        if let State::Down { kept: Kept { frontend, ports }, .. } = &mut self.state
            && let Some(device) = self.endpoint.resume_now(frontend, ports)?
        {
            let ports = std::mem::take(ports);
            for port in &ports {
                port.wake_device()?;
            }
            return self.hand_out(device, ports);
        }
        let device = self.endpoint.attach_now()?;
        self.bring_up(device)
    }

    /// Gives the queues the ports of a fresh device.
    fn bring_up(&mut self, mut device: Device) -> Result<(), AttachError> {
        let ports = device.take_pairs().into_iter().map(Port::new).collect::<Result<_, _>>()?;
        self.hand_out(device, ports)
    }

    fn hand_out(&mut self, device: Device, ports: Vec<Port>) -> Result<(), AttachError> {
        let lines = self.slots.iter().map(|_| device.line()).collect::<Result<Vec<_>, _>>()?;
        for ((slot, port), line) in self.slots.iter().zip(ports).zip(lines) {
            let mut shared = slot.lock();
            *shared = Shared { port: Some(port), line: Some(line), ..Shared::default() };
            drop(shared);
            slot.tell_queue();
        }
        let features = device.queue_features();
        if let Some(speaker) = &mut self.speaker {
            let rx_buffer = self.endpoint.config().rx_buffer;
            let capacity = if features.mrg_rxbuf { u32::from(u16::MAX) + FRONT } else { rx_buffer };
            speaker.begin(capacity, self.clock.now());
        }
        self.state = State::Up(device);
        Ok(())
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        for slot in &self.slots {
            slot.lock().closed = true;
            slot.tell_queue();
        }
    }
}

/// Why a queue gave its port back by itself, if one did.
fn take_fault(slots: &[Arc<Slot>]) -> Option<crate::PortError> {
    slots.iter().find_map(|slot| slot.lock().fault.take())
}
