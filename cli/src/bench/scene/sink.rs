// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A CNF that receives.

use cnf::{Device, Port};

use super::traffic::Account;

/// Frames that are received at once, at most.
const BURST: usize = 64;

/// The longest frame.
const LONGEST: usize = 65_550;

/// A CNF that receives.
#[derive(Debug)]
pub(super) struct Sink {
    // Dropping it closes its connection.
    _device: Device,
    number: usize,
    pub(super) port: Port,
    buffer: Box<[u8]>,
    /// Frames received.
    pub(super) frames: u64,
}

impl Sink {
    pub(super) fn new(number: usize, device: Device, port: Port) -> Self {
        Self { _device: device, number, port, buffer: vec![0; LONGEST].into(), frames: 0 }
    }

    /// Takes what has arrived. Returns how many packets.
    #[inline]
    pub(super) fn step(&mut self, account: &mut Account) -> anyhow::Result<usize> {
        let before = account.received;
        let Self { number, port, buffer, .. } = self;
        let frames = port.receive_burst(BURST, |received| {
            let len = received.read(buffer);
            account.enter(*number, buffer.get(..len).unwrap_or_default());
        })?;
        self.frames += frames as u64;
        Ok(usize::try_from(account.received - before)?)
    }
}
