// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Frames made from nothing.
//!
//! # Numbered frames
//!
//! A load generator must be able to outrun every switch, so its frames are built once, from a
//! [`Template`], and per packet only the *mark* is rewritten: eight bytes that hold the UDP checksum
//! and the sequence number, which lie side by side. One store numbers a frame and keeps it valid, one
//! load reads the number, and both are in the frame's first cache line, virtio-net header included.
//!
//! ```text
//!  0         14      34    40       42        48     56
//!  | Ethernet | IPv4 | UDP | checks. | number | stamp | pattern ...
//!                          '------ mark ------'
//! ```
//!
//! The pattern depends on the place only. Whoever has the time checks a whole frame with [`check`].

use core::net::Ipv4Addr;

use crate::{
    EtherType, EthernetHeader, MacAddr,
    checksum::{Sum, checksum},
};

/// Where the mark lies in a frame.
pub const MARK_AT: usize = 40;
/// Sequence numbers are taken modulo this.
pub const SEQUENCE_MODULUS: u64 = 1 << 48;
/// Length of the shortest frame in bytes: that of Ethernet without its check sequence.
pub const MIN_LEN: usize = 60;
/// Length of the longest frame in bytes: an IPv4 packet of 65535 and the Ethernet header.
pub const MAX_LEN: usize = 65_549;

const UDP_AT: usize = 34;
const PATTERN_AT: usize = 56;
const UDP: u8 = 17;

/// The ends of a flow of numbered frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UdpFlow {
    /// Sender.
    pub source: MacAddr,
    /// Receiver.
    pub destination: MacAddr,
    /// Sender's address.
    pub source_ip: Ipv4Addr,
    /// Receiver's address.
    pub destination_ip: Ipv4Addr,
    /// Sender's port.
    pub source_port: u16,
    /// Receiver's port.
    pub destination_port: u16,
}

/// The frame of a flow, and how to number copies of it.
///
/// ```
/// use packet::{MacAddr, synth};
/// let flow = synth::UdpFlow {
///     source: MacAddr([2, 0, 0, 0, 0, 1]),
///     destination: MacAddr([2, 0, 0, 0, 0, 2]),
///     source_ip: [10, 0, 0, 1].into(),
///     destination_ip: [10, 0, 0, 2].into(),
///     source_port: 1000,
///     destination_port: 2000,
/// };
/// let template = synth::Template::new(flow, 60)?;
/// let mut frame = template.frame().to_vec();
/// frame[synth::MARK_AT..][..8].copy_from_slice(&template.mark(7));
/// assert_eq!(synth::check(&frame)?.sequence, 7);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Template {
    frame: Vec<u8>,
    /// Over all that the UDP checksum covers, with number and stamp 0.
    sum: Sum,
}

/// A frame length that cannot be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {len} bytes: at least {MIN_LEN} and at most {MAX_LEN} can be built")]
pub struct LengthError {
    /// What was asked for.
    pub len: usize,
}

/// What a whole and correct frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Which flow it belongs to.
    pub flow: UdpFlow,
    /// Its number.
    pub sequence: u64,
    /// What its sender stamped on it, or 0.
    pub stamp: u64,
}

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Corruption {
    /// Not a numbered frame at all.
    #[error("not UDP over IPv4 without options and fragments")]
    Foreign,
    /// The IPv4 header's checksum is wrong.
    #[error("wrong IPv4 header checksum")]
    IpChecksum,
    /// Shorter or longer than its headers say.
    #[error("{len} bytes, which its length fields contradict")]
    Length {
        /// Length of the frame.
        len: usize,
    },
    /// The payload is not what was sent, although its checksum is right.
    #[error("byte {at} is not what was sent")]
    Pattern {
        /// Where the first wrong byte lies in the frame.
        at: usize,
    },
    /// The UDP checksum is wrong.
    #[error("wrong UDP checksum")]
    UdpChecksum,
}

