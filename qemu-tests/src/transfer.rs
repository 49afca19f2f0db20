// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! TCP transfers whose hashes are compared.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::guest::{Guest, Running};
use crate::netns::NetNs;
use crate::process::Process;
use crate::scenario::WorkDir;
use crate::wait::wait_until;

/// The port that receivers listen at.
const PORT: u16 = 5001;
/// How long a transfer between emulated guests may take.
pub const LIMIT: Duration = Duration::from_secs(180);

/// How long a receiver may take to listen.
const SOON: Duration = Duration::from_secs(30);

/// A transfer of random bytes under way between two guests.
#[derive(Debug)]
#[must_use = "a transfer is finished by finish()"]
pub struct Transfer {
    sending: Running,
    receiving: Running,
    bytes: u64,
}

impl Transfer {
    /// Makes `mib` MiB of random bytes in `from` and begins to send them to `to`.
    pub fn begin(from: &mut Guest, to: &mut Guest, mib: u64) -> Result<Self> {
        from.sh(&format!("dd if=/dev/urandom of=/tmp/sent bs=1M count={mib}"), LIMIT)?;
        // The receiver's input is a pipe that never ends: nc would close the connection at the end of its input.
        let receive = format!(
            "rm -f /tmp/hold; mkfifo /tmp/hold; nc -l -p {PORT} <>/tmp/hold >/tmp/received; \
             stat -c %s /tmp/received; sha256sum </tmp/received; rm /tmp/received"
        );
        let receiving = to.begin(&receive)?;
        // The receiver's shell is busy, so the sender tries until the port is open.
        let sending = from.begin(&format!(
            "until nc {} {PORT} < /tmp/sent; do usleep 100000; done; sha256sum < /tmp/sent; rm /tmp/sent",
            to.ip()
        ))?;
        Ok(Self { sending, receiving, bytes: mib << 20 })
    }

    /// Waits for its end and compares length and hash.
    pub fn finish(self, from: &mut Guest, to: &mut Guest) -> Result<()> {
        let received = to.finish(&self.receiving, LIMIT).context("receiver")?.text;
        let sent = from.finish(&self.sending, LIMIT).context("sender")?.text;
        let mut lines = received.lines();
        let length: u64 =
            lines.next().unwrap_or_default().trim().parse().with_context(|| format!("no length in {received:?}"))?;
        ensure!(length == self.bytes, "{length} bytes arrived of {}", self.bytes);
        let (there, here) = (hash(&received), hash(&sent));
        ensure!(there.is_some() && there == here, "the hashes differ: sent {sent:?}, received {received:?}");
        Ok(())
    }
}

/// Sends so many MiB of random bytes over TCP from one kernel to another, which has this address, and compares the hashes.
pub fn between(work: &WorkDir, from: &NetNs, to: &NetNs, address: &str, mib: u64) -> Result<()> {
    let (sent, hold, log) = (work.file("sent"), work.file("hold"), work.file("receiver.log"));
    let _ = fs::remove_file(&log);
    from.sh(&format!("dd if=/dev/urandom of={} bs=1M count={mib} status=none", sent.display()))?;
    let expected = from.sh(&format!("sha256sum < {}", sent.display()))?;
    // Its input is a pipe that never ends: nc would close the connection at the end of its input.
    let receive = format!("rm -f {0}; mkfifo {0}; busybox nc -l -p 5001 <>{0} | sha256sum", hold.display());
    let mut receiver: Process = to.spawn(work, "receiver", &["sh", "-c", &receive])?;
    wait_until("the receiver to listen", SOON, || Ok(to.sh("busybox netstat -ltn")?.contains(":5001 ")))?;
    from.sh(&format!("timeout {} busybox nc {address} 5001 < {}", LIMIT.as_secs(), sent.display()))?;
    receiver.wait_exit(LIMIT)?;
    let received = fs::read_to_string(receiver.log_path())?;
    ensure!(hash(&expected).is_some() && hash(&expected) == hash(&received), "sent {expected}, received {received}");
    Ok(())
}

/// The first SHA-256 in a text.
pub fn hash(text: &str) -> Option<&str> {
    text.split_whitespace().find(|word| word.len() == 64 && word.bytes().all(|b| b.is_ascii_hexdigit()))
}
