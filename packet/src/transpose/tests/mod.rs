// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Transpositions against their oracle.

mod cases;
mod frame;
mod naive;
mod strategies;

use proptest::prelude::*;

use self::{
    frame::Frame,
    naive::{Failure, apply_naively},
    strategies::{encap, frame, run},
};
use super::{Ecn, Encap, Header, Program, Rewrite, Transposition, Ttl};
use crate::{Burst, Checksum, DropCause, Field, Layout, Offload, PortId, Tunnel, WINDOW, parse};

/// All bytes of a frame to which a program is applied, and its metadata. What can be packed does the same packed.
fn applied(program: &Program, frame: &Frame, hash: u32) -> Result<(Vec<u8>, Offload), DropCause> {
    let plain = applied_by(|burst, layout| program.apply(burst, 0, layout, hash), frame);
    if let Some(packed) = Rewrite::of(program) {
        assert_eq!(applied_by(|burst, layout| packed.apply(burst, 0, layout, hash), frame), plain);
    }
    plain
}

fn applied_by(
    apply: impl Fn(&mut Burst, &Layout) -> Result<(), DropCause>,
    frame: &Frame,
) -> Result<(Vec<u8>, Offload), DropCause> {
    let bytes = frame.bytes();
    let mut burst = Burst::new();
    let len = bytes.len().min(WINDOW);
    burst.push(PortId(0), bytes.len() as u32, frame.offload(), 0).unwrap().copy_from_slice(&bytes[..len]);
    apply(&mut burst, &frame.layout())?;
    let all = [burst.window(0), &bytes[len..]].concat();
    assert_eq!(all.len(), burst.frame_len(0) as usize);
    Ok((all, burst.offload(0)))
}

/// The oracle's frame as bytes and metadata.
fn expected(frame: &Frame) -> (Vec<u8>, Offload) {
    (frame.bytes(), frame.offload())
}

