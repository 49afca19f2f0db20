// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The configuration of a link: from C to Rust.

use std::ffi::{OsStr, c_char, c_int};
use std::mem::size_of;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use cnf::{Aggregation, LinkConfig, Role};
use virtqueue::RingKind;

use crate::SHUNT_CNF_VERSION;
use crate::error::{Failure, guard};
use crate::pointer::{Structure, read, string};

/// The program listens on the socket, and the backend connects. Else the backend listens.
pub const SHUNT_CNF_SERVER: u32 = 0x01;
/// Split rings, not packed ones.
pub const SHUNT_CNF_SPLIT: u32 = 0x02;
/// A received frame may span several buffers (VIRTIO_NET_F_MRG_RXBUF).
pub const SHUNT_CNF_MRG_RXBUF: u32 = 0x04;
/// Packets are put together in frames if the other end agrees.
pub const SHUNT_CNF_AGGREGATE: u32 = 0x08;
/// Packets are taken with unfinished checksums, and uncut; only with SHUNT_CNF_AGGREGATE.
pub const SHUNT_CNF_UNFINISHED: u32 = 0x10;
/// shunt_cnf_open does not wait for the backend; shunt_cnf_tend attaches it when it is there.
pub const SHUNT_CNF_DONT_WAIT: u32 = 0x20;
/// All flags that there are.
const FLAGS: u32 = 0x3f;

/// What is asked of a link. Filled with what is usual by shunt_cnf_config_init; 0 means that, too, wherever a number is
/// not said to mean otherwise.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct shunt_cnf_config {
    /// Bytes of the structure, as the program knows it.
    pub size: u32,
    /// SHUNT_CNF_VERSION, as the program knows it.
    pub version: u32,
    /// Path of the socket. Only read during the call.
    pub socket: *const c_char,
    /// SHUNT_CNF_SERVER and so on.
    pub flags: u32,
    /// Queue pairs, 1 to 128.
    pub queue_pairs: u16,
    /// Entries of each ring, a power of two for split rings.
    pub queue_size: u16,
    /// Bytes of a transmit buffer: a frame and 12 bytes.
    pub tx_buffer: u32,
    /// Bytes of a receive buffer, likewise.
    pub rx_buffer: u32,
    /// Milliseconds that the backend may take to appear, and for each step of the handshake.
    pub timeout_ms: u32,
    /// Milliseconds until the first attempt to reach a backend that was lost, doubled with each one.
    pub backoff_first_ms: u32,
    /// The longest of these times.
    pub backoff_most_ms: u32,
    /// Bytes of packets after which a frame of several packets is sent.
    pub tx_aggr_max_bytes: u32,
    /// Packets after which it is sent.
    pub tx_aggr_max_frames: u32,
    /// Microseconds that the first packet of a frame may wait for others; 0: until the next flush only.
    pub tx_aggr_time_usecs: u32,
    /// Bytes of the longest frame of several packets that is taken.
    pub rx_aggr_max_bytes: u32,
    /// Id of this end of the link, not that of the other; 0: a random one from 0x8000 on.
    pub node: u16,
    /// EtherType of such frames, in the machine's byte order.
    pub ether_type: u16,
    /// Zero.
    pub reserved: [u64; 8],
}

// SAFETY: numbers and a pointer, of which every pattern of bits is a value; size and version come first.
unsafe impl Structure for shunt_cnf_config {
    fn blank() -> Self {
        let size = u32::try_from(size_of::<Self>()).unwrap_or(u32::MAX);
        Self {
            size,
            version: SHUNT_CNF_VERSION,
            socket: std::ptr::null(),
            flags: 0,
            queue_pairs: 0,
            queue_size: 0,
            tx_buffer: 0,
            rx_buffer: 0,
            timeout_ms: 0,
            backoff_first_ms: 0,
            backoff_most_ms: 0,
            tx_aggr_max_bytes: 0,
            tx_aggr_max_frames: 0,
            tx_aggr_time_usecs: 0,
            rx_aggr_max_bytes: 0,
            node: 0,
            ether_type: 0,
            reserved: [0; 8],
        }
    }
}

