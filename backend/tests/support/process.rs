// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the kernel says about this process: descriptors, mappings, processor time. Tests that look at them run alone.

use std::fs::{read_dir, read_link, read_to_string};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// One test at a time. Every test of a binary that measures the process takes it.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the open descriptors of this process are, sorted.
pub(crate) fn open_files() -> Vec<String> {
    let mut files: Vec<String> = read_dir("/proc/self/fd")
        .expect("procfs")
        .filter_map(|entry| read_link(entry.ok()?.path()).ok())
        .map(|target| kind_of(&target.to_string_lossy()))
        .filter(|target| !target.starts_with("/proc/"))
        .collect();
    files.sort();
    files
}

/// Sockets and pipes without their numbers.
fn kind_of(target: &str) -> String {
    match target.split_once(":[") {
        Some((kind @ ("socket" | "pipe"), _)) => kind.to_owned(),
        _ => target.to_owned(),
    }
}

/// How many mappings of this process are of files whose name contains `name`.
pub(crate) fn mappings_of(name: &str) -> usize {
    read_to_string("/proc/self/maps").expect("procfs").lines().filter(|line| line.contains(name)).count()
}

/// Processor time of the thread with this name; exactly one must have it.
pub(crate) fn cpu_of(thread: &str) -> Duration {
    let times: Vec<Duration> = tasks().filter(|(name, _)| name == thread).map(|(_, time)| time).collect();
    assert_eq!(times.len(), 1, "threads named {thread}");
    times[0]
}

/// Processor time of all threads but the caller's and the test harness's.
pub(crate) fn process_cpu(threads: &[&str]) -> Duration {
    tasks().filter(|(name, _)| threads.iter().any(|thread| name.starts_with(thread))).map(|(_, time)| time).sum()
}

fn tasks() -> impl Iterator<Item = (String, Duration)> {
    read_dir("/proc/self/task").expect("procfs").filter_map(|task| {
        let path = task.ok()?.path();
        let name = read_to_string(path.join("comm")).ok()?.trim().to_owned();
        let schedstat = read_to_string(path.join("schedstat")).ok()?;
        let nanos = schedstat.split_whitespace().next()?.parse().ok()?;
        Some((name, Duration::from_nanos(nanos)))
    })
}
