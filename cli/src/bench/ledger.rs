// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What all lanes enter their packets in: who sent them, how long they took, whether they are whole.

use super::frames::Transport;
use super::inspect::Inspector;
use super::latency::Latency;
use super::options::{HEADER, Options};
use super::stamp::{self, Account};
use super::tcp::Connections;

/// Accounts of everything that arrives.
#[derive(Debug)]
pub(super) struct Ledger {
    /// By source.
    pub(super) accounts: Vec<Account>,
    pub(super) latency: Latency,
    /// Frames that are none of ours, as announcements of a bridge are.
    pub(super) aliens: u64,
    pub(super) inspector: Inspector,
    /// Where the flows are TCP's.
    pub(super) connections: Option<Connections>,
}

impl Ledger {
    pub(super) fn new(options: &Options, sources: usize) -> anyhow::Result<Self> {
        let transport = options.transport();
        let headers = u32::try_from(transport.payload_at())?;
        Ok(Self {
            accounts: vec![Account::default(); sources],
            latency: Latency::new(sources)?,
            aliens: 0,
            inspector: Inspector::new(transport, options.size, options.expect),
            connections: (transport == Transport::Tcp)
                .then(|| Connections::new(options.flows, options.size.saturating_sub(headers))),
        })
    }

    /// The stamp that is due from a source.
    #[inline(always)]
    pub(super) fn due(&self, source: u8) -> u64 {
        stamp::stamp(source, self.accounts.get(usize::from(source)).map_or(0, |account| account.due))
    }

    /// Everything from a source up to this stamp has arrived in turn.
    #[inline(always)]
    pub(super) fn settle(&mut self, source: u8, due: u64) {
        if let Some(account) = self.accounts.get_mut(usize::from(source)) {
            account.advance(stamp::sequence(due));
        }
    }

    /// Enters one frame with all that may be special about it; says whose it was.
    pub(super) fn enter(&mut self, stamp: u64) -> Option<u8> {
        let Some((source, sequence)) = stamp::read(stamp) else {
            self.aliens += 1;
            return None;
        };
        self.accounts.get_mut(usize::from(source))?.enter(sequence);
        self.latency.arrive(source, sequence);
        Some(source)
    }
}

/// Where a lane finds things in a buffer, behind the virtio-net header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places {
    pub(super) balance: u32,
    pub(super) stamp: u32,
}

impl Places {
    pub(super) fn of(transport: Transport) -> Self {
        let at = |offset: usize| HEADER + u32::try_from(offset).unwrap_or(0);
        Self { balance: at(transport.balance_at()), stamp: at(transport.stamp_at()) }
    }
}