/// Fills `config` with what is usual. `size` is sizeof(struct shunt_cnf_config). Returns 0 or an error.
///
/// # Safety
/// `config` is NULL or writable for `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shunt_cnf_config_init(config: *mut shunt_cnf_config, size: usize) -> c_int {
    guard(|| {
        if config.is_null() {
            return Err(Failure::Null);
        }
        let known = (8..=size_of::<shunt_cnf_config>()).contains(&size);
        let size32 = u32::try_from(size).ok().filter(|_| known).ok_or(Failure::Size)?;
        let value = shunt_cnf_config { size: size32, ..shunt_cnf_config::blank() };
        let from = std::ptr::from_ref(&value).cast::<u8>();
        // SAFETY: `config` is writable for `size` bytes by the caller's promise; `value` has at least as many, and is ours.
        unsafe { std::ptr::copy_nonoverlapping(from, config.cast::<u8>(), size) };
        Ok(0)
    })
}

/// What the structure says.
///
/// # Safety
/// `config` is NULL or as its type says, and so is the string in it.
pub(crate) unsafe fn parse(config: *const shunt_cnf_config) -> Result<(LinkConfig, bool), Failure> {
    // SAFETY: the caller's promise.
    let config = unsafe { read(config) }?;
    // SAFETY: the caller's promise.
    let socket = unsafe { string(config.socket) }?;
    if config.flags & !FLAGS != 0 {
        return Err(Failure::Value("unknown flags"));
    }
    if config.reserved != [0; 8] {
        return Err(Failure::Value("reserved words are not zero"));
    }
    let has = |flag: u32| config.flags & flag != 0;
    let mut link = LinkConfig::new(OsStr::from_bytes(socket.to_bytes()));
    let device = &mut link.device;
    device.role = if has(SHUNT_CNF_SERVER) { Role::Server } else { Role::Client };
    device.rings = if has(SHUNT_CNF_SPLIT) { RingKind::Split } else { RingKind::Packed };
    device.mrg_rxbuf = has(SHUNT_CNF_MRG_RXBUF);
    set(&mut device.queue_pairs, config.queue_pairs);
    set(&mut device.queue_size, config.queue_size);
    set(&mut device.tx_buffer, config.tx_buffer);
    set(&mut device.rx_buffer, config.rx_buffer);
    let time = |ms: u32| Duration::from_millis(u64::from(ms));
    set_time(&mut device.timeout, time(config.timeout_ms));
    set_time(&mut link.backoff.first, time(config.backoff_first_ms));
    set_time(&mut link.backoff.most, time(config.backoff_most_ms));
    if has(SHUNT_CNF_AGGREGATE) {
        link = link.aggregate(aggregation(&config)?);
    } else if has(SHUNT_CNF_UNFINISHED) {
        return Err(Failure::Value("SHUNT_CNF_UNFINISHED without SHUNT_CNF_AGGREGATE"));
    }
    Ok((link, has(SHUNT_CNF_DONT_WAIT)))
}

fn aggregation(config: &shunt_cnf_config) -> Result<Aggregation, Failure> {
    let mut aggregation = Aggregation {
        unfinished: config.flags & SHUNT_CNF_UNFINISHED != 0,
        tx_aggr_time_usecs: config.tx_aggr_time_usecs,
        ..Aggregation::default()
    };
    set(&mut aggregation.node, config.node);
    set(&mut aggregation.ether_type, config.ether_type);
    set(&mut aggregation.tx_aggr_max_frames, config.tx_aggr_max_frames);
    set(&mut aggregation.rx_max_bytes, config.rx_aggr_max_bytes);
    if config.tx_aggr_max_bytes != 0 {
        aggregation.tx_aggr_max_bytes =
            usize::try_from(config.tx_aggr_max_bytes).map_err(|_| Failure::Value("tx_aggr_max_bytes"))?;
    }
    Ok(aggregation)
}

