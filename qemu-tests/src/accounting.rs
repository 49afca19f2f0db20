// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a process holds, as the kernel counts it.

use std::fs;

use anyhow::{Context, Result};

/// Open descriptors, memory mappings and resident memory of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// Entries of `/proc/PID/fd`.
    pub descriptors: usize,
    /// Lines of `/proc/PID/maps` that are backed by a file or a memfd: every guest mapping is one.
    pub file_mappings: usize,
    /// Lines of `/proc/PID/maps` in all.
    pub mappings: usize,
    /// Private resident memory in KiB (`RssAnon`): shared guest pages are not counted, they belong to the guest.
    pub private_kib: u64,
}

impl Footprint {
    /// Looks at a process.
    pub fn of(pid: u32) -> Result<Self> {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        Ok(Self {
            descriptors: fs::read_dir(format!("/proc/{pid}/fd"))?.count(),
            file_mappings: maps.lines().filter(|l| is_file_backed(l)).count(),
            mappings: maps.lines().count(),
            private_kib: field_kib(&status, "RssAnon:").context("no RssAnon in /proc/PID/status")?,
        })
    }

    /// Processor time used so far, in clock ticks of 10 ms (user plus system).
    pub fn cpu_ticks(pid: u32) -> Result<u64> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        parse_ticks(&stat).context("an odd /proc/PID/stat")
    }
}

/// `utime + stime`: the 12th and 13th field after the command name, which is in parentheses and may hold anything.
fn parse_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn is_file_backed(line: &str) -> bool {
    line.split_whitespace().nth(5).is_some_and(|path| path.starts_with('/'))
}

fn field_kib(status: &str, key: &str) -> Option<u64> {
    status.lines().find_map(|l| l.strip_prefix(key))?.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_file_is_seen() -> Result<()> {
        let pid = std::process::id();
        let before = Footprint::of(pid)?;
        let held: Vec<_> = (0..50).map(|_| fs::File::open("/proc/self/status")).collect::<Result<_, _>>()?;
        assert!(Footprint::of(pid)?.descriptors >= before.descriptors + 40);
        drop(held);
        assert!(before.mappings > before.file_mappings && before.file_mappings > 0 && before.private_kib > 0);
        Ok(())
    }

    #[test]
    fn ticks_are_found_behind_any_name() {
        assert_eq!(parse_ticks("7 (a b) c) S 1 2 3 4 5 6 7 8 9 10 100 23 0 0"), Some(123));
    }
}
