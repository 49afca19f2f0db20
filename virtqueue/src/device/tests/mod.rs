// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device side against hand-made rings.
