// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Segments against an independent parser: `etherparse` builds the frame, reads each segment and
//! computes its checksums.

use etherparse::{
    IpFragOffset, IpHeaders, Ipv4Header, Ipv6Header, NetSlice, PacketBuilder, SlicedPacket, TcpHeader, TransportSlice,
    VlanHeader,
};
use proptest::{collection::vec, prelude::*};

use super::*;

mod stacks;
mod unfinished;

#[derive(Clone, Debug)]
struct Scene {
    v6: bool,
    vlans: usize,
    extensions: usize,
    ip_options: Vec<u8>,
    tcp_options: Vec<u8>,
    tcp: TcpHeader,
    id: u16,
    payload: Vec<u8>,
    padding: usize,
    size: u16,
}

fn words(max: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<[u8; 4]>(), 0..=max).prop_map(|words| words.concat())
}

prop_compose! {
    fn scene()(
        v6: bool,
        vlans in 0usize..3,
        extensions in 0usize..4,
        ip_options in words(10),
        tcp_options in words(10),
        flags: [bool; 9],
        ports: (u16, u16),
        numbers: (u32, u32),
        id: u16,
        payload in vec(any::<u8>(), 0..6000),
        padding in 0usize..3,
        size in MIN_SIZE..3000,
    ) -> Scene {
        let mut tcp = TcpHeader::new(ports.0, ports.1, numbers.0, 1234);
        tcp.acknowledgment_number = numbers.1;
        [tcp.ns, tcp.fin, tcp.syn, tcp.rst, tcp.psh, tcp.ack, tcp.urg, tcp.ece, tcp.cwr] = flags;
        Scene { v6, vlans, extensions, ip_options, tcp_options, tcp, id, payload, padding, size }
    }
}

impl Scene {
    /// The frame as a guest sends it: the TCP checksum is that of the pseudo-header at best.
    fn frame(&self) -> Vec<u8> {
        let eth = PacketBuilder::ethernet2([2; 6], [4; 6]);
        let ip = if self.v6 {
            let header =
                Ipv6Header { hop_limit: 64, source: [0x20; 16], destination: [0x31; 16], ..Ipv6Header::default() };
            IpHeaders::Ipv6(header, etherparse::Ipv6Extensions::default())
        } else {
            let mut header = Ipv4Header::new(0, 64, etherparse::IpNumber::TCP, [10, 0, 0, 1], [10, 0, 0, 2]).unwrap();
            header.identification = self.id;
            header.options = self.ip_options.as_slice().try_into().unwrap();
            IpHeaders::Ipv4(header, etherparse::Ipv4Extensions::default())
        };
        let mut tcp = self.tcp.clone();
        tcp.set_options_raw(&self.tcp_options).unwrap();
        let mut frame = Vec::new();
        let builder = match self.vlans {
            0 => eth.ip(ip),
            1 => eth.single_vlan(7u16.try_into().unwrap()).ip(ip),
            _ => eth
                .vlan(VlanHeader::Double(etherparse::DoubleVlanHeader {
                    outer: etherparse::SingleVlanHeader {
                        ether_type: etherparse::EtherType::VLAN_TAGGED_FRAME,
                        ..Default::default()
                    },
                    inner: etherparse::SingleVlanHeader::default(),
                }))
                .ip(ip),
        };
        builder.tcp_header(tcp).write(&mut frame, &self.payload).unwrap();
        if self.v6 {
            self.add_extensions(&mut frame);
        }
        let l4 = frame.len() - self.payload.len() - self.tcp_options.len() - 20;
        frame[l4 + 16..l4 + 18].copy_from_slice(&[0xab, 0xcd]);
        frame.resize(frame.len() + self.padding, 0x77);
        frame
    }

    /// Hop-by-hop, destination options and a used-up routing header, of 8, 16 and 24 bytes.
    fn add_extensions(&self, frame: &mut Vec<u8>) {
        let l3 = 14 + 4 * self.vlans;
        let kinds = &[0u8, 60, 43][..self.extensions];
        let mut bytes = Vec::new();
        for (i, _) in kinds.iter().enumerate() {
            let mut header = vec![0; 8 * (i + 1)];
            header[0] = kinds.get(i + 1).copied().unwrap_or(6);
            header[1] = u8::try_from(i).unwrap();
            if kinds[i] != 43 {
                // One PadN option fills the header.
                header[2] = 1;
                header[3] = u8::try_from(header.len() - 4).unwrap();
            }
            bytes.extend(header);
        }
        if let Some(first) = kinds.first() {
            frame[l3 + 6] = *first;
        }
        let len = u16::from_be_bytes([frame[l3 + 4], frame[l3 + 5]]);
        let len = len + u16::try_from(bytes.len()).unwrap();
        frame[l3 + 4..l3 + 6].copy_from_slice(&len.to_be_bytes());
        frame.splice(l3 + 40..l3 + 40, bytes);
    }

