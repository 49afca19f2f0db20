// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Both sides of both rings, against a plain model of the specification and against each other.
//!
//! | module | what it shows |
//! |---|---|
//! | `model` | the oracle: a driver and a device that read the specification literally |
//! | `driver_model` | our driver against the model device, any operations in any order |
//! | `malformed_device` | our driver against devices that break the rules |

mod driver_model;
mod malformed_device;
mod model;
