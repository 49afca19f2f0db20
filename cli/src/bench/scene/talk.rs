// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a CNF and the node agree on, before anything is measured and while it is.

use std::time::Duration;

use aggregation::negotiation::{Announce, Config, Event, Features, Link, MAX_CONTROL, Offer};
use anyhow::{Context, bail};
use backend::sys::{Clock, cycles};
use cnf::Port;

use super::bundle::ETHER_TYPE;

/// What the CNFs of a scene take.
const MAX_BYTES: u32 = 16_384;

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;

/// So often what is due is looked for, while packets are sent.
pub(super) const GLANCE: Duration = Duration::from_millis(100);

/// One side of the link between a CNF and the node.
#[derive(Debug)]
pub(super) struct Talk {
    link: Link<()>,
    /// Whether aggregates may be sent.
    up: bool,
    clock: Clock,
}

impl Talk {
    /// Of a CNF by its number, from 0 on.
    pub(super) fn new(number: u16) -> Self {
        let clock = Clock::get();
        let offer = Offer {
            versions: (1, 1),
            encapsulations: 1,
            align_log2: 2,
            max_bytes: MAX_BYTES,
            max_packets: u16::MAX,
            features: Features::default(),
            keepalive_ms: 1000,
        };
        // Every scene has a node of its own, so there is no earlier incarnation.
        let (node, session, announce) = (100 + number, 1 + u32::from(number), Announce::Peer(()));
        let config = Config { node, session, offer, name: b"bench".to_vec(), announce, max_peers: 1 };
        Self { link: Link::new(config, clock.nanos_at(cycles())), up: false, clock }
    }

    /// Whether aggregates may be sent to the node.
    pub(super) const fn is_up(&self) -> bool {
        self.up
    }

    /// Takes a frame that has arrived. `false`: it is none of the negotiation.
    #[inline]
    pub(super) fn hear(&mut self, frame: &[u8]) -> anyhow::Result<bool> {
        let control =
            frame.get(12..14) == Some(&ETHER_TYPE) && frame.get(ETHERNET + 1).is_some_and(|flags| flags & 0x80 != 0);
        if control {
            let now = self.clock.nanos_at(cycles());
            let (mut up, mut lost) = (self.up, None);
            self.link.handle((), frame.get(ETHERNET..).unwrap_or_default(), now, |event| match event {
                Event::Up { .. } => up = true,
                Event::Accept { .. } => {}
                other => lost = Some(other),
            })?;
            self.up = up;
            if let Some(event) = lost {
                bail!("the node no longer agrees to aggregates: {event:?}");
            }
        }
        Ok(control)
    }

    /// Says what is due.
    pub(super) fn say(&mut self, port: &mut Port) -> anyhow::Result<()> {
        let mut frame = [0; ETHERNET + MAX_CONTROL];
        frame[..6].copy_from_slice(&[2, 0x53, 0x48, 0x55, 0x4e, 0x54]);
        frame[6..12].copy_from_slice(&[2, 0x53, 0x48, 0x55, 0x4e, 0x43]);
        frame[12..14].copy_from_slice(&ETHER_TYPE);
        let now = self.clock.nanos_at(cycles());
        while let Some(((), len)) = self.link.poll_transmit(now, &mut frame[ETHERNET..]) {
            let bytes = frame.get(..ETHERNET + len).context("a long control frame")?;
            port.send_burst(&[bytes])?;
        }
        Ok(())
    }
}
