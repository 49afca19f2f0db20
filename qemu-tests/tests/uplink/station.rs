// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A guest in this process: the SDK's port, and a buffer for what has come.

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use cnf::{Device, DeviceConfig, Endpoint, Port};

use crate::SOON;

/// Room for a jumbo frame.
const BUFFER: u32 = 10_240;

/// A guest.
pub(crate) struct Station {
    port: Port,
    arrived: VecDeque<Vec<u8>>,
    _device: Device,
    _endpoint: Endpoint,
}

impl Station {
    pub(crate) fn attach(socket: &Path) -> Result<Self> {
        let endpoint =
            Endpoint::open(DeviceConfig { tx_buffer: BUFFER, rx_buffer: BUFFER, ..DeviceConfig::new(socket) })?;
        let mut device = endpoint.attach()?;
        let Some(pair) = device.take_pairs().pop() else { bail!("no queue pair") };
        Ok(Self { port: Port::new(pair)?, arrived: VecDeque::new(), _device: device, _endpoint: endpoint })
    }

    pub(crate) fn send(&mut self, frames: &[Vec<u8>]) -> Result<()> {
        let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
        let (start, mut sent) = (Instant::now(), 0);
        while sent < frames.len() {
            sent += self.port.send_burst(&frames[sent..])?;
            if start.elapsed() > SOON {
                bail!("the node took {sent} of {} frames", frames.len());
            }
        }
        Ok(())
    }

    /// The next frame for which `wanted` says yes; others are dropped.
    pub(crate) fn receive(&mut self, what: &str, mut wanted: impl FnMut(&[u8]) -> bool) -> Result<Vec<u8>> {
        let start = Instant::now();
        loop {
            if let Some(frame) = self.try_receive(&mut wanted)? {
                return Ok(frame);
            }
            if start.elapsed() > SOON {
                bail!("waited in vain for {what}");
            }
        }
    }

    /// As [`receive`](Self::receive), if one comes within some milliseconds.
    pub(crate) fn try_receive(&mut self, mut wanted: impl FnMut(&[u8]) -> bool) -> Result<Option<Vec<u8>>> {
        loop {
            while let Some(frame) = self.arrived.pop_front() {
                if wanted(&frame) {
                    return Ok(Some(frame));
                }
            }
            let arrived = &mut self.arrived;
            let taken = self.port.receive_burst(64, |received| {
                let mut frame = vec![0; received.len()];
                received.read(&mut frame);
                arrived.push_back(frame);
            })?;
            if taken == 0 {
                self.port.wait(Duration::from_millis(10));
                return Ok(None);
            }
        }
    }
}
