// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! libFuzzer binary of [`fuzz::filter`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::filter(data));
