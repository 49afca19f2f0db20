// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A queue: receives, sends, waits, counts.

use std::ffi::c_int;
use std::mem::size_of;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use cnf::{Burst, Queue, wait_any};

use crate::SHUNT_CNF_VERSION;
use crate::error::{Failure, guard};
use crate::packet::shunt_cnf_packet;
use crate::pointer::{Structure, handle, slice, write};

/// One queue pair of a link. Opaque.
#[derive(Debug)]
#[expect(non_camel_case_types, reason = "its name in C")]
pub struct shunt_cnf_queue {
    queue: Queue,
    /// What was received, and how much of that was handed out.
    burst: Burst,
    handed_out: usize,
}

/// What a queue has done since the link was opened. The program fills in size and version.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct shunt_cnf_counters {
    /// sizeof(struct shunt_cnf_counters).
    pub size: u32,
    /// SHUNT_CNF_VERSION, as the program knows it.
    pub version: u32,
    /// Packets taken to be sent.
    pub packets_sent: u64,
    /// Packets received.
    pub packets_received: u64,
    /// Frames that the backend took, or has waiting.
    pub frames_sent: u64,
    /// Frames received.
    pub frames_received: u64,
    /// Frames of several packets that were sent.
    pub aggregates_sent: u64,
    /// Packets in them.
    pub packets_packed: u64,
    /// Frames of several packets that were received.
    pub aggregates_received: u64,
    /// Packets in them.
    pub packets_unpacked: u64,
    /// Frames of several packets that are missing between those received.
    pub aggregates_lost: u64,
    /// Times the backend asked to be woken.
    pub kicks: u64,
    /// Packets dropped because no frame is so long.
    pub too_long: u64,
    /// Packets dropped because what was left undone in them cannot be done.
    pub unfinishable: u64,
    /// Frames that a backend had not given back when it was lost.
    pub abandoned: u64,
    /// Frames of several packets that were dropped because they were not agreed on.
    pub unexpected: u64,
    /// Things that were wrong in frames of several packets.
    pub damages: u64,
    /// Packets lost by that.
    pub packets_damaged: u64,
    /// Zero.
    pub reserved: [u64; 8],
}

// SAFETY: numbers only, and size and version come first.
unsafe impl Structure for shunt_cnf_counters {
    fn blank() -> Self {
        Self {
            size: u32::try_from(size_of::<Self>()).unwrap_or(u32::MAX),
            version: SHUNT_CNF_VERSION,
            packets_sent: 0,
            packets_received: 0,
            frames_sent: 0,
            frames_received: 0,
            aggregates_sent: 0,
            packets_packed: 0,
            aggregates_received: 0,
            packets_unpacked: 0,
            aggregates_lost: 0,
            kicks: 0,
            too_long: 0,
            unfinishable: 0,
            abandoned: 0,
            unexpected: 0,
            damages: 0,
            packets_damaged: 0,
            reserved: [0; 8],
        }
    }
}

impl shunt_cnf_queue {
    pub(crate) fn new(queue: Queue) -> Self {
        Self { queue, burst: Burst::new(), handed_out: 0 }
    }

    pub(crate) fn into_queue(self) -> Queue {
        self.queue
    }
}

/// Receives up to `count` packets; returns how many, or an error. `packet_size` is sizeof(struct shunt_cnf_packet). The
/// packets are in the queue's memory until the next call.
///
/// # Safety
/// `queue` is NULL or a queue of an open link that nobody else uses; `packets` is NULL or has `count` elements that can be
/// written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shunt_cnf_receive(
    queue: *mut shunt_cnf_queue,
    packets: *mut shunt_cnf_packet,
    count: usize,
    packet_size: usize,
) -> c_int {
    guard(|| {
        // SAFETY: the caller's promise.
        let queue = unsafe { handle(queue) }?;
        let count = checked(packets.is_null(), count, packet_size)?;
        if queue.handed_out >= queue.burst.len() {
            queue.queue.receive(&mut queue.burst);
            queue.handed_out = 0;
        }
        let (bytes, places) = queue.burst.split_mut();
        // One pointer to all of it, so that none of them is to a part that another one has borrowed.
        let first = bytes.as_mut_ptr();
        let mut given = 0;
        for (place, meta) in places.skip(queue.handed_out).take(count) {
            let packet = shunt_cnf_packet::new(first.wrapping_add(place.start), place.len(), meta);
            // SAFETY: `packets` is not NULL if `count` is not 0, which was checked, and has `count` elements by the
            // caller's promise; fewer than that were written.
            unsafe { packets.add(given).write(packet) };
            given += 1;
        }
        queue.handed_out += given;
        c_int::try_from(given).map_err(|_| Failure::Value("count"))
    })
}