impl Template {
    /// The frame of a flow, `len` bytes long, with number 0 and without a stamp.
    ///
    /// # Errors
    /// If `len` is not within [`MIN_LEN`] and [`MAX_LEN`].
    pub fn new(flow: UdpFlow, len: usize) -> Result<Self, LengthError> {
        let lengths = (MIN_LEN..=MAX_LEN).contains(&len).then(|| {
            let total = u16::try_from(len.saturating_sub(EthernetHeader::LEN)).ok()?;
            Some((total, total.checked_sub(20)?))
        });
        let Some(Some((total_len, udp_len))) = lengths else {
            return Err(LengthError { len });
        };
        let mut frame = Vec::with_capacity(len);
        frame.extend(flow.destination.0);
        frame.extend(flow.source.0);
        frame.extend(EtherType::IPV4.0.to_be_bytes());
        frame.extend(ipv4_header(&flow, total_len));
        frame.extend(flow.source_port.to_be_bytes());
        frame.extend(flow.destination_port.to_be_bytes());
        frame.extend(udp_len.to_be_bytes());
        frame.resize(PATTERN_AT, 0);
        frame.extend((PATTERN_AT..len).map(pattern));

        let sum = udp_sum(&flow, frame.get(UDP_AT..).unwrap_or_default());
        let mut template = Self { frame, sum };
        let mark = template.mark(0);
        if let Some(bytes) = template.frame.get_mut(MARK_AT..).and_then(<[u8]>::first_chunk_mut) {
            *bytes = mark;
        }
        Ok(template)
    }

    /// The frame, to be copied; its mark is that of number 0.
    #[must_use]
    pub fn frame(&self) -> &[u8] {
        &self.frame
    }

    /// What to store at [`MARK_AT`] of a copy to give it a number, taken modulo
    /// [`SEQUENCE_MODULUS`]. The copy has no stamp.
    #[inline]
    #[must_use]
    pub fn mark(&self, sequence: u64) -> [u8; 8] {
        mark(self.sum, sequence)
    }

    /// As [`Template::mark`], but with a stamp, for instance the time of sending.
    #[inline]
    #[must_use]
    pub fn mark_stamped(&self, sequence: u64, stamp: u64) -> [u8; 16] {
        let mut sum = self.sum;
        let [s, t, u, v, w, x, y, z] = stamp.to_be_bytes();
        for [high, low] in [[s, t], [u, v], [w, x], [y, z]] {
            sum.add_value(u16::from_be_bytes([high, low]));
        }
        let [a, b, c, d, e, f, g, h] = mark(sum, sequence);
        [a, b, c, d, e, f, g, h, s, t, u, v, w, x, y, z]
    }
}