    fn offload(&self) -> Offload {
        offload(if self.v6 { GsoKind::TcpV6 } else { GsoKind::TcpV4 }, self.size)
    }
}

fn offload(kind: GsoKind, size: u16) -> Offload {
    Offload {
        checksum: Checksum::Unfinished { start: 34, offset: 16 },
        segmentation: Some(Segmentation { kind, ecn: false, size, header_len: 0 }),
    }
}

fn segments(frame: &[u8], offload: &Offload) -> Vec<Vec<u8>> {
    let mut segmenter = Segmenter::new(frame, offload).unwrap();
    let mut out = vec![0x5a; 70_000];
    let mut all = Vec::new();
    let expected = segmenter.remaining();
    while let Some(len) = segmenter.next_len() {
        assert_eq!(segmenter.remaining(), expected - all.len());
        assert_eq!(segmenter.next_into(&mut out), Ok(Some(len)));
        assert_eq!(out[len], 0x5a, "wrote beyond the segment");
        all.push(out[..len].to_vec());
        out.fill(0x5a);
    }
    assert_eq!(segmenter.next_into(&mut out), Ok(None));
    assert_eq!(all.len(), expected);
    all
}

fn check_segment(scene: &Scene, bytes: &[u8], index: usize, count: usize) -> Vec<u8> {
    let parsed = SlicedPacket::from_ethernet(bytes).unwrap();
    let Some(TransportSlice::Tcp(tcp)) = parsed.transport else { panic!("no TCP") };
    let theirs = match parsed.net.unwrap() {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            assert_eq!(header.calc_header_checksum(), header.header_checksum);
            let index = u16::try_from(index).unwrap();
            assert_eq!(header.identification, scene.id.wrapping_add(index));
            assert_eq!(header.fragment_offset, IpFragOffset::ZERO);
            assert_eq!(usize::from(header.total_len), bytes.len() - 14 - 4 * scene.vlans);
            tcp.calc_checksum_ipv4(header.source, header.destination).unwrap()
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header().to_header();
            let len = bytes.len() - 14 - 4 * scene.vlans - 40;
            assert_eq!(usize::from(header.payload_length), len);
            tcp.calc_checksum_ipv6(header.source, header.destination).unwrap()
        }
        NetSlice::Arp(_) => panic!("ARP"),
    };
    // 0 and 0xffff are the same number, and we always send the latter.
    assert_eq!(tcp.checksum(), if theirs == 0 { 0xffff } else { theirs });
    let (first, last) = (index == 0, index + 1 == count);
    let offset = u32::try_from(index * usize::from(scene.size)).unwrap();
    let mut expected = scene.tcp.clone();
    expected.sequence_number = expected.sequence_number.wrapping_add(offset);
    expected.fin &= last;
    expected.psh &= last;
    expected.cwr &= first;
    expected.checksum = tcp.checksum();
    expected.set_options_raw(&scene.tcp_options).unwrap();
    assert_eq!(tcp.to_header(), expected);
    tcp.payload().to_vec()
}

