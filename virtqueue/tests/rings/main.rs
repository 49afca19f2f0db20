// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Both sides of both rings, against a plain model of the specification and against each other.
//!
//! | module | what it shows |
//! |---|---|
//! | `model` | the oracle: a driver and a device that read the specification literally |
//! | `device_model` | our device side against the model driver, any operations in any order |
//! | `dirty_log` | what a device changes, against the log of dirty pages |
//! | `driver_model` | our driver side against the model device, any operations in any order |
//! | `ends` | a sender and a receiver for the next two |
//! | `threads` | device against driver across two threads, every combination of features |
//! | `differential` | packed against split |
//! | `malformed_device` | our driver side against devices that break the rules |
//!
//! Drivers that break the rules are in `src/device/tests/` and, at random, in the fuzz targets.

mod device_model;
mod differential;
mod dirty_log;
mod driver_model;
mod ends;
mod malformed_device;
mod model;
mod threads;
