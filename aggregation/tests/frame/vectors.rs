// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The test vectors of docs/aggregate-frame.md.

use std::collections::HashSet;

use aggregation::{Cause, Limits, Reader, TlvSet};
use serde_json::Value;

use crate::answer::answer;

pub(crate) const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors/frames.json");

/// Of each vector the name, the bytes, what a reader takes and what it must say.
fn vectors() -> Vec<(String, Vec<u8>, Limits, Value)> {
    let file: Value = serde_json::from_str(&std::fs::read_to_string(FILE).unwrap()).unwrap();
    let vectors = file["vectors"].as_array().unwrap().iter().map(|vector| {
        let pieces = vector["bytes"].as_array().unwrap().iter();
        let digits: String = pieces.map(|piece| piece[0].as_str().unwrap()).collect();
        let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
        let bytes = (0..digits.len()).step_by(2).map(byte).collect();
        let known =
            vector["known"].as_array().unwrap().iter().map(|kind| u8::try_from(kind.as_u64().unwrap()).unwrap());
        let verify = vector["verify"].as_bool().unwrap();
        let tlvs = known.fold(TlvSet::NONE, TlvSet::with);
        let limits = Limits { tlv_bytes: 4000, tlvs, verify, check_required: verify, ..Limits::NONE };
        (vector["name"].as_str().unwrap().to_owned(), bytes, limits, vector["expect"].clone())
    });
    vectors.collect()
}

/// KA-7: what anybody's reader must say.
#[test]
fn ka_7_every_vector_is_read_as_it_says() {
    let mut reader = Reader::default();
    for (name, bytes, limits, expected) in vectors() {
        assert_eq!(answer(&mut reader, &bytes, &limits), expected, "{name}");
    }
}

/// Each cause that bytes alone can have is in a vector.
#[test]
fn every_cause_has_a_vector() {
    let mut shown = HashSet::new();
    for (_, _, _, expected) in vectors() {
        let items = expected["items"].as_array().into_iter().flatten();
        shown.extend(items.filter_map(|item| item["damaged"].as_str()).map(str::to_owned));
        shown.extend(expected["error"].as_str().map(str::to_owned));
    }
    let by_limits = [Cause::TlvTooLong, Cause::TooManyGroups, Cause::TooManyPackets, Cause::Unreadable];
    for cause in Cause::ALL.into_iter().filter(|cause| !by_limits.contains(cause)) {
        assert!(shown.contains(cause.label()), "{cause}");
    }
}