/// 0 is what is usual.
fn set<T: PartialEq + From<u8>>(place: &mut T, value: T) {
    if value != T::from(0) {
        *place = value;
    }
}

fn set_time(place: &mut Duration, value: Duration) {
    if !value.is_zero() {
        *place = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn init() -> shunt_cnf_config {
        let mut config = shunt_cnf_config::blank();
        // SAFETY: a reference, of its own size.
        assert_eq!(unsafe { shunt_cnf_config_init(&raw mut config, size_of::<shunt_cnf_config>()) }, 0);
        config
    }

    fn parsed(config: &shunt_cnf_config) -> Result<(LinkConfig, bool), Failure> {
        // SAFETY: references, and strings that are static.
        unsafe { parse(config) }
    }

    #[test]
    fn zero_is_what_is_usual() {
        let config = shunt_cnf_config { socket: c"/run/s".as_ptr(), ..init() };
        let (link, dont_wait) = parsed(&config).unwrap();
        let usual = LinkConfig::new("/run/s");
        assert_eq!(format!("{:?} {dont_wait}", link), format!("{usual:?} false"));
    }

    #[test]
    fn everything_can_be_said() {
        let config = shunt_cnf_config {
            socket: c"s".as_ptr(),
            flags: FLAGS,
            queue_pairs: 3,
            queue_size: 512,
            rx_buffer: 3000,
            timeout_ms: 50,
            backoff_first_ms: 1,
            backoff_most_ms: 2,
            tx_aggr_max_bytes: 9000,
            tx_aggr_max_frames: 10,
            tx_aggr_time_usecs: 20,
            rx_aggr_max_bytes: 8000,
            node: 77,
            ether_type: 0x88b6,
            ..init()
        };
        let (link, dont_wait) = parsed(&config).unwrap();
        assert!(dont_wait && link.device.role == Role::Server && link.device.rings == RingKind::Split);
        let device = &link.device;
        assert_eq!((device.queue_pairs, device.queue_size, device.rx_buffer), (3, 512, 3000));
        assert_eq!(device.timeout + link.backoff.first + link.backoff.most, Duration::from_millis(53));
        let aggregation = link.aggregation.unwrap();
        assert!(aggregation.unfinished && aggregation.node == 77 && aggregation.ether_type == 0x88b6);
        assert_eq!(
            (aggregation.tx_aggr_max_bytes, aggregation.tx_aggr_max_frames, aggregation.tx_aggr_time_usecs),
            (9000, 10, 20)
        );
        assert_eq!(aggregation.rx_max_bytes, 8000);
        assert!(device.tx_buffer >= 9000);
    }

    #[test]
    fn nonsense_is_refused() {
        let good = shunt_cnf_config { socket: c"s".as_ptr(), ..init() };
        let value = |config| matches!(parsed(&config), Err(Failure::Value(_)));
        assert!(value(shunt_cnf_config { flags: 0x40, ..good }));
        assert!(value(shunt_cnf_config { flags: SHUNT_CNF_UNFINISHED, ..good }));
        assert!(value(shunt_cnf_config { reserved: [0, 0, 0, 0, 0, 0, 0, 1], ..good }));
        assert!(matches!(parsed(&init()), Err(Failure::Null)), "no socket");
        assert!(matches!(parsed(&shunt_cnf_config { size: 7, ..good }), Err(Failure::Size)));
        assert!(matches!(parsed(&shunt_cnf_config { size: 4096, ..good }), Err(Failure::Size)));
        // A caller that knows no more than the socket.
        parsed(&shunt_cnf_config { size: 16, flags: 0xffff_ffff, ..good }).unwrap();
        let mut config = good;
        // SAFETY: sizes that are refused are not looked at.
        unsafe {
            assert!(shunt_cnf_config_init(std::ptr::null_mut(), 8) < 0);
            assert!(shunt_cnf_config_init(&raw mut config, 7) < 0);
            assert!(shunt_cnf_config_init(&raw mut config, usize::MAX) < 0);
        }
    }
}
