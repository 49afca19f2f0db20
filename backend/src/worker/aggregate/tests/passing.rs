// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Groups for other nodes: when they go on as they are, and when not (docs/aggregate-frame.md, 8 and 14).

use aggregation::Features;
use packet::{Checksum, Offload};

use super::super::wire::Wire;
use crate::worker::lab::{Came, Lab, Peer, node, packet, station, wire_config};

const ALL: [Features; 5] =
    [Features::TEMPLATE, Features::CHECKSUM, Features::GSO, Features::CHECK, Features::GROUP_CRC];

/// Two peers of node 1, one that grants all, and one that lacks something; the second has a station.
fn scene(lacks: &[Features]) -> (Lab, Peer, Peer) {
    let mut lab = Lab::new(1, &[Some(wire_config(1)), Some(wire_config(1))]);
    let near = Peer::join(&mut lab, 0, 2);
    let features = ALL.into_iter().filter(|feature| !lacks.contains(feature));
    let features = features.fold(Features::default(), Features::with);
    let wire = Wire::with_features(node(3), wire_config(3), features, lab.now_ns());
    let mut far = Peer::join_as(&mut lab, 1, wire);
    far.send(&mut lab, 0, &[packet(station(9), station(3), 0, 60)]);
    lab.run();
    far.receive(&mut lab);
    far.got.clear();
    (lab, near, far)
}

/// Twelve packets for the station: so many that a template is worth it.
fn packets() -> Vec<Vec<u8>> {
    (0..12).map(datagram).collect()
}

/// UDP over IPv4, 80 bytes with all headers, between the two stations.
fn datagram(number: u32) -> Vec<u8> {
    let mut bytes = [&station(3).0[..], &station(2).0, &[8, 0, 0x45, 0, 0, 66, 0, 1, 0x40, 0, 64, 17, 0, 0]].concat();
    bytes.extend([10, 0, 0, 2, 10, 0, 0, 3, 0xc0, 0, 0x30, 0, 0, 46, 0, 0]);
    bytes.extend(number.to_be_bytes());
    bytes.resize(80, 0x5a);
    bytes
}

/// Sends packets, all with this offload, through node 1 to node 3. What came there of them, and of which groups. Where a station is that was
/// seen is told as well; that is left out.
fn through(lab: &mut Lab, near: &mut Peer, far: &mut Peer, offload: Offload) -> Vec<Came> {
    let frame = near.frame(lab, 3, &packets(), offload);
    lab.send(0, &[frame]);
    lab.run();
    far.receive(lab);
    let is_one = |(_, packet): &Came| packet.get(12..14) == Some(&[8, 0]);
    std::mem::take(&mut far.got).into_iter().filter(is_one).collect()
}

fn unfinished() -> Offload {
    Offload { checksum: Checksum::Unfinished { start: 34, offset: 6 }, segmentation: None }
}

#[test]
fn a_group_goes_whole_to_who_grants_as_much() {
    for lacks in [&[][..], &[Features::GSO], &[Features::GSO, Features::CHECKSUM]] {
        let (mut lab, mut near, mut far) = scene(lacks);
        let got = through(&mut lab, &mut near, &mut far, Offload::NONE);
        assert_eq!(got.into_iter().map(|(_, packet)| packet).collect::<Vec<_>>(), packets());
        assert!(!lab.worker.path.bridge.entries().any(|entry| entry.mac == station(2)), "nothing was looked at");
    }
}

/// A feature may only be used if it was granted: what holds more is taken apart.
#[test]
fn a_group_with_more_than_was_granted_is_taken_apart() {
    let cases =
        [(Features::TEMPLATE, Offload::NONE), (Features::GROUP_CRC, Offload::NONE), (Features::CHECKSUM, unfinished())];
    for (lacks, offload) in cases {
        let (mut lab, mut near, mut far) = scene(&[lacks]);
        let got = through(&mut lab, &mut near, &mut far, offload);
        assert!(lab.worker.path.bridge.entries().any(|entry| entry.mac == station(2)), "{lacks:?}: it was looked at");
        assert_eq!(got.len(), 12, "{lacks:?}");
        for ((_, got), sent) in got.iter().zip(packets()) {
            assert_eq!((&got[..40], got.len()), (&sent[..40], sent.len()), "{lacks:?}");
            // What was unfinished is finished now.
            assert_eq!(got[40..42] != sent[40..42], lacks == Features::CHECKSUM, "{lacks:?}");
        }
        assert!(far.used.common(lacks).is_empty(), "{lacks:?}: {:?}", far.used);
    }
}
