// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The developer's front door.

fn main() {}
