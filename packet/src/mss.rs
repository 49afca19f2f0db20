// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The maximum segment size that a TCP SYN announces (RFC 9293, 3.7.1), lowered.
//!
//! What a tunnel adds to a packet is known to neither end of a connection. Both are told to send less by
//! whoever puts the tunnel on, in the only packets in which they speak of it.

use crate::{Checksum, Field, Parsed, checksum::Sum, parse::transport::TCP};

const SYN: u8 = 0x02;
/// Length of the header without options.
const LEN: usize = 20;
/// Where the checksum lies in the header.
const CHECKSUM: u16 = 16;

const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const MSS: u8 = 2;

/// Lowers the maximum segment size to `max` where a SYN announces a larger one, and says whether it did.
/// A SYN without the option is left alone: it stands for 536 bytes, or 1220 over IPv6. Options are read as
/// far as they make sense and lie in the window.
///
/// `checksum` is the state of the frame's checksum: one that is left unfinished stays so, and will cover
/// what was changed.
pub fn clamp_mss(window: &mut [u8], parsed: &Parsed, max: u16, checksum: Checksum) -> bool {
    let is_ip = parsed.ufid.get(Field::IpVersion) != 0;
    let is_syn = parsed.transient.tcp_flags & SYN != 0 && parsed.ufid.get(Field::IpProto) == u128::from(TCP);
    match parsed.layout.transport {
        Some(at) if is_ip && is_syn => clamp(window, at, max, checksum).is_some_and(|clamped| clamped),
        _ => false,
    }
}

