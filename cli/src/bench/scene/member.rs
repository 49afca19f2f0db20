// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A CNF's end of its rings, and what it agrees on with the node.

use aggregation::Reader;
use anyhow::Context;
use cnf::{Device, Port};

use super::bundle;
use super::talk::Talk;

/// Frames that are received at once, at most.
const BURST: usize = 64;

/// The longest frame.
const LONGEST: usize = 65_550;

/// A CNF.
#[derive(Debug)]
pub(super) struct Member {
    // Dropping it closes its connection.
    _device: Device,
    pub(super) port: Port,
    talk: Option<Talk>,
    buffer: Box<[u8]>,
    reader: Reader,
    /// Frames received.
    pub(super) frames: u64,
}

impl Member {
    /// Takes over a device; `talk`: it is to agree on aggregates.
    pub(super) fn new(mut device: Device, talk: Option<Talk>) -> anyhow::Result<Self> {
        let pair = device.take_pairs().into_iter().next().context("a device without queues")?;
        let port = Port::new(pair)?;
        let buffer = vec![0; LONGEST].into();
        Ok(Self { _device: device, port, talk, buffer, reader: Reader::default(), frames: 0 })
    }

    /// Whether all that is to be agreed is.
    pub(super) fn is_ready(&self) -> bool {
        self.talk.as_ref().is_none_or(Talk::is_up)
    }

    /// Says what is due.
    pub(super) fn glance(&mut self) -> anyhow::Result<()> {
        match &mut self.talk {
            Some(talk) => talk.say(&mut self.port),
            None => Ok(()),
        }
    }

    /// Gives each packet that has arrived to `with`, whatever it came in. Returns how many frames there were.
    #[inline]
    pub(super) fn hear(&mut self, mut with: impl FnMut(&[u8])) -> anyhow::Result<usize> {
        let Self { port, talk, buffer, reader, .. } = self;
        let mut trouble = None;
        let frames = port.receive_burst(BURST, |received| {
            let len = received.read(buffer);
            let frame = buffer.get(..len).unwrap_or_default();
            match talk.as_mut().map_or(Ok(false), |talk| talk.hear(frame)) {
                Ok(true) => {}
                Ok(false) => bundle::packets(reader, frame, &mut with),
                Err(error) => trouble = Some(error),
            }
        })?;
        self.frames += frames as u64;
        trouble.map_or(Ok(frames), Err)
    }
}