/// Takes up to `count` packets to be sent; returns how many, or an error if the first was none. Their bytes are copied.
/// Fewer than `count`: there is no room for more now, or the next one makes no sense. A packet that is too long is taken,
/// dropped and counted.
///
/// # Safety
/// `queue` is NULL or a queue of an open link that nobody else uses; `packets` is NULL or has `count` elements, each with
/// readable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shunt_cnf_send(
    queue: *mut shunt_cnf_queue,
    packets: *const shunt_cnf_packet,
    count: usize,
    packet_size: usize,
) -> c_int {
    guard(|| {
        // SAFETY: the caller's promise.
        let queue = unsafe { handle(queue) }?;
        let count = checked(packets.is_null(), count, packet_size)?;
        // SAFETY: the caller's promise.
        let packets = unsafe { slice(packets, count) }?;
        let mut taken = 0;
        for packet in packets {
            // SAFETY: the caller's promise. The bytes may lie in the queue's burst, to which no reference exists now.
            match unsafe { packet.as_packet() } {
                Ok(packet) if queue.queue.send(packet) => taken += 1,
                Err(failure) if taken == 0 => return Err(failure),
                Ok(_) | Err(_) => break,
            }
        }
        Ok(taken)
    })
}

/// Shows the backend what was sent since the last time. To be called at the end of every burst. Returns 0 or an error.
///
/// # Safety
/// `queue` is NULL or a queue of an open link that nobody else uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shunt_cnf_flush(queue: *mut shunt_cnf_queue) -> c_int {
    guard(|| {
        // SAFETY: the caller's promise.
        unsafe { handle(queue) }?.queue.flush();
        Ok(0)
    })
}

/// Sleeps until something has arrived, `timeout_usecs` microseconds have passed, or the backend comes or goes. Returns 1 if
/// something has arrived, 0 if not, or an error.
///
/// # Safety
/// `queue` is NULL or a queue of an open link that nobody else uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shunt_cnf_wait(queue: *mut shunt_cnf_queue, timeout_usecs: u32) -> c_int {
    // SAFETY: the caller's promise; the array of one is our own.
    unsafe { shunt_cnf_wait_any(&raw const queue, 1, std::ptr::null(), 0, timeout_usecs) }
}

/// The same for several queues, which may be of several links, and for descriptors that can become readable.
///
/// # Safety
/// `queues` is NULL or has `queue_count` queues of open links that nobody else uses; `fds` is NULL or has `fd_count` open
/// descriptors.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shunt_cnf_wait_any(
    queues: *const *mut shunt_cnf_queue,
    queue_count: usize,
    fds: *const c_int,
    fd_count: usize,
    timeout_usecs: u32,
) -> c_int {
    guard(|| {
        // SAFETY: the caller's promise.
        let (pointers, fds) = unsafe { (slice(queues, queue_count)?, slice(fds, fd_count)?) };
        let mut sorted = pointers.to_vec();
        sorted.sort_unstable();
        if sorted.windows(2).any(|two| two.first() == two.last()) {
            return Err(Failure::Value("a queue is named twice"));
        }
        let mut queues = Vec::with_capacity(pointers.len());
        for &pointer in pointers {
            // SAFETY: the caller's promise, and no two are the same.
            let queue = unsafe { handle(pointer) }?;
            if queue.handed_out < queue.burst.len() {
                // There is something already.
                return Ok(1);
            }
            queues.push(&mut queue.queue);
        }
        let mut others = Vec::with_capacity(fds.len());
        for &fd in fds {
            if fd < 0 {
                return Err(Failure::Value("a descriptor is negative"));
            }
            // SAFETY: open during the call by the caller's promise, and not -1.
            others.push(unsafe { BorrowedFd::borrow_raw(fd) });
        }
        let limit = Duration::from_micros(u64::from(timeout_usecs));
        Ok(c_int::from(wait_any(&mut queues, &others, limit)))
    })
}

/// Writes what a queue has done to `counters`. Returns 0 or an error.
///
/// # Safety
/// `queue` is NULL or a queue of an open link that nobody else uses; `counters` is NULL, or as large as it says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shunt_cnf_counters_get(
    queue: *mut shunt_cnf_queue,
    counters: *mut shunt_cnf_counters,
) -> c_int {
    guard(|| {
        // SAFETY: the caller's promise.
        let now = unsafe { handle(queue) }?.queue.counters();
        let value = shunt_cnf_counters {
            packets_sent: now.packets_sent,
            packets_received: now.packets_received,
            frames_sent: now.frames_sent,
            frames_received: now.frames_received,
            aggregates_sent: now.aggregates_sent,
            packets_packed: now.packets_packed,
            aggregates_received: now.aggregates_received,
            packets_unpacked: now.packets_unpacked,
            aggregates_lost: now.aggregates_lost,
            kicks: now.kicks,
            too_long: now.too_long,
            unfinishable: now.unfinishable,
            abandoned: now.abandoned,
            unexpected: now.unexpected,
            damages: now.damages.iter().sum(),
            packets_damaged: now.packets_damaged,
            ..shunt_cnf_counters::blank()
        };
        // SAFETY: the caller's promise.
        unsafe { write(counters, &value) }?;
        Ok(0)
    })
}

/// An array of packets, of which at most as many are looked at as an int can say.
fn checked(is_null: bool, count: usize, packet_size: usize) -> Result<usize, Failure> {
    if packet_size != size_of::<shunt_cnf_packet>() {
        return Err(Failure::Size);
    }
    if is_null && count > 0 {
        return Err(Failure::Null);
    }
    Ok(count.min(1 << 16))
}
