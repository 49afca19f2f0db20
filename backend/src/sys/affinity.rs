// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Pinning a thread to a CPU.

use std::io;

use rustix::thread::{CpuSet, sched_setaffinity};

/// Binds the calling thread to `cpu`.
pub(crate) fn pin_current_thread(cpu: usize) -> io::Result<()> {
    if cpu >= CpuSet::MAX_CPU {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no such CPU number"));
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(sched_setaffinity(None, &set)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_can_be_pinned_to_a_cpu_it_may_use_and_to_no_other() {
        let allowed = rustix::thread::sched_getaffinity(None).expect("affinity");
        let cpu = (0..CpuSet::MAX_CPU).find(|&cpu| allowed.is_set(cpu)).expect("a CPU");
        std::thread::spawn(move || {
            pin_current_thread(cpu).expect("pin");
            assert_eq!(rustix::thread::sched_getaffinity(None).expect("affinity").count(), 1);
            assert!(pin_current_thread(usize::MAX).is_err());
        })
        .join()
        .expect("thread");
    }
}