/// The number in a mark, as read from [`MARK_AT`] of a frame.
#[inline]
#[must_use]
pub const fn sequence(mark: [u8; 8]) -> u64 {
    let [_, _, a, b, c, d, e, f] = mark;
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

/// Checks every byte of a numbered frame.
///
/// # Errors
/// What is wrong with it.
pub fn check(frame: &[u8]) -> Result<Checked, Corruption> {
    let length = Corruption::Length { len: frame.len() };
    let ethernet = EthernetHeader::parse(frame).ok_or(length)?;
    let (ip, udp) = split(frame).ok_or(length)?;
    let [
        version,
        _,
        total_high,
        total_low,
        _,
        _,
        fragment_high,
        fragment_low,
        _,
        protocol,
        _,
        _,
        a,
        b,
        c,
        d,
        e,
        f,
        g,
        h,
    ] = *ip;
    if ethernet.ether_type() != EtherType::IPV4
        || version != 0x45
        || (fragment_high & 0x3f, fragment_low) != (0, 0)
        || protocol != UDP
    {
        return Err(Corruption::Foreign);
    }
    if checksum(ip) != 0 {
        return Err(Corruption::IpChecksum);
    }
    let header = udp.first_chunk::<22>().ok_or(length)?;
    let [i, j, k, l, udp_high, udp_low, mark @ .., s, t, u, v, w, x, y, z] = *header;
    let total_len = usize::from(u16::from_be_bytes([total_high, total_low]));
    let udp_len = usize::from(u16::from_be_bytes([udp_high, udp_low]));
    if udp_len != udp.len() || Some(total_len) != udp.len().checked_add(ip.len()) {
        return Err(length);
    }
    let flow = UdpFlow {
        source: ethernet.source(),
        destination: ethernet.destination(),
        source_ip: [a, b, c, d].into(),
        destination_ip: [e, f, g, h].into(),
        source_port: u16::from_be_bytes([i, j]),
        destination_port: u16::from_be_bytes([k, l]),
    };
    if udp_sum(&flow, udp).checksum() != 0 {
        return Err(Corruption::UdpChecksum);
    }
    let wrong = (0..frame.len()).zip(frame).skip(PATTERN_AT).find(|(at, byte)| pattern(*at) != **byte);
    match wrong {
        Some((at, _)) => Err(Corruption::Pattern { at }),
        None => Ok(Checked { flow, sequence: sequence(mark), stamp: u64::from_be_bytes([s, t, u, v, w, x, y, z]) }),
    }
}

/// The broadcast by which a station that has moved makes switches learn its new place, sent on its
/// behalf: a reverse ARP request (RFC 903) that asks for nothing anybody answers.
#[must_use]
pub fn rarp_announcement(mac: MacAddr) -> [u8; MIN_LEN] {
    const HEADER: [u8; 8] = [
        0, 1, // hardware: Ethernet
        8, 0, // protocol: IPv4
        6, 4, // lengths of their addresses
        0, 3, // operation: request reverse
    ];
    let mut frame = [0; MIN_LEN];
    let bytes = MacAddr::BROADCAST
        .0
        .into_iter()
        .chain(mac.0)
        .chain(EtherType::RARP.0.to_be_bytes())
        .chain(HEADER)
        .chain(mac.0)
        .chain([0; 4])
        .chain(mac.0);
    for (to, from) in frame.iter_mut().zip(bytes) {
        *to = from;
    }
    frame
}

/// The mark of a frame whose UDP checksum covers `sum` besides the number.
#[inline]
fn mark(mut sum: Sum, sequence: u64) -> [u8; 8] {
    let [_, _, a, b, c, d, e, f] = sequence.to_be_bytes();
    sum.add_value(u16::from_be_bytes([a, b]));
    sum.add_value(u16::from_be_bytes([c, d]));
    sum.add_value(u16::from_be_bytes([e, f]));
    let [high, low] = sum.transport_checksum().to_be_bytes();
    [high, low, a, b, c, d, e, f]
}

fn ipv4_header(flow: &UdpFlow, total_len: u16) -> [u8; 20] {
    const TTL: u8 = 64;
    const DONT_FRAGMENT: u8 = 0x40;
    let [l, m] = total_len.to_be_bytes();
    let [a, b, c, d] = flow.source_ip.octets();
    let [e, f, g, h] = flow.destination_ip.octets();
    let with = |x, y| [0x45, 0, l, m, 0, 0, DONT_FRAGMENT, 0, TTL, UDP, x, y, a, b, c, d, e, f, g, h];
    let [x, y] = checksum(&with(0, 0)).to_be_bytes();
    with(x, y)
}

/// The sum over a UDP datagram and its pseudo-header.
fn udp_sum(flow: &UdpFlow, udp: &[u8]) -> Sum {
    let mut sum = Sum::new();
    sum.add(&flow.source_ip.octets());
    sum.add(&flow.destination_ip.octets());
    sum.add_value(u16::from(UDP));
    // No longer than MAX_LEN, or its length field has been compared.
    sum.add_value(u16::try_from(udp.len()).unwrap_or(u16::MAX));
    sum.add(udp);
    sum
}

/// The IPv4 header, if it has no options, and what follows.
fn split(frame: &[u8]) -> Option<(&[u8; 20], &[u8])> {
    frame.get(EthernetHeader::LEN..)?.split_first_chunk()
}

/// What a frame holds at a place beyond its stamp. Neighbouring words differ, which a checksum
/// alone would not notice being swapped.
#[expect(clippy::cast_possible_truncation, reason = "the lowest byte is meant")]
const fn pattern(at: usize) -> u8 {
    (at.wrapping_mul(0x9e37_79b1) >> 16) as u8
}

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn flow()(macs: ([u8; 6], [u8; 6]), ips: (u32, u32), ports: (u16, u16)) -> UdpFlow {
            UdpFlow {
                source: MacAddr(macs.0),
                destination: MacAddr(macs.1),
                source_ip: ips.0.into(),
                destination_ip: ips.1.into(),
                source_port: ports.0,
                destination_port: ports.1,
            }
        }
    }

    fn example(len: usize) -> Vec<u8> {
        let flow = UdpFlow {
            source: MacAddr([2, 0, 0, 0, 0, 1]),
            destination: MacAddr([2, 0, 0, 0, 0, 2]),
            source_ip: [10, 0, 0, 1].into(),
            destination_ip: [10, 0, 0, 2].into(),
            source_port: 1,
            destination_port: 2,
        };
        Template::new(flow, len).unwrap().frame().to_vec()
    }

    proptest! {
        #[test]
        fn numbered_frames_are_valid(
            flow in flow(),
            len in prop_oneof![9 => MIN_LEN..2000usize, 1 => MIN_LEN..=MAX_LEN],
            sequence: u64,
            stamp: Option<u64>,
        ) {
            let template = Template::new(flow, len).unwrap();
            let mut frame = template.frame().to_vec();
            prop_assert_eq!(frame.len(), len);
            match stamp {
                None => frame[MARK_AT..MARK_AT + 8].copy_from_slice(&template.mark(sequence)),
                Some(stamp) => frame[MARK_AT..MARK_AT + 16]
                    .copy_from_slice(&template.mark_stamped(sequence, stamp)),
            }
            let expected = sequence % SEQUENCE_MODULUS;
            let stamp = stamp.unwrap_or(0);
            let checked = Checked { flow, sequence: expected, stamp };
            prop_assert_eq!(check(&frame), Ok(checked));
            let mark = frame[MARK_AT..MARK_AT + 8].try_into().unwrap();
            prop_assert_eq!(super::sequence(mark), expected);

            let parsed = SlicedPacket::from_ethernet(&frame).unwrap();
            let Some(NetSlice::Ipv4(ip)) = parsed.net else { panic!("no IPv4") };
            let Some(TransportSlice::Udp(udp)) = parsed.transport else { panic!("no UDP") };
            let header = ip.header().to_header();
            prop_assert_eq!(header.calc_header_checksum(), header.header_checksum);
            let theirs = udp.to_header().calc_checksum_ipv4(&header, udp.payload()).unwrap();
            prop_assert_eq!(udp.checksum(), theirs);
            prop_assert_eq!(header.source, flow.source_ip.octets());
            prop_assert_eq!(header.destination, flow.destination_ip.octets());
            prop_assert_eq!(udp.source_port(), flow.source_port);
            prop_assert_eq!(udp.destination_port(), flow.destination_port);
        }

        #[test]
        fn any_changed_byte_is_noticed(at: prop::sample::Index, by in 1u8..) {
            let mut frame = example(200);
            let at = at.index(frame.len());
            frame[at] ^= by;
            match check(&frame) {
                Err(_) => {}
                // MAC addresses are not covered, but belong to the flow.
                Ok(checked) => {
                    prop_assert!(at < 12);
                    prop_assert_ne!(checked.flow, check(&example(200)).unwrap().flow);
                }
            }
        }

        #[test]
        fn noise_is_refused(frame in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(check(&frame).is_err());
        }
    }

    #[test]
    fn swapped_words_are_noticed_although_the_checksum_is_right() {
        let mut frame = example(200);
        frame.swap(60, 62);
        frame.swap(61, 63);
        assert_eq!(check(&frame), Err(Corruption::Pattern { at: 60 }));
    }

    #[test]
    fn a_frame_that_lost_or_gained_bytes_is_noticed() {
        let frame = example(200);
        for len in 0..200 {
            assert_eq!(check(&frame[..len]), Err(Corruption::Length { len }));
        }
        let longer = [frame, vec![0]].concat();
        assert_eq!(check(&longer), Err(Corruption::Length { len: 201 }));
    }

    #[test]
    fn lengths_that_cannot_be_built() {
        let flow = check(&example(60)).unwrap().flow;
        for len in [0, MIN_LEN - 1, MAX_LEN + 1, usize::MAX] {
            assert_eq!(Template::new(flow, len).unwrap_err(), LengthError { len });
        }
    }

    #[test]
    fn a_rarp_announcement_is_a_broadcast_from_the_station() {
        let mac = MacAddr([0x52, 0x54, 0, 1, 2, 3]);
        let frame = rarp_announcement(mac);
        let header = EthernetHeader::parse(&frame).unwrap();
        assert!(header.destination().is_broadcast());
        assert_eq!(header.source(), mac);
        assert_eq!(header.ether_type(), EtherType::RARP);
        let arp = etherparse::ArpPacketSlice::from_slice(&frame[14..]).unwrap();
        assert_eq!(arp.operation().0, 3);
        assert_eq!(arp.sender_hw_addr(), mac.0);
        assert_eq!(arp.target_hw_addr(), mac.0);
        assert_eq!(arp.sender_protocol_addr(), [0; 4]);
    }
}