proptest! {
    #[test]
    fn segments_are_what_an_independent_parser_expects(scene in scene()) {
        let frame = scene.frame();
        let all = segments(&frame, &scene.offload());
        let mut payload = Vec::new();
        for (i, segment) in all.iter().enumerate() {
            let part = check_segment(&scene, segment, i, all.len());
            let is_last = i + 1 == all.len();
            prop_assert!(is_last || part.len() == usize::from(scene.size));
            prop_assert!(part.len() <= usize::from(scene.size));
            payload.extend(part);
        }
        prop_assert_eq!(payload, scene.payload);
    }

    #[test]
    fn a_frame_cut_anywhere_is_refused_or_segmented(scene in scene(), cut: prop::sample::Index) {
        let frame = scene.frame();
        let whole = frame.len() - scene.padding;
        let cut = cut.index(frame.len());
        match Segmenter::new(&frame[..cut], &scene.offload()) {
            Ok(_) => prop_assert!(cut >= whole),
            Err(error) => {
                prop_assert!(cut < whole);
                prop_assert!(matches!(error, SegmentError::Truncated { .. }), "{}", error);
            }
        }
    }

    #[test]
    fn no_bytes_are_dangerous(
        scene in scene(),
        edits in vec((0usize..120, any::<u8>()), 0..6),
        room in 0usize..4000,
    ) {
        let mut frame = scene.frame();
        for (at, value) in edits {
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
        let mut out = vec![0; room];
        if let Ok(mut segmenter) = Segmenter::new(&frame, &scene.offload()) {
            let mut left = segmenter.remaining();
            while let Some(need) = segmenter.next_len() {
                match segmenter.next_into(&mut out) {
                    Ok(len) => prop_assert_eq!(len, Some(need)),
                    Err(error) => {
                        prop_assert_eq!(error, SegmentError::BufferTooSmall { need, have: room });
                        prop_assert_eq!(segmenter.remaining(), left);
                        break;
                    }
                }
                left -= 1;
            }
        }
    }

    #[test]
    fn noise_is_refused(frame in vec(any::<u8>(), 0..200), size: u16) {
        for kind in [GsoKind::TcpV4, GsoKind::TcpV6] {
            if let Ok(mut segmenter) = Segmenter::new(&frame, &offload(kind, size)) {
                while let Ok(Some(_)) = segmenter.next_into(&mut [0; 300]) {}
            }
        }
    }
}

fn plain(v6: bool, payload: usize) -> Scene {
    Scene {
        v6,
        vlans: 0,
        extensions: 0,
        ip_options: Vec::new(),
        tcp_options: Vec::new(),
        tcp: TcpHeader::new(1, 2, 3, 4),
        id: 0xffff,
        payload: vec![1; payload],
        padding: 0,
        size: 1000,
    }
}

#[test]
fn the_longest_frame_is_segmented_even_if_its_length_field_is_zero() {
    for v6 in [false, true] {
        let mut scene = plain(v6, 65_000);
        let mut frame = scene.frame();
        let at = if v6 { 18 } else { 16 };
        frame[at..at + 2].fill(0);
        frame.resize(frame.len() + 4000, 1);
        scene.payload.resize(69_000, 1);
        let all = segments(&frame, &scene.offload());
        assert_eq!(all.len(), 69);
        for (i, segment) in all.iter().enumerate() {
            check_segment(&scene, segment, i, all.len());
        }
    }
}

#[test]
fn what_cannot_be_segmented_says_why() {
    let scene = plain(false, 3000);
    let frame = scene.frame();
    let refused = |at: usize, value: u8| {
        let mut frame = frame.clone();
        frame[at] = value;
        Segmenter::new(&frame, &scene.offload()).unwrap_err()
    };
    assert_eq!(refused(20, 0x20), SegmentError::Fragment);
    assert_eq!(refused(21, 1), SegmentError::Fragment);
    assert_eq!(refused(23, 17), SegmentError::WrongProtocol { protocol: 17 });
    assert_eq!(refused(14, 0x44), SegmentError::HeaderLength { at: 14, len: 16 });
    assert_eq!(refused(46, 0x40), SegmentError::HeaderLength { at: 34, len: 16 });
    let kind = GsoKind::TcpV4;
    assert_eq!(refused(14, 0x65), SegmentError::WrongVersion { version: 6, kind });
    assert_eq!(refused(13, 6), SegmentError::WrongEtherType { ether_type: EtherType::ARP, kind });
    let with = |offload| Segmenter::new(&frame, &offload).unwrap_err();
    assert_eq!(with(Offload::NONE), SegmentError::Unasked);
    assert_eq!(with(offload(kind, 7)), SegmentError::SizeTooSmall { size: 7 });
    assert_eq!(with(offload(kind, 65_500)), SegmentError::SizeTooBig { size: 65_500 });

    let v6 = Scene { extensions: 3, ..plain(true, 3000) };
    let mut routed = v6.frame();
    routed[54 + 8 + 16 + 3] = 1;
    assert_eq!(Segmenter::new(&routed, &v6.offload()).unwrap_err(), SegmentError::SourceRouted);
    let mut endless = plain(true, 3000).frame();
    endless[20] = 60;
    endless[54..].fill(0);
    endless[54..].chunks_mut(8).for_each(|header| header[0] = 60);
    assert_eq!(Segmenter::new(&endless, &v6.offload()).unwrap_err(), SegmentError::TooManyExtensions { max: 8 });
}
