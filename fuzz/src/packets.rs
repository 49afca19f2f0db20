// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Frames of any bytes, parsed and transposed.

use packet::transpose::Header;
use packet::transpose::{Encap, Transposition, Ttl, Value};
use packet::{Burst, Field, Layout, MacAddr, Offload, PortId, Tunnel, Ufid, WINDOW};

/// The first two bytes say how much longer the frame is than its window; the rest is the window.
///
/// # Panics
/// If parsing or applying panics, if a header is said to lie outside the window, or if what a
/// transposition is said to make of an identity is not one that it can undergo.
pub fn packets(data: &[u8]) {
    let Some((more, bytes)) = data.split_first_chunk::<2>() else { return };
    let window = bytes.get(..WINDOW.min(bytes.len())).unwrap_or_default();
    let beyond = if window.len() == WINDOW { u32::from(u16::from_le_bytes(*more)) } else { 0 };
    let Ok(length) = u32::try_from(window.len()) else { return };
    let Ok(parsed) = packet::parse::parse(window, length + beyond) else { return };
    let Layout { outer, ethernet, network, transport, fragment_header, end, .. } = parsed.layout;
    let outer = outer.map(|outer| [outer.ip, outer.transport, outer.end]).into_iter().flatten();
    for at in outer.chain([ethernet, network, transport, fragment_header].into_iter().flatten()).chain([end]) {
        assert!(usize::from(at) <= window.len(), "{:?} in {} bytes", parsed.layout, window.len());
    }
    assert_eq!(Ufid::reversed(&parsed.ufid).reversed(), parsed.ufid);
    let mut burst = Burst::new();
    for transposition in transpositions() {
        let after = transposition.after(&parsed.ufid);
        let Ok(program) = transposition.compile(&parsed.ufid, &parsed.layout) else { continue };
        assert!(after.is_ok(), "it compiles, and leads nowhere");
        burst.clear();
        let Some(room) = burst.push(PortId(1), length + beyond, Offload::NONE, 0) else { return };
        room.copy_from_slice(window);
        // Expired, no headroom and the like are answers.
        let _ = program.apply(&mut burst, 0, &parsed.layout, 0x1234_5678);
    }
}

fn transpositions() -> [Transposition; 5] {
    let end = |low| (MacAddr([2, 0, 0, 0, 0, low]), [192, 0, 2, low].into());
    let nat = Transposition::default()
        .with(Field::IpSrc, Value::Ipv4([192, 0, 2, 7].into()))
        .with(Field::L4Src, Value::Number(4000));
    let six = Transposition::default().with(Field::IpDst, Value::Ipv6([0xfd00, 0, 0, 0, 0, 0, 0, 1].into()));
    let push = Transposition::push(Encap::new(Tunnel::Vxlan, 7, end(1), end(2)));
    let mut hop = Transposition::default();
    hop.ttl = Some(Ttl::Minus(Header::Inner, 1));
    [nat, six, push, Transposition::pop(), hop]
}