/// Rarely called: once in a connection and direction.
#[cold]
fn clamp(window: &mut [u8], at: u16, max: u16, checksum: Checksum) -> Option<bool> {
    let header = window.get_mut(usize::from(at)..)?;
    let len = usize::from(header.get(12)? >> 4).saturating_mul(4);
    let end = len.min(header.len());
    let mut change = Sum::new();
    let mut clamped = false;
    let mut next = LEN;
    while next < end {
        let options = header.get_mut(next..end)?;
        next = match options {
            [END, ..] => break,
            [NO_OPERATION, ..] => next.saturating_add(1),
            [MSS, 4, high, low, ..] => {
                if u16::from_be_bytes([*high, *low]) > max {
                    let [new_high, new_low] = max.to_be_bytes();
                    change.add_change(next, *high, new_high);
                    change.add_change(next.saturating_add(1), *low, new_low);
                    (*high, *low) = (new_high, new_low);
                    clamped = true;
                }
                next.saturating_add(4)
            }
            [_, len, ..] if *len >= 2 => next.saturating_add(usize::from(*len)),
            _ => break,
        };
    }
    if clamped && checksum != (Checksum::Unfinished { start: at, offset: CHECKSUM }) {
        let field: &mut [u8; 2] = header.get_mut(usize::from(CHECKSUM)..)?.first_chunk_mut()?;
        change.add_value(!u16::from_be_bytes(*field));
        *field = change.checksum().to_be_bytes();
    }
    Some(clamped)
}

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TcpOptionElement, TransportSlice};
    use proptest::{collection::vec, prelude::*, sample::Index};

    use super::*;
    use crate::parse::parse;

    /// A SYN with options, and all checksums right.
    fn syn(v6: bool, syn: bool, options: &[u8], payload: &[u8]) -> Vec<u8> {
        let eth = PacketBuilder::ethernet2([2; 6], [4; 6]);
        let ip = if v6 { eth.ipv6([0x20; 16], [0x31; 16], 64) } else { eth.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64) };
        let tcp = ip.tcp(1000, 80, 7, 8);
        let tcp = if syn { tcp.syn() } else { tcp.psh() };
        let mut frame = Vec::new();
        tcp.options_raw(options).unwrap().write(&mut frame, payload).unwrap();
        frame
    }

    fn parsed(frame: &[u8]) -> Parsed {
        parse(frame, u32::try_from(frame.len()).unwrap()).unwrap()
    }

    /// The MSS, and whether the TCP checksum is right.
    fn theirs(frame: &[u8]) -> (Option<u16>, bool) {
        let sliced = SlicedPacket::from_ethernet(frame).unwrap();
        let Some(TransportSlice::Tcp(tcp)) = sliced.transport else { panic!("no TCP") };
        let sum = match sliced.net.unwrap() {
            NetSlice::Ipv4(ip) => tcp.calc_checksum_ipv4(ip.header().source(), ip.header().destination()),
            NetSlice::Ipv6(ip) => tcp.calc_checksum_ipv6(ip.header().source(), ip.header().destination()),
            NetSlice::Arp(_) => panic!("ARP"),
        };
        let mss = tcp.options_iterator().find_map(|option| match option {
            Ok(TcpOptionElement::MaximumSegmentSize(mss)) => Some(mss),
            _ => None,
        });
        (mss, sum.unwrap() == tcp.checksum())
    }

    proptest! {
        #[test]
        fn a_larger_size_is_lowered_and_nothing_else(
            v6: bool,
            is_syn: bool,
            mss: u16,
            max: u16,
            before in vec(prop_oneof![Just(vec![1]), Just(vec![4, 2]), Just(vec![3, 3, 7])], 0..8),
            payload in vec(any::<u8>(), 0..40),
        ) {
            let mut options = before.concat();
            options.extend([2, 4]);
            options.extend(mss.to_be_bytes());
            let old = syn(v6, is_syn, &options, &payload);
            prop_assert_eq!(theirs(&old), (Some(mss), true));
            let mut new = old.clone();
            let clamped = clamp_mss(&mut new, &parsed(&old), max, Checksum::Unknown);
            prop_assert_eq!(clamped, is_syn && mss > max);
            prop_assert_eq!(theirs(&new), (Some(if clamped { max } else { mss }), true));
            let changed = old.iter().zip(&new).filter(|(old, new)| old != new).count();
            prop_assert!(clamped && changed <= 4 || changed == 0);

            // An unfinished checksum is finished over what was changed.
            let at = parsed(&old).layout.transport.unwrap();
            let state = Checksum::Unfinished { start: at, offset: 16 };
            let mut later = old.clone();
            let sum = usize::from(at) + 16;
            let mut pseudo = Sum::new();
            pseudo.add(&old[if v6 { 22..54 } else { 26..34 }]);
            pseudo.add_value(6);
            pseudo.add_value(u16::try_from(old.len() - usize::from(at)).unwrap());
            later[sum..sum + 2].copy_from_slice(&pseudo.partial().to_be_bytes());
            clamp_mss(&mut later, &parsed(&old), max, state);
            crate::checksum::complete_checksum(&mut later, state).unwrap();
            prop_assert_eq!(later, new);
        }

        #[test]
        fn no_options_are_dangerous(v6: bool, words in vec(any::<[u8; 4]>(), 0..11), max: u16, cut: Index) {
            let old = syn(v6, true, &words.concat(), &[]);
            let mut new = old.clone();
            let clamped = clamp_mss(&mut new, &parsed(&old), max, Checksum::Unknown);
            prop_assert!(theirs(&new).1);
            if !clamped {
                prop_assert_eq!(&new, &old);
            }
            // A window that ends anywhere behind what the parser needs.
            let end = usize::from(parsed(&old).layout.end);
            let cut = end + cut.index(old.len() - end + 1);
            let mut window = old[..cut].to_vec();
            clamp_mss(&mut window, &parsed(&old), max, Checksum::Unknown);
            window.extend(&old[cut..]);
            prop_assert!(theirs(&window).1);
        }
    }

    #[test]
    fn a_size_behind_nonsense_or_the_end_is_none() {
        for options in [
            &[0, 0, 0, 0, 2, 4, 5, 0xb4][..],
            &[9, 0, 0, 0, 2, 4, 5, 0xb4],
            &[9, 1, 0, 0, 2, 4, 5, 0xb4],
            &[9, 200, 0, 0, 2, 4, 5, 0xb4],
            &[2, 3, 5, 0xb4],
            &[1, 1, 2, 4],
            &[1, 1, 1, 2],
            &[],
        ] {
            let mut frame = syn(false, true, options, &[5, 0xb4]);
            let parsed = parsed(&frame);
            assert!(!clamp_mss(&mut frame, &parsed, 100, Checksum::Unknown), "{options:?}");
        }
        let mut twice = syn(false, true, &[2, 4, 5, 0xb4, 2, 4, 0xff, 0xff], &[]);
        let parsed = parsed(&twice);
        assert!(clamp_mss(&mut twice, &parsed, 1400, Checksum::Unknown));
        assert_eq!(twice[54..62], [2, 4, 5, 0x78, 2, 4, 5, 0x78]);
        assert!(theirs(&twice).1);
    }

    #[test]
    fn what_is_no_tcp_is_left_alone() {
        let mut frame = Vec::new();
        let udp = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).udp(1, 2);
        udp.write(&mut frame, &[2, 4, 0xff, 0xff, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 4, 0xff, 0xff]).unwrap();
        let old = frame.clone();
        assert!(!clamp_mss(&mut frame, &parsed(&old), 100, Checksum::Unknown));
        assert_eq!(frame, old);
    }
}
