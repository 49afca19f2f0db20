// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One TCP connection through the virtual address: the client sends random bytes until it is told to stop; then the service
//! answers, on the same connection, with the hash of all that arrived.

use anyhow::{Context, Result, ensure};
use harness::transfer::{self, hash};
use harness::wait::wait_until;

use super::hosts::{Hosts, VIP};
use crate::SOON;

/// What has to arrive for the connection to be said to go on: more than a window.
const PROGRESS: u64 = 96 << 10;

/// The connection; it runs in the background of the client's shell.
pub(super) struct Upload {
    begun: u64,
}

impl Upload {
    pub(super) fn begin(hosts: &mut Hosts) -> Result<Self> {
        let upload = Self { begun: received(hosts)? };
        hosts.client.sh("mkfifo /tmp/copy && (sha256sum </tmp/copy >/tmp/sent-hash 2>&1 &)", SOON)?;
        let random = "while [ ! -e /tmp/stop ]; do head -c 65536 /dev/urandom; done";
        let send = format!("({random}) | tee /tmp/copy | nc {VIP} 80 >/tmp/answer 2>&1; echo $? >/tmp/status");
        hosts.client.sh(&format!("(({send}) &)"), SOON)?;
        upload.goes_on(hosts)?;
        Ok(upload)
    }

    /// Waits until more has arrived.
    #[expect(clippy::unused_self, reason = "it is the connection that goes on")]
    pub(super) fn goes_on(&self, hosts: &Hosts) -> Result<()> {
        let goal = received(hosts)? + PROGRESS;
        wait_until("the server to receive more", transfer::LIMIT, || Ok(received(hosts)? >= goal))
    }

    /// Ends it, and compares hashes.
    pub(super) fn finish(self, hosts: &mut Hosts) -> Result<()> {
        let done = "touch /tmp/stop; until [ -s /tmp/status ]; do usleep 20000; done";
        let show = "cat /tmp/status /tmp/answer; echo sent; cat /tmp/sent-hash";
        let text = hosts.client.sh(&format!("{done}; {show}"), transfer::LIMIT)?;
        let (answer, sent) = text.split_once("sent\n").with_context(|| text.clone())?;
        ensure!(answer.starts_with("0\n"), "the connection broke: {text}");
        ensure!(hash(answer).is_some() && hash(answer) == hash(sent), "the hashes differ: {text}");
        let sent = received(hosts)? - self.begun;
        ensure!(sent > 4 * PROGRESS, "{sent} bytes");
        Ok(())
    }
}

/// Bytes that the server's guest was given.
pub(super) fn received(hosts: &Hosts) -> Result<u64> {
    Ok(hosts.counted(1, "vm0/metering/received")?.bytes)
}