/// That compiling and applying gives the oracle's answer.
fn check(ht: &Transposition, frame: &Frame, hash: u32, answer: &Result<Frame, Failure>) -> Result<(), TestCaseError> {
    let program = ht.compile(&frame.ufid(), &frame.layout());
    match (answer, program) {
        (Err(Failure::NotFor), program) => prop_assert!(program.is_err(), "compiled, but is not for it"),
        (Err(Failure::Dropped), Ok(program)) => {
            let cause = applied(&program, frame, hash).unwrap_err();
            prop_assert!(matches!(cause, DropCause::TtlExpired | DropCause::EcnNotCapable), "{cause}");
        }
        (Err(Failure::Dropped), Err(error)) => prop_assert!(false, "{error}"),
        (Ok(after), program) => {
            prop_assert_eq!(ht.after(&frame.ufid()), Ok(after.ufid()));
            let (bytes, offload) = applied(&program.unwrap(), frame, hash).unwrap();
            let parsed = parse::parse(&bytes[..bytes.len().min(WINDOW)], bytes.len() as u32).unwrap();
            prop_assert_eq!(parsed.ufid, after.ufid());
            let (right, right_offload) = expected(after);
            prop_assert_eq!(bytes, right);
            prop_assert_eq!(offload, right_offload);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, max_shrink_iters: 40_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// The frames are what the parser takes them for: the oracle's words and ours are the same.
    #[test]
    fn frames_are_parsed_as_they_were_built(frame in frame()) {
        let bytes = frame.bytes();
        let parsed = parse::parse(&bytes[..bytes.len().min(WINDOW)], bytes.len() as u32).unwrap();
        prop_assert_eq!(parsed.ufid, frame.ufid());
        prop_assert_eq!(parsed.layout, frame.layout());
    }

    #[test]
    fn vf_15_vf_16_compiled_equals_naive((frame, hts) in run(1), hash: u32) {
        let ht = &hts[0];
        check(ht, &frame, hash, &apply_naively(ht, &frame, hash))?;
    }

    #[test]
    fn vf_17_a_composition_equals_its_parts_in_turn((frame, hts) in run(3), hash: u32) {
        let mut answer = Ok(frame.clone());
        let mut composed = Ok(Transposition::default());
        for ht in &hts {
            answer = answer.and_then(|frame| apply_naively(ht, &frame, hash));
            composed = composed.and_then(|all| all.then(ht));
            match (&composed, &answer) {
                (Ok(composed), Err(Failure::Dropped)) => {
                    // What was dropped met no part after that; some of those may not have been for it.
                    if let Ok(program) = composed.compile(&frame.ufid(), &frame.layout()) {
                        prop_assert!(applied(&program, &frame, hash).is_err());
                    }
                }
                (Ok(composed), answer) => check(composed, &frame, hash, answer)?,
                (Err(_), answer) => prop_assert!(answer.is_err()),
            }
        }
    }

    #[test]
    fn vf_17_composition_is_associative((_, hts) in run(3)) {
        let left = hts[0].then(&hts[1]).and_then(|both| both.then(&hts[2]));
        let right = hts[1].then(&hts[2]).and_then(|both| hts[0].then(&both));
        prop_assert_eq!(left.ok(), right.ok());
    }

    #[test]
    fn vf_16_reverse_restores((frame, hts) in run(2)) {
        for ht in &hts {
            let before = frame.ufid();
            if let Ok(after) = ht.after(&before) {
                let reverse = ht.reverse(&before).unwrap();
                prop_assert_eq!(reverse.after(&after.reversed()), Ok(before.reversed()));
            }
        }
    }

    #[test]
    fn vf_16_a_pushed_group_that_is_popped_leaves_nothing(encap in encap(false)) {
        let encap = Encap { ecn: Ecn::encapsulate(), ..encap };
        let plain = Encap { ttl: Ttl::Literal(64), ..encap.clone() };
        prop_assert!(Transposition::push(plain).then(&Transposition::pop()).unwrap().is_identity());
        let uniform = Encap { ttl: Ttl::Minus(Header::Inner, 0), ..encap }.with(Field::OuterDscp, super::Value::Copy(Field::Dscp));
        let pop = Transposition::pop().with_ttl(Ttl::Minus(Header::Outer, 0));
        let pop = Transposition { fields: [(Field::Dscp, super::Value::Copy(Field::OuterDscp))].into(), ..pop };
        prop_assert!(Transposition::push(uniform).then(&pop).unwrap().is_identity());
    }

    /// One program for all packets of a flow, whatever their options.
    #[test]
    fn vf_9_vf_18_a_program_fits_other_packets_of_the_flow((frame, hts) in run(1), hash: u32) {
        let mut other = frame.clone();
        if let frame::Network::Ip(ip, transport) = &mut other.network {
            let options = if ip.src.is_ipv4() { vec![1, 1, 1, 1, 1, 1, 1, 0] } else { vec![1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] };
            ip.options = if ip.options.is_empty() { options } else { vec![] };
            ip.ttl = 77;
            transport.payload.truncate(31);
        }
        if let Some(outer) = &mut other.outer {
            outer.ip.ttl = 99;
            outer.ip.options = if outer.ip.src.is_ipv4() { vec![1, 1, 1, 0] } else { vec![] };
            outer.src_port ^= if matches!(outer.tunnel, Tunnel::Nvgre | Tunnel::Gre) { 0 } else { 5 };
        }
        prop_assert_eq!(frame.ufid(), other.ufid());
        if let Ok(program) = hts[0].compile(&frame.ufid(), &frame.layout()) {
            match apply_naively(&hts[0], &other, hash) {
                Ok(after) => prop_assert_eq!(applied(&program, &other, hash), Ok(expected(&after))),
                Err(failure) => {
                    prop_assert_eq!(failure, Failure::Dropped);
                    prop_assert!(applied(&program, &other, hash).is_err());
                }
            }
        }
    }

    #[test]
    fn no_bytes_and_no_layout_panic((frame, hts) in run(1), window in prop::collection::vec(any::<u8>(), 0..300), other in frame(), start: u16) {
        if let Ok(program) = hts[0].compile(&frame.ufid(), &frame.layout()) {
            for layout in [frame.layout(), other.layout()] {
                let mut burst = Burst::new();
                let offload = Offload { checksum: Checksum::Unfinished { start: start % 64, offset: 6 }, segmentation: None };
                let slot = burst.push(PortId(0), window.len() as u32, offload, 0).unwrap();
                let len = slot.len();
                slot.copy_from_slice(&window[..len]);
                let _ = program.apply(&mut burst, 0, &layout, 0);
                let _ = program.apply(&mut burst, 1, &layout, 0);
            }
        }
    }
}

/// The properties above are about packets that can be transposed: most must be.
#[test]
fn random_transpositions_are_mostly_for_their_frames() {
    use proptest::{strategy::ValueTree, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let (mut one, mut three) = (0, 0);
    for _ in 0..500 {
        let (frame, hts) = run(3).new_tree(&mut runner).unwrap().current();
        let mut answer = Ok(frame);
        for (index, ht) in hts.iter().enumerate() {
            answer = answer.and_then(|frame| apply_naively(ht, &frame, 0));
            one += u32::from(index == 0 && answer.is_ok());
        }
        three += u32::from(answer.is_ok());
    }
    assert!(one > 200 && three > 30, "{one} of 500, all three: {three}");
}
